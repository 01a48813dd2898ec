//! How an edge takes a record: it is written, it is safe, it counts.

use std::rc::Rc;
use std::time::Duration;

use helix_routing::record::{Order, order};

use crate::agenda::OnEdge;
use crate::checks::Check;
use crate::edges::{Gate, Served};
use crate::publisher::Published;
use crate::scenario::Safeguard;
use crate::world::World;

/// An edge looks at the stream's head so often, and fetches what it has missed.
const REPAIR: u64 = 2_000;
/// How long counts are told after a record that asks for them.
const TOLD: u64 = 15_000;
/// An edge believes that a bake is over when it should have been for so long, by its own clock.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

impl World {
    /// What the feed did not bring is fetched.
    pub(crate) fn repair(&mut self, edge: usize) {
        self.due_on_edge(REPAIR, edge, OnEdge::Repair);
        let this = &self.edges[edge];
        if this.cut_until.max(this.deaf_until) <= self.now {
            self.repair_sides(edge);
        }
        let this = &self.edges[edge];
        let Some(newest) = self.stream.newest[this.region].clone() else {
            return;
        };
        let held = this.records.newest().map(|held| held.record.generation);
        let is_reached = this.cut_until.max(this.deaf_until) <= self.now;
        if is_reached && held < Some(newest.record.generation) {
            self.receive(edge, &newest);
        }
    }

    /// A record comes: lower than what is held is refused, equal and the same is told again, equal and other is an alarm.
    pub(crate) fn receive(&mut self, edge: usize, new: &Rc<Published>) {
        let this = &self.edges[edge];
        if !this.is_up {
            return;
        }
        let held = this.records.newest().map(|held| {
            (
                held.record.epoch,
                held.record.generation,
                held.body.as_slice(),
            )
        });
        let order = order(held, (new.record.epoch, new.record.generation, &new.body));
        if !self.believes(edge, new, order == Order::Newer) {
            return;
        }
        match order {
            Order::Newer => self.write_record(edge, new),
            Order::Older if self.without == Some(Safeguard::GenerationCompare) => {
                self.write_record(edge, new)
            }
            Order::Older => self.counts.count("an edge refused an older record"),
            Order::Same => self.received_again(edge, new),
            Order::Conflict => {
                let text = format!("two records of one generation, the second {:?}", new.record);
                self.fail(Check::NothingLost, text);
            }
        }
    }

    fn write_record(&mut self, edge: usize, new: &Rc<Published>) {
        let this = &mut self.edges[edge];
        if !new.by_operator {
            this.led_in = this.led_in.max(new.sealed);
        }
        this.records.write(Rc::clone(new));
        let millis = if self.dice.one_in(8) {
            600
        } else {
            self.dice.between(1, 20)
        };
        self.due_on_edge(millis, edge, OnEdge::RecordSynced);
        if self.without == Some(Safeguard::SyncBeforeReport) {
            self.take_record(edge, Rc::clone(new));
        }
        self.at_write(edge);
    }

    /// It is safe: from now on it counts.
    pub(crate) fn record_synced(&mut self, edge: usize) {
        let record = self.edges[edge].records.sync().map(Rc::clone);
        if let Some(record) = record
            && self.without != Some(Safeguard::SyncBeforeReport)
        {
            self.take_record(edge, record);
        }
    }

    fn take_record(&mut self, edge: usize, record: Rc<Published>) {
        let this = &mut self.edges[edge];
        let before = this.candidate();
        this.memory.record = Some(Rc::clone(&record));
        self.overrule(edge, &record.record);
        let this = &mut self.edges[edge];
        if this.candidate() != before {
            this.memory.naming += 1;
            this.memory.gate = Gate::Ahead;
        }
        self.give_up_fetch(edge);
        self.edges[edge].evict();
        self.reconcile(edge);
        self.heed_bake(edge);
        self.work(edge);
        self.report(edge);
    }

    fn received_again(&mut self, edge: usize, new: &Rc<Published>) {
        let this = &mut self.edges[edge];
        let is_taken = |taken: &Rc<Published>| taken.record.generation == new.record.generation;
        if !this.memory.record.as_ref().is_some_and(is_taken) {
            return;
        }
        if this.memory.gate == Gate::Failed("no space") && this.full_until <= self.now {
            this.memory.gate = Gate::Ahead;
        }
        self.heed_bake(edge);
        self.work(edge);
        self.report(edge);
    }

    /// Counts are told for a while after a record that asks for them.
    fn heed_bake(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let Some(record) = &this.memory.record else {
            return;
        };
        let now = this.clock.read(self.now);
        let bakes = record
            .record
            .bake_until
            .is_some_and(|until| now < until + LONGEST_DELAY);
        let is_asked = bakes || record.record.weight.is_some();
        this.memory.told_until = if is_asked { self.now + TOLD } else { 0 };
    }

    /// What its record names as live, or an override does, is served as soon as it is there.
    pub(crate) fn reconcile(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let Some(record) = this.memory.record.clone() else {
            return;
        };
        let wanted = this.wanted(&record.record);
        if wanted.is_none_or(|wanted| this.memory.held.contains(&wanted)) {
            this.memory.live = wanted;
            this.memory.served = Served {
                generation: record.record.generation,
                live_since: record.record.live_since,
            };
            self.count_anew(edge);
        }
        self.count_canary(edge);
        self.check_serving(edge);
    }
}
