//! Pure. Which edges count: those whose lease has not ended.
//!
//! An edge holds its lease for [`LEASE`] after each heartbeat. Origin hears nothing while its own link is down,
//! so after it starts or reconnects every registered edge counts for one lease before it can be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use helix_routing::api::EdgeStatus;
use helix_routing::edge::record::Drain;
use helix_routing::edge::report::EdgeReport;
use helix_routing::edge::view::{Admitted, DrainView, EdgeView, Skew};
use helix_routing::id::{BootId, EdgeId, Generation, Incarnation, RegionId};
use helix_routing::report::{Heartbeat, Refusal, StreamPosition};
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

/// What else is known of a registered edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// How it came into the fleet.
    pub admitted: Admitted,
    /// When it did.
    pub joined: Timestamp,
    /// Its account at NATS, where that has a name of its own.
    pub account: Option<String>,
    /// Until when its certificate is good.
    pub certificate_until: Option<Timestamp>,
    /// It is taken out for maintenance.
    pub drain: Option<Drain>,
    /// The record that says so.
    pub generation: Generation,
}

impl Default for Enrolment {
    fn default() -> Self {
        Self {
            admitted: Admitted::Config,
            joined: Timestamp::default(),
            account: None,
            certificate_until: None,
            drain: None,
            generation: Generation(0),
        }
    }
}

/// The life of each stream that is ready for writing, and how far it has come.
pub type Heads = BTreeMap<String, (Incarnation, u64)>;

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
    enrolment: Enrolment,
    /// What it says of its drain.
    report: Option<EdgeReport>,
    seen: Option<Seen>,
    refusal: Option<String>,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Timestamp,
    /// Since when it is heard from without a gap.
    since: Timestamp,
    boot: BootId,
    version: String,
    ready: bool,
    /// It was ready once in this boot: from then on it is waited for, also while it catches up.
    joined: bool,
    streams: Vec<StreamPosition>,
    refused: u64,
}

impl Known {
    const fn new(edge: Edge, enrolment: Enrolment) -> Self {
        Self {
            edge,
            enrolment,
            report: None,
            seen: None,
            refusal: None,
        }
    }
}

impl Seen {
    fn stale(&self) -> Vec<String> {
        let stale = self.streams.iter().filter(|stream| stream.stale);
        stale.map(|stream| stream.stream.clone()).collect()
    }
}

impl Leases {
    pub(super) fn new(edges: Vec<Edge>, now: Timestamp) -> Self {
        let known = edges
            .into_iter()
            .map(|edge| (edge.edge.clone(), Known::new(edge, Enrolment::default())));
        Self {
            edges: known.collect(),
            grace_until: now + LEASE,
        }
    }

    /// An edge comes into the fleet; one that was there by this name is another one.
    pub(super) fn admit(&mut self, edge: Edge, enrolment: Enrolment) {
        let known = Known::new(edge, enrolment);
        self.edges.insert(known.edge.edge.clone(), known);
    }

    /// An edge goes for good.
    pub(super) fn remove(&mut self, edge: &EdgeId) {
        self.edges.remove(edge);
    }

    /// What else is known of it.
    pub(super) fn enrolment_mut(&mut self, edge: &EdgeId) -> Option<&mut Enrolment> {
        self.edges.get_mut(edge).map(|known| &mut known.enrolment)
    }

    /// Its account at NATS, if that has a name of its own.
    pub(super) fn account(&self, edge: &EdgeId) -> Option<&str> {
        self.edges.get(edge)?.enrolment.account.as_deref()
    }

    /// What an edge says of its drain.
    pub(super) fn report(&mut self, report: EdgeReport) {
        if let Some(known) = self.edges.get_mut(&report.edge) {
            known.report = Some(report);
        }
    }

    /// The edges of `region` that hold their lease and are not taken out.
    pub(super) fn serving(&self, region: &RegionId, now: Timestamp) -> BTreeSet<EdgeId> {
        let serves = |known: &&Known| {
            known.edge.region == *region
                && known.enrolment.drain.is_none()
                && self.is_live(known, now)
        };
        let serving = self.edges.values().filter(serves);
        serving.map(|known| known.edge.edge.clone()).collect()
    }

    pub(super) fn edge(&self, edge: &EdgeId) -> Option<&Edge> {
        self.edges.get(edge).map(|known| &known.edge)
    }

