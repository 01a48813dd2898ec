//! What a window comes to: compared with the release before in the same region, and with limits that hold in any case.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::{BakeRules, LatencyLimit, Window};
use crate::verdict::Verdict;

/// What a measure is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A share, in millionths.
    Millionths,
    /// A time, in microseconds.
    Micros,
}

/// One thing that was measured, and what it is held to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// `5xx`, `p50`, `p90` or `p99`.
    pub name: String,
    /// What the numbers are in.
    pub unit: Unit,
    /// Of the release.
    pub value: u64,
    /// Of the release before, where that had enough requests to say.
    pub baseline: Option<u64>,
    /// The most that is borne; none where there is nothing to hold it to.
    pub limit: Option<u64>,
}

/// A verdict with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Never [`Verdict::Error`].
    pub verdict: Verdict,
    /// Everything that was measured; nothing where there were no requests.
    pub measures: Vec<Measure>,
}

impl Measure {
    /// Whether it is beyond its limit.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.limit.is_some_and(|limit| self.value > limit)
    }
}

impl Judgement {
    /// Why it fails; nothing when it does not.
    #[must_use]
    pub fn reason(&self) -> String {
        let broken = self.measures.iter().filter(|measure| measure.is_broken());
        let reasons: Vec<String> = broken.map(ToString::to_string).collect();
        reasons.join(", ")
    }

    /// Whether the release before was worse in everything that this one fails by.
    #[must_use]
    pub fn is_baseline_sicker(&self) -> bool {
        let mut broken = self
            .measures
            .iter()
            .filter(|measure| measure.is_broken())
            .peekable();
        broken.peek().is_some()
            && broken.all(|measure| {
                measure
                    .baseline
                    .is_some_and(|before| before > measure.value)
            })
    }
}

/// Judges what was counted of a release. `baseline` is the release before, in the same region, before the swap.
#[must_use]
pub fn judge(rules: &BakeRules, candidate: &Window, baseline: Option<&Window>) -> Judgement {
    let enough = u64::from(rules.min_requests);
    let baseline = baseline.filter(|window| window.requests() >= enough);
    let mut measures = Vec::new();
    measures.extend(errors(rules, candidate, baseline));
    for (name, place, limit) in rules.latencies() {
        measures.extend(latency(name, place, limit, candidate, baseline));
    }
    let verdict = if candidate.requests() < enough {
        Verdict::Inconclusive
    } else if measures.iter().any(Measure::is_broken) {
        Verdict::Fail
    } else {
        Verdict::Pass
    };
    Judgement { verdict, measures }
}

/// Whether a release has so many more errors than are borne that those to come will not make it right: more than three times
/// the spread that their number has by chance. Only errors are judged so early; the first requests to a new release are slow.
#[must_use]
pub fn is_beyond_chance(rules: &BakeRules, candidate: &Window, judgement: &Judgement) -> bool {
    let limit = judgement
        .measures
        .iter()
        .find(|measure| measure.unit == Unit::Millionths)
        .and_then(|measure| measure.limit);
    let Some(limit) = limit.filter(|_| candidate.requests() >= u64::from(rules.min_requests))
    else {
        return false;
    };
    let borne = (u128::from(candidate.requests()) * u128::from(limit)).div_ceil(1_000_000);
    let errors = u128::from(candidate.errors());
    let excess = errors.saturating_sub(borne);
    excess > 0 && excess.saturating_mul(excess) > errors.saturating_mul(9)
}

fn errors(rules: &BakeRules, candidate: &Window, baseline: Option<&Window>) -> Option<Measure> {
    let before = baseline.and_then(Window::error_millionths);
    let relative = before.map_or(0, |before| rules.max_5xx_times.of(before));
    Some(Measure {
        name: String::from("5xx"),
        unit: Unit::Millionths,
        value: candidate.error_millionths()?,
        baseline: before,
        limit: Some(rules.max_5xx.millionths().max(relative)),
    })
}

fn latency(
    name: &str,
    per_mille: u16,
    limit: LatencyLimit,
    candidate: &Window,
    baseline: Option<&Window>,
) -> Option<Measure> {
    let micros =
        |span: crate::routes::Span| u64::try_from(span.duration().as_micros()).unwrap_or(u64::MAX);
    let before = baseline.and_then(|window| window.latency().quantile(per_mille));
    let relative = before
        .filter(|_| limit.compare)
        .map(|before| limit.times.of(before).saturating_add(micros(limit.plus)));
    let absolute = limit.max.map(micros);
    Some(Measure {
        name: String::from(name),
        unit: Unit::Micros,
        value: candidate.latency().quantile(per_mille)?,
        baseline: before,
        limit: [relative, absolute].into_iter().flatten().min(),
    })
}

/// A number with its unit, as people read it.
struct Shown(Unit, u64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(unit, value) = *self;
        match unit {
            Unit::Millionths => {
                let hundredths = value.div_ceil(100);
                write!(f, "{}.{:02}%", hundredths / 100, hundredths % 100)
            }
            Unit::Micros if value < 10_000 => {
                write!(f, "{}.{}ms", value / 1000, value % 1000 / 100)
            }
            Unit::Micros => write!(f, "{}ms", value / 1000),
        }
    }
}

