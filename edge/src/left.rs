//! Releases that are no longer live and on which something is still in flight.
//!
//! Who serves a site adds what it left; whoever shows it reads. A release stays here until nothing of it is left, and its
//! files and blobs stay as long: each request holds them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helix_routing::id::{Generation, ReleaseId, SiteId};
use tokio::time::Instant;

use crate::in_flight::{InFlight, Load};

/// For so long a release counts as left even with nothing in flight: a request may hold what it loaded before the swap, and
/// not have begun.
const SETTLE: Duration = Duration::from_secs(2);
/// Most releases left that are shown. Those beyond drain all the same.
const MAX_LEFT: usize = 10_000;

/// One of them.
#[derive(Clone, Debug)]
pub struct Left {
    /// The site.
    pub site: SiteId,
    /// The release.
    pub release: ReleaseId,
    /// The generation that it went live under.
    pub live_since: Generation,
    /// What is in flight on it.
    pub in_flight: Arc<InFlight>,
}

/// All of them, oldest first.
#[derive(Debug, Default)]
pub struct AllLeft(Mutex<Vec<Left>>);

impl AllLeft {
    /// One more.
    pub fn add(&self, left: Left) {
        let mut all = self.all();
        if all.len() == MAX_LEFT {
            all.remove(0);
        }
        all.push(left);
    }

    /// Forgets those that have nothing in flight any more, and says of which sites they were.
    pub fn sweep(&self, now: Instant) -> Vec<SiteId> {
        let is_over = |left: &mut Left| {
            let since = left.in_flight.leaving().map(|leaving| leaving.since);
            let settled = since.is_some_and(|since| now >= since + SETTLE);
            settled && left.in_flight.load().is_none()
        };
        let mut all = self.all();
        all.extract_if(.., is_over).map(|left| left.site).collect()
    }

    /// Those of one site, oldest first.
    #[must_use]
    pub fn of(&self, site: &SiteId) -> Vec<Left> {
        let all = self.all();
        all.iter()
            .filter(|left| left.site == *site)
            .cloned()
            .collect()
    }

    /// The sites that have some.
    #[must_use]
    pub fn sites(&self) -> Vec<SiteId> {
        let mut sites: Vec<_> = self.all().iter().map(|left| left.site.clone()).collect();
        sites.sort_unstable();
        sites.dedup();
        sites
    }

    /// What is in flight on all of them.
    #[must_use]
    pub fn load(&self) -> Load {
        let mut sum = Load::default();
        for left in self.all().iter() {
            sum.add(left.in_flight.load());
        }
        sum
    }

    fn all(&self) -> MutexGuard<'_, Vec<Left>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use helix_routing::routes::Drain;

    use super::*;

    #[test]
    fn what_was_left_is_forgotten_when_nothing_of_it_is_in_flight() {
        let all = AllLeft::default();
        let in_flight = Arc::<InFlight>::default();
        let site: SiteId = "shop/production".parse().unwrap();
        all.add(Left {
            site: site.clone(),
            release: "aaaaaaaaaaaaaaaaaaaa".parse().unwrap(),
            live_since: Generation(3),
            in_flight: Arc::clone(&in_flight),
        });
        let now = Instant::now();
        in_flight.leave(&Drain::default(), now);
        assert!(all.sweep(now).is_empty(), "it may not have begun");
        let request = in_flight.begin(0);
        assert_eq!(all.load().requests, 1);
        assert!(all.sweep(now + SETTLE).is_empty());
        assert_eq!(all.of(&site).len(), 1);
        drop(request);
        assert_eq!(all.sweep(now + SETTLE), [site]);
        assert!(all.sites().is_empty());
    }
}
