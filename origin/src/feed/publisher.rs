//! Moves outbox rows to JetStream, in order, each at least once.
//!
//! Invariant: a row leaves the outbox only after its record, or a newer generation of it, was
//! acknowledged. A crash anywhere repeats writes under the ids they had, and the server drops what it has.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use helix_routing::id::Generation;
use helix_service::failpoint;
use tokio::time::{Instant, sleep, sleep_until};

use super::bulk;
use super::message::{self, Stored};
use super::{FeedError, Inner, Request};
use crate::store::{self, StoreError};

/// Records in flight at once: what goes into one batch.
const PAGE_ROWS: i64 = bulk::MAX_RECORDS as i64;
/// Commits wake the publisher; this only bounds what a missed wake-up could cost.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Rows are removed this long after the first was acknowledged, so that cutovers don't wait for the removal's write lock.
const TIDY_DELAY: Duration = Duration::from_millis(250);
/// First and longest wait after a write that was not acknowledged.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What the publisher remembers between pages.
struct Progress {
    /// Rows up to this one were acknowledged.
    cursor: i64,
    /// When they are to be removed; none when there is nothing to remove.
    tidy_at: Option<Instant>,
    pause: Duration,
    /// Counts republications, each of which is a write of its own.
    again: u64,
}

/// What became of a page.
enum Page {
    /// There was nothing to do.
    Empty,
    /// All of it was acknowledged.
    Done,
    /// Not all of it was acknowledged; these streams may not be what they were.
    Unsure(Vec<String>),
}

pub(super) async fn run(inner: &Inner) -> Result<(), FeedError> {
    let committed = inner.store.committed();
    let mut requests = inner.inbox.lock().await;
    let mut progress = Progress {
        cursor: 0,
        tidy_at: None,
        pause: FIRST_PAUSE,
        again: 0,
    };
    loop {
        progress.drain(inner).await?;
        let tidy_at = progress
            .tidy_at
            .unwrap_or_else(|| Instant::now() + SWEEP_INTERVAL);
        tokio::select! {
            () = committed.notified() => {}
            Some(request) = requests.recv() => progress.answer(inner, request).await?,
            () = sleep_until(tidy_at), if progress.tidy_at.is_some() => {}
            () = sleep(SWEEP_INTERVAL) => {}
        }
    }
}

