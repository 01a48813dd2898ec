//! How an edge prepares: it fetches, writes, and runs the candidate's gate, one thing at a time.

use crate::agenda::Due;
use crate::edges::{Gate, live, live_of};
use crate::world::World;

impl World {
    /// One thing at a time: what is live first, then the candidate, then its gate.
    pub(crate) fn work(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let (Some(record), None, boot) = (&this.memory.record, this.memory.fetching, this.boot)
        else {
            return;
        };
        let candidate = this.candidate();
        let is_absent = |release: &u8| !this.memory.held.contains(release);
        let is_ahead = this.memory.gate == Gate::Ahead;
        let missing = live(record).filter(is_absent);
        let missing = missing.or_else(|| candidate.filter(is_absent).filter(|_| is_ahead));
        if let Some(release) = missing {
            this.memory.fetching = Some(release);
            let millis = match self.dice.roll(12) {
                0 => self.dice.between(5_000, 26_000),
                _ => self.dice.between(30, 1_500),
            };
            self.due(
                millis,
                Due::Fetched {
                    edge,
                    boot,
                    release,
                },
            );
        } else if candidate.is_some() && is_ahead {
            this.memory.gate = Gate::Running;
            let naming = this.memory.naming;
            let millis = self.dice.between(20, 1_200);
            self.due(millis, Due::Gated { edge, boot, naming });
        }
    }

    pub(crate) fn fetched(&mut self, edge: usize, release: u8) {
        let this = &mut self.edges[edge];
        let is_wanted = live_of(this) == Some(release) || this.candidate() == Some(release);
        let boot = this.boot;
        if !is_wanted {
            this.memory.fetching = None;
            return self.work(edge);
        }
        let is_full = this.full_until > self.now;
        if this.cut_until > self.now || (is_full && live_of(this) == Some(release)) {
            return self.due(
                1_000,
                Due::Fetched {
                    edge,
                    boot,
                    release,
                },
            );
        }
        if !self.check_stored(edge, release) {
            return self.due(
                1_000,
                Due::Fetched {
                    edge,
                    boot,
                    release,
                },
            );
        }
        let this = &mut self.edges[edge];
        if is_full {
            this.memory.fetching = None;
            this.memory.gate = Gate::Failed("no space");
            return self.report(edge);
        }
        this.artifacts.insert(release, false);
        let millis = self.dice.between(1, 80);
        self.due(
            millis,
            Due::ArtifactSynced {
                edge,
                boot,
                release,
            },
        );
        self.at_write(edge);
    }

    pub(crate) fn artifact_synced(&mut self, edge: usize, release: u8) {
        let this = &mut self.edges[edge];
        this.memory.fetching = None;
        this.artifacts.insert(release, true);
        this.memory.held.insert(release);
        this.evict();
        self.reconcile(edge);
        self.work(edge);
        self.report(edge);
    }

    pub(crate) fn gated(&mut self, edge: usize, naming: u32) {
        let this = &mut self.edges[edge];
        if this.memory.naming == naming && this.memory.gate == Gate::Running {
            let fails = self.dice.one_in(25);
            this.memory.gate = if fails {
                Gate::Failed("its gate failed")
            } else {
                Gate::Passed
            };
            self.report(edge);
        }
    }
}
