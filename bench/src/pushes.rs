//! From a push to what follows: its event on JetStream, a build whose own lines take no time, and one that finds its packages there.

use std::fs;
use std::process::Command;
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
/// As small as a project with a bundler can be.
const VITE: &str = r#"{"name": "shop", "private": true, "type": "module", "scripts": {"build": "vite build"}, "devDependencies": {"vite": "7.1.12"}, "engines": {"node": "22"}}"#;
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
    let built = Built::start()?;
    let site = built.overhead(builds)?;
    built.again(site)
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

/// A fleet with a worker, and a repository that it builds.
struct Built {
    fleet: Fleet,
    repository: Repository,
}

impl Built {
    fn start() -> anyhow::Result<Self> {
        let fleet = Fleet::start(&Options {
            arguments: &["--workers", "1"],
            ..Options::default()
        });
        fs::write(fleet.folder().join("credential"), CREDENTIAL)?;
        let repository = Repository::serve("acme/built");
        Ok(Self { fleet, repository })
    }

    fn link(&self, how: &[&str]) -> anyhow::Result<Site> {
        let credential = self.fleet.folder().join("credential");
        let credential = credential.to_str().context("a path of the test is text")?;
        let how: Vec<&str> = how
            .iter()
            .copied()
            .chain(["--credential-file", credential])
            .collect();
        Ok(Site::link(&self.fleet, "built", &self.repository.url, &how))
    }

    /// A push to the end of its build.
    fn build(&self, site: &Site, before: &str, after: &str) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let hook = site.push(before, after)?;
        let build = hook.build.context("a push of main is built")?;
        let ended = loop {
            let view: BuildView = self.fleet.api().get(&format!("/v1/builds/{build}"));
            if view.state.has_ended() {
                break view;
            }
            ensure!(start.elapsed() < LIMIT, "the build does not end");
            wait::pause(LOOK);
        };
        let took = start.elapsed();
        ensure!(ended.state == BuildState::Succeeded, "{ended:?}");
        Ok(took)
    }

    /// The project's own lines end at once: all of it is ours.
    fn overhead(&self, count: usize) -> anyhow::Result<Site> {
        let site = self.link(&["--install", "true", "--build", "true", "--output", "."])?;
        let mut before = "0".repeat(40);
        let mut samples = Vec::new();
        for number in 0..count {
            let page = page(&number.to_string());
            let after = self.repository.push("main", &[("index.html", &page)]);
            samples.push(self.build(&site, &before, &after)?);
            before = after;
        }
        println!(
            "push to the end of an empty build       {}",
            Figures::of(samples)
        );
        Ok(site)
    }

    /// A project of Vite from the public registry, and once more with one file changed: programs and packages are there then.
    fn again(&self, site: Site) -> anyhow::Result<()> {
        // Linked anew without lines of ours; the secret stays, and is shown once.
        let _ = self.link(&[])?;
        let clone = self.repository.clone_folder();
        fs::write(clone.join("package.json"), VITE)?;
        let locked = Command::new("npm")
            .args(["install", "--package-lock-only", "--no-audit", "--no-fund"])
            .current_dir(&clone)
            .output();
        if !locked.is_ok_and(|output| output.status.success()) {
            println!(
                "second build of a Vite project          not measured: npm does not reach its registry"
            );
            return Ok(());
        }
        let script = (
            "index.html",
            "<script type=\"module\" src=\"/main.js\"></script>",
        );
        let one = self
            .repository
            .push("main", &[script, ("main.js", "document.title = 'one';")]);
        let first = self.build(&site, &"0".repeat(40), &one)?;
        let two = self
            .repository
            .push("main", &[("main.js", "document.title = 'two';")]);
        let second = self.build(&site, &one, &two)?;
        println!(
            "second build of a Vite project          {:.1} s after {:.1} s: {:.0} %",
            second.as_secs_f64(),
            first.as_secs_f64(),
            100.0 * second.as_secs_f64() / first.as_secs_f64()
        );
        Ok(())
    }
}
