//! `helix rollback`: takes regions back, or shows what that would change.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use helix_routing::api::{NewRollback, RollbackView, RolloutView};
use helix_service::random;
use serde::Serialize;

use super::table::table;
use super::{joined, or_none};
use crate::arguments::Rollback;
use crate::origin::Origin;
use crate::origin::retry::{FIRST_CONTACT, patiently};
use crate::output;
use crate::rollout::{self, Ended};

/// What `--json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    rollback: &'a RollbackView,
    elapsed_ms: u128,
    outcome: &'static str,
    exit_code: u8,
    result: Option<&'a RolloutView>,
}

pub(crate) async fn run(
    origin: &Origin,
    arguments: Rollback,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let Rollback {
        release,
        site,
        regions,
        all: _,
        plan,
        reason,
    } = arguments;
    let wanted = NewRollback {
        environment: site.environment,
        release,
        regions: (!regions.is_empty()).then_some(regions),
        reason,
        plan,
    };
    let project = site.project.project;
    let (path, key) = (["projects", project.as_str(), "rollbacks"], random::hex16());
    let view: RollbackView = patiently(FIRST_CONTACT, async || {
        origin.create_once(&path, &key, &wanted).await
    })
    .await?;

    output::say(&describe(&view));
    let Some(rollout) = &view.rollout else {
        if json {
            output::print_json(&view)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let ended = rollout::follow(origin, rollout).await?;
    finish(&view, &ended, start.elapsed(), json)
}

fn finish(
    view: &RollbackView,
    ended: &Ended,
    elapsed: Duration,
    json: bool,
) -> anyhow::Result<ExitCode> {
    output::say(&format!(
        "rollback {} in {}",
        ended.name(),
        output::seconds(elapsed)
    ));
    if json {
        output::print_json(&Summary {
            rollback: view,
            elapsed_ms: elapsed.as_millis(),
            outcome: ended.name(),
            exit_code: ended.exit_code(),
            result: ended.view(),
        })?;
    }
    Ok(ExitCode::from(ended.exit_code()))
}

fn describe(view: &RollbackView) -> String {
    let rows: Vec<_> = view
        .regions
        .iter()
        .map(|step| {
            [
                step.region.to_string(),
                or_none(step.from.as_ref()),
                step.to.to_string(),
                format!("{} files differ", step.files_changed),
            ]
        })
        .collect();
    format!(
        "{}\nhosts: {}",
        table(["REGION", "FROM", "TO", ""], &rows),
        joined(&view.hosts)
    )
}
