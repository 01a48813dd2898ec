//! Pure. The stages of a deployment: when one may begin, what it does, and when it is done.
//!
//! ```text
//!  Preparing ──every region prepared──▶ Before ──time, approval, no pause──▶ In ──every region of it there──▶ Before the next
//! ```
//!
//! Invariant: a stage begins only when the one before is done: its regions have settled, or what part of their visitors
//! they let in has passed its bake. All regions prepare before the first stage, so that what cannot be fetched somewhere fails
//! before anybody sees anything; each stage asks its edges again, since a wait may be long.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::cutover::{Cutover, region_fleet};
use super::machine::Rollout;
use super::plan::{ALL, Stage, open_at};
use super::view::{PlanView, StageView, Waits};
use super::{Command, Fleet, RegionFleet};
use crate::api::PhaseName;
use crate::time::Timestamp;

/// Where a rollout is in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum At {
    /// Every region prepares.
    Preparing,
    /// Before the stage.
    Before {
        /// Not earlier.
        until: Timestamp,
        /// Nobody has to approve it any more.
        approved: bool,
    },
    /// The stage has begun.
    In,
}

/// Somebody lets it begin no further stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pause {
    pub(super) by: String,
    pub(super) since: Timestamp,
    pub(super) reason: Option<String>,
}

impl Rollout {
    /// Moves on in the plan as far as it can be now.
    pub(super) fn advance_stages(
        &mut self,
        now: Timestamp,
        fleet: &Fleet,
        commands: &mut Vec<Command>,
    ) {
        let before = (self.stage, self.at);
        loop {
            self.settle(now, commands);
            let moved = match self.at {
                At::Preparing => self.end_preparation(now),
                At::Before { until, approved } => {
                    self.begin_stage(now, fleet, (until, approved), commands)
                }
                At::In => self.cut_over(now, fleet, commands) || self.end_stage(now),
            };
            if !moved {
                break;
            }
        }
        let is_saved = commands.iter().any(Command::is_durable);
        let is_over = self.cutovers.values().all(Cutover::is_over);
        if before != (self.stage, self.at) && !is_saved && !is_over {
            commands.push(Command::Plan);
        }
    }

    fn end_preparation(&mut self, now: Timestamp) -> bool {
        let waits = |cutover: &Cutover| {
            cutover.is_pending() || (cutover.is_preparing() && !cutover.is_prepared())
        };
        if self.cutovers.values().any(waits) {
            return false;
        }
        for cutover in self.cutovers.values_mut() {
            cutover.stand_by(now);
        }
        self.at = self.before(now);
        true
    }

    /// The wait before the stage that is next.
    pub(super) fn before(&self, now: Timestamp) -> At {
        let stage = self.stages.get(self.stage);
        let soaked = stage.map_or(now, |stage| now + stage.soak.duration());
        let until = self.not_before.map_or(soaked, |at| at.max(soaked));
        At::Before {
            until,
            approved: stage.is_none_or(|stage| !stage.approve),
        }
    }

    fn begin_stage(
        &mut self,
        now: Timestamp,
        fleet: &Fleet,
        (until, approved): (Timestamp, bool),
        commands: &mut Vec<Command>,
    ) -> bool {
        if self.paused.is_some() || !approved || now < until {
            return false;
        }
        let open = open_at(&self.hours, &self.closed, now);
        if open > now {
            self.at = At::Before {
                until: open,
                approved,
            };
            return false;
        }
        let Some(stage) = self.stages.get(self.stage) else {
            return false;
        };
        let none = RegionFleet::default();
        for region in &stage.regions {
            if let Some(cutover) = self.cutovers.get_mut(region)
                && !cutover.skips(stage.percent)
            {
                let here = region_fleet(fleet, region, &none);
                if cutover.is_pending() {
                    cutover.prepare(self.epoch, now, here, commands);
                } else {
                    cutover.begin_stage(now, here, commands);
                }
            }
        }
        self.at = At::In;
        true
    }

