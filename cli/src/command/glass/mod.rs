//! `helix break-glass`: what is served when origin or NATS cannot be asked.
//!
//! With NATS dead it talks to one edge by its local socket ([`locally`]); with origin dead to a region's stream ([`signed`]).
//! It needs no origin and no token.

mod signed;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use helix_routing::glass::{LocalOverride, NewOverride};
use helix_routing::id::SiteId;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;

use super::table::{moment, table};
use crate::arguments::{BreakGlass, GlassEnd, GlassRollback, Site, Socket, Terms};
use crate::output;

/// The host of every URL over the socket; the edge does not look at it.
const HOST: &str = "http://edge.local";
/// Longer than a write to a slow disk takes.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

pub(crate) async fn run(glass: BreakGlass, json: bool) -> anyhow::Result<ExitCode> {
    match glass {
        BreakGlass::Rollback(rollback) => take_back(rollback, json).await?,
        BreakGlass::End(end) => end_override(end).await?,
        BreakGlass::Status(socket) => status(&socket, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn take_back(mut rollback: GlassRollback, json: bool) -> anyhow::Result<()> {
    let site = SiteId {
        project: rollback.site.project.project.clone(),
        environment: rollback.site.environment,
    };
    match (rollback.socket.take(), rollback.region.take()) {
        (Some(socket), None) => locally(rollback, &socket, site, json).await,
        (None, Some(region)) => signed::run(rollback, region, site, by_whom(), json).await,
        (Some(_), Some(_)) | (None, None) => bail!("name an edge's --socket, or a --region"),
    }
}

async fn locally(
    rollback: GlassRollback,
    socket: &Path,
    site: SiteId,
    json: bool,
) -> anyhow::Result<()> {
    let GlassRollback {
        release,
        terms: Terms { reason, ttl },
        ..
    } = rollback;
    let wish = NewOverride {
        site,
        release,
        reason,
        by: by_whom(),
        ttl_seconds: ttl.duration().as_secs(),
    };
    let client = client(socket)?;
    let request = client.post(format!("{HOST}/v1/overrides")).json(&wish);
    let standing: LocalOverride = answer(request, socket).await?.json().await?;
    if json {
        output::print_json(&standing)?;
    }
    output::say(&format!(
        "{} serves {} on this edge alone; it is told to origin when that can be asked, and shown as expired from {} UTC on",
        standing.site,
        standing.release.release,
        moment(standing.until)
    ));
    Ok(())
}

async fn end_override(GlassEnd { site, socket }: GlassEnd) -> anyhow::Result<()> {
    let site = site_id(site);
    let client = client(&socket.socket)?;
    let body = serde_json::json!({ "site": site });
    let request = client.post(format!("{HOST}/v1/overrides/end")).json(&body);
    answer(request, &socket.socket).await?;
    output::say(&format!("{site} is served as its record says"));
    Ok(())
}

async fn status(socket: &Socket, json: bool) -> anyhow::Result<()> {
    let client = client(&socket.socket)?;
    let request = client.get(format!("{HOST}/v1/overrides"));
    let standing: Vec<LocalOverride> = answer(request, &socket.socket).await?.json().await?;
    if json {
        return output::print_json(&standing);
    }
    if standing.is_empty() {
        output::print("no override stands on this edge");
        return Ok(());
    }
    let rows: Vec<_> = standing
        .iter()
        .map(|local| {
            [
                local.site.to_string(),
                local.release.release.to_string(),
                local.by.clone(),
                moment(local.since),
                moment(local.until),
                local.reason.clone(),
            ]
        })
        .collect();
    let heads = [
        "SITE",
        "RELEASE",
        "BY",
        "SINCE (UTC)",
        "UNTIL (UTC)",
        "REASON",
    ];
    output::print(&table(heads, &rows));
    Ok(())
}

fn client(socket: &Path) -> anyhow::Result<Client> {
    let client = Client::builder()
        .unix_socket(socket)
        .timeout(ANSWER_LIMIT)
        .build();
    client.context("make an HTTP client")
}

async fn answer(request: RequestBuilder, socket: &Path) -> anyhow::Result<reqwest::Response> {
    let asked = request.send().await;
    let response = asked.with_context(|| format!("ask the edge at {}", socket.display()))?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status: StatusCode = response.status();
    let text = response.text().await.unwrap_or_default();
    match serde_json::from_str::<Problem>(&text) {
        Ok(problem) => bail!("refused by the edge: {}", problem.detail),
        Err(_) => bail!("the edge answered {status}: {}", text.trim()),
    }
}

fn site_id(site: Site) -> SiteId {
    SiteId {
        project: site.project.project,
        environment: site.environment,
    }
}

/// Who it is, for the record.
fn by_whom() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    user.unwrap_or_else(|_| "somebody".to_owned())
        .chars()
        .filter(|c| !c.is_control())
        .take(60)
        .collect()
}
