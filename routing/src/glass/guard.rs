//! Pure. When an edge takes itself back: a hard limit breaks while its release bakes and origin is silent.
//!
//! An edge knows only its own visitors, and silence of origin may be its own link. So the limits are far beyond those of a bake,
//! the release before has to be a measure, it happens once after each cutover, and only where the release asks for it.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use crate::bake::{BakeRules, OnOriginLoss, Window};
use crate::time::Timestamp;

/// Origin is silent when no beacon came for so long: a restart of it takes a second or two.
pub const SILENCE: Duration = Duration::from_secs(10);

/// What an edge knows of a release that bakes.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What the release is held to.
    pub rules: &'a BakeRules,
    /// A share of the visitors gets a candidate: that is what bakes then, and what is counted is the release before.
    pub is_parted: bool,
    /// When its bake is over; none when it does not bake.
    pub bake_until: Option<Timestamp>,
    /// How long no beacon has come.
    pub silence: Duration,
    /// Whether this edge has taken itself back since the last cutover.
    pub is_spent: bool,
    /// What was counted of it.
    pub window: &'a Window,
    /// What the release before showed; none in a boot that did not see it.
    pub before: Option<&'a Window>,
}

/// Why the edge takes itself back now, if it does.
#[must_use]
pub fn breaks(seen: &Seen<'_>, now: Timestamp) -> Option<String> {
    let guard = &seen.rules.guard;
    let is_on = seen.rules.on_origin_loss == OnOriginLoss::LocalGuard
        && seen.bake_until.is_some_and(|until| now < until)
        && seen.silence >= SILENCE
        && !seen.is_spent
        && !seen.is_parted;
    if !is_on || seen.window.requests() < u64::from(guard.min_requests) {
        return None;
    }
    let share = seen.window.error_millionths()?;
    let before = seen.before?.error_millionths()?;
    let is_beyond =
        share >= guard.max_5xx.millionths() && share >= guard.max_5xx_times.of(before) && share > 0;
    is_beyond.then(|| {
        format!(
            "5xx {} of {} requests, {} before, while origin is silent",
            percent(share),
            seen.window.requests(),
            percent(before)
        )
    })
}

fn percent(millionths: u64) -> String {
    format!("{}.{:02}%", millionths / 10_000, millionths % 10_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(requests: u64, errors: u64) -> Window {
        let mut window = Window::default();
        for at in 0..requests {
            window.add(at < errors, 1000);
        }
        window
    }

    #[test]
    fn only_a_hard_limit_in_silence_breaks_and_only_once() {
        let on = BakeRules {
            on_origin_loss: OnOriginLoss::LocalGuard,
            ..BakeRules::default()
        };
        let hold = BakeRules::default();
        let now = Timestamp::from_millis(1_000_000);
        let (later, past) = (now + Duration::from_secs(1), now);
        let long = SILENCE;
        let short = SILENCE - Duration::from_millis(1);
        let (well, bad) = (window(1000, 0), window(1000, 30));
        for (rules, until, silence, is_spent, requests, errors, before, expected) in [
            (&on, Some(later), long, false, 50, 10, Some(&well), true),
            (&on, Some(later), long, false, 50, 50, Some(&well), true),
            // Too few, too little, or no more than ten times as bad as before.
            (&on, Some(later), long, false, 49, 49, Some(&well), false),
            (&on, Some(later), long, false, 50, 9, Some(&well), false),
            (&on, Some(later), long, false, 100, 29, Some(&bad), false),
            (&on, Some(later), long, false, 100, 30, Some(&bad), true),
            (&on, Some(later), long, false, 100, 0, Some(&well), false),
            // Nothing to compare with.
            (&on, Some(later), long, false, 50, 50, None, false),
            (
                &on,
                Some(later),
                long,
                false,
                50,
                50,
                Some(&window(0, 0)),
                false,
            ),
            // Origin is there, the bake is over, there is none, it was done before, nobody asked for it.
            (&on, Some(later), short, false, 50, 50, Some(&well), false),
            (&on, Some(past), long, false, 50, 50, Some(&well), false),
            (&on, None, long, false, 50, 50, Some(&well), false),
            (&on, Some(later), long, true, 50, 50, Some(&well), false),
            (&hold, Some(later), long, false, 50, 50, Some(&well), false),
        ] {
            let window = window(requests, errors);
            let seen = Seen {
                rules,
                is_parted: false,
                bake_until: until,
                silence,
                is_spent,
                window: &window,
                before,
            };
            assert_eq!(breaks(&seen, now).is_some(), expected, "{seen:?}");
            let is_parted = true;
            let parted = Seen { is_parted, ..seen };
            assert_eq!(breaks(&parted, now), None, "the candidate is not to blame");
        }
    }

    #[test]
    fn the_reason_has_the_figures() {
        let rules = BakeRules {
            on_origin_loss: OnOriginLoss::LocalGuard,
            ..BakeRules::default()
        };
        let now = Timestamp::from_millis(0);
        let seen = Seen {
            rules: &rules,
            is_parted: false,
            bake_until: Some(now + SILENCE),
            silence: SILENCE,
            is_spent: false,
            window: &window(80, 20),
            before: Some(&window(1000, 1)),
        };
        let reason = breaks(&seen, now).unwrap();
        assert_eq!(
            reason,
            "5xx 25.00% of 80 requests, 0.10% before, while origin is silent"
        );
    }
}
