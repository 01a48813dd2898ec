//! Where a request head ends, in bytes that arrive in any pieces.
//!
//! Pure. Only CR LF ends a line, and a bare LF is refused as soon as it is seen: waiting for a CR LF
//! that never comes would turn a smuggling attempt into a held connection.

use super::Refusal;
use crate::limits::MAX_HEAD_BYTES;

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a connection begins as HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It may: more bytes are needed.
    Undecided,
}

/// Whether `bytes`, the first of a connection, are those of HTTP/2.
#[must_use]
#[inline]
pub fn preface(bytes: &[u8]) -> Preface {
    if bytes.starts_with(PREFACE) {
        Preface::Yes
    } else if PREFACE.starts_with(bytes) {
        Preface::Undecided
    } else {
        Preface::No
    }
}

/// What a look at the bytes so far says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The head is not complete.
    More,
    /// The head is the first this many bytes, with the empty line at its end.
    Complete(usize),
}

/// Looks for the end of one head, and looks at each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    seen: usize,
    line_start: usize,
}

impl HeadScan {
    /// Looks at what was added to `bytes` since the last look. `bytes` starts where the head starts.
    ///
    /// # Errors
    /// When a line ends with a bare LF, or the head is too large.
    pub fn look(&mut self, bytes: &[u8]) -> Result<Scan, Refusal> {
        let window = &bytes[..bytes.len().min(MAX_HEAD_BYTES)];
        while let Some(found) = memchr::memchr(b'\n', window.get(self.seen..).unwrap_or_default()) {
            let newline = self.seen + found;
            let line = &window[self.line_start..newline];
            if line.last() != Some(&b'\r') {
                return Err(Refusal::LineEnding);
            }
            self.seen = newline + 1;
            if line.len() == 1 {
                return Ok(Scan::Complete(self.seen));
            }
            self.line_start = self.seen;
        }
        self.seen = window.len();
        if window.len() == MAX_HEAD_BYTES {
            Err(Refusal::HeadTooLarge)
        } else {
            Ok(Scan::More)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_ends_at_its_first_empty_line() {
        for (bytes, expected) in [
            (b"GET / HTTP/1.1\r\n\r\n".as_slice(), Ok(Scan::Complete(18))),
            (
                b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest\r\n\r\n",
                Ok(Scan::Complete(24)),
            ),
            (b"GET / HTTP/1.1\r\nA: b\r\n", Ok(Scan::More)),
            (b"", Ok(Scan::More)),
            (b"GET / HTTP/1.1\n\n", Err(Refusal::LineEnding)),
            (
                b"GET / HTTP/1.1\r\nA: b\nB: c\r\n\r\n",
                Err(Refusal::LineEnding),
            ),
            (b"GET / HTTP/1.1\r\n\n", Err(Refusal::LineEnding)),
        ] {
            assert_eq!(
                HeadScan::default().look(bytes),
                expected,
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_limit() {
        let line = b"a: 0123456789\r\n".repeat(MAX_HEAD_BYTES / 10);
        assert_eq!(
            HeadScan::default().look(&line[..MAX_HEAD_BYTES - 1]),
            Ok(Scan::More)
        );
        assert_eq!(HeadScan::default().look(&line), Err(Refusal::HeadTooLarge));
    }

    #[test]
    fn only_the_whole_preface_is_http2() {
        assert_eq!(preface(b""), Preface::Undecided);
        assert_eq!(preface(b"P"), Preface::Undecided);
        assert_eq!(preface(b"PO"), Preface::No);
        assert_eq!(preface(&PREFACE[..23]), Preface::Undecided);
        assert_eq!(
            preface(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"),
            Preface::Yes
        );
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_finds_the_same_end(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a')], 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..8),
        ) {
            let whole = HeadScan::default().look(&bytes);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([bytes.len()]).collect();
            cuts.sort_unstable();
            let mut scan = HeadScan::default();
            let mut pieces = Ok(Scan::More);
            for cut in cuts {
                if pieces == Ok(Scan::More) {
                    pieces = scan.look(&bytes[..cut]);
                }
            }
            prop_assert_eq!(pieces, whole);
        }
    }
}
