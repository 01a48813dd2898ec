//! Frames of a request stream (RFC 9114 7): where a field section and where a body lies in the bytes.
//!
//! Pure: bytes in, parts out. It holds no more than one unfinished field section, and a body is handed on
//! as it comes. Anything a peer may send for ever without meaning is counted against a limit.

use super::code::Code;
use crate::limits::MAX_HEAD_BYTES;
use bytes::{Buf, Bytes, BytesMut};

/// Most frames of one message that carry nothing: unknown ones, and those without a byte. Extensions
/// and greasing send a few.
const MAX_EMPTY_FRAMES: u32 = 64;

/// Most bytes of unknown frames in one message.
const MAX_UNKNOWN_BYTES: u64 = 64 * 1024;

/// The type of a frame with some of a body.
pub const DATA: u64 = 0x0;
/// The type of a frame with a field section.
pub const HEADERS: u64 = 0x1;
pub(super) const CANCEL_PUSH: u64 = 0x3;
pub(super) const SETTINGS: u64 = 0x4;
pub(super) const PUSH_PROMISE: u64 = 0x5;
pub(super) const GOAWAY: u64 = 0x7;
pub(super) const MAX_PUSH_ID: u64 = 0xd;
/// Of a request's stream (RFC 9218 7.2).
pub(super) const PRIORITY_UPDATE: u64 = 0xf_0700;
/// Of a push.
pub(super) const PRIORITY_UPDATE_PUSH: u64 = 0xf_0701;

/// Types that HTTP/2 has and HTTP/3 forbids (RFC 9114 11.2.1).
pub(super) const fn is_reserved(kind: u64) -> bool {
    matches!(kind, 0x2 | 0x6 | 0x8 | 0x9)
}

/// What a message consists of.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// A whole encoded field section: the head, or the trailers.
    Fields(Bytes),
    /// Some of the body.
    Data(Bytes),
}

/// Why the bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The connection cannot go on.
    Connection(Code),
    /// The head is larger than [`MAX_HEAD_BYTES`] even while encoded.
    HeadTooLarge,
    /// The trailers are.
    TrailersTooLarge,
}

/// Reads the frames of one message.
#[derive(Debug, Default)]
pub struct Frames {
    within: Within,
    stage: Stage,
    empty: u32,
    unknown: u64,
}

/// Where in a frame the next byte lies.
#[derive(Debug, Default)]
enum Within {
    #[default]
    Between,
    Header(Header),
    Fields {
        section: BytesMut,
        left: usize,
    },
    Data {
        left: u64,
    },
    Unknown {
        left: u64,
    },
}

/// What has been read of the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Nothing,
    Head,
    Trailers,
}

