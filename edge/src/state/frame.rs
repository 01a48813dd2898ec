//! Pure: how state lies in a file, one checksummed frame after the other.
//!
//! ```text
//! "hxf1"  length u32 LE  first 8 bytes of SHA-256 over length and payload  payload
//! ```
//!
//! A frame whose checksum fails is told apart from a tail that was cut off by a crash: the first is damage
//! and later frames are still read, the second is where the file ends. It does not judge what a frame says.

use helix_routing::id::Incarnation;
use helix_routing::time::Timestamp;
use helix_routing::wire::Wire;
use serde::{Deserialize, Serialize};

pub(super) const MAGIC: [u8; 4] = *b"hxf1";
/// Bytes before a frame's payload.
const HEAD_BYTES: usize = 16;
/// A sealed record is at most 256 KiB; this leaves room for what stands around it.
const MAX_PAYLOAD_BYTES: usize = 512 * 1024;

/// One thing that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Frame {
    /// A record that was taken over.
    Record(StoredRecord),
    /// How far the stream is known, where no record says it.
    Position(Position),
    /// The stream no longer has this key.
    Dropped {
        /// The key.
        key: String,
    },
    /// The end of a base file of frames, which is not whole without it. No longer written.
    End {
        /// How many records stand before it.
        records: u64,
    },
    /// What follows is complete only behind this base. Since version 2.
    Behind {
        /// The base's number.
        base: u64,
    },
}

/// A sealed record and where it stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredRecord {
    /// Its sequence; 0 when it says nothing about the position.
    pub sequence: u64,
    /// When it was taken over.
    pub received: Timestamp,
    /// Its key in the stream.
    pub key: String,
    /// The envelope, as published.
    pub sealed: Vec<u8>,
}

/// How far a stream is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The life of the stream; none before the first contact.
    pub incarnation: Option<Incarnation>,
    /// The last sequence taken over.
    pub sequence: u64,
    /// When the stream was last known to be followed to its end.
    pub contact: Timestamp,
}

impl Wire for Frame {
    const WHAT: &'static str = "state frame";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = MAX_PAYLOAD_BYTES;
    const OLDEST: u8 = 1;

    /// Version 1 lacked the last kind, and was the same otherwise.
    fn older(_version: u8, body: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes(body) {
            Ok((Self::Behind { .. }, _)) | Err(_) => None,
            Ok((frame, rest)) => rest.is_empty().then_some(frame),
        }
    }
}

/// What a file's bytes hold next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A frame, and the bytes after it.
    Frame(Box<Frame>, &'a [u8]),
    /// Bytes that were a frame once, and the bytes after it.
    Damaged(&'a [u8]),
    /// No frame begins here: the end, or a tail that was cut off.
    End,
}

/// Appends `frame` to `bytes`.
pub(super) fn write(frame: &Frame, bytes: &mut Vec<u8>) {
    let payload = frame.encode();
    let length = u32::try_from(payload.len())
        .expect("records are far smaller than 4 GiB")
        .to_le_bytes();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&checksum(length, &payload));
    bytes.extend_from_slice(&payload);
}

/// Reads what stands at the start of `bytes`.
#[must_use]
pub(super) fn read(bytes: &[u8]) -> Next<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Next::End;
    };
    let [m0, m1, m2, m3, l0, l1, l2, l3, sum @ ..] = head;
    let length = [*l0, *l1, *l2, *l3];
    let size = u32::from_le_bytes(length) as usize;
    let whole = [*m0, *m1, *m2, *m3] == MAGIC && size <= MAX_PAYLOAD_BYTES && size <= rest.len();
    if !whole {
        return next_magic(bytes).map_or(Next::End, Next::Damaged);
    }
    let (payload, rest) = rest.split_at(size);
    if checksum(length, payload) != *sum {
        // The length itself may be what was damaged, so the next frame is looked for, not computed.
        return next_magic(bytes).map_or(Next::End, Next::Damaged);
    }
    Frame::decode(payload).map_or(Next::Damaged(rest), |frame| {
        Next::Frame(Box::new(frame), rest)
    })
}

/// The bytes from the next place on where a frame could begin.
fn next_magic(bytes: &[u8]) -> Option<&[u8]> {
    let after = bytes.get(1..)?;
    memchr::memmem::find(after, &MAGIC).map(|at| &after[at..])
}

fn checksum(length: [u8; 4], payload: &[u8]) -> [u8; 8] {
    let mut sum = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    sum.update(&length);
    sum.update(payload);
    let digest = sum.finish();
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dropped(key: &str) -> Frame {
        Frame::Dropped {
            key: key.to_owned(),
        }
    }

    fn read_all(mut bytes: &[u8]) -> (Vec<Frame>, bool) {
        let (mut frames, mut damaged) = (Vec::new(), false);
        loop {
            match read(bytes) {
                Next::Frame(frame, rest) => {
                    frames.push(*frame);
                    bytes = rest;
                }
                Next::Damaged(rest) => {
                    damaged = true;
                    bytes = rest;
                }
                Next::End => return (frames, damaged),
            }
        }
    }

    #[test]
    fn version_1_is_still_read() {
        let frame = Frame::Position(Position {
            incarnation: None,
            sequence: 7,
            contact: Timestamp::from_millis(300),
        });
        let fixture = [1, 1, 0, 7, 0xac, 2];
        assert_eq!(Frame::decode(&fixture).unwrap(), frame);
    }

    #[test]
    fn version_2_is_written() {
        let frame = Frame::Behind { base: 300 };
        let fixture = [2, 4, 0xac, 2];
        assert_eq!(Frame::decode(&fixture).unwrap(), frame);
        assert_eq!(frame.encode(), fixture);
    }

    #[test]
    fn a_tail_that_was_cut_off_is_the_end() {
        let mut bytes = Vec::new();
        write(&dropped("a"), &mut bytes);
        let first = bytes.len();
        write(&dropped("b"), &mut bytes);
        for cut in first..bytes.len() {
            assert_eq!(
                read_all(&bytes[..cut]),
                (vec![dropped("a")], false),
                "cut at {cut}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_costs_one_frame_at_most(position in 0_usize..2000, bit in 0_u8..8) {
            let frames: Vec<Frame> = (0..20).map(|n| dropped(&format!("key {n} {}", "x".repeat(40)))).collect();
            let mut bytes = Vec::new();
            for frame in &frames {
                write(frame, &mut bytes);
            }
            let position = position % bytes.len();
            bytes[position] ^= 1 << bit;
            let (read, _) = read_all(&bytes);
            prop_assert!(read.len() >= 19);
            prop_assert!(read.iter().all(|frame| frames.contains(frame)));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            read_all(&bytes);
        }
    }
}
