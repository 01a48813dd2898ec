//! What a transaction does to the database: the machine and its durable commands together, and what operators ask of it.

use helix_routing::id::{Epoch, Generation};
use helix_routing::record::{Hold, ReleaseRef};
use helix_routing::rollout::{Command, Kind, Outcome, Rollout};

use crate::agenda::InOrigin;
use crate::names::number;
use crate::scenario::Safeguard;
use crate::world::World;

impl World {
    /// The machine and its durable commands, together.
    pub(crate) fn apply_commands(&mut self, machine: &Rollout, commands: &[Command]) {
        self.check_bakes(machine);
        self.count_waits(machine);
        for command in commands {
            if let Command::Write(record) = command {
                self.check_write(record);
                self.check_stage(machine, record);
                self.put_record(record.clone());
            }
        }
        for command in commands {
            match command {
                Command::Settle {
                    region,
                    release,
                    generation,
                } => {
                    self.settle(machine, self.names.region(region), release, *generation);
                }
                Command::Return {
                    region,
                    left,
                    to,
                    quarantine,
                } => {
                    let region = self.names.region(region);
                    self.check_return(region, left, to, quarantine.as_deref());
                    self.blame(region, left, quarantine.is_some());
                    self.sql.settled[region] = Some(to.clone());
                }
                Command::Withdraw {
                    region,
                    left,
                    quarantine,
                } => {
                    let region = self.names.region(region);
                    self.check_withdrawal(region, left, quarantine.is_some());
                    self.blame(region, left, quarantine.is_some());
                }
                Command::Finish(outcome) => self.finish(machine, *outcome),
                Command::Write(_)
                | Command::Bake { .. }
                | Command::Plan
                | Command::Republish { .. }
                | Command::Probe { .. }
                | Command::Ask { .. } => {}
            }
        }
    }

    fn settle(
        &mut self,
        machine: &Rollout,
        region: usize,
        release: &ReleaseRef,
        generation: Generation,
    ) {
        self.check_settled(region, release, generation);
        self.check_baked(machine, region, release);
        if machine.kind() == Kind::Restart {
            return;
        }
        self.sql.settled[region] = Some(release.clone());
        if machine.kind() == Kind::Rollback {
            let left = self.sql.records[region].record.previous.first();
            let left = left
                .filter(|left| *left != release)
                .map(|left| number(&left.release));
            self.sql.quarantined.extend(left.map(|left| (region, left)));
        }
    }

    fn blame(&mut self, region: usize, left: &ReleaseRef, is_blamed: bool) {
        if is_blamed {
            self.sql.quarantined.insert((region, number(&left.release)));
            self.sql.held.insert(region);
        }
    }

    fn finish(&mut self, machine: &Rollout, outcome: Outcome) {
        self.check_finished(machine, outcome);
        self.counts.ended(outcome);
    }

    /// The record carries a hold too; while a rollout runs, its machine alone writes the records.
    pub(crate) fn apply_hold(&mut self, epoch: Epoch, region: usize, is_held: bool) {
        let is_changed = if is_held {
            self.sql.held.insert(region)
        } else {
            self.sql.held.remove(&region)
        };
        let mut record = self.sql.records[region].record.clone();
        if !is_changed || self.sql.running.is_some() || record.generation.0 == 0 {
            return;
        }
        record.generation = record.generation.next();
        record.epoch = epoch;
        record.hold = is_held.then(|| Hold {
            reason: "looks odd".to_owned(),
            since: self.origins[0].clock.read(self.now),
        });
        self.check_write(&record);
        self.put_record(record);
    }

    /// References are read in the transaction that removes.
    pub(crate) fn collect(&mut self, origin: usize) {
        let referenced = self.sql.referenced();
        let garbage: Vec<u8> = self.sql.stored.difference(&referenced).copied().collect();
        self.counts.collected(!garbage.is_empty());
        if self.without == Some(Safeguard::CollectInOneTransaction) {
            let millis = self.dice.between(10, 3_000);
            self.due_in_origin(millis, origin, InOrigin::Sweep { garbage });
        } else {
            self.sweep(&garbage);
        }
    }

    pub(crate) fn sweep(&mut self, garbage: &[u8]) {
        self.sql.stored.retain(|stored| !garbage.contains(stored));
    }
}
