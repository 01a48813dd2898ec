//! A model edge.

use std::collections::BTreeSet;

use helix_routing::bake::Window;
use helix_routing::id::{BootId, EdgeId, Generation, RegionId, ReleaseId, SiteId};
use helix_routing::record::{self, SiteRecord};
use helix_routing::report::{Baseline, CandidateReport, CandidateState, SiteReport, WindowReport};

/// An edge as ARCHITECTURE.md describes it, without bytes: what is on disk survives a restart, what was
/// prepared in this boot does not.
pub(crate) struct Edge {
    pub(crate) id: EdgeId,
    pub(crate) region: RegionId,
    pub(crate) boot: u64,
    pub(crate) up: bool,
    pub(crate) leased: bool,
    pub(crate) disk: Option<SiteRecord>,
    pub(crate) prepared: BTreeSet<ReleaseId>,
    pub(crate) failing: bool,
    pub(crate) serving: Generation,
    pub(crate) live: Option<ReleaseId>,
    pub(crate) highest: Generation,
    /// What it counted of what it serves, since when, and what was before.
    pub(crate) counted: Option<(ReleaseId, Generation, Window)>,
    pub(crate) before: Option<Baseline>,
    /// The same of the candidate, while some of the visitors get it.
    pub(crate) canary: Option<(ReleaseId, Generation, Window)>,
    /// How many percent of the visitors those are.
    pub(crate) admitted: Option<u8>,
}

impl Edge {
    pub(crate) fn boot_id(&self) -> BootId {
        format!("{:016x}", self.boot).parse().unwrap()
    }

    pub(crate) fn receive(&mut self, site: &SiteId, new: &SiteRecord) -> Option<SiteReport> {
        let held = self
            .disk
            .as_ref()
            .map(|held| (held.epoch, held.generation, format!("{held:?}")));
        let body = format!("{new:?}");
        let held = held
            .as_ref()
            .map(|(epoch, generation, body)| (*epoch, *generation, body.as_bytes()));
        match record::order(held, (new.epoch, new.generation, body.as_bytes())) {
            record::Order::Newer => {
                self.disk = Some(new.clone());
                self.reconcile();
            }
            record::Order::Same => {}
            record::Order::Older => return None,
            record::Order::Conflict => panic!("two records of one generation: {new:?}"),
        }
        Some(self.report(site))
    }

    /// One fetch ends: of what is live first, then of the candidate.
    pub(crate) fn fetch_one(&mut self) {
        let Some(disk) = &self.disk else { return };
        let wanted = disk
            .live
            .iter()
            .chain(&disk.candidate)
            .find(|wanted| !self.prepared.contains(&wanted.release));
        if let Some(wanted) = wanted
            && !self.failing
        {
            self.prepared.insert(wanted.release.clone());
        }
        self.reconcile();
    }

    pub(crate) fn reconcile(&mut self) {
        let Some(disk) = &self.disk else { return };
        let live = disk.live.as_ref().map(|live| live.release.clone());
        if live
            .as_ref()
            .is_none_or(|live| self.prepared.contains(live))
        {
            self.serving = disk.generation;
            self.live = live;
            assert!(
                self.serving >= self.highest,
                "{}: generation went from {} to {}",
                self.id,
                self.highest,
                self.serving
            );
            self.highest = self.serving;
            self.count_anew();
        }
        self.count_canary();
    }

    /// A swap begins new counts, and keeps what the release before showed.
    pub(crate) fn count_anew(&mut self) {
        let since = self.disk.as_ref().unwrap().live_since;
        let before = self.counted.take();
        let Some(live) = &self.live else { return };
        if let Some((release, begun, window)) = before {
            if release == *live && begun == since {
                self.counted = Some((release, begun, window));
                return;
            }
            if release != *live {
                self.before = Some(Baseline { release, window });
            }
        }
        self.counted = Some((live.clone(), since, Window::default()));
    }

    /// Counts of a candidate begin with its weight, and again with another one.
    fn count_canary(&mut self) {
        let Some(disk) = &self.disk else { return };
        let candidate = disk.candidate.as_ref().map(|wanted| &wanted.release);
        let admitted = candidate
            .zip(disk.weight)
            .filter(|(candidate, _)| self.live.is_some() && self.prepared.contains(*candidate));
        let held = self.canary.as_ref().map(|(release, _, _)| release);
        let held = held.zip(self.admitted);
        if held != admitted {
            self.canary =
                admitted.map(|(release, _)| (release.clone(), disk.generation, Window::default()));
            self.admitted = admitted.map(|(_, weight)| weight);
        }
    }

    pub(crate) fn window_reports(&self, site: &SiteId) -> Vec<WindowReport> {
        let is_asked = self
            .disk
            .as_ref()
            .is_some_and(|disk| disk.bake_until.is_some());
        let beside = self.counted.as_ref().map(|(release, _, window)| Baseline {
            release: release.clone(),
            window: window.clone(),
        });
        let counted = self
            .counted
            .iter()
            .map(|counted| (counted, self.before.clone()));
        let canary = self.canary.iter().map(|counted| (counted, beside.clone()));
        let reports = counted.chain(canary).filter(|_| is_asked);
        let report = |((release, live_since, window), baseline): (&(_, _, _), _)| WindowReport {
            edge: self.id.clone(),
            region: self.region.clone(),
            boot: self.boot_id(),
            site: site.clone(),
            release: ReleaseId::clone(release),
            live_since: *live_since,
            window: Window::clone(window),
            baseline,
        };
        reports.map(report).collect()
    }

    pub(crate) fn restart(&mut self, next_boot: u64) {
        self.boot = next_boot;
        self.up = true;
        self.prepared.clear();
        self.before = None;
        if let Some((_, _, window)) = &mut self.counted {
            *window = Window::default();
        }
        self.canary = None;
        // Verified from disk: what is live there was fetched in an earlier boot.
        if let Some(live) = &self.live {
            self.prepared.insert(live.clone());
        }
    }

    pub(crate) fn report(&self, site: &SiteId) -> SiteReport {
        let disk = self.disk.as_ref().unwrap();
        let candidate = disk.candidate.as_ref().map(|candidate| CandidateReport {
            release: candidate.release.clone(),
            state: if self.prepared.contains(&candidate.release) {
                CandidateState::Prepared
            } else if self.failing {
                CandidateState::Failed("no space left on device".to_owned())
            } else {
                CandidateState::Preparing
            },
        });
        SiteReport {
            edge: self.id.clone(),
            region: self.region.clone(),
            boot: self.boot_id(),
            site: site.clone(),
            generation: disk.generation,
            serving: self.serving,
            live: self.live.clone(),
            candidate,
        }
    }
}
