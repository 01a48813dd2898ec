//! The fleet as origin sees it: who is registered, who is there, and what they say.
//!
//! Invariant: an edge counts only under the name that the subject of its reports, the account they came
//! from and origin's configuration agree on. Nothing here decides about a rollout; it feeds the machines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use helix_routing::api::{EdgeStatus, InFlightView};
use helix_routing::edge::record::EdgeRecord;
use helix_routing::edge::report::EdgeReport;
use helix_routing::edge::view::EdgeView;
use helix_routing::gate::report::GatesReport;
use helix_routing::glass::{EndedOverride, EndedReport, LocalOverride, LocalReport};
use helix_routing::id::{EdgeId, Generation, RegionId, SiteId};
use helix_routing::in_flight::{self, InFlightReport};
use helix_routing::report::{Heartbeat, PurgeReport, Refusal};
use helix_routing::rollout::{Fleet, RegionFleet};
use helix_routing::time::Timestamp;
use helix_service::clock;
use tokio::sync::watch;

use crate::store::Store;

mod leases;
pub mod maintenance;
mod overrides;
pub mod registry;
pub mod reports;
pub mod versions;

use leases::Leases;
pub use leases::{Edge, Enrolment, Heads, LEASE};
use overrides::Overrides;

/// Every registered edge and its lease. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roster(Arc<Inner>);

/// What each edge told last of what is in flight on a site, and when.
type Flying = BTreeMap<EdgeId, (Timestamp, InFlightReport)>;

#[derive(Debug)]
struct Inner {
    leases: Mutex<Leases>,
    fleet: watch::Sender<Arc<Fleet>>,
    purged: Mutex<BTreeMap<SiteId, BTreeMap<EdgeId, Generation>>>,
    gated: Mutex<BTreeMap<SiteId, BTreeMap<EdgeId, GatesReport>>>,
    links: Mutex<BTreeMap<RegionId, String>>,
    versions: Mutex<versions::Noted>,
    in_flight: Mutex<BTreeMap<SiteId, Flying>>,
    overrides: Mutex<Overrides>,
}

/// Sites whose purges are remembered as applied. With more of them all are forgotten, and heard again with the next link.
const MAX_PURGED_SITES: usize = 65_536;
/// Sites whose gates by hand are remembered. With more of them all are forgotten: whoever ran gates has seen them by then.
const MAX_GATED_SITES: usize = 1024;
/// Sites whose flights are remembered. With more of them all are forgotten, and heard again soon.
const MAX_FLYING_SITES: usize = 65_536;
/// For how long an edge's word about what is in flight counts: it is repeated every fifteen seconds.
const HEARD_FOR: Duration = Duration::from_secs(45);

impl Roster {
    /// The edges that were admitted. Each counts as live for one lease.
    #[must_use]
    pub fn new(edges: Vec<Edge>, now: Timestamp) -> Self {
        let leases = Leases::new(edges, now);
        let fleet = watch::Sender::new(Arc::new(leases.fleet(now)));
        Self(Arc::new(Inner {
            leases: Mutex::new(leases),
            fleet,
            purged: Mutex::default(),
            gated: Mutex::default(),
            links: Mutex::default(),
            versions: Mutex::default(),
            in_flight: Mutex::default(),
            overrides: Mutex::default(),
        }))
    }

