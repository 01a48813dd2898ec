//! Tells origin how things are: heartbeats, site reports, refusals.
//!
//! Level-triggered: of each site only the newest report is kept, and after every new link all of them are
//! sent again. So nothing piles up while there is no link, and whoever reports never waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State as Link;
use helix_routing::bake::Window;
use helix_routing::edge::report::EdgeReport;
use helix_routing::gate::report::GatesReport;
use helix_routing::gate::result::GateResult;
use helix_routing::glass::{EndedOverrides, EndedReport, LocalOverride, LocalReport};
use helix_routing::id::{BootId, EdgeId, Generation, RegionId, ReleaseId, SiteId};
use helix_routing::in_flight::{Flying, InFlightReport};
use helix_routing::key;
use helix_routing::recall::{HeldReport, pages};
use helix_routing::record::SiteRecord;
use helix_routing::report::{
    Baseline, Heartbeat, PurgeReport, Refusal, SiteReport, StreamPosition, WindowReport,
};
use helix_routing::time::Timestamp;
use helix_routing::wire::Wire;
use helix_service::{clock, failpoint};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::overriding::Overriding;
use super::placement::State;
use crate::feed::{FeedStatus, Recalled, Refused};
use crate::maintenance::{self, Maintenance};
use crate::metrics::{Following, Gates, Metrics};

/// A lease is three of these.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How soon a new link is noticed.
const LINK_CHECK: Duration = Duration::from_millis(100);
/// Sites whose reports are kept, at most. Of more, the newest are told: origin sends a record again whose report it waits for,
/// and a thousand edges that tell of a hundred thousand sites after every new link would be heard by nobody.
const MAX_SITES: usize = 4096;
/// How often overrides that are over are told again: an origin that comes later than the link should have them in its audit log.
const REPEAT_ENDED: Duration = Duration::from_secs(15);
/// How often a drain's progress is told.
const DRAIN_REPORT: Duration = Duration::from_secs(1);
/// Refusals kept for origin; of a flood, the newest say as much as all.
const MAX_REFUSALS: usize = 64;
/// Reports about gates kept for a new link: what they led to is told by each site's own report.
const MAX_GATES_REPORTS: usize = 1024;

/// Who reports.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it.
    pub boot: BootId,
}

/// What there is to tell. Shared between those who know and the task that sends.
#[derive(Debug)]
pub struct Reports {
    who: Reporter,
    pending: Mutex<Pending>,
    wake: Notify,
    refused: AtomicU64,
    ready: Arc<AtomicBool>,
    /// Every gate that is told of is counted.
    gates: Gates,
}

#[derive(Debug, Default)]
struct Pending {
    /// The newest report of each site that is told of.
    sites: BTreeMap<SiteId, Told>,
    /// The same sites, in the order of those reports.
    newest: BTreeMap<u64, SiteId>,
    /// Sites whose newest report was not sent, in order.
    unsent: VecDeque<SiteId>,
    /// Reports made since the start.
    made: u64,
    /// Up to where each site's purges were applied, and whether that was sent.
    purged: BTreeMap<SiteId, (Generation, bool)>,
    /// What gates showed, the newest of each site and, of those by hand, of each too; and whether that was sent.
    gates: VecDeque<(GatesReport, bool)>,
    /// Overrides that stand, and that are over.
    overriding: Overriding,
    refusals: VecDeque<Refusal>,
    /// What is in flight on sites, and not sent.
    in_flight: BTreeMap<SiteId, InFlightReport>,
    /// Pages of what is held here, for an origin that asked.
    held: VecDeque<HeldReport>,
    /// What was counted of sites that bake, and not sent.
    counted: BTreeMap<SiteId, WindowReport>,
}

/// What a site's newest report says.
#[derive(Debug)]
struct Told {
    state: State,
    /// Rises with every report of any site.
    number: u64,
    is_queued: bool,
}

