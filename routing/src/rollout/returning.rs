//! Pure. The way back of one region, and what its bake means for it.
//!
//! Invariant: a region goes back by itself once at most, and never to what is worse than what it leaves.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::baking::{BakePlan, Baking, Decision};
use super::cutover::{Cutover, Turn};
use super::phase::{Phase, Proof, plan_required};
use super::{Command, RegionFleet};
use crate::api::BakeView;
use crate::bake::{Number, OnInconclusive};
use crate::id::{Epoch, Generation};
use crate::record::{Hold, ReleaseRef};
use crate::report::WindowReport;
use crate::time::Timestamp;
use crate::verdict::Verdict;

/// Why regions go back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Because<'a> {
    pub(super) text: &'a str,
    /// The release is to blame: the region is held, and the release quarantined there.
    pub(super) blames_release: bool,
}

impl Cutover {
    /// Begins the bake of what was just proven, or settles it where there is none.
    pub(super) fn after_proof(&mut self, now: Timestamp, plan: &BakePlan, out: &mut Vec<Command>) {
        if plan.bakes() {
            self.phase = Phase::Baking(Baking::new(plan, now));
            out.push(Command::Bake {
                region: self.record.region.clone(),
            });
        } else {
            self.become_stable(out);
        }
    }

    /// An edge said what it counted. Counts of another release, or of an earlier time of this one, say nothing.
    pub(super) fn measured(
        &mut self,
        now: Timestamp,
        report: &WindowReport,
        plan: &BakePlan,
        out: &mut Vec<Command>,
    ) -> Turn {
        // A part of the visitors is counted from the generation on that let them in, beside what is live.
        let (since, baseline) = if self.is_weighted() {
            (self.record.generation, self.record.live.as_ref())
        } else {
            (self.record.live_since, self.baseline.as_ref())
        };
        let fits = report.release == self.target.release && report.live_since == since;
        let baseline = baseline.map(|baseline| &baseline.release);
        let (Phase::Baking(baking) | Phase::Canary(baking)) = &mut self.phase else {
            return Turn::None;
        };
        if fits {
            baking.measured(report, baseline);
        }
        self.decide(now, plan, out)
    }

