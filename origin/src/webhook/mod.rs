//! Webhooks: who is told of events, how each delivery stands, and what an operator can do about it.
//!
//! ```text
//!  event ──▶ pending ──2xx──▶ delivered
//!              │  ▲ │ too long, or the webhook disabled or removed
//!     failed,  └──┘ └──────────▶ failed ──replay──▶ pending
//!     later again                dropped ──replay──▶
//! ```
//!
//! Invariant: every attempt carries the id of its event, so a receiver knows what it has had; an attempt whose end was not noted, since origin
//! ended, is made again. A webhook that fails for long is disabled, and says why. No secret is stored or logged, and no URL logged.

use helix_routing::id::ProjectName;
use helix_routing::webhook::{
    CreatedWebhook, DeliveryState, DeliveryView, NewWebhook, WebhookView,
};
use helix_service::{clock, random};
use url::Url;

use self::secret::WebhookKey;
use self::send::{Permitted, UrlError};
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::event::{self, Event};
use crate::project::{self, ProjectError};
use crate::store::{self, Connection, StoreError, Tx, count, millis};

pub mod deliver;
pub mod schedule;
pub mod secret;
pub mod send;

/// Webhooks of one origin: each is asked about with every event.
const MAX_WEBHOOKS: i64 = 100;
/// Patterns of one webhook, and the longest.
const MAX_PATTERNS: usize = 50;
const MAX_PATTERN: usize = 64;
/// Deliveries of one page.
const MAX_PAGE: u32 = 200;

/// A webhook cannot be made, found or used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Nothing can be sent there.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Not a kind of event.
    #[error("{0:?} is no kind of event: write one like hold.set, or a family like deployment.*")]
    Pattern(String),
    /// Too many patterns.
    #[error("a webhook has at most {MAX_PATTERNS} kinds of events")]
    Patterns,
    /// Too many.
    #[error("there are {MAX_WEBHOOKS} webhooks, which is the most")]
    TooMany,
    /// There is none of this id.
    #[error("there is no webhook {0}")]
    Unknown(String),
    /// There is none of this id.
    #[error("there is no delivery {0}; they are kept for 30 days")]
    UnknownDelivery(String),
    /// Nothing is sent to it.
    #[error("webhook {0} is disabled: `helix webhooks enable {0}` lets it be tried again")]
    Disabled(String),
    /// The project has not been deployed.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for WebhookError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// Makes a webhook. Its secret is in the answer, this once.
///
/// # Errors
/// As [`WebhookError`] says.
pub async fn add(
    tx: &mut Tx,
    caller: &Caller,
    new: NewWebhook,
    key: &WebhookKey,
    permitted: &Permitted,
) -> Result<CreatedWebhook, WebhookError> {
    let url = send::check(&new.url, permitted)?;
    let events = patterns(&new.events)?;
    if let Some(project) = &new.project {
        project::check(tx, project).await?;
    }
    let webhooks: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM webhooks WHERE removed IS NULL")
        .fetch_one(&mut **tx)
        .await?;
    if webhooks >= MAX_WEBHOOKS {
        return Err(WebhookError::TooMany);
    }
    let webhook = format!("wh_{}", random::hex16());
    let secret = key.secret(&webhook);
    sqlx::query(
        "INSERT INTO webhooks (webhook, url, project, events, mark, by_whom, created) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&webhook)
    .bind(&new.url)
    .bind(new.project.as_ref().map(ProjectName::as_str))
    .bind(&events)
    .bind(secret.mark())
    .bind(&caller.name)
    .bind(millis(clock::now()))
    .execute(&mut **tx)
    .await?;
    note(tx, caller, "webhook.add", &webhook, Some(host(&url))).await?;
    Ok(CreatedWebhook {
        secret: secret.shown(),
        view: find(tx, &webhook).await?,
    })
}

/// Every webhook, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn list(connection: &mut Connection) -> Result<Vec<WebhookView>, WebhookError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT webhook, url, project, events, by_whom, created, failing, disabled, disabled_why, \
         (SELECT COUNT(*) FROM deliveries WHERE deliveries.webhook = webhooks.webhook AND state = 'pending') AS waiting \
         FROM webhooks WHERE removed IS NULL ORDER BY created, webhook",
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(view).collect()
}

