//! The whole of it as a state, what can happen next, and what always holds.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use helix_routing::id::{Epoch, Generation, RegionId};
use helix_routing::record::{ReleaseRef, SiteRecord};
use helix_routing::report::{CandidateState, SiteReport};
use helix_routing::rollout::{Command, Event, Fleet, Kind, Outcome, RegionFleet};
use helix_routing::time::Timestamp;
use stateright::{Model, Property};

use crate::edge::{Edge, Received};
use crate::origin::{Origin, Sql};

/// How much of everything a world has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) deploys: u8,
    pub(crate) rollbacks: u8,
    pub(crate) takeovers: u8,
    pub(crate) restarts: u8,
    pub(crate) failures: u8,
    pub(crate) deadlines: u8,
    pub(crate) collections: u8,
}

impl Budget {
    /// Whether a world with this budget has to reach the example.
    pub(crate) fn reaches(&self, example: &str) -> bool {
        match example {
            SETTLED => true,
            SUPERSEDED => self.rollbacks > 0,
            ABORTED => self.failures > 0,
            WENT_BACK => self.deadlines > 0,
            FENCED => self.takeovers > 0,
            COLLECTED => self.collections > 0 && self.failures > 0,
            _ => false,
        }
    }
}

/// What is taken away to see that something fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Safeguard {
    GenerationCompare,
    EpochFence,
    StreamTerm,
    BootId,
    Gate,
    PersistBeforeAct,
    CollectInOneTransaction,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    pub(crate) budget: Budget,
    pub(crate) without: Option<Safeguard>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) now: Timestamp,
    pub(crate) left: Budget,
    pub(crate) sql: Sql,
    /// The one that leads at first, and the one that takes over.
    pub(crate) origins: [Origin; 2],
    pub(crate) stream_term: Epoch,
    /// Every record that was ever on the stream: each may reach an edge now, again, late or never.
    pub(crate) published: Vec<SiteRecord>,
    pub(crate) edges: [Edge; 2],
    /// Every report that was ever sent, the same way.
    pub(crate) reports: Vec<SiteReport>,
    /// Origin has heard every edge in its present boot.
    pub(crate) knows_boots: bool,
    /// Somebody found that another leads.
    pub(crate) fenced: bool,
    /// What should never happen, and did.
    pub(crate) wrong: BTreeSet<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Start(usize, Kind),
    /// The standby raises the term in SQL, then that of the stream.
    TakeOver,
    RaiseStreamTerm,
    /// The publisher reads a record, and sends it.
    Read(usize, RegionId),
    Send(usize),
    Save(usize),
    Receive(usize, usize),
    Prepare(usize),
    FailGate(usize),
    Restart(usize),
    Report(usize, usize),
    Probe(usize, RegionId, Generation),
    PassDeadline,
    Collect(usize),
    Sweep(usize),
}

const SETTLED: &str = "sometimes a rollout settles";
const SUPERSEDED: &str = "sometimes one supersedes another";
const ABORTED: &str = "sometimes one is aborted";
const WENT_BACK: &str = "sometimes one goes back or needs a person";
const FENCED: &str = "sometimes the origin that was replaced is refused";
const COLLECTED: &str = "sometimes something is collected";

const CONFLICT: &str = "two records of one generation";
const UNPREPARED: &str = "committed before the edge was prepared in this boot";
const UNGATED: &str = "a release whose gate was not passed is live";
const BACKWARDS: &str = "the stream goes back";
const SETTLED_UNSEEN: &str = "settled where the edge serves another release";

pub(crate) fn release(number: u64) -> ReleaseRef {
    ReleaseRef {
        release: format!("{number:020x}").parse().unwrap(),
        artifact: format!("sha256:{number:064x}").parse().unwrap(),
    }
}

fn settled_record(region: &str) -> SiteRecord {
    let site = "shop/production".parse().unwrap();
    let mut record = SiteRecord::blank(site, region.parse().unwrap(), Epoch(1));
    record.generation = Generation(3);
    record.live_since = Generation(3);
    record.live = Some(release(0));
    record.previous = vec![release(9)];
    record
}

