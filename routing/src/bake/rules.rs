//! What a release is held to while it bakes: the table `[bake]` of `helix.toml`, part of the release.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Number, Share, Times};
use crate::routes::{KeyProblem, Span};

/// Most checks by PromQL of one release: each is asked again and again, in every region.
pub const MAX_CHECKS: usize = 8;
const MAX_QUERY_BYTES: usize = 2048;
const MAX_NAME_BYTES: usize = 64;
const LONGEST_WINDOW: Span = Span::from_secs(24 * 60 * 60);
const SHORTEST_WINDOW: Span = Span::from_secs(1);
const SHORTEST_INTERVAL: Span = Span::from_secs(1);
const LONGEST_INTERVAL: Span = Span::from_secs(60 * 60);
const MAX_MIN_REQUESTS: u32 = 1_000_000;

/// What a release is held to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BakeRules {
    /// How long it is watched in production; `0s` is not at all. None leaves it to origin's config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Span>,
    /// Fewer requests of it than this say nothing, nor do fewer of the release before.
    pub min_requests: u32,
    /// Responses of 5xx that are borne in any case, as a share of all.
    pub max_5xx: Share,
    /// Responses of 5xx that are borne, as so many times the share of the release before, where that is more.
    pub max_5xx_times: Times,
    /// How long half of the requests may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<LatencyLimit>,
    /// How long nine of ten requests may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p90: Option<LatencyLimit>,
    /// How long 99 of 100 requests may take.
    pub p99: LatencyLimit,
    /// What happens in the other regions when it fails in one.
    pub on_fail: OnFail,
    /// What happens when nothing can be said of it.
    pub on_inconclusive: OnInconclusive,
    /// What Prometheus is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub promql: Vec<PromqlCheck>,
    /// What an edge does while this bakes and origin is silent.
    #[serde(skip_serializing_if = "OnOriginLoss::is_hold")]
    pub on_origin_loss: OnOriginLoss,
    /// The hard limits for that.
    #[serde(skip_serializing_if = "GuardRules::is_default")]
    pub guard: GuardRules,
}

impl Default for BakeRules {
    fn default() -> Self {
        Self {
            window: None,
            min_requests: 100,
            max_5xx: Share::from_millionths(10_000),
            max_5xx_times: Times::from_thousandths(2000),
            p50: None,
            p90: None,
            p99: LatencyLimit::default(),
            on_fail: OnFail::default(),
            on_inconclusive: OnInconclusive::default(),
            promql: Vec::new(),
            on_origin_loss: OnOriginLoss::default(),
            guard: GuardRules::default(),
        }
    }
}

/// What an edge does while a release bakes and origin is silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOriginLoss {
    /// It stays on the release; origin goes on with the clock when it is back.
    #[default]
    Hold,
    /// It takes itself back, once, when a hard limit breaks.
    LocalGuard,
}

impl OnOriginLoss {
    fn is_hold(&self) -> bool {
        *self == Self::Hold
    }
}

/// The hard limits of one edge alone. All of them have to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardRules {
    /// Fewer requests than this say nothing.
    pub min_requests: u32,
    /// Responses of 5xx from which on it breaks, as a share of all, and
    pub max_5xx: Share,
    /// as so many times the share of the release before.
    pub max_5xx_times: Times,
}

impl GuardRules {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for GuardRules {
    fn default() -> Self {
        Self {
            min_requests: 50,
            max_5xx: Share::from_millionths(200_000),
            max_5xx_times: Times::from_thousandths(10_000),
        }
    }
}

/// How long requests may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LatencyLimit {
    /// In any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
    /// Whether the release before is a measure of it.
    pub compare: bool,
    /// So many times what those of the release before took,
    pub times: Times,
    /// and so much longer.
    pub plus: Span,
}

impl Default for LatencyLimit {
    fn default() -> Self {
        Self {
            max: None,
            compare: true,
            times: Times::from_thousandths(1250),
            plus: Span::from_millis(50),
        }
    }
}

/// What happens in the other regions when a release fails in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFail {
    /// They go back too, so that all regions agree again.
    #[default]
    All,
    /// They go on; the one region goes back.
    Region,
}

/// What happens when nothing can be said of a release: too few requests, or Prometheus had no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnInconclusive {
    /// It settles: a site that nobody visits can be deployed to.
    #[default]
    Settle,
    /// It stays live, does not settle, and a person is asked.
    Ask,
}

/// One question to Prometheus. `$site`, `$project`, `$region` and `$release` in the query stand for what they name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromqlCheck {
    /// What it is called where its answers are shown.
    pub name: String,
    /// PromQL with one number as its answer.
    pub query: String,
    /// A larger answer fails the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Number>,
    /// A smaller answer fails the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Number>,
    /// How often it is asked, first after one of these.
    #[serde(default = "default_interval")]
    pub interval: Span,
}

const fn default_interval() -> Span {
    Span::from_secs(15)
}

