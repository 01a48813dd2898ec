//! Sends what waits, several webhooks side by side and each one delivery at a time, oldest event first.
//!
//! Invariant: what came of an attempt is noted in a transaction that checks the term, before the next attempt for that webhook begins. An origin
//! that ends between sending and noting sends again after its start: at least once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use helix_routing::time::Timestamp;
use helix_service::error::chain;
use helix_service::shutdown::Shutdown;
use helix_service::{clock, failpoint};
use tokio::task::JoinSet;

use super::give_up;
use super::schedule::Patience;
use super::secret::WebhookKey;
use super::send::{self, Attempt, Message, Permitted};
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::store::{Store, StoreError, Tx, millis, time};

/// Webhooks that are sent to at the same time.
const SIDE_BY_SIDE: usize = 16;
/// Deliveries that are looked at to find those.
const PAGE_ROWS: i64 = 512;
/// Commits wake the sender; this is how late a delivery can be whose time has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Wait before the database is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A receiver that says so wants no more, ever.
const GONE: u16 = 410;

/// How deliveries are sent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender {
    /// What their secrets are derived from.
    pub key: Arc<WebhookKey>,
    /// Where they may go.
    pub permitted: Arc<Permitted>,
    /// How often they are tried.
    pub patience: Patience,
}

/// A delivery whose time has come.
#[derive(Clone, Debug)]
struct Due {
    delivery: String,
    webhook: String,
    event: String,
    attempts: u32,
    created: Timestamp,
    url: String,
    mark: String,
    body: String,
}