impl Pending {
    fn tell(&mut self, site: &SiteId, state: State) {
        self.made += 1;
        let told = Told {
            state,
            number: self.made,
            is_queued: true,
        };
        let before = self.sites.insert(site.clone(), told);
        if let Some(before) = &before {
            self.newest.remove(&before.number);
        }
        self.newest.insert(self.made, site.clone());
        if !before.is_some_and(|before| before.is_queued) {
            self.unsent.push_back(site.clone());
        }
        if self.sites.len() > MAX_SITES {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.newest.pop_first().map(|(_, site)| site);
        let Some(oldest) = oldest else {
            return;
        };
        let told = self.sites.remove(&oldest);
        if told.is_some_and(|told| told.is_queued) {
            // It is nearly always the first.
            let at = self.unsent.iter().position(|site| *site == oldest);
            if let Some(at) = at {
                self.unsent.remove(at);
            }
        }
    }

    /// The next site whose newest report was not sent, and what that says.
    fn next_site(&mut self) -> Option<(SiteId, State)> {
        let site = self.unsent.pop_front()?;
        let told = self.sites.get_mut(&site)?;
        told.is_queued = false;
        Some((site, told.state.clone()))
    }

    /// Queues the newest reports once more.
    fn queue_again(&mut self) {
        for site in self.newest.values() {
            if let Some(told) = self.sites.get_mut(site)
                && !std::mem::replace(&mut told.is_queued, true)
            {
                self.unsent.push_back(site.clone());
            }
        }
    }
}

impl Reports {
    /// Nothing to tell yet. `ready` is shown in heartbeats; `gates` counts those that are told of.
    #[must_use]
    pub fn new(who: Reporter, ready: Arc<AtomicBool>, gates: Gates) -> Arc<Self> {
        Arc::new(Self {
            who,
            pending: Mutex::default(),
            wake: Notify::new(),
            refused: AtomicU64::new(0),
            ready,
            gates,
        })
    }

    /// The newest state of a site.
    pub fn site(&self, site: &SiteId, state: State) {
        self.pending().tell(site, state);
        self.wake.notify_one();
    }

    fn site_report(&self, site: SiteId, state: State) -> SiteReport {
        SiteReport {
            edge: self.who.edge.clone(),
            region: self.who.region.clone(),
            boot: self.who.boot.clone(),
            site,
            generation: state.generation,
            serving: state.serving,
            live: state.live,
            candidate: state.candidate.map(|candidate| *candidate),
        }
    }

    /// A site's purges were applied up to this one.
    pub fn purged(&self, site: &SiteId, generation: Generation) {
        let mut pending = self.pending();
        let (held, sent) = pending
            .purged
            .entry(site.clone())
            .or_insert((generation, false));
        *held = generation.max(*held);
        *sent = false;
        drop(pending);
        self.wake.notify_one();
    }

    /// An override of this edge stands, or is over.
    pub fn overridden(&self, site: &SiteId, standing: Option<LocalOverride>) {
        self.pending().overriding.stands(site, standing);
        self.wake.notify_one();
    }

    /// These overrides of this edge are over.
    pub(super) fn ended(&self, ended: EndedOverrides) {
        self.pending().overriding.ended(ended);
        self.wake.notify_one();
    }

    /// The newest record of a site is an override of the region until then, or is none.
    pub(super) fn signed(&self, site: &SiteId, until: Option<Timestamp>) {
        self.pending().overriding.signed(site, until);
    }

    /// What is held of a stream, unless the answer to this question is under way.
    pub fn held(&self, recalled: Recalled) {
        let pages = pages(&recalled.snapshot, recalled.records);
        let count = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        let mut pending = self.pending();
        let of_stream = |page: &HeldReport| page.stream == recalled.stream;
        let is_under_way = |page: &HeldReport| of_stream(page) && page.recall == recalled.recall;
        if pending.held.iter().any(is_under_way) {
            // Begun anew with every question, a long answer would never come to its end.
            return;
        }
        pending.held.retain(|page| !of_stream(page));
        for (page, held) in (0..count).zip(pages) {
            pending.held.push_back(HeldReport {
                edge: self.who.edge.clone(),
                region: self.who.region.clone(),
                boot: self.who.boot.clone(),
                recall: recalled.recall.clone(),
                stream: recalled.stream.clone(),
                page,
                pages: count,
                held,
            });
        }
        drop(pending);
        self.wake.notify_one();
    }

