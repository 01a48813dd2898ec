//! How a release goes out: the table `[rollout]` of `helix.toml`, part of the release; what origin's config and
//! `helix deploy` say has the same shape.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use super::hours::Hours;
use crate::id::RegionId;
use crate::routes::{KeyProblem, Span};

/// Longest wait between waves, and longest time of one percentage.
const LONGEST_TIME: Span = Span::from_secs(7 * 24 * 60 * 60);
const SHORTEST_STEP: Span = Span::from_secs(1);
/// Percentages of one region before all of it.
const MAX_STEPS: usize = 10;
/// Waves that can be named, times within a week, stages that wait for approval: more is a mistake.
const MAX_LISTED: usize = 64;
/// What stands in a wave for every region that no wave names.
const THE_REST: &str = "*";

/// How a release goes out. What is not said is left to whom is asked next: `helix deploy`, then the release, then origin's config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RolloutPolicy {
    /// Which regions go first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<WaveOrder>,
    /// How many regions of a wave go at once; the others of the wave follow. Zero: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u16>,
    /// Wait between waves, after the bake of the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soak: Option<Span>,
    /// What waits until somebody approves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approve: Option<Approvals>,
    /// Percentages of a region's visitors before all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<Step>>,
    /// The only times at which a stage may begin; none: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<Vec<Hours>>,
}

/// Which regions go first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum WaveOrder {
    /// A usual order.
    Usual(UsualOrder),
    /// Waves of regions by name; `*` is every region that no wave names. Without one they come last.
    Waves(Vec<Vec<String>>),
}

/// Orders that need no names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum UsualOrder {
    /// All at once.
    Together,
    /// The first region of origin's config, then the others.
    Canary,
}

/// What waits until somebody approves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Approvals {
    /// Every stage of a kind.
    Usual(UsualApprovals),
    /// Stages by their numbers, from 1.
    Stages(Vec<u16>),
}

/// Approvals that need no numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum UsualApprovals {
    /// Nothing waits.
    None,
    /// Every wave after the first.
    Waves,
    /// Every stage after the first.
    Stages,
    /// Also the first: everything is prepared, and nothing is live until somebody says so.
    All,
}

/// So many percent of a region's visitors for so long: `"5%:2m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Step {
    /// 1 to 99.
    pub percent: u8,
    /// How long it is watched.
    pub time: Span,
}

/// The text is no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no step: write 1 to 99 percent and 1s to 168h, such as \"5%:2m\"")]
pub struct InvalidStep(String);

/// Names that stand for something else than what they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no order: write together, canary, or waves such as fra/iad,gru/*")]
pub struct InvalidOrder(String);

/// The text names no approvals.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is nothing to approve: write none, waves, stages, all, or numbers of stages such as 2,3"
)]
pub struct InvalidApprovals(String);

impl RolloutPolicy {
    /// What this says, and where it says nothing, what `next` does.
    #[must_use]
    pub fn or(self, next: &Self) -> Self {
        Self {
            order: self.order.or_else(|| next.order.clone()),
            parallel: self.parallel.or(next.parallel),
            soak: self.soak.or(next.soak),
            approve: self.approve.or_else(|| next.approve.clone()),
            steps: self.steps.or_else(|| next.steps.clone()),
            hours: self.hours.or_else(|| next.hours.clone()),
        }
    }

    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what types alone cannot, and what needs no fleet to know.
    ///
    /// # Errors
    /// Names the first key that is wrong.
    pub fn check(&self) -> Result<(), KeyProblem> {
        if let Some(WaveOrder::Waves(waves)) = &self.order {
            check_waves(waves)?;
        }
        if self.soak.is_some_and(|soak| soak > LONGEST_TIME) {
            let problem = format!("is longer than {LONGEST_TIME}");
            return Err(KeyProblem::new("rollout.soak", problem));
        }
        if let Some(Approvals::Stages(numbers)) = &self.approve
            && (numbers.contains(&0) || numbers.len() > MAX_LISTED)
        {
            let problem = format!("numbers stages from 1, {MAX_LISTED} of them at most");
            return Err(KeyProblem::new("rollout.approve", problem));
        }
        let steps = self.steps.as_deref().unwrap_or_default();
        if steps.len() > MAX_STEPS {
            let problem = format!("has {} steps; {MAX_STEPS} are possible", steps.len());
            return Err(KeyProblem::new("rollout.steps", problem));
        }
        if !steps.is_sorted_by(|one, next| one.percent < next.percent) {
            let problem = "does not rise: each step has more visitors than the one before";
            return Err(KeyProblem::new("rollout.steps", problem));
        }
        if self
            .hours
            .as_ref()
            .is_some_and(|hours| hours.len() > MAX_LISTED)
        {
            let problem = format!("has more than {MAX_LISTED} times");
            return Err(KeyProblem::new("rollout.hours", problem));
        }
        Ok(())
    }
}

