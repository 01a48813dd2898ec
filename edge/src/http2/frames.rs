//! How many frames a client sends that cost work and carry nothing.
//!
//! Pure. Only the nine bytes before each frame are read (RFC 9113 4.1): h2 parses the frames, but does not
//! limit how many PING, SETTINGS, PRIORITY or unknown ones come. Requests and bodies are not counted here;
//! they have limits of their own.

use std::time::{Duration, Instant};

use crate::limits::{BYTES_PER_CONTROL_FRAME, CONTROL_FRAMES, CONTROL_FRAMES_PER_SECOND};

/// What a client sends before its first frame.
const PREFACE_BYTES: u32 = 24;
/// Bytes before each frame.
pub(super) const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// What some bytes brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Frames that begin a request.
    pub(super) heads: u32,
    /// Frames that carry nothing.
    pub(super) control: u32,
}

/// What happens to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A header block of it begins.
    Head(u32),
    /// The client resets it.
    Reset(u32),
}

/// Follows the frames of one connection, in bytes that arrive in any pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES],
    /// How much of `head` has come.
    have: usize,
    /// Bytes to come before the next head: payload, and the preface at first.
    payload: u32,
    /// How many frames have begun.
    number: u64,
    /// The frame that began a header block which has not ended.
    block: Option<u64>,
    /// Whether the block ends with the payload that is coming.
    block_ends: bool,
}

impl Frames {
    /// Before the preface.
    pub(super) const fn new() -> Self {
        Self {
            head: [0; HEAD_BYTES],
            have: 0,
            payload: PREFACE_BYTES,
            number: 0,
            block: None,
            block_ends: false,
        }
    }

    /// Goes over the next bytes, and tells what happens to streams in them.
    pub(super) fn look(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Event)) -> Seen {
        let mut seen = Seen::default();
        loop {
            let step = bytes
                .len()
                .min(usize::try_from(self.payload).unwrap_or(usize::MAX));
            self.payload -= u32::try_from(step).expect("no more than the payload");
            bytes = &bytes[step..];
            if self.payload == 0 && self.block_ends && self.have == 0 {
                (self.block, self.block_ends) = (None, false);
            }
            if bytes.is_empty() {
                return seen;
            }
            let step = bytes.len().min(HEAD_BYTES - self.have);
            self.head[self.have..self.have + step].copy_from_slice(&bytes[..step]);
            if self.have == 0 {
                self.number += 1;
            }
            self.have += step;
            bytes = &bytes[step..];
            if self.have == HEAD_BYTES {
                self.have = 0;
                self.begin(&mut seen, &mut tell);
            }
        }
    }

    /// The frame whose head, or whose header block, has begun and not ended.
    pub(super) fn unfinished_head(&self) -> Option<u64> {
        self.block
            .or_else(|| (self.have > 0).then_some(self.number))
    }

    fn begin(&mut self, seen: &mut Seen, tell: &mut impl FnMut(Event)) {
        let [a, b, c, kind, flags, i, d, e, f] = self.head;
        self.payload = u32::from_be_bytes([0, a, b, c]);
        // The first bit means nothing.
        let stream = u32::from_be_bytes([i & 0x7f, d, e, f]);
        match kind {
            HEADERS => {
                tell(Event::Head(stream));
                seen.heads += 1;
                self.block = Some(self.number);
                self.block_ends = flags & END_HEADERS != 0;
            }
            CONTINUATION => {
                seen.control += 1;
                self.block_ends = self.block.is_some() && flags & END_HEADERS != 0;
            }
            DATA if self.payload > 0 || flags & END_STREAM != 0 => {}
            kind => {
                seen.control += 1;
                if kind == RST_STREAM {
                    tell(Event::Reset(stream));
                }
            }
        }
        if self.payload == 0 && self.block_ends {
            (self.block, self.block_ends) = (None, false);
        }
    }
}

/// How many such frames a client may send: a stock that time and what it is sent fill up. A client that
/// takes much sends many window updates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: u64,
    since: Instant,
}

