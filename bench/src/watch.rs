//! Asks every edge all the time, and notes when each first served a generation.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use helix_routing::id::{Digest, EdgeId, RegionId};
use helix_tests::client::{Client, Request};
use helix_tests::fleet::{EdgeInfo, Fleet};
use helix_tests::wait;

/// Between two requests to one edge: the error of each figure is at most this, and the cores stay free for the fleet.
const PACE: Duration = Duration::from_millis(1);

/// Body of each release, as it has to be.
pub(crate) type Bodies = Arc<Mutex<BTreeMap<String, Digest>>>;
/// When each edge was first seen to serve each generation.
pub(crate) type Sightings = BTreeMap<(RegionId, u64), BTreeMap<EdgeId, SystemTime>>;

/// The running watch.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<anyhow::Result<Seen>>>,
}

struct Seen {
    region: RegionId,
    edge: EdgeId,
    requests: u64,
    first: BTreeMap<u64, SystemTime>,
}

impl Watch {
    pub(crate) fn start(fleet: &Fleet, host: &str, bodies: &Bodies) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = fleet.edges().map(|(region, edge)| {
            let (region, edge, host) = (region.clone(), edge.clone(), host.to_owned());
            let (stop, bodies) = (stop.clone(), bodies.clone());
            std::thread::spawn(move || ask(region, &edge, &host, &stop, &bodies))
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    /// Stops; the number of requests and what was seen. Fails on any answer that was not right.
    pub(crate) fn finish(self) -> anyhow::Result<(u64, Sightings)> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut requests, mut sightings) = (0, Sightings::new());
        for thread in self.threads {
            let seen = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a watching thread panicked"))??;
            requests += seen.requests;
            for (generation, at) in seen.first {
                sightings
                    .entry((seen.region.clone(), generation))
                    .or_default()
                    .insert(seen.edge.clone(), at);
            }
        }
        Ok((requests, sightings))
    }
}

fn ask(
    region: RegionId,
    info: &EdgeInfo,
    host: &str,
    stop: &AtomicBool,
    bodies: &Bodies,
) -> anyhow::Result<Seen> {
    let mut client = Client::of(&info.http);
    let mut seen = Seen {
        region,
        edge: info.edge.clone(),
        requests: 0,
        first: BTreeMap::new(),
    };
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let response = client
            .send(Request::get(host, "/"))
            .with_context(|| format!("ask {}", info.edge))?;
        let at = SystemTime::now();
        seen.requests += 1;
        let release = response
            .header("x-helix-release")
            .unwrap_or_default()
            .to_owned();
        let generation: u64 = response
            .header("x-helix-generation")
            .unwrap_or_default()
            .parse()?;
        let expected = bodies.lock().unwrap().get(&release).cloned();
        if response.status != 200
            || expected.is_some_and(|digest| digest != response.digest())
            || generation < last
        {
            bail!(
                "{}: {} with generation {generation} after {last} and a body that is not {release}'s",
                info.edge,
                response.status
            );
        }
        if generation > last {
            seen.first.insert(generation, at);
            last = generation;
        }
        wait::pause(PACE);
    }
    Ok(seen)
}
