//! Purges: what the fleet is to forget of a site's responses, as a record that lists the newest. Each edge keeps one response here,
//! of a page that changes before each purge.

use helix_routing::id::{Epoch, Generation};
use helix_routing::record::{PurgeEntry, PurgeRecord};

use crate::agenda::OnEdge;
use crate::checks::Check;
use crate::scenario::Safeguard;
use crate::sides::{Beside, Key, Says};
use crate::world::World;

/// The tag that the response has.
const TAG: &str = "page";
const OTHER_TAG: &str = "other";

/// A response that an edge keeps, over restarts.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    /// Of the page.
    version: u64,
    /// The fleet's purges that it has lived through.
    number: u64,
}

/// What an edge knows of purges in this boot.
#[derive(Default)]
pub(crate) struct Purging {
    /// Counts those that fit: a response that was on its way meanwhile is not kept.
    moment: u64,
    record: Option<PurgeRecord>,
    is_filling: bool,
}

impl Purging {
    fn number(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.generation.0)
    }
}

fn fits(entry: &PurgeEntry) -> bool {
    entry.tags.iter().any(|tag| tag == TAG)
}

impl World {
    /// The page changes, and somebody purges it: once, or so often that edges which were away have missed more than a record lists.
    pub(crate) fn purge(&mut self, origin: usize, epoch: Epoch, (times, is_other): (u32, bool)) {
        let tag = if is_other { OTHER_TAG } else { TAG };
        let at = self.origins[origin].clock.read(self.now);
        for region in 0..self.names.regions.len() {
            let key = Key::Purge(region);
            let mut record = match self.sql.sides.get(&key).map(|side| &side.says) {
                Some(Says::Purge(record)) => record.clone(),
                Some(_) | None => {
                    let region = self.names.regions[region].clone();
                    PurgeRecord::blank(self.names.site.clone(), region, epoch)
                }
            };
            for _ in 0..times {
                let entry = PurgeEntry {
                    at,
                    release: None,
                    urls: Vec::new(),
                    tags: vec![tag.to_owned()],
                    stale: false,
                };
                record.push(epoch, entry);
            }
            if !is_other {
                let purged = (region, record.generation.0);
                self.notes.purged.insert(purged, self.page);
            }
            self.sql
                .sides
                .insert(key, Beside::new(key, Says::Purge(record)));
        }
        self.counts.count("somebody purged a page");
    }

    /// A visitor asks for the page.
    pub(crate) fn visit_page(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let kept = this.kept;
        match kept {
            Some(kept) => self.check_fresh(edge, kept.version),
            None if !this.memory.purging.is_filling => {
                let purging = &mut this.memory.purging;
                purging.is_filling = true;
                let (moment, number) = (purging.moment, purging.number());
                let version = self.page;
                let millis = self.dice.between(5, 3_000);
                let filled = OnEdge::Filled {
                    moment,
                    kept: Kept { version, number },
                };
                self.due_on_edge(millis, edge, filled);
            }
            None => {}
        }
    }

    pub(crate) fn filled(&mut self, edge: usize, moment: u64, kept: Kept) {
        let purging = &mut self.edges[edge].memory.purging;
        purging.is_filling = false;
        if purging.moment == moment || self.without == Some(Safeguard::PurgeMoment) {
            self.edges[edge].kept = Some(kept);
        } else {
            self.counts.count("a response was purged on its way");
        }
    }

    /// A record of purges is on disk. What it means is forgotten, and then that is told.
    pub(crate) fn told_of_purge(&mut self, edge: usize, record: &PurgeRecord) {
        let purging = &mut self.edges[edge].memory.purging;
        let (held, number) = (purging.number(), record.generation.0);
        if number <= held {
            return;
        }
        let since = record.since(held);
        let is_meant = since.is_none_or(|entries| entries.iter().any(fits));
        if since.is_none() {
            self.counts
                .count("an edge had missed more purges than are listed");
        }
        let purging = &mut self.edges[edge].memory.purging;
        purging.record = Some(record.clone());
        purging.moment += u64::from(is_meant);
        let millis = self.dice.between(5, 300);
        self.due_on_edge(millis, edge, OnEdge::Forgotten { number, is_meant });
    }

    pub(crate) fn forgotten(&mut self, edge: usize, number: u64, is_meant: bool) {
        let this = &mut self.edges[edge];
        if is_meant && this.kept.is_some_and(|kept| kept.number < number) {
            this.kept = None;
        }
        this.purged = this.purged.max(number);
    }

    /// The record that was on disk: what lies there beside it is held against it, and then it is told again.
    pub(crate) fn restore_purges(&mut self, edge: usize, record: &PurgeRecord) {
        let this = &mut self.edges[edge];
        this.memory.purging.record = Some(record.clone());
        this.purged = this.purged.max(record.generation.0);
    }

    /// A response on disk is held against what the record says came after it.
    pub(crate) fn restore_page(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let record = this.memory.purging.record.as_ref();
        let is_purged = |kept: &Kept| {
            let since = record.map(|record| record.since(kept.number));
            since.map_or(kept.number > 0, |since| {
                since.is_none_or(|entries| entries.iter().any(fits))
            })
        };
        let is_purged = this.kept.as_ref().is_some_and(is_purged);
        if is_purged && self.without != Some(Safeguard::PurgeNumber) {
            self.edges[edge].kept = None;
            self.counts.count("a response on disk had been purged");
        }
    }

    /// After an edge has said that it has forgotten what was purged, nobody gets it.
    fn check_fresh(&mut self, edge: usize, version: u64) {
        let this = &self.edges[edge];
        let told = (this.region, 0)..=(this.region, this.purged);
        let needed = self.notes.purged.range(told).next_back();
        if needed.is_some_and(|(_, needed)| version < *needed) {
            let text = format!(
                "{} answers with version {version} after purge {}",
                self.names.edges[edge], this.purged
            );
            self.fail(Check::Purged, text);
        }
    }

    /// Once all is quiet every edge has forgotten all that was purged.
    pub(crate) fn check_purged(&mut self) {
        for edge in 0..self.edges.len() {
            let this = &self.edges[edge];
            let said = self.sql.sides.get(&Key::Purge(this.region));
            let said = said.map_or(Generation(0), |side| side.place().1);
            if this.purged != said.0 {
                let text = format!(
                    "{} is at purge {} of {said}",
                    self.names.edges[edge], this.purged
                );
                return self.fail(Check::Purged, text);
            }
        }
    }
}