/// Ends a webhook. What waits for it is not sent.
///
/// # Errors
/// When there is none of this id, or the database fails.
pub async fn remove(tx: &mut Tx, caller: &Caller, webhook: &str) -> Result<(), WebhookError> {
    let now = millis(clock::now());
    let removed =
        sqlx::query("UPDATE webhooks SET removed = $1 WHERE webhook = $2 AND removed IS NULL")
            .bind(now)
            .bind(webhook)
            .execute(&mut **tx)
            .await?;
    if removed.rows_affected() == 0 {
        return Err(unknown(webhook));
    }
    give_up(tx, webhook, "the webhook was removed").await?;
    note(tx, caller, "webhook.remove", webhook, None).await
}

/// Lets a disabled webhook be tried again. What was given up meanwhile can be sent by hand.
///
/// # Errors
/// When there is none of this id, or the database fails.
pub async fn enable(
    tx: &mut Tx,
    caller: &Caller,
    webhook: &str,
) -> Result<WebhookView, WebhookError> {
    sqlx::query(
        "UPDATE webhooks SET disabled = NULL, disabled_why = NULL, failing = NULL WHERE webhook = $1 AND removed IS NULL",
    )
    .bind(webhook)
    .execute(&mut **tx)
    .await?;
    let view = find(tx, webhook).await?;
    note(tx, caller, "webhook.enable", webhook, None).await?;
    Ok(view)
}

/// Sends an event of the kind `webhook.test` to this webhook alone.
///
/// # Errors
/// When there is none of this id, it is disabled, or the database fails.
pub async fn test(
    tx: &mut Tx,
    caller: &Caller,
    webhook: &str,
) -> Result<DeliveryView, WebhookError> {
    let found = find(tx, webhook).await?;
    if found.disabled.is_some() {
        return Err(WebhookError::Disabled(webhook.to_owned()));
    }
    let event = Event::new("webhook.test", found.project.as_ref())
        .with("webhook", Some(webhook.to_owned()))
        .with("by", Some(caller.name.clone()));
    let deliveries = event::emit_to(tx, event, &[webhook.to_owned()]).await?;
    note(tx, caller, "webhook.test", webhook, None).await?;
    let delivery = deliveries.first().map_or("", String::as_str);
    one_delivery(tx, delivery).await
}

/// Which deliveries of a webhook.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only those that stand so.
    pub state: Option<DeliveryState>,
    /// Only those of events before this number.
    pub before: Option<u64>,
    /// How many at most.
    pub limit: Option<u32>,
}

/// Deliveries of a webhook, newest event first.
///
/// # Errors
/// When there is none of this id, or the database fails.
pub async fn deliveries(
    connection: &mut Connection,
    webhook: &str,
    wanted: &Wanted,
) -> Result<Vec<DeliveryView>, WebhookError> {
    find(connection, webhook).await?;
    let statement = format!(
        "{DELIVERY} WHERE d.webhook = $1 AND d.number < $2 AND (CAST($3 AS TEXT) IS NULL OR d.state = $3) \
         ORDER BY d.number DESC LIMIT $4"
    );
    let rows: Vec<DeliveryRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(webhook)
        .bind(wanted.before.map_or(i64::MAX, store::number))
        .bind(wanted.state.map(state_text))
        .bind(i64::from(wanted.limit.unwrap_or(50).clamp(1, MAX_PAGE)))
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(delivery_view).collect()
}

/// One delivery.
///
/// # Errors
/// When there is none of this id, or the database fails.
pub async fn one_delivery(
    connection: &mut Connection,
    delivery: &str,
) -> Result<DeliveryView, WebhookError> {
    let statement = format!("{DELIVERY} WHERE d.delivery = $1");
    let row: Option<DeliveryRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(delivery)
        .fetch_optional(connection)
        .await?;
    let short = || delivery.chars().take(MAX_PATTERN).collect();
    row.map(delivery_view)
        .unwrap_or_else(|| Err(WebhookError::UnknownDelivery(short())))
}

/// Sends a delivery again, under the id that it had.
///
/// # Errors
/// When there is none of this id, its webhook is gone or disabled, or the database fails.
pub async fn replay(
    tx: &mut Tx,
    caller: &Caller,
    delivery: &str,
) -> Result<DeliveryView, WebhookError> {
    let known = one_delivery(tx, delivery).await?;
    let webhook = find(tx, &known.webhook).await?;
    if webhook.disabled.is_some() {
        return Err(WebhookError::Disabled(known.webhook));
    }
    let now = millis(clock::now());
    sqlx::query(
        "UPDATE deliveries SET state = 'pending', attempts = 0, created = $1, next_at = $1 WHERE delivery = $2",
    )
    .bind(now)
    .bind(delivery)
    .execute(&mut **tx)
    .await?;
    let detail = format!("to {}: event {}", known.webhook, known.event);
    note(tx, caller, "webhook.replay", delivery, Some(detail)).await?;
    one_delivery(tx, delivery).await
}