impl BakeRules {
    /// The limits on latency, each with its name and its place in a thousand.
    pub fn latencies(&self) -> impl Iterator<Item = (&'static str, u16, LatencyLimit)> {
        let all = [
            ("p50", 500, self.p50),
            ("p90", 900, self.p90),
            ("p99", 990, Some(self.p99)),
        ];
        all.into_iter()
            .filter_map(|(name, place, limit)| Some((name, place, limit?)))
    }

    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// Names the first key that is wrong.
    pub fn check(&self) -> Result<(), KeyProblem> {
        let zero = Span::from_millis(0);
        if let Some(window) = self.window
            && window != zero
            && !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window)
        {
            let problem =
                format!("is {window}; 0s, or {SHORTEST_WINDOW} to {LONGEST_WINDOW} are possible");
            return Err(KeyProblem::new("bake.window", problem));
        }
        if !(1..=MAX_MIN_REQUESTS).contains(&self.min_requests) {
            let problem = format!(
                "is {}; 1 to {MAX_MIN_REQUESTS} are possible",
                self.min_requests
            );
            return Err(KeyProblem::new("bake.min_requests", problem));
        }
        if !(1..=MAX_MIN_REQUESTS).contains(&self.guard.min_requests) {
            let problem = format!(
                "is {}; 1 to {MAX_MIN_REQUESTS} are possible",
                self.guard.min_requests
            );
            return Err(KeyProblem::new("bake.guard.min_requests", problem));
        }
        if self.promql.len() > MAX_CHECKS {
            let problem = format!(
                "has {} checks; {MAX_CHECKS} are possible",
                self.promql.len()
            );
            return Err(KeyProblem::new("bake.promql", problem));
        }
        let checks = self.promql.iter().enumerate();
        for (index, check) in checks {
            let twice = self.promql[..index]
                .iter()
                .any(|other| other.name == check.name);
            check.check(index, twice)?;
        }
        Ok(())
    }
}

impl PromqlCheck {
    fn check(&self, index: usize, twice: bool) -> Result<(), KeyProblem> {
        let refused = |key: &str, problem: &str| {
            Err(KeyProblem::new(
                format!("bake.promql[{index}].{key}"),
                problem,
            ))
        };
        let is_plain = |text: &str, most: usize| {
            !text.trim().is_empty() && text.len() <= most && !text.chars().any(char::is_control)
        };
        if !is_plain(&self.name, MAX_NAME_BYTES) {
            return refused(
                "name",
                &format!("is no name: 1 to {MAX_NAME_BYTES} bytes on one line"),
            );
        }
        if twice {
            return refused("name", "is there twice");
        }
        let is_query = !self.query.trim().is_empty() && self.query.len() <= MAX_QUERY_BYTES;
        if !is_query {
            return refused(
                "query",
                &format!("is empty or longer than {MAX_QUERY_BYTES} bytes"),
            );
        }
        let bounds = [self.max, self.min];
        if bounds == [None, None] {
            return refused(
                "query",
                "has neither max nor min, so that every answer would do",
            );
        }
        if bounds.iter().flatten().any(|bound| !bound.0.is_finite()) {
            return refused(
                if self.max.is_some() { "max" } else { "min" },
                "is no finite number",
            );
        }
        if !(SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&self.interval) {
            let problem = format!(
                "is {}; {SHORTEST_INTERVAL} to {LONGEST_INTERVAL} are possible",
                self.interval
            );
            return refused("interval", &problem);
        }
        Ok(())
    }

    /// Whether an answer is within the bounds. Not a number is in none.
    #[must_use]
    pub fn allows(&self, answer: f64) -> bool {
        !answer.is_nan()
            && self.max.is_none_or(|max| answer <= max.0)
            && self.min.is_none_or(|min| answer >= min.0)
    }

    /// The bounds as people read them.
    #[must_use]
    pub fn bounds(&self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("at least {min}"),
            (None, Some(max)) => format!("at most {max}"),
            (None, None) => String::from("any"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn check() -> PromqlCheck {
        PromqlCheck {
            name: String::from("carts"),
            query: String::from("sum(carts)"),
            max: None,
            min: Some(Number(1.0)),
            interval: default_interval(),
        }
    }

    #[test]
    fn a_wrong_key_is_told_by_its_name() {
        assert_eq!(BakeRules::default().check(), Ok(()));
        let cases = [
            (
                BakeRules {
                    window: Some(Span::from_millis(10)),
                    ..BakeRules::default()
                },
                "bake.window",
            ),
            (
                BakeRules {
                    min_requests: 0,
                    ..BakeRules::default()
                },
                "bake.min_requests",
            ),
            (
                BakeRules {
                    promql: vec![check(); 9],
                    ..BakeRules::default()
                },
                "bake.promql",
            ),
            (
                BakeRules {
                    promql: vec![check(); 2],
                    ..BakeRules::default()
                },
                "bake.promql[1].name",
            ),
            (
                BakeRules {
                    promql: vec![PromqlCheck {
                        min: None,
                        ..check()
                    }],
                    ..BakeRules::default()
                },
                "bake.promql[0].query",
            ),
            (
                BakeRules {
                    promql: vec![PromqlCheck {
                        max: Some(Number(f64::NAN)),
                        ..check()
                    }],
                    ..BakeRules::default()
                },
                "bake.promql[0].max",
            ),
        ];
        for (rules, key) in cases {
            assert_eq!(rules.check().unwrap_err().key, key);
        }
        let none = BakeRules {
            window: Some(Span::from_millis(0)),
            promql: vec![check()],
            ..BakeRules::default()
        };
        assert_eq!(none.check(), Ok(()));
    }

    #[test]
    fn an_answer_on_its_bound_is_within() {
        let between = PromqlCheck {
            max: Some(Number(2.0)),
            ..check()
        };
        for (answer, is_allowed) in [
            (0.9, false),
            (1.0, true),
            (2.0, true),
            (2.1, false),
            (f64::NAN, false),
            (f64::INFINITY, false),
        ] {
            assert_eq!(between.allows(answer), is_allowed, "{answer}");
        }
    }

    #[test]
    fn every_key_has_a_default_and_no_other_key_is_taken() {
        assert_eq!(
            serde_json::from_str::<BakeRules>("{}").unwrap(),
            BakeRules::default()
        );
        assert!(serde_json::from_str::<BakeRules>(r#"{"max_4xx":"1%"}"#).is_err());
        let written = serde_json::to_string(&BakeRules::default()).unwrap();
        assert_eq!(
            serde_json::from_str::<BakeRules>(&written).unwrap(),
            BakeRules::default()
        );
    }
}
