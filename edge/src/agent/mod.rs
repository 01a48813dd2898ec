//! The edge's half of a cutover: the shell around [`placement`].
//!
//! One task owns every placement. It only decides, swaps pointers and hands work out: whatever takes time
//! (fetching, collecting, sending) runs elsewhere and comes back as an event, so one site never waits for
//! another. Records come from the feeds, which have written them to disk first.

mod canary;
mod counting;
mod dropped;
mod flying;
mod gating;
pub mod glass;
mod guard;
mod hosting;
mod improvement;
mod noting;
mod overriding;
pub mod placement;
mod purging;
pub mod reports;
pub mod retired;
mod serving;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use helix_routing::gate::result::GateResult;
use helix_routing::id::{Digest, SiteId};
use helix_routing::record::ReleaseRef;
use helix_routing::time::Timestamp;
use helix_service::clock;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::counting::{Baking, Watch};
use self::flying::Told;
pub use self::gating::Asking;
use self::gating::{Run, Unready};
use self::glass::{Desk, Glass, Kept};
use self::hosting::Arriving;
use self::placement::{Command, Event, Placement};
use self::purging::Purging;
use self::reports::Reports;
use self::retired::Retired;
use crate::feed::record::Record;
use crate::feed::{Batch, Change, FeedStatus};
use crate::gate;
use crate::in_flight::Load;
use crate::maintenance::Maintenance;
use crate::release::Release;
use crate::store::{Fetcher, Store};
use crate::table::Table;

/// Batches of changes that wait for the agent; a feed that finds it full waits, and NATS keeps the rest.
pub const MAX_WAITING_CHANGES: usize = 64;
/// Results of work that wait for the agent.
const MAX_WAITING_RESULTS: usize = 64;
/// After the last reason to collect: a rollout drops several releases in a row.
const COLLECT_DELAY: Duration = Duration::from_secs(2);
/// Also now and then: a request in flight may have held what the last sweep came for.
const COLLECT_INTERVAL: Duration = Duration::from_secs(300);
/// Before a failed fetch is tried again at first; doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Before a failed fetch is tried again at most.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Work that ended.
#[derive(Debug)]
enum Done {
    /// Not all of a release is on disk: it is fetched.
    Absent {
        site: SiteId,
        release: ReleaseRef,
    },
    Prepared {
        site: SiteId,
        release: ReleaseRef,
        result: Result<Box<Release>, Unready>,
    },
    /// The gates of a candidate were run.
    Gated {
        site: SiteId,
        release: ReleaseRef,
        results: Vec<GateResult>,
    },
    /// A run by hand has ended whose release nobody else holds.
    RunEnded,
    RetryDue {
        site: SiteId,
    },
    /// It is time to ask whether a release that is live can be had with smaller variants.
    ImprovementDue {
        site: SiteId,
        release: ReleaseRef,
        looks: u32,
    },
    /// The same release with them; none when there are none yet.
    Improved {
        site: SiteId,
        release: ReleaseRef,
        looks: u32,
        better: Option<Box<Release>>,
    },
    CollectDue,
    Swept,
    NotesDue,
    Noted,
    /// An override is on disk, or is not.
    Kept(Box<Kept>),
}

/// A site and the work for it.
#[derive(Debug, Default)]
struct Place {
    placement: Placement,
    ready: BTreeMap<ReleaseRef, Arc<Release>>,
    fetching: BTreeMap<ReleaseRef, AbortHandle>,
    /// The candidate whose gates are run.
    gating: Option<Box<(ReleaseRef, AbortHandle)>>,
    retired: Retired,
    watch: Watch,
    /// What was told last of what is in flight on the live release.
    told: Load,
    /// Whether the file says something else.
    note_is_due: bool,
}

impl Place {
    /// Lets the files of the releases live before answer, those of the others not. The candidate was not live.
    /// True when that changes what requests get.
    fn follow_retired(&mut self, now: Timestamp) -> bool {
        let Some(record) = self.placement.record() else {
            return false;
        };
        self.note_is_due |= self.retired.follow(record, now);
        let mut changed = false;
        for (named, release) in &self.ready {
            let lately = self.retired.was_live_lately(named, now);
            changed |= release.was_live_lately() != lately;
            release.set_live_lately(lately);
        }
        changed
    }
}

