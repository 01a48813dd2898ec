//! What must hold on every edge, whatever becomes of it.

use crate::checks::Check;
use crate::edges::live;
use crate::names::number;
use crate::world::World;

impl World {
    /// After whatever an edge did with a record.
    pub(crate) fn check_serving(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let (serving, highest) = (this.serving(), this.highest);
        this.highest = highest.max(serving);
        this.has_served |= this.memory.live.is_some();
        let is_held = this
            .memory
            .live
            .is_none_or(|live| this.memory.held.contains(&live));
        let id = &self.names.edges[edge];
        if serving < highest {
            self.fail(
                Check::Rising,
                format!("{id} goes from {highest} to {serving}"),
            );
        } else if !is_held {
            self.fail(
                Check::Prepared,
                format!("{id} serves what it does not hold"),
            );
        } else if this.has_served && this.memory.live.is_none() {
            self.fail(Check::AlwaysLive, format!("{id} serves nothing any more"));
        }
    }

    /// After its start from disk.
    pub(crate) fn check_started(&mut self, edge: usize) {
        self.check_serving(edge);
    }

    pub(crate) fn check_ready(&mut self, edge: usize) {
        let this = &self.edges[edge];
        let Some(record) = &this.memory.record else {
            return;
        };
        let wanted = this.wanted(&record.record);
        let is_ready = this.serving() == record.record.generation;
        // An override whose release is not here yet: what the record names stands in, and the edge is not ready.
        let stands_in = this.overriding().is_some() && this.memory.live == live(record);
        if is_ready && this.memory.live != wanted && !stands_in {
            let text = format!(
                "{} is ready and serves {:?}",
                self.names.edges[edge], this.memory.live
            );
            self.fail(Check::Ready, text);
        }
    }

    /// A request begins.
    pub(crate) fn check_request(&mut self, edge: usize, pinned: u8) {
        let this = &self.edges[edge];
        let (serving, reported) = (this.serving(), this.reported);
        let id = &self.names.edges[edge];
        if serving < reported {
            let text = format!("{id} said that it serves {reported}, and answers under {serving}");
            self.fail(Check::AfterReport, text);
        } else if !this.memory.held.contains(&pinned) {
            self.fail(Check::Prepared, format!("{id} answers with {pinned}"));
        }
    }

    /// A request ends: the release that it began with is there to its last byte.
    pub(crate) fn check_answered(&mut self, edge: usize, pinned: u8) {
        let id = &self.names.edges[edge];
        match self.edges[edge].artifacts.get(&pinned) {
            Some(true) => {}
            Some(false) => self.fail(
                Check::Bytes,
                format!("{id} answers with torn files of {pinned}"),
            ),
            None => self.fail(
                Check::OneRelease,
                format!("{pinned} went while {id} answered with it"),
            ),
        }
    }

    /// Whether the release can be fetched; it has to be there as long as a record names it.
    pub(crate) fn check_stored(&mut self, edge: usize, release: u8) -> bool {
        let is_stored = self.sql.stored.contains(&release);
        if !is_stored && self.sql.referenced().contains(&release) {
            let text = format!("{} cannot fetch {release}", self.names.edges[edge]);
            self.fail(Check::Referenced, text);
        }
        is_stored
    }

    /// Once all is quiet every edge serves what its record names.
    pub(crate) fn check_converged(&mut self) {
        for edge in 0..self.edges.len() {
            let this = &self.edges[edge];
            let record = &self.sql.records[this.region].record;
            let named = record.live.as_ref().map(|live| number(&live.release));
            let named = this.overriding().or(named);
            let is_there = self.edges[edge].serving() == record.generation;
            if this.memory.live != named || (record.generation.0 > 0 && !is_there) {
                let text = format!(
                    "{} serves {:?} at {}, its record says {named:?} at {}",
                    self.names.edges[edge],
                    this.memory.live,
                    this.serving(),
                    record.generation
                );
                return self.fail(Check::Agreement, text);
            }
        }
    }
}
