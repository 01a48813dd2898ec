//! Where a chunked body ends (RFC 9112 7.1).
//!
//! Pure; one byte decides the next state, and nothing is kept but numbers.
//!
//! ```text
//!  Size ─;─▶ Extension ─CR─▶ SizeEnd ─LF, n > 0─▶ Data ─▶ DataCr ─▶ DataLf ─▶ Size
//!    └──────CR─────────────────▲ └─LF, n = 0─▶ Trailer ─CR─▶ End ─LF─▶ Done
//!                                                 └─▶ TrailerName ─▶ TrailerValue ─CR─▶ TrailerEnd ─LF─▶ Trailer
//! ```

use super::{is_field_name, is_field_value, is_token};
use crate::limits::{MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES};

/// Most digits of a chunk size: fifteen hex digits cannot overflow.
const MAX_SIZE_DIGITS: u8 = 15;

/// The bytes are no chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub struct ChunkError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { size: u64, digits: u8 },
    Extension { size: u64, at: Extension },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    End,
    Done,
}

/// What of an extension was read last (RFC 9112 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    Semicolon,
    Name,
    Equals,
    Value,
    Quoted,
    Escape,
    Closed,
}

impl Extension {
    /// None where `byte` may not follow: neither may white space, which the RFC would have us forgive.
    const fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Name | Self::Value | Self::Closed, b';') => Self::Semicolon,
            (Self::Name, b'=') => Self::Equals,
            (Self::Equals, b'"') => Self::Quoted,
            (Self::Quoted, b'"') => Self::Closed,
            (Self::Quoted, b'\\') => Self::Escape,
            (Self::Semicolon | Self::Name, _) if is_token(byte) => Self::Name,
            (Self::Equals | Self::Value, _) if is_token(byte) => Self::Value,
            (Self::Quoted | Self::Escape, _) if is_field_value(byte) => Self::Quoted,
            _ => return None,
        })
    }

    /// Whether the line may end here.
    const fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::Closed)
    }
}

/// How many bytes of which kind come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkPart {
    /// They say where chunks begin and end.
    Framing(usize),
    /// They are the body's.
    Data(usize),
    /// They are of its trailer section: whole lines with their ends, in the end.
    Trailer(usize),
}

/// Follows one chunked body from its first byte to its last.
#[derive(Clone, Copy, Debug)]
pub struct Chunks {
    state: State,
    /// Bytes of the line being read; of all lines, in the trailer section.
    line: usize,
}

