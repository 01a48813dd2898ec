//! The two origins: one leads, one stands by, and either may be wrong about which of them it is.

use helix_routing::id::Epoch;

use crate::agenda::{Due, InOrigin};
use crate::clocks::{Clock, MOST_SKEW};
use crate::driver::Driver;
use crate::publisher::Publisher;
use crate::roster::Roster;
use crate::world::World;

/// How often an origin looks after what nobody tells it.
pub(crate) const LOOK: u64 = 1_000;
/// Looks after which a leader that is not heard of is gone.
const PATIENT_LOOKS: u32 = 8;

pub(crate) struct Origin {
    /// Counts its processes: what one of them began is void in the next.
    pub(crate) life: u32,
    pub(crate) is_up: bool,
    pub(crate) leads: bool,
    pub(crate) epoch: Epoch,
    pub(crate) frozen_until: u64,
    pub(crate) dead_until: u64,
    pub(crate) clock: Clock,
    pub(crate) roster: Roster,
    pub(crate) publisher: Publisher,
    pub(crate) driver: Option<Driver>,
    /// Looks at which the leader had gone.
    missed: u32,
}

impl Origin {
    pub(crate) fn new(edges: usize) -> Self {
        Self {
            life: 0,
            is_up: true,
            leads: false,
            epoch: Epoch(0),
            frozen_until: 0,
            dead_until: 0,
            clock: Clock::default(),
            roster: Roster::new(edges),
            publisher: Publisher::default(),
            driver: None,
            missed: 0,
        }
    }

    /// Everything of a term goes with it.
    fn step_down(&mut self) {
        self.life += 1;
        self.leads = false;
        self.driver = None;
        self.publisher = Publisher::default();
        self.missed = 0;
    }
}

impl World {
    /// The one whose word counts, if it is there.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |origin: &usize| {
            let process = &self.origins[*origin];
            process.is_up && process.leads && process.epoch == self.sql.term
        };
        [0, 1].into_iter().find(leads)
    }

    /// One transaction raises the term; then it goes on with what SQL says.
    pub(crate) fn lead(&mut self, origin: usize) {
        self.check_published();
        self.sql.term = self.sql.term.next();
        self.sql.leader = origin;
        self.notes.slack = MOST_SKEW;
        let process = &mut self.origins[origin];
        process.step_down();
        process.leads = true;
        process.epoch = self.sql.term;
        let now = process.clock.read(self.now);
        process.roster.forget(now);
        self.read_drains(origin);
        for region in 0..self.stream.terms.len() {
            let millis = self.dice.between(1, 300);
            self.due_in_origin(millis, origin, InOrigin::Establish { region });
        }
        self.due_in_origin(LOOK, origin, InOrigin::Look);
        self.due_in_origin(LOOK / 2, origin, InOrigin::Agreement);
        self.resume(origin);
    }

    /// It finds that another leads, and stands by.
    pub(crate) fn fence(&mut self, origin: usize) {
        self.origins[origin].step_down();
        self.due_in_origin(LOOK, origin, InOrigin::Look);
    }

    pub(crate) fn kill_origin(&mut self, origin: usize) {
        self.lose_tail();
        self.origins[origin].step_down();
        self.origins[origin].is_up = false;
        let millis = self.dice.between(300, 12_000);
        self.due(millis, Due::OriginStarts(origin));
    }

    /// Its process ends, and another one is started in its place.
    pub(crate) fn begin_again(&mut self, origin: usize) {
        self.origins[origin].step_down();
        self.origins[origin].is_up = false;
        let millis = self.dice.between(50, 1_500);
        self.due(millis, Due::OriginStarts(origin));
    }

    /// There is no origin for so long.
    pub(crate) fn lose_origins(&mut self, millis: u64) {
        for origin in [0, 1] {
            self.origins[origin].dead_until = self.now + millis;
            if self.origins[origin].is_up {
                self.kill_origin(origin);
            }
        }
        self.begin_deadlines_anew();
    }

    /// One that finds its own address in the lease's row leads at once.
    pub(crate) fn start_origin(&mut self, origin: usize) {
        let process = &mut self.origins[origin];
        if process.dead_until > self.now {
            let wait = process.dead_until - self.now;
            return self.due(wait, Due::OriginStarts(origin));
        }
        if process.is_up {
            return;
        }
        process.is_up = true;
        if self.sql.leader == origin {
            self.lead(origin);
        } else {
            self.fence(origin);
        }
    }

    pub(crate) fn look(&mut self, origin: usize) {
        self.due_in_origin(LOOK, origin, InOrigin::Look);
        if self.origins[origin].leads {
            self.publish_unsent(origin);
            self.look_at_fleet(origin);
            return;
        }
        let leader = &self.origins[self.sql.leader];
        let is_there = leader.is_up && leader.leads && leader.frozen_until <= self.now;
        let process = &mut self.origins[origin];
        process.missed = if is_there { 0 } else { process.missed + 1 };
        if process.missed >= PATIENT_LOOKS {
            self.counts.count("a standby took over");
            self.lead(origin);
        }
    }
}
