//! A client that never stops asking: one thread per edge, each on its own kept-alive connection.
//!
//! It checks what holds at every moment, whatever is deployed, taken back or killed meanwhile:
//!
//! - every answer is a 200 and complete, whatever is swapped meanwhile (invariants 5 and 11);
//! - the body is the one of the release that its header names (invariants 1 and 2);
//! - the generation of an edge never decreases (invariant 3), and names one release only;
//! - once a region is said to be settled, what is asked after that comes from that release (invariants 4 and 11).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use helix_routing::id::{Digest, RegionId, ReleaseId};

use crate::client::{Client, Request, Response};
use crate::fleet::{EdgeInfo, Fleet};
use crate::wait;

/// Between two requests to one edge. It leaves the machine's cores to what is being tested.
const PACE: Duration = Duration::from_millis(2);
/// Faults that are kept; the first say most.
const FAULTS_KEPT: usize = 20;

/// What the checker lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// Nothing: every request has to succeed.
    Nothing,
    /// A connection that fails, because an edge is being killed. Wrong answers never pass.
    LostConnections,
}

/// The running client.
#[derive(Debug)]
pub struct Checker {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Seen>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// What each region is settled on; none while it may be changing.
    settled: Mutex<BTreeMap<RegionId, ReleaseId>>,
    /// Release of each (region, generation).
    generations: Mutex<BTreeMap<(RegionId, u64), ReleaseId>>,
    faults: Mutex<Vec<String>>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: u64,
    lost: u64,
    bodies: BTreeSet<(ReleaseId, Digest)>,
}

/// What it has seen.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Answers.
    pub requests: u64,
    /// Connections that failed.
    pub lost: u64,
    /// Different releases.
    pub releases: usize,
}

impl Checker {
    /// Starts asking every edge for `/` of `host`.
    #[must_use]
    pub fn start(fleet: &Fleet, host: &str, tolerance: Tolerance) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = fleet
            .edges()
            .map(|(region, edge)| {
                let watch = Watch {
                    shared: shared.clone(),
                    region: region.clone(),
                    edge: edge.clone(),
                    host: host.to_owned(),
                    tolerance,
                    generation: 0,
                    seen: Seen::default(),
                };
                std::thread::spawn(move || watch.run())
            })
            .collect();
        Self { shared, threads }
    }

    /// From now on every edge of `region` has to serve `release`.
    ///
    /// # Panics
    /// When a watching thread has panicked.
    pub fn settled(&self, region: &RegionId, release: &ReleaseId) {
        self.shared
            .settled
            .lock()
            .unwrap()
            .insert(region.clone(), release.clone());
    }

    /// From now on every edge of every region has to serve `release`.
    pub fn settled_everywhere(&self, fleet: &Fleet, release: &ReleaseId) {
        for region in fleet.info.regions.keys() {
            self.settled(region, release);
        }
    }

    /// A command is about to change regions: either release may answer until [`Checker::settled`].
    ///
    /// # Panics
    /// When a watching thread has panicked.
    pub fn changing(&self) {
        self.shared.settled.lock().unwrap().clear();
    }

    /// Stops, and fails on anything it has seen that may not be. `known` is what each release's body has to be.
    ///
    /// # Panics
    /// Then, with the first faults.
    #[track_caller]
    pub fn finish(mut self, known: &[(ReleaseId, Digest)]) -> Summary {
        self.shared.stop.store(true, Ordering::Relaxed);
        let seen: Vec<Seen> = self
            .threads
            .drain(..)
            .map(|thread| thread.join().expect("a watch does not panic"))
            .collect();
        let bodies: BTreeSet<&(ReleaseId, Digest)> =
            seen.iter().flat_map(|seen| &seen.bodies).collect();
        let mut faults = self.shared.faults.lock().unwrap().clone();
        for body in &bodies {
            if !known.contains(body) {
                faults.push(format!(
                    "release {} answered with body {}, which is not its",
                    body.0, body.1
                ));
            }
        }
        assert!(
            faults.is_empty(),
            "the checker saw:\n  {}",
            faults.join("\n  ")
        );
        Summary {
            requests: seen.iter().map(|seen| seen.requests).sum(),
            lost: seen.iter().map(|seen| seen.lost).sum(),
            releases: bodies
                .iter()
                .map(|(release, _)| release)
                .collect::<BTreeSet<_>>()
                .len(),
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

struct Watch {
    shared: Arc<Shared>,
    region: RegionId,
    edge: EdgeInfo,
    host: String,
    tolerance: Tolerance,
    generation: u64,
    seen: Seen,
}

impl Watch {
    fn run(mut self) -> Seen {
        let mut client = Client::of(&self.edge.http);
        while !self.shared.stop.load(Ordering::Relaxed) {
            let before = self.settled();
            let answer = client.send(Request::get(&self.host, "/"));
            let after = self.settled();
            // Only what was settled from before the request until after it binds the answer.
            let binding = before.filter(|before| after.as_ref() == Some(before));
            match answer {
                Ok(response) => {
                    if let Err(fault) = self.judge(&response, binding.as_ref()) {
                        self.fault(&fault);
                    }
                }
                Err(error) if self.tolerance == Tolerance::Nothing => {
                    self.fault(&format!("no answer: {error}"))
                }
                Err(_) => self.seen.lost += 1,
            }
            wait::pause(PACE);
        }
        self.seen
    }

    fn judge(&mut self, response: &Response, settled: Option<&ReleaseId>) -> Result<(), String> {
        self.seen.requests += 1;
        if response.status != 200 {
            return Err(format!("status {}: {}", response.status, response.text()));
        }
        let named = |name: &str| response.header(name).ok_or_else(|| format!("no {name}"));
        let release: ReleaseId = named("x-helix-release")?
            .parse()
            .map_err(|error| format!("{error}"))?;
        let generation: u64 = named("x-helix-generation")?
            .parse()
            .map_err(|error| format!("generation: {error}"))?;
        for (name, expected) in [
            ("x-helix-region", self.region.as_str()),
            ("x-helix-edge", self.edge.edge.as_str()),
        ] {
            if named(name)? != expected {
                return Err(format!("{name} is {:?}", response.header(name)));
            }
        }
        self.seen
            .bodies
            .insert((release.clone(), response.digest()));
        self.judge_generation(generation, &release)?;
        match settled {
            Some(settled) if *settled != release => Err(format!(
                "served {release} (generation {generation}) after the region settled on {settled}"
            )),
            _ => Ok(()),
        }
    }

    fn judge_generation(&mut self, generation: u64, release: &ReleaseId) -> Result<(), String> {
        if generation < self.generation {
            return Err(format!(
                "generation went from {} back to {generation}",
                self.generation
            ));
        }
        self.generation = generation;
        let mut generations = self.shared.generations.lock().unwrap();
        let first = generations
            .entry((self.region.clone(), generation))
            .or_insert_with(|| release.clone());
        if first == release {
            Ok(())
        } else {
            Err(format!(
                "generation {generation} names both {first} and {release}"
            ))
        }
    }

    fn settled(&self) -> Option<ReleaseId> {
        self.shared
            .settled
            .lock()
            .unwrap()
            .get(&self.region)
            .cloned()
    }

    fn fault(&self, fault: &str) {
        let mut faults = self.shared.faults.lock().unwrap();
        if faults.len() < FAULTS_KEPT {
            faults.push(format!("{}: {fault}", self.edge.edge));
        }
    }
}
