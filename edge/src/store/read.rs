//! Reads files out of packs and off the disk, and believes none of it before the digest agrees.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use helix_routing::artifact::{Encoding, FileEntry};
use helix_routing::id::Digest;
use helix_service::digest::Sha256;

use crate::release::Body;

/// Read at once while a large file is checked.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why a file's bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing of this digest is held.
    #[error("content {digest} is not held")]
    Missing {
        /// The content.
        digest: Digest,
    },
    /// It cannot be read.
    #[error("read content {digest}")]
    Read {
        /// The content.
        digest: Digest,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What lies on disk is something else.
    #[error("content {digest} is damaged on disk")]
    Damaged {
        /// The content.
        digest: Digest,
    },
    /// The same as for another request that waited for it.
    #[error(transparent)]
    Shared(Arc<Self>),
}

/// Runs file work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => std::future::pending().await,
    }
}

/// A file that lies in a pack, decoded.
pub(super) fn small(pack: &Path, entry: &FileEntry) -> Result<Bytes, StoreError> {
    let failed = |source| read_error(entry, source);
    let file = File::open(pack).map_err(failed)?;
    let mut encoded = vec![0; usize::try_from(entry.length).map_err(|_| damaged(entry))?];
    file.read_exact_at(&mut encoded, entry.offset)
        .map_err(failed)?;
    decode(&encoded, entry)
}

/// What `encoded` decodes to, if that is what the entry says.
pub(super) fn decode(encoded: &[u8], entry: &FileEntry) -> Result<Bytes, StoreError> {
    let mut bytes = Vec::with_capacity(usize::try_from(entry.size).map_err(|_| damaged(entry))?);
    let sum = copy(encoded, entry, &mut bytes)?;
    if sum == entry.digest {
        Ok(bytes.into())
    } else {
        Err(damaged(entry))
    }
}

/// Decodes an entry's bytes into `out`, never more than its size, and returns the digest of what came out.
pub(super) fn copy(
    encoded: impl Read,
    entry: &FileEntry,
    out: &mut impl io::Write,
) -> Result<Digest, StoreError> {
    let failed = |source| read_error(entry, source);
    // One byte more than allowed is read, so that a bomb is noticed and never unfolded.
    let limit = entry.size + 1;
    let mut decoded: Box<dyn Read> = match entry.encoding {
        Encoding::Identity => Box::new(encoded.take(limit)),
        Encoding::Zstd => Box::new(zstd::Decoder::new(encoded).map_err(failed)?.take(limit)),
    };
    let mut sum = Sha256::new();
    let mut size = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = decoded.read(&mut chunk).map_err(failed)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        if size > entry.size {
            return Err(damaged(entry));
        }
        sum.update(&chunk[..read]);
        out.write_all(&chunk[..read]).map_err(failed)?;
    }
    if size == entry.size {
        Ok(sum.finish())
    } else {
        Err(damaged(entry))
    }
}

/// A file that lies on disk whole.
pub(super) fn large(path: &Path, entry: &FileEntry, known: bool) -> Result<Body, StoreError> {
    let failed = |source| read_error(entry, source);
    let mut file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() != entry.size {
        return Err(damaged(entry));
    }
    if !known {
        let plain = FileEntry {
            encoding: Encoding::Identity,
            ..entry.clone()
        };
        if copy(&mut file, &plain, &mut io::sink())? != entry.digest {
            return Err(damaged(entry));
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
    }
    Ok(Body::Disk {
        file,
        size: entry.size,
    })
}

fn read_error(entry: &FileEntry, source: io::Error) -> StoreError {
    let digest = entry.digest.clone();
    match source.kind() {
        io::ErrorKind::NotFound => StoreError::Missing { digest },
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => StoreError::Damaged { digest },
        _ => StoreError::Read { digest, source },
    }
}

fn damaged(entry: &FileEntry) -> StoreError {
    StoreError::Damaged {
        digest: entry.digest.clone(),
    }
}
