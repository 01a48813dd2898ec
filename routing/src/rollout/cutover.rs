//! Pure. One region's part of a rollout, as origin sees it.
//!
//! A cutover only ever writes whole records at the next generation, and it counts an edge as done only
//! for the boot that reported. What it does not do: wait for other regions, or decide what a failure here
//! means elsewhere; that is [`super::Rollout`]'s.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::baking::{BakePlan, Evidence};
use super::phase::{
    COMMIT_DEADLINE, Clock, NUDGE_INTERVAL, Phase, Proof, forget_gone, names, plan_required,
};
use super::{Command, Fleet, RegionFleet, RegionPlan};
use crate::gate::report::GatesReport;
use crate::gate::result::GateResult;
use crate::id::{EdgeId, Epoch, Generation, RegionId, ReleaseId};
use crate::record::{ReleaseRef, SiteRecord};
use crate::report::{CandidateState, SiteReport};
use crate::time::Timestamp;

/// A static release is fetched, verified and warm within this, plus what its size takes.
pub const PREPARE_DEADLINE: Duration = Duration::from_secs(20);
/// The slowest link that a prepare deadline allows for, in bytes a second.
const SLOWEST_FETCH: u64 = 8 * 1024 * 1024;
/// Releases kept warm on every edge to go back to.
pub const KEEP_PREVIOUS: usize = 20;

/// One region's part of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cutover {
    pub(super) record: SiteRecord,
    pub(super) target: ReleaseRef,
    pub(super) baseline: Option<ReleaseRef>,
    bytes: u64,
    /// How long its gates may take.
    #[serde(default)]
    gates: Duration,
    /// What the target's gates showed, edge by edge.
    #[serde(default)]
    pub(super) shown: BTreeMap<EdgeId, Vec<GateResult>>,
    pub(super) phase: Phase,
    /// This rollout made its target live here.
    moved: bool,
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) is_baseline_quarantined: bool,
    /// What the target fails by, the baseline was worse at.
    #[serde(default)]
    pub(super) is_baseline_sicker: bool,
    /// What the bake came to.
    #[serde(default)]
    pub(super) evidence: Option<Evidence>,
    /// How long the part of the visitors that was let in last is watched.
    #[serde(default)]
    pub(super) watched_for: Duration,
}

/// What a phase came to by itself, for the rollout to decide about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing to decide.
    None,
    /// It could not be prepared: nothing was live.
    PrepareFailed,
    /// It was committed and did not prove itself.
    CommitFailed,
    /// It baked, and is beyond a limit.
    BakeFailed,
    /// It baked, nothing can be said of it, and a person is to decide.
    Undecided,
    /// The same of what only a part of the visitors gets: a person is to look before there are more.
    Unclear,
}

impl Cutover {
    pub(super) fn new(plan: RegionPlan) -> Self {
        let RegionPlan {
            record,
            target,
            baseline,
            is_baseline_quarantined,
            bytes,
            gates,
        } = plan;
        Self {
            record,
            target,
            baseline,
            bytes,
            gates,
            shown: BTreeMap::new(),
            phase: Phase::Pending,
            moved: false,
            reason: None,
            is_baseline_quarantined,
            is_baseline_sicker: false,
            evidence: None,
            watched_for: Duration::ZERO,
        }
    }

    pub(super) const fn record(&self) -> &SiteRecord {
        &self.record
    }

    pub(super) const fn is_moved(&self) -> bool {
        self.moved
    }

    /// Begins: prepares the target, or goes straight to what is left to do when it is live already.
    pub(super) fn begin(
        &mut self,
        epoch: Epoch,
        now: Timestamp,
        fleet: &RegionFleet,
        plan: &BakePlan,
        out: &mut Vec<Command>,
    ) {
        let is_live = self.record.live.as_ref() == Some(&self.target);
        if is_live
            && self.baseline.as_ref() == Some(&self.target)
            && self.record.candidate.is_none()
        {
            self.phase = Phase::Stable;
        } else if is_live {
            // Another rollout committed it, and did not get to prove it or could not say that it is well.
            self.phase = Phase::Committing(Proof::new(now, plan_required(fleet)));
            self.moved = true;
            if plan.bakes() && self.record.bake_until.is_none() {
                self.record.bake_until = Some(latest_end(now, plan));
                self.write(epoch, out);
            } else {
                out.push(self.republish());
            }
        } else {
            self.prepare(epoch, now, fleet, out);
        }
    }