    /// What the gates of a release showed. Sent before whatever is reported after it.
    pub fn gated(
        &self,
        site: &SiteId,
        release: &ReleaseId,
        run: Option<Generation>,
        results: Vec<GateResult>,
    ) {
        for result in &results {
            self.gates.count(result);
        }
        let report = GatesReport {
            edge: self.who.edge.clone(),
            region: self.who.region.clone(),
            boot: self.who.boot.clone(),
            site: site.clone(),
            release: release.clone(),
            run,
            results,
        };
        let mut pending = self.pending();
        let replaces =
            |held: &GatesReport| held.site == *site && held.run.is_some() == run.is_some();
        pending.gates.retain(|(held, _)| !replaces(held));
        if pending.gates.len() == MAX_GATES_REPORTS {
            pending.gates.pop_front();
        }
        pending.gates.push_back((report, false));
        drop(pending);
        self.wake.notify_one();
    }

    /// What was counted of a site's live release, which went live under that generation.
    pub(super) fn counted(
        &self,
        site: &SiteId,
        (release, live_since): (&ReleaseId, Generation),
        window: Window,
        baseline: Option<Baseline>,
    ) {
        let report = WindowReport {
            edge: self.who.edge.clone(),
            region: self.who.region.clone(),
            boot: self.who.boot.clone(),
            site: site.clone(),
            release: release.clone(),
            live_since,
            window,
            baseline,
        };
        self.pending().counted.insert(site.clone(), report);
        self.wake.notify_one();
    }

    /// What is in flight on the releases of a site.
    pub(super) fn in_flight(&self, site: &SiteId, releases: Vec<Flying>) {
        let report = InFlightReport {
            edge: self.who.edge.clone(),
            region: self.who.region.clone(),
            boot: self.who.boot.clone(),
            site: site.clone(),
            releases,
        };
        self.pending().in_flight.insert(site.clone(), report);
        self.wake.notify_one();
    }

    /// A record was refused.
    pub fn refused(&self, refused: Refused) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut pending = self.pending();
        if pending.refusals.len() == MAX_REFUSALS {
            pending.refusals.pop_front();
        }
        pending.refusals.push_back(Refusal {
            edge: self.who.edge.clone(),
            region: self.who.region.clone(),
            stream: refused.stream,
            key: refused.key,
            sequence: refused.sequence,
            reason: refused.reason,
        });
        drop(pending);
        self.wake.notify_one();
    }

