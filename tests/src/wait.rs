//! Waiting for something to become true, with a deadline and a name.

use std::time::{Duration, Instant};

/// How often a condition is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Returns the first value that `look` finds.
///
/// # Panics
/// When it finds none within `limit`; the message names `what`.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        pause(LOOK_EVERY);
    }
}

/// Like [`until`], for a condition.
///
/// # Panics
/// When it does not become true within `limit`.
pub fn until_true(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    until(what, limit, || look().then_some(()));
}

/// Lets `span` pass. For pacing a client, never for hoping that something is done by then.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's own thread, not a runtime's worker"
)]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}
