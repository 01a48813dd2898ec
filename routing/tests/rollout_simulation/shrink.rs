//! A failing seed, made as small as it can be: fewer deeds, regions and edges, a shorter time, better weather.
//!
//! What is left out changes all that is drawn after it, so each smaller story is tried with some luck of its own.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::str::FromStr;

use crate::checks::{Check, Failure};
use crate::counts::Counts;
use crate::scenario::{Safeguard, Scenario, Weather};
use crate::world::World;

/// Stories that are tried at most: a few seconds.
const MOST_RUNS: u32 = 3_000;
/// How often each is.
const LUCKS: u64 = 6;

/// A machine that is printed whole hides what is below it.
const LONGEST_TEXT: usize = 1_200;

/// A seed, and what is left of its story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Story {
    pub(crate) seed: u64,
    pub(crate) luck: u64,
    pub(crate) regions: usize,
    pub(crate) edges: usize,
    pub(crate) horizon: u64,
    /// No message is lost, repeated or late.
    pub(crate) is_calm: bool,
    /// Places of the deeds that are left, in the order of the seed's own.
    pub(crate) deeds: Vec<usize>,
}

impl Story {
    pub(crate) fn whole(seed: u64) -> Self {
        let whole = Scenario::new(seed);
        Self {
            seed,
            luck: whole.luck,
            regions: whole.regions,
            edges: whole.edges,
            horizon: whole.horizon,
            is_calm: false,
            deeds: (0..whole.deeds.len()).collect(),
        }
    }

    pub(crate) fn scenario(&self) -> Scenario {
        let whole = Scenario::new(self.seed);
        let calm = Weather {
            lost: 0,
            repeated: 0,
            late: 0,
        };
        let deeds = self
            .deeds
            .iter()
            .filter_map(|place| whole.deeds.get(*place));
        Scenario {
            luck: self.luck,
            regions: self.regions,
            edges: self.edges,
            horizon: self.horizon,
            weather: if self.is_calm { calm } else { whole.weather },
            deeds: deeds.copied().collect(),
            ..whole
        }
    }

    /// Runs it. A panic is a failure as any other.
    pub(crate) fn run(&self, without: Option<Safeguard>) -> (Counts, Option<Failure>) {
        let run = AssertUnwindSafe(|| {
            let mut world = World::new(self.scenario(), without);
            world.run();
            (world.counts, world.failure)
        });
        std::panic::catch_unwind(run).unwrap_or_else(|cause| {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string));
            let failure = Failure {
                check: Check::Panicked,
                at: self.horizon,
                text: text.unwrap_or_default(),
            };
            (Counts::default(), Some(failure))
        })
    }

    /// Smaller ones, the smallest first.
    fn smaller(&self, failed_at: u64) -> Vec<Self> {
        let mut all = Vec::new();
        let mut length = self.deeds.len();
        while length > 0 {
            for start in (0..self.deeds.len()).step_by(length) {
                let end = (start + length).min(self.deeds.len());
                let mut deeds = self.deeds.clone();
                deeds.drain(start..end);
                all.push(Self {
                    deeds,
                    ..self.clone()
                });
            }
            length /= 2;
        }
        if self.regions > 1 {
            all.push(Self {
                regions: self.regions - 1,
                ..self.clone()
            });
        }
        if self.edges > 1 {
            all.push(Self {
                edges: self.edges - 1,
                ..self.clone()
            });
        }
        if !self.is_calm {
            all.push(Self {
                is_calm: true,
                ..self.clone()
            });
        }
        let shorter = [self.horizon / 2, failed_at + 1_000];
        let shorter = shorter
            .into_iter()
            .filter(|horizon| *horizon < self.horizon);
        all.extend(shorter.map(|horizon| Self {
            horizon,
            ..self.clone()
        }));
        all
    }

    fn fails(&self, without: Option<Safeguard>, check: Check) -> Option<(Self, Failure)> {
        (0..LUCKS).find_map(|luck| {
            let story = Self {
                luck,
                ..self.clone()
            };
            let failure = story
                .run(without)
                .1
                .filter(|failure| failure.check == check)?;
            Some((story, failure))
        })
    }
}

/// The smallest story found that fails as `failure` does.
pub(crate) fn shrink(
    whole: Story,
    failure: Failure,
    without: Option<Safeguard>,
) -> (Story, Failure) {
    let (mut story, mut failure) = (whole, failure);
    let mut runs = 0;
    'smaller: loop {
        for candidate in story.smaller(failure.at) {
            runs += 1;
            if runs * u32::try_from(LUCKS).unwrap() > MOST_RUNS {
                break 'smaller;
            }
            if let Some(found) = candidate.fails(without, failure.check) {
                (story, failure) = found;
                continue 'smaller;
            }
        }
        break;
    }
    (story, failure)
}

/// What to read, and what to type to see it again.
pub(crate) fn describe(story: &Story, failure: &Failure) -> String {
    let Failure { check, at, text } = failure;
    let text: String = text.chars().take(LONGEST_TEXT).collect();
    let scenario = story.scenario();
    let deeds = scenario
        .deeds
        .iter()
        .map(|(when, deed)| format!("  {when:?}: {deed:?}\n"));
    let deeds: String = deeds.collect();
    format!(
        "{} failed {at} ms after the start: {text}\n\
         {} regions of {} edges, calm after {} ms, {:?}\n{deeds}\
         HELIX_SIM_STORY='{story}' cargo test --release --package helix-routing --test rollout_simulation\n",
        check.name(),
        scenario.regions,
        scenario.edges,
        scenario.horizon,
        scenario.weather,
    )
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            luck,
            regions,
            edges,
            horizon,
            is_calm,
            deeds,
        } = self;
        let deeds: Vec<String> = deeds.iter().map(ToString::to_string).collect();
        let (calm, deeds) = (u8::from(*is_calm), deeds.join("+"));
        write!(
            f,
            "{seed},{luck},{regions},{edges},{horizon},{calm},{deeds}"
        )
    }
}

impl FromStr for Story {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').collect();
        let [seed, luck, regions, edges, horizon, calm, deeds] = parts.as_slice() else {
            return Err(format!("{text:?} is no story: seven parts are expected"));
        };
        let number = |part: &str| {
            part.parse::<u64>()
                .map_err(|error| format!("{part:?}: {error}"))
        };
        let place = |part: &str| {
            part.parse::<usize>()
                .map_err(|error| format!("{part:?}: {error}"))
        };
        let places = deeds.split('+').filter(|part| !part.is_empty());
        Ok(Self {
            seed: number(seed)?,
            luck: number(luck)?,
            regions: place(regions)?,
            edges: place(edges)?,
            horizon: number(horizon)?,
            is_calm: number(calm)? != 0,
            deeds: places.map(place).collect::<Result<_, _>>()?,
        })
    }
}
