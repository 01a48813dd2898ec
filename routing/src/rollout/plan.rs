//! Pure. A policy over the regions that there are: the stages of a rollout, one after the other.
//!
//! ```text
//! wave 1: fra             stage 1: 5 % of fra ─▶ 2: 25 % ─▶ 3: all
//! wave 2: iad, gru, syd   (soak, approval) ─▶ stage 4: 5 % of iad, gru ─▶ 5 ─▶ 6: all ─▶ 7: 5 % of syd ─▶ 8 ─▶ 9
//! ```
//!
//! Invariant: every region is in exactly one stage of 100 percent, and its smaller stages come before that, rising.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use serde::{Deserialize, Serialize};

use super::hours::Hours;
use super::policy::{
    Approvals, RolloutPolicy, UsualApprovals, UsualOrder, WaveOrder, named, places_the_rest,
};
use crate::id::RegionId;
use crate::routes::Span;
use crate::time::Timestamp;

/// All of a region's visitors.
pub const ALL: u8 = 100;

/// One step of the whole rollout: some regions get so far at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Which wave it belongs to, from 1.
    pub wave: u16,
    /// The regions.
    pub regions: Vec<RegionId>,
    /// Percent of their visitors; at 100 the release is live there.
    pub percent: u8,
    /// How long fewer than all are watched.
    pub time: Span,
    /// Wait before it begins.
    pub soak: Span,
    /// Whether somebody has to approve it.
    pub approve: bool,
}

/// All stages, and when they may begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPlan {
    /// In order. None: all regions together, at once.
    pub stages: Vec<Stage>,
    /// Nothing goes live before.
    pub not_before: Option<Timestamp>,
    /// The only times at which a stage may begin; none: always.
    pub hours: Vec<Hours>,
    /// Times at which none begins.
    pub closed: Vec<Closed>,
}

/// A time at which no stage begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// From then on.
    pub from: Timestamp,
    /// Then it is over.
    pub until: Timestamp,
}

/// Why a policy cannot be carried out on these regions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A wave names what there is not.
    #[error("rollout.order: there is no region {region}")]
    UnknownRegion {
        /// What it names.
        region: RegionId,
    },
    /// A stage is to be approved that there is not.
    #[error("rollout.approve: there is no stage {stage}; this rollout has {stages}")]
    UnknownStage {
        /// Its number.
        stage: u16,
        /// How many there are.
        stages: usize,
    },
}

impl RolloutPlan {
    /// What `policy` means for these regions, which are in the order of the config.
    ///
    /// # Errors
    /// When it names regions or stages that there are not.
    pub fn of(policy: &RolloutPolicy, regions: &[RegionId]) -> Result<Self, PlanError> {
        let parallel = match policy.parallel {
            Some(parallel @ 1..) => usize::from(parallel),
            Some(0) | None => regions.len().max(1),
        };
        let steps = policy.steps.as_deref().unwrap_or_default();
        let mut stages: Vec<Stage> = Vec::new();
        for (index, wave) in waves(policy.order.as_ref(), regions)?.iter().enumerate() {
            let soak = if index == 0 { None } else { policy.soak };
            let mut soak = soak.unwrap_or(Span::from_millis(0));
            let mut stage = |regions: &[RegionId], percent, time| {
                stages.push(Stage {
                    wave: u16::try_from(index + 1).unwrap_or(u16::MAX),
                    regions: regions.to_vec(),
                    percent,
                    time,
                    soak: mem::replace(&mut soak, Span::from_millis(0)),
                    approve: false,
                });
            };
            for regions in wave.chunks(parallel) {
                for step in steps {
                    stage(regions, step.percent, step.time);
                }
                stage(regions, ALL, Span::from_millis(0));
            }
        }
        mark_approvals(policy.approve.as_ref(), &mut stages)?;
        Ok(Self {
            stages,
            not_before: None,
            hours: policy.hours.clone().unwrap_or_default(),
            closed: Vec::new(),
        })
    }

