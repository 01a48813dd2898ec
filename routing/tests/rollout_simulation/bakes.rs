//! Bakes in the simulation: who answers what, what is told of it, and what must hold.

use std::collections::{BTreeMap, BTreeSet};

use helix_routing::bake::{BakeRules, Number, OnFail, OnInconclusive, PromqlCheck};
use helix_routing::id::{RegionId, ReleaseId};
use helix_routing::record::ReleaseRef;
use helix_routing::rollout::{ALL, BakePlan, Event, Kind};
use helix_routing::routes::Span;
use helix_routing::time::Timestamp;
use helix_routing::verdict::Verdict;

use crate::world::{Message, World, release};

/// Releases below this answer every request with 500.
const SICK: u64 = 3;

/// What the running rollout's bake is held to.
#[derive(Default)]
pub(crate) struct Bake {
    pub(crate) plan: BakePlan,
    /// By region and percent of its visitors.
    pub(crate) began: BTreeMap<(RegionId, u8), Timestamp>,
    pub(crate) returned: BTreeSet<RegionId>,
    pub(crate) bad_answer: bool,
    /// Prometheus has no answer to anything.
    pub(crate) is_unanswered: bool,
}

/// Whether every request to it fails.
pub(crate) fn is_sick(sought: &ReleaseId) -> bool {
    (0..SICK).any(|number| release(number).release == *sought)
}

impl World {
    pub(crate) fn bake_plan(&mut self) -> BakePlan {
        let asks = self.dice.one_in(4);
        let check = PromqlCheck {
            name: "carts".to_owned(),
            query: "sum(carts)".to_owned(),
            max: Some(Number(1.0)),
            min: None,
            interval: Span::from_secs(2),
        };
        let window = Span::from_secs(self.dice.roll(4) * 5);
        let on_fail = if self.dice.one_in(2) {
            OnFail::All
        } else {
            OnFail::Region
        };
        let on_inconclusive = if self.dice.one_in(3) {
            OnInconclusive::Ask
        } else {
            OnInconclusive::Settle
        };
        BakePlan {
            window,
            rules: BakeRules {
                on_fail,
                on_inconclusive,
                promql: if asks { vec![check] } else { Vec::new() },
                ..BakeRules::default()
            },
        }
    }

    /// A bake counts nothing that was not answered, however often and in whatever order it is told.
    pub(crate) fn check_bakes(&mut self) {
        let Some(rollout) = &self.rollout else { return };
        for view in rollout.regions() {
            let Some(bake) = view.bake else { continue };
            let key = (view.region.clone(), view.weight.unwrap_or(ALL));
            let began = self.bake.began.entry(key);
            assert_eq!(
                *began.or_insert(bake.since),
                bake.since,
                "the clock began anew"
            );
            let record = rollout.record(&view.region).unwrap();
            let since = match view.weight {
                Some(_) => record.generation,
                None => record.live_since,
            };
            let is_live = rollout
                .record(&view.region)
                .unwrap()
                .live
                .as_ref()
                .map(|live| &live.release)
                == Some(&view.release);
            let key = (view.region.clone(), view.release.clone(), since);
            let truth = self.answered.get(&key).copied().unwrap_or_default();
            assert!(
                !(is_live || view.weight.is_some()) || bake.requests <= truth,
                "{} requests were counted of {truth} in {}",
                bake.requests,
                view.region
            );
        }
    }

    /// Nothing settles before its window is over, and nothing passes that is sick.
    pub(crate) fn check_baked(&mut self, region: &RegionId, settled: &ReleaseRef) {
        let Some(rollout) = &self.rollout else { return };
        let view = rollout
            .regions()
            .into_iter()
            .find(|view| view.region == *region)
            .unwrap();
        if rollout.kind() != Kind::Deploy || !self.bake.plan.bakes() {
            assert!(view.bake.is_none(), "nothing bakes here");
            return;
        }
        let bake = view.bake.expect("what settled was watched");
        let began = self.bake.began[&(region.clone(), ALL)];
        assert!(
            self.now >= began + self.bake.plan.window.duration(),
            "settled before its window was over"
        );
        let verdict = bake.verdict.unwrap();
        // Of two that are equally sick, the newer is no worse.
        let was_sick = bake
            .measures
            .iter()
            .any(|measure| measure.baseline >= Some(500_000));
        let is_well = !is_sick(&settled.release) || was_sick;
        assert!(
            verdict != Verdict::Fail && (verdict != Verdict::Pass || is_well),
            "a sick release settled: {bake:?}"
        );
        *self.outcomes.entry(format!("{verdict:?}")).or_default() += 1;
    }

    /// A region goes back by itself once, to what is not quarantined, and nothing is blamed that is well.
    pub(crate) fn check_return(
        &mut self,
        region: &RegionId,
        left: &ReleaseRef,
        to: &ReleaseRef,
        blamed: Option<&str>,
    ) {
        assert!(
            self.bake.returned.insert(region.clone()),
            "{region} went back twice by itself"
        );
        assert_ne!(left, to, "{region} went back to what it left");
        let here = (region.clone(), to.release.clone());
        assert!(
            !self.quarantined.contains(&here),
            "{region} went back to what is quarantined"
        );
        let record = &self.records[region];
        assert_eq!(record.live.as_ref(), Some(to), "the record does not say so");
        if blamed.is_some() {
            assert!(
                is_sick(&left.release) || self.bake.bad_answer,
                "a release that is well was blamed: {blamed:?}"
            );
            assert!(record.hold.is_some(), "{region} went back and is not held");
            *self.outcomes.entry("Fail".to_owned()).or_default() += 1;
        }
    }

    /// Requests come in on every edge.
    pub(crate) fn serve(&mut self) {
        for edge in self.edges.iter_mut().filter(|edge| edge.up) {
            let requests = self.dice.roll(60);
            let counted = edge.counted.iter_mut().chain(&mut edge.canary);
            for (release, since, window) in counted {
                for _ in 0..requests {
                    window.add(is_sick(release), 1_000);
                }
                let key = (edge.region.clone(), release.clone(), *since);
                *self.answered.entry(key).or_default() += requests;
            }
        }
    }

    /// Every edge says what it has counted, where its record says that it is to.
    pub(crate) fn tell_windows(&mut self) {
        for edge in self.edges.iter().filter(|edge| edge.up) {
            let reports = edge.window_reports(&self.site);
            self.network
                .extend(reports.into_iter().map(Message::Window));
        }
    }

    pub(crate) fn answer(&mut self, region: RegionId, check: usize) {
        let answer = match self.dice.roll(30) {
            0 if !self.bake.is_unanswered => Number(9.0),
            roll if roll < 10 || self.bake.is_unanswered => {
                return self.step(&Event::Answered {
                    region,
                    check,
                    answer: Err("no answer".to_owned()),
                });
            }
            _ => Number(1.0),
        };
        self.bake.bad_answer |= answer == Number(9.0);
        self.step(&Event::Answered {
            region,
            check,
            answer: Ok(answer),
        });
    }
}
