//! Whether a server is well, as far as requests and checks have shown.
//!
//! Pure: `now` is passed in. Two things are known of each server, and it must be well by both:
//!
//! ```text
//! checks:    well ──n bad answers in a row──▶ ill ──n good answers in a row──▶ well
//! requests:  in ──n failures in a row──▶ out, for longer each time ──the time is over──▶ in
//! ```

use std::time::{Duration, Instant};

use helix_routing::routes::HealthCheck;

/// Failures in a row after which a server gets no requests for a while: one may be chance, five are not.
pub(super) const FAILURES_IN_A_ROW: u32 = 5;
/// How long the first time. Short, since a server that restarts is back in seconds.
pub(super) const OUT_AT_FIRST: Duration = Duration::from_secs(10);
/// How long at most: a server that was repaired is not to wait for longer.
pub(super) const OUT_AT_MOST: Duration = Duration::from_secs(300);

/// What is known of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    ill: bool,
    /// Checks in a row that speak against what it is held for.
    contrary: u32,
    failures: u32,
    /// How often it was taken out, less the times it did well since.
    times_out: u32,
    out_until: Option<Instant>,
}

/// What a server is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It gets requests.
    Well,
    /// Checks say that it is ill.
    Ill,
    /// It failed requests, and gets none for a while.
    Out,
}

impl Health {
    /// Whether it is to get requests.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        self.state(now) == State::Well
    }

    /// What the server is held for.
    pub(super) fn state(&self, now: Instant) -> State {
        if self.ill {
            State::Ill
        } else if self.out_until.is_none_or(|until| until <= now) {
            State::Well
        } else {
            State::Out
        }
    }

    /// A check was answered well, or not. Whether that changed what it is held for.
    pub(super) fn checked(&mut self, good: bool, check: &HealthCheck) -> bool {
        if good != self.ill {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        let needed = if good {
            check.healthy_after
        } else {
            check.unhealthy_after
        };
        let turned = self.contrary >= needed;
        if turned {
            self.ill = !good;
            self.contrary = 0;
        }
        turned
    }

    /// A request was answered.
    pub(super) const fn answered(&mut self) {
        self.failures = 0;
        self.times_out = self.times_out.saturating_sub(1);
    }

    /// A request was not answered. Whether the server was taken out for it.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_IN_A_ROW {
            return false;
        }
        self.failures = 0;
        self.times_out = self.times_out.saturating_add(1);
        let out = OUT_AT_FIRST.saturating_mul(self.times_out).min(OUT_AT_MOST);
        self.out_until = Some(now + out);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::routes::Span;

    fn check() -> HealthCheck {
        HealthCheck {
            path: "/".to_owned(),
            interval: Span::from_secs(1),
            timeout: Span::from_secs(1),
            healthy_after: 2,
            unhealthy_after: 3,
            status: None,
        }
    }

    #[test]
    fn checks_turn_a_server_only_after_several_in_a_row() {
        let now = Instant::now();
        let mut health = Health::default();
        let mut well = Vec::new();
        for good in [
            false, false, true, false, false, false, true, false, true, true,
        ] {
            health.checked(good, &check());
            well.push(health.is_well(now));
        }
        assert_eq!(
            well,
            [
                true, true, true, true, true, false, false, false, false, true
            ]
        );
    }

    #[test]
    fn failures_in_a_row_take_a_server_out_for_longer_each_time() {
        let mut now = Instant::now();
        let mut health = Health::default();
        for out in [OUT_AT_FIRST, OUT_AT_FIRST * 2, OUT_AT_FIRST * 3] {
            for _ in 1..FAILURES_IN_A_ROW {
                assert!(!health.failed(now));
                assert!(health.is_well(now));
            }
            assert!(health.failed(now));
            assert!(!health.is_well(now + out - Duration::from_millis(1)));
            now += out;
            assert!(health.is_well(now));
        }
        for _ in 0..1000 {
            health.failed(now);
        }
        assert!(health.is_well(now + OUT_AT_MOST));
    }

    #[test]
    fn an_answer_ends_a_row_of_failures() {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..50 {
            for _ in 1..FAILURES_IN_A_ROW {
                health.failed(now);
            }
            health.answered();
        }
        assert!(health.is_well(now));
    }
}