    /// Names the target as the candidate, even when it is live: then its gates are run once more.
    pub(super) fn prepare(
        &mut self,
        epoch: Epoch,
        now: Timestamp,
        fleet: &RegionFleet,
        out: &mut Vec<Command>,
    ) {
        self.record.bake_until = None;
        self.record.candidate = Some(self.target.clone());
        self.record.weight = None;
        self.write(epoch, out);
        self.phase = Phase::Preparing {
            clock: Clock::new(now, self.prepare_deadline()),
            required: plan_required(fleet),
            prepared: BTreeMap::new(),
        };
    }

    pub(super) fn prepare_deadline(&self) -> Duration {
        PREPARE_DEADLINE + Duration::from_secs(self.bytes / SLOWEST_FETCH) + self.gates
    }

    /// An edge said what the target's gates showed. What it does next, it says itself.
    pub(super) fn gated(&mut self, report: &GatesReport) {
        if self.is_preparing() && report.run.is_none() && report.release == self.target.release {
            self.shown
                .insert(report.edge.clone(), report.results.clone());
        }
    }

    /// After a restart of origin: the present phase begins its deadline anew and asks its edges again.
    pub(super) fn resume(&mut self, now: Timestamp, out: &mut Vec<Command>) {
        let prepare_deadline = self.prepare_deadline();
        let generation = self.record.generation;
        let region = self.record.region.clone();
        match &mut self.phase {
            Phase::Preparing { clock, .. } => *clock = Clock::new(now, prepare_deadline),
            Phase::Committing(proof) | Phase::Admitting(proof) | Phase::RollingBack(proof) => {
                proof.clock = Clock::new(now, COMMIT_DEADLINE);
                for edge in proof.applied.difference(&proof.proven) {
                    out.push(Command::Probe {
                        region: region.clone(),
                        edge: edge.clone(),
                        generation,
                    });
                }
            }
            Phase::Canary(baking) | Phase::Baking(baking) => baking.resume(now),
            Phase::Pending
            | Phase::Ready { .. }
            | Phase::Admitted
            | Phase::Stable
            | Phase::Undecided
            | Phase::RolledBack
            | Phase::RevertBlocked
            | Phase::Aborted
            | Phase::Superseded => return,
        }
        out.push(self.republish());
    }

    /// An edge said how it stands.
    pub(super) fn report(&mut self, report: &SiteReport, out: &mut Vec<Command>) -> Turn {
        if report.generation < self.record.generation {
            return Turn::None;
        }
        let generation = self.record.generation;
        let shown = self.shown().clone();
        let is_ready = matches!(self.phase, Phase::Ready { .. });
        match &mut self.phase {
            Phase::Preparing {
                prepared, required, ..
            }
            | Phase::Ready {
                prepared, required, ..
            } => {
                let state = report
                    .candidate
                    .as_ref()
                    .filter(|candidate| candidate.release == self.target.release);
                match state.map(|candidate| &candidate.state) {
                    Some(CandidateState::Prepared) => {
                        prepared.insert(report.edge.clone(), report.boot.clone());
                    }
                    // One that fails while it waits is asked again when its stage begins.
                    Some(CandidateState::Failed(reason))
                        if required.contains(&report.edge) && !is_ready =>
                    {
                        self.reason = Some(format!("{}: {reason}", report.edge));
                        return Turn::PrepareFailed;
                    }
                    // What an edge prepared in an earlier boot is void.
                    Some(CandidateState::Preparing | CandidateState::Failed(_)) | None => {
                        prepared.remove(&report.edge);
                    }
                }
            }
            Phase::Committing(proof) | Phase::Admitting(proof) | Phase::RollingBack(proof) => {
                let serves =
                    report.serving >= generation && report.live.as_ref() == Some(&shown.release);
                if serves
                    && proof.required.contains(&report.edge)
                    && proof.applied.insert(report.edge.clone())
                {
                    let (region, edge) = (report.region.clone(), report.edge.clone());
                    out.push(Command::Probe {
                        region,
                        edge,
                        generation,
                    });
                }
            }
            Phase::Pending
            | Phase::Canary(_)
            | Phase::Admitted
            | Phase::Baking(_)
            | Phase::Stable
            | Phase::Undecided
            | Phase::RolledBack
            | Phase::RevertBlocked
            | Phase::Aborted
            | Phase::Superseded => {}
        }
        Turn::None
    }

    /// What an edge prepared before it was started again is void, also before it says so.
    pub(super) fn forget_restarted(&mut self, fleet: &RegionFleet) {
        if let Phase::Preparing { prepared, .. } | Phase::Ready { prepared, .. } = &mut self.phase {
            prepared.retain(|edge, boot| fleet.is_present(edge, boot));
        }
    }