impl fmt::Display for Measure {
    /// As in `5xx 12.00% (base 0.02%) over 1.00%`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, Shown(self.unit, self.value))?;
        if let Some(baseline) = self.baseline {
            write!(f, " (base {})", Shown(self.unit, baseline))?;
        }
        match self.limit.filter(|_| self.is_broken()) {
            Some(limit) => write!(f, " over {}", Shown(self.unit, limit)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Span;
    use proptest::prelude::*;

    fn window(requests: u64, errors: u64, millis: u64) -> Window {
        let mut window = Window::default();
        for number in 0..requests {
            window.add(number < errors, millis * 1000);
        }
        window
    }

    fn of_p99(limit: LatencyLimit) -> BakeRules {
        BakeRules {
            p99: limit,
            ..BakeRules::default()
        }
    }

    fn verdict(candidate: &Window, baseline: Option<&Window>) -> Verdict {
        judge(&BakeRules::default(), candidate, baseline).verdict
    }

    #[test]
    fn limits_are_absolute_or_those_of_the_release_before() {
        let quiet = window(99, 0, 10);
        let good = window(1000, 1, 80);
        for (candidate, baseline, expected) in [
            (window(0, 0, 0), None, Verdict::Inconclusive),
            (window(99, 99, 10), None, Verdict::Inconclusive),
            (window(100, 1, 10), None, Verdict::Pass),
            (window(100, 2, 10), None, Verdict::Fail),
            (window(1000, 10, 80), Some(&good), Verdict::Pass),
            (window(1000, 11, 80), Some(&good), Verdict::Fail),
            // Nothing that is compared with too little.
            (window(1000, 0, 9000), Some(&quiet), Verdict::Pass),
            (window(1000, 0, 140), Some(&good), Verdict::Pass),
            (window(1000, 0, 170), Some(&good), Verdict::Fail),
            // What was bad before may be as bad.
            (
                window(1000, 190, 80),
                Some(&window(1000, 100, 80)),
                Verdict::Pass,
            ),
            (
                window(1000, 210, 80),
                Some(&window(1000, 100, 80)),
                Verdict::Fail,
            ),
        ] {
            let judged = judge(&BakeRules::default(), &candidate, baseline);
            assert_eq!(judged.verdict, expected, "{judged:?}");
        }
    }

    #[test]
    fn the_stricter_of_two_limits_on_a_time_counts() {
        let rules = of_p99(LatencyLimit {
            max: Some(Span::from_millis(100)),
            ..LatencyLimit::default()
        });
        let slow = window(200, 0, 120);
        assert_eq!(
            judge(&rules, &slow, Some(&window(200, 0, 110))).verdict,
            Verdict::Fail
        );
        assert_eq!(
            judge(&rules, &window(200, 0, 80), None).verdict,
            Verdict::Pass
        );
        let rules = of_p99(LatencyLimit {
            compare: false,
            ..LatencyLimit::default()
        });
        assert_eq!(
            judge(&rules, &slow, Some(&window(200, 0, 1))).verdict,
            Verdict::Pass
        );
    }

    #[test]
    fn a_baseline_is_sicker_only_in_what_the_release_fails_by() {
        let rules = of_p99(LatencyLimit {
            max: Some(Span::from_millis(100)),
            ..LatencyLimit::default()
        });
        let sicker = |candidate: &Window, baseline: &Window| {
            judge(&rules, candidate, Some(baseline)).is_baseline_sicker()
        };
        assert!(sicker(&window(200, 0, 120), &window(200, 0, 300)));
        assert!(!sicker(&window(200, 0, 120), &window(200, 0, 110)));
        assert!(
            !sicker(&window(200, 100, 120), &window(200, 0, 300)),
            "its errors are its own"
        );
        assert!(
            !sicker(&window(200, 0, 10), &window(200, 0, 300)),
            "it does not fail"
        );
    }

    #[test]
    fn only_what_chance_cannot_explain_is_certain_early() {
        let rules = BakeRules::default();
        let certain = |requests, errors| {
            let window = window(requests, errors, 1);
            is_beyond_chance(&rules, &window, &judge(&rules, &window, None))
        };
        assert!(certain(100, 100));
        assert!(certain(100, 20));
        assert!(!certain(99, 99), "too few requests");
        assert!(!certain(100, 2), "it may have been the first ones");
        assert!(!certain(10_000, 100), "within the limit");
    }

    #[test]
    fn measures_are_written_for_people() {
        let judged = judge(
            &BakeRules::default(),
            &window(100, 12, 81),
            Some(&window(10_000, 2, 70)),
        );
        let text: Vec<String> = judged.measures.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["5xx 12.00% (base 0.02%) over 1.00%", "p99 81ms (base 73ms)"]
        );
        assert_eq!(judged.reason(), "5xx 12.00% (base 0.02%) over 1.00%");
    }

    proptest! {
        #[test]
        fn more_errors_never_make_it_better(requests in 1_u64..400, errors in 0_u64..400, more in 0_u64..50) {
            let errors = errors.min(requests);
            let worse = (errors + more).min(requests);
            if verdict(&window(requests, errors, 1), None) == Verdict::Fail {
                prop_assert_eq!(verdict(&window(requests, worse, 1), None), Verdict::Fail);
            }
        }

        #[test]
        fn what_is_certain_early_fails(requests in 0_u64..500, errors in 0_u64..500) {
            let rules = BakeRules::default();
            let window = window(requests, errors.min(requests), 1);
            let judged = judge(&rules, &window, None);
            prop_assert!(!is_beyond_chance(&rules, &window, &judged) || judged.verdict == Verdict::Fail);
        }
    }
}
