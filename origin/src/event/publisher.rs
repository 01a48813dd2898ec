//! Moves events to JetStream, in order, each at least once.
//!
//! Invariant: an event counts as published only when the server has acknowledged it. A crash repeats it under the id that it had, and the
//! server drops what it has. The stream is bounded, so that nobody who does not read it fills a disk.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use helix_routing::time::Timestamp;
use helix_service::clock;
use helix_service::shutdown::Shutdown;

use crate::relay::{self, Relay, RelayError, link};
use crate::store::{Store, millis, time};

/// The stream.
pub const STREAM: &str = "EVENTS";
/// A week, 64 MiB or 100,000 events, whichever is least: the oldest go first.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);
const MAX_BYTES: i64 = 64 * 1024 * 1024;
const MAX_EVENTS: i64 = 100_000;
/// An id is known for so long: longer than any pause between a publication and its repetition.
const DUPLICATES: Duration = Duration::from_hours(1);
/// Events that are read at once.
const PAGE_ROWS: i64 = 256;

/// Publishes until shutdown, to a stream that so many servers keep.
pub async fn run(store: &Store, client: async_nats::Client, replicas: usize, shutdown: &Shutdown) {
    relay::run(&Publisher { store, replicas }, store, client, shutdown).await;
}

struct Publisher<'a> {
    store: &'a Store,
    replicas: usize,
}

impl Relay for Publisher<'_> {
    const STREAM: &'static str = STREAM;
    const FAILED: &'static str = "events are not published";

    async fn set_up(&self, jetstream: &jetstream::Context) -> Result<(), RelayError> {
        let made = jetstream
            .create_or_update_stream(config(self.replicas))
            .await;
        made.map(drop).map_err(link::<Self, _>("set up"))
    }

    async fn send_page(&self, jetstream: &jetstream::Context) -> Result<usize, RelayError> {
        publish_page(self.store, jetstream).await
    }
}

async fn publish_page(store: &Store, jetstream: &jetstream::Context) -> Result<usize, RelayError> {
    let rows: Vec<(String, i64, i64, String, Option<String>, String)> = sqlx::query_as(
        "SELECT event, number, at, kind, project, body FROM events WHERE published IS NULL ORDER BY number LIMIT $1",
    )
    .bind(PAGE_ROWS)
    .fetch_all(store.reader())
    .await?;
    let Some((_, last, ..)) = rows.last() else {
        return Ok(0);
    };
    let last = *last;
    let mut sent = Vec::with_capacity(rows.len());
    for (event, _, at, kind, project, body) in rows {
        let headers = headers((&event, &kind), project.as_deref(), time(at));
        let subject = format!("events.{}.{kind}", project.as_deref().unwrap_or("_"));
        let sending = jetstream.publish_with_headers(subject, headers, body.into());
        sent.push(
            sending
                .await
                .map_err(link::<Publisher<'_>, _>("publish to"))?,
        );
    }
    let published = sent.len();
    for acknowledgement in sent {
        acknowledgement
            .await
            .map_err(link::<Publisher<'_>, _>("publish to"))?;
    }
    let mut tx = store.write().await?;
    sqlx::query("UPDATE events SET published = $1 WHERE published IS NULL AND number <= $2")
        .bind(millis(clock::now()))
        .bind(last)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(published)
}

/// What CloudEvents says of an event, in the binary mode of its NATS binding: the body is the data.
fn headers(
    (event, kind): (&str, &str),
    project: Option<&str>,
    at: Timestamp,
) -> async_nats::HeaderMap {
    let source = project.map_or_else(|| "/".to_owned(), |project| format!("/projects/{project}"));
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", event);
    headers.insert("ce-specversion", "1.0");
    headers.insert("ce-id", event);
    headers.insert("ce-source", source.as_str());
    headers.insert("ce-type", format!("dev.helixstack.{kind}").as_str());
    headers.insert("ce-time", at.rfc3339().as_str());
    headers.insert("content-type", "application/json");
    headers
}

fn config(replicas: usize) -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec!["events.>".to_owned()],
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        num_replicas: replicas,
        max_age: MAX_AGE,
        max_bytes: MAX_BYTES,
        max_messages: MAX_EVENTS,
        duplicate_window: DUPLICATES,
        allow_direct: true,
        ..Config::default()
    }
}
