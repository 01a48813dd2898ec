//! `helix status`: the fleet and every site.

use std::process::ExitCode;

use helix_routing::api::{
    EdgeStatus, OriginState, OriginStatus, OverrideView, RegistryStatus, SiteStatus, Status,
};

use super::flights::described;
use super::table::{moment, table};
use super::{NONE, or_none};
use crate::arguments;
use crate::output;
use crate::rollout::{now, stages};
use helix_client::Origin;

pub(crate) async fn run(
    origin: &Origin,
    arguments: arguments::Status,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut status: Status = origin.read(&["status"]).await?;
    if let Some(project) = &arguments.project {
        status.sites.retain(|site| site.site.project == *project);
    }
    if json {
        output::print_json(&status)?;
    } else {
        if !status.origins.is_empty() {
            output::print(&format!("{}\n", origins(&status)));
        }
        output::print(&edges(&status.edges));
        if let Some(registry) = &status.registry {
            output::print(&format!("\n{}", registry_line(registry)));
        }
        output::print(&format!("\n{}", sites(&status.sites)));
    }
    Ok(ExitCode::SUCCESS)
}

fn origins(status: &Status) -> String {
    let row = |origin: &OriginStatus| {
        let (state, term) = match origin.state {
            OriginState::Leading => ("leading", status.epoch.0.to_string()),
            OriginState::StandingBy => ("standing by", NONE.to_owned()),
            OriginState::Silent => ("silent", NONE.to_owned()),
        };
        [origin.address.clone(), state.to_owned(), term]
    };
    let rows: Vec<_> = status.origins.iter().map(row).collect();
    table(["ORIGIN", "STATE", "TERM"], &rows)
}

fn registry_line(registry: &RegistryStatus) -> String {
    let RegistryStatus {
        registry,
        waiting,
        failing,
        error,
        ..
    } = registry;
    match (waiting, error) {
        (0, _) => format!("registry {registry} has every release"),
        (_, None) => format!("registry {registry}: {waiting} artifacts wait to be pushed"),
        (_, Some(error)) => format!(
            "registry {registry}: {waiting} artifacts wait to be pushed, {failing} of them failed: {error}"
        ),
    }
}

fn edges(edges: &[EdgeStatus]) -> String {
    let rows: Vec<_> = edges
        .iter()
        .map(|edge| {
            [
                edge.region.to_string(),
                edge.edge.to_string(),
                state(edge).to_owned(),
                edge.url.clone(),
                edge.seen.map_or_else(|| NONE.to_owned(), moment),
                edge.note.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(
        ["REGION", "EDGE", "STATE", "URL", "SEEN (UTC)", "NOTE"],
        &rows,
    )
}

const fn state(edge: &EdgeStatus) -> &'static str {
    match (edge.live, edge.ready) {
        (false, _) => "stale",
        (true, false) => "not ready",
        (true, true) => "ready",
    }
}

/// Edges that serve something else than the region's record names: first, since nothing is stranger.
fn overridden(view: &OverrideView) -> String {
    let edges: Vec<_> = view.edges.iter().map(ToString::to_string).collect();
    let expired = if view.expired { ", EXPIRED" } else { "" };
    let until = moment(view.until);
    format!(
        "OVERRIDE on {}: {} by {} until {until}{expired}: {}",
        edges.join(","),
        view.release,
        view.by,
        view.reason
    )
}

fn sites(sites: &[SiteStatus]) -> String {
    let rows: Vec<_> = sites
        .iter()
        .flat_map(|site| site.regions.iter().map(move |region| (site, region)))
        .map(|(site, region)| {
            let hold = region.hold.as_ref();
            let hold = hold.map(|hold| {
                let until = hold
                    .until
                    .map(|until| format!(" until {} UTC", moment(until)));
                format!("held{}: {}", until.unwrap_or_default(), hold.reason)
            });
            let rolling = site.rollout.as_ref().map(|rollout| match &site.waits {
                Some(waits) => format!("rollout {rollout} {}", stages::waiting(waits, rollout)),
                None => format!("rollout {rollout}"),
            });
            // Why a region went back is why it is held.
            let told = |note: &String| hold.as_ref().is_some_and(|hold| hold.contains(note));
            let note = region.note.clone().filter(|note| !told(note));
            let flights = described(&region.in_flight, now());
            let overrides = region.overrides.iter().map(overridden).collect::<Vec<_>>();
            let overrides = (!overrides.is_empty()).then(|| overrides.join("; "));
            let notes = [overrides, hold, rolling, note];
            [
                site.site.to_string(),
                region.region.to_string(),
                or_none(region.live.as_ref()),
                or_none(region.candidate.as_ref()),
                region.generation.to_string(),
                flights.unwrap_or_else(|| NONE.to_owned()),
                notes.into_iter().flatten().collect::<Vec<_>>().join("; "),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no sites yet: `helix deploy DIR --project NAME` makes one".to_owned();
    }
    table(
        [
            "SITE",
            "REGION",
            "LIVE",
            "CANDIDATE",
            "GENERATION",
            "IN FLIGHT",
            "NOTE",
        ],
        &rows,
    )
}
