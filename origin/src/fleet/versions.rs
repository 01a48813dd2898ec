//! Which records edges can read. Origin writes the oldest version that an edge of the region reads, so that a fleet can be
//! upgraded one edge at a time, and back.
//!
//! Invariant: a generation is written in one version and published in no other, since edges compare bytes. What was
//! written in a version that an edge turns out not to read is written again, at the next generation; where a rollout
//! runs, its own next write does that.

use std::collections::BTreeMap;

use helix_routing::id::{EdgeId, RegionId, SiteId};
use helix_routing::key::Scope;
use helix_routing::record::SiteRecord;
use helix_routing::report::Heartbeat;
use helix_routing::wire::Wire;

use super::Edge;
use crate::feed::records::{self, RecordError};
use crate::store::{self, Connection, Store, StoreError, Tx};

/// Records that are looked at in one transaction.
const PAGE_ROWS: i64 = 256;

/// The version in which site records of `region` are written: the oldest that one of its edges reads. Nothing is known
/// of a region of which no edge has said anything.
///
/// # Errors
/// When the database fails.
pub async fn of_region(connection: &mut Connection, region: &RegionId) -> Result<u8, StoreError> {
    let oldest: Option<i64> =
        sqlx::query_scalar("SELECT MIN(site_record) FROM edge_versions WHERE region = $1")
            .bind(region.as_str())
            .fetch_one(connection)
            .await?;
    let oldest = oldest.and_then(|oldest| u8::try_from(oldest).ok());
    Ok(oldest.unwrap_or(SiteRecord::OLDEST))
}

/// Takes over the list of edges: what a new one reads is not known, and what is gone does not count.
///
/// # Errors
/// When the database fails.
pub async fn register(store: &Store, edges: &[Edge]) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    let held: Vec<String> = sqlx::query_scalar("SELECT edge FROM edge_versions")
        .fetch_all(&mut *tx)
        .await?;
    for gone in held
        .iter()
        .filter(|held| !edges.iter().any(|edge| edge.edge.as_str() == **held))
    {
        sqlx::query("DELETE FROM edge_versions WHERE edge = $1")
            .bind(gone)
            .execute(&mut *tx)
            .await?;
    }
    for edge in edges {
        sqlx::query(
            "INSERT INTO edge_versions (edge, region, site_record) VALUES ($1, $2, $3) \
             ON CONFLICT (edge) DO UPDATE SET region = excluded.region",
        )
        .bind(edge.edge.as_str())
        .bind(edge.region.as_str())
        .bind(i64::from(SiteRecord::OLDEST))
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await
}

/// What edges have said, as far as it is written down.
#[derive(Debug, Default)]
pub(super) struct Noted(BTreeMap<EdgeId, u8>);

impl Noted {
    /// Whether a heartbeat says something else than before. It counts as written down from now on.
    pub(super) fn is_news(&mut self, heartbeat: &Heartbeat) -> bool {
        let held = self
            .0
            .insert(heartbeat.edge.clone(), heartbeat.record_version);
        held != Some(heartbeat.record_version)
    }

    /// It could not be written down: the next heartbeat is news again.
    pub(super) fn forget(&mut self, edge: &EdgeId) {
        self.0.remove(edge);
    }
}

/// Writes down what an edge reads, and writes again what it does not.
///
/// # Errors
/// When the database fails.
pub(super) async fn note(store: &Store, heartbeat: &Heartbeat) -> Result<(), RecordError> {
    let region = &heartbeat.region;
    let mut tx = store.write().await?;
    let before = of_region(&mut tx, region).await?;
    sqlx::query(
        "INSERT INTO edge_versions (edge, region, site_record) VALUES ($1, $2, $3) \
         ON CONFLICT (edge) DO UPDATE SET region = excluded.region, site_record = excluded.site_record",
    )
    .bind(heartbeat.edge.as_str())
    .bind(region.as_str())
    .bind(i64::from(heartbeat.record_version))
    .execute(&mut *tx)
    .await?;
    let after = of_region(&mut tx, region).await?;
    tx.commit().await?;
    if before != after {
        tracing::info!(%region, edge = %heartbeat.edge, from = before, to = after, "version of site records");
    }
    let mut last = String::new();
    while let Some(reached) = rewrite_page(store, region, heartbeat.record_version, &last).await? {
        last = reached;
    }
    Ok(())
}