    /// A request through an edge was answered.
    pub(super) fn proved(&mut self, edge: &EdgeId, generation: Generation, release: &ReleaseId) {
        // Of a region that lets some in, either answers.
        let is_candidate = self.is_weighted() && *release == self.target.release;
        let fits = generation >= self.record.generation
            && (*release == self.shown().release || is_candidate);
        if let Phase::Committing(proof) | Phase::Admitting(proof) | Phase::RollingBack(proof) =
            &mut self.phase
            && fits
            && proof.required.contains(edge)
        {
            proof.proven.insert(edge.clone());
        }
    }

    /// What the present phase wants to see served.
    fn shown(&self) -> &ReleaseRef {
        match (&self.phase, &self.record.live) {
            (Phase::RollingBack(_) | Phase::Admitting(_), Some(live)) => live,
            _ => &self.target,
        }
    }

    /// Time passed, or the fleet changed.
    pub(super) fn tick(
        &mut self,
        now: Timestamp,
        fleet: &RegionFleet,
        plan: &BakePlan,
        out: &mut Vec<Command>,
    ) -> Turn {
        match &mut self.phase {
            Phase::Preparing {
                clock,
                required,
                prepared,
            } => {
                forget_gone(required, fleet);
                if required.iter().any(|edge| !prepared.contains_key(edge)) && now >= clock.until {
                    let late = names(required.iter().filter(|edge| !prepared.contains_key(*edge)));
                    self.reason = Some(format!("not prepared within the deadline: {late}"));
                    return Turn::PrepareFailed;
                }
                self.nudge(now, out);
            }
            Phase::Committing(proof) | Phase::Admitting(proof) | Phase::RollingBack(proof) => {
                proof.forget_gone(fleet);
                if !proof.is_complete() && now >= proof.clock.until {
                    self.reason = Some(format!(
                        "not proven within the deadline: {}",
                        proof.missing()
                    ));
                    return self.late();
                }
                self.nudge(now, out);
            }
            Phase::Canary(_) | Phase::Baking(_) => return self.bake_on(now, plan, out),
            Phase::Pending
            | Phase::Ready { .. }
            | Phase::Admitted
            | Phase::Stable
            | Phase::Undecided
            | Phase::RolledBack
            | Phase::RevertBlocked
            | Phase::Aborted
            | Phase::Superseded => {}
        }
        Turn::None
    }

    /// A committed release that is not proven is the rollout's to decide about; a return that is not proven has nowhere to go.
    fn late(&mut self) -> Turn {
        if matches!(self.phase, Phase::RollingBack(_)) {
            self.phase = Phase::RevertBlocked;
            Turn::None
        } else {
            Turn::CommitFailed
        }
    }

    fn nudge(&mut self, now: Timestamp, out: &mut Vec<Command>) {
        let republish = self.republish();
        if let Phase::Preparing { clock, .. }
        | Phase::Committing(Proof { clock, .. })
        | Phase::Admitting(Proof { clock, .. })
        | Phase::RollingBack(Proof { clock, .. }) = &mut self.phase
            && now >= clock.nudge
        {
            clock.nudge = now + NUDGE_INTERVAL;
            out.push(republish);
        }
    }

    /// Moves on when every required edge has done its part.
    pub(super) fn settle(&mut self, now: Timestamp, plan: &BakePlan, out: &mut Vec<Command>) {
        match &self.phase {
            Phase::Committing(proof) if proof.is_complete() => self.after_proof(now, plan, out),
            Phase::Admitting(proof) if proof.is_complete() => self.watch(now, plan, out),
            Phase::RollingBack(proof) if proof.is_complete() => self.phase = Phase::RolledBack,
            Phase::Pending
            | Phase::Preparing { .. }
            | Phase::Ready { .. }
            | Phase::Committing(_)
            | Phase::Admitting(_)
            | Phase::Canary(_)
            | Phase::Admitted
            | Phase::Baking(_)
            | Phase::Stable
            | Phase::Undecided
            | Phase::RollingBack(_)
            | Phase::RolledBack
            | Phase::RevertBlocked
            | Phase::Aborted
            | Phase::Superseded => {}
        }
    }

    /// Every required edge is prepared.
    pub(super) fn is_prepared(&self) -> bool {
        match &self.phase {
            Phase::Preparing {
                required, prepared, ..
            } => required.iter().all(|edge| prepared.contains_key(edge)),
            Phase::Pending
            | Phase::Ready { .. }
            | Phase::Committing(_)
            | Phase::Admitting(_)
            | Phase::Canary(_)
            | Phase::Admitted
            | Phase::Baking(_)
            | Phase::Stable
            | Phase::Undecided
            | Phase::RollingBack(_)
            | Phase::RolledBack
            | Phase::RevertBlocked
            | Phase::Aborted
            | Phase::Superseded => false,
        }
    }

