//! Whether a stored zstd frame may be sent to a browser as it is. Pure, but for reading a file's first bytes.
//!
//! A frame says how much of what it has decoded must be kept to decode the rest; browsers refuse to keep more
//! than 8 MiB (RFC 9659).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use helix_routing::artifact::Encoding;

/// Largest window that `Content-Encoding: zstd` may ask for (RFC 9659 3).
const MAX_WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// Longest head of a frame (RFC 8878 3.1.1): magic, descriptor, window, dictionary, size.
const MAX_HEAD_BYTES: u64 = 18;
/// First four bytes of a frame.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Whether encoded bytes can be sent under `Content-Encoding: zstd`.
pub(super) fn sendable(encoding: Encoding, encoded: &[u8]) -> bool {
    encoding == Encoding::Zstd && window(encoded).is_some_and(|window| window <= MAX_WINDOW_BYTES)
}

/// The same of a file; one that cannot be read cannot be sent.
pub(super) fn sendable_file(encoding: Encoding, path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_HEAD_BYTES).read_to_end(&mut head));
    read.is_ok() && sendable(encoding, &head)
}

/// The window a frame asks for, in bytes (RFC 8878 3.1.1.1.2); none when it is no frame, or needs a dictionary.
fn window(frame: &[u8]) -> Option<u64> {
    let descriptor = *frame.strip_prefix(&MAGIC)?.first()?;
    if descriptor & 0b11 != 0 {
        return None;
    }
    if descriptor & 0b10_0000 == 0 {
        let byte = u64::from(*frame.get(5)?);
        let base = 1_u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * (byte & 7));
    }
    // A single segment: the window is the content.
    let width = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut size = [0; 8];
    size[..width].copy_from_slice(frame.get(5..5 + width)?);
    let more = if width == 2 { 256 } else { 0 };
    u64::from_le_bytes(size).checked_add(more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn streamed(window_log: u32, content: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_window_is_what_the_frame_says() {
        assert_eq!(window(&streamed(20, b"x")), Some(1 << 20));
        assert_eq!(window(&streamed(24, b"x")), Some(1 << 24));
        for size in [0, 1, 255, 256, 300, 70_000] {
            let frame = zstd::bulk::compress(&vec![7; size], 3).unwrap();
            assert_eq!(window(&frame), Some(size as u64), "{size}");
        }
        for no_frame in [
            b"".as_slice(),
            b"\x28\xb5\x2f\xfd",
            b"\x28\xb5\x2f\xfd\x01\x00",
            b"plain",
        ] {
            assert_eq!(window(no_frame), None);
        }
    }

    #[test]
    fn frames_that_browsers_refuse_are_not_sent() {
        assert!(sendable(Encoding::Zstd, &streamed(23, b"x")));
        assert!(!sendable(Encoding::Zstd, &streamed(24, b"x")));
        assert!(!sendable(Encoding::Identity, &streamed(20, b"x")));
    }
}
