//! Removes what nothing references: releases beyond the keep rules, then the blobs that no release names.
//!
//! Invariant: nothing referenced is collected. A site with a running rollout is left alone, and
//! references are read in the transaction that collects. Records are not touched: only rollouts write them,
//! and what a record names, also as a release to go back to, is referenced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use helix_routing::id::{Digest, RegionId, ReleaseId, SiteId};
use helix_service::clock;
use helix_service::shutdown::Shutdown;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::artifact::{Artifacts, variants};
use crate::bill;
use crate::feed::{RecordError, records};
use crate::provenance;
use crate::remote::queue;
use crate::store::{self, Store, StoreError, Tx};

mod keep;

pub use keep::Keep;
use keep::Made;

/// Ages are days; an hour's delay is nothing.
const INTERVAL: Duration = Duration::from_hours(1);
/// After a rollout ends, so that a burst of them is collected after once.
const PAUSE: Duration = Duration::from_secs(2);
/// Blobs removed per transaction: others wait for the write lock meanwhile.
const BATCH: i64 = 100;

/// Collection could not go on; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be read, so what it references is not known.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<sqlx::Error> for CollectError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// What one collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Releases.
    pub releases: usize,
    /// Blobs.
    pub blobs: usize,
}

/// Collects every hour and after rollouts, until shutdown.
pub async fn run(
    store: Store,
    artifacts: Artifacts,
    regions: Vec<RegionId>,
    keep: Keep,
    settled: Arc<Notify>,
    shutdown: &Shutdown,
) {
    loop {
        log(collect(&store, &artifacts, &regions, &keep).await);
        let next = Instant::now() + INTERVAL;
        tokio::select! {
            () = shutdown.requested() => return,
            () = sleep_until(next) => {}
            () = settled.notified() => tokio::select! {
                () = shutdown.requested() => return,
                () = sleep(PAUSE) => {}
            },
        }
    }
}

fn log(result: Result<Collected, CollectError>) {
    match result {
        Ok(Collected {
            releases: 0,
            blobs: 0,
        }) => {}
        Ok(Collected { releases, blobs }) => tracing::info!(releases, blobs, "collected"),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "collection failed"
        ),
    }
}

/// Collects once.
///
/// # Errors
/// When the database fails, or a record cannot be read. What was collected until then stays so.
pub async fn collect(
    store: &Store,
    artifacts: &Artifacts,
    regions: &[RegionId],
    keep: &Keep,
) -> Result<Collected, CollectError> {
    let mut collected = Collected::default();
    let sites: Vec<String> = sqlx::query_scalar(
        "SELECT site FROM releases WHERE collected IS NULL GROUP BY site HAVING COUNT(*) > $1 ORDER BY site",
    )
    .bind(i64::try_from(keep.releases).unwrap_or(i64::MAX))
    .fetch_all(store.reader())
    .await?;
    for site in sites {
        let site: SiteId = store::id(&site)?;
        let mut tx = store.write().await?;
        let gone = collect_releases(&mut tx, &site, regions, keep).await?;
        if gone > 0 {
            tx.commit().await?;
            collected.releases += gone;
        }
    }
    collected.blobs = collect_blobs(store, artifacts, keep).await?;
    if collected.releases > 0 {
        artifacts.export_soon();
    }
    Ok(collected)
}

async fn collect_releases(
    tx: &mut Tx,
    site: &SiteId,
    regions: &[RegionId],
    keep: &Keep,
) -> Result<usize, CollectError> {
    let name = site.to_string();
    let running: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM rollouts WHERE site = $1 AND outcome IS NULL")
            .bind(&name)
            .fetch_one(&mut **tx)
            .await?;
    if running > 0 {
        return Ok(0);
    }
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT release_id, created FROM releases WHERE site = $1 AND collected IS NULL ORDER BY created DESC, release_id")
            .bind(&name)
            .fetch_all(&mut **tx)
            .await?;
    let made = rows.into_iter().map(|(release, created)| {
        Ok(Made {
            release: store::id(&release)?,
            created: store::time(created),
        })
    });
    let made = made.collect::<Result<Vec<_>, StoreError>>()?;
    let now = clock::now();
    let referenced = referenced(tx, site, regions, keep).await?;
    let gone = keep::expendable(keep, now, &made, &referenced);
    for release in &gone {
        sqlx::query("UPDATE releases SET collected = $3 WHERE site = $1 AND release_id = $2")
            .bind(&name)
            .bind(release.as_str())
            .bind(store::millis(now))
            .execute(&mut **tx)
            .await?;
        sqlx::query("DELETE FROM release_packs WHERE site = $1 AND release_id = $2")
            .bind(&name)
            .bind(release.as_str())
            .execute(&mut **tx)
            .await?;
        tracing::info!(%site, release.id = %release, from = "kept", to = "collected", "release");
    }
    if !gone.is_empty() {
        queue::forget(tx, &site.project).await?;
    }
    Ok(gone.len())
}

