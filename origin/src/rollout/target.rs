//! Where a rollback goes, region by region. Reads; changes nothing.
//!
//! Without a name: the newest settled release older than the live one, not quarantined and not collected, so
//! a second rollback goes further back, never forward. With a name: that release, in every region in scope.
//!
//! A region that is going back by itself counts as being where it leaves: whoever presses at that moment wants what it goes back to,
//! and not the one before that.

use std::collections::BTreeMap;
use std::time::Duration;

use helix_routing::api::{PhaseName, RolloutView};
use helix_routing::id::{Generation, RegionId, ReleaseId, SiteId};
use helix_routing::record::ReleaseRef;

use super::{NewRollback, RolloutError, saved};
use crate::feed::records;
use crate::store::{self, Connection};

/// What a rollback changes in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The region.
    pub region: RegionId,
    /// What is live.
    pub from: Option<ReleaseRef>,
    /// What will be.
    pub to: ReleaseRef,
    /// Generation of the region's record.
    pub generation: Generation,
    /// What will be quarantined, unless it is.
    pub quarantines: Option<ReleaseId>,
}

/// The rollout that runs, as a rollback finds it.
#[derive(Clone, Debug)]
pub struct Preempted {
    /// All that is known of it.
    pub view: RolloutView,
    /// What is live in its regions.
    pub live: BTreeMap<RegionId, ReleaseId>,
    /// What regions that go back by themselves are leaving.
    returning: BTreeMap<RegionId, ReleaseRef>,
}

/// The rollout of `site` that runs, if one does.
pub(super) async fn preempted(
    connection: &mut Connection,
    site: &SiteId,
) -> Result<Option<Preempted>, RolloutError> {
    let Some(running) = saved::running(connection, &site.to_string()).await? else {
        return Ok(None);
    };
    let view = running.view();
    let (mut live, mut returning) = (BTreeMap::new(), BTreeMap::new());
    for region in &view.regions {
        let Some(record) = running.machine.record(&region.region) else {
            continue;
        };
        if let Some(release) = &record.live {
            live.insert(region.region.clone(), release.release.clone());
        }
        let left = record
            .previous
            .first()
            .filter(|left| left.release == region.release);
        if let (PhaseName::RollingBack, Some(left)) = (region.phase, left) {
            returning.insert(region.region.clone(), left.clone());
        }
    }
    Ok(Some(Preempted {
        view,
        live,
        returning,
    }))
}

/// What one region offers.
enum Offer {
    Step(Step),
    /// The named release is live here.
    AlreadyLive,
    /// Nothing is live here, so there is nothing to go back from.
    NeverLive,
    NothingOlder,
}

/// The steps of a rollback. Regions that offer none are left out, unless they were asked for by name.
pub(super) async fn steps(
    connection: &mut Connection,
    wanted: &NewRollback,
    regions: &[RegionId],
    running: Option<&Preempted>,
) -> Result<Vec<Step>, RolloutError> {
    let named = match &wanted.release {
        Some(release) => Some(named_release(connection, &wanted.site, release, regions).await?),
        None => None,
    };
    let (mut steps, mut already, mut older, mut never) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for region in regions {
        let leaving = running.and_then(|running| running.returning.get(region));
        match offer(connection, &wanted.site, region, named.as_ref(), leaving).await? {
            Offer::Step(step) => steps.push(step),
            Offer::AlreadyLive => already.push(region.clone()),
            Offer::NothingOlder => older.push(region.clone()),
            Offer::NeverLive => never.push(region.clone()),
        }
    }
    let is_by_name = wanted.regions.is_some();
    if !older.is_empty() && (is_by_name || steps.is_empty()) {
        return Err(RolloutError::NothingOlder {
            site: wanted.site.clone(),
            regions: older,
        });
    }
    if let (Some(named), true) = (named, steps.is_empty() && !already.is_empty()) {
        return Err(RolloutError::AlreadyLive {
            release: named.release,
            regions: already,
        });
    }
    if !never.is_empty() && (is_by_name || steps.is_empty()) {
        return Err(RolloutError::NeverLive {
            what: wanted.site.to_string(),
        });
    }
    Ok(steps)
}

async fn offer(
    connection: &mut Connection,
    site: &SiteId,
    region: &RegionId,
    named: Option<&ReleaseRef>,
    leaving: Option<&ReleaseRef>,
) -> Result<Offer, RolloutError> {
    let Some(record) = records::site(connection, region, site).await? else {
        return Ok(Offer::NeverLive);
    };
    let Some(live) = record.live else {
        return Ok(Offer::NeverLive);
    };
    let to = match (named, leaving) {
        (Some(named), None) if *named == live => return Ok(Offer::AlreadyLive),
        (Some(named), _) => Some(named.clone()),
        (None, Some(_)) => Some(live.clone()),
        (None, None) => newest_older(connection, site, region, &live.release).await?,
    };
    let Some(to) = to else {
        return Ok(Offer::NothingOlder);
    };
    let from = leaving.unwrap_or(&live).clone();
    let here = std::slice::from_ref(region);
    let is_marked = !quarantined(connection, site, &from.release, here)
        .await?
        .is_empty();
    Ok(Offer::Step(Step {
        region: region.clone(),
        quarantines: (!is_marked && from != to).then(|| from.release.clone()),
        from: Some(from),
        to,
        generation: record.generation,
    }))
}

