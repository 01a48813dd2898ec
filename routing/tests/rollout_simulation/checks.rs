//! The invariants of ARCHITECTURE.md, each by its number and name, and what else must hold.

use helix_routing::api::PhaseName;
use helix_routing::id::{Epoch, Generation, RegionId};
use helix_routing::record::{ReleaseRef, SiteRecord};
use helix_routing::rollout::{Command, Fleet, Rollout};
use helix_routing::time::Timestamp;

use crate::edges::Gate;
use crate::names::number;
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    OneRelease,
    Prepared,
    Rising,
    Agreement,
    AlwaysLive,
    Ends,
    NothingLost,
    Ready,
    Bytes,
    Referenced,
    AfterReport,
    Gated,
    Staged,
    Baked,
    Returned,
    Asked,
    Drawn,
    Overridden,
    Drained,
    Pinned,
    Routed,
    Purged,
    Panicked,
}

impl Check {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OneRelease => "invariant 1: a request is served by exactly one release",
            Self::Prepared => {
                "invariant 2: an edge serves only what it prepared in this boot or verified"
            }
            Self::Rising => "invariant 3: an edge's generation never decreases",
            Self::Agreement => "invariant 4: a settled region serves one release on every edge",
            Self::AlwaysLive => "invariant 5: a site that had a live release always has one",
            Self::Ends => "invariant 6: every -ing state ends",
            Self::NothingLost => {
                "invariant 7: nothing committed is lost, repeated commands change nothing"
            }
            Self::Ready => {
                "invariant 8: an edge is ready only when it serves what its record names"
            }
            Self::Bytes => "invariant 9: a file of a release is its bytes",
            Self::Referenced => "invariant 10: nothing referenced is collected",
            Self::AfterReport => {
                "invariant 11: what starts after the report is served by the new release"
            }
            Self::Gated => "gates: nothing goes live that did not pass its gate",
            Self::Staged => "stages: none begins before its time, its approval and the one before",
            Self::Baked => {
                "bakes: nothing settles unwatched or sick, nothing is counted that was not answered"
            }
            Self::Returned => {
                "returns: once by itself, to what is no worse, and nobody is blamed who is well"
            }
            Self::Asked => {
                "operators: what is asked twice changes nothing, what is refused neither"
            }
            Self::Drawn => "phases: no transition that is not drawn",
            Self::Overridden => {
                "overrides: what was answered stands, what is taken over is what most edges serve"
            }
            Self::Drained => {
                "drains: who is taken out is not waited for, and somebody is left to serve"
            }
            Self::Pinned => "pins: every record carries them, and edges have what is pinned",
            Self::Routed => "hosts: an edge routes by the newest record of each",
            Self::Purged => "purges: what an edge said is forgotten nobody gets",
            Self::Panicked => "nothing panics",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) check: Check,
    pub(crate) at: u64,
    pub(crate) text: String,
}

/// The machine's deadlines, and what a busy origin and a slow database add to them.
const LONGEST_PROOF: u64 = 20_000 + 3_000;
const LONGEST_PREPARE: u64 = 20_000 + 2_000 + 3_000;
/// The longest window, late answers and the wait to be heard again.
const LONGEST_BAKE: u64 = 15_000 + 120_000 + 6_000;

/// How long a region may be in the phase; none where it waits for people or has come to an end.
const fn longest(phase: PhaseName) -> Option<u64> {
    match phase {
        PhaseName::Preparing => Some(LONGEST_PREPARE),
        PhaseName::Committing | PhaseName::Admitting | PhaseName::RollingBack => {
            Some(LONGEST_PROOF)
        }
        PhaseName::Baking | PhaseName::Canary => Some(LONGEST_BAKE),
        PhaseName::Pending
        | PhaseName::Prepared
        | PhaseName::Admitted
        | PhaseName::Stable
        | PhaseName::Undecided
        | PhaseName::RolledBack
        | PhaseName::RevertBlocked
        | PhaseName::Aborted
        | PhaseName::Superseded => None,
    }
}

impl World {
    /// The first failure is the one that counts.
    pub(crate) fn fail(&mut self, check: Check, text: String) {
        let at = self.now;
        self.failure.get_or_insert(Failure { check, at, text });
    }

    /// What a transaction is about to write, against what is there.
    pub(crate) fn check_write(&mut self, new: &SiteRecord) {
        let region = self.names.region(&new.region);
        let old = &self.sql.records[region].record;
        if new.generation != old.generation.next() || new.epoch < old.epoch {
            let (new, old) = ((new.epoch, new.generation), (old.epoch, old.generation));
            let text = format!("{region} is written from {old:?} to {new:?}");
            self.fail(Check::NothingLost, text);
        } else if new.live.is_none() && old.live.is_some() {
            self.fail(Check::AlwaysLive, format!("{new:?}"));
        }
    }

    /// A driver writes under its own term, which is the database's, or it would not get so far.
    pub(crate) fn check_terms(&mut self, commands: &[Command]) {
        let term = self.sql.term;
        for command in commands {
            if let Command::Write(record) = command
                && record.epoch != term
            {
                let text = format!("written in term {term}: {record:?}");
                self.fail(Check::NothingLost, text);
            }
        }
    }

    /// After a step of the one that leads, before it is saved.
    pub(crate) fn check_step(&mut self, origin: usize, commands: &[Command]) {
        if let Some((before, machine)) = self.swap_phases(origin) {
            self.check_transitions(&before, &machine);
            if self.leader() == Some(origin) {
                self.note_phases(&machine);
            }
        }
        if self.leader() != Some(origin) || !self.is_current(origin) {
            return;
        }
        self.check_deadlines(origin);
        for command in commands {
            if let Command::Write(new) = command {
                self.check_prepared(origin, new);
            }
        }
    }

