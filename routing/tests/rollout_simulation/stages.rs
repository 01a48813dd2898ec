//! Stages in the simulation: how a deployment is ordered, what operators press at any moment, and what must hold.

use std::collections::BTreeSet;

use helix_routing::api::{PhaseName, Waits};
use helix_routing::id::RegionId;
use helix_routing::record::{ReleaseRef, SiteRecord};
use helix_routing::rollout::{
    ALL, Approvals, Control, Kind, Outcome, RolloutPlan, RolloutPolicy, Step, UsualApprovals,
    UsualOrder, WaveOrder,
};
use helix_routing::routes::Span;
use helix_routing::verdict::Verdict;

use crate::bakes::is_sick;
use crate::world::{REGIONS, World};

/// What has to be reached once at least; each is counted under its name.
pub(crate) const SOMETIMES: &[&str] = &[
    "a later wave committed",
    "a wave waited for its time",
    "a stage waited for approval",
    "a stage was approved",
    "a second approval did nothing",
    "an approval of another stage was refused",
    "a rollout was paused",
    "a stage began after a pause",
    "a rollout was aborted before a commit",
    "a rollout was aborted after a commit",
    "some visitors were admitted",
    "more visitors were admitted",
    "a canary passed",
    "a canary was withdrawn",
    "a canary was blamed",
    "all visitors came after a canary",
    "superseded in a canary",
    "superseded while it waited",
    "a later wave failed and the first stayed",
];

/// What is known of the running rollout's stages.
#[derive(Default)]
pub(crate) struct Staged {
    approved: BTreeSet<u16>,
    was_paused: bool,
    committed: BTreeSet<RegionId>,
}

impl World {
    pub(crate) fn rollout_plan(&mut self) -> RolloutPlan {
        let order = match self.dice.roll(3) {
            0 => WaveOrder::Usual(UsualOrder::Together),
            1 => WaveOrder::Usual(UsualOrder::Canary),
            _ => WaveOrder::Waves(vec![vec!["iad".to_owned()], vec!["*".to_owned()]]),
        };
        let approve = match self.dice.roll(6) {
            0 => UsualApprovals::Waves,
            1 => UsualApprovals::Stages,
            2 => UsualApprovals::All,
            _ => UsualApprovals::None,
        };
        let step = |percent, seconds| Step {
            percent,
            time: Span::from_secs(seconds),
        };
        let steps = match self.dice.roll(4) {
            0 => vec![step(5, 3)],
            1 => vec![step(10, 4), step(50, 4)],
            _ => Vec::new(),
        };
        let policy = RolloutPolicy {
            order: Some(order),
            soak: Some(Span::from_secs(self.dice.roll(3) * 4)),
            approve: Some(Approvals::Usual(approve)),
            steps: Some(steps),
            ..RolloutPolicy::default()
        };
        let regions: Vec<RegionId> = REGIONS.iter().map(|name| name.parse().unwrap()).collect();
        RolloutPlan::of(&policy, &regions).unwrap()
    }

    fn count(&mut self, what: &'static str) {
        assert!(SOMETIMES.contains(&what), "{what} is not listed");
        *self.outcomes.entry(what.to_owned()).or_default() += 1;
    }

    /// An operator presses something.
    pub(crate) fn control(&mut self) {
        let control = match self.dice.roll(24) {
            0 => Control::Pause { reason: None },
            1..=6 => Control::Resume,
            7 => Control::Abort { reason: None },
            8..=12 => Control::Approve {
                stage: u16::try_from(self.dice.roll(5)).unwrap(),
            },
            _ => match self.waits() {
                Some(Waits::Approval { stage }) => Control::Approve { stage },
                Some(_) | None => return,
            },
        };
        self.ask(&control);
    }

    fn waits(&self) -> Option<Waits> {
        self.rollout.as_ref()?.waits()
    }

