//! From a push to what follows: its event on JetStream, and a build whose own lines take no time.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use helix_routing::api::{BuildState, BuildView, HookView};
use helix_service::nats::{self, NatsConfig};
use helix_tests::api::Api;
use helix_tests::fleet::{Fleet, Options};
use helix_tests::folder::page;
use helix_tests::repository::{CREDENTIAL, Repository};
use helix_tests::wait;
use serde::Deserialize as _;
use serde_json::json;
use tokio::time::timeout;

use crate::figures::Figures;

/// Nothing here takes longer, or it is broken.
const LIMIT: Duration = Duration::from_secs(120);
/// What a build's end is looked for after.
const LOOK: Duration = Duration::from_millis(5);

/// A project at a GitLab of ours.
struct Site {
    hooks: Api,
    project: &'static str,
    secret: String,
}

impl Site {
    fn link(fleet: &Fleet, project: &'static str, url: &str, how: &[&str]) -> Self {
        let common = ["link", url, "--project", project, "--provider", "gitlab"];
        let linked = fleet.helix().run(common.iter().chain(how)).with(0);
        Self {
            hooks: fleet.api(),
            project,
            secret: linked.stdout.trim().to_owned(),
        }
    }

    /// What GitLab sends after a push.
    fn push(&self, before: &str, after: &str) -> anyhow::Result<HookView> {
        let body = json!({
            "project": { "path_with_namespace": format!("acme/{}", self.project) },
            "ref": "refs/heads/main", "before": before, "after": after,
        });
        let headers = [
            ("x-gitlab-event", "Push Hook"),
            ("x-gitlab-token", self.secret.as_str()),
        ];
        let target = format!("/v1/webhooks/in/gitlab/{}", self.project);
        let body = serde_json::to_vec(&body)?;
        let answer = self.hooks.send("POST", &target, &headers, &body)?;
        ensure!(answer.status < 300, "push: {}", answer.text());
        Ok(serde_json::from_slice(&answer.body)?)
    }
}

/// So many pushes, and so many builds after them.
pub(crate) fn run(pushes: usize, builds: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    events(&runtime, pushes)?;
    overhead(builds)
}

/// Webhook sent to event heard. Nobody builds: each push takes the place of the one before.
fn events(runtime: &tokio::runtime::Runtime, count: usize) -> anyhow::Result<()> {
    let fleet = Fleet::start(&Options::default());
    let site = Site::link(&fleet, "pushes", "https://code.example/acme/pushes", &[]);
    let config = fleet.config("origin");
    let config = NatsConfig::deserialize(config.get("nats").context("[nats]")?.clone())?;
    let mut heard = runtime.block_on(async {
        let client = nats::connect(&config, "bench").await?;
        let heard = client
            .subscribe("events.pushes.deployment.production.requested")
            .await?;
        client.flush().await?;
        anyhow::Ok(heard)
    })?;
    let mut before = "0".repeat(40);
    let mut samples = Vec::new();
    for number in 1..=count {
        let after = format!("{number:040x}");
        let start = Instant::now();
        site.push(&before, &after)?;
        let event = runtime.block_on(async { timeout(LIMIT, heard.next()).await })?;
        samples.push(start.elapsed());
        ensure!(event.is_some(), "the subscription ended");
        before = after;
    }
    println!(
        "push received to event on JetStream     {}",
        Figures::of(samples)
    );
    Ok(())
}

/// Webhook sent to build ended, where the project's own lines end at once: all of it is ours.
fn overhead(count: usize) -> anyhow::Result<()> {
    let fleet = Fleet::start(&Options {
        arguments: &["--workers", "1"],
        ..Options::default()
    });
    let repository = Repository::serve("acme/built");
    let credential = fleet.folder().join("credential");
    fs::write(&credential, CREDENTIAL)?;
    let credential = credential.to_str().context("a path of the test is text")?;
    let how = ["--install", "true", "--build", "true", "--output", "."];
    let how: Vec<&str> = how
        .into_iter()
        .chain(["--credential-file", credential])
        .collect();
    let site = Site::link(&fleet, "built", &repository.url, &how);
    let mut before = "0".repeat(40);
    let mut samples = Vec::new();
    for number in 0..count {
        let after = repository.push("main", &[("index.html", &page(&number.to_string()))]);
        let start = Instant::now();
        let build = site
            .push(&before, &after)?
            .build
            .context("a push of main is built")?;
        let ended = loop {
            let view: BuildView = fleet.api().get(&format!("/v1/builds/{build}"));
            if view.state.has_ended() {
                break view;
            }
            ensure!(start.elapsed() < LIMIT, "the build does not end");
            wait::pause(LOOK);
        };
        samples.push(start.elapsed());
        ensure!(ended.state == BuildState::Succeeded, "{ended:?}");
        before = after;
    }
    println!(
        "push to the end of an empty build       {}",
        Figures::of(samples)
    );
    Ok(())
}
