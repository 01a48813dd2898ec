//! Overrides of one edge: asked for at its local socket or made by its guard, on disk before they count, told with each heartbeat.

use helix_routing::glass::{
    Cause, Held, LocalOverride, LocalReport, NewOverride, Overrides, decide,
};
use helix_routing::record::{ReleaseRef, SiteRecord};

use crate::agenda::{Due, OnEdge};
use crate::edges::Edge;
use crate::names::number;
use crate::network::Message;
use crate::roster::boot_id;
use crate::scenario::Safeguard;
use crate::world::World;

/// Between one edge of a region and the next, for whoever goes round.
const STEP: u64 = 400;
/// For how long a person means it: what is served outlives it.
const MEANT_SECONDS: u64 = 30;

/// What an edge knows of its overrides in this boot.
#[derive(Default)]
pub(crate) struct Glass {
    /// What the file says, or said before a later cutover.
    pub(crate) held: Overrides,
    pub(crate) is_writing: bool,
    /// The one that stands.
    pub(crate) local: Option<LocalOverride>,
    /// Its release was lost and cannot be fetched.
    pub(crate) is_lost: bool,
}

impl Glass {
    /// Read from disk. Whether it still stands the record says.
    pub(crate) fn restored(held: Overrides) -> Self {
        Self {
            local: held.standing.first().cloned(),
            held,
            ..Self::default()
        }
    }

    pub(crate) fn with(&self, next: Option<&LocalOverride>) -> Overrides {
        Overrides {
            standing: next.cloned().into_iter().collect(),
            guarded: self.held.guarded.clone(),
        }
    }
}

impl Edge {
    /// What requests are to get: the release of an override, else what the record names.
    pub(crate) fn wanted(&self, record: &SiteRecord) -> Option<u8> {
        let glass = &self.memory.glass;
        let local = glass.local.as_ref().filter(|_| !glass.is_lost);
        let wanted = local.map(|local| &local.release).or(record.live.as_ref());
        wanted.map(|wanted| number(&wanted.release))
    }

    fn note_override_over(&mut self, now: u64) {
        if let Some(local) = &self.memory.glass.local {
            let made = (number(&local.release.release), local.base);
            self.made.insert(made, now);
        }
    }

    /// The release of the override that stands.
    pub(crate) fn overriding(&self) -> Option<u8> {
        let local = self.memory.glass.local.as_ref();
        local.map(|local| number(&local.release.release))
    }
}

impl World {
    /// Somebody goes from edge to edge of a region.
    pub(crate) fn go_round(&mut self, region: usize) {
        let here = (0..self.edges.len()).filter(|edge| self.edges[*edge].region == region);
        for (place, edge) in (0..).zip(here.collect::<Vec<_>>()) {
            self.due(place * STEP, Due::Break(edge));
        }
    }

    /// Somebody asks the edge for the release before.
    pub(crate) fn break_glass(&mut self, edge: usize) {
        let wish = NewOverride {
            site: self.names.site.clone(),
            release: None,
            reason: "sick".to_owned(),
            by: "ada".to_owned(),
            ttl_seconds: MEANT_SECONDS,
        };
        if !self.edges[edge].is_up || self.edges[edge].memory.glass.is_writing {
            return;
        }
        match self.decide_on(edge, &wish, Cause::Operator) {
            Some(next) => {
                let held = self.edges[edge].memory.glass.with(Some(&next));
                self.keep(edge, Some(next), held);
            }
            None => self.counts.count("an edge refused an override"),
        }
    }

    /// The record is to count again.
    pub(crate) fn end_override(&mut self, edge: usize) {
        let this = &self.edges[edge];
        let glass = &this.memory.glass;
        if this.is_up && !glass.is_writing && glass.local.is_some() {
            let held = glass.with(None);
            self.counts.count("somebody ended an override");
            self.keep(edge, None, held);
        }
    }

    pub(crate) fn decide_on(
        &self,
        edge: usize,
        wish: &NewOverride,
        cause: Cause,
    ) -> Option<LocalOverride> {
        let this = &self.edges[edge];
        let named = |release: &u8| self.names.releases[usize::from(*release)].clone();
        let ready: Vec<ReleaseRef> = this.memory.held.iter().map(named).collect();
        let served = this.memory.live.as_ref().map(named);
        let record = this.memory.record.as_ref();
        let held = record.map(|record| Held {
            record: &record.record,
            ready: &ready,
            served: served.as_ref(),
        });
        decide(held, wish, cause, this.clock.read(self.now)).ok()
    }

    /// Writes what is to hold. It counts once it is on disk.
    pub(crate) fn keep(&mut self, edge: usize, next: Option<LocalOverride>, held: Overrides) {
        let this = &mut self.edges[edge];
        this.memory.glass.is_writing = true;
        this.overrides.write(held);
        // Until that is on disk either may be found there.
        this.answered = None;
        let next = next.map(Box::new);
        if self.without == Some(Safeguard::OverrideOnDisk) {
            self.holds_now(edge, next.clone());
        }
        let millis = self.dice.between(1, 400);
        self.due_on_edge(millis, edge, OnEdge::Kept { next });
        self.at_write(edge);
    }

    pub(crate) fn kept(&mut self, edge: usize, next: Option<Box<LocalOverride>>) {
        let this = &mut self.edges[edge];
        this.memory.glass.is_writing = false;
        this.memory.glass.held = this.overrides.sync().cloned().unwrap_or_default();
        self.holds_now(edge, next);
    }

    fn holds_now(&mut self, edge: usize, next: Option<Box<LocalOverride>>) {
        let this = &mut self.edges[edge];
        this.note_override_over(self.now);
        let glass = &mut this.memory.glass;
        glass.local = next.map(|next| *next);
        glass.is_lost = false;
        this.answered.clone_from(&glass.local);
        if let Some(local) = &glass.local {
            let made = (number(&local.release.release), local.base);
            this.made.insert(made, u64::MAX);
        }
        self.tell_override(edge);
        if let Some(record) = self.edges[edge].memory.record.clone() {
            // A cutover may have come while it was written.
            self.overrule(edge, &record.record);
        }
        self.reconcile(edge);
        self.work(edge);
        self.report(edge);
    }

    /// A later cutover replaces an override. The file may say so later: a restart comes to the same.
    pub(crate) fn overrule(&mut self, edge: usize, record: &SiteRecord) {
        let this = &mut self.edges[edge];
        let is_over = this.memory.glass.local.as_ref();
        let is_over = is_over.is_some_and(|local| !local.stands(record));
        if is_over && self.without != Some(Safeguard::OverrideStands) {
            this.note_override_over(self.now);
            this.memory.glass.local = None;
            this.memory.glass.held.standing.clear();
            this.answered = None;
            self.counts.count("a later cutover replaced an override");
            self.tell_override(edge);
        }
    }

    /// What stands is said when it changes and with each heartbeat.
    pub(crate) fn tell_override(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let (boot, sent) = (this.boot, this.next_sent());
        let report = LocalReport {
            edge: self.names.edges[edge].clone(),
            region: self.names.regions[this.region].clone(),
            boot: boot_id(boot),
            site: self.names.site.clone(),
            standing: this.memory.glass.local.clone(),
        };
        let report = Box::new(report);
        self.send(Message::Local {
            edge,
            boot,
            sent,
            report,
        });
    }
}