    fn ask(&mut self, control: &Control) {
        let (now, fleet) = (self.now, self.fleet());
        let waits = self.waits();
        let Some(rollout) = &mut self.rollout else {
            return;
        };
        let (before, place) = (rollout.clone(), rollout.plan().stage);
        let answer = rollout.control(now, &fleet, "ana", control);
        let is_same = *rollout == before;
        if let Control::Approve { stage } = control {
            let awaited = before.plan().stages.len();
            match (&answer, &waits) {
                (Ok(_), Some(Waits::Approval { stage: awaited })) if stage == awaited => {
                    assert!(!is_same, "an approval changed nothing");
                    self.staged.approved.insert(*stage);
                    self.count("a stage was approved");
                }
                // It may await approval while it is paused, too.
                (Ok(_), Some(Waits::Resume { .. })) if *stage == place => {
                    self.staged.approved.insert(*stage);
                }
                (Ok(_), _) => {
                    assert!(is_same && *stage <= place, "approved what does not wait");
                    self.count("a second approval did nothing");
                }
                (Err(_), _) => {
                    assert!(is_same, "a refusal changed something");
                    assert!(
                        usize::from(*stage) > awaited || *stage == 0 || *stage >= place,
                        "refused an approval that was given before"
                    );
                    self.count("an approval of another stage was refused");
                }
            }
        }
        let Ok(commands) = answer else { return };
        match control {
            Control::Pause { .. } if !is_same => {
                self.staged.was_paused = true;
                self.count("a rollout was paused");
            }
            Control::Abort { .. } => self.count(if self.staged.committed.is_empty() {
                "a rollout was aborted before a commit"
            } else {
                "a rollout was aborted after a commit"
            }),
            Control::Pause { .. } | Control::Resume | Control::Approve { .. } => {}
        }
        self.carry_out(commands);
    }

    /// Once the faults stop, somebody lets everything go on.
    pub(crate) fn let_it_go_on(&mut self) {
        match self.waits() {
            Some(Waits::Resume { .. }) => self.ask(&Control::Resume),
            Some(Waits::Approval { stage }) => self.ask(&Control::Approve { stage }),
            Some(Waits::Time { .. }) | None => {}
        }
    }

    /// What a stage has to keep to when it writes.
    pub(crate) fn check_staged(&mut self, new: &SiteRecord) {
        let old = &self.records[&new.region];
        assert!(
            new.weight.is_none() || (new.candidate.is_some() && new.live.is_some()),
            "a weight without two releases: {new:?}"
        );
        let Some(rollout) = &self.rollout else {
            assert_eq!(new.weight, None, "a weight was left behind");
            return;
        };
        if rollout.kind() == Kind::Rollback || rollout.outcome().is_some() {
            assert_eq!(new.weight, None, "a weight was left behind");
            return;
        }
        let target = rollout
            .regions()
            .into_iter()
            .find(|view| view.region == new.region);
        let target = target.unwrap().release;
        let is_target =
            |live: &Option<ReleaseRef>| live.as_ref().is_some_and(|live| live.release == target);
        let commits = is_target(&new.live) && !is_target(&old.live);
        let admits = new.weight > old.weight;
        if !commits && !admits {
            return;
        }
        let was_weighted = old.weight.is_some();
        let plan = rollout.plan();
        let percent = new.weight.unwrap_or(ALL);
        let is_this = |stage: &helix_routing::rollout::StageView| {
            stage.percent == percent && stage.regions.contains(&new.region)
        };
        let index = plan.stages.iter().position(is_this).unwrap();
        let stage = &plan.stages[index];
        let number = u16::try_from(index + 1).unwrap();
        assert!(
            !stage.approve || self.staged.approved.contains(&number),
            "stage {number} began without approval"
        );
        assert!(
            !matches!(rollout.waits(), Some(Waits::Resume { .. })),
            "stage {number} began in a pause"
        );
        let earlier = plan.stages.iter().filter(|other| other.wave < stage.wave);
        let earlier: BTreeSet<&RegionId> = earlier.flat_map(|stage| &stage.regions).collect();
        for view in rollout.regions() {
            assert!(
                !earlier.contains(&view.region) || view.phase == PhaseName::Stable,
                "{} began before {} had settled: {:?}",
                new.region,
                view.region,
                view.phase
            );
        }
        let is_later = stage.wave > 1;
        self.check_prepared(new, &target);
        if self.staged.was_paused {
            self.count("a stage began after a pause");
        }
        if commits {
            self.staged.committed.insert(new.region.clone());
            self.count_commit(is_later, was_weighted);
        } else if was_weighted {
            self.count("more visitors were admitted");
        } else {
            self.count("some visitors were admitted");
        }
    }

