//! What a second serving thread costs: CPU time per request of one and of two, in the same run.
//!
//! The one has the core of servers under test, the two may use every core; the load has the other core in both
//! cases, so that the two share it with the load. What they share besides is what is measured.

use anyhow::Context as _;

use super::case::Case;
use super::files::Files;
use super::{helix, load, nginx, process};

/// Measures both, alternating, and prints the ratio of their medians.
pub(crate) fn run(runs: usize, seconds: u64) -> anyhow::Result<()> {
    let files = Files::make().context("make the files to serve")?;
    let upstream = nginx::upstream(&files).context("start the upstream")?;
    let proxied = upstream.http.context("the upstream listens")?;
    let case = Case::Static1k;
    let servers = [
        helix::start(&files, proxied)?,
        helix::start_with_two_threads(&files, proxied)?,
    ];
    let mut samples = [Vec::new(), Vec::new()];
    for server in &servers {
        load::run(case, server, std::time::Duration::from_secs(1))?;
    }
    for _ in 0..runs {
        for (server, samples) in servers.iter().zip(&mut samples) {
            let sample = process::measure(case, server, &upstream, seconds)?;
            println!(
                "{:<24} {:6.2} us of CPU per request, {:.0} requests/s, {:.2} cores used by others",
                server.setup, sample.cpu_us_per_request, sample.requests_per_s, sample.foreign
            );
            samples.push(sample.cpu_us_per_request);
        }
    }
    let [one, two] = samples.map(median);
    println!(
        "{}: {one:.2} us with one thread, {two:.2} us with two: x {:.3} (goal <= 1.11)",
        case.name(),
        two / one
    );
    Ok(())
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
