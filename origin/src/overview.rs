//! What is where: the fleet, every site in every region, and the releases of a site. Reads only.

use std::collections::BTreeMap;

use helix_routing::api::{
    OriginState, OriginStatus, ReleaseView, RolloutMark, RolloutView, SiteRegionStatus, SiteStatus,
    Status,
};
use helix_routing::host::HostPattern;
use helix_routing::id::{Generation, ProjectName, RegionId, ReleaseId, SiteId};
use helix_service::clock;

use crate::app::App;
use crate::feed::records;
use crate::glass;
use crate::hold;
use crate::project::{self, ProjectError};
use crate::remote::queue;
use crate::store::{Connection, StoreError, count, id, time};

/// The fleet and every site.
///
/// # Errors
/// When the database fails.
pub async fn status(app: &App) -> Result<Status, ProjectError> {
    let mut connection = app.store.snapshot().await?;
    let mut sites = Vec::new();
    for project in open_projects(&mut connection).await? {
        let mut hosts: BTreeMap<SiteId, Vec<String>> = BTreeMap::new();
        for (host, site) in project::hosts(&mut connection, &project, &app.addresses).await? {
            hosts.entry(site).or_default().push(host.to_string());
        }
        if let Some(site) = alias(&mut connection, app, &project).await? {
            hosts
                .entry(site)
                .or_default()
                .push(app.addresses.alias(&project).to_string());
        }
        for (site, hosts) in hosts {
            let regions = regions(&mut connection, app, &site).await?;
            let rollout = app.conductor.running(&site);
            let waits = app.conductor.waits(&site);
            sites.push(SiteStatus {
                site,
                hosts,
                regions,
                rollout,
                waits,
            });
        }
    }
    let registry = match &app.remote {
        Some(remote) => Some(queue::status(&mut connection, remote).await?),
        None => None,
    };
    Ok(Status {
        epoch: app.store.epoch(),
        base_domain: app.addresses.base().clone(),
        origins: origins(app),
        registry,
        edges: app.roster.edges(),
        sites,
    })
}

/// Who leads and who stands by; nobody is named where there is only one.
fn origins(app: &App) -> Vec<OriginStatus> {
    let leading = app.store.address().map(|address| OriginStatus {
        address: address.to_owned(),
        state: OriginState::Leading,
    });
    let standbys = app.store.standbys();
    let standbys = standbys.iter().map(|standby| OriginStatus {
        address: standby.address.clone(),
        state: if standby.is_there {
            OriginState::StandingBy
        } else {
            OriginState::Silent
        },
    });
    leading.into_iter().chain(standbys).collect()
}

type ReleaseRow = (
    String,
    String,
    i64,
    i64,
    i64,
    String,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<String>,
);

/// The newest deployment of each names it; one that was made and never deployed has none.
const KEPT: &str = "SELECT releases.release_id, releases.artifact, releases.created, releases.files, releases.bytes,
            COALESCE((SELECT label FROM deployments WHERE deployments.site = releases.site
                      AND deployments.release_id = releases.release_id ORDER BY number DESC LIMIT 1), '') AS label,
            releases.routes, releases.env_revision,
            (SELECT commit_id FROM deployments WHERE deployments.site = releases.site
             AND deployments.release_id = releases.release_id ORDER BY number DESC LIMIT 1) AS commit_id,
            (SELECT said FROM provenances WHERE provenances.site = releases.site
             AND provenances.artifact = releases.artifact ORDER BY used DESC, manifest LIMIT 1) AS said
     FROM releases WHERE site = $1 AND collected IS NULL ORDER BY created DESC, release_id";

