//! Addresses of the hosts that a build asks for: looked up once for all who ask at a time, and remembered for a short while.
//!
//! Package managers open dozens of connections to one host at once. A resolver that is asked for each by itself refuses some.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::net::lookup_host;

/// How long an answer is good.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Names whose answers are kept.
const MAX_NAMES: u64 = 256;

pub(super) struct Names(Cache<String, Arc<[IpAddr]>>);

impl Names {
    pub(super) fn new() -> Self {
        let known = Cache::builder()
            .max_capacity(MAX_NAMES)
            .time_to_live(REMEMBERED);
        Self(known.build())
    }

    /// The addresses of `host`, a name or an address. What was not found is looked up again.
    pub(super) async fn find(&self, host: &str) -> Result<Arc<[IpAddr]>, Arc<io::Error>> {
        self.find_by(host, lookup(host)).await
    }

    async fn find_by(
        &self,
        host: &str,
        lookup: impl Future<Output = io::Result<Arc<[IpAddr]>>>,
    ) -> Result<Arc<[IpAddr]>, Arc<io::Error>> {
        self.0.try_get_with_by_ref(host, lookup).await
    }
}

async fn lookup(host: &str) -> io::Result<Arc<[IpAddr]>> {
    let found = lookup_host((host, 0)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn fifty_who_ask_at_once_are_one_lookup() {
        let names = Names::new();
        let lookups = AtomicUsize::new(0);
        let here: IpAddr = "192.0.2.7".parse().unwrap();
        let ask = || {
            names.find_by("shop.invalid", async {
                lookups.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(Arc::from([here]))
            })
        };
        let found = futures_util::future::join_all((0..50).map(|_| ask())).await;
        assert!(
            found
                .iter()
                .all(|found| *found.as_ref().unwrap().as_ref() == [here])
        );
        assert_eq!(lookups.into_inner(), 1);
        // Nobody could look that one up.
        assert_eq!(names.find("shop.invalid").await.unwrap().as_ref(), [here]);
    }

    #[tokio::test]
    async fn what_was_not_found_is_looked_up_again() {
        let names = Names::new();
        let away = async { Err(io::ErrorKind::TimedOut.into()) };
        assert!(names.find_by("127.0.0.1", away).await.is_err());
        let found = names.find("127.0.0.1").await.unwrap();
        assert_eq!(found.as_ref(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    }
}
