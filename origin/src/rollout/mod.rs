//! Origin's half of a cutover: starts rollouts, drives their machines, and answers how far they are.
//!
//! ```text
//!  deploy | rollback ──▶ one transaction: the older superseded, the new one started, hosts, records, outbox
//!        report, probe, time ──▶ driver: step ──▶ save (one transaction) ──▶ act
//! ```
//!
//! Invariant: a site has one running rollout, and its driver is the only one that steps it; a change by a
//! newer rollout shows in the row's revision, and the driver that finds it lets go. What is decided is
//! decided in [`helix_routing::rollout`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use helix_routing::api::{RolloutView, SkippedRegion};
use helix_routing::gate::report::GatesReport;
use helix_routing::glass::LocalOverride;
use helix_routing::host::Host;
use helix_routing::id::{RegionId, ReleaseId, RolloutId, SiteId};
use helix_routing::provenance::policy::Requires;
use helix_routing::record::ReleaseRef;
use helix_routing::report::{SiteReport, WindowReport};
use helix_routing::rollout::{BakePlan, Closed, Command, Event, Kind, Waits};
use helix_routing::time::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::WatchStream;

use crate::feed::{Feed, RecordError};
use crate::fleet::Roster;
use crate::metrics::Ends;
use crate::store::{Store, StoreError};

mod adopt;
pub mod alias;
pub mod bake;
mod begin;
mod control;
mod counting;
mod driver;
pub mod policy;
mod probe;
mod prometheus;
mod restart;
mod returned;
mod saved;
mod target;

pub use adopt::Adopter;
pub(crate) use adopt::Place;
pub use begin::Begun;
pub use control::ControlError;
use driver::{Driver, Message};
use policy::WayOut;
use prometheus::Prometheus;
pub use restart::{Anew, NewRestart};
use saved::Saved;
pub use target::{Kept, Preempted, Step, kept};

/// Events waiting for one driver. Reports are sent again, so those beyond may be dropped.
const DRIVER_QUEUE: usize = 1024;
/// How often a watcher looks for the driver of a rollout that was saved a moment ago.
const DRIVER_POLL: Duration = Duration::from_millis(20);

/// A rollout to start.
#[derive(Clone, Debug)]
pub struct NewRollout {
    /// The site.
    pub site: SiteId,
    /// What to make live, in every region.
    pub release: ReleaseRef,
    /// Who asks.
    pub by: String,
    /// Deploy although the release is quarantined.
    pub lift_quarantine: bool,
    /// Nobody asked for it by hand: held regions are left alone.
    pub automatic: bool,
    /// How it is watched after its swap.
    pub bake: BakePlan,
    /// In which stages it goes out.
    pub way_out: WayOut,
    /// Nothing goes live before.
    pub not_before: Option<Timestamp>,
    /// Nothing goes live meanwhile.
    pub closed: Vec<Closed>,
    /// A newer push was deployed before: it ends at once, for this reason.
    pub superseded: Option<String>,
    /// What edges have to find in its provenance, besides that it is of this site.
    pub requires: Option<Requires>,
}

