//! Who presses what: by plan at the worst moment, and now and then whoever looks at what waits.

use helix_routing::rollout::{Control, Kind, Waits};

use crate::agenda::Due;
use crate::clocks::MOST_SKEW;
use crate::scenario::{Deed, Press};
use crate::sql::Change;
use crate::starts::Start;
use crate::world::World;

/// How often somebody looks at what waits.
const ATTENTION: u64 = 2_500;

impl World {
    pub(crate) fn perform(&mut self, deed: Deed) {
        let edges = self.edges.len();
        match deed {
            Deed::KillEdge(edge) => self.kill_edge(edge % edges),
            Deed::KillWriter => self.kill_edge(self.writer),
            Deed::CutEdge { edge, millis } => {
                let edge = &mut self.edges[edge % edges];
                edge.cut_until = self.now + millis;
            }
            Deed::DeafenEdge { edge, millis } => {
                self.edges[edge % edges].deaf_until = self.now + millis;
            }
            Deed::FillDisk { edge, millis } => {
                self.edges[edge % edges].full_until = self.now + millis;
            }
            Deed::SkewEdge { edge, ahead } => self.edges[edge % edges].clock.ahead = ahead,
            Deed::SkewOrigin { origin, ahead } => {
                self.origins[origin % 2].clock.ahead = ahead;
                self.begin_deadlines_anew();
                self.notes.slack = MOST_SKEW;
            }
            Deed::KillOrigin => {
                if let Some(origin) = self.leader() {
                    self.kill_origin(origin);
                }
            }
            Deed::FreezeOrigin { millis } => {
                if let Some(origin) = self.leader() {
                    self.origins[origin].frozen_until = self.now + millis;
                    self.begin_deadlines_anew();
                }
            }
            Deed::TakeOver => {
                let standby = self.leader().map_or(0, |origin| 1 - origin);
                if self.origins[standby].is_up {
                    self.lead(standby);
                }
            }
            Deed::LoseTail => self.lose_tail(),
            Deed::LoseOrigins { millis } => self.lose_origins(millis),
            Deed::Break(edge) => self.break_glass(edge % edges),
            Deed::BreakRegion(region) => self.go_round(region % self.names.regions.len()),
            Deed::Sign(region) => self.raise_term(region % self.names.regions.len()),
            Deed::EndBreak(edge) => self.end_override(edge % edges),
            Deed::Press(press) => self.press_on(press),
        }
    }

    /// What an operator asks goes to whoever believes that it leads, the one that was replaced first.
    fn press_on(&mut self, press: Press) {
        let leads = |origin: &usize| {
            let process = &self.origins[*origin];
            process.is_up && process.leads && process.frozen_until <= self.now
        };
        let stale = [0, 1].into_iter().filter(leads);
        let Some(origin) = stale.min_by_key(|origin| self.origins[*origin].epoch) else {
            return;
        };
        let start = |kind, release, is_automatic| {
            Change::Start(Start {
                kind,
                release,
                is_automatic,
            })
        };
        let reason = None;
        match press {
            Press::Deploy {
                release,
                is_automatic,
            } => {
                self.transact(origin, start(Kind::Deploy, release, is_automatic));
            }
            Press::Rollback => self.transact(origin, start(Kind::Rollback, 0, false)),
            Press::Restart => self.transact(origin, start(Kind::Restart, 0, false)),
            Press::Pause => self.control(origin, Control::Pause { reason }),
            Press::Resume => self.control(origin, Control::Resume),
            Press::Abort => self.control(origin, Control::Abort { reason }),
            Press::ApproveStage(stage) => self.control(origin, Control::Approve { stage }),
            Press::Approve => self.let_go_on(origin),
            Press::Lift => self.transact(origin, Change::Lift),
            Press::Hold { region } => self.hold(origin, region, true),
            Press::Unhold => self.hold(origin, 0, false),
            Press::Collect => self.transact(origin, Change::Collect),
            Press::Drain { edge, drains } => {
                let edge = edge % self.edges.len();
                self.transact(origin, Change::Drain { edge, drains });
            }
            Press::Pin { label, release } => {
                self.transact(origin, Change::Pin { label, release });
            }
            Press::Route { host, site } => self.transact(origin, Change::Route { host, site }),
            Press::Purge { times, is_other } => {
                self.page += u64::from(!is_other);
                self.transact(origin, Change::Purge { times, is_other });
            }
            Press::DrainRegion(region) => {
                for edge in self.edges_of(region % self.names.regions.len()) {
                    let drains = true;
                    self.transact(origin, Change::Drain { edge, drains });
                }
            }
        }
    }

    pub(crate) fn edges_of(&self, region: usize) -> Vec<usize> {
        let all = 0..self.edges.len();
        all.filter(|edge| self.edges[*edge].region == region)
            .collect()
    }

    fn hold(&mut self, origin: usize, region: usize, is_held: bool) {
        let region = region % self.names.regions.len();
        self.transact(origin, Change::Hold { region, is_held });
    }

    /// Somebody looks, and mostly lets what waits go on; once nothing goes wrong any more, always. Then an origin that was gone past
    /// and has had nothing to write since is told, too.
    pub(crate) fn attend(&mut self) {
        self.due(ATTENTION, Due::Attention);
        if self.is_healed {
            self.look_after_origins();
        }
        let is_looked_at = self.is_healed || self.dice.one_in(3);
        if let Some(origin) = self.leader()
            && is_looked_at
        {
            self.let_go_on(origin);
        }
    }

    /// Who was replaced hears of it with its lease.
    fn look_after_origins(&mut self) {
        for origin in [0, 1] {
            let process = &self.origins[origin];
            if process.is_up && process.leads && process.epoch < self.sql.term {
                self.fence(origin);
            }
        }
        let is_overruled = self.stream.terms.iter().any(|term| term.by_operator);
        if let (true, Some(origin)) = (is_overruled, self.leader()) {
            self.begin_again(origin);
        }
    }

    fn let_go_on(&mut self, origin: usize) {
        let driver = self.origins[origin].driver.as_ref();
        match driver.and_then(|driver| driver.saved.machine.waits()) {
            Some(Waits::Resume { .. }) => self.control(origin, Control::Resume),
            Some(Waits::Approval { stage }) => self.control(origin, Control::Approve { stage }),
            Some(Waits::Time { .. }) | None => {}
        }
    }
}
