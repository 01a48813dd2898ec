//! `helix rollback`: takes regions back, or shows what that would change.

use std::process::ExitCode;
use std::time::Instant;

use helix_routing::api::{NewRollback, RollbackStep, RollbackView};
use helix_routing::operators::PreemptedRollout;
use helix_service::random;

use super::table::table;
use super::{joined, or_none};
use crate::arguments::Rollback;
use crate::output;
use crate::rollout;
use helix_client::Origin;
use helix_client::retry::{FIRST_CONTACT, patiently};

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

    output::say(&describe(&view, plan));
    let Some(rollout) = &view.rollout else {
        if json {
            output::print_json(&view)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let ended = rollout::follow(origin, rollout).await?;
    rollout::finish("rollback", &view, &ended, start.elapsed(), json)
}

fn describe(view: &RollbackView, is_plan: bool) -> String {
    let rows: Vec<_> = view
        .regions
        .iter()
        .map(|step| {
            [
                step.region.to_string(),
                or_none(step.from.as_ref()),
                step.to.to_string(),
                format!("g{}", step.generation),
                format!("{} differ", step.files_changed),
                if is_plan {
                    resident(step)
                } else {
                    String::new()
                },
            ]
        })
        .collect();
    let heads = ["REGION", "FROM", "TO", "RECORD", "FILES", ""];
    let mut text = format!("{}\nhosts: {}", table(heads, &rows), joined(&view.hosts));
    if let Some(ended) = &view.preempts {
        text.push_str(&preempts(ended, is_plan));
    }
    for step in view.regions.iter().filter(|_| is_plan) {
        text.push_str(&afterwards(step));
    }
    text
}

/// Where the target is already.
fn resident(step: &RollbackStep) -> String {
    let (has, lacks) = (step.resident.len(), step.absent.len());
    match (has, lacks) {
        (0, 0) => "no edge is live".to_owned(),
        (_, 0) => format!("on {has} of {has} edges: nothing is fetched"),
        (..) => format!(
            "on {has} of {} edges; first fetched by {}",
            has + lacks,
            joined(&step.absent)
        ),
    }
}

fn preempts(ended: &PreemptedRollout, is_plan: bool) -> String {
    let PreemptedRollout {
        rollout,
        kind,
        by,
        regions,
    } = ended;
    let ends = if is_plan { "would end" } else { "ends" };
    let mut text = format!("\n{ends} the running {kind} {rollout} of {by}:");
    for region in regions {
        let phase = rollout::phase_name(region.phase);
        let becomes = match (&region.live, region.goes_back) {
            (_, true) => "goes back".to_owned(),
            (Some(live), false) => format!("stays on {live}"),
            (None, false) => "nothing is live, and stays so".to_owned(),
        };
        text.push_str(&format!(
            "\n  {:<8} {phase} with {}: {becomes}",
            region.region.as_str(),
            region.release
        ));
    }
    text
}

fn afterwards(step: &RollbackStep) -> String {
    let mut text = format!(
        "\nafterwards {} is held against automatic deployments ({})",
        step.region, step.hold
    );
    match &step.quarantines {
        Some(left) => text.push_str(&format!(", and {left} quarantined there")),
        None => text.push_str("; what it leaves is quarantined there already"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_changes_what_ends_and_what_comes_after() {
        let json = r#"{"rollout":null,"hosts":["shop.example"],
            "regions":[{"region":"fra","from":"11111111111111111111","to":"22222222222222222222","files_changed":3,
                "generation":7,"resident":["fra-1"],"absent":["fra-2"],"hold":"it is slow","quarantines":"11111111111111111111"}],
            "preempts":{"rollout":"00112233445566aa","kind":"deploy","by":"ana","regions":[
                {"region":"fra","phase":"baking","release":"11111111111111111111","live":"11111111111111111111","goes_back":true},
                {"region":"iad","phase":"committing","release":"11111111111111111111","live":"11111111111111111111","goes_back":false}]}}"#;
        let view: RollbackView = serde_json::from_str(json).unwrap();
        assert_eq!(
            describe(&view, true),
            "REGION  FROM                  TO                    RECORD  FILES\n\
             fra     11111111111111111111  22222222222222222222  g7      3 differ  on 1 of 2 edges; first fetched by fra-2\n\
             hosts: shop.example\n\
             would end the running deploy 00112233445566aa of ana:\n  \
             fra      baking with 11111111111111111111: goes back\n  \
             iad      committing with 11111111111111111111: stays on 11111111111111111111\n\
             afterwards fra is held against automatic deployments (it is slow), and 11111111111111111111 quarantined there"
        );
    }
}
