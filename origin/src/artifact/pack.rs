//! Packs as they arrive: frames are taken apart, every content is decoded and hashed. Pure.
//!
//! Invariant: [`parse`] answers contents only when each has the digest its frame names; one wrong
//! frame refuses the whole request. The frames are a stranger's bytes: no length in them is
//! trusted before it is compared with what is there, and nothing is decoded past its limit.

use std::collections::BTreeSet;

use helix_routing::api::PACK_FRAME_HEAD_BYTES;
use helix_routing::artifact::{Encoding, PACK_BYTES, STANDALONE_BYTES};
use helix_routing::id::Digest;
use helix_service::digest::sha256;

use super::frame;

/// Largest pack upload: a full pack, and the heads of its frames.
pub const MAX_REQUEST_BYTES: usize = 20 * 1024 * 1024;
/// First four bytes of a zstd frame (RFC 8878 3.1.1).
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

const _: () = assert!(
    PACK_BYTES < MAX_REQUEST_BYTES as u64,
    "a full pack fits a request"
);

/// Why a pack upload was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The frames do not add up to the request.
    #[error("the pack upload ends inside its frame {frame}")]
    Cut {
        /// Which frame, from 0.
        frame: usize,
    },
    /// No frames.
    #[error("the pack upload is empty")]
    Empty,
    /// The encoding byte is none.
    #[error("frame {frame} of the pack upload has the unknown encoding {byte}")]
    Encoding {
        /// Which frame, from 0.
        frame: usize,
        /// The byte.
        byte: u8,
    },
    /// Not one zstd frame.
    #[error(
        "content {digest} is not one zstd frame that decodes to less than {STANDALONE_BYTES} bytes"
    )]
    Undecodable {
        /// The digest its frame names.
        digest: Digest,
    },
    /// So large that it has to be sent on its own.
    #[error("content {digest} has {STANDALONE_BYTES} bytes or more: send it on its own")]
    TooLarge {
        /// The digest its frame names.
        digest: Digest,
    },
    /// The decoded bytes have another digest.
    #[error("content {digest} has other bytes: they hash to {found}")]
    Digest {
        /// The digest its frame names.
        digest: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
}

/// A pack ready to be stored: its bytes, and what lies where in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pack {
    /// The encoded contents, one after the other.
    pub bytes: Vec<u8>,
    /// What lies where.
    pub contents: Vec<Packed>,
}

/// One content within a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the decoded bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// Where the encoded bytes start.
    pub offset: u64,
    /// Their number.
    pub length: u64,
    /// How they encode the content.
    pub encoding: Encoding,
    /// Digest of the encoded bytes, where they can be sent as they are under `Content-Encoding: zstd`.
    pub encoded: Option<Digest>,
}

impl Pack {
    /// Adds one content that is known to be what `digest` says.
    pub fn push(&mut self, digest: Digest, size: u64, encoding: Encoding, encoded: &[u8]) {
        self.contents.push(Packed {
            digest,
            size,
            offset: self.bytes.len() as u64,
            length: encoded.len() as u64,
            encoding,
            encoded: frame::sendable(encoding, encoded).then(|| sha256(encoded)),
        });
        self.bytes.extend_from_slice(encoded);
    }
}

/// Takes an upload apart, decodes and hashes every content. A content that is there twice is kept once.
///
/// # Errors
/// At the first frame that is not what it says.
pub fn parse(upload: &[u8]) -> Result<Pack, PackError> {
    let mut pack = Pack::default();
    let mut seen = BTreeSet::new();
    let mut decoded = Vec::with_capacity(limit());
    let mut rest = upload;
    for frame in 0.. {
        if rest.is_empty() {
            break;
        }
        let (digest, encoding, encoded, after) = split_frame(rest, frame)?;
        rest = after;
        let size = verify(&digest, encoding, encoded, &mut decoded)?;
        if seen.insert(digest.clone()) {
            pack.push(digest, size, encoding, encoded);
        }
    }
    if pack.contents.is_empty() {
        Err(PackError::Empty)
    } else {
        Ok(pack)
    }
}

type Frame<'a> = (Digest, Encoding, &'a [u8], &'a [u8]);

fn split_frame(rest: &[u8], frame: usize) -> Result<Frame<'_>, PackError> {
    let (head, body) = rest
        .split_at_checked(PACK_FRAME_HEAD_BYTES)
        .ok_or(PackError::Cut { frame })?;
    let digest = Digest::from_hex(&hex::encode(&head[..32])).expect("32 bytes are 64 hex digits");
    let encoding = match head[32] {
        0 => Encoding::Identity,
        1 => Encoding::Zstd,
        byte => return Err(PackError::Encoding { frame, byte }),
    };
    let length = u32::from_be_bytes([head[33], head[34], head[35], head[36]]);
    let length = usize::try_from(length).map_err(|_| PackError::Cut { frame })?;
    let (encoded, after) = body
        .split_at_checked(length)
        .ok_or(PackError::Cut { frame })?;
    Ok((digest, encoding, encoded, after))
}

