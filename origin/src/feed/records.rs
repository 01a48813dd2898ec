//! Routing records as SQL holds them: the one way to change what edges are told.
//!
//! Invariant: a record's generation rises by exactly one with every write, and each write leaves a
//! row in the outbox in the same transaction, so nothing that was committed goes unpublished.
//! It does not publish; that is the publisher's.

use std::time::Duration;

use helix_routing::edge::record::EdgeRecord;
use helix_routing::gate::record::GateRecord;
use helix_routing::host::HostPattern;
use helix_routing::id::{EdgeId, Epoch, Generation, RegionId, SiteId};
use helix_routing::key::{self, Scope};
use helix_routing::record::{HostRecord, PurgeRecord, SiteRecord};
use helix_routing::wire::{Wire, WireError};
use helix_service::clock;

use crate::fleet::versions;
use crate::pin;
use crate::protection;
use crate::store::{self, Connection, StoreError, Tx};

/// How long a tombstone stays on the feed. An edge that was away for longer than half of it starts from a snapshot.
pub const TOMBSTONE_LIFE: Duration = Duration::from_hours(7 * 24);

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored is not what this build writes.
    #[error("read record {key}")]
    Malformed {
        /// Its key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: WireError,
    },
    /// Somebody else wrote the generation that was to be written.
    #[error("write record {key}: generation {generation} does not follow the one stored")]
    Conflict {
        /// Its key.
        key: String,
        /// The generation that was to be written.
        generation: Generation,
    },
}

impl From<sqlx::Error> for RecordError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// The record of `site` in `region`; none when it never had one.
///
/// # Errors
/// When the database fails, or holds what this build cannot read.
pub async fn site(
    connection: &mut Connection,
    region: &RegionId,
    site: &SiteId,
) -> Result<Option<SiteRecord>, RecordError> {
    read(connection, &Scope::Region(region.clone()), &key::site(site)).await
}

/// The record of a host, also its tombstone; none when it never had one.
///
/// # Errors
/// When the database fails, or holds what this build cannot read.
pub async fn host(
    connection: &mut Connection,
    pattern: &HostPattern,
) -> Result<Option<HostRecord>, RecordError> {
    read(connection, &Scope::Global, &key::host(pattern)).await
}

/// Whether a rollout runs that owns the records of `site`: it alone writes them, each at the generation after its last.
///
/// # Errors
/// When the database fails.
pub async fn is_owned(connection: &mut Connection, site: &SiteId) -> Result<bool, StoreError> {
    let running: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM rollouts WHERE site = $1 AND outcome IS NULL")
            .bind(site.to_string())
            .fetch_one(connection)
            .await?;
    Ok(running > 0)
}

/// Writes a site's record, whose generation must be the one after the stored one, with the site's pins and its protection, and as
/// every edge of its region reads it.
///
/// # Errors
/// When another generation is stored, or the database fails.
pub async fn put_site(tx: &mut Tx, record: &SiteRecord) -> Result<(), RecordError> {
    let version = versions::of_region(tx, &record.region).await?;
    let mut record = record.clone();
    (record.pins, record.protection) = if record.removed {
        (Vec::new(), None)
    } else {
        let protection = protection::of_site(tx, &record.site).await?;
        let pins = pin::of_site(tx, &record.site).await?;
        (pins, protection.map(Box::new))
    };
    let row = Row {
        scope: Scope::Region(record.region.clone()),
        key: key::site(&record.site),
        generation: record.generation,
        epoch: record.epoch,
        body: record.encode_for(version),
        is_tombstone: record.removed,
    };
    row.write(tx).await
}

/// Writes what is said of a site besides its releases, its pins and its protection, into the records that do not have it yet,
/// unless a rollout owns them.
///
/// # Errors
/// When the database fails.
pub async fn tell(tx: &mut Tx, site: &SiteId) -> Result<(), RecordError> {
    if is_owned(tx, site).await? {
        return Ok(());
    }
    let pins = pin::of_site(tx, site).await?;
    let protection = protection::of_site(tx, site).await?;
    let is_told = |held: &SiteRecord| {
        held.removed || held.pins == pins && held.protection.as_deref() == protection.as_ref()
    };
    for region in regions_of(tx, site).await? {
        let held = self::site(tx, &region, site).await?;
        if let Some(mut record) = held.filter(|held| !is_told(held)) {
            record.generation = record.generation.next();
            record.epoch = tx.epoch();
            put_site(tx, &record).await?;
        }
    }
    Ok(())
}