impl Chunks {
    /// At the first byte of a body.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self {
            state: State::Size { size: 0, digits: 0 },
            line: 0,
        }
    }

    /// Goes over `bytes` up to the end of the body, and says how many belong to it.
    ///
    /// # Errors
    /// When they are malformed; what was gone over before is lost then.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, ChunkError> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let step = left.min((bytes.len() - at) as u64);
                self.state = if left == step {
                    State::DataCr
                } else {
                    State::Data { left: left - step }
                };
                at += usize::try_from(step).expect("a step is no longer than the slice");
            } else {
                self.state = self.next(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// What the first of `bytes` are, as far as they are of one kind; they count as gone over.
    ///
    /// # Errors
    /// When they are malformed.
    pub fn part(&mut self, bytes: &[u8]) -> Result<ChunkPart, ChunkError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Data { left } if at == 0 && !bytes.is_empty() => {
                    let step = left.min(bytes.len() as u64);
                    let step = usize::try_from(step).expect("a step is no longer than the slice");
                    return self.advance(&bytes[..step]).map(ChunkPart::Data);
                }
                State::Data { .. } | State::Done => return Ok(ChunkPart::Framing(at)),
                State::Trailer | State::TrailerName | State::TrailerValue | State::TrailerEnd
                    if at == 0 && !bytes.is_empty() =>
                {
                    self.state = self.next(bytes[0])?;
                    return Ok(if self.state == State::End {
                        ChunkPart::Framing(1)
                    } else {
                        ChunkPart::Trailer(1)
                    });
                }
                _ if at == bytes.len() => return Ok(ChunkPart::Framing(at)),
                State::Trailer | State::TrailerName | State::TrailerValue | State::TrailerEnd => {
                    return Ok(ChunkPart::Framing(at));
                }
                State::Size { .. }
                | State::Extension { .. }
                | State::SizeEnd { .. }
                | State::DataCr
                | State::DataLf
                | State::End => {
                    self.state = self.next(bytes[at])?;
                    at += 1;
                }
            }
        }
    }

    /// Whether the body has ended.
    #[must_use]
    #[inline]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn next(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.count()?;
        Ok(match (self.state, byte) {
            (State::Size { size, digits }, _)
                if byte.is_ascii_hexdigit() && digits < MAX_SIZE_DIGITS =>
            {
                State::Size {
                    size: size * 16 + hex_value(byte),
                    digits: digits + 1,
                }
            }
            (State::Size { size, digits: 1.. }, b';') => State::Extension {
                size,
                at: Extension::Semicolon,
            },
            (State::Size { size, digits: 1.. }, b'\r') => State::SizeEnd { size },
            (State::Extension { size, at }, b'\r') if at.may_end() => State::SizeEnd { size },
            (State::Extension { size, at }, _) => State::Extension {
                size,
                at: at.next(byte).ok_or(ChunkError)?,
            },
            (State::SizeEnd { size: 0 }, b'\n') => self.start(State::Trailer),
            (State::SizeEnd { size }, b'\n') => self.start(State::Data { left: size }),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => self.start(State::Size { size: 0, digits: 0 }),
            (State::Trailer, b'\r') => State::End,
            (State::Trailer | State::TrailerName, _) if is_field_name(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, _) if is_field_value(byte) => State::TrailerValue,
            (State::TrailerEnd, b'\n') => State::Trailer,
            (State::End, b'\n') => State::Done,
            _ => return Err(ChunkError),
        })
    }

    /// Begins a state whose bytes are counted anew.
    fn start(&mut self, state: State) -> State {
        self.line = 0;
        state
    }

    fn count(&mut self) -> Result<(), ChunkError> {
        self.line += 1;
        let limit = match self.state {
            State::Trailer
            | State::TrailerName
            | State::TrailerValue
            | State::TrailerEnd
            | State::End => MAX_TRAILER_BYTES,
            State::Size { .. }
            | State::Extension { .. }
            | State::SizeEnd { .. }
            | State::Data { .. }
            | State::DataCr
            | State::DataLf
            | State::Done => MAX_CHUNK_LINE_BYTES,
        };
        if self.line > limit {
            Err(ChunkError)
        } else {
            Ok(())
        }
    }
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

