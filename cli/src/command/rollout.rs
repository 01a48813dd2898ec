//! `helix rollout`: rollouts are listed, followed, and told what people want of them.

use std::process::ExitCode;

use helix_routing::api::{Approval, ControlReason, RolloutView, Status};
use helix_routing::id::{Environment, ProjectName, RolloutId, SiteId};
use helix_service::random;
use serde::Serialize;

use super::NONE;
use super::table::{moment, table};
use crate::arguments::{Rollout, Which, WhichRollout};
use crate::output;
use crate::rollout::{self, outcome_name, stages};
use helix_client::Origin;
use helix_client::retry::{FIRST_CONTACT, patiently};

pub(crate) async fn run(
    origin: &Origin,
    arguments: Rollout,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match arguments {
        Rollout::List {
            project,
            environment,
        } => list(origin, project, environment, json).await,
        Rollout::Watch(which) => {
            let rollout = find(origin, which, true).await?;
            follow(origin, &rollout, json).await
        }
        Rollout::Pause { which, reason } => {
            let rollout = find(origin, which, false).await?;
            let view = ask(origin, &rollout, "pause", &ControlReason { reason }).await?;
            show(&view, "paused", json)
        }
        Rollout::Resume(which) => {
            let rollout = find(origin, which, false).await?;
            let view = ask(origin, &rollout, "resume", &()).await?;
            show(&view, "resumed", json)
        }
        Rollout::Approve { which, stage } => {
            let rollout = find(origin, which, false).await?;
            let view = ask(origin, &rollout, "approve", &Approval { stage }).await?;
            show(&view, &format!("stage {stage} approved"), json)
        }
        Rollout::Abort {
            which,
            reason,
            detach,
        } => {
            let rollout = find(origin, which, false).await?;
            let view = ask(origin, &rollout, "abort", &ControlReason { reason }).await?;
            if detach {
                return show(&view, "aborted", json);
            }
            // What was asked for is done once nothing of it is live.
            let ended = rollout::follow(origin, &rollout).await?;
            tell(&rollout, &ended, json)
        }
    }
}

async fn list(
    origin: &Origin,
    project: Option<ProjectName>,
    environment: Environment,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let views = listed(origin, project, environment).await?;
    if json {
        output::print_json(&views)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = views.iter().map(row).collect();
    if rows.is_empty() {
        output::print("no rollouts yet");
    } else {
        let head = [
            "ROLLOUT",
            "SITE",
            "KIND",
            "BY",
            "STARTED (UTC)",
            "STATE",
            "NOTE",
        ];
        output::print(&table(head, &rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(view: &RolloutView) -> [String; 7] {
    [
        view.rollout.to_string(),
        view.site.to_string(),
        view.kind.clone(),
        view.by.clone(),
        moment(view.started),
        view.outcome.map_or("running", outcome_name).to_owned(),
        stages::line(view).unwrap_or_default(),
    ]
}

async fn listed(
    origin: &Origin,
    project: Option<ProjectName>,
    environment: Environment,
) -> anyhow::Result<Vec<RolloutView>> {
    Ok(match project {
        Some(project) => {
            let query = [
                ("project", Some(project.to_string())),
                ("environment", Some(environment.to_string())),
            ];
            origin.search(&["rollouts"], &query).await?
        }
        None => origin.read(&["rollouts"]).await?,
    })
}

/// The rollout that is meant: of a project the one that runs, or with `also_ended` the newest.
async fn find(origin: &Origin, which: WhichRollout, also_ended: bool) -> anyhow::Result<RolloutId> {
    let WhichRollout { which, environment } = which;
    let project = match which {
        Which::Rollout(rollout) => return Ok(rollout),
        Which::Project(project) => project,
    };
    let site = SiteId {
        project: project.clone(),
        environment,
    };
    let status: Status = origin.read(&["status"]).await?;
    let running = status.sites.into_iter().find(|known| known.site == site);
    if let Some(rollout) = running.and_then(|site| site.rollout) {
        return Ok(rollout);
    }
    let mut ended = listed(origin, Some(project), environment).await?;
    if also_ended && !ended.is_empty() {
        return Ok(ended.swap_remove(0).rollout);
    }
    anyhow::bail!("no rollout of {site} runs; `helix rollout list` shows those that did")
}

async fn ask(
    origin: &Origin,
    rollout: &RolloutId,
    what: &str,
    body: &impl Serialize,
) -> anyhow::Result<RolloutView> {
    let (path, key) = (["rollouts", rollout.as_str(), what], random::hex16());
    let view = patiently(FIRST_CONTACT, async || {
        origin.create_once(&path, &key, body).await
    });
    Ok(view.await?)
}

fn show(view: &RolloutView, done: &str, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::print_json(view)?;
    } else {
        let line = stages::line(view).unwrap_or_else(|| NONE.to_owned());
        output::say(&format!("rollout {}: {done}\n{line}", view.rollout));
    }
    Ok(ExitCode::SUCCESS)
}

async fn follow(origin: &Origin, rollout: &RolloutId, json: bool) -> anyhow::Result<ExitCode> {
    let ended = rollout::follow(origin, rollout).await?;
    tell(rollout, &ended, json)
}

fn tell(rollout: &RolloutId, ended: &rollout::Ended, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::print_json(&ended.view())?;
    } else {
        output::say(&format!("rollout {rollout} {}", ended.name()));
    }
    Ok(ExitCode::from(ended.exit_code()))
}