    /// The edges of each region, and which of them hold their lease.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Fleet> {
        Arc::clone(&self.0.fleet.borrow())
    }

    /// Changes when an edge's lease begins or ends.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Fleet>> {
        self.0.fleet.subscribe()
    }

    /// Every registered edge.
    #[must_use]
    pub fn all(&self) -> Vec<Edge> {
        self.leases().all()
    }

    /// Every edge, for people.
    #[must_use]
    pub fn edges(&self) -> Vec<EdgeStatus> {
        self.leases().statuses(clock::now())
    }

    /// Every region that has an edge.
    #[must_use]
    pub fn regions(&self) -> BTreeSet<RegionId> {
        self.leases().regions()
    }

    /// A registered edge.
    #[must_use]
    pub fn edge(&self, edge: &EdgeId) -> Option<Edge> {
        self.leases().edge(edge).cloned()
    }

    /// Every edge with all that is known of it.
    #[must_use]
    pub fn views(&self, heads: &Heads) -> Vec<EdgeView> {
        self.leases()
            .views(clock::now(), heads, env!("CARGO_PKG_VERSION"))
    }

    /// The edges of a region that hold their lease and are not taken out.
    #[must_use]
    pub fn serving(&self, region: &RegionId) -> BTreeSet<EdgeId> {
        self.leases().serving(region, clock::now())
    }

    /// An edge comes into the fleet.
    pub fn admit(&self, edge: Edge, enrolment: Enrolment) {
        self.leases().admit(edge, enrolment);
        self.refresh(clock::now());
    }

    /// An edge goes for good: its lease ends, and nothing that it says counts.
    pub fn remove(&self, edge: &EdgeId) {
        self.leases().remove(edge);
        self.refresh(clock::now());
    }

    /// An edge has another certificate.
    pub fn certified(&self, edge: &EdgeId, until: Timestamp) {
        if let Some(enrolment) = self.leases().enrolment_mut(edge) {
            enrolment.certificate_until = Some(until);
        }
    }

    /// An edge is told this from now on.
    pub fn told(&self, record: &EdgeRecord) {
        if let Some(enrolment) = self.leases().enrolment_mut(&record.edge) {
            enrolment.told(Some(record));
        }
        self.refresh(clock::now());
    }

    /// Its account at NATS, if that has a name of its own.
    #[must_use]
    pub fn account(&self, edge: &EdgeId) -> Option<String> {
        self.leases().account(edge).map(str::to_owned)
    }

    /// What comes through this account may be any edge's of the region: its leaf nodes are linked by it.
    pub fn link(&self, region: RegionId, account: String) {
        let mut links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.insert(region, account);
    }

    fn is_link_of(&self, account: &str, edge: &EdgeId) -> bool {
        let Some(known) = self.edge(edge) else {
            return false;
        };
        let links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(&known.region).is_some_and(|link| link == account)
    }

    fn is_account_of(&self, account: &str, edge: &EdgeId) -> bool {
        if self.is_link_of(account, edge) {
            return true;
        }
        match self.leases().account(edge) {
            Some(own) => own == account,
            None => account.strip_prefix("EDGE_") == Some(edge.as_str()),
        }
    }

    fn report(&self, report: EdgeReport) {
        self.leases().report(report);
    }

    fn heartbeat(&self, now: Timestamp, heartbeat: &Heartbeat) {
        self.leases().heartbeat(now, heartbeat);
        self.overrides().booted(&heartbeat.edge, &heartbeat.boot);
        self.refresh(now);
    }

    /// Writes down which records an edge reads, when that is news.
    fn note_version(&self, store: &Store, heartbeat: &Heartbeat) {
        if !self.noted().is_news(heartbeat) {
            return;
        }
        let (roster, store, heartbeat) = (self.clone(), store.clone(), heartbeat.clone());
        tokio::spawn(async move {
            if let Err(error) = versions::note(&store, &heartbeat).await {
                tracing::warn!(edge = %heartbeat.edge, error = &error as &dyn std::error::Error, "what an edge reads is not written down");
                roster.noted().forget(&heartbeat.edge);
            }
        });
    }

    fn noted(&self) -> MutexGuard<'_, versions::Noted> {
        let noted = &self.0.versions;
        noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The overrides that edges made themselves and that stand: by site and region, each with the edges that agree in it.
    #[must_use]
    pub fn overridden(&self) -> Vec<(RegionId, LocalOverride, BTreeSet<EdgeId>)> {
        self.overrides().standing()
    }

    /// The same of those that edges have said lately, as they do with every heartbeat.
    #[must_use]
    pub fn overridden_lately(&self) -> Vec<(RegionId, LocalOverride, BTreeSet<EdgeId>)> {
        self.overrides().lately(Instant::now())
    }

    /// Every edge's own word on what it overrides.
    #[must_use]
    pub fn overriding(&self) -> Vec<(EdgeId, RegionId, LocalOverride)> {
        self.overrides().each()
    }

    pub(crate) fn local(&self, report: LocalReport) {
        self.overrides().heard(Instant::now(), report);
    }

    /// Every edge's own word on what it overrode before.
    #[must_use]
    pub fn overrode(&self) -> Vec<(EdgeId, RegionId, EndedOverride)> {
        self.overrides().each_ended()
    }

    pub(crate) fn ended_there(&self, report: EndedReport) {
        self.overrides().heard_ended(report);
    }

    fn overrides(&self) -> MutexGuard<'_, Overrides> {
        self.0
            .overrides
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to which purge of `site` each edge has said that it has forgotten what was purged. It says so when it has, and with
    /// each new link: right after origin starts, not all have.
    #[must_use]
    pub fn purged(&self, site: &SiteId) -> BTreeMap<EdgeId, Generation> {
        let purged = self.0.purged.lock().unwrap_or_else(PoisonError::into_inner);
        purged.get(site).cloned().unwrap_or_default()
    }

    fn purge(&self, report: PurgeReport) {
        let mut purged = self.0.purged.lock().unwrap_or_else(PoisonError::into_inner);
        if purged.len() >= MAX_PURGED_SITES && !purged.contains_key(&report.site) {
            purged.clear();
        }
        // An edge whose state was lost starts again: its newest word counts.
        let edges = purged.entry(report.site).or_default();
        edges.insert(report.edge, report.generation);
    }

    /// What each edge found when it was last asked by hand to run gates of `site`.
    #[must_use]
    pub fn gated(&self, site: &SiteId) -> BTreeMap<EdgeId, GatesReport> {
        let gated = self.0.gated.lock().unwrap_or_else(PoisonError::into_inner);
        gated.get(site).cloned().unwrap_or_default()
    }

    fn gate(&self, report: GatesReport) {
        let mut gated = self.0.gated.lock().unwrap_or_else(PoisonError::into_inner);
        if gated.len() >= MAX_GATED_SITES && !gated.contains_key(&report.site) {
            gated.clear();
        }
        let edges = gated.entry(report.site.clone()).or_default();
        edges.insert(report.edge.clone(), report);
    }

    /// What is in flight on the releases of `site`, as its edges have said lately. Right after origin starts, not all have.
    #[must_use]
    pub fn in_flight(&self, site: &SiteId) -> Vec<InFlightView> {
        let now = clock::now();
        let all = self
            .0
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let edges = all.get(site).into_iter().flat_map(BTreeMap::values);
        let lately = edges.filter(|(heard, _)| now.since(*heard) < HEARD_FOR);
        in_flight::seen(lately.map(|(_, report)| report))
    }

    fn flies(&self, now: Timestamp, report: InFlightReport) {
        let mut all = self
            .0
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if report.is_empty() {
            if let Some(edges) = all.get_mut(&report.site) {
                edges.remove(&report.edge);
                if edges.is_empty() {
                    all.remove(&report.site);
                }
            }
            return;
        }
        if all.len() >= MAX_FLYING_SITES && !all.contains_key(&report.site) {
            all.clear();
        }
        let edges = all.entry(report.site.clone()).or_default();
        edges.insert(report.edge.clone(), (now, report));
    }

    fn refusal(&self, refusal: &Refusal) {
        self.leases().refusal(refusal);
    }

    fn link_was_down(&self, now: Timestamp) {
        self.leases().link_was_down(now);
        self.refresh(now);
    }

    /// Tells watchers about leases that began or ended.
    fn refresh(&self, now: Timestamp) {
        let fleet = self.leases().fleet(now);
        self.0.fleet.send_if_modified(|held| {
            let is_changed = **held != fleet;
            if is_changed {
                log_change(held, &fleet);
                *held = Arc::new(fleet);
            }
            is_changed
        });
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        // Every change is whole before the guard is dropped, so a panic elsewhere leaves nothing half done.
        self.0.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_change(from: &Fleet, to: &Fleet) {
    let nobody = RegionFleet::default();
    let regions: BTreeSet<&RegionId> = from.regions.keys().chain(to.regions.keys()).collect();
    for region in regions {
        let before = from.regions.get(region).unwrap_or(&nobody);
        let now = to.regions.get(region).unwrap_or(&nobody);
        for edge in before.registered.difference(&now.registered) {
            tracing::info!(%region, %edge, from = "counted", to = "left out", "edge");
        }
        log_leases(region, before, now);
    }
}

fn log_leases(region: &RegionId, before: &RegionFleet, now: &RegionFleet) {
    for edge in now.live.difference(&before.live) {
        tracing::info!(%region, %edge, from = "gone", to = "live", "edge");
    }
    let gone = before.live.difference(&now.live);
    for edge in gone.filter(|edge| now.registered.contains(*edge)) {
        tracing::warn!(%region, %edge, from = "live", to = "gone", "edge");
    }
}
