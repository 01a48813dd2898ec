//! What a return leaves in SQL: the release before counts as settled again, the region is held, the release quarantined.
//!
//! In the transaction that writes the record, so that there is no moment in which the region is back and the release free.

use helix_routing::api::HoldStatus;
use helix_routing::id::{RegionId, ReleaseId};
use helix_routing::record::ReleaseRef;
use helix_routing::rollout::Rollout;
use helix_service::clock;

use super::RolloutError;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::store::Tx;
use crate::{hold, quarantine};

/// Notes that `region` goes back to `to`. With a reason, what it left is to blame.
pub(super) async fn note(
    tx: &mut Tx,
    machine: &Rollout,
    region: &RegionId,
    (left, to): (&ReleaseId, &ReleaseRef),
    blamed: Option<&str>,
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
    // It may have settled here before another region failed, or somebody aborted: no rollback goes to it.
    sqlx::query("DELETE FROM settlements WHERE site = $1 AND region = $2 AND release_id = $3")
        .bind(machine.site().to_string())
        .bind(region.as_str())
        .bind(left.as_str())
        .execute(&mut **tx)
        .await?;
    match blamed {
        Some(reason) => blame(tx, machine, region, left, reason).await,
        None => Ok(()),
    }
}

/// Holds the region, and notes that the release is not to be used there without a word.
pub(super) async fn blame(
    tx: &mut Tx,
    machine: &Rollout,
    region: &RegionId,
    left: &ReleaseId,
    reason: &str,
) -> Result<(), RolloutError> {
    let reason = format!("went back by itself: {reason}");
    // As the record says it, which was written a moment before.
    let hold = machine
        .record(region)
        .and_then(|record| record.hold.as_ref());
    let held = HoldStatus {
        reason: reason.clone(),
        since: hold.map_or_else(clock::now, |hold| hold.since),
        by: None,
        until: None,
    };
    hold::write(tx, machine.site(), region, &held).await?;
    quarantine::write(tx, machine.site(), region, left, &held).await?;
    let subject = format!("{} {region}", machine.site());
    let detail = format!("rollout {} left {left}", machine.id());
    let act = Act::new("rollout.return", subject)
        .reason(Some(&reason))
        .detail(Some(detail));
    audit::record(tx, &Caller::origin(), act).await?;
    tracing::warn!(
        rollout = %machine.id(), site = %machine.site(), %region, release.id = %left, reason,
        "held and quarantined"
    );
    Ok(())
}
