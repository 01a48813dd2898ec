//! The states of a build, and what leads from one to the next. Pure.
//!
//! ```text
//!  waiting ──approved──▶ queued ──claimed──▶ claimed { worker, until } ──ended──▶ succeeded
//!     │                    │  ▲                 │  │                    └────────▶ failed
//!     │                    │  └──lease lapsed───┘  │ too often lapsed ──────────▶ failed
//!     └────────────────────┴───────────────────────┴──newer commit, or a word──▶ cancelled
//! ```
//!
//! Every step may be asked for twice: the second time changes nothing.

use std::time::Duration;

use helix_routing::api::{BuildState, BuildStep, LEASE_SECONDS};
use helix_routing::time::Timestamp;

/// How often a build is given to a worker. One that kills three would kill more.
pub const MAX_ATTEMPTS: u64 = 3;
/// How long a worker may be silent.
const LEASE: Duration = Duration::from_secs(LEASE_SECONDS);

/// How far a build is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has approved its commit.
    Waiting,
    /// It waits for a worker.
    Queued,
    /// A worker has it.
    Claimed(Lease),
    /// Its files are deployed.
    Succeeded {
        /// The deployment's number.
        deployment: u64,
    },
    /// Nothing is deployed.
    Failed {
        /// In which part; none when no worker said so.
        step: Option<BuildStep>,
        /// Why.
        reason: String,
    },
    /// It is not wanted any more.
    Cancelled {
        /// Why.
        reason: String,
    },
}

/// A worker's hold on a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which worker.
    pub worker: String,
    /// Id of the token that it shows.
    pub token: String,
    /// Until when it has the build without another word.
    pub until: Timestamp,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking<'a> {
    /// Which worker.
    pub worker: &'a str,
    /// Id of the token that it shows.
    pub token: &'a str,
}

/// A build cannot be claimed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody has approved its commit.
    #[error("the build waits for an approval")]
    Waiting,
    /// Another worker has it.
    #[error("worker {0} has the build")]
    Taken(String),
    /// Nothing is to be done.
    #[error("the build has ended")]
    Ended,
}

impl State {
    /// As it is shown.
    #[must_use]
    pub const fn shown(&self) -> BuildState {
        match self {
            Self::Waiting => BuildState::Waiting,
            Self::Queued => BuildState::Queued,
            Self::Claimed(_) => BuildState::Claimed,
            Self::Succeeded { .. } => BuildState::Succeeded,
            Self::Failed { .. } => BuildState::Failed,
            Self::Cancelled { .. } => BuildState::Cancelled,
        }
    }

    /// Whether the worker that asks has it.
    #[must_use]
    pub fn is_of(&self, asking: Asking<'_>) -> bool {
        match self {
            Self::Claimed(lease) => lease.worker == asking.worker && lease.token == asking.token,
            Self::Waiting
            | Self::Queued
            | Self::Succeeded { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. } => false,
        }
    }

    /// A worker takes the build, or says that it goes on. Whether that begins an attempt.
    ///
    /// # Errors
    /// When it is another's, or there is nothing to do.
    pub fn claim(&self, asking: Asking<'_>, now: Timestamp) -> Result<(Self, bool), Refused> {
        let claimed = Self::Claimed(Lease {
            worker: asking.worker.to_owned(),
            token: asking.token.to_owned(),
            until: now + LEASE,
        });
        match self {
            Self::Queued => Ok((claimed, true)),
            Self::Claimed(_) if self.is_of(asking) => Ok((claimed, false)),
            Self::Claimed(lease) if lease.until <= now => Ok((claimed, true)),
            Self::Claimed(lease) => Err(Refused::Taken(lease.worker.clone())),
            Self::Waiting => Err(Refused::Waiting),
            Self::Succeeded { .. } | Self::Failed { .. } | Self::Cancelled { .. } => {
                Err(Refused::Ended)
            }
        }
    }