    /// Prometheus answered a question, or could not be asked.
    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        check: usize,
        answer: &Result<Number, String>,
        plan: &BakePlan,
        out: &mut Vec<Command>,
    ) -> Turn {
        let (Phase::Baking(baking) | Phase::Canary(baking)) = &mut self.phase else {
            return Turn::None;
        };
        baking.answered(now, &plan.rules, check, answer);
        self.decide(now, plan, out)
    }

    /// Asks what is due while it bakes, and decides when its time is up.
    pub(super) fn bake_on(
        &mut self,
        now: Timestamp,
        plan: &BakePlan,
        out: &mut Vec<Command>,
    ) -> Turn {
        let republish = self.republish();
        let (Phase::Baking(baking) | Phase::Canary(baking)) = &mut self.phase else {
            return Turn::None;
        };
        if baking.nudge(now) {
            out.push(republish);
        }
        for check in baking.ask(now) {
            if let Some(rule) = plan.rules.promql.get(check) {
                let query = self.filled_in(&rule.query);
                let region = self.record.region.clone();
                out.push(Command::Ask {
                    region,
                    check,
                    query,
                });
            }
        }
        self.decide(now, plan, out)
    }

    fn filled_in(&self, query: &str) -> String {
        let site = &self.record.site;
        // The longest name first, where one begins like another.
        query
            .replace("$release", self.target.release.as_str())
            .replace("$project", site.project.as_str())
            .replace("$region", self.record.region.as_str())
            .replace("$site", &format!("{site}"))
    }

    fn decide(&mut self, now: Timestamp, plan: &BakePlan, out: &mut Vec<Command>) -> Turn {
        let (Phase::Baking(baking) | Phase::Canary(baking)) = &mut self.phase else {
            return Turn::None;
        };
        let Some(Decision {
            verdict,
            reason,
            is_baseline_sicker,
        }) = baking.decide(now, &plan.rules)
        else {
            return Turn::None;
        };
        self.evidence = Some(baking.evidence(&plan.rules, Some((now, Some(verdict)))));
        self.is_baseline_sicker = is_baseline_sicker;
        if self.is_weighted() && verdict != Verdict::Fail {
            return self.stay_admitted(verdict, &reason, plan, out);
        }
        match (verdict, plan.rules.on_inconclusive) {
            (Verdict::Fail, _) => {
                self.reason = Some(reason);
                Turn::BakeFailed
            }
            (Verdict::Inconclusive | Verdict::Error, OnInconclusive::Ask) => {
                self.reason = Some(format!("the bake is {verdict}: {reason}"));
                self.phase = Phase::Undecided;
                Turn::Undecided
            }
            (Verdict::Pass | Verdict::Inconclusive | Verdict::Error, _) => {
                self.become_stable(out);
                Turn::None
            }
        }
    }

    /// What part of the visitors it has it keeps; whether there may be more without a word depends on what was seen.
    fn stay_admitted(
        &mut self,
        verdict: Verdict,
        reason: &str,
        plan: &BakePlan,
        out: &mut Vec<Command>,
    ) -> Turn {
        self.phase = Phase::Admitted;
        out.push(Command::Plan);
        let is_clear =
            verdict == Verdict::Pass || plan.rules.on_inconclusive == OnInconclusive::Settle;
        if is_clear {
            return Turn::None;
        }
        self.reason = Some(format!("the bake is {verdict}: {reason}"));
        Turn::Unclear
    }

    /// Most edges here took themselves back since the last cutover: the bake has failed, by what they saw. It may have been
    /// decided before they did: an edge knows only when a bake is over at the latest.
    pub(super) fn went_back(
        &mut self,
        now: Timestamp,
        reason: &str,
        base: Generation,
        plan: &BakePlan,
    ) -> Turn {
        if base < self.record.live_since {
            return Turn::None;
        }
        match &self.phase {
            Phase::Baking(baking) => {
                let decided = Some((now, Some(Verdict::Fail)));
                self.evidence = Some(baking.evidence(&plan.rules, decided));
            }
            Phase::Stable if self.is_moved() => {}
            Phase::Pending
            | Phase::Preparing { .. }
            | Phase::Ready { .. }
            | Phase::Committing(_)
            | Phase::Admitting(_)
            | Phase::Canary(_)
            | Phase::Admitted
            | Phase::Stable
            | Phase::Undecided
            | Phase::RollingBack(_)
            | Phase::RolledBack
            | Phase::RevertBlocked
            | Phase::Aborted
            | Phase::Superseded => return Turn::None,
        }
        self.reason = Some(String::from(reason));
        Turn::BakeFailed
    }

    fn become_stable(&mut self, out: &mut Vec<Command>) {
        self.phase = Phase::Stable;
        out.push(Command::Settle {
            region: self.record.region.clone(),
            release: self.target.clone(),
            generation: self.record.generation,
        });
    }

    /// Where to go back to, or why nowhere.
    pub(super) fn way_back(&self) -> Result<ReleaseRef, &'static str> {
        match &self.baseline {
            Some(baseline) if *baseline == self.target => Err("nothing else settled here"),
            Some(_) if self.is_baseline_quarantined => Err("the release before is quarantined"),
            Some(_) if self.is_baseline_sicker => Err("the release before was worse"),
            Some(baseline) => Ok(baseline.clone()),
            None => Err("nothing settled here before"),
        }
    }

    /// Goes back to the last settled release, at a higher generation; blocked when there is none that is better.
    pub(super) fn revert(
        &mut self,
        (epoch, now): (Epoch, Timestamp),
        fleet: &RegionFleet,
        because: Because<'_>,
        plan: &BakePlan,
        out: &mut Vec<Command>,
    ) {
        let reason = self.end_for(because, now, plan);
        let to = match self.way_back() {
            Ok(to) => to,
            Err(blocked) => {
                self.reason = Some(format!("{reason}; not taken back: {blocked}"));
                self.phase = Phase::RevertBlocked;
                return;
            }
        };
        if because.blames_release {
            self.hold_for(&reason, now);
        }
        self.record.bake_until = None;
        self.make_live(to.clone(), epoch, out);
        self.phase = Phase::RollingBack(Proof::new(now, plan_required(fleet)));
        out.push(Command::Return {
            region: self.record.region.clone(),
            left: self.target.clone(),
            to,
            quarantine: because.blames_release.then_some(reason),
        });
    }

    /// Ends what bakes. What went wrong here first is the reason, else `because` is.
    pub(super) fn end_for(
        &mut self,
        because: Because<'_>,
        now: Timestamp,
        plan: &BakePlan,
    ) -> String {
        self.end_bake(now, plan);
        let text = || String::from(because.text);
        self.reason.get_or_insert_with(text).clone()
    }

    /// Automatic deployments leave the region alone from its next write on.
    pub(super) fn hold_for(&mut self, reason: &str, now: Timestamp) {
        self.record.hold = Some(Hold {
            reason: format!("went back by itself: {reason}"),
            since: now,
        });
    }

    /// A bake that another region's failure ends has no verdict, and what it showed is kept.
    pub(super) fn end_bake(&mut self, now: Timestamp, plan: &BakePlan) {
        if let Phase::Baking(baking) | Phase::Canary(baking) = &self.phase {
            self.evidence
                .get_or_insert_with(|| baking.evidence(&plan.rules, Some((now, None))));
        }
    }

    /// What its bake showed, so far or in the end.
    pub(super) fn bake_view(&self, plan: &BakePlan) -> Option<BakeView> {
        match (&self.evidence, &self.phase) {
            (Some(evidence), _) => Some(evidence.view.clone()),
            (None, Phase::Baking(baking) | Phase::Canary(baking)) => {
                Some(baking.evidence(&plan.rules, None).view)
            }
            (None, _) => None,
        }
    }
}
