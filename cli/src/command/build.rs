//! `helix build`: what a worker does with a repository, here and in place.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use helix_build::egress::EgressConfig;
use helix_build::local::{self, Sandboxed};
use helix_build::log::Journal;
use helix_build::log::mask::Mask;
use serde::Serialize;

use crate::arguments::Build;
use crate::output;

/// Lines are for whoever waits for them: as many as there are.
const LOG_BYTES: u64 = u64::MAX;
/// Lines that are printed at once.
const LINES: usize = 1_000;
/// The host that everybody's packages come from.
const REGISTRY: &str = "registry.npmjs.org";

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    plan: helix_build::detect::PlanView,
    output: Option<String>,
    files: Option<usize>,
    bytes: Option<u64>,
}

/// Runs the command.
pub(crate) async fn run(arguments: Build, json: bool) -> anyhow::Result<ExitCode> {
    let plan = local::plan(&arguments.folder, &arguments.settings.clone().into())?;
    output::say(&plan.summary());
    for note in &plan.notes {
        output::say(&format!("note: {note}"));
    }
    if arguments.plan {
        if json {
            output::print_json(&plan.view())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let sandbox = arguments
        .sandbox
        .then(|| sandboxed(&arguments))
        .transpose()?;
    let journal = Journal::new(Mask::new([]), LOG_BYTES);
    let built = tokio::select! {
        built = Box::pin(local::build(&arguments.folder, &plan, sandbox.as_ref(), &journal)) => built,
        () = print(&journal) => unreachable!("lines are printed for ever"),
    };
    show(&journal);
    let built = built?;
    let folder = arguments.folder.join(&plan.root).join(&built.folder);
    for note in &built.notes {
        output::say(&format!("note: {note}"));
    }
    output::say(&format!(
        "{} files, {}",
        built.files.len(),
        output::size(built.bytes())
    ));
    if json {
        output::print_json(&Summary {
            plan: plan.view(),
            output: Some(folder.display().to_string()),
            files: Some(built.files.len()),
            bytes: Some(built.bytes()),
        })?;
    } else {
        output::print(&folder.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

fn sandboxed(arguments: &Build) -> anyhow::Result<Sandboxed> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = cache
        .or_else(home)
        .context("find a folder for programs: set HOME or XDG_CACHE_HOME")?;
    let hosts = [REGISTRY.to_owned()]
        .into_iter()
        .chain(arguments.hosts.clone());
    Ok(Sandboxed {
        cache: cache.join("helix/build"),
        hosts: hosts.collect(),
        egress: EgressConfig {
            allow: arguments.networks.clone(),
            ..EgressConfig::default()
        },
    })
}

async fn print(journal: &Journal) {
    loop {
        journal.more().await;
        show(journal);
    }
}

fn show(journal: &Journal) {
    loop {
        let lines = journal.waiting(LINES);
        let Some(last) = lines.last().map(|line| line.seq) else {
            return;
        };
        for line in lines {
            output::say(&line.text);
        }
        journal.arrived(last);
    }
}