impl Frames {
    /// The next part that `input` holds; none when it needs more. Data is a view of `input`.
    ///
    /// # Errors
    /// When a frame may not be there, or is too large.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Part>, FrameError> {
        while !input.is_empty() {
            match &mut self.within {
                Within::Between => self.within = Within::Header(Header::default()),
                Within::Header(header) => {
                    if let Some((kind, length)) = header.take(input) {
                        self.within = self.enter(kind, length)?;
                    }
                }
                Within::Unknown { left } => {
                    let skipped = (*left).min(input.len() as u64);
                    input.advance(usize::try_from(skipped).unwrap_or(usize::MAX));
                    *left -= skipped;
                    if *left == 0 {
                        self.within = Within::Between;
                    }
                }
                Within::Data { left } => {
                    let taken = (*left).min(input.len() as u64);
                    *left -= taken;
                    if *left == 0 {
                        self.within = Within::Between;
                    }
                    let taken = usize::try_from(taken).unwrap_or(usize::MAX);
                    return Ok(Some(Part::Data(input.split_to(taken))));
                }
                Within::Fields { section, left } => {
                    let taken = (*left).min(input.len());
                    let part = input.split_to(taken);
                    *left -= taken;
                    if *left > 0 {
                        section.extend_from_slice(&part);
                        continue;
                    }
                    let whole = if section.is_empty() {
                        part
                    } else {
                        section.extend_from_slice(&part);
                        std::mem::take(section).freeze()
                    };
                    self.within = Within::Between;
                    return Ok(Some(Part::Fields(whole)));
                }
            }
        }
        Ok(None)
    }

    /// Whether the stream may end here.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.within, Within::Between) && !matches!(self.stage, Stage::Nothing)
    }

    fn enter(&mut self, kind: u64, length: u64) -> Result<Within, FrameError> {
        match (kind, self.stage) {
            (HEADERS, Stage::Nothing) => {
                self.stage = Stage::Head;
                Self::fields(length, FrameError::HeadTooLarge)
            }
            (HEADERS, Stage::Head) => {
                self.stage = Stage::Trailers;
                Self::fields(length, FrameError::TrailersTooLarge)
            }
            (DATA, Stage::Head) if length == 0 => {
                self.empty()?;
                Ok(Within::Between)
            }
            (DATA, Stage::Head) => Ok(Within::Data { left: length }),
            (DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID, _) => {
                Err(FrameError::Connection(Code::FrameUnexpected))
            }
            (kind, _) if is_reserved(kind) => Err(FrameError::Connection(Code::FrameUnexpected)),
            _ => {
                self.empty()?;
                self.unknown = self.unknown.saturating_add(length);
                if self.unknown > MAX_UNKNOWN_BYTES {
                    return Err(FrameError::Connection(Code::ExcessiveLoad));
                }
                Ok(if length == 0 {
                    Within::Between
                } else {
                    Within::Unknown { left: length }
                })
            }
        }
    }

    fn fields(length: u64, too_large: FrameError) -> Result<Within, FrameError> {
        match usize::try_from(length) {
            // A section without its two first bytes is none.
            Ok(0) => Err(FrameError::Connection(Code::QpackDecompressionFailed)),
            Ok(left) if left <= MAX_HEAD_BYTES => Ok(Within::Fields {
                section: BytesMut::new(),
                left,
            }),
            _ => Err(too_large),
        }
    }

    fn empty(&mut self) -> Result<(), FrameError> {
        self.empty += 1;
        if self.empty > MAX_EMPTY_FRAMES {
            return Err(FrameError::Connection(Code::ExcessiveLoad));
        }
        Ok(())
    }
}

/// Type and length of a frame, of which the bytes may come one by one.
#[derive(Debug, Default)]
pub(super) struct Header {
    bytes: [u8; 16],
    have: usize,
}

impl Header {
    /// Takes what belongs to it; type and length once they are whole.
    pub(super) fn take(&mut self, input: &mut Bytes) -> Option<(u64, u64)> {
        while !input.is_empty() {
            self.bytes[self.have] = input.get_u8();
            self.have += 1;
            let mut rest = &self.bytes[..self.have];
            if let (Some(kind), Some(length)) = (variable(&mut rest), variable(&mut rest)) {
                return Some((kind, length));
            }
        }
        None
    }
}

