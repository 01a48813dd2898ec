//! Which overrides of edges the audit log has: each once when it is first heard of, and once when it is over.
//!
//! Edges say what stands again and again, and an origin that starts has heard nothing yet. So SQL holds what the log has, and an
//! override is over when its edge says so, or is there and has not said for a while that it stands. Edges go on saying what is over,
//! so that also what began and ended while nobody listened is in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use helix_routing::glass::{EndedOverride, EndedOverrides, LocalOverride};
use helix_routing::id::{EdgeId, RegionId, SiteId};
use helix_routing::time::Timestamp;
use helix_service::clock;
use tokio::time::Instant;

use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::fleet::Roster;
use crate::store::{self, Store, StoreError, Tx};

/// An edge says what stands with every heartbeat, which it sends every five seconds.
const UNSAID: Duration = Duration::from_secs(15);
/// For how long it is remembered that the log has the end of an override: far longer than edges say it, also by clocks that are wrong.
const REMEMBERED: Duration = EndedOverrides::KEPT.saturating_mul(10);

/// One override, from its beginning to its end.
type Key = (EdgeId, SiteId, Timestamp);

/// What the audit log has.
#[derive(Debug, Default)]
pub(super) struct Noted(Option<Log>);

#[derive(Debug)]
struct Log {
    /// What has begun and is not over, and since when an edge has not said it.
    begun: BTreeMap<Key, Option<Instant>>,
    /// What is over.
    over: BTreeSet<Key>,
}

impl Noted {
    /// Notes what has begun and what is over.
    pub(super) async fn follow(
        &mut self,
        store: &Store,
        roster: &Roster,
    ) -> Result<(), StoreError> {
        let log = match &mut self.0 {
            Some(log) => log,
            None => self.0.insert(read(store).await?),
        };
        let mut ended = ended(roster);
        let over: BTreeSet<Key> = ended.iter().map(|(key, ..)| key.clone()).collect();
        ended.retain(|(key, ..)| !log.over.contains(key));
        let said: BTreeMap<Key, (RegionId, LocalOverride)> = roster
            .overriding()
            .into_iter()
            .map(|(edge, region, local)| ((edge, local.site.clone(), local.since), (region, local)))
            .filter(|(key, _)| !over.contains(key))
            .collect();
        let mut unsaid = unsaid(&mut log.begun, &said, roster);
        unsaid.retain(|key| !over.contains(key));
        let begun: Vec<_> = said
            .iter()
            .filter(|(key, _)| !log.begun.contains_key(*key))
            .collect();
        if ended.is_empty() && begun.is_empty() && unsaid.is_empty() {
            return Ok(());
        }
        let mut tx = store.write().await?;
        for (key, region, over) in &ended {
            if !log.begun.contains_key(key) {
                note_begin(&mut tx, key, region, &over.local).await?;
            }
            end(&mut tx, key, region.as_str(), Some(over.ended)).await?;
        }
        for (key, (region, local)) in &begun {
            begin(&mut tx, key, region, local).await?;
        }
        for key in &unsaid {
            let region = roster.edge(&key.0).map(|edge| edge.region);
            let region = region.as_ref().map_or("-", RegionId::as_str);
            end(&mut tx, key, region, None).await?;
        }
        tx.commit().await?;
        let begun: Vec<Key> = begun.into_iter().map(|(key, _)| key.clone()).collect();
        for key in begun {
            // Its edge was silent on it for a while, and it stands all the same.
            log.over.remove(&key);
            log.begun.insert(key, None);
        }
        let ended = ended.into_iter().map(|(key, ..)| key);
        for key in ended.chain(unsaid) {
            log.begun.remove(&key);
            log.over.insert(key);
        }
        Ok(())
    }
}

/// What edges say is over, in order.
fn ended(roster: &Roster) -> Vec<(Key, RegionId, EndedOverride)> {
    let said = roster.overrode().into_iter().map(|(edge, region, over)| {
        let key = (edge, over.local.site.clone(), over.local.since);
        (key, region, over)
    });
    let mut ended: Vec<_> = said.collect();
    ended.sort_by_key(|(_, _, over)| over.ended);
    ended
}

