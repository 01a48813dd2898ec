//! What must hold of overrides: they survive what they have to, and what origin takes over is what most edges serve.

use helix_routing::glass::LocalOverride;
use helix_routing::id::Generation;

use crate::bakes::is_sick;
use crate::checks::Check;
use crate::names::number;
use crate::world::World;

/// So late can a word be that was true.
const LATEST_WORD: u64 = 50_000;
/// What is looked at is decided within this.
const PUT_BACK: u64 = 2_000;
/// A guard acts when origin was not heard for so long.
const SILENT: u64 = 10_000;

impl World {
    /// What somebody was told that it holds is there after a restart, unless a later cutover has replaced it.
    pub(crate) fn check_restored(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        // It may have been on disk before the power went, and nobody was told.
        if let Some(local) = &this.memory.glass.local {
            let made = (number(&local.release.release), local.base);
            this.made.insert(made, u64::MAX);
        }
        let Some(answered) = &this.answered else {
            return;
        };
        let stands = |record: &crate::publisher::Published| answered.stands(&record.record);
        let stands = this.records.synced().is_some_and(|record| stands(record));
        if stands && this.memory.glass.local.as_ref() != Some(answered) {
            let id = &self.names.edges[edge];
            let text = format!("{id} has lost an override that was answered: {answered:?}");
            self.fail(Check::Overridden, text);
        }
    }

    /// It acts in silence alone, once after each cutover, and leaves only what is sick.
    pub(crate) fn check_guard(
        &mut self,
        edge: usize,
        live_since: Generation,
        next: Option<&LocalOverride>,
    ) {
        let this = &mut self.edges[edge];
        let is_again = !this.guarded.insert(live_since);
        let is_early = self.now < this.memory.heard_at + SILENT;
        let left = next.and_then(|next| next.left.as_ref());
        let is_well = left.is_some_and(|left| !is_sick(number(&left.release)));
        if is_again || is_early || is_well {
            let text = format!(
                "{} takes itself back, again {is_again}, too early {is_early}, from {left:?}",
                self.names.edges[edge]
            );
            self.fail(Check::Overridden, text);
        }
    }

    /// Nobody is moved by it: most edges of the region serve it, or did until a moment ago.
    pub(crate) fn check_adopted(&mut self, region: usize, local: &LocalOverride) {
        let record = &self.sql.records[region].record;
        let all = self.counted(region);
        // Whoever is put back at that moment may not be known yet to whoever looked.
        let mut known = all.clone();
        known.retain(|edge| self.edges[*edge].back_at + PUT_BACK <= self.now);
        let is_moved = !self.most_made(&all, local) && !self.most_made(&known, local);
        if is_moved || local.base < record.live_since {
            let text = format!("of {all:?} few edges made it: {local:?}, {record:?}");
            self.fail(Check::Overridden, text);
        }
    }

    fn most_made(&self, edges: &[usize], local: &LocalOverride) -> bool {
        let release = number(&local.release.release);
        let is_lately = |until: &u64| until.saturating_add(LATEST_WORD) > self.now;
        let made = |edge: &&usize| {
            let mut made = self.edges[**edge].made.iter();
            made.any(|((made, _), until)| *made == release && is_lately(until))
        };
        edges.is_empty() || edges.iter().filter(made).count() * 2 > edges.len()
    }

    /// The edges whose visitors count: those that are not taken out, if there are any.
    fn counted(&self, region: usize) -> Vec<usize> {
        let mut here = self.edges_of(region);
        let serve = |edge: &usize| !self.drained_in_sql(*edge);
        if here.iter().any(serve) {
            here.retain(serve);
        }
        here
    }

    /// Once all is quiet the records say what most edges of a region decided.
    pub(crate) fn check_taken_over(&mut self) {
        for region in 0..self.names.regions.len() {
            let here = self.counted(region);
            let all = here.len();
            let mut counts = [0; 256];
            for edge in here {
                let over = self.edges[edge].overriding();
                counts[over.map_or(255, usize::from)] += 1;
            }
            let most = counts[..255].iter().max().copied().unwrap_or(0);
            if most * 2 > all {
                let text = format!("{most} of {all} edges of region {region} override its record");
                self.fail(Check::Overridden, text);
            }
        }
    }
}
