//! The whole of it: who there is, what is due when, and what is known to be true.
//!
//! Time goes from one thing that happens to the next. What happens is drawn from the seed alone, so a seed is one run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use helix_routing::api::PhaseName;
use helix_routing::id::{EdgeId, Generation, RegionId, SiteId};
use helix_routing::record::ReleaseRef;

use crate::checks::{Check, Failure};
use crate::counts::Counts;
use crate::dice::Dice;
use crate::edges::Edge;
use crate::network::Message;
use crate::notes::Notes;
use crate::origins::{LOOK, Origin};
use crate::publisher::{Published, Stream};
use crate::scenario::{RELEASES, Safeguard, Scenario, When};
use crate::sql::{Answer, Sql};

/// Once nothing goes wrong any more, whatever runs has to end within this.
const PATIENCE: u64 = 400_000;
/// And then all has to be quiet within this: a slow fetch and two looks at the feed.
const QUIET: u64 = 40_000;

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
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// Ids, made once.
pub(crate) struct Names {
    pub(crate) site: SiteId,
    pub(crate) regions: Vec<RegionId>,
    pub(crate) edges: Vec<EdgeId>,
    pub(crate) releases: Vec<ReleaseRef>,
}

impl Names {
    fn new(scenario: &Scenario) -> Self {
        let regions = ["fra", "iad", "gru"].into_iter().take(scenario.regions);
        let edges = regions.clone().flat_map(|region| {
            (1..=scenario.edges).map(move |number| format!("{region}-{number}"))
        });
        Self {
            site: "shop/production".parse().unwrap(),
            edges: edges.map(|edge| edge.parse().unwrap()).collect(),
            regions: regions.map(|region| region.parse().unwrap()).collect(),
            releases: (0..RELEASES).map(release).collect(),
        }
    }

    pub(crate) fn region(&self, id: &RegionId) -> usize {
        self.regions.iter().position(|known| known == id).unwrap()
    }

    pub(crate) fn edge(&self, id: &EdgeId) -> usize {
        self.edges.iter().position(|known| known == id).unwrap()
    }
}

fn release(number: u8) -> ReleaseRef {
    ReleaseRef {
        release: format!("{number:020x}").parse().unwrap(),
        artifact: format!("sha256:{number:064x}").parse().unwrap(),
    }
}

/// The number of a release, which is all that its id says.
pub(crate) fn number(release: &helix_routing::id::ReleaseId) -> u8 {
    let digits = release.as_str().get(18..).unwrap();
    u8::from_str_radix(digits, 16).unwrap()
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) without: Option<Safeguard>,
    pub(crate) dice: Dice,
    pub(crate) now: u64,
    agenda: BinaryHeap<Entry>,
    scheduled: u64,
    /// Writes of edges' disks, and whose the last was.
    writes: u32,
    /// How often regions came to each phase.
    entered: BTreeMap<usize, u32>,
    pub(crate) writer: usize,
    pub(crate) names: Names,
    pub(crate) edges: Vec<Edge>,
    pub(crate) origins: [Origin; 2],
    pub(crate) sql: Sql,
    pub(crate) stream: Stream,
    pub(crate) notes: Notes,
    pub(crate) counts: Counts,
    pub(crate) failure: Option<Failure>,
    pub(crate) is_healed: bool,
}

impl World {
    pub(crate) fn new(scenario: Scenario, without: Option<Safeguard>) -> Self {
        let names = Names::new(&scenario);
        let per_region = scenario.edges;
        let edges: Vec<Edge> = (0..names.edges.len())
            .map(|edge| Edge::new(edge / per_region))
            .collect();
        let blank: Vec<Rc<Published>> = names
            .regions
            .iter()
            .map(|region| Published::blank(&names.site, region))
            .collect();
        let mut world = Self {
            dice: scenario.dice(),
            without,
            now: 0,
            agenda: BinaryHeap::new(),
            scheduled: 0,
            writes: 0,
            entered: BTreeMap::new(),
            writer: 0,
            origins: [Origin::new(edges.len()), Origin::new(edges.len())],
            sql: Sql::new(blank),
            stream: Stream::new(names.regions.len()),
            notes: Notes::default(),
            counts: Counts::default(),
            failure: None,
            is_healed: false,
            names,
            edges,
            scenario,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.lead(0);
        let life = self.origins[1].life;
        self.due(LOOK, Due::Look { origin: 1, life });
        for edge in 0..self.edges.len() {
            self.start_edge(edge);
        }
        self.due(3_000, Due::Attention);
        for index in 0..self.scenario.deeds.len() {
            if let (When::At(at), _) = self.scenario.deeds[index] {
                self.due(at, Due::Deed(index));
            }
        }
    }

    /// So many milliseconds from now.
    pub(crate) fn due(&mut self, millis: u64, due: Due) {
        self.scheduled += 1;
        let key = (self.now + millis, self.scheduled);
        self.agenda.push(Entry(Reverse(key), due));
    }

    /// Runs to the end, or to the first check that fails.
    pub(crate) fn run(&mut self) {
        self.run_until(self.scenario.horizon, |_| false);
        self.heal();
        let (patience, quiet) = (self.now + PATIENCE, QUIET);
        self.run_until(patience, |world| {
            world.sql.running.is_none() && world.sql.tail.is_empty()
        });
        if self.failure.is_none() && self.sql.running.is_some() {
            let running = self
                .sql
                .running
                .as_ref()
                .map(|saved| format!("{:?}", saved.machine));
            self.fail(
                Check::Ends,
                format!("still running: {}", running.unwrap_or_default()),
            );
        }
        self.run_until(self.now + quiet, |_| false);
        if self.failure.is_none() {
            self.check_converged();
        }
    }

    fn run_until(&mut self, end: u64, is_enough: impl Fn(&Self) -> bool) {
        while self.failure.is_none() && !is_enough(self) {
            let Some(Entry(Reverse((at, _)), due)) = self.agenda.pop() else {
                break;
            };
            if at > end {
                self.scheduled += 1;
                self.agenda.push(Entry(Reverse((at, self.scheduled)), due));
                self.now = end;
                break;
            }
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

    /// Nothing goes wrong any more: everybody is up, connected and has room.
    fn heal(&mut self) {
        self.is_healed = true;
        for edge in &mut self.edges {
            edge.cut_until = 0;
            edge.full_until = 0;
        }
        for origin in &mut self.origins {
            origin.frozen_until = 0;
        }
        self.notes.calm_since = self.now;
    }

    /// An edge writes to its disk.
    pub(crate) fn at_write(&mut self, edge: usize) {
        self.writer = edge;
        self.writes += 1;
        self.at_moment(When::Write(self.writes));
    }

    /// What was planned for this moment.
    pub(crate) fn at_moment(&mut self, when: When) {
        for index in self.planned(when) {
            let (_, deed) = self.scenario.deeds[index];
            self.counts.pressed(when);
            self.perform(deed);
        }
    }

    /// A region comes to a phase. What is planned for that comes before the step is saved.
    pub(crate) fn at_phase(&mut self, phase: PhaseName) {
        let times = self.entered.entry(phase as usize).or_default();
        *times += 1;
        let when = When::Phase(phase, *times);
        for index in self.planned(when) {
            self.counts.pressed(when);
            self.due(0, Due::Deed(index));
        }
    }

    fn planned(&self, when: When) -> Vec<usize> {
        let deeds = self.scenario.deeds.iter().enumerate();
        let due = deeds.filter(|(_, (at, _))| *at == when && !self.is_healed);
        due.map(|(index, _)| index).collect()
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
