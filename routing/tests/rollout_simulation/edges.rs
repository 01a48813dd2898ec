//! A model edge, without bytes: what is synced to its disk survives a crash, what it prepared in a boot does not.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use helix_routing::glass::{LocalOverride, Overrides};
use helix_routing::id::{Epoch, Generation};
use helix_routing::record::HostRecord;
use helix_routing::report::{CandidateReport, CandidateState, SiteReport};

use crate::agenda::{Due, OnEdge};
use crate::clocks::Clock;
use crate::disk::Disk;
use crate::glass::Glass;
use crate::names::number;
use crate::network::Message;
use crate::publisher::Published;
use crate::purges::{Kept, Purging};
use crate::roster::boot_id;
use crate::scenario::Safeguard;
use crate::serving::Counting;
use crate::sides::{Beside, Key};
use crate::world::World;

const HEARTBEAT: u64 = 5_000;

/// What requests are answered under.
#[derive(Clone, Copy, Default)]
pub(crate) struct Served {
    pub(crate) generation: Generation,
    pub(crate) live_since: Generation,
}

/// How far the candidate's gate is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    #[default]
    Ahead,
    Running,
    Passed,
    Failed(&'static str),
}

pub(crate) struct Edge {
    pub(crate) region: usize,
    pub(crate) boot: u32,
    pub(crate) is_up: bool,
    pub(crate) cut_until: u64,
    pub(crate) deaf_until: u64,
    pub(crate) full_until: u64,
    pub(crate) clock: Clock,
    pub(crate) records: Disk<Rc<Published>>,
    pub(crate) overrides: Disk<Overrides>,
    pub(crate) sides: BTreeMap<Key, Disk<Rc<Beside>>>,
    /// The highest term of an origin seen.
    pub(crate) led_in: Epoch,
    /// Artifacts on disk, and whether they are whole there.
    pub(crate) artifacts: BTreeMap<u8, bool>,
    pub(crate) memory: Memory,
    /// Ghosts, that only checks look at: the highest generation it served under, the highest that it said it serves.
    pub(crate) highest: Generation,
    pub(crate) reported: Generation,
    pub(crate) has_served: bool,
    /// And the override that somebody was told of, the releases and cutovers it ever overrode with and after, with the end of
    /// that, and the cutovers after which it took itself back.
    pub(crate) answered: Option<LocalOverride>,
    pub(crate) made: BTreeMap<(u8, Generation), u64>,
    pub(crate) guarded: BTreeSet<Generation>,
    pub(crate) kept: Option<Kept>,
    pub(crate) routes: BTreeMap<u8, HostRecord>,
    /// The newest purge that it has said it has forgotten.
    pub(crate) purged: u64,
    /// What it was told of itself last, and by which record; restarts take it from disk.
    pub(crate) told: Generation,
    pub(crate) drains: bool,
    pub(crate) back_at: u64,
    sent: u64,
}

/// What a restart takes.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) record: Option<Rc<Published>>,
    pub(crate) served: Served,
    /// Fetched or verified in this boot.
    pub(crate) held: BTreeSet<u8>,
    pub(crate) fetching: Option<u8>,
    pub(crate) gate: Gate,
    /// Counts candidates as records name them: a gate that was begun for another one is void.
    pub(crate) naming: u32,
    pub(crate) live: Option<u8>,
    pub(crate) told_until: u64,
    pub(crate) counting: Counting,
    pub(crate) in_flight: Vec<u8>,
    pub(crate) glass: Glass,
    /// Pinned, and on its way.
    pub(crate) pins: BTreeSet<u8>,
    pub(crate) purging: Purging,
    /// When the last beacon came.
    pub(crate) heard_at: u64,
}

impl Edge {
    pub(crate) fn new(region: usize) -> Self {
        Self {
            region,
            boot: 0,
            is_up: false,
            cut_until: 0,
            deaf_until: 0,
            full_until: 0,
            clock: Clock::default(),
            records: Disk::new(),
            overrides: Disk::new(),
            sides: BTreeMap::new(),
            led_in: Epoch(0),
            told: Generation(0),
            drains: false,
            back_at: 0,
            kept: None,
            routes: BTreeMap::new(),
            purged: 0,
            artifacts: BTreeMap::new(),
            memory: Memory::default(),
            highest: Generation(0),
            reported: Generation(0),
            has_served: false,
            answered: None,
            made: BTreeMap::new(),
            guarded: BTreeSet::new(),
            sent: 0,
        }
    }