impl Progress {
    async fn drain(&mut self, inner: &Inner) -> Result<(), FeedError> {
        loop {
            match self.publish_page(inner).await? {
                Page::Empty => break,
                Page::Done => self.pause = FIRST_PAUSE,
                Page::Unsure(streams) => {
                    for stream in streams {
                        establish(inner, &stream).await?;
                    }
                    sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
            self.tidy_if_due(inner).await?;
        }
        self.tidy_if_due(inner).await
    }

    async fn publish_page(&mut self, inner: &Inner) -> Result<Page, FeedError> {
        let rows = read_page(inner, self.cursor).await?;
        let Some((last, _)) = rows.last() else {
            return Ok(Page::Empty);
        };
        let last = *last;
        let rows = self.publish_in_bulk(inner, rows).await;
        let mut sent = Vec::with_capacity(rows.len());
        for stored in rows {
            let stream = stored.stream.clone();
            sent.push((stream, send(inner, stored, None).await));
        }
        let mut unsure = Vec::new();
        let mut is_whole = true;
        for (stream, sending) in sent {
            if let Err(error) = acknowledged(inner, &stream, sending).await {
                is_whole = false;
                note(&mut unsure, stream, &error);
            }
        }
        if !is_whole {
            return Ok(Page::Unsure(unsure));
        }
        failpoint::hit("origin.published");
        self.cursor = last;
        self.tidy_at
            .get_or_insert_with(|| Instant::now() + TIDY_DELAY);
        Ok(Page::Done)
    }

    /// Publishes what there is much of in batches, and returns the rest. What was refused is tried one by one, which says why.
    async fn publish_in_bulk(&mut self, inner: &Inner, rows: Vec<(i64, Stored)>) -> Vec<Stored> {
        let mut streams: BTreeMap<String, Vec<Stored>> = BTreeMap::new();
        for (_, stored) in rows {
            streams
                .entry(stored.stream.clone())
                .or_default()
                .push(stored);
        }
        let mut rest = Vec::new();
        for (stream, records) in streams {
            let place = inner.scopes.get(&stream).zip(inner.life(&stream));
            let Some((scope, life)) = place.filter(|_| records.len() >= bulk::MIN_RECORDS) else {
                rest.extend(records);
                continue;
            };
            match bulk::publish(inner, scope, &life, records.clone()).await {
                Ok(sequence) => inner.acknowledge(&stream, sequence),
                Err(error) => {
                    tracing::warn!(
                        stream,
                        error = &error as &dyn std::error::Error,
                        "records go one by one"
                    );
                    rest.extend(records);
                }
            }
        }
        rest
    }

    async fn answer(&mut self, inner: &Inner, request: Request) -> Result<(), FeedError> {
        match request {
            Request::Establish { stream } => establish(inner, &stream).await,
            Request::Republish { stream, key } => {
                let Some(stored) = read_record(inner, &stream, &key).await? else {
                    return Ok(());
                };
                self.again += 1;
                let sending = send(inner, stored, Some(self.again)).await;
                let mut unsure = Vec::new();
                if let Err(error) = acknowledged(inner, &stream, sending).await {
                    note(&mut unsure, stream, &error);
                }
                for stream in unsure {
                    establish(inner, &stream).await?;
                }
                Ok(())
            }
        }
    }

    /// Removes what was acknowledged, and remembers how far that was, in one transaction.
    async fn tidy_if_due(&mut self, inner: &Inner) -> Result<(), FeedError> {
        if self.tidy_at.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        let reached: BTreeMap<String, u64> = inner
            .lives()
            .iter()
            .map(|(stream, life)| (stream.clone(), life.acknowledged))
            .collect();
        let mut tx = inner.store.write().await?;
        sqlx::query("DELETE FROM outbox WHERE id <= $1")
            .bind(self.cursor)
            .execute(&mut *tx)
            .await
            .map_err(StoreError::from)?;
        for (stream, acknowledged) in reached {
            sqlx::query(
                "UPDATE streams SET acknowledged = $2 WHERE stream = $1 AND acknowledged < $2",
            )
            .bind(stream)
            .bind(store::number(acknowledged))
            .execute(&mut *tx)
            .await
            .map_err(StoreError::from)?;
        }
        tx.commit().await?;
        // An emptied table counts its rows from one again.
        self.cursor = 0;
        self.tidy_at = None;
        Ok(())
    }
}

async fn establish(inner: &Inner, stream: &str) -> Result<(), FeedError> {
    match inner.scopes.get(stream) {
        Some(scope) => Ok(inner.establish(scope).await?),
        None => Ok(()),
    }
}

/// A refused condition and a missing stream mean the stream is not what it was; anything else may pass.
fn note(unsure: &mut Vec<String>, stream: String, error: &PublishError) {
    tracing::warn!(stream, %error, "record was not acknowledged");
    let is_changed = matches!(
        error.kind(),
        PublishErrorKind::WrongLastSequence | PublishErrorKind::StreamNotFound
    );
    if is_changed && !unsure.contains(&stream) {
        unsure.push(stream);
    }
}

/// Sends a record; none when its stream is no longer configured, and there is nobody to send it to.
async fn send(
    inner: &Inner,
    stored: Stored,
    again: Option<u64>,
) -> Option<Result<PublishAckFuture, PublishError>> {
    let scope = inner.scopes.get(&stored.stream)?;
    let Some(life) = inner.life(&stored.stream) else {
        return Some(Err(PublishError::new(PublishErrorKind::StreamNotFound)));
    };
    let (subject, headers, sealed) = message::record(inner, scope, &life, stored, again);
    Some(
        inner
            .jetstream
            .publish_with_headers(subject, headers, sealed.into())
            .await,
    )
}

async fn acknowledged(
    inner: &Inner,
    stream: &str,
    sending: Option<Result<PublishAckFuture, PublishError>>,
) -> Result<(), PublishError> {
    let Some(sending) = sending else {
        return Ok(());
    };
    let acknowledgement = match sending {
        Ok(acknowledgement) => acknowledgement.await?,
        // It would be refused for ever, and every record behind it would wait.
        Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
            tracing::error!(stream, %error, "record is too large for the server and is left out");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    inner.acknowledge(stream, acknowledgement.sequence);
    Ok(())
}

type RecordRow = (i64, String, String, i64, Vec<u8>, Option<i64>);

/// The next rows; of a record that changed several times only the newest state is there to send.
async fn read_page(inner: &Inner, after: i64) -> Result<Vec<(i64, Stored)>, StoreError> {
    let rows: Vec<RecordRow> = sqlx::query_as(
        "SELECT o.id, r.stream, r.record_key, r.generation, r.body, r.removed FROM outbox o \
         JOIN records r ON r.stream = o.stream AND r.record_key = o.record_key \
         WHERE o.id > $1 ORDER BY o.id LIMIT $2",
    )
    .bind(after)
    .bind(PAGE_ROWS)
    .fetch_all(inner.store.reader())
    .await?;
    rows.into_iter()
        .map(|row| Ok((row.0, stored(row)?)))
        .collect()
}

async fn read_record(inner: &Inner, stream: &str, key: &str) -> Result<Option<Stored>, StoreError> {
    let row: Option<RecordRow> = sqlx::query_as(
        "SELECT 0, stream, record_key, generation, body, removed FROM records WHERE stream = $1 AND record_key = $2",
    )
    .bind(stream)
    .bind(key)
    .fetch_optional(inner.store.reader())
    .await?;
    row.map(stored).transpose()
}

fn stored(row: RecordRow) -> Result<Stored, StoreError> {
    let (_, stream, key, generation, body, removed) = row;
    let generation = Generation(store::count(generation, "records.generation")?);
    Ok(Stored {
        stream,
        key,
        generation,
        body,
        is_tombstone: removed.is_some(),
    })
}