    /// Records refused since the start.
    #[must_use]
    pub fn refused_count(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A heartbeat should go out now: something that it shows has changed.
    pub fn readiness_changed(&self) {
        self.wake.notify_one();
    }

    /// Sends what there is to tell, for as long as the process runs.
    pub async fn run(
        self: Arc<Self>,
        client: Client,
        feeds: Vec<(String, watch::Receiver<FeedStatus>)>,
        metrics: Arc<Metrics>,
        maintenance: Maintenance,
    ) {
        let mut connects = 0;
        let mut told: Option<(maintenance::Told, Instant)> = None;
        let mut beat_at = Instant::now();
        let mut repeat_at = Instant::now() + REPEAT_ENDED;
        let mut shown_ready = false;
        loop {
            let connected = client.connection_state() == Link::Connected;
            let now = client.statistics().connects.load(Ordering::Relaxed);
            if connected && now != connects {
                connects = now;
                beat_at = Instant::now();
                told = None;
                self.resend_all();
            }
            let ready = self.ready.load(Ordering::Acquire);
            self.show(&metrics.following, ready, &feeds);
            metrics.following.drains.set(maintenance.drains().into());
            if connected && (Instant::now() >= beat_at || ready != shown_ready) {
                shown_ready = ready;
                beat_at = Instant::now() + HEARTBEAT;
                self.send(&client, "heartbeat", self.heartbeat(&feeds).encode())
                    .await;
                // Origin may have come later than the link: what stands is said with each heartbeat.
                self.pending().overriding.repeat_standing();
            }
            if connected && told.as_ref().is_none_or(|told| is_due(told, &maintenance)) {
                let news = maintenance.told();
                let report = self.edge_report(&news, &metrics).encode();
                self.send(&client, "edge", report).await;
                told = Some((news, Instant::now()));
            }
            if connected && Instant::now() >= repeat_at {
                repeat_at = Instant::now() + REPEAT_ENDED;
                self.pending().overriding.repeat_ended();
            }
            if connected {
                self.send_pending(&client).await;
            }
            // Woken at once by a report; the timeout notices links and heartbeats.
            let _ = tokio::time::timeout(LINK_CHECK, self.wake.notified()).await;
        }
    }

    /// What heartbeats tell origin, for the edge's own operator.
    fn show(
        &self,
        metrics: &Following,
        ready: bool,
        feeds: &[(String, watch::Receiver<FeedStatus>)],
    ) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.ready.set(i64::from(ready));
        metrics.records_refused.set(gauge(self.refused_count()));
        let (standing, expired) = self.pending().overriding.count(clock::now());
        for (state, count) in [("standing", standing), ("expired", expired)] {
            metrics.overrides.with_label_values(&[state]).set(count);
        }
        for (stream, status) in feeds {
            let status = status.borrow();
            metrics
                .feed_sequence
                .with_label_values(&[stream])
                .set(gauge(status.sequence));
            metrics
                .feed_stale
                .with_label_values(&[stream])
                .set(i64::from(status.stale));
        }
    }

    async fn send_pending(&self, client: &Client) {
        loop {
            let (kind, bytes) = {
                let mut pending = self.pending();
                if let Some((report, sent)) = pending.gates.iter_mut().find(|(_, sent)| !sent) {
                    *sent = true;
                    ("gates", report.encode())
                } else if let Some((site, state)) = pending.next_site() {
                    ("site", self.site_report(site, state).encode())
                } else if let Some(report) = self.purge_report(&mut pending) {
                    ("purge", report.encode())
                } else if let Some(report) = self.ended_report(&mut pending) {
                    ("ended", report.encode())
                } else if let Some(report) = self.local_report(&mut pending) {
                    ("local", report.encode())
                } else if let Some(report) = pending.held.pop_front() {
                    ("held", report.encode())
                } else if let Some((_, report)) = pending.counted.pop_first() {
                    ("window", report.encode())
                } else if let Some((_, report)) = pending.in_flight.pop_first() {
                    ("in-flight", report.encode())
                } else if let Some(refusal) = pending.refusals.pop_front() {
                    ("refusal", refusal.encode())
                } else {
                    return;
                }
            };
            self.send(client, kind, bytes).await;
            failpoint::hit("edge.reported");
        }
    }

    fn purge_report(&self, pending: &mut Pending) -> Option<PurgeReport> {
        let mut unsent = pending.purged.iter_mut().filter(|(_, (_, sent))| !sent);
        let (site, (generation, sent)) = unsent.next()?;
        *sent = true;
        Some(PurgeReport {
            edge: self.who.edge.clone(),
            region: self.who.region.clone(),
            boot: self.who.boot.clone(),
            site: site.clone(),
            generation: *generation,
        })
    }

    /// What is over, to be told before what stands instead.
    fn ended_report(&self, pending: &mut Pending) -> Option<EndedReport> {
        let ended = pending.overriding.untold_ended()?;
        Some(EndedReport {
            edge: self.who.edge.clone(),
            region: self.who.region.clone(),
            boot: self.who.boot.clone(),
            ended,
        })
    }

    fn local_report(&self, pending: &mut Pending) -> Option<LocalReport> {
        let (site, standing) = pending.overriding.untold()?;
        Some(LocalReport {
            edge: self.who.edge.clone(),
            region: self.who.region.clone(),
            boot: self.who.boot.clone(),
            site,
            standing,
        })
    }

