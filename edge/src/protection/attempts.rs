//! How often passwords may be tried.
//!
//! Each address has a few attempts for a site, and gets one back now and then. Invariant: however many addresses there are, it takes
//! the same memory. Two that share a place share its attempts, so that nobody is let try more often than one alone; which do is
//! random, and another in each process.

use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::Semaphore;

/// Places: so many that people seldom share one, in 96 KiB.
const PLACES: usize = 4096;
/// Wrong passwords in a row that are checked: people mistype.
const BURST: u32 = 5;
/// After so long one attempt is given back.
const REGAIN: Duration = Duration::from_secs(12);
/// Passwords that are checked at once. Each takes a tenth of a second of a core, which requests need too.
const MAX_CHECKS: usize = 2;

/// What all requests of an edge try with.
#[derive(Debug)]
pub struct Attempts {
    places: Mutex<Box<[Place]>>,
    hasher: RandomState,
    /// A permit for each password that is checked.
    pub(super) checks: Semaphore,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    spent: u32,
    since: Option<Instant>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            places: Mutex::new(vec![Place::default(); PLACES].into_boxed_slice()),
            hasher: RandomState::default(),
            checks: Semaphore::new(MAX_CHECKS),
        }
    }
}

impl Attempts {
    /// Takes an attempt of `from` at `site`.
    ///
    /// # Errors
    /// When there is none left: how long until there is.
    pub(super) fn take(&self, site: &str, from: IpAddr, now: Instant) -> Result<(), Duration> {
        self.at(site, from, |place| place.take(now))
    }

    /// Gives back the one that was right.
    pub(super) fn give_back(&self, site: &str, from: IpAddr) {
        self.at(site, from, |place| {
            place.spent = place.spent.saturating_sub(1)
        });
    }

    fn at<T>(&self, site: &str, from: IpAddr, change: impl FnOnce(&mut Place) -> T) -> T {
        let hash = self.hasher.hash_one((site, network(from)));
        let at = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut places[at])
    }
}

impl Place {
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let since = self.since.unwrap_or(now);
        let passed = now.saturating_duration_since(since);
        let regained = u32::try_from(passed.as_secs() / REGAIN.as_secs()).unwrap_or(u32::MAX);
        self.spent = self.spent.saturating_sub(regained);
        let whole = REGAIN.saturating_mul(regained.min(BURST));
        // What has passed of the next one counts on; of a full place nothing has.
        let since = if self.spent == 0 { now } else { since + whole };
        self.since = Some(since);
        if self.spent >= BURST {
            return Err(REGAIN.saturating_sub(now.saturating_duration_since(since)));
        }
        self.spent += 1;
        Ok(())
    }
}

/// What one client can choose its addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_few_attempts_and_gets_them_back() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let take = |from: &str, seconds| {
            let now = start + Duration::from_secs(seconds);
            attempts
                .take("shop/preview/1", from.parse().unwrap(), now)
                .is_ok()
        };
        for _ in 0..BURST {
            assert!(take("192.0.2.7", 0));
        }
        assert!(!take("192.0.2.7", 0) && !take("192.0.2.7", 11));
        assert!(take("192.0.2.7", 12), "one was given back");
        assert!(!take("192.0.2.7", 13));
        let after = (0..20).filter(|_| take("192.0.2.7", 10_000)).count();
        assert_eq!(after, BURST as usize, "no more than at first");
        attempts.give_back("shop/preview/1", "192.0.2.7".parse().unwrap());
        assert!(take("192.0.2.7", 10_000), "the right one does not count");
    }

    #[test]
    fn a_network_of_version_6_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }
}