/// The releases of a site that are kept, newest first, with what `rollouts` did with them.
///
/// # Errors
/// When there is no such project, or the database fails.
pub async fn releases(
    app: &App,
    site: &SiteId,
    rollouts: &[RolloutView],
) -> Result<Vec<ReleaseView>, ProjectError> {
    let mut connection = app.store.snapshot().await?;
    project::check(&mut connection, &site.project).await?;
    let rows: Vec<ReleaseRow> = sqlx::query_as(KEPT)
        .bind(site.to_string())
        .fetch_all(&mut *connection)
        .await?;
    let live = live_in(&mut connection, app, site).await?;
    let quarantined = quarantined_in(&mut connection, site).await?;
    let in_flight = app.roster.in_flight(site);
    let view = |(
        release,
        artifact,
        created,
        files,
        bytes,
        label,
        routes,
        revision,
        commit,
        source,
    ): ReleaseRow| {
        let release: ReleaseId = id(&release)?;
        Ok(ReleaseView {
            artifact: id(&artifact)?,
            created: time(created),
            files: count(files, "releases.files")?,
            bytes: count(bytes, "releases.bytes")?,
            label,
            routes: routes.as_deref().map(id).transpose()?,
            env_revision: revision.and_then(|revision| u64::try_from(revision).ok()),
            commit: commit.as_deref().map(id).transpose()?,
            push: None,
            source,
            url: app.addresses.release_url(&site.project, &release),
            rollouts: rollouts
                .iter()
                .filter_map(|rollout| RolloutMark::of(rollout, &release))
                .collect(),
            live_in: live.get(&release).cloned().unwrap_or_default(),
            quarantined_in: quarantined.get(&release).cloned().unwrap_or_default(),
            in_flight: in_flight
                .iter()
                .filter(|view| view.release == release)
                .cloned()
                .collect(),
            release,
        })
    };
    let mut views = rows
        .into_iter()
        .map(view)
        .collect::<Result<Vec<_>, StoreError>>()
        .map_err(ProjectError::Store)?;
    if let Some(remote) = &app.remote {
        for view in &mut views {
            let artifact = &view.artifact;
            view.push = queue::view(&mut connection, remote, &site.project, artifact).await?;
        }
    }
    Ok(views)
}

async fn open_projects(connection: &mut Connection) -> Result<Vec<ProjectName>, StoreError> {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT project FROM projects WHERE purge_at IS NULL ORDER BY project")
            .fetch_all(connection)
            .await?;
    names.iter().map(|name| id(name)).collect()
}

async fn alias(
    connection: &mut Connection,
    app: &App,
    project: &ProjectName,
) -> Result<Option<SiteId>, ProjectError> {
    let alias = HostPattern::Exact(app.addresses.alias(project));
    Ok(records::host(connection, &alias)
        .await?
        .and_then(|record| record.site))
}

async fn regions(
    connection: &mut Connection,
    app: &App,
    site: &SiteId,
) -> Result<Vec<SiteRegionStatus>, ProjectError> {
    let mut held = hold::in_force(connection, site, clock::now()).await?;
    let rows: Vec<(String, Option<String>)> =
        sqlx::query_as("SELECT region, note FROM region_sites WHERE site = $1")
            .bind(site.to_string())
            .fetch_all(&mut *connection)
            .await?;
    let mut notes: BTreeMap<String, Option<String>> = rows.into_iter().collect();
    let in_flight = app.roster.in_flight(site);
    let mut regions = Vec::with_capacity(app.regions.len());
    for region in &*app.regions {
        let record = records::site(connection, region, site).await?;
        let note = notes.remove(region.as_str()).unwrap_or_default();
        let hold = held.remove(region);
        let record = record.as_ref();
        regions.push(SiteRegionStatus {
            region: region.clone(),
            live: record
                .and_then(|record| record.live.as_ref())
                .map(|live| live.release.clone()),
            candidate: record
                .and_then(|record| record.candidate.as_ref())
                .map(|candidate| candidate.release.clone()),
            generation: record.map_or(Generation(0), |record| record.generation),
            hold,
            note,
            in_flight: in_flight
                .iter()
                .filter(|view| view.region == *region)
                .cloned()
                .collect(),
            overrides: glass::views(&app.roster, region, site),
        });
    }
    Ok(regions)
}

async fn live_in(
    connection: &mut Connection,
    app: &App,
    site: &SiteId,
) -> Result<BTreeMap<ReleaseId, Vec<RegionId>>, ProjectError> {
    let mut live: BTreeMap<ReleaseId, Vec<RegionId>> = BTreeMap::new();
    for region in &*app.regions {
        let record = records::site(connection, region, site).await?;
        if let Some(release) = record.and_then(|record| record.live) {
            live.entry(release.release)
                .or_default()
                .push(region.clone());
        }
    }
    Ok(live)
}

async fn quarantined_in(
    connection: &mut Connection,
    site: &SiteId,
) -> Result<BTreeMap<ReleaseId, Vec<RegionId>>, ProjectError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT release_id, region FROM quarantines WHERE site = $1 ORDER BY region",
    )
    .bind(site.to_string())
    .fetch_all(connection)
    .await?;
    let mut quarantined: BTreeMap<ReleaseId, Vec<RegionId>> = BTreeMap::new();
    for (release, region) in rows {
        let (release, region) = (
            id(&release).map_err(ProjectError::Store)?,
            id(&region).map_err(ProjectError::Store)?,
        );
        quarantined.entry(release).or_default().push(region);
    }
    Ok(quarantined)
}
