//! Runs of gates by hand: which edges are asked, and what they have found.
//!
//! Invariant: a run is the next generation of the gate record of its (site, region), in one transaction for all regions. What
//! edges found is only heard, from those that say so; nothing here waits for them, and no rollout takes notice.

use std::time::Duration;

use helix_routing::gate::record::GateRecord;
use helix_routing::gate::view::{EdgeGates, GateRunView, NewGateRun, RegionGates};
use helix_routing::gate::{self};
use helix_routing::id::{Generation, RegionId, ReleaseId, SiteId};
use helix_routing::routes::Routes;
use helix_service::clock;

use crate::artifact::Artifacts;
use crate::artifact::read::ReadError;
use crate::feed::records::{self, RecordError};
use crate::fleet::Roster;
use crate::rollout::{Kept, RolloutError, kept};
use crate::store::{self, Connection, StoreError, Tx};

/// Gates cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// No site has such a release.
    #[error("no site has a release {0}")]
    UnknownRelease(ReleaseId),
    /// There is no such region.
    #[error("there is no region {0}")]
    UnknownRegion(RegionId),
    /// The release has no such gate.
    #[error("release {release} has no gate {gate}; it has {known}")]
    UnknownGate {
        /// The release.
        release: ReleaseId,
        /// As it was asked for.
        gate: String,
        /// Those it has.
        known: String,
    },
    /// The release is not kept any more.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// What it consists of cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The record could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for GateError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// A release, the site it is of, and how long its gates may take.
#[derive(Clone, Debug)]
pub struct Gated {
    /// The site.
    pub site: SiteId,
    /// The release.
    pub kept: Kept,
}

/// Looks a release up by its id alone, which is made of its site's name too.
///
/// # Errors
/// When there is none, or it was collected.
pub async fn find(connection: &mut Connection, release: &ReleaseId) -> Result<Gated, GateError> {
    let site: Option<String> =
        sqlx::query_scalar("SELECT site FROM releases WHERE release_id = $1")
            .bind(release.as_str())
            .fetch_optional(&mut *connection)
            .await?;
    let site = site.ok_or_else(|| GateError::UnknownRelease(release.clone()))?;
    let site: SiteId = store::id(&site)?;
    let kept = kept(connection, &site, release).await?;
    Ok(Gated { site, kept })
}

/// Refuses a gate that the release does not have.
///
/// # Errors
/// Then, with those it has; or when the release cannot be read.
pub async fn check(
    artifacts: &Artifacts,
    gated: &Gated,
    new: &NewGateRun,
) -> Result<(), GateError> {
    let Some(wanted) = &new.gate else {
        return Ok(());
    };
    let named = &gated.kept.release;
    let routes: Routes = artifacts.routes(&named.artifact).await?;
    let known: Vec<&str> = gate::names(&routes).collect();
    if known.contains(&wanted.as_str()) {
        return Ok(());
    }
    Err(GateError::UnknownGate {
        release: named.release.clone(),
        gate: wanted.chars().take(100).collect(),
        known: known.join(", "),
    })
}

/// Asks for a run in each region it is for, and says which regions those are.
///
/// # Errors
/// As [`GateError`] says.
pub async fn run(
    tx: &mut Tx,
    gated: &Gated,
    new: &NewGateRun,
    all: &[RegionId],
) -> Result<Vec<RegionId>, GateError> {
    let wanted = new.regions.as_deref().unwrap_or(all);
    if let Some(unknown) = wanted.iter().find(|region| !all.contains(region)) {
        return Err(GateError::UnknownRegion(unknown.clone()));
    }
    let regions = all.iter().filter(|region| wanted.contains(region));
    let regions: Vec<RegionId> = regions.cloned().collect();
    for region in &regions {
        let held = records::gate(tx, region, &gated.site).await?;
        let record = GateRecord {
            site: gated.site.clone(),
            region: region.clone(),
            epoch: tx.epoch(),
            generation: held.map_or(Generation(0), |held| held.generation).next(),
            at: clock::now(),
            release: gated.kept.release.clone(),
            gate: new.gate.clone(),
        };
        records::put_gate(tx, &record).await?;
    }
    Ok(regions)
}

/// How far the newest runs of a release's gates have come in these regions; those whose newest is of another are left out.
///
/// # Errors
/// When the database fails.
pub async fn view(
    connection: &mut Connection,
    gated: &Gated,
    regions: &[RegionId],
    roster: &Roster,
) -> Result<GateRunView, GateError> {
    let mut view = GateRunView {
        site: gated.site.clone(),
        release: gated.kept.release.release.clone(),
        patience_ms: millis(gated.kept.gates),
        regions: Vec::new(),
    };
    for region in regions {
        let record = records::gate(connection, region, &gated.site).await?;
        if let Some(record) = record.filter(|record| record.release == gated.kept.release) {
            view.regions.push(region_view(&record, roster));
        }
    }
    Ok(view)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn region_view(record: &GateRecord, roster: &Roster) -> RegionGates {
    let fleet = roster.snapshot();
    let edges = fleet.regions.get(&record.region).cloned();
    let edges = edges.unwrap_or_default();
    let found = roster.gated(&record.site);
    let mut shown = RegionGates {
        region: record.region.clone(),
        run: record.generation,
        done: Vec::new(),
        waiting: Vec::new(),
        absent: Vec::new(),
    };
    for edge in edges.registered {
        let report = found
            .get(&edge)
            .filter(|report| report.run == Some(record.generation));
        match report {
            Some(report) => shown.done.push(EdgeGates {
                edge,
                results: report.results.clone(),
            }),
            None if edges.live.contains(&edge) => shown.waiting.push(edge),
            None => shown.absent.push(edge),
        }
    }
    shown
}
