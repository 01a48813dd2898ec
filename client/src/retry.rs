//! Repeats a call that may be repeated while nobody answers it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::origin::OriginError;

/// How long the first call of a command waits for an origin that may be starting: a wrong address should not hang.
pub const FIRST_CONTACT: Duration = Duration::from_secs(5);
/// How long it waits where an origin answered that for now none can do it: until another has taken over.
const TAKEOVER: Duration = Duration::from_secs(20);
/// How long an upload waits for an origin that was there: a restart, a change of network.
pub const MID_UPLOAD: Duration = Duration::from_secs(120);

/// The waits between attempts: from a blink to a few seconds.
#[derive(Debug)]
pub struct BackOff(Duration);

impl BackOff {
    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_secs(2);

    /// The shortest wait first.
    pub const fn new() -> Self {
        Self(Self::FIRST)
    }

    /// Waits, and longer next time.
    pub async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(Self::LAST);
    }
}

impl Default for BackOff {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls until something other than silence comes back, for at most `patience`.
pub async fn patiently<T>(
    patience: Duration,
    mut call: impl AsyncFnMut() -> Result<T, OriginError>,
) -> Result<T, OriginError> {
    let start = Instant::now();
    let mut back_off = BackOff::new();
    loop {
        match call().await {
            Err(error) if error.is_passing() && start.elapsed() < limit(&error, patience) => {
                back_off.wait().await;
            }
            ended => return ended,
        }
    }
}

fn limit(error: &OriginError, patience: Duration) -> Duration {
    match error {
        OriginError::Problem(_) => patience.max(TAKEOVER),
        OriginError::Unreachable { .. }
        | OriginError::Unexpected { .. }
        | OriginError::Client(_) => patience,
    }
}