    async fn send(&self, client: &Client, kind: &str, bytes: Vec<u8>) {
        let subject = key::report(&self.who.region, &self.who.edge, kind);
        if let Err(error) = client.publish(subject, bytes.into()).await {
            tracing::warn!(
                kind,
                error = &error as &dyn std::error::Error,
                "report was not sent"
            );
        }
    }

    /// A new link: whatever was sent on the old one may be lost.
    fn resend_all(&self) {
        let mut pending = self.pending();
        pending.queue_again();
        for (_, sent) in &mut pending.gates {
            *sent = false;
        }
        for (_, sent) in pending.purged.values_mut() {
            *sent = false;
        }
        pending.overriding.repeat_all();
    }

    fn edge_report(&self, told: &maintenance::Told, metrics: &Metrics) -> EdgeReport {
        EdgeReport {
            edge: self.who.edge.clone(),
            region: self.who.region.clone(),
            boot: self.who.boot.clone(),
            generation: told.generation,
            drains: told.drain.is_some(),
            connections: u64::try_from(metrics.connections.get()).unwrap_or_default(),
        }
    }

    fn heartbeat(&self, feeds: &[(String, watch::Receiver<FeedStatus>)]) -> Heartbeat {
        let streams = feeds.iter().map(|(stream, status)| {
            let status = status.borrow();
            StreamPosition {
                stream: stream.clone(),
                incarnation: status.incarnation.clone(),
                sequence: status.sequence,
                stale: status.stale,
            }
        });
        Heartbeat {
            edge: self.who.edge.clone(),
            region: self.who.region.clone(),
            boot: self.who.boot.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            record_version: SiteRecord::VERSION,
            at: clock::now(),
            ready: self.ready.load(Ordering::Acquire),
            streams: streams.collect(),
            refused: self.refused_count(),
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what was told of this edge itself is news by now, or its progress is.
fn is_due((told, at): &(maintenance::Told, Instant), maintenance: &Maintenance) -> bool {
    let now = maintenance.told();
    *told != now || now.drain.is_some() && at.elapsed() >= DRAIN_REPORT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(pending: &mut Pending, number: usize, generation: u64) {
        let state = State {
            generation: Generation(generation),
            serving: Generation(generation),
            live: None,
            candidate: None,
        };
        pending.tell(&format!("p{number}/production").parse().unwrap(), state);
    }

    fn all(pending: &mut Pending) -> Vec<(String, u64)> {
        std::iter::from_fn(|| pending.next_site())
            .map(|(site, state)| (site.to_string(), state.generation.0))
            .collect()
    }

    #[test]
    fn of_each_site_the_newest_report_is_sent_once_and_after_a_new_link_again() {
        let mut pending = Pending::default();
        for (number, generation) in [(1, 1), (2, 1), (1, 2)] {
            tell(&mut pending, number, generation);
        }
        let expected = |order: [usize; 2]| {
            order
                .map(|n| (format!("p{n}/production"), if n == 1 { 2 } else { 1 }))
                .to_vec()
        };
        assert_eq!(all(&mut pending), expected([1, 2]));
        assert_eq!(all(&mut pending), []);
        pending.queue_again();
        assert_eq!(all(&mut pending), expected([2, 1]));
    }

    #[test]
    fn of_more_sites_than_are_told_the_newest_are() {
        let mut pending = Pending::default();
        for number in 0..MAX_SITES + 100 {
            tell(&mut pending, number, 1);
        }
        for _ in 0..2 {
            let told = all(&mut pending);
            assert_eq!(told.len(), MAX_SITES);
            assert_eq!(told[0].0, "p100/production");
            pending.queue_again();
        }
        assert_eq!(pending.sites.len(), MAX_SITES, "of others nothing is kept");
        // The oldest one is not it any more once there is news of it.
        tell(&mut pending, 100, 2);
        tell(&mut pending, 0, 2);
        let told = all(&mut pending);
        assert_eq!(told.len(), MAX_SITES);
        assert_eq!(told[0], ("p100/production".to_owned(), 2));
        assert_eq!(told[1].0, "p102/production");
        assert_eq!(told[MAX_SITES - 1].0, "p0/production");
    }
}