    /// One connection keeps the order of what is said.
    pub(crate) const fn next_sent(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// The generation that requests are answered under.
    pub(crate) const fn serving(&self) -> Generation {
        self.memory.served.generation
    }

    pub(crate) fn candidate(&self) -> Option<u8> {
        let record = &self.memory.record.as_ref()?.record;
        record
            .candidate
            .as_ref()
            .map(|named| number(&named.release))
    }

    /// It has the release, and its gate was passed.
    pub(crate) fn is_prepared(&self, release: u8) -> bool {
        let is_candidate = self.candidate() == Some(release);
        self.memory.held.contains(&release) && (!is_candidate || self.memory.gate == Gate::Passed)
    }

    /// What is or was live is served as long as what is wanted is not here: the latest of it that is. Whether any is.
    fn stand_in(&mut self, record: &Published) -> bool {
        let held = &self.memory.held;
        if self
            .wanted(&record.record)
            .is_none_or(|wanted| held.contains(&wanted))
        {
            return false;
        }
        let were_live = record.record.live.iter().chain(&record.record.previous);
        let mut were_live = were_live.map(|live| number(&live.release));
        let latest = were_live.find(|latest| held.contains(latest));
        let generation = if latest.is_some() && latest == live(record) {
            record.record.generation
        } else {
            Generation(record.record.live_since.0.saturating_sub(1))
        };
        self.memory.live = latest;
        self.memory.served = Served {
            generation,
            live_since: generation,
        };
        latest.is_some()
    }

    /// What is on disk and named by nothing goes.
    pub(crate) fn evict(&mut self) {
        let memory = &mut self.memory;
        let named = memory.record.iter();
        let named = named.flat_map(|kept| kept.record.releases());
        let mut kept: BTreeSet<u8> = named.map(|named| number(&named.release)).collect();
        kept.extend(memory.live);
        let local = memory.glass.local.iter();
        kept.extend(local.map(|local| number(&local.release.release)));
        kept.extend(memory.fetching);
        kept.extend(&memory.in_flight);
        self.artifacts.retain(|release, _| kept.contains(release));
        memory.held.retain(|release| kept.contains(release));
    }
}

impl World {
    /// It starts from its disk: what is there is verified, and what is torn is thrown away.
    pub(crate) fn start_edge(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        this.is_up = true;
        let on_disk = this.artifacts.len();
        this.artifacts.retain(|_, is_whole| *is_whole);
        self.counts.found_torn(this.artifacts.len() < on_disk);
        this.memory = Memory {
            held: this.artifacts.keys().copied().collect(),
            glass: Glass::restored(this.overrides.synced().cloned().unwrap_or_default()),
            heard_at: self.now,
            ..Memory::default()
        };
        if let Some(record) = this.records.synced().map(Rc::clone) {
            self.overrule(edge, &record.record);
            let this = &mut self.edges[edge];
            let stands_in = this.stand_in(&record);
            this.memory.record = Some(record);
            self.counts.stood_in(stands_in);
            self.reconcile(edge);
            self.work(edge);
        }
        self.restore_sides(edge);
        self.restore_page(edge);
        self.check_started(edge);
        self.check_restored(edge);
        self.due_on_edge(10, edge, OnEdge::Repair);
        self.due_on_edge(50, edge, OnEdge::Heartbeat);
        self.due_on_edge(1_000, edge, OnEdge::Serve);
    }

    pub(crate) fn kill_edge(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        if !this.is_up {
            return;
        }
        this.is_up = false;
        this.boot += 1;
        let is_torn = this.records.crash(&mut self.dice);
        this.overrides.crash(&mut self.dice);
        for disk in this.sides.values_mut() {
            disk.crash(&mut self.dice);
        }
        for is_whole in this.artifacts.values_mut() {
            *is_whole |= self.dice.one_in(2);
        }
        self.counts.lost_record(is_torn);
        self.notes.left(edge);
        let millis = self.dice.between(200, 6_000);
        self.due(millis, Due::EdgeStarts(edge));
    }

    pub(crate) fn beat(&mut self, edge: usize) {
        self.check_ready(edge);
        let this = &mut self.edges[edge];
        let (sent, boot) = (this.next_sent(), this.boot);
        let is_ready = this.memory.record.as_ref().is_none_or(|record| {
            let is_wanted = this.memory.live == this.wanted(&record.record);
            record.record.generation == this.serving() && is_wanted
        });
        self.send(Message::Heartbeat {
            edge,
            boot,
            is_ready,
            sent,
        });
        if self.edges[edge].overriding().is_some() {
            self.tell_override(edge);
        }
        self.due_on_edge(HEARTBEAT, edge, OnEdge::Heartbeat);
    }

    pub(crate) fn report(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let Some(record) = &this.memory.record else {
            return;
        };
        let is_gated = self.without != Some(Safeguard::Gate);
        let candidate = record
            .record
            .candidate
            .as_ref()
            .map(|named| CandidateReport {
                release: named.release.clone(),
                state: match this.memory.gate {
                    Gate::Failed(reason) if is_gated => CandidateState::Failed(reason.to_owned()),
                    Gate::Passed | Gate::Failed(_) => CandidateState::Prepared,
                    Gate::Ahead | Gate::Running => CandidateState::Preparing,
                },
            });
        let serving = this.serving();
        let live = this.memory.live.map(usize::from);
        let report = SiteReport {
            edge: self.names.edges[edge].clone(),
            region: self.names.regions[this.region].clone(),
            boot: boot_id(this.boot),
            site: self.names.site.clone(),
            generation: record.record.generation,
            serving,
            live: live.map(|live| self.names.releases[live].release.clone()),
            candidate,
        };
        this.reported = this.reported.max(serving);
        let boot = this.boot;
        self.send(Message::Report { edge, boot, report });
    }
}

pub(crate) fn live(record: &Published) -> Option<u8> {
    let live = record.record.live.as_ref();
    live.map(|live| number(&live.release))
}

pub(crate) fn live_of(edge: &Edge) -> Option<u8> {
    edge.memory.record.as_ref().and_then(|record| live(record))
}
