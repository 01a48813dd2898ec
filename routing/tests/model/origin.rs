//! Origin: SQL, and the two processes of which one leads.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use helix_routing::id::{Epoch, Generation, RegionId, ReleaseId};
use helix_routing::record::{ReleaseRef, SiteRecord};
use helix_routing::rollout::{
    BakePlan, Command, Event, Kind, Order, Outcome, RegionPlan, Rollout, RolloutPlan,
};

use crate::protocol::{Safeguard, State, hash_record, release};

/// One database. Every change of it is one transaction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sql {
    pub(crate) term: Epoch,
    pub(crate) records: BTreeMap<RegionId, SiteRecord>,
    pub(crate) settled: BTreeMap<RegionId, ReleaseRef>,
    pub(crate) running: Option<Rollout>,
    pub(crate) ended: Vec<Outcome>,
    /// Artifacts in the store.
    pub(crate) stored: BTreeSet<ReleaseId>,
}

/// One process, and what only its memory holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Origin {
    pub(crate) epoch: Epoch,
    pub(crate) is_up: bool,
    pub(crate) machine: Option<Rollout>,
    pub(crate) probes: BTreeSet<(RegionId, Generation)>,
    /// A record read from SQL and on its way to the stream.
    pub(crate) sending: Option<SiteRecord>,
    /// Commands whose state is not saved yet: there are none while it persists before it acts.
    pub(crate) unsaved: Option<(Option<Rollout>, Vec<Command>)>,
    /// What it found unreferenced, where that is not found and removed at once.
    pub(crate) garbage: Option<BTreeSet<ReleaseId>>,
}

impl Hash for Sql {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.term.hash(state);
        self.records
            .values()
            .for_each(|record| hash_record(record, state));
        self.settled.hash(state);
        hash_machine(self.running.as_ref(), state);
        for outcome in &self.ended {
            outcome.exit_code().hash(state);
        }
        self.stored.hash(state);
    }
}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.epoch, self.is_up, &self.probes, &self.garbage).hash(state);
        hash_machine(self.machine.as_ref(), state);
        if let Some(record) = &self.sending {
            hash_record(record, state);
        }
        if let Some((machine, commands)) = &self.unsaved {
            hash_machine(machine.as_ref(), state);
            commands.len().hash(state);
        }
    }
}

/// A machine has no hash of its own; what is saved of it is all of it.
fn hash_machine<H: Hasher>(machine: Option<&Rollout>, state: &mut H) {
    if let Some(machine) = machine {
        serde_json::to_vec(machine).unwrap().hash(state);
    }
}

impl Sql {
    pub(crate) fn referenced(&self) -> BTreeSet<ReleaseId> {
        let records = self.records.values().flat_map(SiteRecord::releases);
        records
            .chain(self.settled.values())
            .map(|named| named.release.clone())
            .collect()
    }

    fn apply(&mut self, machine: Option<&Rollout>, commands: &[Command]) {
        self.running = machine.cloned();
        for command in commands {
            match command {
                Command::Write(record) => {
                    self.records.insert(record.region.clone(), record.clone());
                }
                Command::Settle {
                    region, release, ..
                }
                | Command::Return {
                    region,
                    to: release,
                    ..
                } => {
                    self.settled.insert(region.clone(), release.clone());
                }
                Command::Finish(outcome) => {
                    self.running = None;
                    self.ended.push(*outcome);
                }
                _ => {}
            }
        }
    }
}

impl Origin {
    pub(crate) const fn new(epoch: Epoch, is_up: bool) -> Self {
        Self {
            epoch,
            is_up,
            machine: None,
            probes: BTreeSet::new(),
            sending: None,
            unsaved: None,
            garbage: None,
        }
    }

    /// It finds that another leads, and ends.
    fn fence(&mut self) {
        *self = Self::new(self.epoch, false);
    }
}

impl State {
    /// Whether a transaction of this origin may change anything; if not, the origin ends.
    fn may_write(&mut self, index: usize, without: Option<Safeguard>) -> bool {
        let may =
            self.origins[index].epoch == self.sql.term || without == Some(Safeguard::EpochFence);
        if !may {
            self.fenced = true;
            self.origins[index].fence();
        }
        may
    }

