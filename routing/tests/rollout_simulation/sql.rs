//! The database: one change at a time, each whole or not at all, each checked for the term of whoever makes it.
//!
//! A transaction that was sent is not safe yet: until it is, the database's machine may lose its power. Whether it was in or not,
//! nobody is told then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use helix_routing::glass::LocalOverride;
use helix_routing::id::Epoch;
use helix_routing::record::{Pin, ReleaseRef};
use helix_routing::rollout::{Command, Control, Rollout};

use crate::agenda::{Due, InOrigin};
use crate::names::number;
use crate::publisher::Published;
use crate::scenario::{Safeguard, Side, When};
use crate::sides::{Beside, Key};
use crate::starts::Start;
use crate::world::World;

/// Saves of drivers are counted from 1; this is what anything else has.
const NO_SAVE: u32 = 0;

/// The rollout that runs, and how often it was saved.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) number: u64,
    pub(crate) revision: u64,
    pub(crate) machine: Rollout,
}

pub(crate) struct Sql {
    pub(crate) term: Epoch,
    /// Whose address is in the lease's row.
    pub(crate) leader: usize,
    pub(crate) records: Vec<Rc<Published>>,
    pub(crate) pins: Vec<Pin>,
    /// Overrides that operators signed and that were taken over: how far it knows the streams.
    pub(crate) adopted: BTreeSet<(usize, Epoch)>,
    /// What else edges are told.
    pub(crate) sides: BTreeMap<Key, Rc<Beside>>,
    pub(crate) settled: Vec<Option<ReleaseRef>>,
    pub(crate) quarantined: BTreeSet<(usize, u8)>,
    pub(crate) held: BTreeSet<usize>,
    pub(crate) running: Option<Saved>,
    pub(crate) started: u64,
    /// Artifacts in the store.
    pub(crate) stored: BTreeSet<u8>,
    /// Sent, and not safe.
    pub(crate) tail: VecDeque<Transaction>,
    sent: u64,
    saves: u32,
}

pub(crate) struct Transaction {
    number: u64,
    origin: usize,
    life: u32,
    epoch: Epoch,
    save: u32,
    change: Change,
}

/// What a transaction does.
#[derive(Clone)]
pub(crate) enum Change {
    Step(Box<Step>),
    Start(Start),
    Hold {
        region: usize,
        is_held: bool,
    },
    Lift,
    Collect,
    Drain {
        edge: usize,
        drains: bool,
    },
    Pin {
        label: u8,
        release: Option<u8>,
    },
    Route {
        host: u8,
        site: u8,
    },
    Purge {
        times: u32,
        is_other: bool,
    },
    Adopt {
        region: usize,
        local: Box<LocalOverride>,
    },
}

/// A step of the machine, to be saved over the revision that it was made from.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) saved: Saved,
    pub(crate) commands: Vec<Command>,
    /// What was asked for, if it was.
    pub(crate) control: Option<Control>,
    pub(crate) is_repeated: bool,
}

/// What its sender hears of it.
pub(crate) enum Answer {
    Done {
        save: u32,
        change: Change,
    },
    /// A rollout began: with what there is to do after the save.
    Started {
        saved: Box<Saved>,
        commands: Vec<Command>,
    },
    /// Another leads.
    Fenced,
    /// Somebody else changed the rollout since it was read.
    Changed {
        rollout: u64,
        is_repeated: bool,
    },
    /// The connection went away: it may have been done.
    Unsure {
        change: Change,
    },
}

impl Sql {
    pub(crate) fn new(records: Vec<Rc<Published>>) -> Self {
        Self {
            term: Epoch(0),
            leader: 0,
            settled: vec![None; records.len()],
            records,
            pins: Vec::new(),
            adopted: BTreeSet::new(),
            sides: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            held: BTreeSet::new(),
            running: None,
            started: 0,
            stored: BTreeSet::new(),
            tail: VecDeque::new(),
            sent: 0,
            saves: 0,
        }
    }

    /// What nothing may remove.
    pub(crate) fn referenced(&self) -> BTreeSet<u8> {
        let records = self
            .records
            .iter()
            .flat_map(|saved| saved.record.releases());
        let running = self
            .running
            .iter()
            .flat_map(|saved| saved.machine.regions());
        records
            .chain(self.settled.iter().flatten())
            .chain(self.pins.iter().map(|pin| &pin.release))
            .map(|named| number(&named.release))
            .chain(running.map(|view| number(&view.release)))
            .collect()
    }
}

