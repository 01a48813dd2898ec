//! What is due when, and whose it is.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use helix_routing::id::Generation;

use crate::network::Message;
use crate::sql::Answer;
use crate::world::World;

/// What can be due. What a process has begun is void in its next life.
pub(crate) enum Due {
    Deed(usize),
    Arrival(Message),
    /// An operator looks at what waits.
    Attention,
    EdgeStarts {
        edge: usize,
    },
    Heartbeat {
        edge: usize,
        boot: u32,
    },
    Repair {
        edge: usize,
        boot: u32,
    },
    Serve {
        edge: usize,
        boot: u32,
    },
    RecordSynced {
        edge: usize,
        boot: u32,
    },
    Fetched {
        edge: usize,
        boot: u32,
        release: u8,
    },
    ArtifactSynced {
        edge: usize,
        boot: u32,
        release: u8,
    },
    Gated {
        edge: usize,
        boot: u32,
        naming: u32,
    },
    Answered {
        edge: usize,
        boot: u32,
        pinned: u8,
    },
    OriginStarts {
        origin: usize,
    },
    Look {
        origin: usize,
        life: u32,
    },
    Wake {
        origin: usize,
        life: u32,
        at: u64,
    },
    Probe {
        origin: usize,
        life: u32,
        edge: usize,
        generation: Generation,
    },
    /// A transaction is safe, and then its answer comes.
    Commit {
        transaction: u64,
    },
    Saved {
        origin: usize,
        life: u32,
        answer: Box<Answer>,
    },
    Sent {
        origin: usize,
        life: u32,
    },
    StreamTerm {
        origin: usize,
        life: u32,
    },
    Sweep {
        origin: usize,
        life: u32,
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

impl Due {
    const fn edge(&self) -> Option<(usize, u32)> {
        match self {
            Self::Heartbeat { edge, boot }
            | Self::Repair { edge, boot }
            | Self::Serve { edge, boot }
            | Self::RecordSynced { edge, boot }
            | Self::Fetched { edge, boot, .. }
            | Self::ArtifactSynced { edge, boot, .. }
            | Self::Gated { edge, boot, .. }
            | Self::Answered { edge, boot, .. } => Some((*edge, *boot)),
            _ => None,
        }
    }

    const fn origin(&self) -> Option<(usize, u32)> {
        match self {
            Self::Look { origin, life }
            | Self::Wake { origin, life, .. }
            | Self::Probe { origin, life, .. }
            | Self::Saved { origin, life, .. }
            | Self::Sent { origin, life }
            | Self::StreamTerm { origin, life }
            | Self::Sweep { origin, life, .. } => Some((*origin, *life)),
            _ => None,
        }
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
            Due::Arrival(message) => self.deliver(message),
            Due::Attention => self.attend(),
            Due::EdgeStarts { edge } => self.start_edge(edge),
            Due::OriginStarts { origin } => self.start_origin(origin),
            Due::Commit { transaction } => self.commit(transaction),
            due => match due.edge() {
                Some((edge, boot)) => {
                    if self.edges[edge].is_up && self.edges[edge].boot == boot {
                        self.happen_on_edge(edge, boot, due);
                    }
                }
                None => self.happen_in_origin(due),
            },
        }
    }

    fn happen_on_edge(&mut self, edge: usize, boot: u32, due: Due) {
        match due {
            Due::Heartbeat { .. } => self.beat(edge, boot),
            Due::Repair { .. } => self.repair(edge, boot),
            Due::Serve { .. } => self.serve(edge, boot),
            Due::RecordSynced { .. } => self.record_synced(edge),
            Due::Fetched { release, .. } => self.fetched(edge, release),
            Due::ArtifactSynced { release, .. } => self.artifact_synced(edge, release),
            Due::Gated { naming, .. } => self.gated(edge, naming),
            Due::Answered { pinned, .. } => self.answered(edge, pinned),
            _ => {}
        }
    }

    /// A process that stands still does later what is due now.
    fn happen_in_origin(&mut self, due: Due) {
        let Some((origin, life)) = due.origin() else {
            return;
        };
        let process = &self.origins[origin];
        if process.life != life || !process.is_up {
            return;
        }
        if process.frozen_until > self.now {
            let wait = process.frozen_until - self.now;
            self.due(wait, due);
            return;
        }
        match due {
            Due::Look { .. } => self.look(origin),
            Due::Wake { at, .. } => self.wake(origin, at),
            Due::Probe {
                edge, generation, ..
            } => self.probe(origin, edge, generation),
            Due::Saved { answer, .. } => self.saved(origin, *answer),
            Due::Sent { .. } => self.sent(origin),
            Due::StreamTerm { .. } => self.raise_stream_term(origin),
            Due::Sweep { garbage, .. } => self.sweep(&garbage),
            _ => {}
        }
    }

    /// So many milliseconds from now.
    pub(crate) fn due(&mut self, millis: u64, due: Due) {
        self.agenda.add(self.now + millis, due);
    }
}
