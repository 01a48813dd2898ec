//! Projects: made by their first upload, deleted with seven days to think again.
//!
//! Deleting takes a project's hosts off the feed and its sites off the edges in one transaction;
//! what was uploaded stays until [`PURGED_AFTER`], and restoring puts the records back as they were.
//!
//! Invariant: a deleted project's name and hosts stay its own until it is purged.

use std::time::Duration;

use helix_routing::api::ProjectView;
use helix_routing::host::HostPattern;
use helix_routing::id::{ProjectName, RegionId, SiteId};
use helix_service::clock;

use crate::address::Addresses;
use crate::feed::records::{self, RecordError};
use crate::rollout::{RolloutError, alias};
use crate::store::{Connection, Store, StoreError, Tx, id, millis, time};

/// How long a deleted project can be restored.
pub const PURGED_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A project cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// There is none of this name.
    #[error("there is no project {project}")]
    Unknown {
        /// The name.
        project: ProjectName,
    },
    /// It was deleted.
    #[error("project {project} was deleted; restore it first")]
    Deleted {
        /// The name.
        project: ProjectName,
    },
    /// It was not deleted.
    #[error("project {project} is not deleted")]
    NotDeleted {
        /// The name.
        project: ProjectName,
    },
    /// A rollout owns a site's records while it runs.
    #[error("a rollout of {site} is running; it ends by itself within a minute, then try again")]
    Running {
        /// The site.
        site: String,
    },
    /// The preview alias could not be put back.
    #[error(transparent)]
    Alias(#[from] RolloutError),
    /// A record could not be changed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ProjectError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What every change of a project needs to know.
#[derive(Debug)]
pub struct Reach<'a> {
    /// Where sites answer.
    pub addresses: &'a Addresses,
    /// Every region.
    pub regions: &'a [RegionId],
}

/// Makes the project if there is none.
///
/// # Errors
/// When it was deleted, or the database fails.
pub async fn ensure(store: &Store, project: &ProjectName) -> Result<(), ProjectError> {
    let mut connection = store.read().await?;
    match check(&mut connection, project).await {
        Err(ProjectError::Unknown { .. }) => {}
        checked => return checked,
    }
    drop(connection);
    let mut tx = store.write().await?;
    sqlx::query(
        "INSERT INTO projects (project, created) VALUES ($1, $2) ON CONFLICT (project) DO NOTHING",
    )
    .bind(project.as_str())
    .bind(millis(clock::now()))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    tracing::info!(%project, "project made");
    Ok(())
}

/// That the project exists and was not deleted.
///
/// # Errors
/// When it is not so, or the database fails.
pub async fn check(connection: &mut Connection, project: &ProjectName) -> Result<(), ProjectError> {
    match purge_at(connection, project).await? {
        None => Err(ProjectError::Unknown {
            project: project.clone(),
        }),
        Some(Some(_)) => Err(ProjectError::Deleted {
            project: project.clone(),
        }),
        Some(None) => Ok(()),
    }
}

/// Every project, also those that were deleted and can be restored.
///
/// # Errors
/// When the database fails.
pub async fn list(store: &Store) -> Result<Vec<ProjectView>, ProjectError> {
    let names: Vec<String> = sqlx::query_scalar("SELECT project FROM projects ORDER BY project")
        .fetch_all(store.reader())
        .await?;
    let mut connection = store.read().await?;
    let mut projects = Vec::with_capacity(names.len());
    for name in names {
        projects.push(view(&mut connection, &id(&name).map_err(ProjectError::Store)?).await?);
    }
    Ok(projects)
}

/// One project.
///
/// # Errors
/// When there is none, or the database fails.
pub async fn view(
    connection: &mut Connection,
    project: &ProjectName,
) -> Result<ProjectView, ProjectError> {
    let row: Option<(i64, Option<i64>)> =
        sqlx::query_as("SELECT created, purge_at FROM projects WHERE project = $1")
            .bind(project.as_str())
            .fetch_optional(&mut *connection)
            .await?;
    let (created, purge_at) = row.ok_or_else(|| ProjectError::Unknown {
        project: project.clone(),
    })?;
    Ok(ProjectView {
        project: project.clone(),
        created: time(created),
        purge_at: purge_at.map(time),
        sites: sites(connection, project).await?,
    })
}

