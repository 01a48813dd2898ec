//! The machine of one gate: when to ask, and when enough was seen.
//!
//! ```text
//!  Waiting ──time──▶ Asking ──answer, or time──▶ Waiting …
//!     │                 │
//!     │ deadline        │ enough good answers in a row, enough others, deadline, nothing that can be asked
//!     ▼                 ▼
//!   Over: pass, fail, inconclusive or error
//! ```
//!
//! Invariants: it ends by its deadline at the latest; one probe is under way at a time; after the end, and to an answer of
//! a probe that was given up, it does nothing.

use alloc::vec::Vec;

use super::{Spread, Timing};
use crate::time::Timestamp;
use crate::verdict::Verdict;

/// What one probe showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What the gate wants to see.
    Good,
    /// Something else, or no answer.
    Bad,
    /// It could not be asked this time.
    Error,
    /// It can never be asked: no further probe will be different.
    Impossible,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A probe ended.
    Answered {
        /// Which.
        probe: u32,
        /// With what.
        outcome: Outcome,
    },
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start this probe; its end is [`Event::Answered`].
    Ask {
        /// Its number, from 1.
        probe: u32,
    },
    /// Let this probe go: its answer came too late.
    GiveUp {
        /// Which.
        probe: u32,
    },
    /// It is over.
    Conclude(Verdict),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { until: Timestamp },
    Asking { since: Timestamp },
    Over(Verdict),
}

/// One gate, being watched.
#[derive(Clone, Debug)]
pub struct Watch {
    timing: Timing,
    spread: Spread,
    deadline: Timestamp,
    state: State,
    probes: u32,
    good: u32,
    others: u32,
    last: Option<Outcome>,
}

impl Watch {
    /// A gate whose time begins now. Its deadline is the same however its probes are spread.
    #[must_use]
    pub fn new(timing: Timing, mut spread: Spread, now: Timestamp) -> Self {
        let first = now + timing.initial_delay.duration();
        let until = first + spread.first();
        Self {
            timing,
            spread,
            deadline: first + timing.deadline.duration(),
            state: State::Waiting { until },
            probes: 0,
            good: 0,
            others: 0,
            last: None,
        }
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        if let (Event::Answered { probe, outcome }, State::Asking { since }) = (event, self.state)
            && probe == self.probes
        {
            self.count(outcome, since, now, &mut commands);
        }
        self.pass_time(now, &mut commands);
        commands
    }

    /// When it wants to be told the time; none once it is over.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let next = match self.state {
            State::Waiting { until } => until,
            State::Asking { since } => since + self.timing.timeout.duration(),
            State::Over(_) => return None,
        };
        Some(next.min(self.deadline))
    }

    /// How it ended; none while it runs.
    #[must_use]
    pub const fn verdict(&self) -> Option<Verdict> {
        match self.state {
            State::Over(verdict) => Some(verdict),
            State::Waiting { .. } | State::Asking { .. } => None,
        }
    }

    /// How many probes were started.
    #[must_use]
    pub const fn probes(&self) -> u32 {
        self.probes
    }

    fn pass_time(&mut self, now: Timestamp, commands: &mut Vec<Command>) {
        if let State::Asking { since } = self.state
            && now >= since + self.timing.timeout.duration()
        {
            commands.push(Command::GiveUp { probe: self.probes });
            self.count(Outcome::Bad, since, now, commands);
        }
        match self.state {
            State::Over(_) => {}
            State::Asking { .. } if now >= self.deadline => {
                commands.push(Command::GiveUp { probe: self.probes });
                self.conclude(self.at_deadline(), commands);
            }
            State::Waiting { .. } if now >= self.deadline => {
                self.conclude(self.at_deadline(), commands);
            }
            State::Waiting { until } if now >= until => {
                self.probes += 1;
                self.state = State::Asking { since: now };
                commands.push(Command::Ask { probe: self.probes });
            }
            State::Waiting { .. } | State::Asking { .. } => {}
        }
    }

    fn count(
        &mut self,
        outcome: Outcome,
        since: Timestamp,
        now: Timestamp,
        commands: &mut Vec<Command>,
    ) {
        self.last = Some(outcome);
        match outcome {
            Outcome::Good => {
                self.good += 1;
                self.others = 0;
            }
            Outcome::Bad | Outcome::Error | Outcome::Impossible => {
                self.good = 0;
                self.others += 1;
            }
        }
        let has_fallen = self.timing.fall.is_some_and(|fall| self.others >= fall);
        if outcome == Outcome::Impossible {
            self.conclude(Verdict::Error, commands);
        } else if self.good >= self.timing.rise {
            self.conclude(Verdict::Pass, commands);
        } else if has_fallen {
            self.conclude(self.at_deadline(), commands);
        } else {
            let next = self.spread.next(self.timing.interval.duration());
            let until = (since + next).max(now);
            self.state = State::Waiting { until };
        }
    }

    /// What the last answer says when there will be no further one. Good, but not often enough, says too little.
    const fn at_deadline(&self) -> Verdict {
        match self.last {
            Some(Outcome::Good) => Verdict::Inconclusive,
            Some(Outcome::Error | Outcome::Impossible) => Verdict::Error,
            Some(Outcome::Bad) | None => Verdict::Fail,
        }
    }

    fn conclude(&mut self, verdict: Verdict, commands: &mut Vec<Command>) {
        self.state = State::Over(verdict);
        commands.push(Command::Conclude(verdict));
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
