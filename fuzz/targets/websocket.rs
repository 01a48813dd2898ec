//! Frames of a WebSocket: they end where a simple reading has them end, in whatever pieces they arrive, and a close put between
//! two of them is a frame of its own.
#![no_main]

use helix_framing::websocket::{Close, Frames};
use helix_fuzz::Pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(pieces) = Pieces::of(input) else {
        return;
    };
    let ends = ends(pieces.bytes);
    assert_eq!(in_pieces(pieces), ends);
    for close in [Close::GoingAway, Close::ServiceRestart] {
        for (frame, is_masked) in [(close.as_server(), false), (close.as_client(), true)] {
            // Up to the last place between two frames, then the close.
            let end = ends.last().copied().unwrap_or(0);
            let mut frames = Frames::default();
            frames.pass_all(&pieces.bytes[..end]);
            assert!(frames.is_between());
            assert_eq!(frames.pass(frame), frame.len());
            assert!(frames.is_between());
            assert_eq!(frame[1] & 0x80 != 0, is_masked);
        }
    }
});

fn in_pieces(pieces: Pieces<'_>) -> Vec<usize> {
    let (mut frames, mut found) = (Frames::default(), Vec::new());
    for piece in pieces.ranges() {
        let mut at = piece.start;
        while at < piece.end {
            let passed = frames.pass(&pieces.bytes[at..piece.end]);
            assert!(passed > 0);
            at += passed;
            if frames.is_between() {
                found.push(at);
            } else {
                assert_eq!(at, piece.end);
            }
        }
    }
    found
}

/// Where frames end: a second reading, of all bytes at once (RFC 6455 5.2).
fn ends(bytes: &[u8]) -> Vec<usize> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some([_, second]) = bytes.get(at..at + 2) {
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (extended, length) = match second & 0x7f {
            126 => (2, number(bytes, at + 2, 2)),
            127 => (8, number(bytes, at + 2, 8)),
            short => (0, Some(u64::from(short))),
        };
        let end = length
            .and_then(|length| usize::try_from(length).ok())
            .and_then(|length| (at + 2 + extended + mask).checked_add(length))
            .filter(|end| *end <= bytes.len());
        let Some(end) = end else { break };
        at = end;
        found.push(at);
    }
    found
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}