impl State {
    pub(crate) fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::default();
        for edge in &self.edges {
            let region: &mut RegionFleet = fleet.regions.entry(edge.region.clone()).or_default();
            let id = edge.report().edge;
            region.registered.insert(id.clone());
            region.live.insert(id.clone());
            if self.knows_boots {
                region.boots.insert(id, edge.report().boot);
            }
        }
        fleet
    }

    pub(crate) fn publish(&mut self, record: SiteRecord) {
        let of_region = self
            .published
            .iter()
            .filter(|known| known.region == record.region);
        let place = |record: &SiteRecord| (record.generation, record.epoch);
        let last = of_region.max_by_key(|known| place(known));
        if self.published.contains(&record) {
            if last.is_some_and(|last| *last != record) {
                self.wrong.insert(BACKWARDS);
            }
            return;
        }
        if last.is_some_and(|last| place(&record) <= place(last)) {
            self.wrong.insert(BACKWARDS);
        }
        self.published.push(record);
        self.published
            .sort_by_key(|record| (record.region.clone(), place(record)));
    }

    /// What a transaction is about to write, against how the edges are.
    pub(crate) fn check_writes(&mut self, commands: &[Command]) {
        for command in commands {
            match command {
                Command::Write(new) => self.check_write(new),
                Command::Settle {
                    region, release, ..
                } => {
                    let is_seen =
                        |edge: &Edge| edge.region != *region || edge.live == release.release;
                    if !self.edges.iter().all(is_seen) {
                        self.wrong.insert(SETTLED_UNSEEN);
                    }
                }
                _ => {}
            }
        }
    }

    fn check_write(&mut self, new: &SiteRecord) {
        let old = &self.sql.records[&new.region];
        if new.generation <= old.generation {
            self.wrong.insert(CONFLICT);
        }
        let is_forward = new.live != old.live && old.candidate == new.live;
        let live = &new.live.as_ref().unwrap().release;
        let edge = self
            .edges
            .iter()
            .find(|edge| edge.region == new.region)
            .unwrap();
        if is_forward && !edge.prepared.contains(live) {
            self.wrong.insert(UNPREPARED);
        }
    }

    fn receive(&mut self, index: usize, message: usize, without: Option<Safeguard>) {
        let record = self.published[message].clone();
        let compares = without != Some(Safeguard::GenerationCompare);
        match self.edges[index].receive(&record, compares) {
            Received::Taken => self.tell(index),
            Received::Ignored => {}
            Received::Conflict => {
                self.wrong.insert(CONFLICT);
            }
        }
    }

    /// The edge says how it stands; that it already said so changes nothing.
    fn tell(&mut self, index: usize) {
        let report = self.edges[index].report();
        if !self.reports.contains(&report) {
            self.reports.push(report);
            self.reports.sort_by_key(report_key);
        }
    }

    fn prepare(&mut self, index: usize) {
        if let Some(wanted) = self.edges[index].wanted().cloned()
            && self.sql.stored.contains(&wanted)
        {
            self.edges[index].prepare(wanted);
            self.tell(index);
        }
    }

    fn fail_gate(&mut self, index: usize, without: Option<Safeguard>) {
        let Some(wanted) = self.edges[index].wanted().cloned() else {
            return;
        };
        self.left.failures -= 1;
        self.edges[index].refused.insert(wanted.clone());
        if without == Some(Safeguard::Gate) {
            self.edges[index].prepare(wanted);
        }
        self.tell(index);
    }

    /// The edge answers a probe when it serves at least that generation.
    fn probe(
        &mut self,
        index: usize,
        region: &RegionId,
        generation: Generation,
        without: Option<Safeguard>,
    ) {
        let edge = self
            .edges
            .iter()
            .find(|edge| edge.region == *region)
            .unwrap();
        let event = Event::Proved {
            region: region.clone(),
            edge: edge.report().edge,
            generation: edge.serving,
            release: edge.live.clone(),
        };
        self.origins[index]
            .probes
            .remove(&(region.clone(), generation));
        self.step(index, &event, without);
    }

    fn pass_deadline(&mut self, without: Option<Safeguard>) {
        self.left.deadlines -= 1;
        self.now = self.now + Duration::from_secs(30);
        for index in 0..self.origins.len() {
            self.step(index, &Event::Tick, without);
        }
    }

    /// Nothing is on its way, and every edge has seen the newest record.
    fn is_quiet(&self) -> bool {
        let leads = self
            .origins
            .iter()
            .find(|origin| origin.epoch == self.sql.term);
        let has_seen = |edge: &Edge| edge.disk == self.sql.records[&edge.region];
        leads.is_some_and(|origin| {
            origin.is_up && origin.machine.is_none() && origin.unsaved.is_none()
        }) && self.sql.running.is_none()
            && self.edges.iter().all(has_seen)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.now.as_millis().hash(state);
        (self.left, self.stream_term, self.fenced).hash(state);
        self.wrong.hash(state);
        self.sql.hash(state);
        self.origins.hash(state);
        self.edges.hash(state);
        self.published
            .iter()
            .for_each(|record| hash_record(record, state));
        for report in &self.reports {
            report_key(report).hash(state);
        }
    }
}

