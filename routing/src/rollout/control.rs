//! Pure. What people may ask of a rollout that runs, and what it answers.
//!
//! Invariant: each can be asked again and changes nothing then, so a double click does no harm. What must not happen is
//! refused with a reason, never ignored.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::machine::{Rollout, blameless};
use super::staging::{At, Pause};
use super::{Command, Fleet, Kind};
use crate::time::Timestamp;

/// What somebody asks of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Begin no further stage. What was begun goes on, and goes back if it fails.
    Pause {
        /// Why.
        reason: Option<String>,
    },
    /// Go on.
    Resume,
    /// Begin this stage, which waits for it.
    Approve {
        /// Its number, from 1.
        stage: u16,
    },
    /// End it: what is not live stays so, what is goes back to the release that settled before.
    Abort {
        /// Why.
        reason: Option<String>,
    },
}

/// Why it is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The rollout has ended.
    #[error("the rollout is over")]
    Over,
    /// It goes back already, and nothing holds that up.
    #[error("a rollback cannot be {verb}: deploy a release to go forward again")]
    Rollback {
        /// What was asked, as a participle.
        verb: &'static str,
    },
    /// There is no such stage.
    #[error("there is no stage {stage}: the rollout has {stages}")]
    NoStage {
        /// What was named.
        stage: u16,
        /// How many there are.
        stages: usize,
    },
    /// The stage does not wait for approval.
    #[error("stage {stage} does not await approval: {instead}")]
    NotAwaiting {
        /// What was named.
        stage: u16,
        /// What is the case.
        instead: String,
    },
}

impl Rollout {
    /// Does what `by` asks, and says what must now be done; nothing where it is so already.
    ///
    /// # Errors
    /// When it cannot be; then nothing has changed.
    pub fn control(
        &mut self,
        now: Timestamp,
        fleet: &Fleet,
        by: &str,
        control: &Control,
    ) -> Result<Vec<Command>, Refused> {
        if self.outcome.is_some() {
            return Err(Refused::Over);
        }
        let verb = control.verb();
        if self.kind == Kind::Rollback {
            return Err(Refused::Rollback { verb });
        }
        let before = self.clone();
        let mut commands = Vec::new();
        match control {
            Control::Pause { reason } => self.pause(now, by, reason.clone()),
            Control::Resume => self.paused = None,
            Control::Approve { stage } => self.approve(*stage)?,
            Control::Abort { reason } => {
                let why = reason.as_ref().map(|reason| format!(": {reason}"));
                let because = format!("aborted by {by}{}", why.unwrap_or_default());
                self.paused = None;
                self.end_unmoved((now, fleet), blameless(&because), &mut commands);
                // Of a restart the same is live before and after.
                if self.kind == Kind::Deploy {
                    self.take_back_all(blameless(&because), now, fleet, &mut commands);
                }
            }
        }
        if *self != before {
            commands.push(Command::Plan);
        }
        self.advance(now, fleet, &mut commands);
        Ok(commands)
    }

    fn pause(&mut self, now: Timestamp, by: &str, reason: Option<String>) {
        if self.paused.is_some() {
            return;
        }
        self.paused = Some(Pause {
            by: String::from(by),
            since: now,
            reason,
        });
        // A stage of which nothing is written yet begins anew afterwards, with its whole time.
        self.step_out_of_stage(now);
    }

    /// Compare and set: the stage is named by whoever approves it, and waits once.
    fn approve(&mut self, stage: u16) -> Result<(), Refused> {
        let index = usize::from(stage).wrapping_sub(1);
        if index >= self.stages.len() {
            let stages = self.stages.len();
            return Err(Refused::NoStage { stage, stages });
        }
        let (at, stands_by) = (self.stage, self.stands_by());
        if index < at {
            return Ok(());
        }
        match &mut self.at {
            At::Before { approved: true, .. } if index == at => Ok(()),
            At::Before { approved, .. } if index == at && stands_by => {
                *approved = true;
                Ok(())
            }
            At::In if index == at => Ok(()),
            At::Preparing => Err(Refused::NotAwaiting {
                stage,
                instead: String::from("regions still prepare"),
            }),
            At::Before { .. } if index == at => Err(Refused::NotAwaiting {
                stage,
                instead: String::from("the rollout ends"),
            }),
            At::Before { .. } | At::In => Err(Refused::NotAwaiting {
                stage,
                instead: format!("the rollout is at stage {}", at + 1),
            }),
        }
    }
}

impl Control {
    /// As a participle.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Pause { .. } => "paused",
            Self::Resume => "resumed",
            Self::Approve { .. } => "approved",
            Self::Abort { .. } => "aborted",
        }
    }
}