/// Everything the agent acts on.
#[derive(Debug)]
pub struct Agent {
    table: Arc<Table>,
    store: Arc<Store>,
    fetcher: Fetcher,
    reports: Arc<Reports>,
    ready: Arc<AtomicBool>,
    feeds: Vec<watch::Receiver<FeedStatus>>,
    /// Served from disk: there was a position to go on from in every stream.
    had_state: bool,
    /// Boxed: a map that grows moves what it holds, and a good part of it is empty.
    places: HashMap<SiteId, Box<Place>>,
    /// Hosts that come by the million, and are not in the table yet.
    arriving: Arriving,
    /// Sites whose record names something else than what requests get.
    unsettled: HashSet<SiteId>,
    done: mpsc::Sender<Done>,
    results: mpsc::Receiver<Done>,
    collect_is_due: bool,
    sweeping: bool,
    /// Where it is written down when releases were last live.
    retired: PathBuf,
    notes_are_due: bool,
    noting: bool,
    purging: Purging,
    maintenance: Maintenance,
    asking: Asking,
    /// Runs of gates by hand.
    runs: HashMap<SiteId, Run>,
    baking: Baking,
    flying: Told,
    glass: Glass,
    /// Since when a stream has had no beacon.
    stale_since: Option<Instant>,
}

impl Agent {
    /// An agent that serves nothing yet. In `data_dir` it remembers when releases were last live, and what is overridden here;
    /// gates are run when there is something in `asking`.
    #[must_use]
    pub fn new(
        table: Arc<Table>,
        (store, fetcher): (Arc<Store>, Fetcher),
        reports: Arc<Reports>,
        ready: Arc<AtomicBool>,
        data_dir: &Path,
        (asking, desk): (Asking, Arc<Desk>),
    ) -> Self {
        let (done, results) = mpsc::channel(MAX_WAITING_RESULTS);
        let responses = Arc::clone(&table.cache().store);
        let purging = Purging::new(responses, Arc::clone(&reports));
        Self {
            table,
            store,
            fetcher,
            reports,
            ready,
            feeds: Vec::new(),
            had_state: false,
            places: HashMap::new(),
            arriving: Arriving::default(),
            unsettled: HashSet::new(),
            done,
            results,
            collect_is_due: false,
            sweeping: false,
            retired: data_dir.join("retired"),
            notes_are_due: false,
            noting: false,
            purging,
            maintenance: Maintenance::default(),
            asking,
            runs: HashMap::new(),
            baking: Baking::default(),
            flying: Told::default(),
            glass: Glass::open(desk, data_dir),
            stale_since: None,
        }
    }

    /// With whom to tell what is said of this edge itself.
    #[must_use]
    pub fn telling(mut self, maintenance: Maintenance) -> Self {
        self.maintenance = maintenance;
        self
    }

