//! Pure. A part of one region's visitors gets the candidate, before all of them do.
//!
//! ```text
//!  Preparing ──prepared──▶ Admitting ──all report and are proven──▶ Canary ──bake passed──▶ Admitted ──next stage──▶ Preparing
//!                              │ deadline                             │ fail, or another region failed
//!                              └──────────────────┬───────────────────┘
//!                                                 ▼
//!                            RollingBack: the weight is gone, what was live is proven ──▶ RolledBack
//! ```
//!
//! Invariant: what is live does not change here, and a record has a weight only while its rollout runs.

use alloc::vec::Vec;

use super::baking::{BakePlan, Baking};
use super::cutover::Cutover;
use super::phase::{COMMIT_DEADLINE, Clock, NUDGE_INTERVAL, Phase, Proof, plan_required};
use super::plan::ALL;
use super::returning::Because;
use super::{Command, RegionFleet};
use crate::id::Epoch;
use crate::routes::Span;
use crate::time::Timestamp;

impl Cutover {
    /// Where nothing is live there is nobody to choose from: all come with the last stage.
    pub(super) const fn skips(&self, percent: u8) -> bool {
        percent < ALL && self.record.live.is_none()
    }

    /// Whether a stage of so many percent is done here.
    pub(super) const fn has_reached(&self, percent: u8) -> bool {
        match &self.phase {
            Phase::Stable => true,
            Phase::Admitted => percent < ALL,
            Phase::Ready { .. } => self.skips(percent),
            Phase::Pending
            | Phase::Preparing { .. }
            | Phase::Committing(_)
            | Phase::Admitting(_)
            | Phase::Canary(_)
            | Phase::Baking(_)
            | Phase::Undecided
            | Phase::RollingBack(_)
            | Phase::RolledBack
            | Phase::RevertBlocked
            | Phase::Aborted
            | Phase::Superseded => false,
        }
    }

    /// Visitors see the candidate here, and it is not live.
    pub(super) const fn is_weighted(&self) -> bool {
        self.record.weight.is_some()
    }

    /// Waits for its stage, with what its edges have said.
    pub(super) fn stand_by(&mut self, now: Timestamp) {
        if let Phase::Preparing {
            clock,
            required,
            prepared,
        } = &self.phase
        {
            self.phase = if self.is_weighted() {
                Phase::Admitted
            } else {
                Phase::Ready {
                    since: now,
                    clock: clock.clone(),
                    required: required.clone(),
                    prepared: prepared.clone(),
                }
            };
        }
    }

    /// Its stage begins. What edges have said a while ago they are asked again.
    pub(super) fn begin_stage(
        &mut self,
        now: Timestamp,
        fleet: &RegionFleet,
        out: &mut Vec<Command>,
    ) {
        self.phase = match &self.phase {
            Phase::Ready {
                since,
                clock,
                required,
                prepared,
            } if now.since(*since) < NUDGE_INTERVAL => Phase::Preparing {
                clock: clock.clone(),
                required: required.clone(),
                prepared: prepared.clone(),
            },
            Phase::Ready { .. } | Phase::Admitted => {
                out.push(self.republish());
                Phase::Preparing {
                    clock: Clock::new(now, self.prepare_deadline()),
                    required: plan_required(fleet),
                    prepared: alloc::collections::BTreeMap::new(),
                }
            }
            Phase::Pending
            | Phase::Preparing { .. }
            | Phase::Committing(_)
            | Phase::Admitting(_)
            | Phase::Canary(_)
            | Phase::Baking(_)
            | Phase::Stable
            | Phase::Undecided
            | Phase::RollingBack(_)
            | Phase::RolledBack
            | Phase::RevertBlocked
            | Phase::Aborted
            | Phase::Superseded => return,
        };
    }

    /// Lets so many percent of the visitors in, to be watched for a while.
    pub(super) fn admit(
        &mut self,
        epoch: Epoch,
        now: Timestamp,
        fleet: &RegionFleet,
        (percent, time): (u8, Span),
        out: &mut Vec<Command>,
    ) {
        let Some(required) = self.ready_edges(fleet) else {
            return;
        };
        self.watched_for = time.duration();
        self.evidence = None;
        self.record.weight = Some(percent);
        self.record.bake_until = Some(now + COMMIT_DEADLINE + time.duration());
        self.write(epoch, out);
        self.phase = Phase::Admitting(Proof::new(now, required));
    }

    /// Every edge lets them in: from now on they are watched.
    pub(super) fn watch(&mut self, now: Timestamp, plan: &BakePlan, out: &mut Vec<Command>) {
        let millis = u64::try_from(self.watched_for.as_millis()).unwrap_or(u64::MAX);
        let plan = BakePlan {
            window: Span::from_millis(millis),
            rules: plan.rules.clone(),
        };
        self.phase = Phase::Canary(Baking::new(&plan, now));
        out.push(Command::Bake {
            region: self.record.region.clone(),
        });
    }

    /// Nobody gets the candidate any more; what is live stays.
    pub(super) fn withdraw(
        &mut self,
        (epoch, now): (Epoch, Timestamp),
        fleet: &RegionFleet,
        because: Because<'_>,
        plan: &BakePlan,
        out: &mut Vec<Command>,
    ) {
        let reason = self.end_for(because, now, plan);
        if because.blames_release {
            self.hold_for(&reason, now);
        }
        self.drop_candidate(epoch, out);
        self.phase = Phase::RollingBack(Proof::new(now, plan_required(fleet)));
        out.push(Command::Withdraw {
            region: self.record.region.clone(),
            left: self.target.clone(),
            quarantine: because.blames_release.then_some(reason),
        });
    }
}