    /// The machine took a step: save, then act.
    fn carry_out(
        &mut self,
        index: usize,
        machine: Rollout,
        commands: Vec<Command>,
        without: Option<Safeguard>,
    ) {
        let is_over = machine.outcome().is_some();
        let left = (!is_over).then(|| machine.clone());
        if commands.iter().any(Command::is_durable) {
            if without == Some(Safeguard::PersistBeforeAct) {
                for command in &commands {
                    if let Command::Write(record) = command {
                        self.publish(record.clone());
                    }
                }
                self.origins[index].unsaved = Some((Some(machine), commands.clone()));
            } else if self.may_write(index, without) {
                self.check_writes(&commands);
                self.sql.apply(Some(&machine), &commands);
            } else {
                return;
            }
        }
        let origin = &mut self.origins[index];
        origin.machine = left;
        for command in commands {
            if let Command::Probe {
                region, generation, ..
            } = command
            {
                origin.probes.insert((region, generation));
            }
        }
        if is_over {
            origin.probes.clear();
        }
    }

    /// What acted before it saved, saves now.
    pub(crate) fn save(&mut self, index: usize) {
        if let Some((machine, commands)) = self.origins[index].unsaved.take()
            && self.origins[index].epoch == self.sql.term
        {
            self.sql.apply(machine.as_ref(), &commands);
        }
    }

    pub(crate) fn step(&mut self, index: usize, event: &Event, without: Option<Safeguard>) {
        let fleet = self.fleet();
        let Some(mut machine) = self.origins[index].machine.clone() else {
            return;
        };
        let commands = machine.step(self.now, &fleet, event);
        self.carry_out(index, machine, commands, without);
    }

    /// An operator's word: one transaction ends what runs and begins this.
    pub(crate) fn start(&mut self, index: usize, kind: Kind, without: Option<Safeguard>) {
        if !self.may_write(index, without) {
            return;
        }
        let fleet = self.fleet();
        if let Some(mut running) = self.sql.running.take() {
            let epoch = self.origins[index].epoch;
            let commands = running.step(self.now, &fleet, &Event::Superseded { epoch });
            self.check_writes(&commands);
            self.sql.apply(Some(&running), &commands);
            self.origins[index].machine = None;
            self.origins[index].probes.clear();
        }
        let plans = self.plans(kind);
        if plans.is_empty() {
            return;
        }
        let order = Order {
            id: format!("{:016x}", 16 - self.left.deploys - self.left.rollbacks)
                .parse()
                .unwrap(),
            site: "shop/production".parse().unwrap(),
            kind,
            epoch: self.origins[index].epoch,
            plans,
            bake: BakePlan::default(),
            plan: RolloutPlan::default(),
        };
        let (machine, commands) = Rollout::start(order, self.now, &fleet);
        self.carry_out(index, machine, commands, without);
    }

    fn plans(&self, kind: Kind) -> Vec<RegionPlan> {
        let plan = |record: &SiteRecord| {
            let target = match kind {
                Kind::Rollback => record.previous.first().cloned()?,
                _ => release(1),
            };
            self.sql
                .stored
                .contains(&target.release)
                .then(|| RegionPlan {
                    record: record.clone(),
                    target,
                    baseline: self.sql.settled.get(&record.region).cloned(),
                    is_baseline_quarantined: false,
                    bytes: 0,
                    gates: Duration::ZERO,
                })
        };
        self.sql.records.values().filter_map(plan).collect()
    }

    /// The standby takes the lead and goes on with what SQL says.
    pub(crate) fn take_over(&mut self, without: Option<Safeguard>) {
        self.sql.term = self.sql.term.next();
        self.origins[1] = Origin::new(self.sql.term, true);
        if let Some(mut machine) = self.sql.running.clone() {
            let commands = machine.resume(self.sql.term, self.now, &self.fleet());
            self.carry_out(1, machine, commands, without);
        }
    }

    /// The publisher's write is conditional on the term that the stream itself holds.
    pub(crate) fn send(&mut self, index: usize, without: Option<Safeguard>) {
        let Some(record) = self.origins[index].sending.take() else {
            return;
        };
        if self.origins[index].epoch == self.stream_term || without == Some(Safeguard::StreamTerm) {
            self.publish(record);
        } else {
            self.fenced = true;
            self.origins[index].fence();
        }
    }

    /// References are read in the transaction that removes; one that runs keeps everything.
    pub(crate) fn collect(&mut self, index: usize, without: Option<Safeguard>) {
        if self.sql.running.is_some() || !self.may_write(index, without) {
            return;
        }
        let referenced = self.sql.referenced();
        if without == Some(Safeguard::CollectInOneTransaction) {
            let garbage = self.sql.stored.difference(&referenced).cloned().collect();
            self.origins[index].garbage = Some(garbage);
        } else {
            self.sql.stored.retain(|stored| referenced.contains(stored));
        }
    }

    pub(crate) fn sweep(&mut self, index: usize) {
        if let Some(garbage) = self.origins[index].garbage.take() {
            self.sql.stored.retain(|stored| !garbage.contains(stored));
        }
    }
}
