//! Stages: what they are drawn to be, and what must hold when one begins or somebody asks something of it.

use std::collections::BTreeSet;

use helix_routing::api::PhaseName;
use helix_routing::id::RegionId;
use helix_routing::record::SiteRecord;
use helix_routing::rollout::{
    ALL, Approvals, Control, Kind, Outcome, RegionPlan, Rollout, RolloutPlan, RolloutPolicy,
    StageView, Step, UsualApprovals, UsualOrder, Waits, WaveOrder,
};
use helix_routing::routes::Span;
use helix_routing::verdict::Verdict;

use crate::bakes::is_sick;
use crate::checks::Check;
use crate::names::number;
use crate::world::World;

/// Nothing but time is in the way of its next stage.
fn is_due(rollout: &Rollout) -> bool {
    matches!(rollout.waits(), Some(Waits::Time { .. }))
}

impl World {
    pub(crate) fn rollout_plan(&mut self, plans: &[RegionPlan]) -> RolloutPlan {
        let regions: Vec<RegionId> = plans
            .iter()
            .map(|plan| plan.record.region.clone())
            .collect();
        let dice = &mut self.dice;
        let order = match dice.roll(3) {
            0 => WaveOrder::Usual(UsualOrder::Together),
            1 => WaveOrder::Usual(UsualOrder::Canary),
            _ => WaveOrder::Waves(vec![
                vec![regions[regions.len() - 1].to_string()],
                vec!["*".to_owned()],
            ]),
        };
        let approve = match dice.roll(6) {
            0 => UsualApprovals::Waves,
            1 => UsualApprovals::Stages,
            2 => UsualApprovals::All,
            _ => UsualApprovals::None,
        };
        let step = |percent, seconds| Step {
            percent,
            time: Span::from_secs(seconds),
        };
        let steps = match dice.roll(4) {
            0 => vec![step(5, 3)],
            1 => vec![step(10, 4), step(50, 4)],
            _ => Vec::new(),
        };
        let policy = RolloutPolicy {
            order: Some(order),
            soak: Some(Span::from_secs(dice.roll(3) * 4)),
            approve: Some(Approvals::Usual(approve)),
            steps: Some(steps),
            ..RolloutPolicy::default()
        };
        RolloutPlan::of(&policy, &regions).unwrap()
    }

    /// What was asked is saved.
    pub(crate) fn note_control(&mut self, control: Option<&Control>) {
        match control {
            Some(Control::Pause { .. }) => {
                self.notes.was_paused = true;
                self.counts.count("a rollout was paused");
            }
            Some(Control::Approve { stage }) => {
                self.notes.approved.insert(*stage);
                self.counts.count("a stage was approved");
            }
            Some(Control::Abort { .. }) if self.notes.committed.is_empty() => {
                self.counts.count("a rollout was aborted before a commit");
            }
            Some(Control::Abort { .. }) => {
                self.counts.count("a rollout was aborted after a commit")
            }
            Some(Control::Resume) | None => {}
        }
    }

    /// What was answered to whoever asked, against what it did.
    pub(crate) fn check_control(
        &mut self,
        control: &Control,
        before: &Rollout,
        after: &Rollout,
        is_done: bool,
    ) {
        let is_same = before == after;
        if !is_done && !is_same {
            return self.fail(Check::Asked, format!("refused, and done: {control:?}"));
        }
        let Control::Approve { stage } = control else {
            return;
        };
        let plan = before.plan();
        let (place, stages) = (plan.stage, plan.stages.len());
        let is_awaited = match plan.waits {
            Some(Waits::Approval { stage: awaited }) => awaited == *stage,
            // It may await approval while it is paused, too.
            Some(Waits::Resume { .. }) => *stage == place,
            Some(Waits::Time { .. }) | None => false,
        };
        let is_right = match (is_done, is_same) {
            // One that needs no word any more may have come due since anybody looked: a clock jumped.
            (true, false) => is_awaited || (*stage <= place && is_due(before)),
            (true, true) => *stage <= place,
            (false, _) => usize::from(*stage) > stages || *stage == 0 || *stage >= place,
        };
        if !is_right {
            let text = format!(
                "stage {stage} at {place}: done {is_done}, changed {}",
                !is_same
            );
            self.fail(Check::Asked, text);
        }
        match (is_done, is_same) {
            (true, true) => self.counts.count("a second approval did nothing"),
            (false, _) => self
                .counts
                .count("an approval of another stage was refused"),
            (true, false) => {}
        }
    }

