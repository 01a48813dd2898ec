//! The one place that reads the wall clock for records and machines.

use std::time::{SystemTime, UNIX_EPOCH};

use helix_routing::time::Timestamp;

/// The present moment. A clock set before 1970 reads as 1970.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
