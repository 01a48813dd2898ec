//! Origin, the network and time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use helix_routing::id::{EdgeId, Epoch, Generation, RegionId, ReleaseId, SiteId};
use helix_routing::record::{ReleaseRef, SiteRecord};
use helix_routing::report::{SiteReport, WindowReport};
use helix_routing::rollout::{
    Command, Event, Fleet, Kind, Order, RegionFleet, RegionPlan, Rollout,
};
use helix_routing::time::Timestamp;

use crate::bakes::Bake;
use crate::edge::Edge;
use crate::stages::Staged;

pub(crate) const REGIONS: [&str; 2] = ["fra", "iad"];
const EDGES: usize = 3;
const RELEASES: u64 = 6;

/// Numbers from a seed (splitmix64): the same seed is the same run, on every machine.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(crate) fn pick(&mut self, length: usize) -> usize {
        usize::try_from(self.roll(length as u64)).unwrap()
    }

    pub(crate) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

pub(crate) enum Message {
    Record(usize, SiteRecord),
    Report(SiteReport),
    Probe(usize, Generation),
    Window(WindowReport),
    Ask(RegionId, usize),
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) now: Timestamp,
    pub(crate) site: SiteId,
    pub(crate) edges: Vec<Edge>,
    pub(crate) network: Vec<Message>,
    // Origin's SQL.
    pub(crate) epoch: Epoch,
    pub(crate) records: BTreeMap<RegionId, SiteRecord>,
    pub(crate) settled: BTreeMap<RegionId, ReleaseRef>,
    pub(crate) quarantined: BTreeSet<(RegionId, ReleaseId)>,
    pub(crate) stored: Option<String>,
    // Origin's memory.
    pub(crate) rollout: Option<Rollout>,
    pub(crate) started: u64,
    pub(crate) boots: u64,
    /// Edges that held their lease and their boot since the running rollout began.
    pub(crate) steady: BTreeSet<EdgeId>,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) bake: Bake,
    pub(crate) staged: Staged,
    /// Requests that were truly answered, by region, release and since when that was live.
    pub(crate) answered: BTreeMap<(RegionId, ReleaseId, Generation), u64>,
}

