//! `helix release quarantine`, `unquarantine`, `quarantined`, `verify`, `provenance` and `materials`.

use std::process::ExitCode;

use helix_routing::operators::{NewQuarantine, QuarantineView};
use helix_routing::provenance::bundle::Bundle;

use super::table::{moment, table};
use super::{or_none, verify};
use crate::arguments::{Mark, Release};
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(
    origin: &Origin,
    arguments: Release,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match arguments {
        Release::Quarantine(mark) => {
            let marked = send(origin, mark, "quarantine").await?;
            if json {
                output::print_json(&marked)?;
            } else {
                marked.iter().for_each(say_marked);
            }
        }
        Release::Unquarantine(mark) => {
            let release = mark.release.clone();
            let lifted = send(origin, mark, "unquarantine").await?;
            if json {
                output::print_json(&lifted)?;
            } else if lifted.is_empty() {
                output::say(&format!("{release} was not quarantined there"));
            } else {
                for mark in &lifted {
                    let QuarantineView {
                        region,
                        release,
                        reason,
                        ..
                    } = mark;
                    output::say(&format!(
                        "{release} is no longer quarantined in {region}: {reason}"
                    ));
                }
            }
        }
        Release::Verify { release, read } => {
            return verify::run(origin, &release, read, json).await;
        }
        Release::Provenance { release } => {
            let path = ["releases", release.as_str(), "provenance"];
            let bundle: Bundle = origin.read(&path).await?;
            output::print_json(&bundle)?;
        }
        Release::Materials { release } => {
            let path = ["releases", release.as_str(), "materials"];
            let bill: serde_json::Value = origin.read(&path).await?;
            output::print_json(&bill)?;
        }
        Release::Quarantined { project } => {
            let query = [("project", project.map(|project| project.to_string()))];
            let marks: Vec<QuarantineView> = origin.search(&["quarantines"], &query).await?;
            if json {
                output::print_json(&marks)?;
            } else {
                output::print(&list(&marks));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn send(origin: &Origin, mark: Mark, what: &str) -> anyhow::Result<Vec<QuarantineView>> {
    let new = NewQuarantine {
        regions: (!mark.regions.is_empty()).then_some(mark.regions),
        reason: mark.reason,
    };
    let path = ["releases", mark.release.as_str(), what];
    Ok(origin.create(&path, &new).await?)
}

fn say_marked(mark: &QuarantineView) {
    let QuarantineView {
        site,
        region,
        release,
        live,
        ..
    } = mark;
    output::say(&format!("{release} is quarantined in {region}"));
    if *live {
        output::say(&format!(
            "it is live there and stays so: `helix rollback --project {} --env {} --region {region}` takes it back",
            site.project, site.environment
        ));
    }
}

fn list(marks: &[QuarantineView]) -> String {
    let rows: Vec<_> = marks
        .iter()
        .map(|mark| {
            [
                mark.release.to_string(),
                mark.site.to_string(),
                mark.region.to_string(),
                if mark.live { "live" } else { "" }.to_owned(),
                moment(mark.since),
                or_none(mark.by.as_ref()),
                mark.reason.clone(),
            ]
        })
        .collect();
    let heads = ["RELEASE", "SITE", "REGION", "", "SINCE (UTC)", "BY", "WHY"];
    table(heads, &rows)
}