fn check_waves(waves: &[Vec<String>]) -> Result<(), KeyProblem> {
    let refused = |problem: String| Err(KeyProblem::new("rollout.order", problem));
    if waves.is_empty() || waves.len() > MAX_LISTED || waves.iter().any(Vec::is_empty) {
        return refused(format!(
            "is 1 to {MAX_LISTED} waves, each with a region at least"
        ));
    }
    let mut seen: Vec<&str> = Vec::new();
    for name in waves.iter().flatten() {
        if name != THE_REST && name.parse::<RegionId>().is_err() {
            return refused(format!("{name:?} is no region's name, nor \"{THE_REST}\""));
        }
        if seen.contains(&name.as_str()) {
            return refused(format!("{name} is there twice"));
        }
        seen.push(name);
    }
    Ok(())
}

/// A wave's names as regions, with what no wave names for `*`.
pub(super) fn named(wave: &[String], rest: &[RegionId]) -> Vec<RegionId> {
    let mut regions = Vec::new();
    for name in wave {
        if name == THE_REST {
            regions.extend_from_slice(rest);
        } else if let Ok(region) = name.parse() {
            regions.push(region);
        }
    }
    regions
}

/// Whether one of the waves is for what no wave names.
pub(super) fn places_the_rest(waves: &[Vec<String>]) -> bool {
    waves.iter().flatten().any(|name| name == THE_REST)
}

impl FromStr for Step {
    type Err = InvalidStep;

    fn from_str(text: &str) -> Result<Self, InvalidStep> {
        let refused = || InvalidStep(text.chars().take(40).collect());
        let (percent, time) = text.split_once([':', ',']).ok_or_else(refused)?;
        let percent = percent.trim().trim_end_matches('%');
        let percent: u8 = percent.parse().map_err(|_| refused())?;
        let time: Span = time.trim().parse().map_err(|_| refused())?;
        if (1..=99).contains(&percent) && (SHORTEST_STEP..=LONGEST_TIME).contains(&time) {
            Ok(Self { percent, time })
        } else {
            Err(refused())
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%:{}", self.percent, self.time)
    }
}

impl TryFrom<String> for Step {
    type Error = InvalidStep;

    fn try_from(text: String) -> Result<Self, InvalidStep> {
        text.parse()
    }
}

impl From<Step> for String {
    fn from(step: Step) -> Self {
        step.to_string()
    }
}

impl FromStr for WaveOrder {
    type Err = InvalidOrder;

    /// As it is typed: waves are parted by slashes, their regions by commas.
    fn from_str(text: &str) -> Result<Self, InvalidOrder> {
        match text {
            "together" => return Ok(Self::Usual(UsualOrder::Together)),
            "canary" => return Ok(Self::Usual(UsualOrder::Canary)),
            _ => {}
        }
        let wave = |text: &str| {
            text.split(',')
                .map(|name| String::from(name.trim()))
                .collect()
        };
        let waves: Vec<Vec<String>> = text.split('/').map(wave).collect();
        match check_waves(&waves) {
            Ok(()) => Ok(Self::Waves(waves)),
            Err(_) => Err(InvalidOrder(text.chars().take(80).collect())),
        }
    }
}

impl FromStr for Approvals {
    type Err = InvalidApprovals;

