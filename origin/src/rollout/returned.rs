//! What a return leaves in SQL: the release before counts as settled again, the region is held, the release quarantined.
//!
//! In the transaction that writes the record, so that there is no moment in which the region is back and the release free.

use helix_routing::id::{RegionId, ReleaseId};
use helix_routing::record::ReleaseRef;
use helix_routing::rollout::Rollout;
use helix_service::clock;

use super::RolloutError;
use super::begin::hold;
use crate::store::{self, Tx};

/// Notes that `region` goes back to `to`. With a reason, what it left is to blame.
pub(super) async fn note(
    tx: &mut Tx,
    machine: &Rollout,
    region: &RegionId,
    to: &ReleaseRef,
    blamed: Option<(&ReleaseId, &str)>,
) -> Result<(), RolloutError> {
    sqlx::query(
        "INSERT INTO region_sites (site, region, settled, settled_artifact) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (site, region) DO UPDATE SET settled = excluded.settled, settled_artifact = excluded.settled_artifact",
    )
    .bind(machine.site().to_string())
    .bind(region.as_str())
    .bind(to.release.as_str())
    .bind(to.artifact.as_str())
    .execute(&mut **tx)
    .await?;
    let Some((left, reason)) = blamed else {
        return Ok(());
    };
    let reason = format!("went back by itself: {reason}");
    hold(tx, machine.site(), region, &reason, clock::now()).await?;
    quarantine(tx, machine, region, left, &reason).await?;
    tracing::warn!(
        rollout = %machine.id(), site = %machine.site(), %region, release.id = %left, reason,
        "held and quarantined"
    );
    Ok(())
}

/// From now on the release is deployed to the region only with a word.
pub(super) async fn quarantine(
    tx: &mut Tx,
    machine: &Rollout,
    region: &RegionId,
    release: &ReleaseId,
    reason: &str,
) -> Result<(), RolloutError> {
    sqlx::query(
        "INSERT INTO quarantines (site, region, release_id, reason, since) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (site, region, release_id) DO UPDATE SET reason = excluded.reason, since = excluded.since",
    )
    .bind(machine.site().to_string())
    .bind(region.as_str())
    .bind(release.as_str())
    .bind(store::text(reason))
    .bind(store::millis(clock::now()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}
