//! Many records of one stream as one atomic batch of JetStream (ADR-50): an import of a million is synced a thousand at a time.
//!
//! All of a batch is stored, in order and without anything between, or nothing is. So one condition on its first message fences all of it.
//! A batch that was not acknowledged may have been stored all the same; then its records are published once more, which changes nothing at an edge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use helix_routing::key::Scope;
use helix_service::random;
use serde::Deserialize;

use super::message::{self, Stored};
use super::{Inner, Life};

/// The server takes no more into one batch.
pub(super) const MAX_RECORDS: usize = 1000;
/// With fewer, records are published one by one: staging a batch takes the server a few milliseconds.
pub(super) const MIN_RECORDS: usize = 128;
/// The server syncs a thousand records before it answers.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// A batch was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub(super) enum BulkError {
    /// It could not be sent, or nobody answered.
    #[error("send a batch of records")]
    Send(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server refused it.
    #[error("the server refused a batch of records: {0}")]
    Refused(String),
    /// The records could not be sealed.
    #[error("seal a batch of records")]
    Seal(#[source] tokio::task::JoinError),
}

#[derive(Deserialize)]
struct Answer {
    seq: Option<u64>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    description: String,
}

/// Publishes records of one stream, at most [`MAX_RECORDS`], and returns the sequence of the last.
pub(super) async fn publish(
    inner: &Inner,
    scope: &Scope,
    life: &Life,
    records: Vec<Stored>,
) -> Result<u64, BulkError> {
    let sealed = seal(inner, scope, life, records).await?;
    let batch = random::hex16();
    let last = sealed.len();
    let mut sequence = 0;
    for (number, (subject, headers, payload)) in (1..).zip(sealed) {
        let mut headers = if number == 1 {
            message::fence(scope, life, headers)
        } else {
            headers
        };
        headers.insert(BATCH_ID, batch.as_str());
        headers.insert(BATCH_SEQUENCE, number.to_string());
        if number == last {
            headers.insert(BATCH_COMMIT, "1");
        }
        if number == 1 || number == last {
            sequence = ask(inner, subject, headers, payload).await?;
        } else {
            let sent = inner.client.publish_with_headers(subject, headers, payload);
            sent.await.map_err(|error| BulkError::Send(error.into()))?;
        }
    }
    Ok(sequence)
}

/// The first is answered with nothing, the last with its sequence.
async fn ask(
    inner: &Inner,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<u64, BulkError> {
    let request = Request::new()
        .headers(headers)
        .payload(payload)
        .timeout(Some(ANSWER_WAIT));
    let answer = inner
        .client
        .send_request(subject, request)
        .await
        .map_err(|error| BulkError::Send(error.into()))?;
    if answer.payload.is_empty() {
        return Ok(0);
    }
    let answer: Answer =
        serde_json::from_slice(&answer.payload).map_err(|error| BulkError::Send(error.into()))?;
    match answer.error {
        Some(refusal) => Err(BulkError::Refused(refusal.description)),
        None => Ok(answer.seq.unwrap_or(0)),
    }
}

/// A signature takes some 20 µs: a thousand are made off the runtime's threads. Of a key that is listed twice one is enough.
async fn seal(
    inner: &Inner,
    scope: &Scope,
    life: &Life,
    records: Vec<Stored>,
) -> Result<Vec<(String, HeaderMap, Bytes)>, BulkError> {
    let (key, epoch) = (Arc::clone(&inner.key), inner.store.epoch());
    let (prefix, life) = (scope.stored_prefix(), life.incarnation.clone());
    let work = move || {
        let mut keys = BTreeSet::new();
        let records = records.into_iter();
        records
            .filter(|stored| keys.insert(stored.key.clone()))
            .map(|stored| {
                let subject = format!("{prefix}{}", stored.key);
                let headers = message::lifetime(&stored);
                let sealed = key.seal(
                    helix_service::keys::Address {
                        stream: stored.stream,
                        key: stored.key,
                        incarnation: life.clone(),
                        epoch,
                        generation: stored.generation,
                    },
                    stored.body,
                );
                (subject, headers, Bytes::from(sealed))
            })
            .collect()
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(BulkError::Seal)
}
