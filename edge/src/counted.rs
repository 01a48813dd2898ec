//! What was counted of one live release: for its bake, and as the measure of the release after it.
//!
//! Each core adds to a row of its own, made with its first request, so that counting is three additions and no more.
//! Whoever reads adds the rows up; a count is at most a few requests behind. The rows go with the last request that
//! holds what was served.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use helix_routing::bake::{BUCKETS, Histogram, Window, bucket};
use http::StatusCode;

/// Cores with a row of their own. Those beyond share the last.
const ROWS: usize = 32;
/// Rows there may be at once, of about two kilobytes each: some 400 MB. With more, requests are served and not counted, and
/// a bake says nothing.
const MAX_ROWS: usize = 200_000;
/// Rows there are.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The counts of one release, while it is live.
#[derive(Debug, Default)]
pub struct Counted(OnceLock<Box<Rows>>);

/// By core, each made by its first request; none where there is no room for one more.
type Rows = [OnceLock<Option<Box<Row>>>; ROWS];

#[derive(Debug)]
struct Row {
    requests: AtomicU64,
    errors: AtomicU64,
    took: [AtomicU64; BUCKETS],
}

impl Counted {
    /// Counts a finished request, on core number `core`. A tunnel's time is its client's: it has none.
    pub fn finished(&self, core: usize, status: Option<StatusCode>, took: Option<Duration>) {
        let at = core.min(ROWS - 1);
        let rows = self
            .0
            .get_or_init(|| Box::new(array::from_fn(|_| OnceLock::new())));
        let Some(row) = rows[at].get_or_init(Row::new) else {
            return;
        };
        let add = if at < ROWS - 1 { add_alone } else { add_shared };
        add(&row.requests);
        if status.is_some_and(|status| status.is_server_error()) {
            add(&row.errors);
        }
        if let Some(took) = took {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            add(&row.took[bucket(micros)]);
        }
    }

    /// What all cores have counted.
    #[must_use]
    pub fn window(&self) -> Window {
        let rows = self.0.get().into_iter().flat_map(|rows| rows.iter());
        let rows = rows.filter_map(|row| row.get()?.as_deref());
        rows.fold(Window::default(), |sum, row| sum.merged(&row.window()))
    }
}

/// Between the two steps nobody else writes: the row is its core's.
fn add_alone(count: &AtomicU64) {
    let now = count.load(Ordering::Relaxed);
    count.store(now.wrapping_add(1), Ordering::Relaxed);
}

fn add_shared(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Row {
    fn new() -> Option<Box<Self>> {
        if HELD.fetch_add(1, Ordering::Relaxed) >= MAX_ROWS {
            HELD.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Box::new(Self {
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            took: array::from_fn(|_| AtomicU64::new(0)),
        }))
    }

    fn window(&self) -> Window {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        // Errors first: a request that comes meanwhile must not look like an error of nobody.
        let errors = count(&self.errors);
        let latency = Histogram::from_counts(self.took.iter().map(count));
        Window::new(count(&self.requests), errors, latency)
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_cores_count_adds_up() {
        let counted = Counted::default();
        assert_eq!(counted.window(), Window::default());
        thread::scope(|scope| {
            for core in 0..ROWS + 3 {
                let counted = &counted;
                scope.spawn(move || {
                    for number in 0..1000 {
                        let status = if number % 10 == 0 { 502 } else { 200 };
                        let status = StatusCode::from_u16(status).unwrap();
                        counted.finished(core, Some(status), Some(Duration::from_millis(number)));
                    }
                });
            }
        });
        let window = counted.window();
        let all = (ROWS as u64 + 3) * 1000;
        assert_eq!((window.requests(), window.errors()), (all, all / 10));
        assert_eq!(window.latency().total(), all);
        let median = window.latency().quantile(500).unwrap();
        assert!((499_000..535_000).contains(&median), "{median}");
    }

    #[test]
    fn a_tunnel_has_no_time_and_a_client_that_left_is_no_error() {
        let counted = Counted::default();
        counted.finished(0, Some(StatusCode::SWITCHING_PROTOCOLS), None);
        counted.finished(0, None, Some(Duration::ZERO));
        let window = counted.window();
        assert_eq!(
            (window.requests(), window.errors(), window.latency().total()),
            (2, 0, 1)
        );
    }
}