/// Regions to take back.
#[derive(Clone, Debug)]
pub struct NewRollback {
    /// The site.
    pub site: SiteId,
    /// The release to go to; none means the newest settled one before what is live, region by region.
    pub release: Option<ReleaseId>,
    /// The regions; none means all.
    pub regions: Option<Vec<RegionId>>,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

impl NewRollback {
    /// Why its regions are held from then on.
    #[must_use]
    pub fn hold_reason(&self) -> String {
        let reason = self.reason.clone();
        reason.unwrap_or_else(|| format!("rolled back by {}", self.by))
    }
}

/// A rollout could not be started or read.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The release may not be deployed without a word.
    #[error("{release} is quarantined in {}: deploy with the quarantine lifted to use it again", list(.regions))]
    Quarantined {
        /// The release.
        release: ReleaseId,
        /// Where.
        regions: Vec<RegionId>,
    },
    /// The site has no such release.
    #[error("{site} has no release {release}")]
    UnknownRelease {
        /// The site.
        site: SiteId,
        /// The release.
        release: ReleaseId,
    },
    /// The release was removed to make room.
    #[error("release {release} of {site} was collected: deploy its files again")]
    Collected {
        /// The site.
        site: SiteId,
        /// The release.
        release: ReleaseId,
    },
    /// There is no live release to go back from, or the one named never settled anywhere.
    #[error("{what} was never live")]
    NeverLive {
        /// The site, or the release.
        what: String,
    },
    /// No settled release is older than the live one.
    #[error("{site} has nothing older to go back to in {}", list(.regions))]
    NothingOlder {
        /// The site.
        site: SiteId,
        /// Where.
        regions: Vec<RegionId>,
    },
    /// The release named is what is served.
    #[error("{release} is live in {} already", list(.regions))]
    AlreadyLive {
        /// The release.
        release: ReleaseId,
        /// Where.
        regions: Vec<RegionId>,
    },
    /// Nothing is live that could be restarted.
    #[error("nothing of {site} is live in {}", list(.regions))]
    NothingLive {
        /// The site.
        site: SiteId,
        /// Where.
        regions: Vec<RegionId>,
    },
    /// A restart would keep it from bringing what it brings.
    #[error(
        "the {kind} {rollout} of {site} runs: wait for its end with `helix rollout watch {rollout}`, then restart"
    )]
    Running {
        /// The site.
        site: SiteId,
        /// What runs.
        kind: Kind,
        /// Its rollout.
        rollout: RolloutId,
    },
    /// Every region is held, and the deployment is an automatic one.
    #[error(
        "{site} is held in every region ({}): deploy by hand, which lifts the holds, or lift them with `helix hold clear`",
        reasons(.skipped)
    )]
    Held {
        /// The site.
        site: SiteId,
        /// Where, and why.
        skipped: Vec<SkippedRegion>,
    },
    /// There is no such region.
    #[error("there is no region {0}")]
    UnknownRegion(RegionId),
    /// The release wants to ask Prometheus, and there is none.
    #[error(
        "the helix.toml of {site} has [[bake.promql]], and origin's config names no Prometheus"
    )]
    NoPrometheus {
        /// The site.
        site: SiteId,
    },
    /// It cannot go out as it is to.
    #[error("{problem}")]
    Policy {
        /// The key, and what is wrong with it.
        problem: String,
    },
    /// There are no regions at all.
    #[error("no region is configured")]
    NoRegions,
    /// The database failed, or another origin leads.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record could not be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A stored machine is not one this build writes.
    #[error("read rollout {rollout}")]
    Machine {
        /// The rollout.
        rollout: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl From<sqlx::Error> for RolloutError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

impl RolloutError {
    /// The stable name of this kind of error for the API.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Quarantined { .. } => "quarantined",
            Self::UnknownRelease { .. } => "unknown-release",
            Self::Collected { .. } => "release-collected",
            Self::NeverLive { .. } => "never-live",
            Self::NothingOlder { .. } => "nothing-older",
            Self::AlreadyLive { .. } => "already-live",
            Self::NothingLive { .. } => "nothing-live",
            Self::Running { .. } => "rollout-running",
            Self::Held { .. } => "held",
            Self::UnknownRegion(_) => "unknown-region",
            Self::NoPrometheus { .. } => "no-prometheus",
            Self::Policy { .. } => "illegal-rollout",
            Self::NoRegions => "no-regions",
            Self::Store(_) | Self::Record(_) | Self::Machine { .. } => "internal",
        }
    }
}

