//! Which edges there are, as SQL holds them.
//!
//! Invariant: an edge that was removed is no edge for as long as origin's configuration goes on naming it.

use helix_routing::edge::record::EdgeRecord;
use helix_routing::edge::view::Admitted;
use helix_routing::id::EdgeId;
use helix_routing::time::Timestamp;
use helix_service::clock;

use super::{Edge, Enrolment, Roster};
use crate::admission;
use crate::feed::RecordError;
use crate::feed::records;
use crate::store::{Store, StoreError, Tx, id, millis, time};

type Row = (
    String,
    String,
    String,
    String,
    i64,
    Option<String>,
    Option<i64>,
);

/// Adds the edges that the configuration names and that nobody has removed, and reads all of them.
///
/// # Errors
/// When the database fails.
pub async fn open(
    store: &Store,
    configured: &[Edge],
    now: Timestamp,
) -> Result<Roster, RecordError> {
    let mut tx = store.write().await?;
    for edge in configured {
        // One that joined by a token says itself where it is.
        sqlx::query(
            "INSERT INTO edges (edge, region, url, admitted, joined) VALUES ($1, $2, $3, 'config', $4) \
             ON CONFLICT (edge) DO UPDATE SET region = excluded.region, url = excluded.url \
             WHERE edges.admitted = 'config'",
        )
        .bind(edge.edge.as_str())
        .bind(edge.region.as_str())
        .bind(&edge.url)
        .bind(millis(clock::now()))
        .execute(&mut *tx)
        .await?;
    }
    forget_unnamed(&mut tx, configured).await?;
    let all = enrolled(&mut tx).await?;
    tx.commit().await?;
    let is_kept = |edge: &EdgeId| all.iter().any(|(known, _)| known.edge == *edge);
    for edge in configured.iter().filter(|edge| !is_kept(&edge.edge)) {
        tracing::warn!(edge = %edge.edge, region = %edge.region, "the configuration names an edge that was removed");
    }
    let roster = Roster::new(Vec::new(), now);
    for (edge, enrolment) in all {
        roster.admit(edge, enrolment);
    }
    Ok(roster)
}

/// What the configuration named and names no more is nothing to origin: named again, it is another edge.
async fn forget_unnamed(tx: &mut Tx, configured: &[Edge]) -> Result<(), StoreError> {
    let held: Vec<String> = sqlx::query_scalar("SELECT edge FROM edges WHERE admitted = 'config'")
        .fetch_all(&mut **tx)
        .await?;
    let is_named = |held: &String| configured.iter().any(|edge| edge.edge.as_str() == held);
    for gone in held.iter().filter(|held| !is_named(held)) {
        sqlx::query("DELETE FROM edges WHERE edge = $1")
            .bind(gone)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn enrolled(tx: &mut Tx) -> Result<Vec<(Edge, Enrolment)>, RecordError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT edge, region, url, admitted, joined, account, certificate_until \
         FROM edges WHERE removed IS NULL ORDER BY region, edge",
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut enrolled = Vec::with_capacity(rows.len());
    for row in rows {
        let (edge, mut enrolment) = read(row)?;
        let record = records::edge(tx, &edge.region, &edge.edge).await?;
        enrolment.told(record.as_ref());
        enrolled.push((edge, enrolment));
    }
    Ok(enrolled)
}

fn read(row: Row) -> Result<(Edge, Enrolment), StoreError> {
    let (edge, region, url, admitted, joined, account, certificate_until) = row;
    let admitted = match admitted.as_str() {
        "config" => Admitted::Config,
        "token" => Admitted::Token,
        _ => {
            return Err(StoreError::Corrupt {
                what: "edges.admitted",
            });
        }
    };
    let edge = Edge {
        region: id(&region)?,
        edge: id(&edge)?,
        url,
    };
    let enrolment = Enrolment {
        admitted,
        joined: time(joined),
        account,
        certificate_until: certificate_until.map(time),
        ..Enrolment::default()
    };
    Ok((edge, enrolment))
}

/// Whether an edge was taken out of the fleet.
///
/// # Errors
/// When the database fails.
pub(super) async fn is_removed(tx: &mut Tx, edge: &EdgeId) -> Result<bool, StoreError> {
    let removed: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM edges WHERE edge = $1 AND removed IS NOT NULL")
            .bind(edge.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    Ok(removed.is_some())
}

/// Takes an edge out of the fleet. What it could show ends with it, and what it could read is of no account any more.
///
/// # Errors
/// When the database fails.
pub(crate) async fn remove(tx: &mut Tx, edge: &EdgeId) -> Result<(), StoreError> {
    let now = clock::now();
    admission::end(tx, edge, now).await?;
    sqlx::query("UPDATE edges SET removed = $2 WHERE edge = $1")
        .bind(edge.as_str())
        .bind(millis(now))
        .execute(&mut **tx)
        .await?;
    sqlx::query("DELETE FROM edge_versions WHERE edge = $1")
        .bind(edge.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Enrolment {
    /// What it is told, in the words of its record.
    pub(super) fn told(&mut self, record: Option<&EdgeRecord>) {
        self.drain = record.and_then(|record| record.drain.clone());
        self.generation = record.map(|record| record.generation).unwrap_or_default();
    }
}
