//! Visitors who ask at a steady pace, whatever the answers take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use helix_routing::id::ReleaseId;
use helix_tests::client::{Client, Request};
use helix_tests::fleet::Fleet;
use helix_tests::wait;

/// Connections to each edge.
const EACH: u32 = 4;

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// When it was to be sent: what waits for an answer before it is waited for too.
    pub(super) at: Instant,
    pub(super) took: Duration,
}

/// They ask until they are stopped.
pub(super) struct Visitors {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<anyhow::Result<Vec<Sample>>>>,
}

/// A release and what its page says.
pub(super) type Releases = Arc<Vec<(ReleaseId, String)>>;

impl Visitors {
    pub(super) fn start(fleet: &Fleet, host: &str, rate: u32, releases: &Releases) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pace = Duration::from_secs(1) * EACH / rate;
        let mut threads = Vec::new();
        for (_, edge) in fleet.edges() {
            for number in 0..EACH {
                let (stop, releases) = (Arc::clone(&stop), Arc::clone(releases));
                let (url, host) = (edge.http.clone(), host.to_owned());
                threads.push(std::thread::spawn(move || {
                    wait::pause(pace * number / EACH);
                    ask(&url, &host, pace, &releases, &stop).with_context(|| format!("ask {url}"))
                }));
            }
        }
        Self { stop, threads }
    }

    /// Everything that was asked. Fails on any answer that was not right.
    pub(super) fn stop(self) -> anyhow::Result<Vec<Sample>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        for thread in self.threads {
            match thread.join() {
                Ok(some) => samples.extend(some?),
                Err(_) => bail!("a visitor panicked"),
            }
        }
        Ok(samples)
    }
}

fn ask(
    url: &str,
    host: &str,
    pace: Duration,
    releases: &[(ReleaseId, String)],
    stop: &AtomicBool,
) -> anyhow::Result<Vec<Sample>> {
    let mut client = Client::of(url);
    let mut samples = Vec::new();
    let mut at = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        wait::pause(at.saturating_duration_since(Instant::now()));
        let response = client.send(Request::get(host, "/"))?;
        samples.push(Sample {
            at,
            took: at.elapsed(),
        });
        at += pace;
        let named = response.header("x-helix-release").unwrap_or_default();
        let text = releases
            .iter()
            .find(|(release, _)| release.as_str() == named);
        if response.status != 200 || text.is_none_or(|(_, text)| text.as_bytes() != response.body) {
            bail!("{} of {named:?}: {}", response.status, response.text());
        }
    }
    Ok(samples)
}

/// Where an edge listens.
pub(super) fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let (_, address) = url
        .trim_end_matches('/')
        .rsplit_once('/')
        .context("a URL has slashes")?;
    Ok(address.replace("localhost", "127.0.0.1").parse()?)
}
