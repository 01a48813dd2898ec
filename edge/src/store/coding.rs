//! Whether an encoded content decodes to what it should. Pure, over readers.
//!
//! Asked once, before a variant that no signed record vouches for is offered to anyone; what is sent is never decoded.

use std::io::{self, Read};

use helix_routing::artifact::ContentEncoding;
use helix_routing::id::Digest;
use helix_service::digest::Sha256;

/// Largest zstd window, as a power of two: browsers take no larger one (RFC 9659 3).
const MAX_WINDOW_LOG: u32 = 23;
/// Read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Whether `encoded` decodes to exactly the content of this digest and size. No more than one byte beyond it is decoded.
pub(super) fn decodes_to(
    encoding: ContentEncoding,
    encoded: impl Read,
    content: &Digest,
    size: u64,
) -> io::Result<bool> {
    let limit = size.saturating_add(1);
    let decoded: Box<dyn Read + '_> = match encoding {
        ContentEncoding::Br => Box::new(brotli_decompressor(encoded).take(limit)),
        ContentEncoding::Gzip => Box::new(flate2::read::GzDecoder::new(encoded).take(limit)),
        ContentEncoding::Zstd => {
            let mut decoder = zstd::Decoder::new(encoded)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder.take(limit))
        }
    };
    Ok(sum(decoded, size)?.is_some_and(|found| found == *content))
}

fn brotli_decompressor<R: Read>(encoded: R) -> brotli::Decompressor<R> {
    brotli::Decompressor::new(encoded, CHUNK_BYTES)
}

/// The digest of exactly `size` bytes; none when there are more or fewer.
fn sum(mut decoded: impl Read, size: u64) -> io::Result<Option<Digest>> {
    let (mut sum, mut found) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = decoded.read(&mut chunk)?;
        if read == 0 {
            return Ok((found == size).then(|| sum.finish()));
        }
        found += read as u64;
        if found > size {
            return Ok(None);
        }
        sum.update(&chunk[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_service::digest::sha256;
    use std::io::Write;

    const ALL: [ContentEncoding; 3] = [
        ContentEncoding::Br,
        ContentEncoding::Zstd,
        ContentEncoding::Gzip,
    ];

    fn encoded(encoding: ContentEncoding, content: &[u8]) -> Vec<u8> {
        match encoding {
            ContentEncoding::Br => {
                let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
                writer.write_all(content).unwrap();
                writer.into_inner()
            }
            ContentEncoding::Gzip => {
                let level = flate2::Compression::new(6);
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
                writer.write_all(content).unwrap();
                writer.finish().unwrap()
            }
            ContentEncoding::Zstd => zstd::encode_all(content, 3).unwrap(),
        }
    }

    #[test]
    fn only_what_decodes_to_the_content_is_taken() {
        let content = b"some content, some content, some content".repeat(50);
        let digest = sha256(&content);
        let size = content.len() as u64;
        for encoding in ALL {
            let honest = encoded(encoding, &content);
            assert!(decodes_to(encoding, &*honest, &digest, size).unwrap());
            let other = encoded(encoding, &content[1..]);
            assert!(!decodes_to(encoding, &*other, &digest, size).unwrap());
            let cut = decodes_to(encoding, &honest[..honest.len() / 2], &digest, size);
            assert!(!cut.unwrap_or(false), "{encoding:?} cut");
            let garbage = decodes_to(encoding, &b"garbage, no encoding at all"[..], &digest, size);
            assert!(!garbage.unwrap_or(false), "{encoding:?} garbage");
        }
    }

    #[test]
    fn a_bomb_is_not_unfolded() {
        let digest = sha256(b"x");
        for encoding in ALL {
            let bomb = encoded(encoding, &vec![0; 50_000_000]);
            assert!(!decodes_to(encoding, &*bomb, &digest, 1).unwrap());
        }
    }
}