    /// The lease is over: another worker is to have it, unless it had enough. None when it goes on as it is.
    #[must_use]
    pub fn lapsed(&self, attempts: u64, now: Timestamp) -> Option<Self> {
        match self {
            Self::Claimed(lease) if lease.until <= now && attempts < MAX_ATTEMPTS => {
                Some(Self::Queued)
            }
            Self::Claimed(lease) if lease.until <= now => Some(Self::Failed {
                step: None,
                reason: format!(
                    "{attempts} workers were lost with it, the last of them {}",
                    lease.worker
                ),
            }),
            Self::Claimed(_)
            | Self::Waiting
            | Self::Queued
            | Self::Succeeded { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// Somebody approves its commit. None when that changes nothing.
    #[must_use]
    pub fn approved(&self) -> Option<Self> {
        (*self == Self::Waiting).then_some(Self::Queued)
    }

    /// It is not wanted any more. None when it has ended.
    #[must_use]
    pub fn cancelled(&self, reason: &str) -> Option<Self> {
        (!self.shown().has_ended()).then(|| Self::Cancelled {
            reason: reason.to_owned(),
        })
    }

    /// Why a worker that has nothing to do with it any more is to stop.
    #[must_use]
    pub fn stop(&self) -> String {
        match self {
            Self::Waiting | Self::Queued => "the build was taken from this worker".to_owned(),
            Self::Claimed(lease) => format!("worker {} has the build", lease.worker),
            Self::Succeeded { .. } => "the build has succeeded".to_owned(),
            Self::Failed { reason, .. } | Self::Cancelled { reason } => reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Asking<'static> = Asking {
        worker: "a",
        token: "t",
    };
    const B: Asking<'static> = Asking {
        worker: "b",
        token: "t",
    };
    /// The same name, and another token.
    const C: Asking<'static> = Asking {
        worker: "a",
        token: "u",
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn ended() -> [State; 3] {
        let reason = "x".to_owned();
        [
            State::Succeeded { deployment: 1 },
            State::Failed {
                step: None,
                reason: reason.clone(),
            },
            State::Cancelled { reason },
        ]
    }

    #[test]
    fn a_build_is_one_workers_until_its_lease_lapses() {
        let (claimed, is_new) = State::Queued.claim(A, at(0)).unwrap();
        assert!(is_new && claimed.is_of(A) && !claimed.is_of(B) && !claimed.is_of(C));
        for other in [B, C] {
            assert_eq!(
                claimed.claim(other, at(29)),
                Err(Refused::Taken("a".to_owned()))
            );
        }
        let (renewed, is_new) = claimed.claim(A, at(20)).unwrap();
        assert!(!is_new);
        assert!(renewed.claim(B, at(49)).is_err());
        let (over, is_new) = renewed.claim(B, at(50)).unwrap();
        assert!(is_new && over.is_of(B));
    }

    #[test]
    fn a_lost_build_is_queued_again_and_not_for_ever() {
        let (claimed, _) = State::Queued.claim(A, at(0)).unwrap();
        assert_eq!(claimed.lapsed(1, at(29)), None);
        assert_eq!(
            claimed.lapsed(MAX_ATTEMPTS - 1, at(30)),
            Some(State::Queued)
        );
        assert!(matches!(
            claimed.lapsed(MAX_ATTEMPTS, at(30)),
            Some(State::Failed { .. })
        ));
        assert_eq!(State::Queued.lapsed(1, at(99)), None);
    }

    #[test]
    fn what_has_ended_stays_as_it_is() {
        for state in ended() {
            assert_eq!(state.claim(A, at(0)), Err(Refused::Ended));
            assert_eq!(state.lapsed(1, at(99)), None);
            assert_eq!(state.approved(), None);
            assert_eq!(state.cancelled("y"), None);
        }
    }

    #[test]
    fn nothing_is_built_of_a_fork_before_somebody_says_so() {
        assert_eq!(State::Waiting.claim(A, at(0)), Err(Refused::Waiting));
        assert_eq!(State::Waiting.approved(), Some(State::Queued));
        assert_eq!(State::Queued.approved(), None);
        assert!(State::Waiting.cancelled("newer").is_some());
    }
}
