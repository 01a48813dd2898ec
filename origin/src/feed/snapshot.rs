//! Whole states of the streams: for edges that have none, and for every edge to start from. In parts, under one signature, in an
//! object store bucket.
//!
//! Records are read page by page in the order of their keys, so that a million of them take neither memory nor a lock.
//! Invariant: a snapshot's records are never older than the sequence it names, so repair from there
//! misses nothing; they may be newer, and then repair repeats them. The newest three stay readable,
//! so an edge that began with one that was replaced can finish.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::object_store::{ObjectInfo, ObjectOptions};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use futures_util::TryStreamExt;
use helix_routing::id::{Generation, Incarnation};
use helix_routing::key::{SNAPSHOT_NAME, Scope};
use helix_routing::snapshot::{HEAD_BYTES, Part, PartContent, SnapshotIndex, head};
use helix_routing::wire::Wire;
use helix_service::keys::Address;
use helix_service::{clock, digest, random};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::records::TOMBSTONE_LIFE;
use super::streams::{StreamError, link};
use super::{FeedError, Inner, Life};
use crate::store;

/// How often the streams are looked at for a snapshot that is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A new snapshot after this many changes: what a repair fetches in two pages.
const CHANGES: u64 = 1000;
/// And after this share of the records has changed: making one of a million takes seconds, repairing twenty thousand changes one.
const CHANGED_SHARE: u64 = 50;
/// Records read at a time.
const PAGE_RECORDS: i64 = 4096;
/// A new snapshot after this long, if anything changed.
const LONGEST_AGE: Duration = Duration::from_mins(10);
/// Snapshots kept readable.
const KEPT: usize = 3;
/// Well below the server's largest message of 1 MiB.
const CHUNK_BYTES: usize = 128 * 1024;
/// Speed over size: it is read once per new edge.
const LEVEL: i32 = 3;
/// The object's own note of the sequence it was made at.
const AT_SEQUENCE: &str = "at-sequence";
/// The object's own note of the life it belongs to.
const INCARNATION: &str = "incarnation";

