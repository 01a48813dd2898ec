//! What several targets share: an input in the pieces in which it could arrive, and what no message may hold.

use std::ops::Range;

/// How many lengths of pieces an input begins with.
const STEPS: usize = 4;

/// Bytes that arrive in pieces.
#[derive(Clone, Copy)]
pub struct Pieces<'a> {
    steps: &'a [u8],
    /// All of them.
    pub bytes: &'a [u8],
}

impl<'a> Pieces<'a> {
    /// The first four bytes of `input` say how long the pieces of the rest are, in turn.
    pub fn of(input: &'a [u8]) -> Option<Self> {
        let (steps, bytes) = input.split_at_checked(STEPS)?;
        Some(Self { steps, bytes })
    }

    /// The same, of bytes from this place on.
    pub fn from(self, start: usize) -> Self {
        Self {
            bytes: &self.bytes[start..],
            ..self
        }
    }

    /// Where each piece lies: none is empty, and the last ends where the bytes do.
    pub fn ranges(self) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut start = 0;
        let mut steps = self.steps.iter().cycle();
        std::iter::from_fn(move || {
            let step = usize::from(*steps.next()?) + 1;
            let piece = start..(start + step).min(self.bytes.len());
            start = piece.end;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// Fails if `bytes` hold a line end that is not CR LF, or another control byte than the tab.
pub fn assert_clean(bytes: &[u8]) {
    for (at, byte) in bytes.iter().enumerate() {
        let legal = match byte {
            b'\n' => at > 0 && bytes[at - 1] == b'\r',
            b'\r' => bytes.get(at + 1) == Some(&b'\n'),
            b'\t' => true,
            _ => *byte >= b' ' && *byte != 0x7f,
        };
        assert!(legal, "byte {at} of {}", bytes.escape_ascii());
    }
}

/// The lines of `bytes`, which end with CR LF each, without those.
pub fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes;
    let mut lines = Vec::new();
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    assert!(
        rest.is_empty(),
        "{} after the last line",
        rest.escape_ascii()
    );
    lines
}