/// What an edge that is there has not said for long enough, or whose edge is no more.
fn unsaid(
    begun: &mut BTreeMap<Key, Option<Instant>>,
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
    for (key, unsaid) in begun {
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

async fn read(store: &Store) -> Result<Log, StoreError> {
    let begun = "SELECT edge, site, since FROM local_overrides";
    let over = "SELECT edge, site, since FROM ended_overrides";
    let begun = keys(store, begun).await?.into_iter();
    Ok(Log {
        begun: begun.map(|key| (key, None)).collect(),
        over: keys(store, over).await?.into_iter().collect(),
    })
}

async fn keys(store: &Store, query: &'static str) -> Result<Vec<Key>, StoreError> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(query).fetch_all(store.reader()).await?;
    let rows = rows.into_iter();
    rows.map(|(edge, site, since)| Ok((store::id(&edge)?, store::id(&site)?, store::time(since))))
        .collect()
}

async fn begin(
    tx: &mut Tx,
    key: &Key,
    region: &RegionId,
    local: &LocalOverride,
) -> Result<(), StoreError> {
    let (edge, site, since) = key;
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
    sqlx::query("DELETE FROM ended_overrides WHERE edge = $1 AND site = $2 AND since = $3")
        .bind(edge.as_str())
        .bind(site.to_string())
        .bind(store::millis(*since))
        .execute(&mut **tx)
        .await?;
    note_begin(tx, key, region, local).await
}

async fn note_begin(
    tx: &mut Tx,
    (edge, site, since): &Key,
    region: &RegionId,
    local: &LocalOverride,
) -> Result<(), StoreError> {
    let left = local.left.as_ref();
    let left = left.map_or_else(|| "nothing".to_owned(), |left| left.release.to_string());
    let detail = format!(
        "edge {edge} alone since {}: left {left}, to {}; meant until {}",
        since.rfc3339(),
        local.release.release,
        local.until.rfc3339()
    );
    let act = Act::new("break_glass.override", format!("{site} {region}"))
        .reason(Some(&local.reason))
        .detail(Some(detail));
    audit::record(tx, &audit::elsewhere(local.by.clone()), act).await
}

/// Notes that it is over, as its edge says it, or, without a time, as its silence does.
async fn end(
    tx: &mut Tx,
    (edge, site, since): &Key,
    region: &str,
    ended: Option<Timestamp>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM local_overrides WHERE edge = $1 AND site = $2 AND since = $3")
        .bind(edge.as_str())
        .bind(site.to_string())
        .bind(store::millis(*since))
        .execute(&mut **tx)
        .await?;
    let now = clock::now();
    sqlx::query(
        "INSERT INTO ended_overrides (edge, site, since, noted) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (edge, site, since) DO NOTHING",
    )
    .bind(edge.as_str())
    .bind(site.to_string())
    .bind(store::millis(*since))
    .bind(store::millis(now))
    .execute(&mut **tx)
    .await?;
    sqlx::query("DELETE FROM ended_overrides WHERE noted < $1")
        .bind(store::millis(now - REMEMBERED))
        .execute(&mut **tx)
        .await?;
    let at = ended.map_or_else(String::new, |ended| format!(" since {}", ended.rfc3339()));
    let detail = format!(
        "edge {edge}: the override of {} is over{at}",
        since.rfc3339()
    );
    let act = Act::new("break_glass.end", format!("{site} {region}")).detail(Some(detail));
    audit::record(tx, &Caller::origin(), act).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Edge;

    use helix_routing::glass::{Cause, EndedReport, LocalReport};
    use helix_routing::id::Generation;
    use helix_routing::record::ReleaseRef;

    struct World {
        _folder: tempfile::TempDir,
        store: Store,
        roster: Roster,
        noted: Noted,
    }

    impl World {
        async fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::lead(&folder.path().join("origin.db")).await.unwrap();
            let edge = Edge {
                region: "fra".parse().unwrap(),
                edge: "fra-1".parse().unwrap(),
                url: "http://127.0.0.1:1".to_owned(),
            };
            Self {
                _folder: folder,
                store,
                roster: Roster::new(vec![edge], clock::now()),
                noted: Noted::default(),
            }
        }

        fn stands(&self, standing: Option<LocalOverride>) {
            self.roster.local(LocalReport {
                edge: "fra-1".parse().unwrap(),
                region: "fra".parse().unwrap(),
                boot: "a".repeat(16).parse().unwrap(),
                site: "shop/production".parse().unwrap(),
                standing,
            });
        }

        fn over(&self, overrides: &[LocalOverride]) {
            let over = overrides.iter().map(|local| EndedOverride {
                local: local.clone(),
                ended: local.since + Duration::from_millis(300),
            });
            self.roster.ended_there(EndedReport {
                edge: "fra-1".parse().unwrap(),
                region: "fra".parse().unwrap(),
                boot: "a".repeat(16).parse().unwrap(),
                ended: EndedOverrides {
                    overrides: over.collect(),
                },
            });
        }

        /// What the audit log has after a look, by the last word of the action and the reason.
        async fn looked(&mut self) -> Vec<(String, Option<String>)> {
            let followed = self.noted.follow(&self.store, &self.roster).await;
            followed.unwrap();
            let rows =
                "SELECT action, reason FROM audit WHERE action LIKE 'break_glass%' ORDER BY id";
            let rows: Vec<(String, Option<String>)> = sqlx::query_as(rows)
                .fetch_all(self.store.reader())
                .await
                .unwrap();
            let short = rows.into_iter();
            short
                .map(|(action, reason)| (action.replace("break_glass.", ""), reason))
                .collect()
        }
    }

    fn local(since: u64, reason: &str) -> LocalOverride {
        LocalOverride {
            site: "shop/production".parse().unwrap(),
            release: ReleaseRef {
                release: "a".repeat(20).parse().unwrap(),
                artifact: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
            },
            left: None,
            base: Generation(7),
            cause: Cause::Operator,
            reason: reason.to_owned(),
            by: "ada".to_owned(),
            since: Timestamp::from_millis(since),
            until: Timestamp::from_millis(since + 1000),
        }
    }

    fn log(entries: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        let owned = entries.iter();
        owned
            .map(|(action, reason)| ((*action).to_owned(), reason.map(str::to_owned)))
            .collect()
    }

    #[tokio::test]
    async fn an_override_that_was_over_before_anybody_heard_of_it_is_in_the_log() {
        let mut world = World::start().await;
        world.over(&[local(1000, "one"), local(2000, "two")]);
        world.stands(Some(local(3000, "three")));
        let expected = log(&[
            ("override", Some("one")),
            ("end", None),
            ("override", Some("two")),
            ("end", None),
            ("override", Some("three")),
        ]);
        assert_eq!(world.looked().await, expected);
        // Said again, also to an origin that has just started, it is known.
        world.over(&[local(1000, "one"), local(2000, "two")]);
        assert_eq!(world.looked().await, expected);
        world.noted = Noted::default();
        assert_eq!(world.looked().await, expected);
        let standing: Vec<i64> = sqlx::query_scalar("SELECT since FROM local_overrides")
            .fetch_all(world.store.reader())
            .await
            .unwrap();
        assert_eq!(
            standing,
            [3000],
            "what is over takes nothing from what stands"
        );
    }

    #[tokio::test]
    async fn one_that_was_heard_of_ends_by_its_edges_word_and_once() {
        let mut world = World::start().await;
        world.stands(Some(local(1000, "one")));
        let begun = log(&[("override", Some("one"))]);
        assert_eq!(world.looked().await, begun);
        // The word that it is over comes first, the one that nothing stands after it.
        world.over(&[local(1000, "one")]);
        let over = log(&[("override", Some("one")), ("end", None)]);
        assert_eq!(world.looked().await, over);
        world.stands(None);
        assert_eq!(world.looked().await, over);
        world.noted = Noted::default();
        assert_eq!(world.looked().await, over);
    }
}
