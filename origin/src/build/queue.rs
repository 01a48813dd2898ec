//! Tells workers that there is something to build: a work queue at JetStream, whose messages hold a build's id and nothing else.
//!
//! Invariant: a build counts as told only when the server has acknowledged its message. What is told twice is claimed once. A stream that
//! was lost is told everything again.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use helix_routing::queue::{CONSUMER, STREAM};
use helix_service::clock;
use helix_service::shutdown::Shutdown;
use serde_json::json;

use crate::relay::{self, Relay, RelayError, link};
use crate::store::{Store, millis};

/// A week or 10,000 messages. What goes missing is told again.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);
const MAX_MESSAGES: i64 = 10_000;
/// Ids of messages are known for so long: longer than any pause between a publication and its repetition.
const DUPLICATES: Duration = Duration::from_mins(2);
/// A worker acknowledges what it has claimed at once; one that does not within this has not got it.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Builds that are told at once.
const PAGE_ROWS: i64 = 100;
/// What was told and not claimed by then is told again: its message may have been lost with a server.
const TOLD_AGAIN: Duration = Duration::from_mins(10);

/// Tells workers until shutdown, through a stream that so many servers keep.
pub async fn run(store: &Store, client: async_nats::Client, replicas: usize, shutdown: &Shutdown) {
    relay::run(&Queue { store, replicas }, store, client, shutdown).await;
}

struct Queue<'a> {
    store: &'a Store,
    replicas: usize,
}

impl Relay for Queue<'_> {
    const STREAM: &'static str = STREAM;
    const FAILED: &'static str = "workers are not told of builds";

    async fn set_up(&self, jetstream: &jetstream::Context) -> Result<(), RelayError> {
        jetstream
            .create_or_update_stream(config(self.replicas))
            .await
            .map_err(link::<Self, _>("set up"))?;
        let mut stream = jetstream
            .get_stream(STREAM)
            .await
            .map_err(link::<Self, _>("read"))?;
        let consumer = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_wait: ACK_WAIT,
            max_ack_pending: MAX_MESSAGES,
            ..pull::Config::default()
        };
        stream
            .create_consumer(consumer)
            .await
            .map_err(link::<Self, _>("set up the consumer of"))?;
        let info = stream.info().await.map_err(link::<Self, _>("read"))?;
        if info.state.messages == 0 {
            let mut tx = self.store.write().await?;
            sqlx::query("UPDATE builds SET queued = NULL WHERE state = 'queued'")
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn send_page(&self, jetstream: &jetstream::Context) -> Result<usize, RelayError> {
        tell_page(self.store, jetstream).await
    }
}

async fn tell_page(store: &Store, jetstream: &jetstream::Context) -> Result<usize, RelayError> {
    let now = clock::now();
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT build, project, attempts FROM builds WHERE state = 'queued' AND (queued IS NULL OR queued < $1) ORDER BY created LIMIT $2",
    )
    .bind(millis(now - TOLD_AGAIN))
    .bind(PAGE_ROWS)
    .fetch_all(store.reader())
    .await?;
    for (build, project, attempts) in &rows {
        let mut headers = async_nats::HeaderMap::new();
        let minute = now.as_millis() / 60_000;
        headers.insert(
            "Nats-Msg-Id",
            format!("{build}-{attempts}-{minute}").as_str(),
        );
        let body = json!({ "build": build }).to_string();
        jetstream
            .publish_with_headers(format!("hx.builds.{project}"), headers, body.into())
            .await
            .map_err(link::<Queue<'_>, _>("publish to"))?
            .await
            .map_err(link::<Queue<'_>, _>("publish to"))?;
    }
    if rows.is_empty() {
        return Ok(0);
    }
    let mut tx = store.write().await?;
    for (build, _, attempts) in &rows {
        sqlx::query(
            "UPDATE builds SET queued = $1 WHERE build = $2 AND state = 'queued' AND attempts = $3",
        )
        .bind(millis(now))
        .bind(build)
        .bind(attempts)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(rows.len())
}

fn config(replicas: usize) -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec!["hx.builds.>".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        num_replicas: replicas,
        max_age: MAX_AGE,
        max_messages: MAX_MESSAGES,
        duplicate_window: DUPLICATES,
        ..Config::default()
    }
}
