//! `helix hold`: which regions automatic deployments leave alone.

use std::process::ExitCode;

use helix_routing::api::HoldView;
use helix_routing::operators::{ClearHolds, HoldsView, NewHold};

use super::table::{moment, table};
use super::{NONE, or_none};
use crate::arguments::Hold;
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(origin: &Origin, arguments: Hold, json: bool) -> anyhow::Result<ExitCode> {
    match arguments {
        Hold::Set { scope, reason, ttl } => {
            let new = NewHold {
                environment: scope.environment,
                regions: (!scope.regions.is_empty()).then_some(scope.regions),
                reason,
                ttl_ms: ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            };
            let path = ["projects", scope.project.project.as_str(), "holds"];
            let view: HoldsView = origin.create(&path, &new).await?;
            show_change(&view, "held", json)?;
        }
        Hold::Clear { scope, reason } => {
            let wanted = ClearHolds {
                environment: scope.environment,
                regions: (!scope.regions.is_empty()).then_some(scope.regions),
                reason,
            };
            let path = ["projects", scope.project.project.as_str(), "holds", "clear"];
            let view: HoldsView = origin.create(&path, &wanted).await?;
            show_change(&view, "no longer held", json)?;
        }
        Hold::List { project } => {
            let query = [("project", project.map(|project| project.to_string()))];
            let holds: Vec<HoldView> = origin.search(&["holds"], &query).await?;
            if json {
                output::print_json(&holds)?;
            } else {
                output::print(&list(&holds));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show_change(view: &HoldsView, what: &str, json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json(view);
    }
    if view.holds.is_empty() {
        output::say("nothing was held");
    }
    for HoldView { site, region, hold } in &view.holds {
        let until = hold
            .until
            .map(|until| format!(", until {} UTC", moment(until)));
        let until = until.unwrap_or_default();
        output::say(&format!(
            "{site} in {region} is {what}: {}{until}",
            hold.reason
        ));
    }
    for rollout in &view.running {
        output::say(&format!(
            "rollout {rollout} goes on: a hold does not stop what runs"
        ));
    }
    Ok(())
}

fn list(holds: &[HoldView]) -> String {
    let rows: Vec<_> = holds
        .iter()
        .map(|HoldView { site, region, hold }| {
            [
                site.to_string(),
                region.to_string(),
                moment(hold.since),
                hold.until.map_or_else(|| NONE.to_owned(), moment),
                or_none(hold.by.as_ref()),
                hold.reason.clone(),
            ]
        })
        .collect();
    let heads = ["SITE", "REGION", "SINCE (UTC)", "UNTIL (UTC)", "BY", "WHY"];
    table(heads, &rows)
}
