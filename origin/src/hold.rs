//! Holds: no automatic deployments of a site to a region.
//!
//! Invariant: SQL is where a hold is true. The site's record carries it too, for who looks at an edge; while a rollout runs, whose
//! machine alone writes the records, that follows when it ends ([`carry`]). A hold whose time is over counts for nothing, whether it
//! has been removed yet or not.

use std::collections::BTreeMap;
use std::time::Duration;

use helix_routing::api::{HoldStatus, HoldView};
use helix_routing::id::{Environment, ProjectName, RegionId, RolloutId, SiteId};
use helix_routing::operators::{ClearHolds, HoldsView, MAX_REASON, NewHold};
use helix_routing::record::{Hold, SiteRecord};
use helix_routing::time::Timestamp;
use helix_service::clock;
use helix_service::error::chain;
use helix_service::shutdown::Shutdown;
use tokio::time::MissedTickBehavior;

use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::feed::records::{self, RecordError};
use crate::project::{self, ProjectError};
use crate::store::{self, Connection, Store, StoreError, Tx};

/// The shortest and the longest time to live: one that ends at once says nothing, and one of years is none.
const TTL_MS: std::ops::RangeInclusive<u64> = 1000..=366 * 24 * 60 * 60 * 1000;

/// How often holds whose time is over are looked for. They count for nothing from the moment itself.
const EXPIRY_LOOK: Duration = Duration::from_secs(2);

/// A hold cannot be set or lifted.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The reason says nothing, or too much.
    #[error("a reason is 1 to {MAX_REASON} characters without control characters")]
    Reason,
    /// Not a usable time to live.
    #[error(
        "a hold lasts from one second to 366 days; without a time to live it lasts until it is lifted"
    )]
    Ttl,
    /// There is no such region.
    #[error("there is no region {0}")]
    UnknownRegion(RegionId),
    /// The project has no such site.
    #[error("there is no site {0}; a site is made by its first deployment")]
    UnknownSite(SiteId),
    /// The project has not been deployed.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// A record could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for HoldError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// The sites and regions that a word of an operator is for.
struct Scope {
    sites: Vec<SiteId>,
    regions: Vec<RegionId>,
}

/// Holds what `new` names, over a hold that is there already.
///
/// # Errors
/// As [`HoldError`] says.
pub async fn set(
    tx: &mut Tx,
    caller: &Caller,
    project: &ProjectName,
    new: NewHold,
    all: &[RegionId],
) -> Result<HoldsView, HoldError> {
    check_reason(&new.reason)?;
    if new.ttl_ms.is_some_and(|ttl| !TTL_MS.contains(&ttl)) {
        return Err(HoldError::Ttl);
    }
    let scope = scope(tx, project, new.environment, new.regions, all).await?;
    let now = clock::now();
    let status = HoldStatus {
        reason: new.reason,
        since: now,
        by: Some(caller.name.clone()),
        until: new.ttl_ms.map(|ttl| now + Duration::from_millis(ttl)),
    };
    let mut holds = Vec::new();
    for site in &scope.sites {
        for region in &scope.regions {
            write(tx, site, region, &status).await?;
            let act = Act::new("hold.set", format!("{site} {region}"))
                .site(site)
                .reason(Some(&status.reason))
                .detail(status.until.map(|until| format!("until {until}")));
            audit::record(tx, caller, act).await?;
            holds.push(HoldView {
                site: site.clone(),
                region: region.clone(),
                hold: status.clone(),
            });
        }
        carry(tx, site).await?;
    }
    let running = running(tx, &scope.sites).await?;
    Ok(HoldsView { holds, running })
}

