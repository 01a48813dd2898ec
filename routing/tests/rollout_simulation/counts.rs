//! What happened how often, over all seeds: a simulation that never gets somewhere proves nothing about it.

use std::collections::BTreeMap;

use helix_routing::api::PhaseName;
use helix_routing::rollout::Outcome;
use helix_routing::verdict::Verdict;

use crate::scenario::{Side, When};
use crate::transitions::TRANSITIONS;

/// What has to be reached once at least.
const SOMETIMES: &[&str] = &[
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
    "a rollback pre-empted",
    "pressed while a save was on its way",
    "pressed between a save and its answer",
    "pressed after a save",
    "pressed between a write and its sync",
    "pressed as a region came to a phase",
    "a standby took over",
    "the database refused an origin that was replaced",
    "the stream refused an origin that was replaced",
    "a save came after a change by somebody else",
    "a save was tried again",
    "a save was there already",
    "a transaction was lost with the tail",
    "a record was lost with the tail",
    "a torn artifact was found",
    "what was live before stood in after a restart",
    "an edge refused an older record",
    "what an earlier boot said came late",
    "something was collected",
    "an edge refused an override",
    "somebody ended an override",
    "a later cutover replaced an override",
    "an override of few edges stood",
    "an override of most edges was taken over",
    "an override ended a rollout",
    "an edge took itself back",
    "what most edges did by themselves was taken over",
    "an edge was taken out",
    "an edge was put back",
    "the last edge was not taken out",
    "pins waited for a rollout",
    "a record was written for its pins",
    "a visitor got what is pinned",
    "somebody purged a page",
    "a response was purged on its way",
    "a response on disk had been purged",
    "an edge had missed more purges than are listed",
    "a host came",
    "a host moved",
    "a host went",
    "there was nothing to sign an override to",
    "the stream refused an operator",
    "an operator signed an override",
    "an operator's term ended an origin",
    "an operator's override was taken over",
    "an override had been taken over before",
    "an override was taken over by an origin that had gone on",
    "an edge refused a term that is over",
    "an edge refused an operator's override",
];

/// By name; phases, outcomes and verdicts by theirs.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    named: BTreeMap<&'static str, u64>,
    moved: BTreeMap<(usize, usize), (PhaseName, PhaseName, u64)>,
    ended: BTreeMap<u8, u64>,
    verdicts: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(crate) fn count(&mut self, what: &'static str) {
        debug_assert!(SOMETIMES.contains(&what), "{what} is not listed");
        *self.named.entry(what).or_default() += 1;
    }

    fn count_if(&mut self, is_so: bool, what: &'static str) {
        if is_so {
            self.count(what);
        }
    }

    pub(crate) fn came_late(&mut self, is_so: bool) {
        self.count_if(is_so, "what an earlier boot said came late");
    }

    pub(crate) fn lost_transaction(&mut self, is_so: bool) {
        self.count_if(is_so, "a transaction was lost with the tail");
    }

    pub(crate) fn lost_record(&mut self, is_so: bool) {
        self.count_if(is_so, "a record was lost with the tail");
    }

    pub(crate) fn found_torn(&mut self, is_so: bool) {
        self.count_if(is_so, "a torn artifact was found");
    }

    pub(crate) fn stood_in(&mut self, is_so: bool) {
        self.count_if(is_so, "what was live before stood in after a restart");
    }

    pub(crate) fn collected(&mut self, is_so: bool) {
        self.count_if(is_so, "something was collected");
    }

    pub(crate) fn pressed(&mut self, when: When) {
        match when {
            When::Save(_, Side::Before) => self.count("pressed while a save was on its way"),
            When::Save(_, Side::Between) => self.count("pressed between a save and its answer"),
            When::Save(_, Side::After) => self.count("pressed after a save"),
            When::Write(_) => self.count("pressed between a write and its sync"),
            When::Phase(..) => self.count("pressed as a region came to a phase"),
            When::At(_) => {}
        }
    }

    pub(crate) fn moved(&mut self, from: PhaseName, to: PhaseName) {
        let key = (from as usize, to as usize);
        self.moved.entry(key).or_insert((from, to, 0)).2 += 1;
    }

    pub(crate) fn ended(&mut self, outcome: Outcome) {
        *self.ended.entry(outcome.exit_code()).or_default() += 1;
    }

    pub(crate) fn decided(&mut self, verdict: Verdict) {
        *self.verdicts.entry(verdict.label()).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.named {
            *self.named.entry(what).or_default() += count;
        }
        for (key, (from, to, count)) in &other.moved {
            self.moved.entry(*key).or_insert((*from, *to, 0)).2 += count;
        }
        for (outcome, count) in &other.ended {
            *self.ended.entry(*outcome).or_default() += count;
        }
        for (verdict, count) in &other.verdicts {
            *self.verdicts.entry(verdict).or_default() += count;
        }
    }

    /// What was never reached.
    pub(crate) fn missing(&self) -> Vec<String> {
        let named = SOMETIMES
            .iter()
            .filter(|what| !self.named.contains_key(*what));
        let moved = TRANSITIONS
            .iter()
            .filter(|(from, to)| !self.moved.contains_key(&(*from as usize, *to as usize)));
        let outcomes = [
            Outcome::Settled,
            Outcome::WentBack,
            Outcome::Aborted,
            Outcome::Superseded,
            Outcome::NeedsOperator,
        ];
        let ended = outcomes
            .iter()
            .filter(|outcome| !self.ended.contains_key(&outcome.exit_code()));
        let verdicts = [
            Verdict::Pass,
            Verdict::Fail,
            Verdict::Inconclusive,
            Verdict::Error,
        ];
        let decided = verdicts
            .iter()
            .filter(|verdict| !self.verdicts.contains_key(verdict.label()));
        let texts = named.map(|what| (*what).to_owned());
        let texts = texts.chain(moved.map(|(from, to)| format!("{from:?} to {to:?}")));
        let texts = texts.chain(ended.map(|outcome| format!("{outcome:?}")));
        texts
            .chain(decided.map(|verdict| format!("{verdict:?}")))
            .collect()
    }

    /// All of it, the rarest first.
    pub(crate) fn report(&self) -> String {
        let named = self
            .named
            .iter()
            .map(|(what, count)| (*count, (*what).to_owned()));
        let moved = self.moved.values();
        let moved = moved.map(|(from, to, count)| (*count, format!("{from:?} to {to:?}")));
        let ended = self
            .ended
            .iter()
            .map(|(code, count)| (*count, format!("ended with {code}")));
        let verdicts = self.verdicts.iter();
        let verdicts = verdicts.map(|(label, count)| (*count, format!("the bake came to {label}")));
        let mut all: Vec<(u64, String)> = named.chain(moved).chain(ended).chain(verdicts).collect();
        all.sort();
        let lines = all
            .into_iter()
            .map(|(count, what)| format!("{count:>9}  {what}\n"));
        lines.collect()
    }
}