    /// All regions at once, with no more waiting than before the first.
    #[must_use]
    pub fn together(mut self, regions: &[RegionId]) -> Self {
        let approve = self.stages.first().is_some_and(|stage| stage.approve);
        self.stages = Vec::from([Stage::everywhere(regions.to_vec())]);
        for stage in &mut self.stages {
            stage.approve = approve;
        }
        self
    }
}

impl Stage {
    /// Everything in these regions.
    pub(super) const fn everywhere(regions: Vec<RegionId>) -> Self {
        Self {
            wave: 1,
            regions,
            percent: ALL,
            time: Span::from_millis(0),
            soak: Span::from_millis(0),
            approve: false,
        }
    }
}

/// When a stage may begin from `now` on: within the hours, if there are any, and at no closed time.
pub(super) fn open_at(hours: &[Hours], closed: &[Closed], now: Timestamp) -> Timestamp {
    let mut open = Hours::open_at(hours, now);
    // Each closed time is left behind at most once, and leads to later hours.
    for _ in 0..=closed.len() {
        let here = |closed: &&Closed| closed.from <= open && open < closed.until;
        let Some(inside) = closed.iter().find(here) else {
            break;
        };
        open = Hours::open_at(hours, inside.until);
    }
    open
}

fn waves(order: Option<&WaveOrder>, regions: &[RegionId]) -> Result<Vec<Vec<RegionId>>, PlanError> {
    let waves = match order {
        None | Some(WaveOrder::Usual(UsualOrder::Together)) => Vec::from([regions.to_vec()]),
        Some(WaveOrder::Usual(UsualOrder::Canary)) => {
            let (first, rest) = regions.split_at(regions.len().min(1));
            Vec::from([first.to_vec(), rest.to_vec()])
        }
        Some(WaveOrder::Waves(waves)) => by_name(waves, regions)?,
    };
    Ok(waves.into_iter().filter(|wave| !wave.is_empty()).collect())
}

fn by_name(waves: &[Vec<String>], regions: &[RegionId]) -> Result<Vec<Vec<RegionId>>, PlanError> {
    let by_name: Vec<RegionId> = waves.iter().flat_map(|wave| named(wave, &[])).collect();
    if let Some(unknown) = by_name.iter().find(|region| !regions.contains(region)) {
        return Err(PlanError::UnknownRegion {
            region: unknown.clone(),
        });
    }
    let rest = regions.iter().filter(|region| !by_name.contains(region));
    let rest: Vec<RegionId> = rest.cloned().collect();
    let mut all: Vec<Vec<RegionId>> = waves.iter().map(|wave| named(wave, &rest)).collect();
    if !places_the_rest(waves) {
        all.push(rest);
    }
    Ok(all)
}