pub(super) async fn run(inner: &Inner) -> Result<(), FeedError> {
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut made: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        ticks.tick().await;
        for (stream, scope) in &inner.scopes {
            let Some(life) = inner.life(stream) else {
                continue;
            };
            let age = made
                .entry(stream.clone())
                .or_insert_with(Instant::now)
                .elapsed();
            if !is_due(&life, inner.snapshot_records(stream), age) {
                continue;
            }
            match put(inner, scope, &life).await {
                Ok(at_sequence) => {
                    made.insert(stream.clone(), Instant::now());
                    note(inner, stream, &life.incarnation, at_sequence);
                }
                Err(StreamError::Link {
                    attempted, source, ..
                }) => {
                    tracing::warn!(
                        stream,
                        attempted,
                        error = &*source,
                        "snapshot was not stored"
                    );
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_due(life: &Life, records: u64, age: Duration) -> bool {
    life.snapshot.is_none_or(|at| {
        let changes = life.acknowledged.saturating_sub(at);
        changes >= CHANGES.max(records / CHANGED_SHARE) || (changes > 0 && age >= LONGEST_AGE)
    })
}

/// The stream may have begun another life while the snapshot was made.
fn note(inner: &Inner, stream: &str, incarnation: &Incarnation, at_sequence: u64) {
    if let Some(life) = inner.lives().get_mut(stream)
        && life.incarnation == *incarnation
    {
        life.snapshot = Some(at_sequence);
    }
}

/// Where the newest snapshot of this life was made; none when there is none.
pub(super) async fn newest(
    inner: &Inner,
    scope: &Scope,
    incarnation: &Incarnation,
) -> Result<Option<u64>, StreamError> {
    let name = scope.snapshot_stream();
    let stream = inner
        .jetstream
        .get_stream(&name)
        .await
        .map_err(link("look-up", &name))?;
    let message = match stream
        .get_last_raw_message_by_subject(&meta_subject(scope))
        .await
    {
        Ok(message) => message,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(link("read the newest snapshot", &name)(error)),
    };
    let described: Option<ObjectInfo> = serde_json::from_slice(&message.payload).ok();
    Ok(described.and_then(|info| {
        let is_of_this_life = info
            .metadata
            .get(INCARNATION)
            .is_some_and(|life| life == incarnation.as_str());
        info.metadata
            .get(AT_SEQUENCE)?
            .parse()
            .ok()
            .filter(|_| is_of_this_life)
    }))
}

/// Makes a snapshot of the stream's present state and stores it.
pub(super) async fn put(inner: &Inner, scope: &Scope, life: &Life) -> Result<u64, StreamError> {
    let name = scope.stream();
    let stream = inner
        .jetstream
        .get_stream(&name)
        .await
        .map_err(link("look-up", &name))?;
    let at_sequence = stream.cached_info().state.last_sequence;
    // After the look at the stream: SQL has at least what was published until then.
    let made = make(inner, &name, life, at_sequence).await?;
    let size = made.bytes.len();
    store_object(inner, scope, life, at_sequence, made.bytes).await?;
    inner.note_snapshot_records(&name, made.records);
    tracing::info!(
        stream = name,
        at_sequence,
        records = made.records,
        bytes = size,
        "snapshot stored"
    );
    Ok(at_sequence)
}

/// An object, ready to be stored.
struct Made {
    bytes: Vec<u8>,
    records: u64,
}

async fn make(
    inner: &Inner,
    stream: &str,
    life: &Life,
    at_sequence: u64,
) -> Result<Made, StreamError> {
    let mut index = SnapshotIndex {
        at_sequence,
        at: clock::now(),
        records: 0,
        may_drop: inner.policy.may_drop,
        parts: Vec::new(),
    };
    let mut parts = Vec::new();
    let mut content = PartContent::default();
    let mut after = String::new();
    let since = store::millis(clock::now() - TOMBSTONE_LIFE);
    loop {
        let rows = read(inner, stream, &after, since).await?;
        let is_last = rows.len() < usize::try_from(PAGE_RECORDS).unwrap_or(usize::MAX);
        for (key, body) in rows {
            if content.is_full() {
                compress(std::mem::take(&mut content), &mut index, &mut parts, stream).await?;
            }
            content.push(&key, &body);
            after = key;
        }
        if is_last {
            break;
        }
    }
    if content.records() > 0 {
        compress(content, &mut index, &mut parts, stream).await?;
    }
    let address = Address {
        stream: stream.to_owned(),
        key: SNAPSHOT_NAME.to_owned(),
        incarnation: life.incarnation.clone(),
        epoch: inner.store.epoch(),
        generation: Generation(0),
    };
    let records = index.records;
    let sealed = inner.key.seal(address, index.encode());
    let mut bytes = Vec::with_capacity(HEAD_BYTES + sealed.len() + parts.len());
    bytes.extend_from_slice(&head(sealed.len()));
    bytes.extend_from_slice(&sealed);
    bytes.extend_from_slice(&parts);
    Ok(Made { bytes, records })
}

/// The next records after a key: keys and bodies.
async fn read(
    inner: &Inner,
    stream: &str,
    after: &str,
    since: i64,
) -> Result<Vec<(String, Vec<u8>)>, StreamError> {
    let rows = sqlx::query_as(
        "SELECT record_key, body FROM records \
         WHERE stream = $1 AND record_key > $2 AND (removed IS NULL OR removed > $3) ORDER BY record_key LIMIT $4",
    )
    .bind(stream)
    .bind(after)
    .bind(since)
    .bind(PAGE_RECORDS)
    .fetch_all(inner.store.reader())
    .await?;
    Ok(rows)
}

/// Appends a part, off the runtime's threads.
async fn compress(
    content: PartContent,
    index: &mut SnapshotIndex,
    parts: &mut Vec<u8>,
    stream: &str,
) -> Result<(), StreamError> {
    index.records += content.records() as u64;
    let work = move || zstd::encode_all(content.into_bytes().as_slice(), LEVEL);
    let compressed = tokio::task::spawn_blocking(work)
        .await
        .map_err(link("compress a snapshot", stream))?
        .map_err(link("compress a snapshot", stream))?;
    index.parts.push(Part {
        digest: digest::sha256(&compressed),
        bytes: compressed.len() as u64,
    });
    parts.extend_from_slice(&compressed);
    Ok(())
}

/// Writes the chunks, then the description that makes them the newest snapshot, then removes the oldest chunks.
async fn store_object(
    inner: &Inner,
    scope: &Scope,
    life: &Life,
    at_sequence: u64,
    bytes: Vec<u8>,
) -> Result<(), StreamError> {
    let name = scope.snapshot_stream();
    // Begins with the time, so that chunks sort by age.
    let nuid = format!("{:013}{}", clock::now().as_millis(), random::hex16());
    let info = describe(scope, life, at_sequence, &nuid, &bytes);
    let mut bytes = Bytes::from(bytes);
    while !bytes.is_empty() {
        let chunk = bytes.split_to(CHUNK_BYTES.min(bytes.len()));
        write(
            inner,
            &name,
            format!("$O.{}.C.{nuid}", scope.snapshot_bucket()),
            HeaderMap::new(),
            chunk,
        )
        .await?;
    }
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Rollup", "sub");
    let described = serde_json::to_vec(&info).map_err(link("describe a snapshot", &name))?;
    write(inner, &name, meta_subject(scope), headers, described.into()).await?;
    remove_old(inner, scope).await
}

fn describe(scope: &Scope, life: &Life, at_sequence: u64, nuid: &str, bytes: &[u8]) -> ObjectInfo {
    let hash = hex::decode(digest::sha256(bytes).hex()).unwrap_or_default();
    ObjectInfo {
        name: SNAPSHOT_NAME.to_owned(),
        description: None,
        metadata: HashMap::from([
            (AT_SEQUENCE.to_owned(), at_sequence.to_string()),
            (INCARNATION.to_owned(), life.incarnation.to_string()),
        ]),
        headers: None,
        options: Some(ObjectOptions {
            link: None,
            max_chunk_size: Some(CHUNK_BYTES),
        }),
        bucket: scope.snapshot_bucket(),
        nuid: nuid.to_owned(),
        size: bytes.len(),
        chunks: bytes.len().div_ceil(CHUNK_BYTES),
        modified: None,
        digest: Some(format!("SHA-256={}", URL_SAFE.encode(hash))),
        deleted: false,
    }
}

async fn remove_old(inner: &Inner, scope: &Scope) -> Result<(), StreamError> {
    let name = scope.snapshot_stream();
    let stream = inner
        .jetstream
        .get_stream(&name)
        .await
        .map_err(link("look-up", &name))?;
    let listed = stream
        .info_with_subjects(format!("$O.{}.C.>", scope.snapshot_bucket()))
        .await;
    let listed = listed.map_err(link("list the snapshots", &name))?;
    let mut subjects: Vec<String> = listed
        .map_ok(|(subject, _)| subject)
        .try_collect()
        .await
        .map_err(link("list the snapshots", &name))?;
    subjects.sort_unstable();
    let old = subjects.len().saturating_sub(KEPT);
    for subject in subjects.drain(..old) {
        stream
            .purge()
            .filter(subject)
            .await
            .map_err(link("remove an old snapshot", &name))?;
    }
    Ok(())
}

async fn write(
    inner: &Inner,
    stream: &str,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<(), StreamError> {
    let sent = inner
        .jetstream
        .publish_with_headers(subject, headers, payload)
        .await
        .map_err(link("write a snapshot", stream))?;
    sent.await.map_err(link("write a snapshot", stream))?;
    Ok(())
}

fn meta_subject(scope: &Scope) -> String {
    format!(
        "$O.{}.M.{}",
        scope.snapshot_bucket(),
        URL_SAFE.encode(SNAPSHOT_NAME)
    )
}