    /// Acts on changes until the feeds are gone. `whole` says that every stream had a position on disk to go on
    /// from; `settled` is told when every site first gets what its record names, be those all records or not.
    pub async fn run(
        mut self,
        mut changes: mpsc::Receiver<Batch>,
        feeds: Vec<watch::Receiver<FeedStatus>>,
        whole: bool,
        settled: watch::Sender<bool>,
    ) {
        self.feeds = feeds;
        self.had_state = whole;
        let store = Arc::clone(&self.store);
        let mut readiness = tokio::time::interval(Duration::from_millis(100));
        readiness.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut leftovers = tokio::time::interval(COLLECT_INTERVAL);
        let mut telling = tokio::time::interval(counting::REPORT_INTERVAL);
        telling.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                batch = changes.recv() => match batch {
                    Some(batch) => self.take(batch),
                    None => return,
                },
                Some(done) = self.results.recv() => self.finish(done),
                Some(ask) = self.glass.next() => self.asked(ask),
                () = store.damage_found() => self.prepare_again(),
                _ = leftovers.tick() => {
                    self.follow_retired();
                    self.places.values_mut().for_each(|place| place.watch.mark());
                    self.collect_later();
                }
                _ = telling.tick() => {
                    self.baking.report(&self.places, &self.reports);
                    self.follow_left();
                    self.guard();
                }
                _ = readiness.tick() => {}
            }
            self.show_readiness(&settled);
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Record { record, .. } => {
                if let Record::Site(site) = &record {
                    self.baking.record(site, clock::now());
                }
                self.record(record);
            }
            Change::Dropped { key } => self.dropped(&key),
            Change::Refused(refused) => self.reports.refused(refused),
            Change::Recalled(held) => self.reports.held(held),
        }
    }

    fn record(&mut self, record: Record) {
        match record {
            Record::Site(site) => {
                let id = site.site.clone();
                self.note_signed(&site);
                self.step(&id, Event::Recorded(site));
            }
            Record::Host(host) => self.table.set_host(&host.host, host.site.as_ref()),
            Record::Purge(purge) => self.purging.apply(*purge),
            Record::Gate(gate) => self.run_gates(*gate),
            Record::Edge(edge) => self.maintenance.adopt(&edge),
            Record::Term(_) => {}
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Absent { site, release } => {
                let place = self.places.get(&site);
                if place.is_some_and(|place| place.fetching.contains_key(&release)) {
                    self.step(&site, Event::Absent(release));
                }
            }
            Done::Prepared {
                site,
                release,
                result,
            } => self.prepared(&site, release, result),
            Done::Gated {
                site,
                release,
                results,
            } => self.gated(&site, release, results),
            Done::RunEnded => self.collect_later(),
            Done::RetryDue { site } => self.step(&site, Event::Retry),
            Done::ImprovementDue {
                site,
                release,
                looks,
            } => self.look_for_improvement(&site, release, looks),
            Done::Improved {
                site,
                release,
                looks,
                better,
            } => self.improved(&site, release, looks, better),
            Done::CollectDue => self.collect(),
            Done::Swept => self.sweeping = false,
            Done::NotesDue => self.note(),
            Done::Noted => self.noting = false,
            Done::Kept(kept) => self.kept(*kept),
        }
    }

    fn prepared(
        &mut self,
        site: &SiteId,
        release: ReleaseRef,
        result: Result<Box<Release>, Unready>,
    ) {
        let Some(place) = self.places.get_mut(site) else {
            return;
        };
        if place.fetching.remove(&release).is_none() {
            // Dropped meanwhile.
            return;
        }
        let event = match result {
            Ok(ready) => {
                tracing::info!(site = %site, release.id = %release.release, files = ready.file_count(), "release ready");
                place.ready.insert(release.clone(), Arc::new(*ready));
                Event::Ready(release)
            }
            Err(Unready { verdict, reason }) => {
                let results = vec![gate::unready(verdict, &reason)];
                self.reports.gated(site, &release.release, None, results);
                tracing::warn!(site = %site, release.id = %release.release, reason, "release is not ready");
                Event::Failed { release, reason }
            }
        };
        self.step(site, event);
    }

    fn step(&mut self, site: &SiteId, event: Event) {
        let place = self.places.entry(site.clone()).or_insert_with(|| {
            Box::new(Place {
                retired: Retired::load(&self.retired, site),
                ..Place::default()
            })
        });
        let commands = place.placement.step(event);
        if place.placement.is_settled() {
            self.unsettled.remove(site);
        } else {
            self.unsettled.insert(site.clone());
        }
        place.follow_retired(clock::now());
        let note = place.note_is_due;
        for command in commands {
            self.act(site, command);
        }
        if note {
            self.note_later();
        }
    }

    fn act(&mut self, site: &SiteId, command: Command) {
        match command {
            Command::Fetch(release) => self.fetch(site, release),
            Command::Drop(release) => self.drop_release(site, &release),
            Command::Gate { release, returns } => self.gate(site, release, returns),
            Command::Ungate(release) => self.ungate(site, &release),
            Command::Serve(plan) => self.serve(site, &plan),
            Command::Remove => self.remove(site),
            Command::Report(state) => self.reports.site(site, state),
            Command::RetryLater { failures } => {
                let wait = (FIRST_RETRY * 2_u32.saturating_pow(failures.min(16))).min(MAX_RETRY);
                self.later(wait, Done::RetryDue { site: site.clone() });
            }
            Command::Collect => self.collect_later(),
            Command::Overruled(local) => self.overruled(site, &local),
        }
    }

    fn fetch(&mut self, site: &SiteId, release: ReleaseRef) {
        let (store, fetcher, done) = (
            Arc::clone(&self.store),
            self.fetcher.clone(),
            self.done.clone(),
        );
        let (of, wanted) = (site.clone(), release.clone());
        let task = tokio::spawn(async move {
            let prepare = |fetcher| {
                let store = Arc::clone(&store);
                Box::pin(store.prepare(of.clone(), wanted.clone(), fetcher))
            };
            let mut result = prepare(fetcher.on_disk()).await;
            if result.is_err() {
                let (site, release) = (of.clone(), wanted.clone());
                // The agent ends only with the process.
                let _ = done.send(Done::Absent { site, release }).await;
                result = prepare(fetcher).await;
            }
            let result = result.map(Box::new).map_err(Unready::from);
            let _ = done
                .send(Done::Prepared {
                    site: of,
                    release: wanted,
                    result,
                })
                .await;
        });
        if let Some(place) = self.places.get_mut(site) {
            place.fetching.insert(release, task.abort_handle());
        }
    }

    /// Something on disk is harmed: every release is prepared again, which fetches only what is.
    fn prepare_again(&self) {
        for (site, place) in &self.places {
            for release in place.ready.keys() {
                let prepare = Arc::clone(&self.store).prepare(
                    site.clone(),
                    release.clone(),
                    self.fetcher.clone(),
                );
                let site = site.clone();
                tokio::spawn(async move {
                    if let Err(error) = Box::pin(prepare).await {
                        tracing::error!(site = %site, error = &error as &dyn std::error::Error, "a harmed release was not mended");
                    }
                });
            }
        }
    }

    fn collect_later(&mut self) {
        if !self.collect_is_due {
            self.collect_is_due = true;
            self.later(COLLECT_DELAY, Done::CollectDue);
        }
    }

    fn collect(&mut self) {
        self.collect_is_due = false;
        if self.sweeping {
            self.collect_later();
            return;
        }
        self.sweeping = true;
        let places = self.places.values();
        let named: Vec<Digest> = places
            .flat_map(|place| place.placement.unready())
            .map(|release| release.artifact.clone())
            .collect();
        let (store, done) = (Arc::clone(&self.store), self.done.clone());
        tokio::task::spawn_blocking(move || {
            match store.sweep(&named) {
                Ok(swept) if swept.blobs > 0 => {
                    tracing::info!(blobs = swept.blobs, bytes = swept.bytes, "collected")
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "store was not swept"
                ),
            }
            let _ = done.blocking_send(Done::Swept);
        });
    }

    fn later(&self, wait: Duration, due: Done) {
        let done = self.done.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = done.send(due).await;
        });
    }

    /// Ready when the feeds were followed to their ends once, or there was state on disk to serve from, and
    /// every site gets what its record names.
    fn show_readiness(&self, settled: &watch::Sender<bool>) {
        if self.unsettled.is_empty() && !*settled.borrow() {
            settled.send_replace(true);
        }
        let informed = self.had_state
            || (!self.feeds.is_empty() && self.feeds.iter().all(|feed| feed.borrow().caught_up));
        let ready = informed && self.unsettled.is_empty();
        if self.ready.swap(ready, Ordering::AcqRel) != ready {
            tracing::info!(from = !ready, to = ready, "readiness");
            self.reports.readiness_changed();
        }
    }
}
