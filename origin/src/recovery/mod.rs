//! The first start after a restore: what the edges hold is taken over before anything is written.
//!
//! ```text
//!  restored ──▶ asking every edge ──all have answered, or the wait is over and each region was heard──▶ taken over ──▶ leads anew
//! ```
//!
//! A backup is older than the fleet. Edges refuse generations and terms below those they have seen, and rightly so; so the
//! restored database goes up to theirs: of each record the newest that any edge holds, a term above every one that was
//! sealed, and a new life for each stream. What edges send was signed by this origin or an operator, and counts only
//! when that verifies. Nothing that is served changes: what the backup does not know of is held, and shown.

use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use helix_routing::id::{EdgeId, Generation, Incarnation, RegionId};
use helix_routing::key::Scope;
use helix_routing::recall::{RECALL, Recall};
use helix_routing::time::Timestamp;
use helix_routing::wire::Wire;
use helix_service::keys::{Address, KeyRing, SigningKey};
use helix_service::{clock, random};
use tokio::time::{Instant, MissedTickBehavior};

use crate::fleet::{Roster, reports};
use crate::store::{self, Store, StoreError};

mod heard;
mod reading;
mod take_over;

use heard::Heard;
use take_over::take_over;

/// How often edges that have not answered are asked again.
const ASK_INTERVAL: Duration = Duration::from_secs(2);
/// How often the log says who is waited for.
const TELL_INTERVAL: Duration = Duration::from_secs(10);
/// Where edges answer.
const ANSWERS: &str = "rpt.*.*.held";

/// What is needed to ask.
#[derive(Debug)]
pub struct Fleet<'a> {
    /// The link.
    pub client: &'a Client,
    /// The key that records are signed with.
    pub key: &'a SigningKey,
    /// Whose signatures count.
    pub ring: &'a KeyRing,
    /// The edges.
    pub roster: &'a Roster,
    /// The domain below which every site has its host.
    pub base: &'a helix_routing::host::Host,
}

/// The recovery did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// NATS refuses.
    #[error("hear what edges hold")]
    Subscribe(#[source] async_nats::SubscribeError),
}

impl From<sqlx::Error> for RecoveryError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// A restore that has not been recovered from.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// When it was restored.
    restored: i64,
    /// When the backup was made.
    made: Timestamp,
    /// How long edges that do not answer are waited for.
    wait: Duration,
}

/// The restore that this database comes from, if nothing was written since.
///
/// # Errors
/// When the database fails.
pub async fn due(store: &Store) -> Result<Option<Due>, StoreError> {
    let row: Option<(i64, i64, i64)> = sqlx::query_as(
        "SELECT restored, made, wait_ms FROM recoveries WHERE done IS NULL ORDER BY restored DESC LIMIT 1",
    )
    .fetch_optional(store.reader())
    .await?;
    row.map(|(restored, made, wait)| {
        Ok(Due {
            restored,
            made: store::time(made),
            wait: Duration::from_millis(store::count(wait, "recoveries.wait_ms")?),
        })
    })
    .transpose()
}

/// Asks the edges, and takes over what they hold. Afterwards the stored term is the highest of theirs: who leads on does so
/// anew, above it.
///
/// # Errors
/// When the database or the link fails; then it begins again with the next start.
pub async fn run(store: &Store, fleet: Fleet<'_>, due: Due) -> Result<(), RecoveryError> {
    tracing::warn!(backup.made = %due.made, "restored from a backup: nothing is written before the edges have said what they hold");
    let asked = ask(store, &fleet, due).await?;
    take_over(store, &fleet, due, asked).await
}

