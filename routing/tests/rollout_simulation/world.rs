//! The whole of it: who there is, how a story runs, and the moments at which something is planned.
//!
//! Time goes from one thing that happens to the next. What happens is drawn from the seed alone, so a seed is one run.

use std::collections::BTreeMap;
use std::rc::Rc;

use helix_routing::api::PhaseName;

use crate::agenda::{Agenda, Due, InOrigin};
use crate::checks::{Check, Failure};
use crate::counts::Counts;
use crate::dice::Dice;
use crate::edges::Edge;
use crate::names::Names;
use crate::notes::Notes;
use crate::origins::{LOOK, Origin};
use crate::publisher::{Published, Stream};
use crate::scenario::{Safeguard, Scenario, When};
use crate::sql::Sql;

/// Once nothing goes wrong any more, whatever runs has to end within this.
const PATIENCE: u64 = 400_000;
/// And then all has to be quiet within this: a slow fetch and two looks at the feed.
const QUIET: u64 = 40_000;

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) without: Option<Safeguard>,
    pub(crate) dice: Dice,
    pub(crate) now: u64,
    pub(crate) agenda: Agenda,
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
    /// The version of the page that visitors of purged sites ask for.
    pub(crate) page: u64,
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
            agenda: Agenda::default(),
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
            page: 0,
            names,
            edges,
            scenario,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.lead(0);
        self.due_in_origin(LOOK, 1, InOrigin::Look);
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

    /// Runs to the end, or to the first check that fails.
    pub(crate) fn run(&mut self) {
        self.run_until(self.scenario.horizon, |_| false);
        self.heal();
        let (patience, quiet) = (self.now + PATIENCE, QUIET);
        self.run_until(patience, |world| {
            world.sql.running.is_none() && world.sql.tail.is_empty()
        });
        if self.failure.is_none() && self.sql.running.is_some() {
            let running = self.sql.running.as_ref().map(|saved| &saved.machine);
            let text = format!("still running: {running:?}");
            self.fail(Check::Ends, text);
        }
        self.run_until(self.now + quiet, |_| false);
        if self.failure.is_none() {
            self.check_converged();
            self.check_taken_over();
            self.check_told();
            self.check_pins();
            self.check_routed();
            self.check_purged();
        }
    }

    /// Nothing goes wrong any more: everybody is up, connected and has room.
    fn heal(&mut self) {
        self.is_healed = true;
        for edge in 0..self.edges.len() {
            let this = &mut self.edges[edge];
            this.cut_until = 0;
            this.deaf_until = 0;
            this.full_until = 0;
            self.hurry(edge);
        }
        for origin in [0, 1] {
            self.origins[origin].dead_until = 0;
            if !self.origins[origin].is_up {
                self.due(1_000, Due::OriginStarts(origin));
            }
        }
        self.begin_deadlines_anew();
    }

    /// Something happened that may set deadlines anew, or hold up whoever keeps them.
    pub(crate) fn begin_deadlines_anew(&mut self) {
        let frozen = self.origins.iter().map(|origin| origin.frozen_until);
        self.notes.calm_since = frozen.fold(self.now, u64::max);
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
