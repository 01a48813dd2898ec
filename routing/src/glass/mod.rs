//! Pure. Breaking the glass: what a person may change when origin, or NATS, is not there to be asked.
//!
//! ```text
//!  operator's key ──a signed record on the region's stream──▶ every edge of the region      (origin is dead)
//!  local socket   ──────────────────────────────────────────▶ one edge                      (NATS is dead)
//! ```
//!
//! Invariant: an override only ever goes to a release that the edge holds already, has a reason and an end, and is told to
//! origin until it has been taken over or replaced. Its end does not move visitors: what is served stays, and is shown as
//! expired, since what it left may be what is broken and nobody may be awake.

use core::time::Duration;

use crate::id::{Epoch, ReleaseId};
use crate::time::Timestamp;

mod guard;
mod local;
pub mod signed;
pub(crate) mod view;

pub use guard::{SILENCE, Seen, breaks};
pub use local::{
    Cause, EndedOverride, EndedOverrides, EndedReport, Held, LocalOverride, LocalReport,
    NewOverride, Overrides, decide,
};

/// The longest time to live: who needs more has origin back by then, or says so again.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Most bytes of a reason: a sentence or two.
pub const MAX_REASON_BYTES: usize = 500;
/// Most bytes of who it was.
pub const MAX_BY_BYTES: usize = 100;

/// An override was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody would know why.
    #[error("a reason is needed")]
    NoReason,
    /// It would not fit where it is shown.
    #[error("{what} has to be one line of at most {limit} bytes")]
    Text {
        /// The reason, or who it was.
        what: &'static str,
        /// The most bytes.
        limit: usize,
    },
    /// It would be over at once.
    #[error("the time to live is 0")]
    NoTime,
    /// It would outlive every outage.
    #[error("the time to live is {} s, longer than 7 days", .0.as_secs())]
    TooLong(Duration),
    /// It comes after its end.
    #[error("the override ended at {until}, it is {now}")]
    Expired {
        /// Its end.
        until: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// An operator's key may sign nothing but overrides.
    #[error("an operator's record may only override what is live: {0}")]
    NoOverride(&'static str),
    /// It could not be told from what origin writes.
    #[error("an override raises the term; it has {found}, and {known} was seen")]
    SameTerm {
        /// Its term.
        found: Epoch,
        /// The highest seen.
        known: Epoch,
    },
    /// There is nothing to override.
    #[error("no such site is served here")]
    UnknownSite,
    /// Only what is held and verified can be served at once.
    #[error("release {0} is not held and verified here")]
    NotHeld(ReleaseId),
    /// There is nothing else to go to.
    #[error("no earlier release is held and verified here")]
    NothingHeld,
    /// It would change nothing.
    #[error("release {0} is what is served here")]
    Served(ReleaseId),
    /// That is no override.
    #[error("release {0} is what the record names: end the override instead")]
    Named(ReleaseId),
    /// There is none to end.
    #[error("no override stands for this site")]
    NoneStands,
}

/// Checks what every override has to have: a reason, who it was, and an end that is neither now nor far away.
///
/// # Errors
/// Names the first thing that is wrong.
pub fn check_terms(reason: &str, by: &str, ttl: Duration) -> Result<(), Refused> {
    if reason.trim().is_empty() {
        return Err(Refused::NoReason);
    }
    for (what, text, limit) in [
        ("the reason", reason, MAX_REASON_BYTES),
        ("the name of who it was", by, MAX_BY_BYTES),
    ] {
        if text.len() > limit || text.chars().any(char::is_control) {
            return Err(Refused::Text { what, limit });
        }
    }
    if ttl.is_zero() {
        return Err(Refused::NoTime);
    }
    if ttl > LONGEST {
        return Err(Refused::TooLong(ttl));
    }
    Ok(())
}

/// How long an override was made for, as its two ends say it.
#[must_use]
pub fn ttl(since: Timestamp, until: Timestamp) -> Duration {
    until.since(since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_override_has_a_reason_and_an_end() {
        let long = "x".repeat(MAX_REASON_BYTES + 1);
        for (reason, by, ttl, refused) in [
            ("sick", "ada", HOUR, None),
            ("sick", "ada", LONGEST, None),
            ("", "ada", HOUR, Some(Refused::NoReason)),
            (" \t", "ada", HOUR, Some(Refused::NoReason)),
            ("sick", "ada", Duration::ZERO, Some(Refused::NoTime)),
            (
                "sick",
                "ada",
                LONGEST + Duration::from_millis(1),
                Some(Refused::TooLong(LONGEST + Duration::from_millis(1))),
            ),
            (
                &long,
                "ada",
                HOUR,
                Some(Refused::Text {
                    what: "the reason",
                    limit: MAX_REASON_BYTES,
                }),
            ),
            (
                "two\nlines",
                "ada",
                HOUR,
                Some(Refused::Text {
                    what: "the reason",
                    limit: MAX_REASON_BYTES,
                }),
            ),
            (
                "sick",
                &long,
                HOUR,
                Some(Refused::Text {
                    what: "the name of who it was",
                    limit: MAX_BY_BYTES,
                }),
            ),
        ] {
            assert_eq!(
                check_terms(reason, by, ttl).err(),
                refused,
                "{reason:?} {by:?} {ttl:?}"
            );
        }
        assert!(Refused::TooLong(LONGEST * 2).to_string().contains("7 days"));
    }

    #[test]
    fn a_time_to_live_is_what_lies_between_its_ends() {
        let since = Timestamp::from_millis(5000);
        assert_eq!(ttl(since, since + HOUR), HOUR);
        assert_eq!(ttl(since + HOUR, since), Duration::ZERO);
    }
}
