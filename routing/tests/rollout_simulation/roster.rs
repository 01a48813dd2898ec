//! Who is in the fleet, as one origin has heard: leases by its own clock, and the boot that each edge was last heard in.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use helix_routing::id::BootId;
use helix_routing::rollout::{Event, Fleet, RegionFleet};
use helix_routing::time::Timestamp;

use crate::adoption::Said;
use crate::scenario::Safeguard;
use crate::world::World;

const LEASE: Duration = Duration::from_secs(15);

/// What was heard of one edge.
#[derive(Clone, Copy)]
struct Seen {
    at: Timestamp,
    boot: u32,
    sent: u64,
    has_joined: bool,
}

pub(crate) struct Roster {
    seen: Vec<Option<Seen>>,
    /// What edges said of their overrides.
    pub(crate) said: BTreeMap<usize, Said>,
    /// Edges that are taken out, and since when that is known here.
    pub(crate) drained: BTreeMap<usize, u64>,
    out: Vec<bool>,
    /// Until then an edge that was not heard of counts.
    grace_until: Timestamp,
    /// What was true when it was last looked at.
    fleet: Rc<Fleet>,
    live: Vec<bool>,
    boots: Vec<Option<u32>>,
}

impl Roster {
    pub(crate) fn new(edges: usize) -> Self {
        Self {
            seen: vec![None; edges],
            said: BTreeMap::new(),
            drained: BTreeMap::new(),
            out: Vec::new(),
            grace_until: Timestamp::from_millis(0),
            fleet: Rc::default(),
            live: Vec::new(),
            boots: Vec::new(),
        }
    }

    /// A process that begins knows who is registered, and waits one lease for each of them.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        self.seen.fill(None);
        self.said.clear();
        self.drained.clear();
        self.live.clear();
        self.grace_until = now + LEASE;
    }

    fn is_live(&self, edge: usize, now: Timestamp) -> bool {
        let is_leased = |seen: &Seen| seen.has_joined && now.since(seen.at) < LEASE;
        self.seen[edge].as_ref().is_some_and(is_leased)
            || (self.seen[edge].is_none() && now < self.grace_until)
    }

    /// The boot that it was last heard in.
    pub(crate) fn boot(&self, edge: usize) -> Option<u32> {
        self.seen[edge].map(|seen| seen.boot)
    }
}

pub(crate) fn boot_id(boot: u32) -> BootId {
    format!("{boot:016x}").parse().unwrap()
}

impl World {
    /// An edge shows that it lives. One connection at a time keeps its order.
    pub(crate) fn heard_heartbeat(
        &mut self,
        origin: usize,
        edge: usize,
        heartbeat: (u32, bool, u64),
    ) {
        let (boot, is_ready, sent) = heartbeat;
        let now = self.origins[origin].clock.read(self.now);
        let seen = &mut self.origins[origin].roster.seen[edge];
        if seen.is_some_and(|seen| seen.sent >= sent) {
            return;
        }
        let had_joined = seen.is_some_and(|seen| seen.boot == boot && seen.has_joined);
        *seen = Some(Seen {
            at: now,
            boot,
            sent,
            has_joined: had_joined || is_ready,
        });
        // It says again in each boot what stands.
        let said = &mut self.origins[origin].roster.said;
        said.retain(|by, said| *by != edge || said.boot == boot);
        self.look_at_fleet(origin);
    }

    /// Tells the driver when the fleet is another than it was.
    pub(crate) fn look_at_fleet(&mut self, origin: usize) {
        let before = Rc::clone(&self.origins[origin].roster.fleet);
        if !Rc::ptr_eq(&before, &self.fleet(origin)) {
            self.tell(origin, Event::Tick);
        }
    }

    /// The fleet by this origin's clock.
    pub(crate) fn fleet(&mut self, origin: usize) -> Rc<Fleet> {
        let now = self.origins[origin].clock.read(self.now);
        let edges = 0..self.edges.len();
        let out: Vec<bool> = edges
            .clone()
            .map(|edge| self.is_left_out(origin, edge))
            .collect();
        let roster = &self.origins[origin].roster;
        let is_same = roster.live.len() == roster.seen.len()
            && roster.out == out
            && edges.clone().all(|edge| {
                roster.live[edge] == roster.is_live(edge, now)
                    && roster.boots[edge] == roster.boot(edge)
            });
        if !is_same {
            let live = edges
                .clone()
                .map(|edge| roster.is_live(edge, now))
                .collect();
            let boots = edges.map(|edge| roster.boot(edge)).collect();
            let roster = &mut self.origins[origin].roster;
            (roster.live, roster.boots, roster.out) = (live, boots, out);
            let fleet = Rc::new(self.draw_up(origin));
            self.origins[origin].roster.fleet = fleet;
            self.note_gone(origin);
        }
        Rc::clone(&self.origins[origin].roster.fleet)
    }

    /// Those of a region that hold their lease.
    pub(crate) fn leased(&self, origin: usize, region: usize) -> Vec<usize> {
        let now = self.origins[origin].clock.read(self.now);
        let roster = &self.origins[origin].roster;
        let here = self.edges_of(region).into_iter();
        here.filter(|edge| roster.is_live(*edge, now)).collect()
    }

    fn draw_up(&self, origin: usize) -> Fleet {
        let roster = &self.origins[origin].roster;
        let mut fleet = Fleet::default();
        for (edge, id) in self.names.edges.iter().enumerate() {
            let region = self.names.regions[self.edges[edge].region].clone();
            let here: &mut RegionFleet = fleet.regions.entry(region).or_default();
            if roster.out[edge] {
                continue;
            }
            here.registered.insert(id.clone());
            if roster.live[edge] {
                here.live.insert(id.clone());
            }
            if let Some(boot) =
                roster.boots[edge].filter(|_| self.without != Some(Safeguard::BootId))
            {
                here.boots.insert(id.clone(), boot_id(boot));
            }
        }
        fleet
    }

    /// Which edges hold their lease with this origin, and are what it believes them to be.
    pub(crate) fn present(&mut self, origin: usize) -> Vec<bool> {
        self.fleet(origin);
        let roster = &self.origins[origin].roster;
        let is_known = |edge: usize| {
            roster
                .boot(edge)
                .is_none_or(|boot| boot == self.edges[edge].boot)
        };
        (0..self.edges.len())
            .map(|edge| {
                let counts = roster.live[edge] && !roster.out[edge];
                counts && self.edges[edge].is_up && is_known(edge)
            })
            .collect()
    }

    /// An edge whose lease has ended is not held to anything in this rollout.
    fn note_gone(&mut self, origin: usize) {
        if self.leader() == Some(origin) {
            let roster = &self.origins[origin].roster;
            let counts = roster.live.iter().zip(&roster.out);
            let counts = counts.map(|(live, out)| *live && !out);
            let steady = self.notes.steady.iter_mut().zip(counts);
            steady.for_each(|(steady, counts)| *steady &= counts);
        }
    }
}
