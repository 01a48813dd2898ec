//! Rollbacks under load: every edge answers two thousand requests a second and holds fifty WebSockets, while both regions
//! go back and forth between two releases.
//!
//! Before each rollback the fleet is left alone for as long as a rollback takes, and the requests of both times are
//! compared: whatever else the machine does falls on both alike.

mod sockets;
mod visitors;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use helix_routing::api::{NewRollback, RollbackView};
use helix_routing::id::{Environment, ReleaseId};
use helix_tests::api::Api;
use helix_tests::fleet::Fleet;
use helix_tests::folder::Folder;
use helix_tests::wait;
use serde_json::json;

use self::sockets::{Echo, Sockets};
use self::visitors::{Sample, Visitors};
use crate::figures::Figures;

/// How long nothing happens before each rollback.
const CALM: Duration = Duration::from_millis(150);
/// A rollback that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(60);
const PROJECT: &str = "loaded";

/// How much.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Options {
    /// How many rollbacks.
    #[arg(long, default_value_t = 1_000)]
    count: usize,
    /// Requests a second, of each edge.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// WebSockets, of all edges.
    #[arg(long, default_value_t = 200)]
    sockets: usize,
}

pub(crate) fn run(fleet: &Fleet, options: Options) -> anyhow::Result<()> {
    let echo = Echo::start()?;
    let mut releases = Vec::new();
    for text in ["there", "back"] {
        releases.push((fleet.deploy(PROJECT, &page(text, &echo)), text.to_owned()));
    }
    let releases = Arc::new(releases);
    let host = fleet.host(PROJECT);
    let sockets = Sockets::open(fleet, &host, options.sockets)?;
    let visitors = Visitors::start(fleet, &host, options.rate, &releases);
    wait::pause(Duration::from_secs(2));
    let mut swaps = Vec::new();
    for number in 0..options.count {
        wait::pause(CALM);
        let begun = Instant::now();
        go_to(
            &fleet.api(),
            &releases[number % 2].0,
            &releases[(number + 1) % 2].0,
        )
        .with_context(|| format!("rollback {number}"))?;
        swaps.push((begun, Instant::now()));
    }
    let samples = visitors.stop()?;
    let (moved, echoes) = sockets.close()?;
    report(&samples, &swaps);
    println!(
        "WebSockets meanwhile                    {} open, {echoes} echoes, {moved} told to come again, 0 cut",
        options.sockets
    );
    Ok(())
}

fn page(text: &str, echo: &Echo) -> Folder {
    let toml = format!(
        "[upstreams.echo]\naddresses = [\"http://{}\"]\n\n[[forward]]\npath = \"/ws\"\nupstream = \"echo\"\n",
        echo.address
    );
    Folder::empty()
        .with("index.html", text.as_bytes())
        .with("helix.toml", toml.as_bytes())
}

/// Every region goes to `release`, and `other`, which that puts into quarantine, may come again.
fn go_to(api: &Api, release: &ReleaseId, other: &ReleaseId) -> anyhow::Result<()> {
    let wanted = NewRollback {
        environment: Environment::Production,
        release: Some(release.clone()),
        regions: None,
        reason: None,
        plan: false,
    };
    let view: RollbackView = api.create(&format!("/v1/projects/{PROJECT}/rollbacks"), &wanted);
    let rollout = view.rollout.context("it is no plan")?;
    let until = Instant::now() + LIMIT;
    while api.rollout(&rollout).outcome.is_none() {
        ensure!(Instant::now() < until, "{rollout} does not end");
        wait::pause(Duration::from_millis(10));
    }
    let lifted = api.post(
        &format!("/v1/releases/{other}/unquarantine"),
        &json!({ "reason": "it was only measured" }),
    );
    ensure!(
        lifted.status < 300,
        "lift the quarantine: {}",
        lifted.text()
    );
    Ok(())
}

fn report(samples: &[Sample], swaps: &[(Instant, Instant)]) {
    let (mut calm, mut swapping) = (Vec::new(), Vec::new());
    for sample in samples {
        let next = swaps.partition_point(|(_, ended)| *ended <= sample.at);
        match swaps.get(next) {
            Some((begun, _)) if *begun <= sample.at => swapping.push(sample.took),
            Some((begun, _)) if *begun - sample.at <= CALM => calm.push(sample.took),
            Some(_) | None => {}
        }
    }
    println!(
        "rollback of both regions, to ended      {}",
        Figures::of(swaps.iter().map(|(begun, ended)| *ended - *begun).collect())
    );
    let (calm, swapping) = (Figures::of(calm), Figures::of(swapping));
    println!("requests, with nothing else             {}", calm.fine());
    println!(
        "requests, while regions go back         {}",
        swapping.fine()
    );
    let ratio = |per_thousand| {
        swapping.quantile(per_thousand).as_secs_f64() / calm.quantile(per_thousand).as_secs_f64()
    };
    println!(
        "ratio                                   p50 {:.2}  p99 {:.2}  p99.9 {:.2}; {} requests, 0 failed, 0 of another release",
        ratio(500),
        ratio(990),
        ratio(999),
        samples.len()
    );
}
