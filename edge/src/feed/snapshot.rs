//! Takes over a stream whole: the signed snapshot that origin keeps in an object store bucket.
//!
//! The bucket is read only by `DIRECT.GET`: its meta message, then its chunks. Nothing about the object is
//! trusted but its size limits; what counts is the signature inside. No snapshot, or one of another life of
//! the stream, is no error: the stream itself is then read from its start.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_nats::Client;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use helix_routing::id::Incarnation;
use helix_routing::key::{SNAPSHOT_NAME, Scope};
use helix_routing::record::Snapshot;
use helix_routing::seal::{KeyRole, Seal};
use helix_routing::snapshot::MAGIC;
use helix_routing::wire::Wire;
use helix_service::keys::KeyRing;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::reader::{self, ReadError};
use super::record::{self, Opened, Rejected};
use crate::state::base::{Base, BaseError};
use crate::state::in_background;

/// Chunks are at most 1 MiB; eight at a time keep what is in flight small.
const PAGE_CHUNKS: usize = 8;
/// A million hosts compress to about 20 MB, and to 70 MB in version 1.
const MAX_COMPRESSED_BYTES: usize = 256 * 1024 * 1024;

/// A snapshot was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The object is not whole, or larger than any snapshot.
    #[error("snapshot in {bucket} is {problem}")]
    Object {
        /// The bucket.
        bucket: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It is not signed, or not for here.
    #[error("snapshot is refused")]
    Rejected(#[from] Rejected),
    /// It is not what was signed.
    #[error("snapshot is refused")]
    Base(#[from] BaseError),
    /// It cannot be kept.
    #[error("write a snapshot to disk")]
    Disk(#[from] io::Error),
}

/// A snapshot that is what origin signed.
#[derive(Debug)]
pub enum Taken {
    /// In parts, in the file it was read into.
    Parts(Box<Base>),
    /// In one piece, as origins before version 2 wrote it.
    Whole(Whole),
}

/// A snapshot whose signature and every record's signature are right.
#[derive(Debug)]
pub struct Whole {
    /// The stream's sequence it stands for.
    pub at_sequence: u64,
    /// Its records.
    pub records: Vec<Opened>,
    /// Records in it that were refused, and why.
    pub rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Meta {
    nuid: String,
    #[serde(default)]
    size: usize,
    #[serde(default)]
    deleted: bool,
}

/// Reads the newest snapshot of the stream of `scope` into `incoming`; none when there is none of this life.
///
/// # Errors
/// As [`SnapshotError`] says.
pub async fn take(
    client: &Client,
    ring: &Arc<KeyRing>,
    scope: &Scope,
    life: &Incarnation,
    incoming: PathBuf,
) -> Result<Option<Taken>, SnapshotError> {
    if !fetch(client, scope, &incoming).await? {
        return Ok(None);
    }
    let (ring, scope, life) = (Arc::clone(ring), scope.clone(), life.clone());
    // The feed has to be drained meanwhile, and requests come first.
    in_background(move || open(&ring, &scope, &life, &incoming)).await
}

/// Reads the object into `incoming`; false when there is none.
async fn fetch(client: &Client, scope: &Scope, incoming: &Path) -> Result<bool, SnapshotError> {
    let (stream, bucket) = (scope.snapshot_stream(), scope.snapshot_bucket());
    let wrong = |problem| SnapshotError::Object {
        bucket: bucket.clone(),
        problem,
    };
    let name = format!("$O.{bucket}.M.{}", URL_SAFE.encode(SNAPSHOT_NAME));
    let Some(stored) = reader::last(client, &stream, &name).await? else {
        return Ok(false);
    };
    let meta: Meta =
        serde_json::from_slice(&stored.payload).map_err(|_| wrong("described by no valid JSON"))?;
    if meta.deleted {
        return Ok(false);
    }
    let is_token =
        !meta.nuid.is_empty() && meta.nuid.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_token || meta.size > MAX_COMPRESSED_BYTES {
        return Err(wrong("larger than allowed, or misnamed"));
    }
    let mut file = tokio::fs::File::create(incoming).await?;
    let chunks = format!("$O.{bucket}.C.{}", meta.nuid);
    let (mut written, mut from) = (0, 1);
    while written < meta.size {
        let page = reader::page(client, &stream, &chunks, from, PAGE_CHUNKS).await?;
        let before = written;
        let mut previous = 0;
        for entry in page.entries {
            if entry.previous != previous || written + entry.message.payload.len() > meta.size {
                return Err(wrong("not whole"));
            }
            previous = entry.sequence;
            from = entry.sequence + 1;
            written += entry.message.payload.len();
            file.write_all(&entry.message.payload).await?;
        }
        if written == before {
            return Err(wrong("not whole"));
        }
    }
    file.sync_all().await?;
    Ok(true)
}

fn open(
    ring: &KeyRing,
    scope: &Scope,
    life: &Incarnation,
    incoming: &Path,
) -> Result<Option<Taken>, SnapshotError> {
    let mut start = Vec::new();
    std::fs::File::open(incoming)?
        .take(MAGIC.len() as u64)
        .read_to_end(&mut start)?;
    if start != MAGIC {
        return open_whole(ring, scope, life, &std::fs::read(incoming)?);
    }
    let base = Base::open(incoming, ring, scope)?;
    if base.incarnation != *life {
        return Ok(None);
    }
    base.verify()?;
    Ok(Some(Taken::Parts(Box::new(base))))
}

/// A snapshot of version 1: in one piece, each record in an envelope of its own.
fn open_whole(
    ring: &KeyRing,
    scope: &Scope,
    life: &Incarnation,
    compressed: &[u8],
) -> Result<Option<Taken>, SnapshotError> {
    let sealed = decompress(compressed).ok_or_else(|| SnapshotError::Object {
        bucket: scope.snapshot_bucket(),
        problem: "not what was compressed",
    })?;
    let seal = ring
        .verify(KeyRole::Record, &sealed)
        .map_err(Rejected::from)?;
    drop(sealed);
    record::check_place(&seal, &scope.stream(), None, SNAPSHOT_NAME)?;
    if seal.incarnation != *life {
        return Ok(None);
    }
    let snapshot = Snapshot::decode(&seal.body).map_err(Rejected::from)?;
    let mut taken = Whole {
        at_sequence: snapshot.at_sequence,
        records: Vec::with_capacity(snapshot.records.len()),
        rejected: Vec::new(),
    };
    for sealed in snapshot.records {
        match record::open_from_snapshot(ring, scope, life, sealed.into()) {
            Ok(opened) => taken.records.push(opened),
            Err(rejected) => taken.rejected.push(rejected),
        }
    }
    Ok(Some(Taken::Whole(taken)))
}

fn decompress(compressed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = Seal::MAX_BYTES as u64;
    zstd::Decoder::new(compressed)
        .ok()?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    (bytes.len() as u64 <= limit).then_some(bytes)
}
