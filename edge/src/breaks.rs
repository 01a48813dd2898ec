//! Long work that gives up its core again and again, so that who serves does not wait for it.
//!
//! A thread that wakes up for a request waits for the slice of whoever computes on its core: some milliseconds on Linux, also where that
//! one has a lower priority (decision 0222).
//! It waits for a hundred microseconds where that one yields so often. With nobody waiting a yield costs less than one.

use std::thread;
use std::time::{Duration, Instant};

/// Work between two breaks.
const STRETCH: Duration = Duration::from_micros(100);

/// Breaks of one piece of work.
#[derive(Debug)]
pub(crate) struct Breaks {
    since: Instant,
}

impl Breaks {
    /// Work begins.
    pub(crate) fn begin() -> Self {
        Self {
            since: Instant::now(),
        }
    }

    /// Lets those run that wait for this core, if they may have waited for long. To be called between any two pieces that take microseconds.
    pub(crate) fn may_be_due(&mut self) {
        if self.since.elapsed() >= STRETCH {
            thread::yield_now();
            self.since = Instant::now();
        }
    }
}