/// Lifts the holds that `wanted` names, and says which those were.
///
/// # Errors
/// As [`HoldError`] says.
pub async fn clear(
    tx: &mut Tx,
    caller: &Caller,
    project: &ProjectName,
    wanted: ClearHolds,
    all: &[RegionId],
) -> Result<HoldsView, HoldError> {
    if let Some(reason) = &wanted.reason {
        check_reason(reason)?;
    }
    let scope = scope(tx, project, wanted.environment, wanted.regions, all).await?;
    let now = clock::now();
    let mut holds = Vec::new();
    for site in &scope.sites {
        for (region, hold) in in_force(tx, site, now).await? {
            if !scope.regions.contains(&region) {
                continue;
            }
            remove(tx, site, &region).await?;
            let act = Act::new("hold.clear", format!("{site} {region}"))
                .site(site)
                .reason(wanted.reason.as_deref())
                .detail(Some(format!("it was held: {}", hold.reason)));
            audit::record(tx, caller, act).await?;
            holds.push(HoldView {
                site: site.clone(),
                region,
                hold,
            });
        }
        carry(tx, site).await?;
    }
    let running = running(tx, &scope.sites).await?;
    Ok(HoldsView { holds, running })
}

/// Every hold in force, of one project or of all.
///
/// # Errors
/// When the database fails.
pub async fn list(
    connection: &mut Connection,
    project: Option<&ProjectName>,
) -> Result<Vec<HoldView>, StoreError> {
    let now = clock::now();
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT site, region, hold_reason, hold_since, hold_by, hold_until FROM region_sites \
         WHERE hold_reason IS NOT NULL ORDER BY site, region",
    )
    .fetch_all(connection)
    .await?;
    let mut holds = Vec::with_capacity(rows.len());
    for row in rows {
        let (view, is_over) = view(row, now)?;
        if !is_over && project.is_none_or(|project| view.site.project == *project) {
            holds.push(view);
        }
    }
    Ok(holds)
}

/// The regions where `site` is held now.
///
/// # Errors
/// When the database fails.
pub async fn in_force(
    connection: &mut Connection,
    site: &SiteId,
    now: Timestamp,
) -> Result<BTreeMap<RegionId, HoldStatus>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT site, region, hold_reason, hold_since, hold_by, hold_until FROM region_sites \
         WHERE site = $1 AND hold_reason IS NOT NULL",
    )
    .bind(site.to_string())
    .fetch_all(connection)
    .await?;
    let mut held = BTreeMap::new();
    for row in rows {
        let (view, is_over) = view(row, now)?;
        if !is_over {
            held.insert(view.region, view.hold);
        }
    }
    Ok(held)
}

/// Writes a hold over what there was. The record follows by [`carry`], or by who writes it.
///
/// # Errors
/// When the database fails.
pub async fn write(
    tx: &mut Tx,
    site: &SiteId,
    region: &RegionId,
    hold: &HoldStatus,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO region_sites (site, region, hold_reason, hold_since, hold_by, hold_until) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (site, region) DO UPDATE SET hold_reason = excluded.hold_reason, hold_since = excluded.hold_since, \
         hold_by = excluded.hold_by, hold_until = excluded.hold_until",
    )
    .bind(site.to_string())
    .bind(region.as_str())
    .bind(&hold.reason)
    .bind(store::millis(hold.since))
    .bind(&hold.by)
    .bind(hold.until.map(store::millis))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends a hold. The record follows by [`carry`], or by who writes it.
