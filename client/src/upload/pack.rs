//! Small files, encoded and framed for one upload.
//!
//! A pack is bounded by the size of its files before encoding, so it can be planned before anything
//! is read, and no frame is ever larger than its file and head.

use std::fs;
use std::io;

use bytes::Bytes;
use helix_routing::api::{PACK_FRAME_HEAD_BYTES, encoding_byte};
use helix_routing::artifact::Encoding;
use helix_service::digest::sha256;

use super::Content;

/// The most bytes of one pack upload.
const PACK_BYTES: u64 = 8 * 1024 * 1024;
/// The most files in one pack upload, so that many tiny ones are spread over requests too.
const PACK_FRAMES: usize = 4096;
/// Fast enough to keep up with a fast line, and most of what can be gained.
pub(super) const ZSTD_LEVEL: i32 = 3;

/// A pack could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    #[error("read file {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("file {path} changed during the deployment; run it again")]
    Changed { path: String },
    #[error("compress file {path}")]
    Compress {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// Divides contents among packs, in their order.
pub(super) fn plan(contents: Vec<Content>) -> Vec<Vec<Content>> {
    let mut packs: Vec<Vec<Content>> = Vec::new();
    let mut room = 0;
    for content in contents {
        let need = content.size + PACK_FRAME_HEAD_BYTES as u64;
        match packs.last_mut() {
            Some(pack) if need <= room && pack.len() < PACK_FRAMES => pack.push(content),
            _ => {
                room = PACK_BYTES;
                packs.push(vec![content]);
            }
        }
        room = room.saturating_sub(need);
    }
    packs
}

/// Reads, checks, encodes and frames the files of one pack.
pub(super) fn build(contents: &[Content]) -> Result<Bytes, PackError> {
    let mut compressor =
        zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(|source| PackError::Compress {
            path: String::from("(any)"),
            source,
        })?;
    let mut pack = Vec::new();
    for content in contents {
        let path = || content.path.clone();
        let raw = fs::read(&content.source).map_err(|source| PackError::Read {
            path: path(),
            source,
        })?;
        if raw.len() as u64 != content.size || sha256(&raw) != content.digest {
            return Err(PackError::Changed { path: path() });
        }
        let packed = compressor
            .compress(&raw)
            .map_err(|source| PackError::Compress {
                path: path(),
                source,
            })?;
        frame(&mut pack, content, &raw, &packed);
    }
    Ok(Bytes::from(pack))
}

/// Adds one frame, in whichever form is smaller.
fn frame(pack: &mut Vec<u8>, content: &Content, raw: &[u8], packed: &[u8]) {
    let (encoding, bytes) = if packed.len() < raw.len() {
        (Encoding::Zstd, packed)
    } else {
        (Encoding::Identity, raw)
    };
    let length = u32::try_from(bytes.len()).expect("a file in a pack is far below 4 GiB");
    pack.extend(hex::decode(content.digest.hex()).expect("a digest is hex"));
    pack.push(encoding_byte(encoding));
    pack.extend(length.to_be_bytes());
    pack.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn content(path: &str, source: PathBuf, bytes: &[u8]) -> Content {
        Content {
            digest: sha256(bytes),
            size: bytes.len() as u64,
            path: path.to_owned(),
            source,
        }
    }

    #[test]
    fn packs_stay_below_their_limits_and_lose_nothing() {
        let of = |size| Content {
            digest: sha256(b""),
            size,
            path: String::new(),
            source: PathBuf::new(),
        };
        let sizes = [1_000_000, 0, 900_000].repeat(20);
        let packs = plan(sizes.iter().map(|&size| of(size)).collect());
        assert_eq!(packs.concat().len(), sizes.len());
        for pack in &packs {
            let bytes: u64 = pack
                .iter()
                .map(|content| content.size + PACK_FRAME_HEAD_BYTES as u64)
                .sum();
            assert!(bytes <= PACK_BYTES, "{bytes}");
        }
        assert_eq!(plan(vec![of(0); PACK_FRAMES + 1]).len(), 2);
        assert!(plan(Vec::new()).is_empty());
    }

    #[test]
    fn frames_carry_the_smaller_form() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let source = folder.path().join(name);
            fs::write(&source, bytes).unwrap();
            content(name, source, bytes)
        };
        let (long, short) = ([b'a'; 5000], b"ab");
        let pack = build(&[
            file("long", &long),
            file("short", short),
            file("empty", b""),
        ])
        .unwrap();
        let length = u32::from_be_bytes(pack[33..37].try_into().unwrap()) as usize;
        assert_eq!(hex::encode(&pack[..32]), sha256(&long).hex());
        assert_eq!(pack[32], 1);
        assert_eq!(
            zstd::bulk::decompress(&pack[37..37 + length], 5000).unwrap(),
            long
        );
        let rest = &pack[37 + length..];
        assert_eq!((rest[32], &rest[33..39]), (0, b"\0\0\0\x02ab".as_slice()));
        assert_eq!(rest[39 + 32..], [0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_file_that_changed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("a");
        fs::write(&source, "new").unwrap();
        let error = build(&[content("a", source, b"old")]).unwrap_err();
        assert!(error.to_string().contains("file a changed"), "{error}");
    }
}
