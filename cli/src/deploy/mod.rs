//! A folder becomes a release: looked through, hashed, uploaded where origin lacks it, then rolled out.
//!
//! Nothing is uploaded before the whole folder is known to be deployable.

mod rules;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use helix_build::local;
use helix_routing::api::{
    BuildSettings, DeploymentView, InFreeze, NewDeployment, NewFile, RolloutView,
};
use helix_routing::id::{Environment, ProjectName};
use helix_routing::rollout::RolloutPolicy;
use helix_routing::time::Timestamp;
use helix_service::{clock, random};
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::arguments::{Deploy, WayOut};
use crate::output::{self, Progress};
use crate::rollout::{self, Ended};
use helix_client::Origin;
use helix_client::retry::{MID_UPLOAD, patiently};
use helix_client::upload::built;
use helix_client::upload::folder::Folder;
use helix_client::upload::{self, Content, Sent, hash};

/// Twins by case that are named before the rest is only counted.
const NAMED_TWINS: usize = 5;

/// A deployment that origin took on.
#[derive(Debug)]
pub(crate) struct Deployed {
    /// What origin made of it.
    pub(crate) view: DeploymentView,
    files: usize,
    sent: Sent,
}

/// Where the files are.
#[derive(Debug)]
pub(crate) enum Files {
    /// In a folder, all of them.
    Folder(PathBuf),
    /// Where the build of a project left them.
    Built(PathBuf, Box<BuildSettings>),
}

impl Files {
    fn look_through(&self) -> anyhow::Result<Folder> {
        match self {
            Self::Folder(path) => Ok(built::look_through(path)?),
            Self::Built(path, settings) => {
                let plan = local::plan(path, settings)?;
                let built = local::built(path, &plan).context("find what `helix build` left")?;
                Ok(Folder {
                    files: built.files,
                    skipped: Vec::new(),
                })
            }
        }
    }
}

/// How a folder is to be deployed, beside where to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// Although the release is quarantined.
    pub(crate) lift_quarantine: bool,
    /// Held regions are left alone.
    pub(crate) automatic: bool,
    /// In which stages.
    pub(crate) rollout: RolloutPolicy,
    /// Not live before.
    pub(crate) at: Option<Timestamp>,
    /// In a freeze.
    pub(crate) in_freeze: InFreeze,
    /// The number of its push.
    pub(crate) push_seq: Option<u64>,
    /// Without what needs a runtime.
    pub(crate) static_only: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    deployment: &'a DeploymentView,
    files: usize,
    uploaded_files: u64,
    uploaded_bytes: u64,
    elapsed_ms: u128,
    outcome: &'static str,
    exit_code: u8,
    result: Option<&'a RolloutView>,
}

/// `helix deploy`.
pub(crate) async fn run(
    origin: &Origin,
    arguments: Deploy,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let Deploy {
        folder,
        prebuilt,
        settings,
        site,
        detach,
        lift_quarantine,
        automatic,
        static_only,
        way_out,
    } = arguments;
    let wish = Wish {
        lift_quarantine,
        automatic,
        rollout: policy(&way_out),
        at: way_out.at.map(|at| at.from(clock::now())),
        in_freeze: in_freeze(&way_out),
        push_seq: way_out.push_seq,
        static_only,
    };
    let from = if prebuilt {
        Files::Built(folder, Box::new(settings.into()))
    } else {
        Files::Folder(folder)
    };
    let deployed = deploy(origin, from, &site.project.project, site.environment, wish).await?;
    let ended = if detach {
        Ended::Left
    } else {
        rollout::follow(origin, &deployed.view.rollout).await?
    };
    finish(&deployed, &ended, start.elapsed(), detach, json)
}

fn in_freeze(typed: &WayOut) -> InFreeze {
    match &typed.override_freeze {
        Some(reason) => InFreeze::Override(reason.clone()),
        None if typed.wait_freeze => InFreeze::Wait,
        None => InFreeze::Refuse,
    }
}

