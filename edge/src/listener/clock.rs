//! What time it is, asked of the system once a second.
//!
//! Within a second every response of a core has the same `Date`, so it is written once.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Length of an HTTP date (RFC 9110 5.6.7).
const DATE_BYTES: usize = 29;

/// The second that is now.
#[derive(Debug)]
pub(super) struct Clock {
    second: u64,
    until: Instant,
    date: [u8; DATE_BYTES],
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            second: 0,
            until: Instant::now(),
            date: [b' '; DATE_BYTES],
        }
    }

    /// Brings it to `now`.
    pub(super) fn turn(&mut self, now: Instant) {
        if now < self.until {
            return;
        }
        let wall = SystemTime::now();
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.second = since.as_secs();
        self.until = now
            + Duration::from_secs(1)
                .saturating_sub(Duration::from_nanos(since.subsec_nanos().into()));
        let date = httpdate::fmt_http_date(wall);
        if let Ok(date) = date.as_bytes().try_into() {
            self.date = date;
        }
    }

    /// Seconds since 1970.
    pub(super) const fn second(&self) -> u64 {
        self.second
    }

    /// As in a `Date` field.
    pub(super) const fn date(&self) -> &[u8; DATE_BYTES] {
        &self.date
    }
}