/// Sends until shutdown. Whatever fails is logged and tried again.
#[expect(clippy::cognitive_complexity, reason = "most of it is what is logged")]
pub async fn run(store: &Store, sender: &Sender, shutdown: &Shutdown) {
    let committed = store.committed();
    let mut running: JoinSet<String> = JoinSet::new();
    let mut busy: BTreeSet<String> = BTreeSet::new();
    loop {
        match due(store, &busy).await {
            Ok(found) => {
                for next in found {
                    busy.insert(next.webhook.clone());
                    running.spawn(deliver(store.clone(), sender.clone(), next));
                }
            }
            Err(error) => tracing::warn!(error = %chain(&error), "deliveries are not read"),
        }
        tokio::select! {
            () = shutdown.requested() => return,
            Some(done) = running.join_next() => match done {
                Ok(webhook) => {
                    busy.remove(&webhook);
                }
                Err(error) => {
                    // Which one it was is not known: all are looked at anew, and at worst sent twice.
                    tracing::error!(%error, "a delivery failed inside");
                    running.abort_all();
                    busy.clear();
                }
            },
            () = committed.notified(), if busy.len() < SIDE_BY_SIDE => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// The oldest delivery of each webhook that has nothing on its way.
async fn due(store: &Store, busy: &BTreeSet<String>) -> Result<Vec<Due>, StoreError> {
    type Row = (String, String, String, i64, i64, String, String, String);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT d.delivery, d.webhook, d.event, d.attempts, d.created, w.url, w.mark, e.body FROM deliveries d \
         JOIN webhooks w ON w.webhook = d.webhook JOIN events e ON e.event = d.event \
         WHERE d.state = 'pending' AND d.next_at <= $1 AND w.disabled IS NULL AND w.removed IS NULL ORDER BY d.number LIMIT $2",
    )
    .bind(millis(clock::now()))
    .bind(PAGE_ROWS)
    .fetch_all(store.reader())
    .await?;
    let mut taken = busy.clone();
    let mut found = Vec::new();
    for (delivery, webhook, event, attempts, created, url, mark, body) in rows {
        if taken.len() >= SIDE_BY_SIDE || !taken.insert(webhook.clone()) {
            continue;
        }
        found.push(Due {
            delivery,
            webhook,
            event,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            created: time(created),
            url,
            mark,
            body,
        });
    }
    Ok(found)
}

/// One attempt, and a note of what came of it. Returns the webhook.
#[expect(clippy::cognitive_complexity, reason = "most of it is what is logged")]
async fn deliver(store: Store, sender: Sender, due: Due) -> String {
    let attempt = attempt(&sender, &due).await;
    failpoint::hit("origin.webhook.sent");
    match &attempt.error {
        None => tracing::debug!(delivery = due.delivery, webhook = due.webhook, "delivered"),
        Some(error) => tracing::info!(
            delivery = due.delivery,
            webhook = due.webhook,
            error,
            "not delivered"
        ),
    }
    loop {
        match note(&store, &sender.patience, &due, &attempt).await {
            Ok(()) => return due.webhook,
            Err(StoreError::Fenced { .. }) => return due.webhook,
            Err(error) => {
                tracing::error!(delivery = due.delivery, error = %chain(&error), "what came of a delivery is not noted");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn attempt(sender: &Sender, due: &Due) -> Attempt {
    let secret = sender.key.secret(&due.webhook);
    if secret.mark() != due.mark {
        let error = "origin's key of webhooks is not the one this was made with: add the webhook anew, or restore the key";
        return Attempt {
            status: None,
            error: Some(error.to_owned()),
            retry_after: None,
            elapsed: Duration::ZERO,
        };
    }
    let message = Message {
        id: &due.event,
        at: clock::now(),
        body: due.body.clone(),
    };
    send::send(&due.url, &sender.permitted, &secret, message).await
}

async fn note(
    store: &Store,
    patience: &Patience,
    due: &Due,
    attempt: &Attempt,
) -> Result<(), StoreError> {
    let now = clock::now();
    let attempts = due.attempts.saturating_add(1);
    let wait = patience.wait(attempts, rand::random(), attempt.retry_after);
    let is_late = (now + wait).since(due.created) > patience.retry_for.duration();
    let (state, next) = match (&attempt.error, is_late) {
        (None, _) => ("delivered", None),
        (Some(_), true) => ("failed", None),
        (Some(_), false) => ("pending", Some(now + wait)),
    };
    let mut tx = store.write().await?;
    sqlx::query(
        "UPDATE deliveries SET state = $1, attempts = $2, next_at = $3, tried = $4, status = $5, error = $6, elapsed_ms = $7 \
         WHERE delivery = $8 AND state = 'pending'",
    )
    .bind(state)
    .bind(i64::from(attempts))
    .bind(next.map(millis))
    .bind(millis(now))
    .bind(attempt.status.map(i64::from))
    .bind(&attempt.error)
    .bind(i64::try_from(attempt.elapsed.as_millis()).unwrap_or(i64::MAX))
    .bind(&due.delivery)
    .execute(&mut *tx)
    .await?;
    if attempt.error.is_none() {
        sqlx::query("UPDATE webhooks SET failing = NULL WHERE webhook = $1")
            .bind(&due.webhook)
            .execute(&mut *tx)
            .await?;
    } else {
        note_failure(&mut tx, patience, due, attempt, now).await?;
    }
    tx.commit().await
}

/// A webhook that fails is shown so, and disabled when it has failed for long, or when its receiver is gone.
async fn note_failure(
    tx: &mut Tx,
    patience: &Patience,
    due: &Due,
    attempt: &Attempt,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE webhooks SET failing = COALESCE(failing, $1) WHERE webhook = $2")
        .bind(millis(now))
        .bind(&due.webhook)
        .execute(&mut **tx)
        .await?;
    let failing: i64 = sqlx::query_scalar("SELECT failing FROM webhooks WHERE webhook = $1")
        .bind(&due.webhook)
        .fetch_one(&mut **tx)
        .await?;
    let error = attempt.error.as_deref().unwrap_or_default();
    let why = if attempt.status == Some(GONE) {
        "its receiver answered 410: it wants no more".to_owned()
    } else if now.since(time(failing)) >= patience.disable_after.duration() {
        format!(
            "nothing could be delivered for {}: {error}",
            patience.disable_after
        )
    } else {
        return Ok(());
    };
    sqlx::query(
        "UPDATE webhooks SET disabled = $1, disabled_why = $2 WHERE webhook = $3 AND disabled IS NULL",
    )
    .bind(millis(now))
    .bind(&why)
    .bind(&due.webhook)
    .execute(&mut **tx)
    .await?;
    give_up(tx, &due.webhook, "the webhook was disabled").await?;
    let act = Act::new("webhook.disable", due.webhook.clone()).reason(Some(&why));
    audit::record(tx, &Caller::origin(), act).await
}