/// A record by what the model changes of it.
pub(crate) fn hash_record<H: Hasher>(record: &SiteRecord, state: &mut H) {
    (
        &record.region,
        record.generation,
        record.epoch,
        record.live_since,
    )
        .hash(state);
    (&record.live, &record.candidate, &record.previous).hash(state);
}

/// A report by all that two of them can differ in, in an order of its own: which came first does not matter.
fn report_key(report: &SiteReport) -> impl Ord + Hash + use<> {
    let candidate = report.candidate.as_ref().map(|candidate| {
        let state = match candidate.state {
            CandidateState::Preparing => 0,
            CandidateState::Prepared => 1,
            CandidateState::Failed(_) => 2,
        };
        (candidate.release.to_string(), state)
    });
    let live = report.live.as_ref().map(ToString::to_string);
    (
        report.edge.to_string(),
        report.boot.to_string(),
        report.generation,
        report.serving,
        live,
        candidate,
    )
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let records = [settled_record("fra"), settled_record("iad")];
        vec![State {
            now: Timestamp::from_millis(1_000_000),
            left: self.budget,
            sql: Sql {
                term: Epoch(1),
                records: records
                    .iter()
                    .map(|record| (record.region.clone(), record.clone()))
                    .collect(),
                settled: records
                    .iter()
                    .map(|record| (record.region.clone(), release(0)))
                    .collect(),
                running: None,
                ended: Vec::new(),
                stored: [0, 1, 9].map(|number| release(number).release).into(),
            },
            origins: [Origin::new(Epoch(1), true), Origin::new(Epoch(0), false)],
            stream_term: Epoch(1),
            published: records.to_vec(),
            edges: [Edge::new(&records[0]), Edge::new(&records[1])],
            reports: Vec::new(),
            knows_boots: self.without != Some(Safeguard::BootId),
            fenced: false,
            wrong: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if !state.wrong.is_empty() {
            return;
        }
        for (index, origin) in state
            .origins
            .iter()
            .enumerate()
            .filter(|(_, origin)| origin.is_up)
        {
            origin_actions(state, index, origin, actions);
        }
        for (index, edge) in state.edges.iter().enumerate() {
            edge_actions(state, index, edge, actions);
        }
        if state.left.takeovers > 0 {
            actions.push(Action::TakeOver);
        }
        if state.stream_term < state.sql.term {
            actions.push(Action::RaiseStreamTerm);
        }
        if state.left.deadlines > 0 && state.origins.iter().any(|origin| origin.machine.is_some()) {
            actions.push(Action::PassDeadline);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let without = self.without;
        match action {
            Action::Start(index, kind) => {
                match kind {
                    Kind::Rollback => state.left.rollbacks -= 1,
                    _ => state.left.deploys -= 1,
                }
                state.start(index, kind, without);
            }
            Action::TakeOver => {
                state.left.takeovers -= 1;
                state.take_over(without);
            }
            Action::RaiseStreamTerm => state.stream_term = state.sql.term,
            Action::Read(index, region) => {
                state.origins[index].sending = Some(state.sql.records[&region].clone());
                // Between the two another can take over; where nobody does, they are one.
                if self.budget.takeovers == 0 {
                    state.send(index, without);
                }
            }
            Action::Send(index) => state.send(index, without),
            Action::Save(index) => state.save(index),
            Action::Receive(index, message) => state.receive(index, message, without),
            Action::Prepare(index) => state.prepare(index),
            Action::FailGate(index) => state.fail_gate(index, without),
            Action::Restart(index) => {
                state.left.restarts -= 1;
                state.edges[index].restart();
                state.tell(index);
            }
            Action::Report(index, message) => {
                let event = Event::Reported(state.reports[message].clone());
                state.step(index, &event, without);
            }
            Action::Probe(index, region, generation) => {
                state.probe(index, &region, generation, without)
            }
            Action::PassDeadline => state.pass_deadline(without),
            Action::Collect(index) => {
                state.left.collections -= 1;
                state.collect(index, without);
            }
            Action::Sweep(index) => state.sweep(index),
        }
        if state
            .edges
            .iter()
            .any(|edge| edge.refused.contains(&edge.live))
        {
            state.wrong.insert(UNGATED);
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing goes wrong", |_, state: &State| {
                state.wrong.is_empty()
            }),
            Property::always(
                "an edge serves only what it prepared or verified",
                |_, state: &State| {
                    state
                        .edges
                        .iter()
                        .all(|edge| edge.prepared.contains(&edge.live))
                },
            ),
            Property::always(
                "an edge's generation never decreases",
                |_, state: &State| state.edges.iter().all(|edge| edge.serving >= edge.highest),
            ),
            Property::always("nothing referenced is collected", |_, state: &State| {
                state.sql.referenced().is_subset(&state.sql.stored)
            }),
            Property::always(
                "once all is quiet, every edge serves its record",
                |_, state: &State| {
                    let serves = |edge: &Edge| {
                        edge.disk
                            .live
                            .as_ref()
                            .is_some_and(|live| live.release == edge.live)
                    };
                    !state.is_quiet() || state.edges.iter().all(serves)
                },
            ),
            Property::sometimes(SETTLED, |_, state: &State| {
                has_ended(state, &[Outcome::Settled])
            }),
            Property::sometimes(SUPERSEDED, |_, state: &State| {
                has_ended(state, &[Outcome::Superseded])
            }),
            Property::sometimes(ABORTED, |_, state: &State| {
                has_ended(state, &[Outcome::Aborted])
            }),
            Property::sometimes(WENT_BACK, |_, state: &State| {
                has_ended(state, &[Outcome::WentBack, Outcome::NeedsOperator])
            }),
            Property::sometimes(FENCED, |_, state: &State| state.fenced),
            Property::sometimes(COLLECTED, |_, state: &State| state.sql.stored.len() < 3),
        ]
    }
}

