//! `helix releases`.

use std::process::ExitCode;

use helix_routing::api::{PushState, ReleaseView, RolloutMark};

use super::flights::{counts, draining};
use super::table::{moment, table};
use super::{NONE, joined};
use crate::arguments::Releases;
use crate::output;
use crate::rollout::{now, phase_name};
use helix_client::Origin;

pub(crate) async fn run(
    origin: &Origin,
    arguments: Releases,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (project, environment) = (
        arguments.site.project.project,
        arguments.site.environment.to_string(),
    );
    let path = ["projects", project.as_str(), "releases"];
    let releases: Vec<ReleaseView> = origin.query(&path, "environment", &environment).await?;
    if json {
        output::print_json(&releases)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = releases
        .iter()
        .map(|release| {
            [
                release.release.to_string(),
                release.label.clone(),
                moment(release.created),
                release.files.to_string(),
                output::size(release.bytes),
                rules(release),
                source(release),
                joined(&release.live_in),
                release
                    .rollouts
                    .first()
                    .map_or_else(|| NONE.to_owned(), went_out),
                joined(&release.quarantined_in),
                in_flight(release),
                registry(release),
                release.url.clone(),
            ]
        })
        .collect();
    output::print(&table(
        [
            "RELEASE",
            "LABEL",
            "CREATED (UTC)",
            "FILES",
            "SIZE",
            "RULES",
            "SOURCE",
            "LIVE IN",
            "LAST ROLLOUT",
            "QUARANTINED IN",
            "IN FLIGHT",
            "REGISTRY",
            "URL",
        ],
        &rows,
    ));
    Ok(ExitCode::SUCCESS)
}

/// Who did what, and how far it came in each region.
fn went_out(rollout: &RolloutMark) -> String {
    let regions = rollout.regions.iter();
    let regions: Vec<_> = regions
        .map(|mark| format!("{} {}", mark.region, phase_name(mark.phase)))
        .collect();
    format!("{} by {}: {}", rollout.kind, rollout.by, regions.join(", "))
}

/// Region by region.
fn in_flight(release: &ReleaseView) -> String {
    let views = release.in_flight.iter().map(|view| {
        let region = &view.region;
        if view.draining {
            format!("{region} draining: {}", draining(view, now()))
        } else {
            format!("{region}: {}", counts(view))
        }
    });
    let shown: Vec<_> = views.collect();
    if shown.is_empty() {
        return NONE.to_owned();
    }
    shown.join("; ")
}

/// Whether the registry has it, and if not why.
fn registry(release: &ReleaseView) -> String {
    let Some(push) = &release.push else {
        return NONE.to_owned();
    };
    match (push.state, &push.error) {
        (PushState::Pushed, _) => "pushed".to_owned(),
        (PushState::Waiting, None) => "waiting".to_owned(),
        (PushState::Waiting, Some(error)) => format!("waiting: {error}"),
    }
}

/// Where it comes from; commits are shown by their start.
fn source(release: &ReleaseView) -> String {
    let Some(source) = &release.source else {
        return NONE.to_owned();
    };
    match &release.commit {
        Some(commit) => source.replace(commit.as_str(), &commit.as_str()[..7]),
        None => source.clone(),
    }
}

/// The start of the route table's digest, so that two releases of the same files can be told apart.
fn rules(release: &ReleaseView) -> String {
    release
        .routes
        .as_ref()
        .map_or_else(|| "-".to_owned(), |routes| routes.hex()[..7].to_owned())
}
