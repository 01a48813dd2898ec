//! Time: one true clock that only the world sees, and one for each node, which is wrong by as much as it likes.

use helix_routing::time::Timestamp;

/// Where the simulated nodes' clocks begin, in milliseconds since 1970.
const EPOCH: u64 = 1_000_000_000_000;
/// The most by which two clocks differ.
pub(crate) const MOST_SKEW: u64 = 40_000;

/// A node's wall clock, which may jump either way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Clock {
    /// By so many milliseconds it is ahead.
    pub(crate) ahead: i64,
}

impl Clock {
    pub(crate) const fn read(self, now: u64) -> Timestamp {
        Timestamp::from_millis((EPOCH + now).wrapping_add_signed(self.ahead))
    }
}
