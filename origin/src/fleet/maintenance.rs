//! Taking edges out for maintenance, putting them back, and removing them.
//!
//! Invariant: what an edge is told is its record. It is written in the transaction that is asked for; the roster follows
//! once that is committed.

use std::time::Duration;

use helix_routing::edge::record::{Drain, EdgeRecord};
use helix_routing::edge::view::{MAX_DRAIN_SECONDS, MAX_REASON, NewDrain};
use helix_routing::id::{EdgeId, RegionId};
use helix_service::clock;

use super::{Roster, registry};
use crate::feed::RecordError;
use crate::feed::records;
use crate::store::{StoreError, Tx};

/// Maintenance is refused.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// There is no such edge.
    #[error("there is no edge {0}")]
    Unknown(EdgeId),
    /// What is asked for makes no sense.
    #[error("{what} {problem}")]
    Illegal {
        /// Which part of it.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Its region would be left without an edge that serves.
    #[error(
        "edge {edge} is the last one that serves region {region}; nobody there would be answered without it"
    )]
    Last {
        /// The edge.
        edge: EdgeId,
        /// Its region.
        region: RegionId,
    },
    /// Its record could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for MaintenanceError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// Tells an edge to let its visitors go elsewhere. Asked again, the newer reason and deadline hold; since when stays.
///
/// # Errors
/// When there is no such edge, it is the last that serves its region and `force` is not set, or the database fails.
pub async fn drain(
    tx: &mut Tx,
    roster: &Roster,
    edge: &EdgeId,
    new: &NewDrain,
    force: bool,
) -> Result<EdgeRecord, MaintenanceError> {
    let now = clock::now();
    let reason = reason(new.reason.as_deref())?;
    let until = match new.deadline_seconds {
        Some(seconds) if seconds > MAX_DRAIN_SECONDS => {
            return Err(MaintenanceError::Illegal {
                what: "the deadline",
                problem: format!(
                    "is {seconds} s away, the most is {MAX_DRAIN_SECONDS} s; leave it out for none"
                ),
            });
        }
        Some(seconds) => Some(now + Duration::from_secs(seconds)),
        None => None,
    };
    let mut record = record(tx, roster, edge).await?;
    if record.drain.is_none() && !force {
        is_missed(tx, roster, edge, &record.region).await?;
    }
    let since = record.drain.map_or(now, |drain| drain.since);
    record.drain = Some(Drain {
        reason,
        since,
        until,
    });
    write(tx, &mut record).await?;
    Ok(record)
}

/// Puts an edge back; none when it was not taken out.
///
/// # Errors
/// When there is no such edge, or the database fails.
pub async fn undrain(
    tx: &mut Tx,
    roster: &Roster,
    edge: &EdgeId,
) -> Result<Option<EdgeRecord>, MaintenanceError> {
    let mut record = record(tx, roster, edge).await?;
    if record.drain.take().is_none() {
        return Ok(None);
    }
    write(tx, &mut record).await?;
    Ok(Some(record))
}

/// Takes an edge out of the fleet for good. What it was told ends with it: one that joins by its name later is another edge.
///
/// # Errors
/// When there is no such edge, it is the last that serves its region and `force` is not set, or the database fails.
pub async fn remove(
    tx: &mut Tx,
    roster: &Roster,
    edge: &EdgeId,
    force: bool,
) -> Result<(), MaintenanceError> {
    let mut record = record(tx, roster, edge).await?;
    if !force {
        is_missed(tx, roster, edge, &record.region).await?;
    }
    if record.drain.take().is_some() {
        write(tx, &mut record).await?;
    }
    registry::remove(tx, edge).await?;
    Ok(())
}

async fn record(
    tx: &mut Tx,
    roster: &Roster,
    edge: &EdgeId,
) -> Result<EdgeRecord, MaintenanceError> {
    let known = roster.edge(edge);
    let known = known.ok_or_else(|| MaintenanceError::Unknown(edge.clone()))?;
    let held = records::edge(tx, &known.region, edge).await?;
    Ok(held.unwrap_or_else(|| EdgeRecord::blank(edge.clone(), known.region, tx.epoch())))
}