fn hex_value(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end_of(bytes: &[u8]) -> Result<(usize, bool), ChunkError> {
        let mut chunks = Chunks::new();
        let end = chunks.advance(bytes)?;
        Ok((end, chunks.is_done()))
    }

    #[test]
    fn a_body_ends_after_its_last_chunk_and_trailers() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "A\r\n0123456789\r\n00\r\n\r\n",
            "1;name=value\r\nx\r\n0;last\r\n\r\n",
            "0\r\nExpires: now\r\nX-Empty:\r\n\r\n",
            "1;a;b_c=d;e=\"f; \t\\\" \u{e4}\";g=\"\"\r\nx\r\n0;h\r\n\r\n",
        ] {
            let with_more = format!("{body}GET / HTTP/1.1\r\n");
            assert_eq!(
                end_of(with_more.as_bytes()),
                Ok((body.len(), true)),
                "{body:?}"
            );
        }
        assert_eq!(end_of(b"5\r\nhel"), Ok((6, false)));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for body in [
            "\r\n",
            "x\r\n",
            " 5\r\n",
            "5 \r\n",
            "+5\r\n",
            "0x5\r\n",
            ";a\r\n",
            "5\n",
            "5\r\r\n",
            "1\r\nxy\r\n",
            "1\r\nx\n",
            "1;a\nb\r\n",
            "1;\0\r\n",
            "1;\r\n",
            "1; a\r\n",
            "1;a \r\n",
            "1;a =b\r\n",
            "1;a=\r\n",
            "1;a= b\r\n",
            "1;=b\r\n",
            "1;a=b=c\r\n",
            "1;a=\"b\r\n",
            "1;a=\"b\\\"\r\n",
            "1;a=\"b\"c\r\n",
            "1;a=\"\0\"\r\n",
            "1;\u{e4}\r\n",
            "0\r\n X: y\r\n",
            "0\r\nX : y\r\n",
            "0\r\nX_Y: z\r\n",
            "0\r\n: y\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\n",
            "0000000000000000\r\n\r\n",
        ] {
            assert_eq!(end_of(body.as_bytes()), Err(ChunkError), "{body:?}");
        }
        let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(MAX_CHUNK_LINE_BYTES));
        assert_eq!(end_of(extension.as_bytes()), Err(ChunkError));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_TRAILER_BYTES / 4));
        assert_eq!(end_of(trailers.as_bytes()), Err(ChunkError));
    }

    fn any_split(bytes: &[u8], cuts: &[usize]) -> Result<(usize, bool), ChunkError> {
        let mut cuts: Vec<_> = cuts
            .iter()
            .map(|cut| (*cut).min(bytes.len()))
            .chain([0, bytes.len()])
            .collect();
        cuts.sort_unstable();
        let mut chunks = Chunks::new();
        let mut end = 0;
        for pair in cuts.windows(2) {
            end += chunks.advance(&bytes[pair[0]..pair[1]])?;
        }
        Ok((end, chunks.is_done()))
    }

    proptest! {
        #[test]
        fn any_split_of_any_bytes_ends_at_the_same_place(
            bytes in proptest::collection::vec(proptest::sample::select(b"0123af;:\r\n\r\n\r\nx \0".to_vec()), 0..80),
            cuts in proptest::collection::vec(0usize..80, 0..8),
        ) {
            prop_assert_eq!(any_split(&bytes, &cuts), end_of(&bytes));
        }

        #[test]
        fn what_was_encoded_ends_where_it_was_ended(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..6),
            after in proptest::collection::vec(any::<u8>(), 0..40),
            cuts in proptest::collection::vec(0usize..2000, 0..8),
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            let length = bytes.len();
            bytes.extend_from_slice(&after);
            prop_assert_eq!(any_split(&bytes, &cuts), Ok((length, true)));
        }

        #[test]
        fn parts_are_the_data_and_the_trailers_however_they_are_split(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..6),
            cuts in proptest::collection::vec(0usize..2000, 0..8),
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:x};e\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\nA: b\r\nC:\r\n\r\nGET /");
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let (mut machine, mut data, mut trailers) = (Chunks::new(), Vec::new(), Vec::new());
            let mut gone_over = 0;
            for pair in cuts.windows(2) {
                let mut rest = &bytes[pair[0]..pair[1]];
                while !rest.is_empty() && !machine.is_done() {
                    let count = match machine.part(rest).unwrap() {
                        ChunkPart::Framing(count) => count,
                        ChunkPart::Data(count) => { data.extend_from_slice(&rest[..count]); count }
                        ChunkPart::Trailer(count) => { trailers.extend_from_slice(&rest[..count]); count }
                    };
                    prop_assert!(count > 0);
                    rest = &rest[count..];
                    gone_over += count;
                }
            }
            prop_assert!(machine.is_done());
            prop_assert_eq!(gone_over, bytes.len() - 5);
            prop_assert_eq!(data, chunks.concat());
            prop_assert_eq!(trailers, b"A: b\r\nC:\r\n");
        }
    }
}