    fn from_str(text: &str) -> Result<Self, InvalidApprovals> {
        Ok(Self::Usual(match text {
            "none" => UsualApprovals::None,
            "waves" => UsualApprovals::Waves,
            "stages" => UsualApprovals::Stages,
            "all" => UsualApprovals::All,
            _ => {
                let numbers = text.split(',').map(|number| number.trim().parse());
                return match numbers.collect::<Result<Vec<u16>, _>>() {
                    Ok(numbers) if !numbers.contains(&0) => Ok(Self::Stages(numbers)),
                    Ok(_) | Err(_) => Err(InvalidApprovals(text.chars().take(40).collect())),
                };
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> RolloutPolicy {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_wrong_key_is_told_by_its_name() {
        for (json, key) in [
            (r#"{"order":[]}"#, "rollout.order"),
            (r#"{"order":[["fra"],[]]}"#, "rollout.order"),
            (r#"{"order":[["fra"],["fra"]]}"#, "rollout.order"),
            (r#"{"order":[["Fra"]]}"#, "rollout.order"),
            (r#"{"soak":"200h"}"#, "rollout.soak"),
            (r#"{"approve":[0]}"#, "rollout.approve"),
            (r#"{"steps":["5%:1m","5%:1m"]}"#, "rollout.steps"),
            (r#"{"steps":["25%:1m","5%:1m"]}"#, "rollout.steps"),
        ] {
            assert_eq!(policy(json).check().unwrap_err().key, key, "{json}");
        }
        for json in [
            "{}",
            r#"{"order":"canary","parallel":2,"soak":"5m","approve":"waves","steps":["5%:2m","25%:10m"]}"#,
            r#"{"order":[["fra"],["*"]],"approve":[2,3],"hours":["mon-fri 09:00-17:00"]}"#,
        ] {
            assert_eq!(policy(json).check(), Ok(()), "{json}");
        }
        assert!(serde_json::from_str::<RolloutPolicy>(r#"{"waves":1}"#).is_err());
    }

    #[test]
    fn steps_orders_and_approvals_are_read_as_they_are_typed() {
        let step = |text: &str| text.parse::<Step>();
        assert_eq!(step("5%:2m").unwrap().to_string(), "5%:2m");
        assert_eq!(step("5,120s").unwrap(), step("5%:2m").unwrap());
        for text in [
            "0%:2m", "100%:2m", "5%", "5%:0s", "five:2m", "5%:1d", "-1:2m",
        ] {
            assert!(step(text).is_err(), "{text}");
        }
        let waves = |waves: &[&[&str]]| {
            let wave = |wave: &&[&str]| wave.iter().map(|name| String::from(*name)).collect();
            Ok(WaveOrder::Waves(waves.iter().map(wave).collect()))
        };
        assert_eq!(
            "fra/iad,gru/*".parse(),
            waves(&[&["fra"], &["iad", "gru"], &["*"]])
        );
        assert_eq!("canary".parse(), Ok(WaveOrder::Usual(UsualOrder::Canary)));
        assert!("fra//iad".parse::<WaveOrder>().is_err());
        assert_eq!("2,3".parse(), Ok(Approvals::Stages(Vec::from([2, 3]))));
        assert!("0".parse::<Approvals>().is_err() && "some".parse::<Approvals>().is_err());
    }

    #[test]
    fn what_is_said_first_counts() {
        let typed = policy(r#"{"soak":"1s"}"#);
        let release = policy(r#"{"soak":"5m","order":"together"}"#);
        let config = policy(r#"{"order":"canary","parallel":3}"#);
        let all = typed.or(&release).or(&config);
        assert_eq!(
            all,
            policy(r#"{"soak":"1s","order":"together","parallel":3}"#)
        );
    }
}
