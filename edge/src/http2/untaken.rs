//! Requests whose heads came and that h2 never gave to the connection's loop: it answered them itself.
//!
//! Pure. h2 resets the stream of a malformed head, and answers 431 to one that is too large, and tells nobody of either. So
//! streams are noted when their heads begin and struck out when the loop takes them; of what h2 writes the nine
//! bytes before each frame are read (RFC 9113 4.1), and of a reset its reason. Nothing is decided here.

use std::collections::VecDeque;

use super::frames::{HEAD_BYTES, HEADERS, RST_STREAM};
use crate::limits::{MAX_RESET_STREAMS, MAX_STREAMS};

/// Most that are noted. Reading pauses until the loop has taken what came, so there are never more than can be open; the
/// rest is for streams that were reset before they were taken.
const MOST: usize = MAX_STREAMS as usize + MAX_RESET_STREAMS;

/// Bytes of a frame that are read at most: those before it, and a reset's reason.
const READ_BYTES: usize = HEAD_BYTES + 4;

/// No fault of the head: there are too many streams at once (RFC 9113 8.7).
const REFUSED_STREAM: u32 = 0x7;

/// What h2 answered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The stream was reset: the head is malformed.
    Malformed,
    /// The head is too large, which the client was told by status.
    TooLarge,
}

/// Those of one connection.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    /// Ids of streams, rising.
    streams: VecDeque<u32>,
    /// The newest stream of all; what comes of an older one are its trailers.
    newest: u32,
    refused: Vec<Refused>,
    head: [u8; READ_BYTES],
    /// How much of `head` has come.
    have: usize,
    /// Bytes to be written before the next frame.
    payload: usize,
}

impl Untaken {
    /// A header block of this stream has begun.
    pub(super) fn begin(&mut self, stream: u32) {
        if stream <= self.newest {
            return;
        }
        self.newest = stream;
        if self.streams.len() == MOST {
            self.streams.pop_front();
        }
        self.streams.push_back(stream);
    }

    /// The loop has it, or the client no longer wants it. False if it was not noted.
    pub(super) fn strike(&mut self, stream: u32) -> bool {
        let at = self.streams.iter().position(|other| *other == stream);
        at.and_then(|at| self.streams.remove(at)).is_some()
    }

    /// Strikes out what is left.
    pub(super) fn drain(&mut self) -> usize {
        std::mem::take(&mut self.streams).len()
    }

    /// What was refused since this was asked last.
    pub(super) fn refused(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.refused)
    }

    /// Goes over the next bytes that are written.
    pub(super) fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let step = bytes.len().min(self.payload);
            self.payload -= step;
            bytes = &bytes[step..];
            let wanted = if self.have >= HEAD_BYTES {
                READ_BYTES
            } else {
                HEAD_BYTES
            };
            let step = bytes.len().min(wanted - self.have);
            self.head[self.have..self.have + step].copy_from_slice(&bytes[..step]);
            self.have += step;
            bytes = &bytes[step..];
            if self.have == wanted {
                self.frame();
            }
        }
    }

    /// Takes the frame whose start has come; of a reset all has to have come.
    fn frame(&mut self) {
        let [a, b, c, kind, _, i, d, e, f, reason @ ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == RST_STREAM && length == reason.len() && self.have == HEAD_BYTES {
            return;
        }
        self.payload = length.saturating_sub(self.have - HEAD_BYTES);
        self.have = 0;
        let refused = match kind {
            HEADERS => Refused::TooLarge,
            RST_STREAM => Refused::Malformed,
            _ => return,
        };
        let struck = !self.streams.is_empty() && self.strike(u32::from_be_bytes([i, d, e, f]));
        let crowded = kind == RST_STREAM && u32::from_be_bytes(reason) == REFUSED_STREAM;
        if struck && !crowded {
            self.refused.push(refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, 0], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    }

    /// What h2 might write to streams of which the loop took 3 and 9.
    fn written() -> Vec<u8> {
        [
            frame(4, 0, &[0; 12]),
            frame(HEADERS, 3, b"a response"),
            frame(0, 3, b"its body"),
            frame(HEADERS, 1, b"431"),
            frame(RST_STREAM, 1, &1u32.to_be_bytes()),
            frame(RST_STREAM, 5, &1u32.to_be_bytes()),
            frame(RST_STREAM, 7, &REFUSED_STREAM.to_be_bytes()),
            frame(RST_STREAM, 9, &8u32.to_be_bytes()),
            frame(6, 0, &[0; 8]),
        ]
        .concat()
    }

    fn noted() -> Untaken {
        let mut untaken = Untaken::default();
        for stream in [1, 3, 5, 7, 9, 11, 3] {
            untaken.begin(stream);
        }
        assert!(untaken.strike(3) && untaken.strike(9) && !untaken.strike(9));
        untaken
    }

    #[test]
    fn what_h2_answers_and_the_loop_never_took_is_refused() {
        let mut untaken = noted();
        untaken.look(&written());
        assert_eq!(untaken.refused(), [Refused::TooLarge, Refused::Malformed]);
        assert_eq!(untaken.refused(), []);
        assert_eq!(untaken.drain(), 1, "nobody has answered 11");
    }

    #[test]
    fn no_more_are_noted_than_can_be_open() {
        let mut untaken = Untaken::default();
        (0..1000).for_each(|number| untaken.begin(2 * number + 1));
        assert_eq!(untaken.drain(), MOST);
    }

    proptest! {
        #[test]
        fn any_split_of_what_is_written_says_the_same(cuts in proptest::collection::vec(0usize..120, 0..8)) {
            let bytes = written();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| (*cut).min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let mut untaken = noted();
            for pair in cuts.windows(2) {
                untaken.look(&bytes[pair[0]..pair[1]]);
            }
            prop_assert_eq!(untaken.refused(), [Refused::TooLarge, Refused::Malformed]);
        }
    }
}