/// Deletes a project: its hosts answer 404 as soon as edges have the records.
///
/// # Errors
/// When there is none, it is deleted already, a rollout is running, or the database fails.
pub async fn delete(
    tx: &mut Tx,
    project: &ProjectName,
    reach: &Reach<'_>,
) -> Result<ProjectView, ProjectError> {
    check(tx, project).await?;
    refuse_running(tx, project).await?;
    for (host, _) in hosts(tx, project, reach.addresses).await? {
        records::put_host(tx, &host, None).await?;
    }
    records::put_host(
        tx,
        &HostPattern::Exact(reach.addresses.alias(project)),
        None,
    )
    .await?;
    set_removed(tx, project, reach.regions, true).await?;
    set_purge(tx, project, Some(millis(clock::now() + PURGED_AFTER))).await?;
    view(tx, project).await
}

/// Takes a deletion back.
///
/// # Errors
/// When there is none or it is not deleted, or the database fails.
pub async fn restore(
    tx: &mut Tx,
    project: &ProjectName,
    reach: &Reach<'_>,
) -> Result<ProjectView, ProjectError> {
    match purge_at(tx, project).await? {
        None => {
            return Err(ProjectError::Unknown {
                project: project.clone(),
            });
        }
        Some(None) => {
            return Err(ProjectError::NotDeleted {
                project: project.clone(),
            });
        }
        Some(Some(_)) => {}
    }
    set_removed(tx, project, reach.regions, false).await?;
    for (host, site) in hosts(tx, project, reach.addresses).await? {
        records::put_host(tx, &host, Some(&site)).await?;
    }
    alias::refresh(tx, project, reach.addresses.base()).await?;
    set_purge(tx, project, None).await?;
    view(tx, project).await
}

/// Every host of the project's open sites, domains included; the preview alias is not one of them.
///
/// # Errors
/// When the database fails.
pub async fn hosts(
    connection: &mut Connection,
    project: &ProjectName,
    addresses: &Addresses,
) -> Result<Vec<(HostPattern, SiteId)>, StoreError> {
    let mut hosts: Vec<(HostPattern, SiteId)> = sites(connection, project)
        .await?
        .into_iter()
        .map(|site| (addresses.pattern(&site), site))
        .collect();
    let domains: Vec<(String, String)> =
        sqlx::query_as("SELECT host, site FROM domains WHERE project = $1 ORDER BY host")
            .bind(project.as_str())
            .fetch_all(connection)
            .await?;
    for (host, site) in domains {
        hosts.push((id(&host)?, id(&site)?));
    }
    Ok(hosts)
}

/// The open sites of a project.
///
/// # Errors
/// When the database fails.
pub async fn sites(
    connection: &mut Connection,
    project: &ProjectName,
) -> Result<Vec<SiteId>, StoreError> {
    let sites: Vec<String> = sqlx::query_scalar(
        "SELECT site FROM sites WHERE project = $1 AND closed IS NULL ORDER BY site",
    )
    .bind(project.as_str())
    .fetch_all(connection)
    .await?;
    sites.iter().map(|site| id(site)).collect()
}