/// Every region that has a record of the site.
///
/// # Errors
/// When the database fails.
pub async fn regions_of(
    connection: &mut Connection,
    site: &SiteId,
) -> Result<Vec<RegionId>, StoreError> {
    let streams: Vec<String> =
        sqlx::query_scalar("SELECT stream FROM records WHERE record_key = $1 ORDER BY stream")
            .bind(key::site(site))
            .fetch_all(connection)
            .await?;
    let regions = streams
        .iter()
        .filter_map(|stream| stream.strip_prefix("KV_r_"));
    regions.map(store::id).collect()
}

/// Puts a record in the place of the one stored, which is no newer: what edges hold already, written past origin. Nothing is queued.
pub(crate) async fn replace_site(tx: &mut Tx, record: &SiteRecord) -> Result<(), RecordError> {
    sqlx::query(
        "UPDATE records SET generation = $3, epoch = $4, body = $5 \
         WHERE stream = $1 AND record_key = $2 AND generation <= $3",
    )
    .bind(Scope::Region(record.region.clone()).stream())
    .bind(key::site(&record.site))
    .bind(store::number(record.generation.0))
    .bind(store::number(record.epoch.0))
    .bind(record.encode())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The purges of `site` in `region`; none when there never was one.
///
/// # Errors
/// When the database fails, or holds what this build cannot read.
pub async fn purges(
    connection: &mut Connection,
    region: &RegionId,
    site: &SiteId,
) -> Result<Option<PurgeRecord>, RecordError> {
    let scope = Scope::Region(region.clone());
    read(connection, &scope, &key::purge(site)).await
}

/// Writes a site's purges, whose generation must be the one after the stored one.
///
/// # Errors
/// When another generation is stored, or the database fails.
pub async fn put_purges(tx: &mut Tx, record: &PurgeRecord) -> Result<(), RecordError> {
    let row = Row {
        scope: Scope::Region(record.region.clone()),
        key: key::purge(&record.site),
        generation: record.generation,
        epoch: record.epoch,
        body: record.encode(),
        is_tombstone: false,
    };
    row.write(tx).await
}

/// The newest run of gates of `site` in `region`; none when there never was one.
///
/// # Errors
/// When the database fails, or holds what this build cannot read.
pub async fn gate(
    connection: &mut Connection,
    region: &RegionId,
    site: &SiteId,
) -> Result<Option<GateRecord>, RecordError> {
    let scope = Scope::Region(region.clone());
    read(connection, &scope, &key::gate(site)).await
}

/// Writes a run of gates, whose generation must be the one after the stored one.
///
/// # Errors
/// When another generation is stored, or the database fails.
pub async fn put_gate(tx: &mut Tx, record: &GateRecord) -> Result<(), RecordError> {
    let row = Row {
        scope: Scope::Region(record.region.clone()),
        key: key::gate(&record.site),
        generation: record.generation,
        epoch: record.epoch,
        body: record.encode(),
        is_tombstone: false,
    };
    row.write(tx).await
}

/// What an edge is told about itself; none when it never was told anything.
///
/// # Errors
/// When the database fails, or holds what this build cannot read.
pub async fn edge(
    connection: &mut Connection,
    region: &RegionId,
    edge: &EdgeId,
) -> Result<Option<EdgeRecord>, RecordError> {
    let scope = Scope::Region(region.clone());
    read(connection, &scope, &key::edge(edge)).await
}

/// Writes what an edge is told, whose generation must be the one after the stored one.
///
/// # Errors
/// When another generation is stored, or the database fails.
pub async fn put_edge(tx: &mut Tx, record: &EdgeRecord) -> Result<(), RecordError> {
    let row = Row {
        scope: Scope::Region(record.region.clone()),
        key: key::edge(&record.edge),
        generation: record.generation,
        epoch: record.epoch,
        body: record.encode(),
        is_tombstone: false,
    };
    row.write(tx).await
}

/// Whether any site has a record in `region` that is no tombstone.
///
/// # Errors
/// When the database fails.
pub async fn has_sites(
    connection: &mut Connection,
    region: &RegionId,
) -> Result<bool, RecordError> {
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT generation FROM records WHERE stream = $1 AND record_key LIKE 'cut.%' AND removed IS NULL LIMIT 1",
    )
    .bind(Scope::Region(region.clone()).stream())
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// Points a host at a site, or with none leaves a tombstone. What is so already is left alone.
///
/// # Errors
/// When the database fails.
pub async fn put_host(
    tx: &mut Tx,
    pattern: &HostPattern,
    site: Option<&SiteId>,
) -> Result<(), RecordError> {
    let held = host(tx, pattern).await?;
    if held
        .as_ref()
        .map_or_else(|| site.is_none(), |held| held.site.as_ref() == site)
    {
        return Ok(());
    }
    let generation = held.map_or(Generation(0), |held| held.generation).next();
    let record = HostRecord {
        host: pattern.clone(),
        epoch: tx.epoch(),
        generation,
        site: site.cloned(),
    };
    let row = Row {
        scope: Scope::Global,
        key: key::host(pattern),
        generation,
        epoch: record.epoch,
        body: record.encode(),
        is_tombstone: record.site.is_none(),
    };
    row.write(tx).await
}

/// Asks for every record of a stream to be published again.
pub(super) async fn enqueue_all(tx: &mut Tx, stream: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbox (stream, record_key) SELECT stream, record_key FROM records \
         WHERE stream = $1 AND (removed IS NULL OR removed > $2)",
    )
    .bind(stream)
    .bind(store::millis(clock::now() - TOMBSTONE_LIFE))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

struct Row {
    scope: Scope,
    key: String,
    generation: Generation,
    epoch: Epoch,
    body: Vec<u8>,
    is_tombstone: bool,
}

impl Row {
    async fn write(self, tx: &mut Tx) -> Result<(), RecordError> {
        let stream = self.scope.stream();
        let statement = if self.generation == Generation(1) {
            "INSERT INTO records (stream, record_key, generation, epoch, body, removed) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (stream, record_key) DO NOTHING"
        } else {
            "UPDATE records SET generation = $3, epoch = $4, body = $5, removed = $6 \
             WHERE stream = $1 AND record_key = $2 AND generation = $3 - 1"
        };
        let removed = self.is_tombstone.then(|| store::millis(clock::now()));
        let written = sqlx::query(statement)
            .bind(&stream)
            .bind(&self.key)
            .bind(store::number(self.generation.0))
            .bind(store::number(self.epoch.0))
            .bind(&self.body)
            .bind(removed)
            .execute(&mut **tx)
            .await?;
        if written.rows_affected() == 0 {
            return Err(RecordError::Conflict {
                key: self.key,
                generation: self.generation,
            });
        }
        sqlx::query("INSERT INTO outbox (stream, record_key) VALUES ($1, $2)")
            .bind(&stream)
            .bind(&self.key)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}

async fn read<T: Wire>(
    connection: &mut Connection,
    scope: &Scope,
    key: &str,
) -> Result<Option<T>, RecordError> {
    let body: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT body FROM records WHERE stream = $1 AND record_key = $2")
            .bind(scope.stream())
            .bind(key)
            .fetch_optional(connection)
            .await?;
    body.map(|body| {
        T::decode(&body).map_err(|source| RecordError::Malformed {
            key: key.to_owned(),
            source,
        })
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    async fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lead(
            store::testing::of(folder.path())
                .parse::<store::Place>()
                .unwrap(),
        )
        .await
        .unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn a_host_keeps_counting_through_its_tombstone() {
        let (_folder, store) = store().await;
        let pattern: HostPattern = "www.example.com".parse().unwrap();
        let site: SiteId = "shop/production".parse().unwrap();
        let mut tx = store.write().await.unwrap();
        for (to, generation) in [
            (Some(&site), 1),
            (Some(&site), 1),
            (None, 2),
            (None, 2),
            (Some(&site), 3),
        ] {
            put_host(&mut tx, &pattern, to).await.unwrap();
            let held = host(&mut tx, &pattern).await.unwrap().unwrap();
            assert_eq!(
                (held.site.as_ref(), held.generation),
                (to, Generation(generation))
            );
        }
        let queued: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(queued, 3, "what changed nothing is not published");
    }

    #[tokio::test]
    async fn a_generation_is_written_once() {
        let (_folder, store) = store().await;
        let shop = "shop/production".parse().unwrap();
        let mut record = SiteRecord::blank(shop, "fra".parse().unwrap(), store.epoch());
        record.generation = Generation(1);
        let mut tx = store.write().await.unwrap();
        put_site(&mut tx, &record).await.unwrap();
        for (generation, is_next) in [(1, false), (3, false), (2, true), (2, false)] {
            record.generation = Generation(generation);
            assert_eq!(
                put_site(&mut tx, &record).await.is_ok(),
                is_next,
                "generation {generation}"
            );
        }
        assert_eq!(
            site(&mut tx, &record.region, &record.site)
                .await
                .unwrap()
                .unwrap()
                .generation,
            Generation(2)
        );
    }
}