    /// What the driver has in its memory follows from what is saved.
    fn is_current(&self, origin: usize) -> bool {
        let place = |saved: &crate::sql::Saved| (saved.number, saved.revision);
        let driver = self.origins[origin].driver.as_ref();
        driver.map(|driver| place(&driver.saved)) == self.sql.running.as_ref().map(place)
    }

    /// Visitors get a release only where every edge that has to have it has prepared it and passed its gate.
    fn check_prepared(&mut self, origin: usize, new: &SiteRecord) {
        let region = self.names.region(&new.region);
        let old = &self.sql.records[region].record;
        let commits = new.live != old.live && old.candidate == new.live;
        let admits = new.weight > old.weight;
        let shown = if admits { &new.candidate } else { &new.live };
        let (true, Some(shown)) = (commits || admits, shown) else {
            return;
        };
        let release = number(&shown.release);
        if self.stream.terms[region].by_operator {
            // The stream refuses it, and whoever leads next knows better.
            return;
        }
        for edge in 0..self.edges.len() {
            if self.edges[edge].region != region || !self.counts_on(origin, edge) {
                continue;
            }
            let this = &self.edges[edge];
            let id = &self.names.edges[edge];
            if let (Some(candidate), Gate::Failed(_)) = (this.candidate(), this.memory.gate)
                && candidate == release
            {
                return self.fail(
                    Check::Gated,
                    format!("{release} goes live past the gate of {id}"),
                );
            }
            if !this.is_prepared(release) {
                let text = format!("{release} goes live before {id} has prepared it");
                return self.fail(Check::Prepared, text);
            }
        }
    }

    /// Edges that were there all the time, and those that the machine says it has heard of, as far as origin can know.
    fn counts_on(&self, origin: usize, edge: usize) -> bool {
        let this = &self.edges[edge];
        let is_known = self.origins[origin].roster.boot(edge) == Some(this.boot);
        let machine = self.origins[origin]
            .driver
            .as_ref()
            .map(|driver| &driver.saved.machine);
        let views = machine.map(Rollout::regions).unwrap_or_default();
        let is_required = views.iter().any(|view| {
            view.region == self.names.regions[this.region]
                && view.required.contains(&self.names.edges[edge])
        });
        this.is_up && (self.notes.is_steady(edge) || (is_known && is_required))
    }

    /// A region is proven, or back: every edge that was there all the time serves one release.
    pub(crate) fn check_settled(
        &mut self,
        region: usize,
        release: &ReleaseRef,
        generation: Generation,
    ) {
        let release = number(&release.release);
        for edge in 0..self.edges.len() {
            let this = &self.edges[edge];
            if this.region != region || !self.notes.is_steady(edge) {
                continue;
            }
            let local = this.memory.glass.local.as_ref();
            let record = this.memory.record.as_ref();
            let is_signed = record.is_some_and(|record| record.by_operator);
            let is_overridden = is_signed
                || local
                    .zip(record)
                    .is_some_and(|(local, record)| local.stands(&record.record));
            let serves = this.memory.live == Some(release) || is_overridden;
            if this.serving() < generation || !serves {
                let text = format!(
                    "{} serves {:?} at {}, and {release} settled at {generation}, {:?}",
                    self.names.edges[edge],
                    this.memory.live,
                    this.serving(),
                    this.memory.glass.local
                );
                return self.fail(Check::Agreement, text);
            }
        }
    }

    fn note_phases(&mut self, machine: &Rollout) {
        for (id, phase) in machine.phases() {
            let region = self.names.region(id);
            let entered = self
                .notes
                .entered
                .entry(region)
                .or_insert((phase, self.now));
            if entered.0 != phase {
                *entered = (phase, self.now);
                self.at_phase(phase);
                let views = machine.regions();
                if let Some(view) = views.iter().find(|view| view.region == *id) {
                    self.check_waited(view);
                }
            }
        }
        for view in machine.regions() {
            let region = self.names.region(&view.region);
            let live = machine
                .record(&view.region)
                .and_then(|record| record.live.clone());
            if view.phase == PhaseName::RolledBack
                && let Some(live) = live
            {
                self.check_settled(region, &live, view.generation);
            }
        }
    }

    fn check_deadlines(&mut self, origin: usize) {
        let Some(driver) = &self.origins[origin].driver else {
            return;
        };
        let is_late = |(id, phase): &(&RegionId, PhaseName)| {
            let entered = self.notes.entered.get(&self.names.region(id));
            let entered = entered.filter(|(in_phase, _)| in_phase == phase);
            let since = entered.map_or(self.now, |(_, since)| (*since).max(self.notes.calm_since));
            longest(*phase).is_some_and(|longest| self.now > since + longest + self.notes.slack)
        };
        let late = driver.saved.machine.phases().find(is_late);
        if let Some(text) = late.map(|(id, phase)| format!("{id} is still {phase:?}")) {
            self.fail(Check::Ends, text);
        }
    }

    /// A machine that resumes once more, at the same moment, writes nothing more.
    pub(crate) fn check_repeated(&mut self, machine: &Rollout, at: (Epoch, Timestamp, &Fleet)) {
        let mut again = machine.clone();
        let commands = again.resume(at.0, at.1, at.2);
        if again != *machine || commands.iter().any(Command::is_durable) {
            self.fail(Check::NothingLost, format!("resumed twice: {commands:?}"));
        }
    }
}
