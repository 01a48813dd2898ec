//! Takes over a stream whole: the signed snapshot that origin keeps in an object store bucket.
//!
//! The bucket is read only by `DIRECT.GET`: its meta message, then its chunks. Nothing about the object is
//! trusted but its size limits; what counts is the signature inside. No snapshot, or one of another life of
//! the stream, is no error: the stream itself is then read from its start.

use std::io::Read;

use async_nats::Client;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use helix_routing::id::Incarnation;
use helix_routing::key::{SNAPSHOT_NAME, Scope};
use helix_routing::record::Snapshot;
use helix_routing::seal::{KeyRole, Seal};
use helix_routing::wire::Wire;
use helix_service::keys::KeyRing;
use serde::Deserialize;

use super::reader::{self, ReadError};
use super::record::{self, Opened, Rejected};

/// Chunks are at most 1 MiB; eight at a time keep what is in flight small.
const PAGE_CHUNKS: usize = 8;
/// A million hosts compress to about 70 MB.
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
}

/// A snapshot whose signature and every record's signature are right.
#[derive(Debug)]
pub struct Taken {
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

/// Reads the newest snapshot of the stream of `scope`; none when there is none of this life.
///
/// # Errors
/// As [`SnapshotError`] says.
pub async fn take(
    client: &Client,
    ring: &KeyRing,
    scope: &Scope,
    life: &Incarnation,
) -> Result<Option<Taken>, SnapshotError> {
    let Some(compressed) = fetch(client, scope).await? else {
        return Ok(None);
    };
    let (ring, scope, life) = (ring.clone(), scope.clone(), life.clone());
    // A million signatures take a while, and the feed has to be drained meanwhile.
    let opened = tokio::task::spawn_blocking(move || open(&ring, &scope, &life, &compressed)).await;
    opened.unwrap_or(Ok(None))
}

async fn fetch(client: &Client, scope: &Scope) -> Result<Option<Vec<u8>>, SnapshotError> {
    let (stream, bucket) = (scope.snapshot_stream(), scope.snapshot_bucket());
    let wrong = |problem| SnapshotError::Object {
        bucket: bucket.clone(),
        problem,
    };
    let name = format!("$O.{bucket}.M.{}", URL_SAFE.encode(SNAPSHOT_NAME));
    let Some(stored) = reader::last(client, &stream, &name).await? else {
        return Ok(None);
    };
    let meta: Meta =
        serde_json::from_slice(&stored.payload).map_err(|_| wrong("described by no valid JSON"))?;
    if meta.deleted {
        return Ok(None);
    }
    let is_token =
        !meta.nuid.is_empty() && meta.nuid.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_token || meta.size > MAX_COMPRESSED_BYTES {
        return Err(wrong("larger than allowed, or misnamed"));
    }
    let chunks = format!("$O.{bucket}.C.{}", meta.nuid);
    let mut bytes = Vec::new();
    let mut from = 1;
    while bytes.len() < meta.size {
        let page = reader::page(client, &stream, &chunks, from, PAGE_CHUNKS).await?;
        let before = bytes.len();
        let mut previous = 0;
        for entry in page.entries {
            if entry.previous != previous || bytes.len() + entry.message.payload.len() > meta.size {
                return Err(wrong("not whole"));
            }
            previous = entry.sequence;
            from = entry.sequence + 1;
            bytes.extend_from_slice(&entry.message.payload);
        }
        if bytes.len() == before {
            return Err(wrong("not whole"));
        }
    }
    Ok(Some(bytes))
}

fn open(
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
    let mut taken = Taken {
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
    Ok(Some(taken))
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
