//! What is measured.

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Static1k,
    Static100k,
    Proxy1k,
    Tls1k,
    Http2,
    Handshake,
    Http3,
}

impl Case {
    pub(crate) const ALL: [Self; 7] = [
        Self::Static1k,
        Self::Static100k,
        Self::Proxy1k,
        Self::Tls1k,
        Self::Http2,
        Self::Handshake,
        Self::Http3,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Static1k => "static-1k-h1",
            Self::Static100k => "static-100k-h1",
            Self::Proxy1k => "proxy-1k-h1",
            Self::Tls1k => "static-1k-tls-h1",
            Self::Http2 => "static-1k-h2",
            Self::Handshake => "handshake-full",
            Self::Http3 => "static-1k-h3",
        }
    }

    /// Path of the request.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Static1k | Self::Tls1k | Self::Http2 | Self::Handshake | Self::Http3 => "/1k.bin",
            Self::Static100k => "/100k.bin",
            Self::Proxy1k => "/proxy/1k.bin",
        }
    }

    /// The load generator and its settings, for the report.
    pub(crate) const fn load(self) -> &'static str {
        match self {
            Self::Static1k | Self::Static100k | Self::Proxy1k | Self::Tls1k => {
                "wrk, 1 thread, 64 connections, keep-alive"
            }
            Self::Http2 => "h2load, 1 thread, 16 connections of 16 streams, TLS 1.3",
            Self::Handshake => "4 x openssl s_time -new, TLS 1.3, one request per connection",
            Self::Http3 => "helix-bench h3-load, 16 connections of 8 streams",
        }
    }
}