/// Asks until everybody has answered, or the wait is over and somebody has in each region.
async fn ask(store: &Store, fleet: &Fleet<'_>, due: Due) -> Result<Heard, RecoveryError> {
    let subscribed = fleet.client.subscribe(ANSWERS).await;
    let mut answers: Subscriber = subscribed.map_err(RecoveryError::Subscribe)?;
    let id = random::hex16();
    let until = Instant::now() + due.wait;
    let mut told = Instant::now() - TELL_INTERVAL;
    let mut asks = tokio::time::interval(ASK_INTERVAL);
    asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Heard::default();
    loop {
        let missing = missing(fleet.roster, &heard);
        if is_over(fleet.roster, &missing, until) {
            return Ok(heard);
        }
        if told.elapsed() >= TELL_INTERVAL {
            told = Instant::now();
            tracing::warn!(edges = ?missing, "waiting for edges to say what they hold");
        }
        tokio::select! {
            _ = asks.tick() => send(store, fleet, &id, &heard).await?,
            answer = answers.next() => {
                let Some(message) = answer else { continue };
                hear(fleet, &id, &message, &mut heard);
            }
        }
    }
}

fn hear(fleet: &Fleet<'_>, id: &str, message: &Message, heard: &mut Heard) {
    match reports::held(fleet.roster, message) {
        Ok(report) if report.recall == id => heard.take(fleet.ring, report),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "what an edge says it holds is not believed"),
    }
}

/// Whether everybody has answered, or the wait is over and somebody has in each region.
fn is_over(roster: &Roster, missing: &[EdgeId], until: Instant) -> bool {
    if missing.is_empty() {
        return true;
    }
    let is_over = Instant::now() >= until && is_each_region_heard(roster, missing);
    if is_over {
        tracing::error!(edges = ?missing, "edges have not said what they hold; origin goes on without them");
    }
    is_over
}

/// The streams of a region's edges.
fn streams(region: &RegionId) -> [Scope; 2] {
    [Scope::Global, Scope::Region(region.clone())]
}

fn missing(roster: &Roster, heard: &Heard) -> Vec<EdgeId> {
    let fleet = roster.snapshot();
    let edges = fleet.regions.iter().flat_map(|(region, fleet)| {
        let lacks_some = move |edge: &&EdgeId| {
            let mut streams = streams(region).into_iter();
            !streams.all(|scope| heard.has(edge, &scope.stream()))
        };
        fleet.registered.iter().filter(lacks_some).cloned()
    });
    edges.collect()
}

fn is_each_region_heard(roster: &Roster, missing: &[EdgeId]) -> bool {
    let fleet = roster.snapshot();
    fleet
        .regions
        .values()
        .all(|region| region.registered.iter().any(|edge| !missing.contains(edge)))
}

/// Asks on the feed of every stream.
async fn send(
    store: &Store,
    fleet: &Fleet<'_>,
    id: &str,
    heard: &Heard,
) -> Result<(), RecoveryError> {
    let regions = fleet.roster.regions().into_iter().map(Scope::Region);
    for scope in std::iter::once(Scope::Global).chain(regions) {
        let stream = scope.stream();
        let row: Option<(String, i64)> =
            sqlx::query_as("SELECT incarnation, acknowledged FROM streams WHERE stream = $1")
                .bind(&stream)
                .fetch_optional(store.reader())
                .await?;
        let (incarnation, after) = match row {
            Some((incarnation, acknowledged)) => (
                Some(store::id::<Incarnation>(&incarnation)?),
                store::count(acknowledged, "streams.acknowledged")?,
            ),
            None => (None, 0),
        };
        let recall = Recall {
            id: id.to_owned(),
            heard: heard.of(&stream),
            stream,
            incarnation: incarnation.clone(),
            after,
            at: clock::now(),
        };
        let address = Address {
            stream: scope.recall(),
            key: RECALL.to_owned(),
            incarnation: match incarnation {
                Some(incarnation) => incarnation,
                None => random::hex16().parse().map_err(StoreError::from)?,
            },
            epoch: store.epoch(),
            generation: Generation(0),
        };
        let sealed = fleet.key.seal(address, recall.encode());
        // Lost, it is asked again.
        let _ = fleet.client.publish(scope.recall(), sealed.into()).await;
    }
    // What waits in the client's buffer asks nobody.
    let _ = fleet.client.flush().await;
    Ok(())
}
