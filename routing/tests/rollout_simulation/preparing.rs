//! How an edge prepares: it fetches, writes, and runs the candidate's gate, one thing at a time.

use crate::agenda::OnEdge;
use crate::edges::{Gate, live, live_of};
use crate::world::World;

/// Wait before a fetch that failed is tried again.
const FETCH_PAUSE: u64 = 1_000;
/// One gate in so many fails.
const GATE_FAILS: u64 = 25;

impl World {
    /// What is live first, then the candidate, then its gate.
    pub(crate) fn work(&mut self, edge: usize) {
        self.fetch_pins(edge);
        let this = &mut self.edges[edge];
        let (Some(record), None) = (&this.memory.record, this.memory.fetching) else {
            return;
        };
        let candidate = this.candidate();
        let is_absent = |release: &u8| !this.memory.held.contains(release);
        let is_ahead = this.memory.gate == Gate::Ahead;
        let missing = this.overriding().filter(is_absent);
        let missing = missing.or_else(|| live(record).filter(is_absent));
        let missing = missing.or_else(|| candidate.filter(is_absent).filter(|_| is_ahead));
        if let Some(release) = missing {
            this.memory.fetching = Some(release);
            let millis = self.fetch_time();
            self.due_on_edge(millis, edge, OnEdge::Fetched { release });
        } else if candidate.is_some() && is_ahead {
            this.memory.gate = Gate::Running;
            let naming = this.memory.naming;
            let millis = self.dice.between(20, 1_200);
            self.due_on_edge(millis, edge, OnEdge::Gated { naming });
        }
    }

    /// Some are slow, and some come long after every deadline.
    const fn fetch_time(&mut self) -> u64 {
        match self.dice.roll(60) {
            0 if !self.is_healed => self.dice.between(60_000, 120_000),
            1..5 => self.dice.between(5_000, 26_000),
            _ => self.dice.between(30, 1_500),
        }
    }

    /// Nothing is slow any more.
    pub(crate) fn hurry(&mut self, edge: usize) {
        if let Some(release) = self.edges[edge].memory.fetching {
            self.due_on_edge(FETCH_PAUSE, edge, OnEdge::Fetched { release });
        }
    }

    /// What its record no longer names is not fetched to the end.
    pub(crate) fn give_up_fetch(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let (live, candidate) = (live_of(this), this.candidate());
        let wanted = [live, candidate, this.overriding()];
        let is_wanted = |release: &u8| wanted.contains(&Some(*release));
        this.memory.fetching = this.memory.fetching.filter(is_wanted);
    }

    pub(crate) fn fetched(&mut self, edge: usize, release: u8) {
        let this = &self.edges[edge];
        if this.memory.fetching != Some(release) {
            return;
        }
        let is_full = this.full_until > self.now;
        let is_override = this.overriding() == Some(release);
        let must_have = is_override || live_of(this) == Some(release);
        let is_away = this.cut_until > self.now || !self.check_stored(edge, release);
        if is_away || (is_full && must_have) {
            self.due_on_edge(FETCH_PAUSE, edge, OnEdge::Fetched { release });
            if is_override {
                // Nobody is shown nothing for it.
                self.edges[edge].memory.glass.is_lost = true;
                self.reconcile(edge);
            }
        } else if is_full {
            let memory = &mut self.edges[edge].memory;
            memory.fetching = None;
            memory.gate = Gate::Failed("no space");
            self.report(edge);
        } else {
            let this = &mut self.edges[edge];
            this.artifacts.insert(release, false);
            let millis = self.dice.between(1, 80);
            self.due_on_edge(millis, edge, OnEdge::ArtifactSynced { release });
            self.at_write(edge);
        }
    }

    pub(crate) fn artifact_synced(&mut self, edge: usize, release: u8) {
        let this = &mut self.edges[edge];
        if this.memory.fetching != Some(release) || !this.artifacts.contains_key(&release) {
            return;
        }
        this.memory.fetching = None;
        this.artifacts.insert(release, true);
        this.memory.held.insert(release);
        this.memory.glass.is_lost &= this.overriding() != Some(release);
        this.evict();
        self.reconcile(edge);
        self.work(edge);
        self.report(edge);
    }

    pub(crate) fn gated(&mut self, edge: usize, naming: u32) {
        let this = &mut self.edges[edge];
        if this.memory.naming == naming && this.memory.gate == Gate::Running {
            let fails = self.dice.one_in(GATE_FAILS);
            this.memory.gate = if fails {
                Gate::Failed("its gate failed")
            } else {
                Gate::Passed
            };
            self.report(edge);
        }
    }
}
