//! Which overrides of edges the audit log has: each once when it is first heard of, and once when it is over.
//!
//! Edges say what stands again and again, and an origin that starts has heard nothing yet. So SQL holds what the log has, and an
//! override is over when its edge is there and has not said it for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use helix_routing::glass::LocalOverride;
use helix_routing::id::{EdgeId, RegionId, SiteId};
use helix_routing::time::Timestamp;
use tokio::time::Instant;

use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::fleet::Roster;
use crate::store::{self, Store, StoreError, Tx};

/// An edge says what stands with every heartbeat, which it sends every five seconds.
const UNSAID: Duration = Duration::from_secs(15);

/// One override, from its beginning to its end.
type Key = (EdgeId, SiteId, Timestamp);

/// What the audit log has as begun, and since when an edge has not said it.
#[derive(Debug, Default)]
pub(super) struct Noted(Option<BTreeMap<Key, Option<Instant>>>);

impl Noted {
    /// Notes what has begun and what is over.
    pub(super) async fn follow(
        &mut self,
        store: &Store,
        roster: &Roster,
    ) -> Result<(), StoreError> {
        let noted = match &mut self.0 {
            Some(noted) => noted,
            None => self.0.insert(read(store).await?),
        };
        let said: BTreeMap<Key, (RegionId, LocalOverride)> = roster
            .overriding()
            .into_iter()
            .map(|(edge, region, local)| ((edge, local.site.clone(), local.since), (region, local)))
            .collect();
        let over = over(noted, &said, roster);
        let begun: Vec<_> = said
            .iter()
            .filter(|(key, _)| !noted.contains_key(*key))
            .collect();
        if begun.is_empty() && over.is_empty() {
            return Ok(());
        }
        let mut tx = store.write().await?;
        for (key, (region, local)) in &begun {
            begin(&mut tx, key, region, local).await?;
        }
        for key in &over {
            end(&mut tx, key, roster).await?;
        }
        tx.commit().await?;
        noted.extend(begun.into_iter().map(|(key, _)| (key.clone(), None)));
        noted.retain(|key, _| !over.contains(key));
        Ok(())
    }
}

/// What an edge that is there has not said for long enough, or whose edge is no more.
fn over(
    noted: &mut BTreeMap<Key, Option<Instant>>,
    said: &BTreeMap<Key, (RegionId, LocalOverride)>,
    roster: &Roster,
) -> Vec<Key> {
    let fleet = roster.snapshot();
    let is_live = |edge: &EdgeId| {
        fleet
            .regions
            .values()
            .any(|region| region.live.contains(edge))
    };
    let mut over = Vec::new();
    for (key, unsaid) in noted {
        if said.contains_key(key) {
            *unsaid = None;
        } else if roster.edge(&key.0).is_none() {
            over.push(key.clone());
        } else if is_live(&key.0) {
            let since = *unsaid.get_or_insert_with(Instant::now);
            if since.elapsed() >= UNSAID {
                over.push(key.clone());
            }
        }
    }
    over
}

async fn read(store: &Store) -> Result<BTreeMap<Key, Option<Instant>>, StoreError> {
    let rows: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT edge, site, since FROM local_overrides")
            .fetch_all(store.reader())
            .await?;
    let mut noted = BTreeMap::new();
    for (edge, site, since) in rows {
        let key = (store::id(&edge)?, store::id(&site)?, store::time(since));
        noted.insert(key, None);
    }
    Ok(noted)
}

async fn begin(
    tx: &mut Tx,
    (edge, site, since): &Key,
    region: &RegionId,
    local: &LocalOverride,
) -> Result<(), StoreError> {
    // One that took the place of another is news, too.
    sqlx::query(
        "INSERT INTO local_overrides (edge, site, since) VALUES ($1, $2, $3) \
         ON CONFLICT (edge, site) DO UPDATE SET since = excluded.since",
    )
    .bind(edge.as_str())
    .bind(site.to_string())
    .bind(store::millis(*since))
    .execute(&mut **tx)
    .await?;
    let left = local.left.as_ref();
    let left = left.map_or_else(|| "nothing".to_owned(), |left| left.release.to_string());
    let detail = format!(
        "edge {edge} alone: left {left}, to {}; meant until {}",
        local.release.release,
        local.until.rfc3339()
    );
    let act = Act::new("break_glass.override", format!("{site} {region}"))
        .reason(Some(&local.reason))
        .detail(Some(detail));
    audit::record(tx, &audit::elsewhere(local.by.clone()), act).await
}

async fn end(tx: &mut Tx, (edge, site, since): &Key, roster: &Roster) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM local_overrides WHERE edge = $1 AND site = $2 AND since = $3")
        .bind(edge.as_str())
        .bind(site.to_string())
        .bind(store::millis(*since))
        .execute(&mut **tx)
        .await?;
    let region = roster.edge(edge);
    let region = region.map_or_else(|| "-".to_owned(), |edge| edge.region.to_string());
    let act = Act::new("break_glass.end", format!("{site} {region}")).detail(Some(format!(
        "edge {edge} serves as its record says; the override of {} is over",
        since.rfc3339()
    )));
    audit::record(tx, &Caller::origin(), act).await
}
