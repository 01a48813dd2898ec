//! Releases that may not be deployed without the word, region by region, by an operator's hand.
//!
//! It changes nothing that is served: whoever wants a release off the edges rolls back. What a return or a rollback leaves is marked
//! by [`crate::rollout`] in the transaction that leaves it.

use helix_routing::api::HoldStatus;
use helix_routing::id::{ProjectName, RegionId, ReleaseId, SiteId};
use helix_routing::operators::{NewQuarantine, QuarantineView};
use helix_service::clock;

use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::feed::records;
use crate::gate::{self, GateError};
use crate::hold::{self, HoldError};
use crate::project;
use crate::store::{self, Connection, StoreError, Tx};

/// A release cannot be marked.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// There is no such release, or it was collected.
    #[error(transparent)]
    Release(#[from] GateError),
    /// The reason or the region is none.
    #[error(transparent)]
    Scope(#[from] HoldError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for QuarantineError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// Marks a release in each region that is named.
///
/// # Errors
/// As [`QuarantineError`] says.
pub async fn set(
    tx: &mut Tx,
    caller: &Caller,
    release: &ReleaseId,
    new: &NewQuarantine,
    all: &[RegionId],
) -> Result<Vec<QuarantineView>, QuarantineError> {
    let (site, regions) = scope(tx, release, new, all).await?;
    let now = clock::now();
    let mark = HoldStatus {
        reason: new.reason.clone(),
        since: now,
        by: Some(caller.name.clone()),
        until: None,
    };
    let mut marked = Vec::with_capacity(regions.len());
    for region in regions {
        write(tx, &site, &region, release, &mark).await?;
        let act = Act::new("release.quarantine", format!("{site} {release} {region}"));
        audit::record(tx, caller, act.reason(Some(&new.reason))).await?;
        let record = records::site(tx, &region, &site)
            .await
            .map_err(HoldError::from)?;
        let live = record.and_then(|record| record.live);
        marked.push(QuarantineView {
            site: site.clone(),
            region,
            release: release.clone(),
            reason: mark.reason.clone(),
            since: now,
            by: mark.by.clone(),
            live: live.is_some_and(|live| live.release == *release),
        });
    }
    Ok(marked)
}

/// Takes the marks back, and says which those were.
///
/// # Errors
/// As [`QuarantineError`] says.
pub async fn lift(
    tx: &mut Tx,
    caller: &Caller,
    release: &ReleaseId,
    new: &NewQuarantine,
    all: &[RegionId],
) -> Result<Vec<QuarantineView>, QuarantineError> {
    let (site, regions) = scope(tx, release, new, all).await?;
    let mut lifted = list(tx, Some(&site.project)).await?;
    lifted.retain(|mark| mark.release == *release && regions.contains(&mark.region));
    for mark in &lifted {
        sqlx::query("DELETE FROM quarantines WHERE site = $1 AND region = $2 AND release_id = $3")
            .bind(site.to_string())
            .bind(mark.region.as_str())
            .bind(release.as_str())
            .execute(&mut **tx)
            .await?;
        let act = Act::new(
            "release.unquarantine",
            format!("{site} {release} {}", mark.region),
        );
        let detail = format!("it was quarantined: {}", mark.reason);
        let act = act.reason(Some(&new.reason)).detail(Some(detail));
        audit::record(tx, caller, act).await?;
    }
    Ok(lifted)
}

/// Every mark, of one project or of all.
///
/// # Errors
/// When the database fails.
pub async fn list(
    connection: &mut Connection,
    project: Option<&ProjectName>,
) -> Result<Vec<QuarantineView>, QuarantineError> {
    type Row = (String, String, String, String, i64, Option<String>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT site, region, release_id, reason, since, by_whom FROM quarantines ORDER BY site, release_id, region",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut marks = Vec::with_capacity(rows.len());
    for (site, region, release, reason, since, by) in rows {
        let (site, region): (SiteId, RegionId) = (store::id(&site)?, store::id(&region)?);
        if project.is_some_and(|project| site.project != *project) {
            continue;
        }
        let release: ReleaseId = store::id(&release)?;
        let record = records::site(connection, &region, &site)
            .await
            .map_err(HoldError::from)?;
        let live = record.and_then(|record| record.live);
        marks.push(QuarantineView {
            live: live.is_some_and(|live| live.release == release),
            since: store::time(since),
            site,
            region,
            release,
            reason,
            by,
        });
    }
    Ok(marks)
}

/// Writes a mark over what there was.
///
/// # Errors
/// When the database fails.
pub async fn write(
    tx: &mut Tx,
    site: &SiteId,
    region: &RegionId,
    release: &ReleaseId,
    mark: &HoldStatus,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO quarantines (site, region, release_id, reason, since, by_whom) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (site, region, release_id) DO UPDATE SET reason = excluded.reason, since = excluded.since, \
         by_whom = excluded.by_whom",
    )
    .bind(site.to_string())
    .bind(region.as_str())
    .bind(release.as_str())
    .bind(&mark.reason)
    .bind(store::millis(mark.since))
    .bind(&mark.by)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn scope(
    tx: &mut Tx,
    release: &ReleaseId,
    new: &NewQuarantine,
    all: &[RegionId],
) -> Result<(SiteId, Vec<RegionId>), QuarantineError> {
    hold::check_reason(&new.reason)?;
    let site = gate::find(tx, release).await?.site;
    project::check(tx, &site.project)
        .await
        .map_err(HoldError::from)?;
    let named = new.regions.as_deref().unwrap_or(all);
    if let Some(unknown) = named.iter().find(|region| !all.contains(region)) {
        return Err(HoldError::UnknownRegion(unknown.clone()).into());
    }
    Ok((site, named.to_vec()))
}
