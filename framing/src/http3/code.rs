//! Why streams and connections end (RFC 9114 8.1, RFC 9204 6).

/// An error code as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Nothing is wrong.
    NoError = 0x100,
    /// Whoever answers failed.
    Internal = 0x102,
    /// A stream that may not be.
    StreamCreation = 0x103,
    /// A stream ended that a connection needs.
    ClosedCriticalStream = 0x104,
    /// A frame where none of its kind may be.
    FrameUnexpected = 0x105,
    /// A frame that is not what its type says.
    FrameError = 0x106,
    /// More than anybody needs.
    ExcessiveLoad = 0x107,
    /// A number that may not be.
    Id = 0x108,
    /// Settings that may not be.
    Settings = 0x109,
    /// The first frame of the control stream is another.
    MissingSettings = 0x10a,
    /// Not looked at; may be tried elsewhere.
    RequestRejected = 0x10b,
    /// Broken off.
    RequestCancelled = 0x10c,
    /// A field section cannot be decoded.
    QpackDecompressionFailed = 0x200,
    /// An instruction for a table that was not offered.
    QpackEncoderStream = 0x201,
}

impl Code {
    /// As it is sent.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
}
