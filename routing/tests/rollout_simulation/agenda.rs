//! What is due when, and whose it is.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use helix_routing::glass::LocalOverride;
use helix_routing::id::{Epoch, Generation};

use crate::network::Message;
use crate::purges::Kept;
use crate::sides::Key;
use crate::sql::Answer;
use crate::world::World;

/// What can be due.
pub(crate) enum Due {
    /// By its place in the scenario.
    Deed(usize),
    Arrival(Box<Message>),
    /// Somebody is at an edge's local socket.
    Break(usize),
    EndBreak(usize),
    /// An operator's record is at the stream.
    Signed {
        region: usize,
        epoch: Epoch,
    },
    /// An operator looks at what waits.
    Attention,
    /// A transaction is safe.
    Commit(u64),
    EdgeStarts(usize),
    OriginStarts(usize),
    /// Of a process, which is void in the next boot or life.
    OnEdge(usize, u32, OnEdge),
    InOrigin(usize, u32, InOrigin),
}

pub(crate) enum OnEdge {
    Heartbeat,
    Repair,
    Serve,
    RecordSynced,
    Fetched {
        release: u8,
    },
    ArtifactSynced {
        release: u8,
    },
    Gated {
        naming: u32,
    },
    Answered {
        pinned: u8,
    },
    /// An override is on disk, or its end is.
    Kept {
        next: Option<Box<LocalOverride>>,
    },
    SideSynced {
        key: Key,
    },
    PinFetched {
        release: u8,
    },
    /// The page has come.
    Filled {
        moment: u64,
        kept: Kept,
    },
    /// What was purged is forgotten.
    Forgotten {
        number: u64,
        is_meant: bool,
    },
}

pub(crate) enum InOrigin {
    Look,
    /// Whether edges agree in an override.
    Agreement,
    Wake {
        at: u64,
    },
    Probe {
        edge: usize,
        generation: Generation,
    },
    /// The answer to a transaction.
    Saved(Box<Answer>),
    /// A record is at the stream.
    Sent,
    SideSent,
    Establish {
        region: usize,
    },
    /// Its own term goes into the stream, if nothing came after that one.
    TakeStream {
        region: usize,
        after: Epoch,
    },
    Sweep {
        garbage: Vec<u8>,
    },
}

struct Entry(Reverse<(u64, u64)>, Due);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

/// The next first; of two at once the one that was added first.
#[derive(Default)]
pub(crate) struct Agenda {
    entries: BinaryHeap<Entry>,
    added: u64,
}

impl Agenda {
    fn add(&mut self, at: u64, due: Due) {
        self.added += 1;
        self.entries.push(Entry(Reverse((at, self.added)), due));
    }

    /// What is due next, if it is until then.
    fn next(&mut self, end: u64) -> Option<(u64, Due)> {
        self.entries
            .peek()
            .filter(|Entry(Reverse((at, _)), _)| *at <= end)?;
        let Entry(Reverse((at, _)), due) = self.entries.pop()?;
        Some((at, due))
    }
}

impl World {
    pub(crate) fn run_until(&mut self, end: u64, is_enough: impl Fn(&Self) -> bool) {
        while self.failure.is_none() && !is_enough(self) {
            let Some((at, due)) = self.agenda.next(end) else {
                self.now = end;
                break;
            };
            self.now = at;
            self.happen(due);
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Deed(index) => {
                let (_, deed) = self.scenario.deeds[index];
                self.perform(deed);
            }
            Due::Arrival(message) => self.deliver(*message),
            Due::Break(edge) => self.break_glass(edge),
            Due::EndBreak(edge) => self.end_override(edge),
            Due::Signed { region, epoch } => self.sign(region, epoch),
            Due::Attention => self.attend(),
            Due::Commit(transaction) => self.commit(transaction),
            Due::EdgeStarts(edge) => self.start_edge(edge),
            Due::OriginStarts(origin) => self.start_origin(origin),
            Due::OnEdge(edge, boot, due) => {
                let process = &self.edges[edge];
                if process.is_up && process.boot == boot {
                    self.happen_on_edge(edge, due);
                }
            }
            Due::InOrigin(origin, life, due) => {
                let process = &self.origins[origin];
                // A process that stands still does later what is due now.
                if process.frozen_until > self.now {
                    let wait = process.frozen_until - self.now;
                    self.due(wait, Due::InOrigin(origin, life, due));
                } else if process.is_up && process.life == life {
                    self.happen_in_origin(origin, due);
                }
            }
        }
    }

    fn happen_on_edge(&mut self, edge: usize, due: OnEdge) {
        match due {
            OnEdge::Heartbeat => self.beat(edge),
            OnEdge::Repair => self.repair(edge),
            OnEdge::Serve => self.serve(edge),
            OnEdge::RecordSynced => self.record_synced(edge),
            OnEdge::Fetched { release } => self.fetched(edge, release),
            OnEdge::ArtifactSynced { release } => self.artifact_synced(edge, release),
            OnEdge::Gated { naming } => self.gated(edge, naming),
            OnEdge::Answered { pinned } => self.answered(edge, pinned),
            OnEdge::Kept { next } => self.kept(edge, next),
            OnEdge::Filled { moment, kept } => self.filled(edge, moment, kept),
            OnEdge::Forgotten { number, is_meant } => self.forgotten(edge, number, is_meant),
            OnEdge::PinFetched { release } => self.pin_fetched(edge, release),
            OnEdge::SideSynced { key } => self.side_synced(edge, key),
        }
    }

    fn happen_in_origin(&mut self, origin: usize, due: InOrigin) {
        match due {
            InOrigin::Look => self.look(origin),
            InOrigin::Agreement => self.look_at_overrides(origin),
            InOrigin::Wake { at } => self.wake(origin, at),
            InOrigin::Probe { edge, generation } => self.probe(origin, edge, generation),
            InOrigin::Saved(answer) => self.saved(origin, *answer),
            InOrigin::Sent => self.sent(origin),
            InOrigin::SideSent => self.side_sent(origin),
            InOrigin::Establish { region } => self.establish(origin, region),
            InOrigin::TakeStream { region, after } => self.take_stream(origin, region, after),
            InOrigin::Sweep { garbage } => self.sweep(&garbage),
        }
    }

    /// So many milliseconds from now.
    pub(crate) fn due(&mut self, millis: u64, due: Due) {
        self.agenda.add(self.now + millis, due);
    }

    pub(crate) fn due_on_edge(&mut self, millis: u64, edge: usize, due: OnEdge) {
        let boot = self.edges[edge].boot;
        self.due(millis, Due::OnEdge(edge, boot, due));
    }

    pub(crate) fn due_in_origin(&mut self, millis: u64, origin: usize, due: InOrigin) {
        let life = self.origins[origin].life;
        self.due(millis, Due::InOrigin(origin, life, due));
    }
}
