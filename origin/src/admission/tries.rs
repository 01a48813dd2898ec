//! Pure. How often an address may try join tokens that are none.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helix_routing::time::Timestamp;

/// Failures of one address within [`SPAN`]. A secret has 256 bits: this only keeps the log short.
const MAX_TRIES: u32 = 10;
/// How long failures count.
const SPAN: Duration = Duration::from_secs(60);
/// Addresses that are remembered. With more of them all are forgotten.
const MAX_ADDRESSES: usize = 4096;

/// Failures by address.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<BTreeMap<Option<IpAddr>, (Timestamp, u32)>>);

impl Tries {
    /// Whether the address may try at `now`.
    pub(super) fn may_try(&self, from: Option<IpAddr>, now: Timestamp) -> bool {
        let tries = self.tries();
        tries
            .get(&from)
            .is_none_or(|(since, count)| now.since(*since) >= SPAN || *count < MAX_TRIES)
    }

    /// It showed a token that is none.
    pub(super) fn failed(&self, from: Option<IpAddr>, now: Timestamp) {
        let mut tries = self.tries();
        if tries.len() >= MAX_ADDRESSES && !tries.contains_key(&from) {
            tries.clear();
        }
        let (since, count) = tries.entry(from).or_insert((now, 0));
        if now.since(*since) >= SPAN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
    }

    fn tries(&self) -> MutexGuard<'_, BTreeMap<Option<IpAddr>, (Timestamp, u32)>> {
        // Each change is whole before the guard is dropped.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_guesses_has_to_wait_and_others_do_not() {
        let tries = Tries::default();
        let (now, other) = (
            Timestamp::from_millis(1_000_000),
            Some("::1".parse().unwrap()),
        );
        for _ in 0..MAX_TRIES {
            assert!(tries.may_try(None, now));
            tries.failed(None, now);
        }
        assert!(!tries.may_try(None, now) && tries.may_try(other, now));
        assert!(tries.may_try(None, now + SPAN));
        tries.failed(None, now + SPAN);
        assert!(tries.may_try(None, now + SPAN));
    }
}
