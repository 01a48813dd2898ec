//! Overrides of a whole region: an operator's key signs a record past origin, in a term above every one that was there, and
//! whoever leads next takes it over before it writes there.

use helix_routing::glass::signed;
use helix_routing::id::{Epoch, ReleaseId};
use helix_routing::record::Override;

use crate::agenda::{Due, InOrigin};
use crate::checks::Check;
use crate::clocks::Clock;
use crate::edges::Edge;
use crate::names::number;
use crate::publisher::{Published, Term};
use crate::scenario::Safeguard;
use crate::world::World;

/// For how long it is meant, and accepted by edges that hear of it late.
const MEANT: u64 = 40_000;

impl World {
    /// The term comes first: from then on the stream refuses an origin that is not as dead as it seemed.
    pub(crate) fn raise_term(&mut self, region: usize) {
        let term = self.stream.terms[region].epoch;
        let Some(newest) = &self.stream.newest[region] else {
            return;
        };
        let epoch = Epoch(term.0.max(newest.record.epoch.0) + 1);
        if signed::overridden(&newest.record, None, self.terms(), epoch).is_err() {
            return self
                .counts
                .count("there was nothing to sign an override to");
        }
        if self.without != Some(Safeguard::OperatorTerm) {
            self.stream.terms[region] = Term {
                epoch,
                by_operator: true,
            };
        }
        let millis = self.dice.between(2, 400);
        self.due(millis, Due::Signed { region, epoch });
    }

    fn terms(&self) -> Override {
        let now = Clock::default().read(self.now);
        Override {
            reason: "sick".to_owned(),
            by: "ada".to_owned(),
            since: now,
            until: now + std::time::Duration::from_millis(MEANT),
        }
    }

    /// The record as it is then, but for what is live. The write is conditional on the operator's own term.
    pub(crate) fn sign(&mut self, region: usize, epoch: Epoch) {
        let term = self.stream.terms[region];
        let is_own = term.by_operator && term.epoch == epoch;
        let Some(newest) = self.stream.newest[region].clone() else {
            return;
        };
        if !is_own && self.without != Some(Safeguard::OperatorTerm) {
            return self.counts.count("the stream refused an operator");
        }
        if let Ok(record) = signed::overridden(&newest.record, None, self.terms(), epoch) {
            self.counts.count("an operator signed an override");
            self.append(Published::signed(record));
        }
    }

    /// Makes the stream of a region ready for writing: a later term ends this origin, and what an operator wrote in an earlier one
    /// is taken over before its own term goes in.
    pub(crate) fn establish(&mut self, origin: usize, region: usize) {
        let (ours, term) = (self.origins[origin].epoch, self.stream.terms[region]);
        if term.by_operator && term.epoch >= ours {
            self.counts.count("an operator's term ended an origin");
            self.sql.term = self.sql.term.max(term.epoch);
            return self.begin_again(origin);
        }
        if term.epoch > ours {
            return self.fence(origin);
        }
        if !self.adopt_signed(origin, region) {
            return;
        }
        let millis = self.dice.between(1, 60);
        let take = InOrigin::TakeStream {
            region,
            after: term.epoch,
        };
        self.due_in_origin(millis, origin, take);
    }

    /// Unless another term came in between.
    pub(crate) fn take_stream(&mut self, origin: usize, region: usize, after: Epoch) {
        if self.stream.terms[region].epoch != after {
            return self.establish(origin, region);
        }
        self.stream.terms[region] = Term {
            epoch: self.origins[origin].epoch,
            by_operator: false,
        };
        // What came between the first look and our term; nothing can come any more.
        if self.without == Some(Safeguard::AdoptAgain) || self.adopt_signed(origin, region) {
            self.publish_unsent(origin);
        }
    }

    /// Takes over what an operator has signed, in a transaction that is waited for, unless SQL has gone past it. False when another
    /// leads by then: this one writes nothing more.
    fn adopt_signed(&mut self, origin: usize, region: usize) -> bool {
        let newest = self.stream.newest.get(region).cloned().flatten();
        let Some(newest) = newest.filter(|newest| newest.by_operator) else {
            return true;
        };
        if self.without == Some(Safeguard::AdoptSigned) {
            return true;
        }
        let epoch = self.origins[origin].epoch;
        if epoch != self.sql.term {
            self.fence(origin);
            return false;
        }
        let over = &newest.record;
        let held = self.sql.records[region].record.clone();
        let is_past = held.generation > over.generation && held.live_since >= over.live_since;
        let is_over = match self.without {
            Some(Safeguard::AdoptOnce) => is_past,
            _ => self.sql.adopted.contains(&(region, over.epoch)),
        };
        if is_over {
            self.counts.count("an override had been taken over before");
            return true;
        }
        if is_past {
            self.counts
                .count("an override was taken over by an origin that had gone on");
        }
        self.notes.signed = Some(region);
        self.supersede(origin, None, Some(region));
        let mut record = over.clone();
        let now_held = self.sql.records[region].record.generation;
        record.generation = record.generation.max(now_held);
        self.sql.records[region] = Published::new(record.clone());
        let left = record
            .live
            .as_ref()
            .and_then(|live| signed::left(&held, live));
        let left = left.cloned();
        record.overridden = None;
        record.live_since = record.generation.next();
        self.take_over(origin, epoch, record, left);
        self.notes.signed = None;
        self.sql.adopted.insert((region, over.epoch));
        self.counts.count("an operator's override was taken over");
        self.was_adopted(origin);
        true
    }

    /// What an operator has signed is not written over by who does not know of it.
    pub(crate) fn check_taken_in(&mut self, region: usize, new: &Published) {
        let Some(newest) = &self.stream.newest[region] else {
            return;
        };
        let is_known = self.sql.adopted.contains(&(region, newest.record.epoch));
        if newest.by_operator && !new.by_operator && !is_known {
            let text = format!("{:?} is written over by {:?}", newest.record, new.record);
            self.fail(Check::Overridden, text);
        }
    }

    /// Whether the edge takes the record from whoever has sealed it.
    pub(crate) fn believes(&mut self, edge: usize, new: &Published, is_newer: bool) -> bool {
        let this = &self.edges[edge];
        let known = this.records.newest().map(|held| held.sealed);
        if known.is_some_and(|known| new.sealed < known) {
            self.counts.count("an edge refused a term that is over");
            return false;
        }
        if !new.by_operator || !is_newer {
            return true;
        }
        let (ready, now) = (self.ready(edge), this.clock.read(self.now));
        let checked = signed::check(&new.record, &ready, this.led_in, now);
        if checked.is_err() {
            self.counts.count("an edge refused an operator's override");
        }
        checked.is_ok()
    }

    /// What is or could be served at once.
    fn ready(&self, edge: usize) -> Vec<ReleaseId> {
        let this: &Edge = &self.edges[edge];
        let record = this.memory.record.iter();
        let named = record.flat_map(|record| record.record.releases());
        let named = named.map(|named| number(&named.release));
        let named = named.filter(|named| this.memory.held.contains(named));
        let ready = named.chain(this.memory.live);
        ready
            .map(|release| self.names.releases[usize::from(release)].release.clone())
            .collect()
    }
}