/// Writes again what comes after `last` and is newer than `version`; where it got to, unless that is the end.
async fn rewrite_page(
    store: &Store,
    region: &RegionId,
    version: u8,
    last: &str,
) -> Result<Option<String>, RecordError> {
    if version >= SiteRecord::VERSION {
        return Ok(None);
    }
    let mut tx = store.write().await?;
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "SELECT record_key, body FROM records WHERE stream = $1 AND record_key > $2 AND record_key LIKE 'cut.%' \
         ORDER BY record_key LIMIT $3",
    )
    .bind(Scope::Region(region.clone()).stream())
    .bind(last)
    .bind(PAGE_ROWS)
    .fetch_all(&mut *tx)
    .await?;
    let Some((reached, _)) = rows.last() else {
        return Ok(None);
    };
    let reached = reached.clone();
    for (key, body) in rows {
        if body.first().is_some_and(|written| *written > version)
            && let Some(site) = key.strip_prefix("cut.")
        {
            rewrite(&mut tx, region, &store::id(site)?).await?;
        }
    }
    tx.commit().await?;
    Ok(Some(reached))
}

async fn rewrite(tx: &mut Tx, region: &RegionId, site: &SiteId) -> Result<(), RecordError> {
    if records::is_owned(tx, site).await? {
        return Ok(());
    }
    // That a site is protected is said in no older version: such an edge serves nothing of it.
    let held = records::site(tx, region, site).await?;
    if let Some(mut record) = held.filter(|held| held.protection.is_none()) {
        record.generation = record.generation.next();
        record.epoch = tx.epoch();
        records::put_site(tx, &record).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::id::{Epoch, Generation};
    use helix_routing::key;

    fn beat(edge: &str, version: u8) -> Heartbeat {
        Heartbeat {
            edge: edge.parse().unwrap(),
            region: "fra".parse().unwrap(),
            boot: "a".repeat(16).parse().unwrap(),
            version: String::new(),
            record_version: version,
            at: helix_service::clock::now(),
            ready: true,
            streams: Vec::new(),
            refused: 0,
        }
    }

    async fn written(store: &Store, site: &SiteId) -> (u8, u64) {
        let row: (Vec<u8>, i64) =
            sqlx::query_as("SELECT body, generation FROM records WHERE record_key = $1")
                .bind(key::site(site))
                .fetch_one(store.reader())
                .await
                .unwrap();
        (row.0[0], row.1.try_into().unwrap())
    }

    #[tokio::test]
    async fn records_are_written_as_the_oldest_edge_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lead(&folder.path().join("origin.db")).await.unwrap();
        let region: RegionId = "fra".parse().unwrap();
        let edge = |name: &str| Edge {
            region: region.clone(),
            edge: name.parse().unwrap(),
            url: String::new(),
        };
        register(&store, &[edge("fra-1"), edge("fra-2")])
            .await
            .unwrap();
        let shop: SiteId = "shop/production".parse().unwrap();
        let mut record = SiteRecord::blank(shop.clone(), region.clone(), Epoch(1));
        record.weight = Some(5);
        let write = async |record: &mut SiteRecord| {
            let mut tx = store.write().await.unwrap();
            let held = records::site(&mut tx, &region, &shop).await.unwrap();
            record.generation = held.map_or(Generation(0), |held| held.generation).next();
            records::put_site(&mut tx, record).await.unwrap();
            tx.commit().await.unwrap();
            written(&store, &shop).await
        };
        assert_eq!(write(&mut record).await, (1, 1), "nobody has said anything");
        note(&store, &beat("fra-1", 2)).await.unwrap();
        assert_eq!(write(&mut record).await, (1, 2), "one may read only that");
        note(&store, &beat("fra-2", 2)).await.unwrap();
        assert_eq!(
            written(&store, &shop).await,
            (1, 2),
            "what is read stays as it is"
        );
        assert_eq!(write(&mut record).await, (2, 3));
        note(&store, &beat("fra-1", 1)).await.unwrap();
        assert_eq!(
            written(&store, &shop).await,
            (1, 4),
            "an edge went back to an older build"
        );
        register(&store, &[edge("fra-2")]).await.unwrap();
        assert_eq!(
            write(&mut record).await,
            (2, 5),
            "who is gone does not count"
        );
    }

    #[tokio::test]
    async fn a_rollout_writes_its_own_records() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lead(&folder.path().join("origin.db")).await.unwrap();
        let (region, shop): (RegionId, SiteId) =
            ("fra".parse().unwrap(), "shop/production".parse().unwrap());
        note(&store, &beat("fra-1", 2)).await.unwrap();
        let mut record = SiteRecord::blank(shop.clone(), region, Epoch(1));
        record.generation = Generation(1);
        let mut tx = store.write().await.unwrap();
        records::put_site(&mut tx, &record).await.unwrap();
        sqlx::query(
            "INSERT INTO rollouts (rollout, site, kind, by_whom, machine, revision, started, changed) \
             VALUES ('r', $1, 'deploy', 'x', '{}', 1, 0, 0)",
        )
        .bind(shop.to_string())
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
        note(&store, &beat("fra-2", 1)).await.unwrap();
        assert_eq!(written(&store, &shop).await, (2, 1));
    }
}
