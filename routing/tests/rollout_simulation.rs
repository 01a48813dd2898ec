//! The rollout machine against model edges, over a network that drops, repeats and reorders, with
//! processes that restart at any moment. After every step the invariants of ARCHITECTURE.md hold;
//! once the faults stop, every rollout ends and every edge serves what its record names.
//!
//! `HELIX_SIM_SEED=<n>` runs one seed, `HELIX_SIM_SEEDS=<n>` that many.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may stop here, and names its seed"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use helix_routing::id::{BootId, EdgeId, Epoch, Generation, RegionId, ReleaseId, SiteId};
use helix_routing::record::{self, ReleaseRef, SiteRecord};
use helix_routing::report::{CandidateReport, CandidateState, SiteReport};
use helix_routing::rollout::{
    Command, Event, Fleet, Kind, Order, Outcome, RegionFleet, RegionPlan, Rollout,
};
use helix_routing::time::Timestamp;

const REGIONS: [&str; 2] = ["fra", "iad"];
const EDGES: usize = 3;
const RELEASES: u64 = 6;
const STEPS: usize = 1_500;

/// Numbers from a seed (splitmix64): the same seed is the same run, on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick(&mut self, length: usize) -> usize {
        usize::try_from(self.roll(length as u64)).unwrap()
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// An edge as ARCHITECTURE.md describes it, without bytes: what is on disk survives a restart, what was
/// prepared in this boot does not.
struct Edge {
    id: EdgeId,
    region: RegionId,
    boot: u64,
    up: bool,
    leased: bool,
    disk: Option<SiteRecord>,
    prepared: BTreeSet<ReleaseId>,
    failing: bool,
    serving: Generation,
    live: Option<ReleaseId>,
    highest: Generation,
}

impl Edge {
    fn boot_id(&self) -> BootId {
        format!("{:016x}", self.boot).parse().unwrap()
    }

    fn receive(&mut self, site: &SiteId, new: &SiteRecord) -> Option<SiteReport> {
        let held = self
            .disk
            .as_ref()
            .map(|held| (held.epoch, held.generation, format!("{held:?}")));
        let body = format!("{new:?}");
        let held = held
            .as_ref()
            .map(|(epoch, generation, body)| (*epoch, *generation, body.as_bytes()));
        match record::order(held, (new.epoch, new.generation, body.as_bytes())) {
            record::Order::Newer => {
                self.disk = Some(new.clone());
                self.reconcile();
            }
            record::Order::Same => {}
            record::Order::Older => return None,
            record::Order::Conflict => panic!("two records of one generation: {new:?}"),
        }
        Some(self.report(site))
    }

    /// One fetch ends: of what is live first, then of the candidate.
    fn fetch_one(&mut self) {
        let Some(disk) = &self.disk else { return };
        let wanted = disk
            .live
            .iter()
            .chain(&disk.candidate)
            .find(|wanted| !self.prepared.contains(&wanted.release));
        if let Some(wanted) = wanted
            && !self.failing
        {
            self.prepared.insert(wanted.release.clone());
        }
        self.reconcile();
    }

    fn reconcile(&mut self) {
        let Some(disk) = &self.disk else { return };
        let live = disk.live.as_ref().map(|live| live.release.clone());
        if live
            .as_ref()
            .is_none_or(|live| self.prepared.contains(live))
        {
            self.serving = disk.generation;
            self.live = live;
            assert!(
                self.serving >= self.highest,
                "{}: generation went from {} to {}",
                self.id,
                self.highest,
                self.serving
            );
            self.highest = self.serving;
        }
    }

    fn restart(&mut self, next_boot: u64) {
        self.boot = next_boot;
        self.up = true;
        self.prepared.clear();
        // Verified from disk: what is live there was fetched in an earlier boot.
        if let Some(live) = &self.live {
            self.prepared.insert(live.clone());
        }
    }

    fn report(&self, site: &SiteId) -> SiteReport {
        let disk = self.disk.as_ref().unwrap();
        let candidate = disk.candidate.as_ref().map(|candidate| CandidateReport {
            release: candidate.release.clone(),
            state: if self.prepared.contains(&candidate.release) {
                CandidateState::Prepared
            } else if self.failing {
                CandidateState::Failed("no space left on device".to_owned())
            } else {
                CandidateState::Preparing
            },
        });
        SiteReport {
            edge: self.id.clone(),
            region: self.region.clone(),
            boot: self.boot_id(),
            site: site.clone(),
            generation: disk.generation,
            serving: self.serving,
            live: self.live.clone(),
            candidate,
        }
    }
}

enum Message {
    Record(usize, SiteRecord),
    Report(SiteReport),
    Probe(usize, Generation),
}

struct World {
    dice: Dice,
    now: Timestamp,
    site: SiteId,
    edges: Vec<Edge>,
    network: Vec<Message>,
    // Origin's SQL.
    epoch: Epoch,
    records: BTreeMap<RegionId, SiteRecord>,
    settled: BTreeMap<RegionId, ReleaseRef>,
    stored: Option<String>,
    // Origin's memory.
    rollout: Option<Rollout>,
    started: u64,
    boots: u64,
    /// Edges that held their lease and their boot since the running rollout began.
    steady: BTreeSet<EdgeId>,
    outcomes: BTreeMap<String, u64>,
}

fn release(number: u64) -> ReleaseRef {
    ReleaseRef {
        release: format!("{number:020x}").parse().unwrap(),
        artifact: format!("sha256:{number:064x}").parse().unwrap(),
    }
}

