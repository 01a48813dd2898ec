//! Pure. Which edges count: those whose lease has not ended.
//!
//! An edge holds its lease for [`LEASE`] after each heartbeat. Origin hears nothing while its own link is down,
//! so after it starts or reconnects every registered edge counts for one lease before it can be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use helix_routing::api::EdgeStatus;
use helix_routing::id::{BootId, EdgeId, RegionId};
use helix_routing::report::{Heartbeat, Refusal};
use helix_routing::rollout::{Fleet, RegionFleet};
use helix_routing::time::Timestamp;

/// Three heartbeats.
pub const LEASE: Duration = Duration::from_secs(15);

/// A registered edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Its region.
    pub region: RegionId,
    /// Its name.
    pub edge: EdgeId,
    /// Where origin probes it.
    pub url: String,
}

/// The leases of every registered edge.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    edges: BTreeMap<EdgeId, Known>,
    /// Until then every edge counts.
    grace_until: Timestamp,
}

#[derive(Clone, Debug)]
struct Known {
    edge: Edge,
    seen: Option<Seen>,
    refusal: Option<String>,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Timestamp,
    boot: BootId,
    version: String,
    ready: bool,
    /// It was ready once in this boot: from then on it is waited for, also while it catches up.
    joined: bool,
    stale: Vec<String>,
    refused: u64,
}

impl Leases {
    pub(super) fn new(edges: Vec<Edge>, now: Timestamp) -> Self {
        let known = edges.into_iter().map(|edge| {
            (
                edge.edge.clone(),
                Known {
                    edge,
                    seen: None,
                    refusal: None,
                },
            )
        });
        Self {
            edges: known.collect(),
            grace_until: now + LEASE,
        }
    }

    pub(super) fn edge(&self, edge: &EdgeId) -> Option<&Edge> {
        self.edges.get(edge).map(|known| &known.edge)
    }

    /// The link was down until now: nobody could be heard.
    pub(super) fn link_was_down(&mut self, now: Timestamp) {
        self.grace_until = now + LEASE;
    }

    /// An edge showed that it lives. Leases go by origin's clock, whatever the edge's says.
    pub(super) fn heartbeat(&mut self, now: Timestamp, heartbeat: &Heartbeat) {
        let Some(known) = self.edges.get_mut(&heartbeat.edge) else {
            return;
        };
        let had_joined = known
            .seen
            .as_ref()
            .is_some_and(|seen| seen.boot == heartbeat.boot && seen.joined);
        known.seen = Some(Seen {
            at: now,
            boot: heartbeat.boot.clone(),
            version: heartbeat.version.chars().take(64).collect(),
            ready: heartbeat.ready,
            joined: had_joined || heartbeat.ready,
            stale: heartbeat
                .streams
                .iter()
                .filter(|stream| stream.stale)
                .map(|stream| stream.stream.clone())
                .collect(),
            refused: heartbeat.refused,
        });
        if heartbeat.refused == 0 {
            known.refusal = None;
        }
    }

    /// An edge refused a record.
    pub(super) fn refusal(&mut self, refusal: &Refusal) {
        if let Some(known) = self.edges.get_mut(&refusal.edge) {
            known.refusal = Some(
                format!(
                    "refused {} of {}: {}",
                    refusal.key, refusal.stream, refusal.reason
                )
                .chars()
                .take(300)
                .collect(),
            );
        }
    }

    /// The fleet at `now`.
    pub(super) fn fleet(&self, now: Timestamp) -> Fleet {
        let mut fleet = Fleet::default();
        for known in self.edges.values() {
            let region: &mut RegionFleet =
                fleet.regions.entry(known.edge.region.clone()).or_default();
            region.registered.insert(known.edge.edge.clone());
            if self.is_live(known, now) {
                region.live.insert(known.edge.edge.clone());
            }
            if let Some(seen) = &known.seen {
                region
                    .boots
                    .insert(known.edge.edge.clone(), seen.boot.clone());
            }
        }
        fleet
    }

    /// Every edge, for people.
    pub(super) fn statuses(&self, now: Timestamp) -> Vec<EdgeStatus> {
        let status = |known: &Known| EdgeStatus {
            edge: known.edge.edge.clone(),
            region: known.edge.region.clone(),
            url: known.edge.url.clone(),
            live: self.is_live(known, now),
            ready: known
                .seen
                .as_ref()
                .is_some_and(|seen| seen.ready && is_leased(seen, now)),
            boot: known.seen.as_ref().map(|seen| seen.boot.clone()),
            version: known.seen.as_ref().map(|seen| seen.version.clone()),
            seen: known.seen.as_ref().map(|seen| seen.at),
            note: note(known, now),
        };
        self.edges.values().map(status).collect()
    }