/// Live, candidate, pinned and previous of every region, the baseline, and what is young evidence of a quarantine.
async fn referenced(
    tx: &mut Tx,
    site: &SiteId,
    regions: &[RegionId],
    keep: &Keep,
) -> Result<BTreeSet<ReleaseId>, CollectError> {
    let mut referenced = BTreeSet::new();
    for region in regions {
        if let Some(record) = records::site(tx, region, site).await? {
            referenced.extend(record.releases().map(|named| named.release.clone()));
        }
    }
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT settled FROM region_sites WHERE site = $1 AND settled IS NOT NULL \
         UNION SELECT release_id FROM pins WHERE site = $1 \
         UNION SELECT release_id FROM quarantines WHERE site = $1 AND since > $2",
    )
    .bind(site.to_string())
    .bind(store::millis(clock::now() - keep.age))
    .fetch_all(&mut **tx)
    .await?;
    for row in rows {
        referenced.insert(store::id(&row)?);
    }
    Ok(referenced)
}

async fn collect_blobs(
    store: &Store,
    artifacts: &Artifacts,
    keep: &Keep,
) -> Result<usize, CollectError> {
    let mut removed = 0;
    loop {
        let mut tx = store.write().await?;
        let rows = unused(&mut tx, keep).await?;
        if rows.is_empty() {
            return Ok(removed);
        }
        for (project, digest) in &rows {
            variants::forget(&mut tx, project, digest).await?;
            provenance::forget(&mut tx, project, digest).await?;
            bill::forget(&mut tx, project, digest).await?;
            sqlx::query("DELETE FROM contents WHERE project = $1 AND pack = $2")
                .bind(project)
                .bind(digest)
                .execute(&mut *tx)
                .await?;
            sqlx::query("DELETE FROM packs WHERE project = $1 AND digest = $2")
                .bind(project)
                .bind(digest)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        removed += rows.len();
        let digests = rows
            .iter()
            .map(|(_, digest)| store::id(digest))
            .collect::<Result<BTreeSet<Digest>, _>>()?;
        remove_files(store, artifacts, digests, keep).await?;
    }
}

/// Blobs of a project that none of its kept releases names and that no deployment can be waiting for.
async fn unused(tx: &mut Tx, keep: &Keep) -> Result<Vec<(String, String)>, CollectError> {
    // A project's name has no character that LIKE reads as a pattern.
    let rows = sqlx::query_as(
        "SELECT p.project, p.digest FROM packs p WHERE p.created <= $1 AND NOT EXISTS ( \
             SELECT 1 FROM release_packs r WHERE r.digest = p.digest AND r.site LIKE p.project || '/%') \
         ORDER BY p.created LIMIT $2",
    )
    .bind(store::millis(clock::now() - keep.upload_grace))
    .bind(BATCH)
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows)
}

/// Projects share files of the same content, so a file goes only when no project names it. The write lock is held
/// meanwhile: an upload cannot name it in between. One that was written a moment ago is about to be named.
async fn remove_files(
    store: &Store,
    artifacts: &Artifacts,
    digests: BTreeSet<Digest>,
    keep: &Keep,
) -> Result<(), CollectError> {
    let mut tx = store.write().await?;
    for digest in digests {
        let named: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM packs WHERE digest = $1")
            .bind(digest.as_str())
            .fetch_one(&mut *tx)
            .await?;
        let path = artifacts.layout().path(&digest);
        let modified = tokio::fs::metadata(&path)
            .await
            .and_then(|file| file.modified())
            .ok();
        let is_young = modified
            .and_then(|at| at.elapsed().ok())
            .is_some_and(|age| age < keep.upload_grace);
        if named > 0 || is_young {
            continue;
        }
        let layout = artifacts.layout().clone();
        let removed = tokio::task::spawn_blocking(move || layout.remove(&digest)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "blob was not removed"
            );
        }
    }
    Ok(())
}
