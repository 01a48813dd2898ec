//! Events: what happened, for others, written in the transaction that made it happen.
//!
//! ```text
//!  a change ──one transaction──▶ its rows, the event, a delivery for each webhook that wants it
//!                                    │ publisher ──▶ JetStream, stream EVENTS
//!                                    └ crate::webhook ──▶ whoever asked
//! ```
//!
//! Invariant: what was committed has its events, and what was not has none. Consumers see each at least once, under one id.

use helix_routing::api::{RegionView, RolloutView};
use helix_routing::id::{ProjectName, SiteId};
use helix_routing::rollout::Outcome;
use helix_service::{clock, random};
use serde_json::{Map, Value, json};

use crate::source::feedback;
use crate::store::{Store, StoreError, Tx, millis};

pub mod publisher;
mod steps;

pub use steps::Moved;

/// How long events and what became of their deliveries are kept.
const KEPT: std::time::Duration = std::time::Duration::from_hours(30 * 24);
/// Deliveries that wait for one webhook. Those beyond are dropped, listed as such, and can be sent by hand.
pub const MAX_PENDING: i64 = 1000;
/// Longest text in an event, in characters.
const MAX_TEXT: usize = 1000;

/// What happened.
#[derive(Clone, Debug)]
pub struct Event {
    kind: String,
    project: Option<String>,
    data: Map<String, Value>,
}

impl Event {
    /// An event such as `hold.set`.
    #[must_use]
    pub fn new(kind: impl Into<String>, project: Option<&ProjectName>) -> Self {
        let event = Self {
            kind: kind.into(),
            project: project.map(ToString::to_string),
            data: Map::new(),
        };
        let project = event.project.clone();
        event.with("project", project)
    }

    /// With the site that it happened to.
    #[must_use]
    pub fn on(self, site: &SiteId) -> Self {
        self.with("site", Some(site.to_string()))
            .with("environment", Some(site.environment.to_string()))
    }

    /// With one more member, if it has a value.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            let value = match value.into() {
                Value::String(text) => Value::String(text.chars().take(MAX_TEXT).collect()),
                other => other,
            };
            self.data.insert(name.to_owned(), value);
        }
        self
    }
}

/// Writes an event, and a delivery for each webhook that wants it.
///
/// # Errors
/// When the database fails.
pub async fn emit(tx: &mut Tx, event: Event) -> Result<(), StoreError> {
    let wanting: Vec<(String, Option<String>, String)> = sqlx::query_as(
        "SELECT webhook, project, events FROM webhooks WHERE removed IS NULL AND disabled IS NULL ORDER BY created, webhook",
    )
    .fetch_all(&mut **tx)
    .await?;
    let wanting = wanting.into_iter().filter(|(_, project, patterns)| {
        let is_ours = project.is_none() || *project == event.project;
        is_ours && wants(patterns, &event.kind)
    });
    let webhooks: Vec<String> = wanting.map(|(webhook, ..)| webhook).collect();
    emit_to(tx, event, &webhooks).await.map(drop)
}

/// Writes an event for these webhooks alone, and returns the ids of its deliveries.
///
/// # Errors
/// When the database fails.
pub async fn emit_to(
    tx: &mut Tx,
    event: Event,
    webhooks: &[String],
) -> Result<Vec<String>, StoreError> {
    let now = clock::now();
    let id = format!("evt_{}{}", random::hex16(), random::hex16());
    let number: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(number), 0) + 1 FROM events")
        .fetch_one(&mut **tx)
        .await?;
    let body = json!({
        "type": event.kind,
        "timestamp": now.rfc3339(),
        "data": event.data,
    });
    sqlx::query(
        "INSERT INTO events (event, number, at, kind, project, body) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&id)
    .bind(number)
    .bind(millis(now))
    .bind(&event.kind)
    .bind(&event.project)
    .bind(body.to_string())
    .execute(&mut **tx)
    .await?;
    let mut deliveries = Vec::with_capacity(webhooks.len());
    for webhook in webhooks {
        deliveries.push(queue(tx, webhook, (&id, number), millis(now)).await?);
    }
    Ok(deliveries)
}

/// One delivery, to be sent at once; or none, where too many wait.
async fn queue(
    tx: &mut Tx,
    webhook: &str,
    (event, number): (&str, i64),
    now: i64,
) -> Result<String, StoreError> {
    let waiting: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM deliveries WHERE webhook = $1 AND state = 'pending'",
    )
    .bind(webhook)
    .fetch_one(&mut **tx)
    .await?;
    let is_full = waiting >= MAX_PENDING;
    let delivery = format!("dlv_{}", random::hex16());
    sqlx::query(
        "INSERT INTO deliveries (delivery, webhook, event, number, state, created, next_at, error) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&delivery)
    .bind(webhook)
    .bind(event)
    .bind(number)
    .bind(if is_full { "dropped" } else { "pending" })
    .bind(now)
    .bind((!is_full).then_some(now))
    .bind(is_full.then(|| format!("{MAX_PENDING} deliveries wait already")))
    .execute(&mut **tx)
    .await?;
    Ok(delivery)
}

/// Whether patterns, separated by spaces, name a kind: exactly, or as `deployment.*`. None at all name every kind.
fn wants(patterns: &str, kind: &str) -> bool {
    let names = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => kind.starts_with(start),
        None => pattern == kind,
    };
    patterns.is_empty() || patterns.split(' ').any(names)
}