async fn write(tx: &mut Tx, record: &mut EdgeRecord) -> Result<(), MaintenanceError> {
    record.epoch = tx.epoch();
    record.generation = record.generation.next();
    Ok(records::put_edge(tx, record).await?)
}

/// An error when sites of its region would be served by nobody without this edge.
async fn is_missed(
    tx: &mut Tx,
    roster: &Roster,
    edge: &EdgeId,
    region: &RegionId,
) -> Result<(), MaintenanceError> {
    let mut others = roster.serving(region);
    if !others.remove(edge) || !records::has_sites(tx, region).await? {
        return Ok(());
    }
    // The roster is told after a commit: of who was taken out a moment ago SQL alone knows.
    for other in others {
        if !registry::is_removed(tx, &other).await? && !is_drained(tx, region, &other).await? {
            return Ok(());
        }
    }
    Err(MaintenanceError::Last {
        edge: edge.clone(),
        region: region.clone(),
    })
}

async fn is_drained(
    tx: &mut Tx,
    region: &RegionId,
    edge: &EdgeId,
) -> Result<bool, MaintenanceError> {
    let told = records::edge(tx, region, edge).await?;
    Ok(told.is_some_and(|told| told.drain.is_some()))
}

fn reason(text: Option<&str>) -> Result<String, MaintenanceError> {
    let text = text.unwrap_or("maintenance").trim();
    let illegal = |problem: String| MaintenanceError::Illegal {
        what: "the reason",
        problem,
    };
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(illegal(
            "says nothing, or has control characters".to_owned(),
        ));
    }
    if text.chars().count() > MAX_REASON {
        return Err(illegal(format!("is longer than {MAX_REASON} characters")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use helix_routing::id::{Epoch, Generation};
    use helix_routing::record::SiteRecord;

    use super::*;
    use crate::fleet::{Edge, Enrolment};
    use crate::store::Store;

    #[tokio::test]
    async fn of_two_edges_taken_out_at_once_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lead(&folder.path().join("origin.db")).await.unwrap();
        let region: RegionId = "fra".parse().unwrap();
        let [first, second]: [EdgeId; 2] = ["fra-1", "fra-2"].map(|name| name.parse().unwrap());
        // Both have just been heard of: whoever starts counts for a lease.
        let roster = Roster::new(Vec::new(), clock::now());
        for edge in [&first, &second] {
            let edge = Edge {
                region: region.clone(),
                edge: edge.clone(),
                url: String::new(),
            };
            roster.admit(edge, Enrolment::default());
        }
        let mut tx = store.write().await.unwrap();
        let site = "shop/production".parse().unwrap();
        let mut record = SiteRecord::blank(site, region.clone(), Epoch(1));
        record.generation = Generation(1);
        records::put_site(&mut tx, &record).await.unwrap();
        tx.commit().await.unwrap();
        let new = NewDrain {
            reason: None,
            deadline_seconds: None,
        };
        let mut tx = store.write().await.unwrap();
        let told = drain(&mut tx, &roster, &first, &new, false).await.unwrap();
        tx.commit().await.unwrap();
        // The next one has the lock before the roster is told.
        let mut tx = store.write().await.unwrap();
        let refused = drain(&mut tx, &roster, &second, &new, false).await;
        assert!(matches!(refused, Err(MaintenanceError::Last { .. })));
        let refused = remove(&mut tx, &roster, &second, false).await;
        assert!(matches!(refused, Err(MaintenanceError::Last { .. })));
        // Taken out for good is taken out as well.
        undrain(&mut tx, &roster, &first).await.unwrap();
        roster.told(&told);
        remove(&mut tx, &roster, &first, true).await.unwrap();
        let refused = drain(&mut tx, &roster, &second, &new, false).await;
        assert!(matches!(refused, Err(MaintenanceError::Last { .. })));
        assert!(drain(&mut tx, &roster, &second, &new, true).await.is_ok());
    }
}