fn has_ended(state: &State, outcomes: &[Outcome]) -> bool {
    state
        .sql
        .ended
        .iter()
        .any(|outcome| outcomes.contains(outcome))
}

fn origin_actions(state: &State, index: usize, origin: &Origin, actions: &mut Vec<Action>) {
    if state.left.deploys > 0 {
        actions.push(Action::Start(index, Kind::Deploy));
    }
    if state.left.rollbacks > 0 && state.left.deploys == 0 {
        actions.push(Action::Start(index, Kind::Rollback));
    }
    if state.left.collections > 0 {
        actions.push(Action::Collect(index));
    }
    if origin.garbage.is_some() {
        actions.push(Action::Sweep(index));
    }
    if origin.unsaved.is_some() {
        actions.push(Action::Save(index));
        return;
    }
    if origin.sending.is_some() {
        actions.push(Action::Send(index));
    } else if origin.epoch <= state.stream_term {
        // The publisher begins after the stream's term is its own.
        let is_new = |record: &&SiteRecord| !state.published.contains(record);
        let unsent = state.sql.records.values().filter(is_new);
        actions.extend(unsent.map(|record| Action::Read(index, record.region.clone())));
    }
    if origin.machine.is_some() {
        actions.extend((0..state.reports.len()).map(|message| Action::Report(index, message)));
        let answered = origin.probes.iter().filter(|(region, generation)| {
            state
                .edges
                .iter()
                .any(|edge| edge.region == *region && edge.serving >= *generation)
        });
        actions.extend(
            answered.map(|(region, generation)| Action::Probe(index, region.clone(), *generation)),
        );
    }
}

fn edge_actions(state: &State, index: usize, edge: &Edge, actions: &mut Vec<Action>) {
    let to_edge = state
        .published
        .iter()
        .enumerate()
        .filter(|(_, record)| record.region == edge.region);
    actions.extend(to_edge.map(|(message, _)| Action::Receive(index, message)));
    if edge.wanted().is_some() {
        actions.push(Action::Prepare(index));
        if state.left.failures > 0 {
            actions.push(Action::FailGate(index));
        }
    }
    if state.left.restarts > 0 {
        actions.push(Action::Restart(index));
    }
}
