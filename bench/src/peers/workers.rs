//! What a second serving thread costs: CPU time per request of one and of two, in the same run.
//!
//! The one has the core of servers under test, the two may use every core; the load has the other core in every case, so that
//! two threads share it with the load and find less to do at each wake-up, whatever they share with one another. That part is told apart by a
//! pair of servers of one thread each, one on either core, under the same load: they share nothing at all.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::case::Case;
use super::files::Files;
use super::process::{LOAD_CORE, SERVER_CORE, Server, used};
use super::{helix, load, nginx};

/// The load: two generators, so that a pair of servers has one each.
const LOADS: usize = 2;

/// One way to serve, and who serves each half of the load.
struct Way<'a> {
    name: &'static str,
    halves: [&'a Server; LOADS],
}

/// Measures all, alternating, and prints the ratios of their medians.
pub(crate) fn run(runs: usize, seconds: u64) -> anyhow::Result<()> {
    let files = Files::make().context("make the files to serve")?;
    let upstream = nginx::upstream(&files).context("start the upstream")?;
    let proxied = upstream.http.context("the upstream listens")?;
    let one = helix::start_on(SERVER_CORE, &files, proxied)?;
    let other = helix::start_on(LOAD_CORE, &files, proxied)?;
    let two = helix::start_with_two_threads(&files, proxied)?;
    let ways = [
        ("one thread", [&one, &one]),
        ("two threads", [&two, &two]),
        ("two servers of one thread", [&one, &other]),
    ];
    let ways = ways.map(|(name, halves)| Way { name, halves });
    let mut samples = [const { Vec::new() }; 3];
    for way in &ways {
        way.cpu_us_per_request(Duration::from_secs(1))?;
    }
    for _ in 0..runs {
        for (way, samples) in ways.iter().zip(&mut samples) {
            let cost = way.cpu_us_per_request(Duration::from_secs(seconds))?;
            println!("{:<28} {cost:6.2} us of CPU per request", way.name);
            samples.push(cost);
        }
    }
    let [one, two, pair] = samples.map(median);
    println!(
        "{}: {one:.2} us with one thread, {two:.2} us with two: x {:.3} (goal <= 1.11); a pair of servers {pair:.2} us, two threads to it x {:.3}",
        Case::Static1k.name(),
        two / one,
        two / pair,
    );
    Ok(())
}

impl Way<'_> {
    /// CPU time of its servers for each request of both halves of the load.
    fn cpu_us_per_request(&self, time: Duration) -> anyhow::Result<f64> {
        let before = self.used()?;
        let path = Case::Static1k.path();
        let urls = self.halves.map(|server| {
            let address = server.http.context("no plain port")?;
            Ok::<_, anyhow::Error>(format!("http://{address}{path}"))
        });
        let loads = thread::scope(|scope| {
            let runs = urls.map(|url| scope.spawn(move || load::wrk(&url?, time)));
            runs.map(|run| run.join().expect("a load ends"))
        });
        let mut requests = 0;
        for load in loads {
            let load = load?;
            anyhow::ensure!(load.errors == 0, "{} requests failed", load.errors);
            requests += load.requests;
        }
        anyhow::ensure!(requests > 0, "no request was answered");
        Ok((self.used()? - before) * 1e6 / requests as f64)
    }

    /// CPU seconds of its servers.
    fn used(&self) -> anyhow::Result<f64> {
        let mut pids = Vec::new();
        for server in self.halves {
            pids.push(server.pid.context("it runs")?);
        }
        pids.dedup();
        Ok(pids.into_iter().map(used).sum())
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