/// Outer none: no such project. Inner none: not deleted.
async fn purge_at(
    connection: &mut Connection,
    project: &ProjectName,
) -> Result<Option<Option<i64>>, StoreError> {
    let purge_at = sqlx::query_scalar("SELECT purge_at FROM projects WHERE project = $1")
        .bind(project.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(purge_at)
}

async fn set_purge(tx: &mut Tx, project: &ProjectName, at: Option<i64>) -> Result<(), StoreError> {
    sqlx::query("UPDATE projects SET purge_at = $1 WHERE project = $2")
        .bind(at)
        .bind(project.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn refuse_running(tx: &mut Tx, project: &ProjectName) -> Result<(), ProjectError> {
    let running: Option<String> = sqlx::query_scalar(
        "SELECT rollouts.site FROM rollouts JOIN sites ON sites.site = rollouts.site
         WHERE sites.project = $1 AND rollouts.outcome IS NULL",
    )
    .bind(project.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    running.map_or(Ok(()), |site| Err(ProjectError::Running { site }))
}

/// Takes the project's sites off every region, or puts them back with the releases they had.
async fn set_removed(
    tx: &mut Tx,
    project: &ProjectName,
    regions: &[RegionId],
    removed: bool,
) -> Result<(), ProjectError> {
    for site in sites(tx, project).await? {
        for region in regions {
            let Some(mut record) = records::site(tx, region, &site).await? else {
                continue;
            };
            if record.removed != removed {
                record.removed = removed;
                record.generation = record.generation.next();
                record.live_since = record.generation;
                record.epoch = tx.epoch();
                records::put_site(tx, &record).await?;
            }
        }
    }
    Ok(())
}

/// Purges every project whose time to be restored is over: its rows go, and its records name no release any more.
/// Its blobs lose their owner; the next collection removes those that are nobody's. Answers how many projects went.
///
/// # Errors
/// When the database fails.
pub async fn purge_due(store: &Store, regions: &[RegionId]) -> Result<usize, ProjectError> {
    let due: Vec<String> = sqlx::query_scalar("SELECT project FROM projects WHERE purge_at <= $1")
        .bind(millis(clock::now()))
        .fetch_all(store.reader())
        .await?;
    for name in &due {
        let project: ProjectName = id(name).map_err(ProjectError::Store)?;
        let mut tx = store.write().await?;
        purge(&mut tx, &project, regions).await?;
        tx.commit().await?;
        tracing::info!(%project, "project purged");
    }
    Ok(due.len())
}

/// Rows that name a site, then rows that name a project; `records` stay, so that no generation is used twice.
const PURGE_BY_SITE: [&str; 7] = [
    "DELETE FROM releases WHERE site = $1",
    "DELETE FROM release_packs WHERE site = $1",
    "DELETE FROM rollouts WHERE site = $1",
    "DELETE FROM settlements WHERE site = $1",
    "DELETE FROM region_sites WHERE site = $1",
    "DELETE FROM quarantines WHERE site = $1",
    "DELETE FROM sites WHERE site = $1",
];
const PURGE_BY_PROJECT: [&str; 17] = [
    "DELETE FROM pushes WHERE project = $1",
    "DELETE FROM provenances WHERE project = $1",
    "DELETE FROM bills WHERE project = $1",
    "DELETE FROM links WHERE project = $1",
    "DELETE FROM protections WHERE project = $1",
    "DELETE FROM head_commits WHERE site IN (SELECT site FROM heads WHERE project = $1)",
    "DELETE FROM heads WHERE project = $1",
    "DELETE FROM env_members WHERE project = $1",
    "DELETE FROM env_values WHERE project = $1",
    "DELETE FROM env_revisions WHERE project = $1",
    "DELETE FROM build_lines WHERE build IN (SELECT build FROM builds WHERE project = $1)",
    "DELETE FROM builds WHERE project = $1",
    "DELETE FROM deployments WHERE project = $1",
    "DELETE FROM domains WHERE project = $1",
    "DELETE FROM variants WHERE project = $1",
    "DELETE FROM contents WHERE project = $1",
    "DELETE FROM projects WHERE project = $1",
];

async fn purge(
    tx: &mut Tx,
    project: &ProjectName,
    regions: &[RegionId],
) -> Result<(), ProjectError> {
    for site in sites(tx, project).await? {
        for region in regions {
            let Some(mut record) = records::site(tx, region, &site).await? else {
                continue;
            };
            record.generation = record.generation.next();
            record.epoch = tx.epoch();
            (record.live, record.candidate) = (None, None);
            record.previous.clear();
            record.removed = true;
            records::put_site(tx, &record).await?;
        }
    }
    let all: Vec<String> = sqlx::query_scalar("SELECT site FROM sites WHERE project = $1")
        .bind(project.as_str())
        .fetch_all(&mut **tx)
        .await?;
    for site in &all {
        for statement in PURGE_BY_SITE {
            sqlx::query(statement).bind(site).execute(&mut **tx).await?;
        }
    }
    for statement in PURGE_BY_PROJECT {
        sqlx::query(statement)
            .bind(project.as_str())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}