impl World {
    /// Sends a transaction, which is safe a little later.
    pub(crate) fn transact(&mut self, origin: usize, change: Change) {
        let is_step = matches!(change, Change::Step(_));
        self.sql.saves += u32::from(is_step);
        self.sql.sent += 1;
        let sent = self.sql.sent;
        let save = if is_step { self.sql.saves } else { NO_SAVE };
        let process = &self.origins[origin];
        self.sql.tail.push_back(Transaction {
            number: sent,
            origin,
            life: process.life,
            epoch: process.epoch,
            save,
            change,
        });
        let millis = if self.dice.one_in(20) {
            400
        } else {
            self.dice.between(1, 15)
        };
        self.due(millis, Due::Commit(sent));
        self.at_moment(When::Save(save, Side::Before));
    }

    pub(crate) fn commit(&mut self, sent: u64) {
        let place = self
            .sql
            .tail
            .iter()
            .position(|transaction| transaction.number == sent);
        let Some(transaction) = place.and_then(|place| self.sql.tail.remove(place)) else {
            return;
        };
        let (origin, life, save) = (transaction.origin, transaction.life, transaction.save);
        let answer = self.apply(transaction);
        let millis = self.dice.between(1, 10);
        self.due(
            millis,
            Due::InOrigin(origin, life, InOrigin::Saved(Box::new(answer))),
        );
        self.at_moment(When::Save(save, Side::Between));
    }

    /// The database's machine loses its power: what is left of the tail is the beginning of it.
    pub(crate) fn lose_tail(&mut self) {
        let tail: Vec<Transaction> = self.sql.tail.drain(..).collect();
        let left = self.dice.pick(tail.len() + 1);
        self.counts.lost_transaction(left < tail.len());
        for (place, transaction) in tail.into_iter().enumerate() {
            let (origin, life) = (transaction.origin, transaction.life);
            let change = transaction.change.clone();
            let answer = (place < left).then(|| self.apply(transaction));
            // Whoever starts a rollout waits for the answer, and a driver for the next try.
            let answer = answer.filter(|_| matches!(change, Change::Start(_)));
            let answer = Box::new(answer.unwrap_or(Answer::Unsure { change }));
            self.due(5, Due::InOrigin(origin, life, InOrigin::Saved(answer)));
        }
        self.check_published();
    }

    fn apply(&mut self, transaction: Transaction) -> Answer {
        let Transaction {
            origin,
            epoch,
            save,
            change,
            ..
        } = transaction;
        if epoch != self.sql.term && self.without != Some(Safeguard::EpochFence) {
            self.counts
                .count("the database refused an origin that was replaced");
            return Answer::Fenced;
        }
        match change {
            Change::Step(step) => self.apply_step(save, epoch, step),
            Change::Start(start) => self.apply_start(origin, epoch, start),
            Change::Hold { region, is_held } => {
                self.apply_hold(epoch, region, is_held);
                Answer::Done { save, change }
            }
            Change::Lift => {
                self.sql.quarantined.clear();
                Answer::Done { save, change }
            }
            Change::Collect => {
                self.collect(origin);
                Answer::Done { save, change }
            }
            Change::Pin { label, release } => {
                self.pin(epoch, (label, release));
                Answer::Done { save, change }
            }
            Change::Route { host, site } => {
                self.put_host(epoch, host, site);
                Answer::Done { save, change }
            }
            Change::Purge { times, is_other } => {
                self.purge(origin, epoch, (times, is_other));
                Answer::Done { save, change }
            }
            Change::Drain { edge, drains } => {
                self.drain(origin, epoch, (edge, drains));
                Answer::Done { save, change }
            }
            Change::Adopt { region, ref local } => {
                self.adopt(origin, epoch, (region, local));
                Answer::Done { save, change }
            }
        }
    }

    fn apply_step(&mut self, save: u32, epoch: Epoch, mut step: Box<Step>) -> Answer {
        let is_own = |running: &&Saved| {
            (running.number, running.revision) == (step.saved.number, step.saved.revision)
        };
        if self.sql.running.as_ref().filter(is_own).is_none() {
            let rollout = step.saved.number;
            return Answer::Changed {
                rollout,
                is_repeated: step.is_repeated,
            };
        }
        step.saved.revision += 1;
        self.note_control(step.control.as_ref());
        self.apply_commands(&step.saved.machine, &step.commands);
        self.check_terms(&step.commands);
        let is_over = step.saved.machine.outcome().is_some();
        self.sql.running = (!is_over).then(|| step.saved.clone());
        if is_over {
            self.tell_pins(epoch);
        }
        Answer::Done {
            save,
            change: Change::Step(step),
        }
    }
}