///
/// # Errors
/// When the database fails.
pub async fn remove(tx: &mut Tx, site: &SiteId, region: &RegionId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE region_sites SET hold_reason = NULL, hold_since = NULL, hold_by = NULL, hold_until = NULL \
         WHERE site = $1 AND region = $2",
    )
    .bind(site.to_string())
    .bind(region.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Lets the records of a site say what SQL says of its holds, unless a rollout runs: then its machine alone writes them, and this is
/// called when it has ended.
///
/// # Errors
/// When a record cannot be written, or the database fails.
pub async fn carry(tx: &mut Tx, site: &SiteId) -> Result<(), RecordError> {
    if !running(tx, std::slice::from_ref(site)).await?.is_empty() {
        return Ok(());
    }
    let held = in_force(tx, site, clock::now()).await?;
    let rows: Vec<String> = sqlx::query_scalar("SELECT region FROM region_sites WHERE site = $1")
        .bind(site.to_string())
        .fetch_all(&mut **tx)
        .await?;
    for row in rows {
        let region: RegionId = store::id(&row)?;
        let wanted = held.get(&region).map(|hold| Hold {
            reason: hold.reason.clone(),
            since: hold.since,
        });
        let record = records::site(tx, &region, site).await?;
        let differs = |record: &SiteRecord| !record.removed && record.hold != wanted;
        if let Some(mut record) = record.filter(differs) {
            record.hold = wanted;
            record.generation = record.generation.next();
            record.epoch = tx.epoch();
            records::put_site(tx, &record).await?;
        }
    }
    Ok(())
}

/// Removes the holds whose time is over, each as an act of origin's own. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn expire(store: &Store) -> Result<usize, HoldError> {
    let due: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM region_sites WHERE hold_until <= $1")
        .bind(store::millis(clock::now()))
        .fetch_one(store.reader())
        .await?;
    if due == 0 {
        return Ok(0);
    }
    let mut tx = store.write().await?;
    let now = clock::now();
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT site, region, hold_reason, hold_since, hold_by, hold_until FROM region_sites \
         WHERE hold_until <= $1 AND hold_reason IS NOT NULL ORDER BY site, region",
    )
    .bind(store::millis(now))
    .fetch_all(&mut *tx)
    .await?;
    let expired = rows.len();
    for row in rows {
        let (HoldView { site, region, hold }, _) = view(row, now)?;
        remove(&mut tx, &site, &region).await?;
        let act = Act::new("hold.expire", format!("{site} {region}"))
            .site(&site)
            .reason(Some(&hold.reason));
        audit::record(&mut tx, &Caller::origin(), act).await?;
        carry(&mut tx, &site).await?;
    }
    tx.commit().await?;
    Ok(expired)
}

/// Looks for holds whose time is over, until shutdown. A failure is logged and tried again the next time.
pub async fn run(store: &Store, shutdown: &Shutdown) {
    let mut ticks = tokio::time::interval(EXPIRY_LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = expire(store).await {
            tracing::warn!(error = %chain(&error), "holds whose time is over are not removed");
        }
    }
}

/// Refuses a reason that says nothing, or too much.
///
/// # Errors
/// Then.
pub fn check_reason(reason: &str) -> Result<(), HoldError> {
    let length = reason.trim().chars().count();
    if (1..=MAX_REASON).contains(&length) && !reason.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(HoldError::Reason)
    }
}

async fn scope(
    tx: &mut Tx,
    project: &ProjectName,
    environment: Option<Environment>,
    regions: Option<Vec<RegionId>>,
    all: &[RegionId],
) -> Result<Scope, HoldError> {
    project::check(tx, project).await?;
    let mut sites = project::sites(tx, project).await?;
    if let Some(environment) = environment {
        sites.retain(|site| site.environment == environment);
        if sites.is_empty() {
            return Err(HoldError::UnknownSite(SiteId {
                project: project.clone(),
                environment,
            }));
        }
    }
    let regions = match regions {
        None => all.to_vec(),
        Some(named) => {
            if let Some(unknown) = named.iter().find(|region| !all.contains(region)) {
                return Err(HoldError::UnknownRegion(unknown.clone()));
            }
            named
        }
    };
    Ok(Scope { sites, regions })
}

async fn running(
    connection: &mut Connection,
    sites: &[SiteId],
) -> Result<Vec<RolloutId>, StoreError> {
    let mut running = Vec::new();
    for site in sites {
        let rows: Vec<String> =
            sqlx::query_scalar("SELECT rollout FROM rollouts WHERE site = $1 AND outcome IS NULL")
                .bind(site.to_string())
                .fetch_all(&mut *connection)
                .await?;
        for row in rows {
            running.push(store::id(&row)?);
        }
    }
    Ok(running)
}

type Row = (
    String,
    String,
    String,
    Option<i64>,
    Option<String>,
    Option<i64>,
);

/// The hold of a row, and whether its time is over.
fn view(row: Row, now: Timestamp) -> Result<(HoldView, bool), StoreError> {
    let (site, region, reason, since, by, until) = row;
    let until = until.map(store::time);
    let view = HoldView {
        site: store::id(&site)?,
        region: store::id(&region)?,
        hold: HoldStatus {
            reason,
            since: store::time(since.unwrap_or_default()),
            by,
            until,
        },
    };
    Ok((view, until.is_some_and(|until| until <= now)))
}
