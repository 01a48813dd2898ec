//! Bakes: what they are drawn to be, and what must hold of them and of the way back.

use helix_routing::bake::{BakeRules, Number, OnFail, OnInconclusive, PromqlCheck};
use helix_routing::record::ReleaseRef;
use helix_routing::rollout::{ALL, BakePlan, Kind, Rollout};
use helix_routing::routes::Span;
use helix_routing::verdict::Verdict;

use crate::checks::Check;
use crate::names::number;
use crate::world::World;

/// Releases below this answer every request with 500.
const SICK: u8 = 3;
/// More errors than this of a million, and what was live before was sick too.
const MANY_ERRORS: u64 = 500_000;

/// Whether every request to it fails.
pub(crate) const fn is_sick(release: u8) -> bool {
    release < SICK
}

impl World {
    pub(crate) fn draw_bake(&mut self) {
        let dice = &mut self.dice;
        let check = PromqlCheck {
            name: "carts".to_owned(),
            query: "sum(carts)".to_owned(),
            max: Some(Number(1.0)),
            min: None,
            interval: Span::from_secs(2),
        };
        let window = Span::from_secs(dice.roll(4) * 5);
        let asks = dice.one_in(4);
        let on_fail = if dice.one_in(2) {
            OnFail::All
        } else {
            OnFail::Region
        };
        let on_inconclusive = if dice.one_in(2) {
            OnInconclusive::Ask
        } else {
            OnInconclusive::Settle
        };
        self.notes.is_unanswered = dice.one_in(3);
        self.notes.plan = BakePlan {
            window,
            rules: BakeRules {
                on_fail,
                on_inconclusive,
                promql: if asks { vec![check] } else { Vec::new() },
                ..BakeRules::default()
            },
        };
    }

    /// A bake counts nothing that was not answered, however often and in whatever order it is told.
    pub(crate) fn check_bakes(&mut self, machine: &Rollout) {
        for view in machine.regions() {
            let Some(bake) = view.bake.clone() else {
                continue;
            };
            let region = self.names.region(&view.region);
            let key = (region, view.weight.unwrap_or(ALL));
            let began = *self.notes.began.entry(key).or_insert(bake.since);
            if began != bake.since {
                let text = format!(
                    "the clock began anew in {}: at {began}, at {}",
                    view.region, bake.since
                );
                self.fail(
                    Check::Baked,
                    format!("{text} {view:?} {:?}", machine.plan()),
                );
            }
            let record = machine.record(&view.region).unwrap();
            let since = match view.weight {
                Some(_) => record.generation,
                None => record.live_since,
            };
            let live = record.live.as_ref().map(|live| &live.release);
            let is_seen = live == Some(&view.release) || view.weight.is_some();
            let key = (region, number(&view.release), since);
            let truth = self.notes.answered.get(&key).copied().unwrap_or_default();
            if is_seen && bake.requests > truth {
                let text = format!(
                    "{} requests were counted of {truth} in {}",
                    bake.requests, view.region
                );
                self.fail(Check::Baked, text);
            }
        }
    }

    /// Nothing settles before its window is over, and nothing passes that is sick.
    pub(crate) fn check_baked(&mut self, machine: &Rollout, region: usize, settled: &ReleaseRef) {
        let id = &self.names.regions[region];
        let view = machine
            .regions()
            .into_iter()
            .find(|view| view.region == *id)
            .unwrap();
        if machine.kind() != Kind::Deploy || !self.notes.plan.bakes() {
            if view.bake.is_some() {
                self.fail(Check::Baked, "nothing bakes here".to_owned());
            }
            return;
        }
        let Some((bake, verdict)) = view
            .bake
            .and_then(|bake| Some((bake.clone(), bake.verdict?)))
        else {
            return self.fail(Check::Baked, "what settled was not watched".to_owned());
        };
        if bake.decided < Some(bake.since + self.notes.plan.window.duration()) {
            self.fail(
                Check::Baked,
                format!("settled before its window was over: {bake:?}"),
            );
        }
        // Of two that are equally sick, the newer is no worse.
        let was_sick = bake
            .measures
            .iter()
            .any(|measure| measure.baseline >= Some(MANY_ERRORS));
        let is_well = !is_sick(number(&settled.release)) || was_sick;
        if verdict == Verdict::Fail || (verdict == Verdict::Pass && !is_well) {
            self.fail(Check::Baked, format!("a sick release settled: {bake:?}"));
        }
        self.counts.decided(verdict);
    }

    /// A region goes back by itself once, to what is not quarantined, and nothing is blamed that is well.
    pub(crate) fn check_return(
        &mut self,
        region: usize,
        left: &ReleaseRef,
        to: &ReleaseRef,
        blamed: Option<&str>,
    ) {
        let record = &self.sql.records[region].record;
        let is_bad = self
            .sql
            .quarantined
            .contains(&(region, number(&to.release)));
        let wrong = if record.live.as_ref() != Some(to) {
            Some("the record does not say so")
        } else if left == to {
            Some("it went back to what it left")
        } else if is_bad {
            Some("it went back to what is quarantined")
        } else if blamed.is_some() && record.hold.is_none() {
            Some("it is not held")
        } else if blamed.is_some() && !self.is_to_blame(left) {
            Some("a release that is well was blamed")
        } else if self.notes.returned.contains(&region) {
            Some("it went back twice by itself")
        } else {
            None
        };
        self.notes.returned.insert(region);
        if let Some(wrong) = wrong {
            self.fail(
                Check::Returned,
                format!("{wrong}, {blamed:?}: {left:?} to {to:?}"),
            );
        }
        if blamed.is_some() {
            self.counts.decided(Verdict::Fail);
        }
    }

    pub(crate) fn check_withdrawal(&mut self, region: usize, left: &ReleaseRef, is_blamed: bool) {
        let record = &self.sql.records[region].record;
        let goes_on = record.weight.is_some() || record.candidate.is_some();
        if goes_on || (is_blamed && (record.hold.is_none() || !self.is_to_blame(left))) {
            let text = format!("withdrawn, blamed {is_blamed}: {record:?}");
            self.fail(Check::Returned, text);
        }
        self.counts.count("a canary was withdrawn");
        if is_blamed {
            self.counts.count("a canary was blamed");
        }
    }

    fn is_to_blame(&self, left: &ReleaseRef) -> bool {
        is_sick(number(&left.release)) || self.notes.has_bad_answer
    }
}