/// Writes what happened to a rollout between two looks at it; with none before, it has just begun.
///
/// # Errors
/// When the database fails.
pub async fn emit_steps(
    tx: &mut Tx,
    before: Option<&RolloutView>,
    after: &RolloutView,
) -> Result<(), StoreError> {
    let ends = after.outcome.is_some() && before.is_none_or(|before| before.outcome.is_none());
    if ends {
        feedback::want_of(tx, &after.rollout).await?;
    }
    let moved = steps::between(before, after);
    if moved.is_empty() {
        return Ok(());
    }
    let deployment: Option<(i64, String)> =
        sqlx::query_as("SELECT number, label FROM deployments WHERE rollout = $1")
            .bind(after.rollout.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    for step in moved {
        let mut event = Event::new(step.kind, Some(&after.site.project))
            .on(&after.site)
            .with("rollout", Some(after.rollout.to_string()))
            .with("kind", Some(after.kind.clone()))
            .with("by", Some(after.by.clone()));
        if let Some((number, label)) = &deployment {
            event = event
                .with("deployment", Some(*number))
                .with("label", Some(label.clone()));
        }
        event = match step.region {
            Some(region) => in_region(event, region, step.automatic),
            None => whole(event, after),
        };
        emit(tx, event).await?;
    }
    Ok(())
}

fn in_region(event: Event, region: &RegionView, automatic: Option<bool>) -> Event {
    event
        .with("region", Some(region.region.to_string()))
        .with("release", Some(region.release.to_string()))
        .with("generation", Some(region.generation.0))
        .with("automatic", automatic)
        .with("reason", region.reason.clone())
}

fn whole(event: Event, view: &RolloutView) -> Event {
    let release = view
        .regions
        .first()
        .map(|region| region.release.to_string());
    let regions: Vec<Value> = view
        .regions
        .iter()
        .map(|region| {
            json!({
                "region": region.region, "release": region.release, "phase": region.phase,
                "generation": region.generation, "reason": region.reason,
            })
        })
        .collect();
    event
        .with("release", release)
        .with("outcome", view.outcome.map(outcome))
        .with("stage", view.plan.as_ref().map(|plan| plan.stage))
        .with("regions", Some(regions))
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Settled => "settled",
        Outcome::WentBack => "went-back",
        Outcome::Aborted => "aborted",
        Outcome::Superseded => "superseded",
        Outcome::NeedsOperator => "needs-operator",
    }
}

/// Removes what is older than it is kept, and waits for nobody.
///
/// # Errors
/// When the database fails.
pub async fn forget(store: &Store) -> Result<(), StoreError> {
    let until = millis(clock::now() - KEPT);
    let mut tx = store.write().await?;
    for statement in [
        "DELETE FROM deliveries WHERE created < $1 AND state <> 'pending'",
        "DELETE FROM events WHERE at < $1 AND event NOT IN (SELECT event FROM deliveries)",
    ] {
        sqlx::query(statement).bind(until).execute(&mut *tx).await?;
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_one_kind_or_a_family() {
        for (patterns, kind, expected) in [
            ("", "hold.set", true),
            ("hold.set", "hold.set", true),
            ("hold.set", "hold.sets", false),
            ("deployment.* hold.set", "deployment.settled", true),
            ("deployment.* hold.set", "hold.set", true),
            ("deployment.*", "rollback.settled", false),
            ("*", "rollback.settled", true),
        ] {
            assert_eq!(wants(patterns, kind), expected, "{patterns} {kind}");
        }
    }

    #[tokio::test]
    async fn an_event_waits_for_who_wants_it_and_beyond_the_limit_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lead(&folder.path().join("origin.db")).await.unwrap();
        let mut tx = store.write().await.unwrap();
        for (webhook, project, events) in [("all", None, ""), ("shop", Some("shop"), "hold.*")] {
            sqlx::query("INSERT INTO webhooks (webhook, url, project, events, mark, by_whom, created) VALUES ($1, 'x', $2, $3, 'x', 'x', 1)")
                .bind(webhook).bind(project).bind(events).execute(&mut *tx).await.unwrap();
        }
        let (shop, other) = ("shop".parse().unwrap(), "other".parse().unwrap());
        for (kind, project) in [
            ("hold.set", &shop),
            ("hold.set", &other),
            ("deployment.settled", &shop),
        ] {
            emit(&mut tx, Event::new(kind, Some(project)))
                .await
                .unwrap();
        }
        let count = async |tx: &mut Tx, webhook: &str, state: &str| -> i64 {
            sqlx::query_scalar("SELECT COUNT(*) FROM deliveries WHERE webhook = $1 AND state = $2")
                .bind(webhook.to_owned())
                .bind(state.to_owned())
                .fetch_one(&mut **tx)
                .await
                .unwrap()
        };
        assert_eq!(count(&mut tx, "all", "pending").await, 3);
        assert_eq!(count(&mut tx, "shop", "pending").await, 1);
        for _ in 0..MAX_PENDING {
            emit(&mut tx, Event::new("deployment.settled", Some(&shop)))
                .await
                .unwrap();
        }
        assert_eq!(count(&mut tx, "all", "pending").await, MAX_PENDING);
        assert_eq!(count(&mut tx, "all", "dropped").await, 3);
        tx.commit().await.unwrap();
        forget(&store).await.unwrap();
    }
}
