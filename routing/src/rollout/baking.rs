//! Pure. What is known of a release that bakes in one region.
//!
//! Invariant: reports may be lost, repeated and late. Of each boot of an edge the newest counts stand, and those of
//! all boots are added: a request that an edge counted before it was started again was answered all the same.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{BakeView, CheckView};
use crate::bake::{BakeRules, Judgement, Number, Window, is_beyond_chance, judge};
use crate::id::{BootId, EdgeId, ReleaseId};
use crate::report::WindowReport;
use crate::routes::Span;
use crate::time::Timestamp;
use crate::verdict::Verdict;

/// How often edges are sent the record again, so that they go on reporting what they count.
pub const BAKE_NUDGE: Duration = Duration::from_secs(5);
/// Boots of one edge whose counts are kept. One that starts more often within a bake has other troubles.
const MAX_BOOTS: usize = 8;
/// After a restart of origin, before a bake whose time is up is decided: edges report every second.
const HEARD_AGAIN: Duration = Duration::from_secs(3);
/// An answer of Prometheus that has not come by then is asked for again.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// Wait before what was answered with an error is asked again, at most.
const ERROR_PAUSE: Duration = Duration::from_secs(5);
/// So often a question is repeated that is answered with errors; then it has no answer.
const MAX_REPEATS: u8 = 4;
/// How long the decision waits for answers beyond the end of the window.
const LATE_ANSWERS: Duration = Duration::from_secs(120);
/// How soon a bake whose time is up is looked at again while an answer is missing.
const LATE_LOOK: Duration = Duration::from_secs(1);

/// How long releases are watched in each region, and what they are held to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BakePlan {
    /// From the proof of the commit on. Zero: not at all.
    pub window: Span,
    /// What the release is held to.
    pub rules: BakeRules,
}

impl Default for BakePlan {
    fn default() -> Self {
        Self {
            window: Span::from_millis(0),
            rules: BakeRules::default(),
        }
    }
}

impl BakePlan {
    /// Whether there is a bake.
    #[must_use]
    pub fn bakes(&self) -> bool {
        self.window > Span::from_millis(0)
    }
}

/// What an edge counted in one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    window: Window,
    baseline: Option<Window>,
}

/// How far one question to Prometheus is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    due: Timestamp,
    /// Errors since the last answer.
    errors: u8,
    answer: Option<Number>,
    error: Option<String>,
}

/// A bake that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Baking {
    since: Timestamp,
    until: Timestamp,
    /// When it is decided: at its end, or a little later.
    decide: Timestamp,
    nudge: Timestamp,
    counted: BTreeMap<EdgeId, BTreeMap<BootId, Counted>>,
    asked: Vec<Asked>,
}

/// What a bake came to, with all that it was decided on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Evidence {
    pub(super) view: BakeView,
    candidate: Window,
    baseline: Window,
}

/// The end of a bake.
pub(super) struct Decision {
    pub(super) verdict: Verdict,
    pub(super) reason: String,
    pub(super) is_baseline_sicker: bool,
}

impl Baking {
    pub(super) fn new(plan: &BakePlan, now: Timestamp) -> Self {
        let window = plan.window.duration();
        let until = now + window;
        let asked = plan.rules.promql.iter().map(|check| Asked {
            due: now + check.interval.duration().min(window / 2),
            errors: 0,
            answer: None,
            error: None,
        });
        Self {
            since: now,
            until,
            decide: until,
            nudge: now + BAKE_NUDGE,
            counted: BTreeMap::new(),
            asked: asked.collect(),
        }
    }

    /// After a restart of origin the clock goes on; what edges have counted has to be heard again.
    pub(super) fn resume(&mut self, now: Timestamp) {
        self.decide = self.decide.max(now + HEARD_AGAIN);
        self.nudge = now + BAKE_NUDGE;
        for asked in &mut self.asked {
            asked.due = asked.due.min(now);
        }
    }

    pub(super) fn due(&self) -> Timestamp {
        let asked = self.asked.iter().map(|asked| asked.due);
        asked.fold(self.decide.min(self.nudge), Timestamp::min)
    }

    /// Whether edges have to be sent the record again.
    pub(super) fn nudge(&mut self, now: Timestamp) -> bool {
        let is_due = now >= self.nudge;
        if is_due {
            self.nudge = now + BAKE_NUDGE;
        }
        is_due
    }

    /// Takes over what an edge counted. `baseline` is the release to compare with.
    pub(super) fn measured(&mut self, report: &WindowReport, baseline: Option<&ReleaseId>) {
        let boots = self.counted.entry(report.edge.clone()).or_default();
        if boots.len() >= MAX_BOOTS && !boots.contains_key(&report.boot) {
            return;
        }
        let before = report
            .baseline
            .as_ref()
            .filter(|before| Some(&before.release) == baseline)
            .map(|before| before.window.clone());
        let held = boots.entry(report.boot.clone()).or_insert_with(|| Counted {
            window: Window::default(),
            baseline: None,
        });
        // Counts only rise: the one with more is the newer.
        if report.window.requests() >= held.window.requests() {
            held.window = report.window.clone();
        }
        // The same after a swap; beside a part of the visitors it counts on.
        let requests = |window: &Option<Window>| window.as_ref().map(Window::requests);
        if requests(&before) >= requests(&held.baseline) {
            held.baseline = before;
        }
    }

