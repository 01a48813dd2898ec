//! Overrides that edges made while origin could not be asked: shown, audited, and taken over where most edges of a region agree.
//!
//! An override of fewer edges stays as it is and is shown: origin does not guess which of two opinions is right. A rollback or
//! a deployment ends it, or whoever made it.

use std::collections::BTreeSet;
use std::time::Duration;

use helix_routing::api::OverrideView;
use helix_routing::glass::{Cause, LocalOverride};
use helix_routing::id::{EdgeId, RegionId, SiteId};
use helix_routing::rollout::RegionFleet;
use helix_routing::time::Timestamp;
use helix_service::clock;
use helix_service::error::chain;
use helix_service::shutdown::Shutdown;
use tokio::time::MissedTickBehavior;

use crate::fleet::Roster;
use crate::rollout::Conductor;

mod noting;

use noting::Noted;

/// How often it is looked whether edges agree: edges say it with their first words on a new link, all within a heartbeat.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Takes overrides over until shutdown. What fails is tried again with the next look.
pub async fn run(roster: Roster, conductor: Conductor, shutdown: &Shutdown) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut noted = Noted::default();
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = looks.tick() => {}
        }
        if let Err(error) = noted.follow(conductor.store(), &roster).await {
            tracing::error!(error = %chain(&error), "what edges override is not in the audit log yet");
        }
        let fleet = roster.snapshot();
        for (region, local, edges) in roster.overridden_lately() {
            let here = fleet.regions.get(&region);
            if here.is_some_and(|here| is_majority(here, &edges)) {
                take_over(&conductor, region, local).await;
            }
        }
    }
}

async fn take_over(conductor: &Conductor, region: RegionId, local: LocalOverride) {
    if local.cause == Cause::Guard && conductor.running(&local.site).is_some() {
        // Its rollout decides: the bake has failed here, and that may mean something for other regions.
        conductor.went_back(region, local);
    } else if let Err(error) = conductor.adopt(&region, &local).await {
        tracing::error!(site = %local.site, %region, error = %chain(&error), "an override is not taken over yet");
    }
}

/// More than half of the edges that count in the region agree. Who is taken out for maintenance has no visitors, and no say.
fn is_majority(here: &RegionFleet, edges: &BTreeSet<EdgeId>) -> bool {
    edges.intersection(&here.registered).count() * 2 > here.registered.len()
}

/// The overrides of edges that stand for `site` in `region`, for people.
#[must_use]
pub fn views(roster: &Roster, region: &RegionId, site: &SiteId) -> Vec<OverrideView> {
    let now = clock::now();
    let standing = roster.overridden().into_iter();
    standing
        .filter(|(of, local, _)| of == region && local.site == *site)
        .map(|(_, local, edges)| view(local, edges, now))
        .collect()
}

fn view(local: LocalOverride, edges: BTreeSet<EdgeId>, now: Timestamp) -> OverrideView {
    OverrideView {
        expired: local.is_expired(now),
        release: local.release.release,
        edges: edges.into_iter().collect(),
        cause: local.cause,
        reason: local.reason,
        by: local.by,
        since: local.since,
        until: local.until,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(names: &[&str]) -> BTreeSet<EdgeId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn most_edges_are_more_than_half_of_those_that_count() {
        // Of three, `fra-3` is taken out: phases count the others alone.
        let here = RegionFleet {
            registered: edges(&["fra-1", "fra-2"]),
            ..RegionFleet::default()
        };
        for (agree, expected) in [
            (edges(&[]), false),
            (edges(&["fra-1"]), false),
            (edges(&["fra-1", "fra-3"]), false),
            (edges(&["fra-3"]), false),
            (edges(&["fra-1", "fra-2"]), true),
        ] {
            assert_eq!(is_majority(&here, &agree), expected, "{agree:?}");
        }
        let last = RegionFleet {
            registered: edges(&["fra-1"]),
            ..RegionFleet::default()
        };
        assert!(!is_majority(&last, &edges(&["fra-2", "fra-3"])));
    }
}