    fn count_commit(&mut self, is_later: bool, was_weighted: bool) {
        if is_later {
            self.count("a later wave committed");
        }
        if was_weighted {
            self.count("all visitors came after a canary");
        }
    }

    fn check_prepared(&self, new: &SiteRecord, target: &helix_routing::id::ReleaseId) {
        for edge in &self.edges {
            assert!(
                edge.region != new.region
                    || !self.steady.contains(&edge.id)
                    || edge.prepared.contains(target),
                "{} gets visitors for what it has not prepared",
                edge.id
            );
        }
    }

    pub(crate) fn check_withdrawal(&mut self, region: RegionId, left: ReleaseRef, blames: bool) {
        let record = &self.records[&region];
        assert!(
            !blames || record.hold.is_some(),
            "{region} went back and is not held"
        );
        assert_eq!(
            (&record.weight, &record.candidate),
            (&None, &None),
            "{region} goes on with the candidate"
        );
        self.count("a canary was withdrawn");
        if blames {
            assert!(
                is_sick(&left.release) || self.bake.bad_answer,
                "a release that is well was blamed"
            );
            self.quarantined.insert((region, left.release));
            self.count("a canary was blamed");
        }
    }

    /// Waits, canaries and what a sick one must not come to.
    pub(crate) fn count_stages(&mut self) {
        match self.waits() {
            Some(Waits::Approval { .. }) => self.count("a stage waited for approval"),
            Some(Waits::Time { until }) if until > self.now => {
                self.count("a wave waited for its time");
            }
            Some(_) | None => {}
        }
        let views = self
            .rollout
            .iter()
            .flat_map(helix_routing::rollout::Rollout::regions);
        let admitted: Vec<_> = views
            .filter(|view| view.phase == PhaseName::Admitted)
            .collect();
        for view in admitted {
            let bake = view.bake.expect("what is admitted was watched");
            let was_sick = bake
                .measures
                .iter()
                .any(|measure| measure.baseline >= Some(500_000));
            match bake.verdict {
                Some(Verdict::Pass) => {
                    assert!(
                        !is_sick(&view.release) || was_sick,
                        "a sick canary passed: {bake:?}"
                    );
                    self.count("a canary passed");
                }
                Some(Verdict::Inconclusive | Verdict::Error) => {}
                Some(Verdict::Fail) | None => panic!("{:?} is admitted", bake.verdict),
            }
        }
    }

    /// No weight outlives its rollout.
    pub(crate) fn check_finished(&mut self, outcome: Outcome) {
        for record in self.records.values() {
            assert_eq!(record.weight, None, "a weight was left behind: {record:?}");
        }
        let Some(rollout) = &self.rollout else { return };
        let views = rollout.regions();
        let stayed = |phase| views.iter().any(|view| view.phase == phase);
        let is_half = stayed(PhaseName::Stable) && stayed(PhaseName::Aborted);
        if outcome == Outcome::NeedsOperator && is_half {
            self.count("a later wave failed and the first stayed");
        }
    }

    /// A newer rollout comes, at whatever moment.
    pub(crate) fn count_superseded(&mut self) {
        let Some(rollout) = &self.rollout else { return };
        let is_weighted = rollout.regions().iter().any(|view| view.weight.is_some());
        if is_weighted {
            self.count("superseded in a canary");
        }
        if self.waits().is_some() {
            self.count("superseded while it waited");
        }
    }
}