    /// What a stage has to keep to when it writes.
    pub(crate) fn check_stage(&mut self, machine: &Rollout, new: &SiteRecord) {
        let region = self.names.region(&new.region);
        let old = self.sql.records[region].record.clone();
        let is_two = new.candidate.is_some() && new.live.is_some();
        let may_part = machine.kind() == Kind::Deploy && machine.outcome().is_none() && is_two;
        if new.weight.is_some() && !may_part {
            return self.fail(
                Check::Staged,
                format!("a weight that has no place: {new:?}"),
            );
        }
        if machine.kind() == Kind::Rollback || machine.outcome().is_some() {
            return;
        }
        let views = machine.regions();
        let target = views.iter().find(|view| view.region == new.region);
        let target = &target.unwrap().release;
        let is_live = |record: &SiteRecord| {
            record
                .live
                .as_ref()
                .is_some_and(|live| live.release == *target)
        };
        let commits = is_live(new) && !is_live(&old);
        if commits || new.weight > old.weight {
            self.check_begun(machine, new);
            self.count_begun(region, commits, old.weight.is_some());
        }
    }

    /// It may begin: approved, not paused, and what came before has settled.
    fn check_begun(&mut self, machine: &Rollout, new: &SiteRecord) {
        let plan = machine.plan();
        let percent = new.weight.unwrap_or(ALL);
        let is_this =
            |stage: &StageView| stage.percent == percent && stage.regions.contains(&new.region);
        let index = plan.stages.iter().position(is_this).unwrap();
        let (stage, number) = (&plan.stages[index], u16::try_from(index + 1).unwrap());
        if stage.approve && !self.notes.approved.contains(&number) {
            self.fail(
                Check::Staged,
                format!("stage {number} began without approval"),
            );
        }
        if matches!(plan.waits, Some(Waits::Resume { .. })) {
            self.fail(Check::Staged, format!("stage {number} began in a pause"));
        }
        let earlier = plan.stages.iter().filter(|other| other.wave < stage.wave);
        let earlier: BTreeSet<&RegionId> = earlier.flat_map(|stage| &stage.regions).collect();
        for (region, phase) in machine.phases() {
            if earlier.contains(region) && phase != PhaseName::Stable {
                let text = format!(
                    "{} began before {region} had settled: {phase:?}",
                    new.region
                );
                self.fail(Check::Staged, text);
            }
        }
        if stage.wave > 1 && percent == ALL {
            self.counts.count("a later wave committed");
        }
    }

    fn count_begun(&mut self, region: usize, commits: bool, was_weighted: bool) {
        if self.notes.was_paused {
            self.counts.count("a stage began after a pause");
        }
        if commits {
            self.notes.committed.insert(region);
        }
        match (commits, was_weighted) {
            (true, true) => self.counts.count("all visitors came after a canary"),
            (false, true) => self.counts.count("more visitors were admitted"),
            (false, false) => self.counts.count("some visitors were admitted"),
            (true, false) => {}
        }
    }

    /// Waits, canaries and what a sick one must not come to.
    pub(crate) fn count_waits(&mut self, machine: &Rollout) {
        match machine.waits() {
            Some(Waits::Approval { .. }) => self.counts.count("a stage waited for approval"),
            Some(Waits::Time { .. }) => self.counts.count("a wave waited for its time"),
            Some(Waits::Resume { .. }) | None => {}
        }
        let views = machine.regions().into_iter();
        for view in views.filter(|view| view.phase == PhaseName::Admitted) {
            let Some(bake) = view.bake else {
                self.fail(Check::Baked, format!("{} was not watched", view.region));
                continue;
            };
            let was_sick = bake
                .measures
                .iter()
                .any(|measure| measure.baseline >= Some(500_000));
            let is_well = !is_sick(number(&view.release)) || was_sick;
            match bake.verdict {
                Some(Verdict::Pass) if is_well => self.counts.count("a canary passed"),
                Some(Verdict::Inconclusive | Verdict::Error) => {}
                Some(Verdict::Pass | Verdict::Fail) | None => {
                    self.fail(Check::Baked, format!("a canary stays: {bake:?}"));
                }
            }
        }
    }

    /// No weight outlives its rollout.
    pub(crate) fn check_finished(&mut self, machine: &Rollout, outcome: Outcome) {
        let is_left = self
            .sql
            .records
            .iter()
            .enumerate()
            .filter(|(region, _)| Some(*region) != self.notes.signed)
            .any(|(_, saved)| saved.record.weight.is_some());
        if is_left {
            self.fail(Check::Staged, "a weight was left behind".to_owned());
        }
        let stayed = |phase| machine.phases().any(|(_, there)| there == phase);
        let is_half = stayed(PhaseName::Stable) && stayed(PhaseName::Aborted);
        if outcome == Outcome::NeedsOperator && is_half {
            self.counts
                .count("a later wave failed and the first stayed");
        }
    }

    /// A newer rollout comes, at whatever moment.
    pub(crate) fn count_superseded(&mut self, machine: &Rollout, by: Option<Kind>) {
        if machine.regions().iter().any(|view| view.weight.is_some()) {
            self.counts.count("superseded in a canary");
        }
        if machine.waits().is_some() {
            self.counts.count("superseded while it waited");
        }
        if by.is_none() {
            self.counts.count("an override ended a rollout");
        }
        if by == Some(Kind::Rollback) {
            self.counts.count("a rollback pre-empted");
        }
    }
}