fn list(regions: &[RegionId]) -> String {
    regions
        .iter()
        .map(RegionId::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

fn reasons(skipped: &[SkippedRegion]) -> String {
    let reasons = skipped
        .iter()
        .map(|skipped| format!("{}: {}", skipped.region, skipped.reason));
    reasons.collect::<Vec<_>>().join("; ")
}

/// Starts rollouts and knows those that run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Conductor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    feed: Feed,
    roster: Roster,
    base: Host,
    probes: reqwest::Client,
    prometheus: Prometheus,
    drivers: Mutex<BTreeMap<SiteId, Handle>>,
    /// Held from a commit to the launch that follows it: drivers start in the order in which rollouts were committed.
    launching: tokio::sync::Mutex<()>,
    settled: Arc<Notify>,
    ends: Ends,
}

/// One running driver, as others reach it.
#[derive(Debug)]
struct Handle {
    rollout: RolloutId,
    inbox: mpsc::Sender<Message>,
    view: watch::Receiver<RolloutView>,
}

impl Conductor {
    /// The record.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// A conductor of no rollouts yet. `base` is the domain below which every site has its host; `prometheus` is where
    /// releases may ask how they are.
    #[must_use]
    pub fn new(
        store: Store,
        feed: Feed,
        roster: Roster,
        base: Host,
        prometheus: Option<&str>,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            feed,
            roster,
            base,
            probes: probe::client(),
            prometheus: Prometheus::new(prometheus),
            drivers: Mutex::default(),
            launching: tokio::sync::Mutex::default(),
            settled: Arc::default(),
            ends: Ends::new(),
        }))
    }

    /// Takes up every rollout that has not ended, under the present term.
    ///
    /// # Errors
    /// When the database fails. A rollout that cannot be read is logged and left alone.
    pub async fn resume(&self) -> Result<(), RolloutError> {
        for saved in saved::unfinished(&self.0.store).await? {
            tracing::info!(rollout = %saved.machine.id(), site = %saved.machine.site(), "rollout is resumed");
            self.launch(saved, None);
        }
        Ok(())
    }

    /// An edge said how it stands with a site.
    pub fn report(&self, report: SiteReport) {
        self.tell(&report.site.clone(), Event::Reported(report));
    }

    /// An edge said what it has counted of a release.
    pub fn measure(&self, report: WindowReport) {
        self.tell(&report.site.clone(), Event::Measured(Box::new(report)));
    }

    /// Most edges of a region took themselves back. Said again until the rollout has taken it in.
    pub fn went_back(&self, region: RegionId, local: LocalOverride) {
        let event = Event::WentBack {
            region,
            reason: local.reason,
            base: local.base,
        };
        self.tell(&local.site, event);
    }

    fn tell(&self, site: &SiteId, event: Event) {
        if let Some(handle) = self.drivers().get(site) {
            // A full queue means that the driver is behind; it will ask again, and edges report again.
            let _ = handle.inbox.try_send(Message::Event(event));
        }
    }

    /// An edge said what the gates of a candidate showed.
    pub fn gated(&self, report: GatesReport) {
        self.tell(&report.site.clone(), Event::Gated(report));
    }

    /// The rollout of `site` that runs.
    #[must_use]
    pub fn running(&self, site: &SiteId) -> Option<RolloutId> {
        self.drivers()
            .get(site)
            .map(|handle| handle.rollout.clone())
    }

    /// What the rollout of `site` waits for that is no edge.
    #[must_use]
    pub fn waits(&self, site: &SiteId) -> Option<Waits> {
        let drivers = self.drivers();
        let plan = drivers.get(site)?.view.borrow().plan.clone();
        plan?.waits
    }

    /// The rollouts of a site or of all, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, site: Option<&SiteId>) -> Result<Vec<RolloutView>, RolloutError> {
        let mut connection = self.0.store.read().await?;
        let saved = saved::newest(&mut connection, site).await?;
        let views = saved.into_iter().map(|saved| {
            let live = self.live_view(saved.machine.site(), saved.machine.id());
            live.map_or_else(|| saved.view(), |view| view.borrow().clone())
        });
        Ok(views.collect())
    }

    /// How far a rollout is; none when there is none of that id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn view(&self, rollout: &RolloutId) -> Result<Option<RolloutView>, RolloutError> {
        let mut connection = self.0.store.read().await?;
        let Some(saved) = saved::load(&mut connection, rollout).await? else {
            return Ok(None);
        };
        let live = self
            .live_view(saved.machine.site(), rollout)
            .map(|view| view.borrow().clone());
        Ok(Some(live.unwrap_or_else(|| saved.view())))
    }

    /// The rollout as it is and each time it changes, to its end; none when there is none of that id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn watch(
        &self,
        rollout: &RolloutId,
    ) -> Result<Option<impl Stream<Item = RolloutView> + Send + use<>>, RolloutError> {
        loop {
            let mut connection = self.0.store.read().await?;
            let Some(saved) = saved::load(&mut connection, rollout).await? else {
                return Ok(None);
            };
            drop(connection);
            if saved.machine.outcome().is_some() {
                return Ok(Some(stream::iter([saved.view()]).left_stream()));
            }
            if let Some(view) = self.live_view(saved.machine.site(), rollout) {
                return Ok(Some(WatchStream::new(view).right_stream()));
            }
            // Saved a moment ago: its driver is about to start or has just ended.
            tokio::time::sleep(DRIVER_POLL).await;
        }
    }

    /// What came of rollouts and of bakes since this origin leads.
    #[must_use]
    pub fn ends(&self) -> &Ends {
        &self.0.ends
    }

    /// Notified when a rollout ended: something may be there to collect.
    #[must_use]
    pub fn settled(&self) -> Arc<Notify> {
        Arc::clone(&self.0.settled)
    }

    /// Tells the driver of `site` to look at SQL: its rollout was ended by someone else.
    pub fn reload(&self, site: &SiteId) {
        if let Some(handle) = self.drivers().get(site) {
            let _ = handle.inbox.try_send(Message::Reload);
        }
    }

    /// Starts the driver of a saved rollout; with no commands it resumes.
    fn launch(&self, saved: Saved, commands: Option<Vec<Command>>) {
        if let Some(outcome) = saved.machine.outcome() {
            self.0.ends.rollout(saved.machine.kind(), outcome).inc();
            self.0.settled.notify_one();
            return;
        }
        let (sender, inbox) = mpsc::channel(DRIVER_QUEUE);
        let (view, watcher) = watch::channel(saved.view());
        let handle = Handle {
            rollout: saved.machine.id().clone(),
            inbox: sender.clone(),
            view: watcher,
        };
        let site = saved.machine.site().clone();
        if let Some(before) = self.drivers().insert(site, handle) {
            // It was superseded in the transaction that started this one.
            let _ = before.inbox.try_send(Message::Reload);
        }
        let driver = Driver::new(self.clone(), saved, inbox, sender, view);
        tokio::spawn(driver.run(commands));
    }

    /// A driver has ended.
    fn ended(&self, site: &SiteId, rollout: &RolloutId) {
        let mut drivers = self.drivers();
        if drivers
            .get(site)
            .is_some_and(|handle| handle.rollout == *rollout)
        {
            drivers.remove(site);
        }
        drop(drivers);
        self.0.settled.notify_one();
    }

    fn live_view(
        &self,
        site: &SiteId,
        rollout: &RolloutId,
    ) -> Option<watch::Receiver<RolloutView>> {
        self.drivers()
            .get(site)
            .filter(|handle| handle.rollout == *rollout)
            .map(|handle| handle.view.clone())
    }

    fn drivers(&self) -> MutexGuard<'_, BTreeMap<SiteId, Handle>> {
        // Each change is one insert or removal, so a panic elsewhere leaves nothing half done.
        self.0
            .drivers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