    /// The regions of a stage change over only when all of them are prepared.
    fn cut_over(&mut self, now: Timestamp, fleet: &Fleet, commands: &mut Vec<Command>) -> bool {
        let Some(stage) = self.stages.get(self.stage).cloned() else {
            return false;
        };
        let here = |region| self.cutovers.get(region);
        let mut preparing = stage.regions.iter().filter_map(here);
        let waits = preparing
            .clone()
            .any(|cutover| cutover.is_preparing() && !cutover.is_prepared());
        if waits || !preparing.any(Cutover::is_preparing) {
            return false;
        }
        let none = RegionFleet::default();
        let epoch = self.epoch;
        for region in &stage.regions {
            let fleet = region_fleet(fleet, region, &none);
            let Some(cutover) = self.cutovers.get_mut(region).filter(|at| at.is_preparing()) else {
                continue;
            };
            if stage.percent == ALL {
                cutover.commit(epoch, now, fleet, &self.bake, commands);
            } else {
                cutover.admit(epoch, now, fleet, (stage.percent, stage.time), commands);
            }
        }
        true
    }

    fn end_stage(&mut self, now: Timestamp) -> bool {
        let Some(stage) = self.stages.get(self.stage) else {
            return false;
        };
        let is_there = |region| {
            let cutover = self.cutovers.get(region);
            cutover.is_none_or(|cutover| cutover.has_reached(stage.percent))
        };
        let is_last = self.stage + 1 >= self.stages.len();
        if is_last || !stage.regions.iter().all(is_there) {
            return false;
        }
        self.stage += 1;
        self.at = self.before(now);
        true
    }

    /// Back before a stage that has begun and written nothing.
    pub(super) fn step_out_of_stage(&mut self, now: Timestamp) {
        let Some(stage) = self.stages.get(self.stage).filter(|_| self.at == At::In) else {
            return;
        };
        let mut is_out = false;
        for region in &stage.regions {
            if let Some(cutover) = self.cutovers.get_mut(region).filter(|at| at.is_preparing()) {
                cutover.stand_by(now);
                is_out = true;
            }
        }
        if is_out {
            self.at = At::Before {
                until: now,
                approved: true,
            };
        }
    }

    /// A person has to look before the next stage.
    pub(super) fn ask_before_next(&mut self) {
        if let Some(next) = self.stages.get_mut(self.stage + 1) {
            next.approve = true;
        }
    }

    /// When the wait before a stage ends by itself.
    pub(super) fn stage_deadline(&self) -> Option<Timestamp> {
        match self.at {
            At::Before {
                until,
                approved: true,
            } if self.paused.is_none() => Some(until),
            At::Before { .. } | At::Preparing | At::In => None,
        }
    }

    /// Some region is ready for its stage. What fails and goes back waits for nobody.
    pub(super) fn stands_by(&self) -> bool {
        self.cutovers.values().any(|cutover| {
            matches!(
                cutover.phase_name(),
                PhaseName::Prepared | PhaseName::Admitted
            )
        })
    }

    /// What it waits for that is no edge.
    #[must_use]
    pub fn waits(&self) -> Option<Waits> {
        if self.outcome.is_some() {
            return None;
        }
        if let Some(Pause { by, since, reason }) = &self.paused {
            return Some(Waits::Resume {
                by: by.clone(),
                since: *since,
                reason: reason.clone(),
            });
        }
        if !self.stands_by() {
            return None;
        }
        match self.at {
            At::Before {
                approved: false, ..
            } => Some(Waits::Approval {
                stage: number(self.stage),
            }),
            At::Before { until, .. } => Some(Waits::Time { until }),
            At::Preparing | At::In => None,
        }
    }

    /// Its stages, for people.
    #[must_use]
    pub fn plan(&self) -> PlanView {
        let view = |stage: &Stage| StageView {
            wave: stage.wave,
            regions: stage.regions.clone(),
            percent: stage.percent,
            time: stage.time,
            approve: stage.approve,
        };
        PlanView {
            stages: self.stages.iter().map(view).collect(),
            stage: number(self.stage),
            waits: self.waits(),
        }
    }
}

/// Stages are counted from 1 wherever people see them.
fn number(index: usize) -> u16 {
    u16::try_from(index + 1).unwrap_or(u16::MAX)
}
