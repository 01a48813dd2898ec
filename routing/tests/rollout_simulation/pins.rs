//! Pins: SQL holds them, every record that is written carries them, whoever writes it, and who shows one gets its release where that is
//! ready.

use helix_routing::id::Epoch;
use helix_routing::record::{Pin, PinBy, SiteRecord};

use crate::agenda::OnEdge;
use crate::checks::Check;
use crate::dice::Dice;
use crate::edges::Edge;
use crate::names::number;
use crate::publisher::Published;
use crate::scenario::Safeguard;
use crate::world::World;

/// Under so many names something can be pinned.
pub(crate) const LABELS: u8 = 2;
/// Wait before a release that is pinned is asked for again.
const FETCH_PAUSE: u64 = 1_000;

impl World {
    /// Pins a release that is in the store, or lets the label go.
    pub(crate) fn pin(&mut self, epoch: Epoch, (label, release): (u8, Option<u8>)) {
        let label = if label == 0 { "beta" } else { "team" };
        let release = release.filter(|release| self.sql.stored.contains(release));
        self.sql.pins.retain(|pin| pin.label.as_str() != label);
        self.sql.pins.extend(release.map(|release| Pin {
            label: label.parse().unwrap(),
            by: PinBy::Label,
            release: self.names.releases[usize::from(release)].clone(),
        }));
        self.tell_pins(epoch);
    }

    /// Writes what the records do not have yet, unless a rollout owns them: with its next write, or at its end.
    pub(crate) fn tell_pins(&mut self, epoch: Epoch) {
        if self.sql.running.is_some() {
            return self.counts.count("pins waited for a rollout");
        }
        for region in 0..self.names.regions.len() {
            let mut record = self.sql.records[region].record.clone();
            if record.generation.0 > 0 && record.pins != self.sql.pins {
                record.generation = record.generation.next();
                record.epoch = epoch;
                self.check_write(&record);
                self.put_record(record);
                self.counts.count("a record was written for its pins");
            }
        }
    }

    /// The one place that stores a site's record.
    pub(crate) fn put_record(&mut self, mut record: SiteRecord) {
        if self.without != Some(Safeguard::PinsCarried) {
            record.pins.clone_from(&self.sql.pins);
        }
        let region = self.names.region(&record.region);
        self.sql.records[region] = Published::new(record);
    }

    /// What is pinned is fetched beside the rest.
    pub(crate) fn fetch_pins(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let record = this.memory.record.iter();
        let pinned = record.flat_map(|record| &record.record.pins);
        let pinned: Vec<u8> = pinned.map(|pin| number(&pin.release.release)).collect();
        for release in pinned {
            let memory = &mut self.edges[edge].memory;
            if !memory.held.contains(&release) && memory.pins.insert(release) {
                let millis = self.dice.between(30, 4_000);
                self.due_on_edge(millis, edge, OnEdge::PinFetched { release });
            }
        }
    }

    pub(crate) fn pin_fetched(&mut self, edge: usize, release: u8) {
        let this = &mut self.edges[edge];
        let is_wanted = |record: &Published| {
            let mut pins = record.record.pins.iter();
            pins.any(|pin| number(&pin.release.release) == release)
        };
        if !this
            .memory
            .record
            .as_ref()
            .is_some_and(|record| is_wanted(record))
        {
            this.memory.pins.remove(&release);
            return;
        }
        let is_away = this.cut_until.max(this.full_until) > self.now;
        if is_away || !self.check_stored(edge, release) {
            return self.due_on_edge(FETCH_PAUSE, edge, OnEdge::PinFetched { release });
        }
        let this = &mut self.edges[edge];
        this.memory.pins.remove(&release);
        this.artifacts.insert(release, true);
        this.memory.held.insert(release);
        self.reconcile(edge);
        self.work(edge);
    }

    /// Once all is quiet every record carries the pins, and every edge has what is pinned.
    pub(crate) fn check_pins(&mut self) {
        for edge in 0..self.edges.len() {
            let this = &self.edges[edge];
            let record = &self.sql.records[this.region].record;
            let is_held = |pin: &Pin| this.memory.held.contains(&number(&pin.release.release));
            let is_told = record.generation.0 == 0 || record.pins == self.sql.pins;
            if !is_told || !record.pins.iter().all(is_held) {
                let text = format!(
                    "{:?} are pinned, {record:?} on {}, which has {:?}",
                    self.sql.pins, self.names.edges[edge], this.memory.held
                );
                return self.fail(Check::Pinned, text);
            }
        }
    }
}

impl Edge {
    /// What a visitor gets who shows one of the pins. While an override stands nobody is parted from the others.
    pub(crate) fn answers_pinned(&self, dice: &mut Dice) -> Option<u8> {
        let record = &self.memory.record.as_ref()?.record;
        let pins = record.pins.iter().map(|pin| number(&pin.release.release));
        let ready = pins.filter(|release| self.memory.held.contains(release));
        let ready: Vec<u8> = ready.filter(|_| self.overriding().is_none()).collect();
        (!ready.is_empty()).then(|| ready[dice.pick(ready.len())])
    }
}