/// Decodes into `decoded`, hashes, and answers the decoded size.
fn verify(
    digest: &Digest,
    encoding: Encoding,
    encoded: &[u8],
    decoded: &mut Vec<u8>,
) -> Result<u64, PackError> {
    let content = match encoding {
        Encoding::Identity => encoded,
        Encoding::Zstd => {
            decode(encoded, decoded).ok_or_else(|| PackError::Undecodable {
                digest: digest.clone(),
            })?;
            decoded.as_slice()
        }
    };
    let size = content.len() as u64;
    if size >= STANDALONE_BYTES {
        return Err(PackError::TooLarge {
            digest: digest.clone(),
        });
    }
    let found = sha256(content);
    if found == *digest {
        Ok(size)
    } else {
        Err(PackError::Digest {
            digest: digest.clone(),
            found,
        })
    }
}

/// Decodes exactly one zstd frame. In one step into a buffer of the limit, so that no frame can ask for a window.
fn decode(encoded: &[u8], decoded: &mut Vec<u8>) -> Option<()> {
    let one_frame = encoded.starts_with(&ZSTD_MAGIC)
        && zstd::zstd_safe::find_frame_compressed_size(encoded) == Ok(encoded.len());
    if !one_frame {
        return None;
    }
    decoded.clear();
    zstd::bulk::Decompressor::new()
        .ok()?
        .decompress_to_buffer(encoded, decoded)
        .ok()?;
    Some(())
}

fn limit() -> usize {
    usize::try_from(STANDALONE_BYTES).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::api::encoding_byte;

    fn frame(digest: &Digest, encoding: Encoding, encoded: &[u8]) -> Vec<u8> {
        let mut bytes = hex::decode(digest.hex()).unwrap();
        bytes.push(encoding_byte(encoding));
        bytes.extend(u32::try_from(encoded.len()).unwrap().to_be_bytes());
        bytes.extend(encoded);
        bytes
    }

    fn zstd_of(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 3).unwrap()
    }

    #[test]
    fn a_pack_is_its_frames_without_their_heads() {
        let (one, two) = (b"hello".as_slice(), vec![b'x'; 5000]);
        let mut upload = frame(&sha256(one), Encoding::Identity, one);
        upload.extend(frame(&sha256(&two), Encoding::Zstd, &zstd_of(&two)));
        upload.extend(frame(&sha256(b""), Encoding::Identity, b""));
        upload.extend(frame(&sha256(one), Encoding::Identity, one));
        let pack = parse(&upload).unwrap();
        assert_eq!(pack.contents.len(), 3);
        assert_eq!(pack.contents[1].size, 5000);
        assert_eq!(pack.contents[1].offset, 5);
        assert_eq!(pack.bytes, [one, &zstd_of(&two)].concat());
    }

    #[test]
    fn frames_that_are_not_what_they_say_are_refused() {
        let good = sha256(b"good");
        let refused = |upload: Vec<u8>| parse(&upload).unwrap_err();
        assert_eq!(refused(Vec::new()), PackError::Empty);
        assert_eq!(refused(vec![0; 20]), PackError::Cut { frame: 0 });
        let mut cut = frame(&good, Encoding::Identity, b"good");
        cut.pop();
        assert_eq!(refused(cut), PackError::Cut { frame: 0 });
        let mut unknown = frame(&good, Encoding::Identity, b"good");
        unknown[32] = 7;
        assert_eq!(refused(unknown), PackError::Encoding { frame: 0, byte: 7 });
        let wrong = frame(&good, Encoding::Identity, b"evil");
        assert_eq!(
            refused(wrong),
            PackError::Digest {
                digest: good.clone(),
                found: sha256(b"evil")
            }
        );
        let not_zstd = frame(&good, Encoding::Zstd, b"good");
        assert_eq!(
            refused(not_zstd),
            PackError::Undecodable {
                digest: good.clone()
            }
        );
        let twice = [zstd_of(b"go"), zstd_of(b"od")].concat();
        assert_eq!(
            refused(frame(&good, Encoding::Zstd, &twice)),
            PackError::Undecodable { digest: good }
        );
    }

    #[test]
    fn a_bomb_is_refused_without_being_unpacked() {
        let bomb = zstd_of(&vec![0; 300 * 1024 * 1024]);
        assert!(bomb.len() < 100_000);
        let digest = sha256(b"whatever");
        assert_eq!(
            parse(&frame(&digest, Encoding::Zstd, &bomb)).unwrap_err(),
            PackError::Undecodable {
                digest: digest.clone()
            }
        );
        let large = vec![7; usize::try_from(STANDALONE_BYTES).unwrap()];
        let digest = sha256(&large);
        assert_eq!(
            parse(&frame(&digest, Encoding::Identity, &large)).unwrap_err(),
            PackError::TooLarge {
                digest: digest.clone()
            }
        );
    }
}