impl World {
    fn new(seed: u64) -> Self {
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
            stored: None,
            rollout: None,
            started: 0,
            boots: 0,
            steady: BTreeSet::new(),
            outcomes: BTreeMap::new(),
        }
    }

    fn fleet(&self) -> Fleet {
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

    fn start(&mut self, kind: Kind) {
        if let Some(mut running) = self.rollout.take() {
            let commands = running.step(self.now, &self.fleet(), &Event::Superseded);
            self.carry_out(commands);
        }
        self.started += 1;
        let number = self.dice.roll(RELEASES);
        let plans = self.records.values().map(|record| RegionPlan {
            record: record.clone(),
            target: match kind {
                Kind::Deploy => release(number),
                Kind::Rollback => record
                    .previous
                    .first()
                    .cloned()
                    .unwrap_or_else(|| release(number)),
            },
            baseline: self.settled.get(&record.region).cloned(),
            bytes: 0,
            gates: Duration::ZERO,
        });
        let order = Order {
            id: format!("{:016x}", self.started).parse().unwrap(),
            site: self.site.clone(),
            kind,
            epoch: self.epoch,
            plans: plans.collect(),
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

    fn step(&mut self, event: &Event) {
        let fleet = self.fleet();
        if let Some(rollout) = &mut self.rollout {
            let commands = rollout.step(self.now, &fleet, event);
            self.carry_out(commands);
        }
    }

    /// Persist, then act.
    fn carry_out(&mut self, commands: Vec<Command>) {
        self.stored = self
            .rollout
            .as_ref()
            .map(|rollout| serde_json::to_string(rollout).unwrap());
        for command in &commands {
            if let Command::Write(record) = command {
                self.check_write(record);
                self.records.insert(record.region.clone(), record.clone());
            }
        }
        for command in commands {
            match command {
                Command::Write(record) => self.publish(&record.region),
                Command::Republish { region } => self.publish(&region),
                Command::Settle {
                    region,
                    release,
                    generation,
                } => {
                    self.check_settled(&region, &release, generation);
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
                Command::Finish(outcome) => {
                    *self.outcomes.entry(format!("{outcome:?}")).or_default() += 1;
                    self.rollout = None;
                    self.stored = None;
                }
            }
        }
    }

    fn check_write(&self, new: &SiteRecord) {
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

    fn check_settled(&self, region: &RegionId, release: &ReleaseRef, generation: Generation) {
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

    fn publish(&mut self, region: &RegionId) {
        let record = self.records[region].clone();
        for (index, edge) in self.edges.iter().enumerate() {
            if edge.region == *region {
                self.network.push(Message::Record(index, record.clone()));
            }
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Record(index, record) => {
                if self.edges[index].up
                    && let Some(report) = self.edges[index].receive(&self.site, &record)
                {
                    self.network.push(Message::Report(report));
                }
            }
            Message::Report(report) => self.step(&Event::Reported(report)),
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

    fn restart_origin(&mut self) {
        self.epoch = self.epoch.next();
        self.network
            .retain(|message| !matches!(message, Message::Probe(..)));
        if let Some(stored) = &self.stored {
            let mut rollout: Rollout = serde_json::from_str(stored).unwrap();
            let commands = rollout.resume(self.epoch, self.now, &self.fleet());
            self.rollout = Some(rollout);
            self.carry_out(commands);
        }
    }

    fn fault(&mut self) {
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

    fn random_step(&mut self) {
        match self.dice.roll(40) {
            0 if self.rollout.is_none() || self.dice.one_in(48) => self.start(Kind::Deploy),
            1 if self.dice.one_in(48) => self.start(Kind::Rollback),
            2 if self.dice.one_in(2) => self.fault(),
            3..=5 => {
                self.now = self.now + Duration::from_millis(self.dice.roll(2_000));
                self.step(&Event::Tick);
            }
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
    fn heal(&mut self) {
        for edge in &mut self.edges {
            edge.up = true;
            edge.leased = true;
            edge.failing = false;
        }
        for _ in 0..200 {
            for region in REGIONS {
                self.publish(&region.parse().unwrap());
            }
            for message in std::mem::take(&mut self.network) {
                self.deliver(message);
            }
            for index in 0..self.edges.len() {
                self.edges[index].fetch_one();
                if self.edges[index].disk.is_some() {
                    let report = self.edges[index].report(&self.site);
                    self.step(&Event::Reported(report));
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
    }
}

fn run(seed: u64) -> BTreeMap<String, u64> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.random_step();
    }
    world.heal();
    world.outcomes
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn invariants_hold_whatever_is_lost_repeated_or_restarted() {
    if let Some(seed) = number("HELIX_SIM_SEED") {
        run(seed);
        return;
    }
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..number("HELIX_SIM_SEEDS").unwrap_or(1_000) {
        let result = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|cause| {
            eprintln!("seed {seed} failed; run it again with HELIX_SIM_SEED={seed}");
            std::panic::resume_unwind(cause)
        });
        for (outcome, count) in result {
            *outcomes.entry(outcome).or_default() += count;
        }
    }
    // A simulation that never reaches an end proves nothing about it.
    for outcome in [
        Outcome::Settled,
        Outcome::WentBack,
        Outcome::Aborted,
        Outcome::Superseded,
        Outcome::NeedsOperator,
    ] {
        assert!(
            outcomes.contains_key(&format!("{outcome:?}")),
            "{outcome:?} was never reached: {outcomes:?}"
        );
    }
}
