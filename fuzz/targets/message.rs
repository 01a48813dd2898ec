//! Messages of HTTP/3: the same head, body and trailers in whatever pieces their frames arrive, as a simple reading of them has it.
#![no_main]

use bytes::Bytes;
use helix_framing::http3::{DATA, Frames, HEADERS, Part, variable};
use helix_framing::limits::MAX_HEAD_BYTES;
use helix_fuzz::Pieces;
use libfuzzer_sys::fuzz_target;

/// As the edge has them.
const MAX_EMPTY_FRAMES: u32 = 64;
const MAX_UNKNOWN_BYTES: u64 = 64 * 1024;

/// What a message was found to be, up to where its bytes end or it is none.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    head: Option<Vec<u8>>,
    body: Vec<u8>,
    trailers: Option<Vec<u8>>,
    /// Whether the stream may end there.
    is_whole: bool,
    is_refused: bool,
}

fuzz_target!(|input: &[u8]| {
    let Some(pieces) = Pieces::of(input) else {
        return;
    };
    assert_eq!(in_pieces(pieces), simply(pieces.bytes));
});

fn in_pieces(pieces: Pieces<'_>) -> Message {
    let mut frames = Frames::default();
    let mut message = Message::default();
    for piece in pieces.ranges() {
        let mut input = Bytes::copy_from_slice(&pieces.bytes[piece]);
        loop {
            match frames.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Part::Data(part))) => message.body.extend_from_slice(&part),
                Ok(Some(Part::Fields(section))) if message.head.is_none() => {
                    message.head = Some(section.to_vec());
                }
                Ok(Some(Part::Fields(section))) => message.trailers = Some(section.to_vec()),
                Err(_) => {
                    message.is_refused = true;
                    return message;
                }
            }
        }
        assert!(input.is_empty());
    }
    message.is_whole = frames.is_whole();
    message
}

/// A second reading, of all bytes at once.
fn simply(mut bytes: &[u8]) -> Message {
    let mut message = Message::default();
    let (mut sections, mut empty, mut unknown) = (0, 0, 0u64);
    loop {
        message.is_whole = bytes.is_empty() && sections > 0;
        let mut start = bytes;
        let (Some(kind), Some(length)) = (variable(&mut start), variable(&mut start)) else {
            return message;
        };
        let is_legal = match kind {
            HEADERS if sections < 2 => {
                sections += 1;
                length > 0 && length <= MAX_HEAD_BYTES as u64
            }
            DATA if sections == 1 => {
                empty += u32::from(length == 0);
                true
            }
            // Those that HTTP/3 has elsewhere, those that HTTP/2 had, and those out of place.
            0x0..=0x9 | 0xd => false,
            _ => {
                empty += 1;
                unknown = unknown.saturating_add(length);
                unknown <= MAX_UNKNOWN_BYTES
            }
        };
        if !is_legal || empty > MAX_EMPTY_FRAMES {
            message.is_whole = false;
            message.is_refused = true;
            return message;
        }
        let here = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(start.len());
        let (payload, rest) = start.split_at(here);
        bytes = rest;
        let has_ended = here as u64 == length;
        match kind {
            DATA => message.body.extend_from_slice(payload),
            HEADERS if has_ended && sections == 1 => message.head = Some(payload.to_vec()),
            HEADERS if has_ended => message.trailers = Some(payload.to_vec()),
            _ => {}
        }
        if !has_ended {
            message.is_whole = false;
            return message;
        }
    }
}