fn mark_approvals(approve: Option<&Approvals>, stages: &mut [Stage]) -> Result<(), PlanError> {
    let count = stages.len();
    let mut wave = 1;
    for (index, stage) in stages.iter_mut().enumerate() {
        let begins_wave = mem::replace(&mut wave, stage.wave) != stage.wave;
        stage.approve = match approve {
            None | Some(Approvals::Usual(UsualApprovals::None)) => false,
            Some(Approvals::Usual(UsualApprovals::Waves)) => begins_wave,
            Some(Approvals::Usual(UsualApprovals::Stages)) => index > 0,
            Some(Approvals::Usual(UsualApprovals::All)) => true,
            Some(Approvals::Stages(numbers)) => numbers
                .iter()
                .any(|number| usize::from(*number) == index + 1),
        };
    }
    match approve {
        Some(Approvals::Stages(numbers)) => {
            let beyond = numbers.iter().find(|number| usize::from(**number) > count);
            beyond.map_or(Ok(()), |stage| {
                Err(PlanError::UnknownStage {
                    stage: *stage,
                    stages: count,
                })
            })
        }
        None | Some(Approvals::Usual(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(names: &[&str]) -> Vec<RegionId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// As in `1:fra@5 1:fra 2!:iad+gru`: wave, whether it waits for approval, regions, percent.
    fn drawn(policy: &str, names: &[&str]) -> String {
        let policy: RolloutPolicy = serde_json::from_str(policy).unwrap();
        let plan = match RolloutPlan::of(&policy, &regions(names)) {
            Ok(plan) => plan,
            Err(error) => return alloc::format!("{error}"),
        };
        let stages = plan.stages.iter().map(|stage| {
            let names: Vec<&str> = stage.regions.iter().map(RegionId::as_str).collect();
            let approve = if stage.approve { "!" } else { "" };
            let soak = if stage.soak > Span::from_millis(0) {
                "~"
            } else {
                ""
            };
            let percent = match stage.percent {
                ALL => String::new(),
                percent => alloc::format!("@{percent}"),
            };
            alloc::format!("{}{soak}{approve}:{}{percent}", stage.wave, names.join("+"))
        });
        stages.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_policy_becomes_stages() {
        let three = ["fra", "iad", "gru"];
        for (policy, stages) in [
            ("{}", "1:fra+iad+gru"),
            (r#"{"order":"together","soak":"5m"}"#, "1:fra+iad+gru"),
            (r#"{"order":"canary"}"#, "1:fra 2:iad+gru"),
            (
                r#"{"order":"canary","soak":"5m","parallel":1}"#,
                "1:fra 2~:iad 2:gru",
            ),
            (r#"{"order":[["gru"],["fra","iad"]]}"#, "1:gru 2:fra+iad"),
            (r#"{"order":[["*"],["fra"]]}"#, "1:iad+gru 2:fra"),
            (r#"{"order":[["iad"]]}"#, "1:iad 2:fra+gru"),
            (
                r#"{"order":"canary","steps":["5%:1m","25%:1m"],"approve":"waves","soak":"1m"}"#,
                "1:fra@5 1:fra@25 1:fra 2~!:iad+gru@5 2:iad+gru@25 2:iad+gru",
            ),
            (r#"{"order":"canary","approve":[1]}"#, "1!:fra 2:iad+gru"),
            (r#"{"order":"canary","approve":"all"}"#, "1!:fra 2!:iad+gru"),
            (
                r#"{"order":"canary","parallel":1,"approve":"stages"}"#,
                "1:fra 2!:iad 2!:gru",
            ),
            (
                r#"{"approve":[2]}"#,
                "rollout.approve: there is no stage 2; this rollout has 1",
            ),
            (
                r#"{"order":[["syd"]]}"#,
                "rollout.order: there is no region syd",
            ),
        ] {
            assert_eq!(drawn(policy, &three), stages, "{policy}");
        }
        assert_eq!(drawn(r#"{"order":"canary"}"#, &["fra"]), "1:fra");
    }

    #[test]
    fn a_closed_time_leads_to_the_next_opening() {
        let at = |hours: u64| Timestamp::from_millis(hours * 3_600_000);
        let closed = |from, until| Closed {
            from: at(from),
            until: at(until),
        };
        let two = [closed(5, 6), closed(2, 5)];
        for (now, open) in [(1, 1), (2, 6), (4, 6), (5, 6), (6, 6)] {
            assert_eq!(open_at(&[], &two, at(now)), at(open), "{now}");
        }
        // The epoch was a Thursday.
        let hours = [
            "thu 03:00-04:00".parse().unwrap(),
            "thu 09:00-10:00".parse().unwrap(),
        ];
        assert_eq!(open_at(&hours, &two, at(0)), at(9));
    }

    #[test]
    fn together_keeps_only_the_first_approval() {
        let policy: RolloutPolicy =
            serde_json::from_str(r#"{"order":"canary","approve":"all","steps":["5%:1m"]}"#)
                .unwrap();
        let all = regions(&["fra", "iad"]);
        let plan = RolloutPlan::of(&policy, &all).unwrap().together(&all);
        assert_eq!(plan.stages.len(), 1);
        assert!(plan.stages[0].approve && plan.stages[0].percent == ALL);
    }
}
