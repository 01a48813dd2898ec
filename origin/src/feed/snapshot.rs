//! Whole states of the streams, for edges that have none: sealed, compressed, in an object store bucket.
//!
//! Invariant: a snapshot's records are never older than the sequence it names, so repair from there
//! misses nothing; they may be newer, and then repair repeats them. The newest three stay readable,
//! so an edge that began with one that was replaced can finish.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
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
use helix_routing::record::Snapshot;
use helix_routing::wire::Wire;
use helix_service::keys::Address;
use helix_service::{clock, digest, random};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::message::Stored;
use super::records::TOMBSTONE_LIFE;
use super::streams::{StreamError, link};
use super::{FeedError, Inner, Life};
use crate::store;

/// How often the streams are looked at for a snapshot that is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A new snapshot after this many changes: what a repair fetches in two pages.
const CHANGES: u64 = 1000;
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
            if !is_due(&life, age) {
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

fn is_due(life: &Life, age: Duration) -> bool {
    life.snapshot.is_none_or(|at| {
        let changes = life.acknowledged.saturating_sub(at);
        changes >= CHANGES || (changes > 0 && age >= LONGEST_AGE)
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
    let records = read(inner, &name).await?;
    let count = records.len();
    let compressed = seal(inner, &name, life, at_sequence, records).await?;
    let size = compressed.len();
    store_object(inner, scope, life, at_sequence, compressed).await?;
    tracing::info!(
        stream = name,
        at_sequence,
        records = count,
        bytes = size,
        "snapshot stored"
    );
    Ok(at_sequence)
}

async fn read(inner: &Inner, stream: &str) -> Result<Vec<Stored>, StreamError> {
    let rows: Vec<(String, i64, Vec<u8>, Option<i64>)> = sqlx::query_as(
        "SELECT record_key, generation, body, removed FROM records \
         WHERE stream = $1 AND (removed IS NULL OR removed > $2) ORDER BY record_key",
    )
    .bind(stream)
    .bind(store::millis(clock::now() - TOMBSTONE_LIFE))
    .fetch_all(inner.store.reader())
    .await?;
    rows.into_iter()
        .map(|(key, generation, body, removed)| {
            let generation = Generation(store::count(generation, "records.generation")?);
            Ok(Stored {
                stream: stream.to_owned(),
                key,
                generation,
                body,
                is_tombstone: removed.is_some(),
            })
        })
        .collect()
}

/// A signature takes about 30 µs, so a large state takes a while: other tasks go on meanwhile.
async fn seal(
    inner: &Inner,
    stream: &str,
    life: &Life,
    at_sequence: u64,
    records: Vec<Stored>,
) -> Result<Vec<u8>, StreamError> {
    let (signer, epoch, incarnation) = (
        Arc::clone(&inner.key),
        inner.store.epoch(),
        life.incarnation.clone(),
    );
    let name = stream.to_owned();
    let work = move || {
        let seal = |key, generation, body| {
            let address = Address {
                stream: name.clone(),
                key,
                incarnation: incarnation.clone(),
                epoch,
                generation,
            };
            signer.seal(address, body)
        };
        let records = records
            .into_iter()
            .map(|stored| seal(stored.key, stored.generation, stored.body))
            .collect();
        let snapshot = Snapshot {
            at_sequence,
            at: clock::now(),
            records,
        };
        zstd::encode_all(
            seal(SNAPSHOT_NAME.to_owned(), Generation(0), snapshot.encode()).as_slice(),
            LEVEL,
        )
    };
    let compressed = tokio::task::spawn_blocking(work)
        .await
        .map_err(link("compress a snapshot", stream))?;
    compressed.map_err(link("compress a snapshot", stream))
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