fn policy(typed: &WayOut) -> RolloutPolicy {
    let steps = (typed.no_steps || !typed.steps.is_empty()).then(|| typed.steps.clone());
    RolloutPolicy {
        order: typed.order.clone(),
        parallel: typed.parallel,
        soak: typed.soak,
        approve: typed.approve.clone(),
        steps,
        hours: None,
    }
}

/// Makes a release of what is there and starts to roll it out.
pub(crate) async fn deploy(
    origin: &Origin,
    from: Files,
    project: &ProjectName,
    environment: Environment,
    wish: Wish,
) -> anyhow::Result<Deployed> {
    let (files, contents) = read(from, wish.static_only).await?;
    let count = files.len();
    let sent = upload::send(origin, project, contents, |total| {
        Progress::bytes("upload", total)
    })
    .await?;
    output::say(&format!(
        "uploaded {} of {count} files, {}",
        sent.files,
        output::size(sent.bytes)
    ));

    let deployment = NewDeployment {
        environment,
        files,
        lift_quarantine: wish.lift_quarantine,
        automatic: wish.automatic,
        rollout: wish.rollout,
        at: wish.at,
        in_freeze: wish.in_freeze,
        push_seq: wish.push_seq,
        static_only: wish.static_only,
    };
    let (path, key) = (
        ["projects", project.as_str(), "deployments"],
        random::hex16(),
    );
    let view: DeploymentView = patiently(MID_UPLOAD, async || {
        origin.create_once(&path, &key, &deployment).await
    })
    .await?;
    output::say(&format!(
        "{} is release {} for {}",
        view.label, view.release, view.site
    ));
    if !view.held.is_empty() {
        let held: Vec<&str> = view.held.iter().map(|region| region.as_str()).collect();
        output::say(&format!("lifts the hold on {}", held.join(", ")));
    }
    for skipped in &view.skipped {
        output::say(&format!(
            "leaves {} alone, which is held: {}",
            skipped.region, skipped.reason
        ));
    }
    Ok(Deployed {
        view,
        files: count,
        sent,
    })
}

/// The files as origin is told of them, and their distinct contents.
async fn read(from: Files, static_only: bool) -> anyhow::Result<(Vec<NewFile>, Vec<Content>)> {
    let (folder, digests) = spawn_blocking(move || {
        let folder = from.look_through()?;
        rules::check(&folder.files, static_only)?;
        let progress = Progress::bytes("hash", folder.bytes());
        let digests = hash::hash_all(&folder.files, &progress)?;
        Ok::<_, anyhow::Error>((folder, digests))
    })
    .await??;
    remark(&folder);
    output::say(&format!(
        "hashed {} files, {}",
        folder.files.len(),
        output::size(folder.bytes())
    ));

    Ok(upload::contents(folder.files, digests))
}

/// Says what is odd about a folder, though it can be deployed.
fn remark(folder: &Folder) {
    if !folder.skipped.is_empty() {
        output::say(&format!("skipped {}", folder.skipped.join(", ")));
    }
    let twins = folder.case_twins();
    for (one, other) in twins.iter().take(NAMED_TWINS) {
        output::say(&format!(
            "note: {one} and {other} differ in case alone; each is served under its exact name"
        ));
    }
    if let Some(more @ 1..) = twins.len().checked_sub(NAMED_TWINS) {
        output::say(&format!("note: and {more} more such pairs"));
    }
}

fn finish(
    deployed: &Deployed,
    ended: &Ended,
    elapsed: Duration,
    detach: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let Deployed { view, files, sent } = deployed;
    // A deployment that was only to be started has done its part.
    let exit_code = if detach { 0 } else { ended.exit_code() };
    output::say(&format!(
        "{} {} in {}",
        view.site,
        ended.name(),
        output::seconds(elapsed)
    ));
    if exit_code == 0 {
        output::say(&format!("this release stays at {}", view.release_url));
    }
    if json {
        output::print_json(&Summary {
            deployment: view,
            files: *files,
            uploaded_files: sent.files,
            uploaded_bytes: sent.bytes,
            elapsed_ms: elapsed.as_millis(),
            outcome: ended.name(),
            exit_code,
            result: ended.view(),
        })?;
    } else if exit_code == 0 {
        output::print(&view.url);
    }
    Ok(ExitCode::from(exit_code))
}