/// What waits for a webhook is not sent, for this reason.
pub(super) async fn give_up(tx: &mut Tx, webhook: &str, why: &str) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE deliveries SET state = 'failed', next_at = NULL, error = $1 WHERE webhook = $2 AND state = 'pending'",
    )
    .bind(why)
    .bind(webhook)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn note(
    tx: &mut Tx,
    caller: &Caller,
    action: &'static str,
    subject: &str,
    detail: Option<String>,
) -> Result<(), WebhookError> {
    audit::record(tx, caller, Act::new(action, subject).detail(detail)).await?;
    Ok(())
}

/// All of a URL that the log may have: paths and queries hold secrets of receivers.
fn host(url: &Url) -> String {
    format!("at {}", url.host_str().unwrap_or_default())
}

fn patterns(events: &[String]) -> Result<String, WebhookError> {
    if events.len() > MAX_PATTERNS {
        return Err(WebhookError::Patterns);
    }
    for pattern in events {
        let name = pattern.strip_suffix('*').unwrap_or(pattern);
        let is_name = |byte: u8| byte.is_ascii_lowercase() || b"._".contains(&byte);
        let is_legal = (1..=MAX_PATTERN).contains(&pattern.len()) && name.bytes().all(is_name);
        if !is_legal {
            let shown = pattern.chars().take(MAX_PATTERN).collect();
            return Err(WebhookError::Pattern(shown));
        }
    }
    Ok(events.join(" "))
}

async fn find(connection: &mut Connection, webhook: &str) -> Result<WebhookView, WebhookError> {
    let webhooks = list(connection).await?;
    let found = webhooks.into_iter().find(|found| found.webhook == webhook);
    found.ok_or_else(|| unknown(webhook))
}

fn unknown(webhook: &str) -> WebhookError {
    WebhookError::Unknown(webhook.chars().take(MAX_PATTERN).collect())
}

type Row = (
    String,
    String,
    Option<String>,
    String,
    String,
    i64,
    Option<i64>,
    Option<i64>,
    Option<String>,
    i64,
);

fn view(row: Row) -> Result<WebhookView, WebhookError> {
    let (webhook, url, project, events, by, created, failing, disabled, why, waiting) = row;
    let project = project.as_deref().map(store::id).transpose()?;
    Ok(WebhookView {
        webhook,
        url,
        project,
        events: events.split_whitespace().map(str::to_owned).collect(),
        by,
        created: store::time(created),
        failing: failing.map(store::time),
        disabled: disabled.map(store::time),
        disabled_because: why,
        waiting: count(waiting, "deliveries")?,
    })
}

const DELIVERY: &str = "SELECT d.delivery, d.webhook, d.event, d.number, e.kind, d.state, d.attempts, d.created, d.next_at, d.tried, d.status, \
     d.error, d.elapsed_ms FROM deliveries d JOIN events e ON e.event = d.event";

type DeliveryRow = (
    String,
    String,
    String,
    i64,
    String,
    String,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<i64>,
);

fn delivery_view(row: DeliveryRow) -> Result<DeliveryView, WebhookError> {
    let (
        delivery,
        webhook,
        event,
        number,
        kind,
        state,
        attempts,
        created,
        next,
        tried,
        status,
        error,
        elapsed,
    ) = row;
    let state = match state.as_str() {
        "pending" => DeliveryState::Pending,
        "delivered" => DeliveryState::Delivered,
        "failed" => DeliveryState::Failed,
        "dropped" => DeliveryState::Dropped,
        _ => {
            return Err(StoreError::Corrupt {
                what: "deliveries.state",
            }
            .into());
        }
    };
    Ok(DeliveryView {
        delivery,
        webhook,
        event,
        number: count(number, "deliveries.number")?,
        kind,
        state,
        attempts: count(attempts, "deliveries.attempts")?,
        created: store::time(created),
        next: next.map(store::time),
        tried: tried.map(store::time),
        status: status.and_then(|status| u16::try_from(status).ok()),
        error,
        elapsed_ms: elapsed.and_then(|elapsed| u64::try_from(elapsed).ok()),
    })
}

const fn state_text(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => "pending",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Failed => "failed",
        DeliveryState::Dropped => "dropped",
    }
}