pub(crate) fn release(number: u64) -> ReleaseRef {
    ReleaseRef {
        release: format!("{number:020x}").parse().unwrap(),
        artifact: format!("sha256:{number:064x}").parse().unwrap(),
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let site: SiteId = "shop/production".parse().unwrap();
        let edges = REGIONS
            .iter()
            .flat_map(|region| (1..=EDGES).map(move |number| (region, number)));
        let edges = edges.map(|(region, number)| Edge {
            id: format!("{region}-{number}").parse().unwrap(),
            region: region.parse().unwrap(),
            boot: 0,
            up: true,
            leased: true,
            disk: None,
            prepared: BTreeSet::new(),
            failing: false,
            serving: Generation(0),
            live: None,
            highest: Generation(0),
            counted: None,
            before: None,
            canary: None,
            admitted: None,
        });
        let records = REGIONS.iter().map(|name| name.parse::<RegionId>().unwrap());
        Self {
            dice: Dice(seed),
            now: Timestamp::from_millis(1_000_000),
            records: records
                .map(|region| {
                    (
                        region.clone(),
                        SiteRecord::blank(site.clone(), region, Epoch(0)),
                    )
                })
                .collect(),
            site,
            edges: edges.collect(),
            network: Vec::new(),
            epoch: Epoch(1),
            settled: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            stored: None,
            rollout: None,
            started: 0,
            boots: 0,
            steady: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            bake: Bake::default(),
            staged: Staged::default(),
            answered: BTreeMap::new(),
        }
    }

    pub(crate) fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::default();
        for edge in &self.edges {
            let region: &mut RegionFleet = fleet.regions.entry(edge.region.clone()).or_default();
            region.registered.insert(edge.id.clone());
            if edge.leased {
                region.live.insert(edge.id.clone());
            }
        }
        fleet
    }

    pub(crate) fn start(&mut self, kind: Kind) {
        self.count_superseded();
        if let Some(mut running) = self.rollout.take() {
            let commands = running.step(self.now, &self.fleet(), &Event::Superseded);
            self.carry_out(commands);
        }
        self.started += 1;
        let number = self.dice.roll(RELEASES);
        self.bake = Bake {
            plan: self.bake_plan(),
            is_unanswered: self.dice.one_in(3),
            ..Bake::default()
        };
        self.staged = Staged::default();
        let plan = self.rollout_plan();
        if kind == Kind::Deploy {
            // Deployed with the word.
            let deployed = release(number).release;
            self.quarantined.retain(|(_, release)| *release != deployed);
        }
        let begins = |record: &&SiteRecord| kind != Kind::Restart || record.live.is_some();
        let plans = self
            .records
            .values()
            .filter(begins)
            .map(|record| RegionPlan {
                record: record.clone(),
                target: match kind {
                    Kind::Restart => record.live.clone().unwrap(),
                    Kind::Deploy => release(number),
                    Kind::Rollback => record
                        .previous
                        .first()
                        .cloned()
                        .unwrap_or_else(|| release(number)),
                },
                baseline: self.settled.get(&record.region).cloned(),
                is_baseline_quarantined: self.settled.get(&record.region).is_some_and(|settled| {
                    let here = (record.region.clone(), settled.release.clone());
                    self.quarantined.contains(&here)
                }),
                bytes: 0,
                gates: Duration::ZERO,
            });
        let order = Order {
            id: format!("{:016x}", self.started).parse().unwrap(),
            site: self.site.clone(),
            kind,
            epoch: self.epoch,
            plans: plans.collect(),
            bake: self.bake.plan.clone(),
            plan,
        };
        self.steady = self
            .edges
            .iter()
            .filter(|edge| edge.up && edge.leased)
            .map(|edge| edge.id.clone())
            .collect();
        let (rollout, commands) = Rollout::start(order, self.now, &self.fleet());
        self.rollout = Some(rollout);
        self.carry_out(commands);
    }

    pub(crate) fn step(&mut self, event: &Event) {
        let fleet = self.fleet();
        if let Some(rollout) = &mut self.rollout {
            let commands = rollout.step(self.now, &fleet, event);
            self.carry_out(commands);
        }
    }

    /// Persist, then act.
    pub(crate) fn carry_out(&mut self, commands: Vec<Command>) {
        if commands.iter().any(Command::is_durable) {
            let rollout = self.rollout.as_ref();
            self.stored = rollout.map(|rollout| serde_json::to_string(rollout).unwrap());
        }
        self.check_bakes();
        self.count_stages();
        for command in &commands {
            if let Command::Write(record) = command {
                self.check_write(record);
                self.check_staged(record);
                self.records.insert(record.region.clone(), record.clone());
            }
        }
        for command in commands {
            match command {
                Command::Write(record) => self.publish(&record.region),
                Command::Bake { .. } | Command::Plan => {}
                Command::Withdraw {
                    region,
                    left,
                    quarantine,
                } => self.check_withdrawal(region, left, quarantine.is_some()),
                Command::Republish { region } => self.publish(&region),
                Command::Settle {
                    region,
                    release,
                    generation,
                } => {
                    self.check_settled(&region, &release, generation);
                    self.check_baked(&region, &release);
                    self.settled.insert(region, release);
                }
                Command::Probe {
                    region,
                    edge,
                    generation,
                } => {
                    let index = self
                        .edges
                        .iter()
                        .position(|known| known.id == edge && known.region == region)
                        .unwrap();
                    self.network.push(Message::Probe(index, generation));
                }
                Command::Return {
                    region,
                    left,
                    to,
                    quarantine,
                } => {
                    self.check_return(&region, &left, &to, quarantine.as_deref());
                    if quarantine.is_some() {
                        self.quarantined.insert((region.clone(), left.release));
                    }
                    self.settled.insert(region, to);
                }
                Command::Ask { region, check, .. } => {
                    self.network.push(Message::Ask(region, check));
                }
                Command::Finish(outcome) => {
                    self.check_finished(outcome);
                    *self.outcomes.entry(format!("{outcome:?}")).or_default() += 1;
                    self.rollout = None;
                    self.stored = None;
                }
            }
        }
    }

    pub(crate) fn check_write(&self, new: &SiteRecord) {
        let old = &self.records[&new.region];
        assert_eq!(
            new.generation,
            old.generation.next(),
            "a write skips or repeats a generation"
        );
        assert!(
            new.live.is_some() || old.live.is_none(),
            "a site that had a live release lost it"
        );
        let is_forward = new.live != old.live && old.candidate == new.live;
        for edge in self
            .edges
            .iter()
            .filter(|edge| edge.region == new.region && self.steady.contains(&edge.id))
        {
            assert!(
                !is_forward || edge.prepared.contains(&new.live.as_ref().unwrap().release),
                "committed before {} was prepared",
                edge.id
            );
        }
    }

    pub(crate) fn check_settled(
        &self,
        region: &RegionId,
        release: &ReleaseRef,
        generation: Generation,
    ) {
        for edge in self
            .edges
            .iter()
            .filter(|edge| edge.region == *region && self.steady.contains(&edge.id))
        {
            assert!(
                edge.serving >= generation,
                "settled before {} served generation {generation}",
                edge.id
            );
            assert_eq!(
                edge.live.as_ref(),
                Some(&release.release),
                "{} serves another release",
                edge.id
            );
        }
    }

    pub(crate) fn publish(&mut self, region: &RegionId) {
        let record = self.records[region].clone();
        for (index, edge) in self.edges.iter().enumerate() {
            if edge.region == *region {
                self.network.push(Message::Record(index, record.clone()));
            }
        }
    }

    pub(crate) fn deliver(&mut self, message: Message) {
        match message {
            Message::Record(index, record) => {
                if self.edges[index].up
                    && let Some(report) = self.edges[index].receive(&self.site, &record)
                {
                    self.network.push(Message::Report(report));
                }
            }
            Message::Report(report) => self.step(&Event::Reported(report)),
            Message::Window(report) => self.step(&Event::Measured(Box::new(report))),
            Message::Ask(region, check) => self.answer(region, check),
            Message::Probe(index, generation) => {
                let edge = &self.edges[index];
                if !edge.up || edge.serving < generation {
                    self.network.push(Message::Probe(index, generation));
                } else if let Some(release) = edge.live.clone() {
                    let (region, edge, generation) =
                        (edge.region.clone(), edge.id.clone(), edge.serving);
                    self.step(&Event::Proved {
                        region,
                        edge,
                        generation,
                        release,
                    });
                }
            }
        }
    }

    pub(crate) fn restart_origin(&mut self) {
        self.epoch = self.epoch.next();
        self.network
            .retain(|message| !matches!(message, Message::Probe(..) | Message::Ask(..)));
        if let Some(stored) = &self.stored {
            let mut rollout: Rollout = serde_json::from_str(stored).unwrap();
            let commands = rollout.resume(self.epoch, self.now, &self.fleet());
            self.rollout = Some(rollout);
            self.carry_out(commands);
        }
    }

    pub(crate) fn fault(&mut self) {
        let index = self.dice.pick(self.edges.len());
        let edge = &mut self.edges[index];
        match self.dice.roll(5) {
            0 => {
                self.boots += 1;
                edge.restart(self.boots);
            }
            1 => edge.up = !edge.up,
            2 => edge.leased = !edge.leased,
            3 => edge.failing = self.dice.one_in(3),
            _ => return self.restart_origin(),
        }
        self.steady.remove(&self.edges[index].id);
        self.step(&Event::Tick);
    }

    /// Something is live, and nothing runs that a restart would end.
    fn may_restart(&self) -> bool {
        let running = self.rollout.as_ref().map(Rollout::kind);
        self.records.values().any(|record| record.live.is_some())
            && running.is_none_or(|kind| kind == Kind::Restart)
    }

    pub(crate) fn random_step(&mut self) {
        match self.dice.roll(40) {
            0 if self.rollout.is_none() || self.dice.one_in(48) => self.start(Kind::Deploy),
            1 if self.dice.one_in(48) => self.start(Kind::Rollback),
            39 if self.dice.one_in(8) && self.may_restart() => self.start(Kind::Restart),
            2 if self.dice.one_in(2) => self.fault(),
            3..=5 => {
                self.now = self.now + Duration::from_millis(self.dice.roll(2_000));
                self.step(&Event::Tick);
            }
            15..=17 => self.serve(),
            18 => self.control(),
            19..=20 => self.tell_windows(),
            6..=14 => {
                let index = self.dice.pick(self.edges.len());
                self.edges[index].fetch_one();
                if self.edges[index].up && self.edges[index].disk.is_some() {
                    let report = self.edges[index].report(&self.site);
                    self.network.push(Message::Report(report));
                }
            }
            _ if self.network.is_empty() => {}
            _ => {
                let index = self.dice.pick(self.network.len());
                let message = self.network.swap_remove(index);
                let kept = self.dice.one_in(8);
                if kept {
                    self.network.push(copy(&message));
                }
                let is_lost = !matches!(message, Message::Probe(..)) && self.dice.one_in(8);
                if !is_lost {
                    self.deliver(message);
                }
            }
        }
    }

    /// The faults stop: everything is up and answers.
    pub(crate) fn heal(&mut self) {
        for edge in &mut self.edges {
            edge.up = true;
            edge.leased = true;
            edge.failing = false;
        }
        let is_busy = self.dice.one_in(2);
        for round in 0..600 {
            if self.rollout.is_none() && round > 60 {
                break;
            }
            self.let_it_go_on();
            for region in REGIONS {
                self.publish(&region.parse().unwrap());
            }
            for message in std::mem::take(&mut self.network) {
                self.deliver(message);
            }
            if is_busy {
                self.serve();
            }
            for index in 0..self.edges.len() {
                self.edges[index].fetch_one();
                if self.edges[index].disk.is_some() {
                    let report = self.edges[index].report(&self.site);
                    self.step(&Event::Reported(report));
                }
                for report in self.edges[index].window_reports(&self.site) {
                    self.step(&Event::Measured(Box::new(report)));
                }
            }
            self.now = self.now + Duration::from_secs(1);
            self.step(&Event::Tick);
        }
        assert!(self.rollout.is_none(), "still running: {:?}", self.rollout);
        for edge in &self.edges {
            let record = &self.records[&edge.region];
            assert_eq!(
                edge.live,
                record.live.as_ref().map(|live| live.release.clone()),
                "{} did not converge",
                edge.id
            );
            assert_eq!(
                edge.serving, record.generation,
                "{} did not converge",
                edge.id
            );
        }
    }
}

fn copy(message: &Message) -> Message {
    match message {
        Message::Record(index, record) => Message::Record(*index, record.clone()),
        Message::Report(report) => Message::Report(report.clone()),
        Message::Probe(index, generation) => Message::Probe(*index, *generation),
        Message::Window(report) => Message::Window(report.clone()),
        Message::Ask(region, check) => Message::Ask(region.clone(), *check),
    }
}