    /// Edges by region, for iteration in a fixed order.
    pub(super) fn regions(&self) -> BTreeSet<RegionId> {
        self.edges
            .values()
            .map(|known| known.edge.region.clone())
            .collect()
    }

    fn is_live(&self, known: &Known, now: Timestamp) -> bool {
        match &known.seen {
            Some(seen) if is_leased(seen, now) => seen.joined,
            Some(_) | None => now < self.grace_until,
        }
    }
}

fn is_leased(seen: &Seen, now: Timestamp) -> bool {
    now < seen.at + LEASE
}

fn note(known: &Known, now: Timestamp) -> Option<String> {
    let Some(seen) = &known.seen else {
        return Some("never heard from".to_owned());
    };
    let mut notes = Vec::new();
    if !is_leased(seen, now) {
        notes.push(format!(
            "not heard from for {} s",
            now.since(seen.at).as_secs()
        ));
    } else if !seen.ready {
        notes.push("not ready".to_owned());
    }
    if !seen.stale.is_empty() {
        notes.push(format!("stale feed of {}", seen.stale.join(", ")));
    }
    if seen.refused > 0 {
        notes.push(format!("{} records refused", seen.refused));
    }
    notes.extend(known.refusal.clone());
    (!notes.is_empty()).then(|| notes.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn leases() -> Leases {
        let edge = |name: &str| Edge {
            region: "fra".parse().unwrap(),
            edge: name.parse().unwrap(),
            url: String::new(),
        };
        Leases::new(vec![edge("fra-1"), edge("fra-2")], START)
    }

    fn beat(edge: &str, boot: &str, ready: bool) -> Heartbeat {
        Heartbeat {
            edge: edge.parse().unwrap(),
            region: "fra".parse().unwrap(),
            boot: boot.repeat(16).parse().unwrap(),
            version: "0.1.0".to_owned(),
            record_version: 1,
            at: START,
            ready,
            streams: Vec::new(),
            refused: 0,
        }
    }

    fn live(leases: &Leases, now: Timestamp) -> Vec<String> {
        let fleet = leases.fleet(now);
        fleet
            .regions
            .values()
            .flat_map(|region| region.live.iter().map(ToString::to_string))
            .collect()
    }

    #[test]
    fn every_edge_counts_for_one_lease_after_a_start_and_after_an_outage() {
        let mut leases = leases();
        assert_eq!(live(&leases, START).len(), 2);
        let later = START + LEASE;
        assert!(live(&leases, later).is_empty());
        leases.link_was_down(later);
        assert_eq!(live(&leases, later).len(), 2);
        assert!(live(&leases, later + LEASE).is_empty());
        assert_eq!(
            leases
                .fleet(later + LEASE)
                .regions
                .values()
                .next()
                .unwrap()
                .registered
                .len(),
            2
        );
    }

    #[test]
    fn an_edge_counts_for_one_lease_after_its_heartbeat() {
        let mut leases = leases();
        let now = START + LEASE * 3;
        leases.heartbeat(now, &beat("fra-1", "a", true));
        leases.heartbeat(now, &beat("fra-9", "a", true));
        assert_eq!(live(&leases, now), ["fra-1"]);
        assert!(live(&leases, now + LEASE).is_empty());
    }

    #[test]
    fn an_edge_that_joins_counts_once_it_was_ready_in_this_boot() {
        let mut leases = leases();
        let now = START + LEASE * 3;
        for (boot, ready, counts) in [
            ("a", false, false),
            ("a", true, true),
            ("a", false, true),
            ("b", false, false),
        ] {
            leases.heartbeat(now, &beat("fra-1", boot, ready));
            assert_eq!(
                !live(&leases, now).is_empty(),
                counts,
                "boot {boot} ready {ready}"
            );
        }
    }

    #[test]
    fn a_status_says_what_is_wrong() {
        let mut leases = leases();
        let mut heartbeat = beat("fra-1", "a", false);
        heartbeat.refused = 2;
        leases.heartbeat(START, &heartbeat);
        let statuses = leases.statuses(START + LEASE * 2);
        assert_eq!(
            statuses[0].note.as_deref(),
            Some("not heard from for 30 s; 2 records refused")
        );
        assert_eq!(statuses[1].note.as_deref(), Some("never heard from"));
        assert!(!statuses[0].live && !statuses[0].ready);
    }
}
