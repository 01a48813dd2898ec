//! One edge, without bytes: what is on its disk survives a restart, what it prepared in a boot does not.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use helix_routing::id::{Generation, RegionId, ReleaseId};
use helix_routing::record::{Order, SiteRecord, order};
use helix_routing::report::{CandidateReport, CandidateState, SiteReport};

use crate::protocol::hash_record;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Edge {
    pub(crate) region: RegionId,
    pub(crate) boot: u8,
    pub(crate) disk: SiteRecord,
    /// In this boot, and whether its gate was passed.
    pub(crate) prepared: BTreeSet<ReleaseId>,
    pub(crate) refused: BTreeSet<ReleaseId>,
    pub(crate) serving: Generation,
    pub(crate) live: ReleaseId,
    /// The highest it ever served under.
    pub(crate) highest: Generation,
}

impl Hash for Edge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_record(&self.disk, state);
        (self.boot, &self.prepared, &self.refused).hash(state);
        (self.serving, &self.live, self.highest).hash(state);
    }
}

/// What an edge does with a record.
pub(crate) enum Received {
    Taken,
    Ignored,
    Conflict,
}

impl Edge {
    pub(crate) fn new(record: &SiteRecord) -> Self {
        let live = record.live.as_ref().unwrap().release.clone();
        Self {
            region: record.region.clone(),
            boot: 1,
            disk: record.clone(),
            prepared: BTreeSet::from([live.clone()]),
            refused: BTreeSet::new(),
            serving: record.generation,
            live,
            highest: record.generation,
        }
    }

    /// Without the compare whatever comes is taken.
    pub(crate) fn receive(&mut self, new: &SiteRecord, compares: bool) -> Received {
        let (held_body, body) = (format!("{:?}", self.disk), format!("{new:?}"));
        let held = (self.disk.epoch, self.disk.generation, held_body.as_bytes());
        match order(Some(held), (new.epoch, new.generation, body.as_bytes())) {
            Order::Conflict => return Received::Conflict,
            Order::Same => return Received::Ignored,
            Order::Older if compares => return Received::Ignored,
            Order::Older | Order::Newer => {}
        }
        self.disk = new.clone();
        self.reconcile();
        Received::Taken
    }

    /// The candidate it has yet to fetch, or to run the gate of.
    pub(crate) fn wanted(&self) -> Option<&ReleaseId> {
        let candidate = &self.disk.candidate.as_ref()?.release;
        let is_done = self.prepared.contains(candidate) || self.refused.contains(candidate);
        (!is_done).then_some(candidate)
    }

    pub(crate) fn prepare(&mut self, release: ReleaseId) {
        self.prepared.insert(release);
        self.reconcile();
    }

    fn reconcile(&mut self) {
        let live = &self.disk.live.as_ref().unwrap().release;
        if self.prepared.contains(live) {
            self.serving = self.disk.generation;
            self.live = live.clone();
            self.highest = self.highest.max(self.serving);
        }
    }

    /// What is live is verified from disk; everything else is prepared anew.
    pub(crate) fn restart(&mut self) {
        self.boot += 1;
        self.prepared = BTreeSet::from([self.live.clone()]);
        self.refused.clear();
    }

    pub(crate) fn report(&self) -> SiteReport {
        let candidate = self
            .disk
            .candidate
            .as_ref()
            .map(|candidate| CandidateReport {
                release: candidate.release.clone(),
                state: if self.prepared.contains(&candidate.release) {
                    CandidateState::Prepared
                } else if self.refused.contains(&candidate.release) {
                    CandidateState::Failed("its gate failed".to_owned())
                } else {
                    CandidateState::Preparing
                },
            });
        SiteReport {
            edge: format!("{}-1", self.region).parse().unwrap(),
            region: self.region.clone(),
            boot: format!("{:016x}", self.boot).parse().unwrap(),
            site: self.disk.site.clone(),
            generation: self.disk.generation,
            serving: self.serving,
            live: Some(self.live.clone()),
            candidate,
        }
    }
}