    /// Takes over what Prometheus answered.
    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        rules: &BakeRules,
        check: usize,
        answer: &Result<Number, String>,
    ) {
        let (Some(asked), Some(rule)) = (self.asked.get_mut(check), rules.promql.get(check)) else {
            return;
        };
        let interval = rule.interval.duration();
        match answer {
            Ok(number) => {
                // A broken bound stays broken: what comes after it does not make it good.
                let is_broken = asked.answer.is_some_and(|held| !rule.allows(held.0));
                if !is_broken {
                    asked.answer = Some(*number);
                }
                asked.errors = 0;
                asked.error = None;
                asked.due = now + interval;
            }
            Err(error) => {
                asked.errors = asked.errors.saturating_add(1);
                asked.error = Some(error.clone());
                asked.due = now + interval.min(ERROR_PAUSE);
            }
        }
    }

    /// The questions that are due; each counts as asked.
    pub(super) fn ask(&mut self, now: Timestamp) -> Vec<usize> {
        let asked = self.asked.iter_mut().enumerate();
        asked
            .filter(|(_, asked)| now >= asked.due)
            .map(|(check, asked)| {
                asked.due = now + ANSWER_PATIENCE;
                check
            })
            .collect()
    }

    /// What it comes to, once that is certain or its time is up.
    pub(super) fn decide(&mut self, now: Timestamp, rules: &BakeRules) -> Option<Decision> {
        let judged = self.judge(rules);
        let broken = self.broken_checks(rules);
        if !broken.is_empty() {
            return Some(Decision {
                verdict: Verdict::Fail,
                reason: broken,
                is_baseline_sicker: false,
            });
        }
        let is_over = now >= self.decide;
        if !is_over && !is_beyond_chance(rules, &self.candidate(), &judged) {
            return None;
        }
        let failed = judged.verdict == Verdict::Fail;
        if is_over && !failed && self.waits_for_answers() && now < self.until + LATE_ANSWERS {
            self.decide = now + LATE_LOOK;
            return None;
        }
        let (verdict, reason) = match (judged.verdict, self.missing_answers(rules)) {
            (Verdict::Fail, _) => (Verdict::Fail, judged.reason()),
            (_, Some(missing)) => (Verdict::Error, missing),
            (verdict, None) => (verdict, self.too_few(rules)),
        };
        Some(Decision {
            verdict,
            reason,
            is_baseline_sicker: judged.is_baseline_sicker(),
        })
    }

    /// What is known, for people and for later.
    pub(super) fn evidence(
        &self,
        rules: &BakeRules,
        decided: Option<(Timestamp, Option<Verdict>)>,
    ) -> Evidence {
        let (candidate, baseline) = (self.candidate(), self.baseline());
        let checks = self.asked.iter().zip(&rules.promql);
        let checks = checks.map(|(asked, rule)| CheckView {
            name: rule.name.clone(),
            bounds: rule.bounds(),
            answer: asked.answer.map(|answer| alloc::format!("{answer}")),
            broken: asked.answer.is_some_and(|answer| !rule.allows(answer.0)),
            error: asked.error.clone(),
        });
        Evidence {
            view: BakeView {
                since: self.since,
                until: self.until,
                decided: decided.map(|(at, _)| at),
                verdict: decided.and_then(|(_, verdict)| verdict),
                requests: candidate.requests(),
                min_requests: rules.min_requests,
                baseline_requests: baseline.requests(),
                measures: judge(rules, &candidate, Some(&baseline)).measures,
                checks: checks.collect(),
            },
            candidate,
            baseline,
        }
    }

    fn judge(&self, rules: &BakeRules) -> Judgement {
        judge(rules, &self.candidate(), Some(&self.baseline()))
    }

    fn candidate(&self) -> Window {
        self.counted()
            .fold(Window::default(), |sum, one| sum.merged(&one.window))
    }

    fn baseline(&self) -> Window {
        self.counted()
            .filter_map(|one| one.baseline.as_ref())
            .fold(Window::default(), |sum, one| sum.merged(one))
    }

    fn counted(&self) -> impl Iterator<Item = &Counted> {
        self.counted.values().flat_map(BTreeMap::values)
    }

    /// A question whose answer is still to come, or to come again after errors.
    fn waits_for_answers(&self) -> bool {
        let waits = |asked: &Asked| {
            (asked.answer.is_none() || asked.errors > 0) && asked.errors <= MAX_REPEATS
        };
        self.asked.iter().any(waits)
    }

    fn missing_answers(&self, rules: &BakeRules) -> Option<String> {
        let asked = self.asked.iter().zip(&rules.promql);
        let mut missing = asked.filter(|(asked, _)| asked.answer.is_none() || asked.errors > 0);
        let (asked, rule) = missing.next()?;
        let error = asked.error.as_deref().unwrap_or("no answer came");
        Some(alloc::format!("{}: {error}", rule.name))
    }

    fn broken_checks(&self, rules: &BakeRules) -> String {
        let asked = self.asked.iter().zip(&rules.promql);
        let broken = asked.filter_map(|(asked, rule)| {
            let answer = asked.answer.filter(|answer| !rule.allows(answer.0))?;
            let (name, bounds) = (&rule.name, rule.bounds());
            Some(alloc::format!("{name} is {answer}, not {bounds}"))
        });
        broken.collect::<Vec<_>>().join(", ")
    }

    fn too_few(&self, rules: &BakeRules) -> String {
        let (requests, least) = (self.candidate().requests(), rules.min_requests);
        alloc::format!("{requests} of {least} requests")
    }
}
