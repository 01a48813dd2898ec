//! Addresses of the hosts that a build asks for: looked up a few at a time, and remembered for a short while.
//!
//! Package managers open dozens of connections to one host at once. A resolver that is asked for each by itself refuses some.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Lookups of one build at once; more wait, and mostly find the answer there.
const AT_ONCE: usize = 2;
/// How long an answer is good.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Names whose answers are kept.
const MAX_NAMES: usize = 256;

pub(super) struct Names {
    turns: Semaphore,
    known: Mutex<HashMap<String, Answer>>,
}

struct Answer {
    addresses: Vec<IpAddr>,
    since: Instant,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            turns: Semaphore::new(AT_ONCE),
            known: Mutex::default(),
        }
    }

    /// The addresses of `host`, a name or an address.
    pub(super) async fn find(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        if let Some(addresses) = self.remembered(host) {
            return Ok(addresses);
        }
        let found = lookup_host((host, 0)).await?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.map(|address| address.ip()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        self.remember(host, &addresses);
        Ok(addresses)
    }

    fn remembered(&self, host: &str) -> Option<Vec<IpAddr>> {
        let known = self.known();
        let answer = known.get(host)?;
        (answer.since.elapsed() < REMEMBERED).then(|| answer.addresses.clone())
    }

    fn remember(&self, host: &str, addresses: &[IpAddr]) {
        let mut known = self.known();
        known.retain(|_, answer| answer.since.elapsed() < REMEMBERED);
        if known.len() < MAX_NAMES {
            let answer = Answer {
                addresses: addresses.to_vec(),
                since: Instant::now(),
            };
            known.insert(host.to_owned(), answer);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_good_for_a_while_and_no_more_are_kept_than_have_room() {
        let names = Names::new();
        let here: IpAddr = "192.0.2.7".parse().unwrap();
        names.remember("shop.invalid", &[here]);
        // Nobody could look that one up.
        assert_eq!(names.find("shop.invalid").await.unwrap(), [here]);
        for number in 0..MAX_NAMES * 2 {
            names.remember(&format!("{number}.invalid"), &[here]);
        }
        assert_eq!(names.known().len(), MAX_NAMES);
        tokio::time::advance(REMEMBERED).await;
        assert!(names.remembered("shop.invalid").is_none());
        names.remember("other.invalid", &[here]);
        assert_eq!(names.known().len(), 1);
    }

    #[tokio::test]
    async fn addresses_are_found_as_they_are() {
        let names = Names::new();
        let found = names.find("127.0.0.1").await.unwrap();
        assert_eq!(found, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(names.find("shop.invalid").await.is_err());
        assert!(names.remembered("shop.invalid").is_none());
    }
}