impl Budget {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            left: CONTROL_FRAMES,
            since: now,
        }
    }

    /// Takes `frames` from the stock. False when there are too few.
    pub(super) fn spend(&mut self, frames: u32, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        if seconds > 0 {
            self.since += Duration::from_secs(seconds);
            self.add(seconds.saturating_mul(CONTROL_FRAMES_PER_SECOND));
        }
        match self.left.checked_sub(u64::from(frames)) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// The client has taken `bytes`, of which `spare` were counted before; gives back what is left to count.
    pub(super) fn earn(&mut self, bytes: u64) -> u64 {
        self.add(bytes / BYTES_PER_CONTROL_FRAME);
        bytes % BYTES_PER_CONTROL_FRAME
    }

    fn add(&mut self, frames: u64) {
        self.left = self.left.saturating_add(frames).min(CONTROL_FRAMES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn look(bytes: &[u8]) -> (Seen, Option<u64>) {
        let mut frames = Frames::new();
        let seen = frames.look(&[PREFACE, bytes].concat(), |_| {});
        (seen, frames.unfinished_head())
    }

    #[test]
    fn only_frames_that_carry_nothing_are_counted() {
        for (bytes, heads, control) in [
            (frame(DATA, 0, b"x"), 0, 0),
            (frame(DATA, END_STREAM, b""), 0, 0),
            (frame(DATA, 0, b""), 0, 1),
            (frame(HEADERS, END_HEADERS, b"abc"), 1, 0),
            (frame(2, 0, b"12345"), 0, 1),
            (frame(3, 0, b"1234"), 0, 1),
            (frame(4, 0, b""), 0, 1),
            (frame(6, 0, b"12345678"), 0, 1),
            (frame(8, 0, b"1234"), 0, 1),
            (frame(0x77, 0, b"?"), 0, 1),
        ] {
            assert_eq!(
                look(&bytes),
                (Seen { heads, control }, None),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn a_header_block_is_unfinished_until_its_last_byte() {
        let whole = [
            frame(HEADERS, 0, b"ab"),
            frame(CONTINUATION, END_HEADERS, b"cd"),
        ]
        .concat();
        for end in 1..whole.len() {
            assert_eq!(look(&whole[..end]).1, Some(1), "after {end} bytes");
        }
        assert_eq!(look(&whole).1, None);
        assert_eq!(look(&frame(HEADERS, END_HEADERS, b"")).1, None);
        let data = frame(DATA, 0, b"abc");
        assert_eq!(look(&data[..11]).1, None);
        assert_eq!(look(&[data, vec![0]].concat()).1, Some(2));
    }

    #[test]
    fn the_stock_ends_fills_with_time_and_with_what_is_taken() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let all = u32::try_from(CONTROL_FRAMES).unwrap();
        assert!(budget.spend(all, start));
        assert!(!budget.spend(1, start));
        assert_eq!(budget.earn(3 * BYTES_PER_CONTROL_FRAME + 5), 5);
        assert!(budget.spend(3, start) && !budget.spend(1, start));
        let later = start + Duration::from_secs(1);
        let refilled = u32::try_from(CONTROL_FRAMES_PER_SECOND).unwrap();
        assert!(budget.spend(refilled, later) && !budget.spend(1, later));
        assert!(!budget.spend(all + 1, later + Duration::from_secs(100_000)));
    }

    proptest! {
        #[test]
        fn any_split_of_any_bytes_counts_the_same(
            bytes in proptest::collection::vec(0u8..12, 0..200),
            cuts in proptest::collection::vec(0usize..224, 0..8),
        ) {
            let bytes = [PREFACE, &bytes].concat();
            let mut whole = Frames::new();
            let mut told = Vec::new();
            let expected = whole.look(&bytes, |event| told.push(event));
            let mut cuts: Vec<_> = cuts.iter().map(|cut| (*cut).min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let mut frames = Frames::new();
            let (mut seen, mut again) = (Seen::default(), Vec::new());
            for pair in cuts.windows(2) {
                let part = frames.look(&bytes[pair[0]..pair[1]], |event| again.push(event));
                seen.heads += part.heads;
                seen.control += part.control;
            }
            prop_assert_eq!((seen, again), (expected, told));
            prop_assert_eq!(frames.unfinished_head(), whole.unfinished_head());
        }
    }
}