/// Reads a variable-length integer (RFC 9000 16). None when it is not whole.
pub fn variable(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let length = 1usize << (first >> 6);
    let (whole, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let start = u64::from(first & 0x3f);
    Some(
        whole[1..]
            .iter()
            .fold(start, |number, byte| number << 8 | u64::from(*byte)),
    )
}

/// Writes a variable-length integer (RFC 9000 16). `number` must be below 2^62.
pub fn put_variable(buffer: &mut BytesMut, number: u64) {
    let bytes = number.to_be_bytes();
    let (length, mark) = match number {
        0..0x40 => (1, 0),
        0x40..0x4000 => (2, 0x40),
        0x4000..0x4000_0000 => (4, 0x80),
        _ => (8, 0xc0),
    };
    let at = buffer.len();
    buffer.extend_from_slice(&bytes[8 - length..]);
    buffer[at] |= mark;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        put_variable(&mut bytes, kind);
        put_variable(&mut bytes, payload.len() as u64);
        bytes.extend_from_slice(payload);
        bytes.to_vec()
    }

    /// Everything in `bytes`, handed over in pieces of `size`.
    fn parts(bytes: &[u8], size: usize) -> (Vec<Part>, Result<bool, FrameError>) {
        let mut frames = Frames::default();
        let mut parts: Vec<Part> = Vec::new();
        for piece in bytes.chunks(size) {
            let mut input = Bytes::copy_from_slice(piece);
            loop {
                match frames.next(&mut input) {
                    Ok(None) => break,
                    Ok(Some(Part::Data(more))) => match parts.last_mut() {
                        Some(Part::Data(data)) => *data = [data.as_ref(), &more].concat().into(),
                        _ => parts.push(Part::Data(more)),
                    },
                    Ok(Some(part)) => parts.push(part),
                    Err(error) => return (parts, Err(error)),
                }
            }
        }
        (parts, Ok(frames.is_whole()))
    }

    #[test]
    fn a_message_is_the_same_in_pieces_of_any_size() {
        let message = [
            frame(0x21, b"grease"),
            frame(HEADERS, b"head"),
            frame(DATA, &[7; 300]),
            frame(0x4021, b""),
            frame(DATA, b""),
            frame(HEADERS, b"trailers"),
        ]
        .concat();
        for size in [1, 2, 3, 50, 1000] {
            let (parts, end) = parts(&message, size);
            assert_eq!(end, Ok(true));
            let expected = [
                Part::Fields(Bytes::from_static(b"head")),
                Part::Data(vec![7; 300].into()),
                Part::Fields(Bytes::from_static(b"trailers")),
            ];
            assert_eq!(parts, expected);
        }
        assert_eq!(parts(&message[..message.len() - 1], 9).1, Ok(false));
        assert_eq!(parts(b"", 1).1, Ok(false));
    }

    #[test]
    fn frames_out_of_place_end_the_connection() {
        let head = frame(HEADERS, b"head");
        let unexpected = Err(FrameError::Connection(Code::FrameUnexpected));
        for message in [
            frame(DATA, b"x"),
            [head.clone(), head.clone(), head.clone()].concat(),
            [head.clone(), head.clone(), frame(DATA, b"x")].concat(),
            [head, frame(SETTINGS, b"")].concat(),
            frame(GOAWAY, &[0]),
            frame(MAX_PUSH_ID, &[0]),
            frame(CANCEL_PUSH, &[0]),
            frame(PUSH_PROMISE, &[0]),
            frame(0x2, b""),
            frame(0x9, b""),
        ] {
            assert_eq!(parts(&message, 100).1, unexpected, "{message:x?}");
        }
    }

    #[test]
    fn a_head_that_says_it_is_large_is_refused_before_it_comes() {
        let mut bytes = BytesMut::new();
        put_variable(&mut bytes, HEADERS);
        put_variable(&mut bytes, 1 << 61);
        assert_eq!(parts(&bytes, 100).1, Err(FrameError::HeadTooLarge));
    }

    #[test]
    fn frames_without_meaning_end_at_a_limit() {
        let head = frame(HEADERS, b"head");
        let excessive = Err(FrameError::Connection(Code::ExcessiveLoad));
        for noise in [frame(DATA, b""), frame(0x21, b""), frame(0x21, &[0; 4096])] {
            let message = [head.clone(), noise.repeat(100)].concat();
            assert_eq!(parts(&message, 1000).1, excessive);
        }
    }

    proptest! {
        #[test]
        fn numbers_come_back(number in 0u64..1 << 62) {
            let mut bytes = BytesMut::new();
            put_variable(&mut bytes, number);
            prop_assert_eq!(variable(&mut bytes.as_ref()), Some(number));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..50) {
            let _ = parts(&bytes, size);
        }
    }
}