/// A live release that never settled here, after a commit that was superseded, counts as newer than all that did.
async fn newest_older(
    connection: &mut Connection,
    site: &SiteId,
    region: &RegionId,
    live: &ReleaseId,
) -> Result<Option<ReleaseRef>, RolloutError> {
    let row: Option<(String, String)> = sqlx::query_as(
        "SELECT s.release_id, s.artifact FROM settlements s \
         JOIN releases r ON r.site = s.site AND r.release_id = s.release_id \
         WHERE s.site = $1 AND s.region = $2 AND s.release_id <> $3 AND r.collected IS NULL \
         AND s.position < COALESCE((SELECT position FROM settlements WHERE site = $1 AND region = $2 AND release_id = $3), \
             (SELECT MAX(position) + 1 FROM settlements WHERE site = $1 AND region = $2)) \
         AND NOT EXISTS (SELECT 1 FROM quarantines q \
             WHERE q.site = $1 AND q.region = $2 AND q.release_id = s.release_id) \
         ORDER BY s.position DESC LIMIT 1",
    )
    .bind(site.to_string())
    .bind(region.as_str())
    .bind(live.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(|(release, artifact)| {
        Ok(ReleaseRef {
            release: store::id(&release)?,
            artifact: store::id(&artifact)?,
        })
    })
    .transpose()
}

/// A named release has to be there, to have been live once, and not to be quarantined where it is to go.
async fn named_release(
    connection: &mut Connection,
    site: &SiteId,
    release: &ReleaseId,
    regions: &[RegionId],
) -> Result<ReleaseRef, RolloutError> {
    let named = kept(connection, site, release).await?.release;
    let settled: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM settlements WHERE site = $1 AND release_id = $2")
            .bind(site.to_string())
            .bind(release.as_str())
            .fetch_one(&mut *connection)
            .await?;
    if settled == 0 {
        return Err(RolloutError::NeverLive {
            what: format!("release {release} of {site}"),
        });
    }
    let quarantined = quarantined(connection, site, release, regions).await?;
    if !quarantined.is_empty() {
        return Err(RolloutError::Quarantined {
            release: release.clone(),
            regions: quarantined,
        });
    }
    Ok(named)
}

/// A release that is not collected, and what its prepare deadline depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The release.
    pub release: ReleaseRef,
    /// Its size.
    pub bytes: u64,
    /// How long its gates may take on an edge.
    pub gates: Duration,
}

/// A release of `site`, unless it was collected.
///
/// # Errors
/// When it was, when there is none, or when the database fails.
pub async fn kept(
    connection: &mut Connection,
    site: &SiteId,
    release: &ReleaseId,
) -> Result<Kept, RolloutError> {
    let row: Option<(String, i64, i64, Option<i64>)> = sqlx::query_as(
        "SELECT artifact, bytes, gates_ms, collected FROM releases WHERE site = $1 AND release_id = $2",
    )
    .bind(site.to_string())
    .bind(release.as_str())
    .fetch_optional(connection)
    .await?;
    let (site, release) = (site.clone(), release.clone());
    match row {
        None => Err(RolloutError::UnknownRelease { site, release }),
        Some((_, _, _, Some(_))) => Err(RolloutError::Collected { site, release }),
        Some((artifact, bytes, gates, None)) => Ok(Kept {
            release: ReleaseRef {
                release,
                artifact: store::id(&artifact)?,
            },
            bytes: store::count(bytes, "releases.bytes")?,
            gates: Duration::from_millis(store::count(gates, "releases.gates_ms")?),
        }),
    }
}

/// Those of `regions` where the release may not be used without a word.
pub(super) async fn quarantined(
    connection: &mut Connection,
    site: &SiteId,
    release: &ReleaseId,
    regions: &[RegionId],
) -> Result<Vec<RegionId>, RolloutError> {
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT region FROM quarantines WHERE site = $1 AND release_id = $2 ORDER BY region",
    )
    .bind(site.to_string())
    .bind(release.as_str())
    .fetch_all(connection)
    .await?;
    let mut found = Vec::new();
    for row in rows {
        let region: RegionId = store::id(&row)?;
        if regions.contains(&region) {
            found.push(region);
        }
    }
    Ok(found)
}
