//! What edges hold becomes what the database says, in one transaction.

use helix_routing::host::HostPattern;
use helix_routing::id::Epoch;
use helix_routing::record::{HostRecord, SiteRecord};
use helix_routing::wire::Wire as _;
use helix_service::clock;

use super::heard::{Heard, Held};
use super::{Due, Fleet, RecoveryError};
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::protection;
use crate::store::{self, Store, Tx};

/// One transaction: records, what hangs on them, the term, and the end of every stream's life.
pub(super) async fn take_over(
    store: &Store,
    fleet: &Fleet<'_>,
    due: Due,
    heard: Heard,
) -> Result<(), RecoveryError> {
    let mut tx = store.write().await?;
    let highest = heard.highest.max(tx.epoch());
    let newer = take_records(&mut tx, fleet, due, heard).await?;
    end_lives(&mut tx, highest).await?;
    sqlx::query("UPDATE recoveries SET done = $2 WHERE restored = $1")
        .bind(due.restored)
        .bind(store::millis(clock::now()))
        .execute(&mut *tx)
        .await?;
    let detail = format!(
        "backup of {}; {newer} records of the edges were newer; the highest term seen is {highest}",
        due.made.rfc3339()
    );
    let act = Act::new("recovery.take_over", "fleet").detail(Some(detail));
    audit::record(&mut tx, &Caller::origin(), act).await?;
    tx.commit().await?;
    tracing::warn!(
        records = newer,
        epoch = highest.0,
        "what the edges hold is taken over"
    );
    Ok(())
}

/// Takes over what is newer than the backup, and says how much that was.
async fn take_records(
    tx: &mut Tx,
    fleet: &Fleet<'_>,
    due: Due,
    heard: Heard,
) -> Result<u64, RecoveryError> {
    let mut newer = 0_u64;
    for ((stream, key), held) in heard.records {
        if !put(tx, &stream, &key, &held).await? {
            continue;
        }
        newer += 1;
        match key.split('.').next() {
            Some("cut") => {
                if let Ok(site) = SiteRecord::decode(&held.body) {
                    know_site(tx, &site, due).await?;
                }
            }
            Some("h" | "w") => {
                if let Ok(host) = HostRecord::decode(&held.body) {
                    know_host(tx, &host, fleet).await?;
                }
            }
            Some(_) | None => {}
        }
    }
    Ok(newer)
}

async fn end_lives(tx: &mut Tx, highest: Epoch) -> Result<(), RecoveryError> {
    for statement in [
        // Every stream begins a new life, with everything that is now known.
        "DELETE FROM streams",
        "DELETE FROM outbox",
    ] {
        sqlx::query(statement).execute(&mut **tx).await?;
    }
    sqlx::query("UPDATE terms SET epoch = $1 WHERE id = 1")
        .bind(store::number(highest.0))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Stores a record of the edges if it is newer than the one stored. True when it is.
async fn put(tx: &mut Tx, stream: &str, key: &str, held: &Held) -> Result<bool, RecoveryError> {
    let removed = is_tombstone(key, &held.body).then(|| store::millis(clock::now()));
    let written = sqlx::query(
        "INSERT INTO records (stream, record_key, generation, epoch, body, removed) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (stream, record_key) DO UPDATE SET generation = excluded.generation, epoch = excluded.epoch, \
         body = excluded.body, removed = excluded.removed WHERE records.generation < excluded.generation",
    )
    .bind(stream)
    .bind(key)
    .bind(store::number(held.generation.0))
    .bind(store::number(held.epoch.0))
    .bind(&held.body)
    .bind(removed)
    .execute(&mut **tx)
    .await?;
    Ok(written.rows_affected() == 1)
}

fn is_tombstone(key: &str, body: &[u8]) -> bool {
    match key.split('.').next() {
        Some("cut") => SiteRecord::decode(body).is_ok_and(|site| site.removed),
        Some("h" | "w") => HostRecord::decode(body).is_ok_and(|host| host.site.is_none()),
        Some(_) | None => false,
    }
}

/// A site that went on after the backup: it is known from now on, nothing of it runs, and it is held.
async fn know_site(tx: &mut Tx, record: &SiteRecord, due: Due) -> Result<(), RecoveryError> {
    let (site, now) = (record.site.to_string(), store::millis(clock::now()));
    for (statement, arguments) in [
        (
            "INSERT INTO projects (project, created) VALUES ($1, $2) ON CONFLICT (project) DO NOTHING",
            record.site.project.to_string(),
        ),
        (
            "UPDATE rollouts SET outcome = 'superseded', changed = $2 WHERE site = $1 AND outcome IS NULL",
            site.clone(),
        ),
    ] {
        sqlx::query(statement)
            .bind(arguments)
            .bind(now)
            .execute(&mut **tx)
            .await?;
    }
    sqlx::query(
        "INSERT INTO sites (site, project, created) VALUES ($1, $2, $3) ON CONFLICT (site) DO NOTHING",
    )
    .bind(&site)
    .bind(record.site.project.as_str())
    .bind(now)
    .execute(&mut **tx)
    .await?;
    if record.removed {
        return Ok(());
    }
    protection::adopt(tx, record).await?;
    let reason = format!(
        "restored from a backup of {}: the edges went on to generation {} since",
        due.made.rfc3339(),
        record.generation
    );
    sqlx::query(
        "INSERT INTO region_sites (site, region, hold_reason, hold_since, note, settled, settled_artifact) \
         VALUES ($1, $2, $3, $4, $3, $5, $6) \
         ON CONFLICT (site, region) DO UPDATE SET hold_reason = excluded.hold_reason, hold_since = excluded.hold_since, \
         hold_by = NULL, hold_until = NULL, note = excluded.note, \
         settled = excluded.settled, settled_artifact = excluded.settled_artifact",
    )
    .bind(&site)
    .bind(record.region.as_str())
    .bind(&reason)
    .bind(now)
    // What is served is what one compares with, and goes back to.
    .bind(record.live.as_ref().map(|live| live.release.to_string()))
    .bind(record.live.as_ref().map(|live| live.artifact.to_string()))
    .execute(&mut **tx)
    .await?;
    tracing::warn!(site, region = %record.region, generation = record.generation.0, "the backup did not know of this generation");
    Ok(())
}

/// A host of somebody's own that came or went after the backup.
async fn know_host(
    tx: &mut Tx,
    record: &HostRecord,
    fleet: &Fleet<'_>,
) -> Result<(), RecoveryError> {
    let host = record.host.to_string();
    let is_built_in = match &record.host {
        HostPattern::Exact(host) => helix_routing::host::under_base(host, fleet.base).is_some(),
        HostPattern::Wildcard(_) => false,
    };
    if is_built_in {
        return Ok(());
    }
    match &record.site {
        Some(site) => {
            sqlx::query(
                "INSERT INTO domains (host, project, site, added) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (host) DO UPDATE SET project = excluded.project, site = excluded.site",
            )
            .bind(&host)
            .bind(site.project.as_str())
            .bind(site.to_string())
            .bind(store::millis(clock::now()))
            .execute(&mut **tx)
            .await?;
        }
        None => {
            sqlx::query("DELETE FROM domains WHERE host = $1")
                .bind(&host)
                .execute(&mut **tx)
                .await?;
        }
    }
    Ok(())
}
