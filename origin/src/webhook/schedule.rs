//! Pure. When a delivery that failed is tried again, and when a webhook that fails is given up.

use std::time::Duration;

use helix_routing::routes::Span;
use serde::{Deserialize, Serialize};

/// Each wait is so many times the one before.
const FACTOR: u32 = 3;

/// How patient deliveries are. Part of the table `[webhooks]` of origin's config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patience {
    /// Wait before the second attempt; each later one is three times as long.
    pub first_retry: Span,
    /// The longest wait.
    pub longest_retry: Span,
    /// A delivery that would be tried later than this after its first attempt has failed.
    pub retry_for: Span,
    /// A webhook to which nothing could be delivered for so long is disabled.
    pub disable_after: Span,
}

impl Default for Patience {
    fn default() -> Self {
        const HOUR: u64 = 60 * 60;
        Self {
            first_retry: Span::from_secs(5),
            longest_retry: Span::from_secs(4 * HOUR),
            retry_for: Span::from_secs(26 * HOUR),
            disable_after: Span::from_secs(3 * 24 * HOUR),
        }
    }
}

impl Patience {
    /// The wait after so many attempts, between 80 and 120 % of what it would be so that not all come back at once: `jitter` is from 0
    /// to 1. A server that asks for more time gets it, up to the longest wait.
    #[must_use]
    pub fn wait(&self, attempts: u32, jitter: f64, asked: Option<Duration>) -> Duration {
        let longest = self.longest_retry.duration();
        let doubled = FACTOR.saturating_pow(attempts.saturating_sub(1));
        let wait = self.first_retry.duration().saturating_mul(doubled);
        let wait = wait
            .min(longest)
            .mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0));
        wait.max(asked.unwrap_or_default().min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_tried_for_about_a_day_ever_more_seldom() {
        let patience = Patience::default();
        let (mut at, mut attempts) = (Duration::ZERO, 1);
        let mut before = Duration::ZERO;
        loop {
            let wait = patience.wait(attempts, 0.5, None);
            assert!(wait >= before, "waits do not get shorter");
            if at + wait > patience.retry_for.duration() {
                break;
            }
            (at, before, attempts) = (at + wait, wait, attempts + 1);
        }
        assert_eq!(attempts, 14);
        assert!(at > Duration::from_secs(20 * 60 * 60), "{at:?}");
    }

    #[test]
    fn waits_are_spread_and_a_server_is_heard_within_bounds() {
        let patience = Patience::default();
        assert_eq!(patience.wait(1, 0.0, None), Duration::from_secs(4));
        assert_eq!(patience.wait(1, 1.0, None), Duration::from_secs(6));
        let asked = |seconds| patience.wait(1, 0.5, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(60), Duration::from_secs(60));
        assert_eq!(asked(1), Duration::from_secs(5));
        assert_eq!(asked(1_000_000), patience.longest_retry.duration());
        assert_eq!(
            patience.wait(u32::MAX, 0.5, None),
            patience.longest_retry.duration()
        );
    }
}