    pub(super) const fn is_preparing(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. })
    }

    /// It is not live, and nobody sees it.
    pub(super) const fn is_before_commit(&self) -> bool {
        matches!(
            self.phase,
            Phase::Pending | Phase::Preparing { .. } | Phase::Ready { .. }
        )
    }

    /// A newer deployment was there before it: its region stays as that left it.
    pub(super) fn never_begin(&mut self, because: &str) {
        self.reason = Some(String::from(because));
        self.phase = Phase::Superseded;
    }

    pub(super) const fn is_pending(&self) -> bool {
        matches!(self.phase, Phase::Pending)
    }

    /// Nothing more will happen here.
    pub(super) const fn is_over(&self) -> bool {
        matches!(
            self.phase,
            Phase::Stable
                | Phase::Undecided
                | Phase::RolledBack
                | Phase::RevertBlocked
                | Phase::Aborted
                | Phase::Superseded
        )
    }

    /// Makes the prepared target live: the commit point.
    pub(super) fn commit(
        &mut self,
        epoch: Epoch,
        now: Timestamp,
        fleet: &RegionFleet,
        plan: &BakePlan,
        out: &mut Vec<Command>,
    ) {
        let Some(required) = self.ready_edges(fleet) else {
            return;
        };
        self.evidence = None;
        self.record.bake_until = plan.bakes().then(|| latest_end(now, plan));
        self.make_live(self.target.clone(), epoch, out);
        self.moved = true;
        self.phase = Phase::Committing(Proof::new(now, required));
    }

    /// The prepared edges that are live: what the next phase needs. None while it does not prepare.
    pub(super) fn ready_edges(&self, fleet: &RegionFleet) -> Option<BTreeSet<EdgeId>> {
        let Phase::Preparing { prepared, .. } = &self.phase else {
            return None;
        };
        let ready: BTreeSet<EdgeId> = prepared.keys().cloned().collect();
        let live: BTreeSet<EdgeId> = ready.intersection(&fleet.live).cloned().collect();
        Some(if live.is_empty() { ready } else { live })
    }

    /// Ends before anything was live: the candidate is dropped.
    pub(super) fn abort(&mut self, epoch: Epoch, because: &str, out: &mut Vec<Command>) {
        self.drop_candidate(epoch, out);
        self.reason.get_or_insert_with(|| String::from(because));
        self.phase = Phase::Aborted;
    }

    /// A newer rollout takes over: before the commit the candidate is dropped, after it the record stays as it is.
    pub(super) fn supersede(&mut self, epoch: Epoch, out: &mut Vec<Command>) {
        if !self.is_over() {
            self.drop_candidate(epoch, out);
            self.phase = Phase::Superseded;
        }
    }

    /// A rollback that failed has nothing safer to go to.
    pub(super) fn block(&mut self) {
        self.phase = Phase::RevertBlocked;
    }

    pub(super) fn make_live(&mut self, release: ReleaseRef, epoch: Epoch, out: &mut Vec<Command>) {
        self.record.serve(release, KEEP_PREVIOUS);
        self.write(epoch, out);
    }

    /// The candidate, and whatever part of the visitors it had.
    pub(super) fn drop_candidate(&mut self, epoch: Epoch, out: &mut Vec<Command>) {
        if self.record.candidate.take().is_some() {
            if self.record.weight.take().is_some() {
                self.record.bake_until = None;
            }
            self.write(epoch, out);
        }
    }

    pub(super) fn write(&mut self, epoch: Epoch, out: &mut Vec<Command>) {
        self.record.generation = self.record.generation.next();
        self.record.epoch = epoch;
        out.push(Command::Write(self.record.clone()));
    }

    pub(super) fn republish(&self) -> Command {
        Command::Republish {
            region: self.record.region.clone(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Preparing { clock, .. } => Some(clock.due()),
            Phase::Committing(proof) | Phase::Admitting(proof) | Phase::RollingBack(proof) => {
                Some(proof.clock.due())
            }
            Phase::Canary(baking) | Phase::Baking(baking) => Some(baking.due()),
            Phase::Pending
            | Phase::Ready { .. }
            | Phase::Admitted
            | Phase::Stable
            | Phase::Undecided
            | Phase::RolledBack
            | Phase::RevertBlocked
            | Phase::Aborted
            | Phase::Superseded => None,
        }
    }
}

/// When a bake that follows a commit at `now` is over at the latest, if nobody is late.
fn latest_end(now: Timestamp, plan: &BakePlan) -> Timestamp {
    now + COMMIT_DEADLINE + plan.window.duration()
}

/// The fleet of `region`; empty for one that origin does not know.
pub(super) fn region_fleet<'a>(
    fleet: &'a Fleet,
    region: &RegionId,
    none: &'a RegionFleet,
) -> &'a RegionFleet {
    fleet.regions.get(region).unwrap_or(none)
}