    pub(super) fn all(&self) -> Vec<Edge> {
        let edges = self.edges.values();
        edges.map(|known| known.edge.clone()).collect()
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
        let before = known.seen.as_ref();
        let had_joined = before.is_some_and(|seen| seen.boot == heartbeat.boot && seen.joined);
        let since = before.filter(|seen| is_leased(seen, now));
        let since = since.map_or(now, |seen| seen.since);
        known.seen = Some(Seen {
            at: now,
            since,
            boot: heartbeat.boot.clone(),
            version: heartbeat.version.chars().take(64).collect(),
            ready: heartbeat.ready,
            joined: had_joined || heartbeat.ready,
            streams: heartbeat.streams.clone(),
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

    /// The fleet at `now`, as phases count it: without the edges that are taken out, as long as a region has others.
    pub(super) fn fleet(&self, now: Timestamp) -> Fleet {
        let mut fleet = Fleet::default();
        let serving: BTreeSet<&RegionId> = self
            .edges
            .values()
            .filter(|known| known.enrolment.drain.is_none())
            .map(|known| &known.edge.region)
            .collect();
        for known in self.edges.values() {
            if known.enrolment.drain.is_some() && serving.contains(&known.edge.region) {
                continue;
            }
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

    /// Every edge with all that is known of it. `version` is origin's build.
    pub(super) fn views(&self, now: Timestamp, heads: &Heads, version: &str) -> Vec<EdgeView> {
        let views = self.edges.values();
        views
            .map(|known| self.view(known, now, heads, version))
            .collect()
    }

    fn view(&self, known: &Known, now: Timestamp, heads: &Heads, version: &str) -> EdgeView {
        let Known {
            edge, enrolment, ..
        } = known;
        let seen = known.seen.as_ref();
        let leased = seen.filter(|seen| is_leased(seen, now));
        EdgeView {
            edge: edge.edge.clone(),
            region: edge.region.clone(),
            url: edge.url.clone(),
            admitted: enrolment.admitted,
            joined: enrolment.joined,
            live: self.is_live(known, now),
            since: leased
                .map(|seen| seen.since)
                .or_else(|| seen.map(|seen| seen.at + LEASE)),
            lease_until: leased.map(|seen| seen.at + LEASE),
            ready: leased.is_some_and(|seen| seen.ready),
            boot: seen.map(|seen| seen.boot.clone()),
            version: seen.map(|seen| seen.version.clone()),
            skew: seen.and_then(|seen| Skew::between(&seen.version, version)),
            seen: seen.map(|seen| seen.at),
            stale: seen.map(Seen::stale).unwrap_or_default(),
            behind: leased.and_then(|seen| behind(seen, heads)),
            drain: drain_view(known),
            certificate_until: enrolment.certificate_until,
            note: note(known, now),
        }
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

/// Records that it has not applied yet, of both streams; unknown while it follows another life of one.
fn behind(seen: &Seen, heads: &Heads) -> Option<u64> {
    let mut behind = 0;
    for stream in &seen.streams {
        let (incarnation, head) = heads.get(&stream.stream)?;
        if stream.incarnation.as_ref() != Some(incarnation) {
            return None;
        }
        behind += head.saturating_sub(stream.sequence);
    }
    Some(behind)
}

fn drain_view(known: &Known) -> Option<DrainView> {
    let drain = known.enrolment.drain.clone()?;
    let report = known.report.as_ref();
    let report = report.filter(|report| report.generation == known.enrolment.generation);
    Some(DrainView {
        drain,
        confirmed: report.is_some_and(|report| report.drains),
        connections: report.map(|report| report.connections),
    })
}

fn note(known: &Known, now: Timestamp) -> Option<String> {
    let mut notes = Vec::new();
    if let Some(drain) = &known.enrolment.drain {
        notes.push(format!("drains: {}", drain.reason));
    }
    let Some(seen) = &known.seen else {
        notes.push("never heard from".to_owned());
        return Some(notes.join("; "));
    };
    if !is_leased(seen, now) {
        notes.push(format!(
            "not heard from for {} s",
            now.since(seen.at).as_secs()
        ));
    } else if !seen.ready {
        notes.push("not ready".to_owned());
    }
    let stale = seen.stale();
    if !stale.is_empty() {
        notes.push(format!("stale feed of {}", stale.join(", ")));
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
    fn an_edge_that_is_taken_out_is_not_waited_for_while_its_region_has_another() {
        let mut leases = leases();
        let drain = |leases: &mut Leases, edge: &str| {
            let enrolment = leases.enrolment_mut(&edge.parse().unwrap()).unwrap();
            enrolment.drain = Some(Drain {
                reason: "disk".to_owned(),
                since: START,
                until: None,
            });
        };
        drain(&mut leases, "fra-1");
        assert_eq!(live(&leases, START), ["fra-2"]);
        let fleet = leases.fleet(START);
        let fra = fleet.regions.values().next().unwrap();
        assert_eq!(fra.registered.len(), 1, "it is not missed either");
        drain(&mut leases, "fra-2");
        assert_eq!(live(&leases, START).len(), 2, "no phase waits for nobody");
        let note = leases.statuses(START)[0].note.clone();
        assert_eq!(note.as_deref(), Some("drains: disk; never heard from"));
        leases.remove(&"fra-1".parse().unwrap());
        assert_eq!(live(&leases, START), ["fra-2"]);
    }

    #[test]
    fn a_view_says_since_when_how_far_behind_and_which_build() {
        let mut leases = leases();
        let life: Incarnation = "0123456789abcdef".parse().unwrap();
        let heads = Heads::from([("KV_g".to_owned(), (life.clone(), 10))]);
        let mut heartbeat = beat("fra-1", "a", true);
        heartbeat.streams = vec![StreamPosition {
            stream: "KV_g".to_owned(),
            incarnation: Some(life),
            sequence: 7,
            stale: false,
        }];
        leases.heartbeat(START, &heartbeat);
        let later = START + LEASE / 2;
        leases.heartbeat(later, &heartbeat);
        let view = leases.views(later, &heads, "0.2.0").remove(0);
        assert_eq!((view.since, view.behind), (Some(START), Some(3)));
        assert_eq!(view.skew, Some(Skew::Older));
        assert_eq!(view.lease_until, Some(later + LEASE));
        let gone = leases.views(later + LEASE * 2, &heads, "0.1.0").remove(0);
        assert_eq!((gone.since, gone.behind), (Some(later + LEASE), None));
        assert_eq!((gone.skew, gone.live), (None, false));
        heartbeat.streams[0].incarnation = None;
        leases.heartbeat(later, &heartbeat);
        assert_eq!(leases.views(later, &heads, "0.1.0")[0].behind, None);
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
