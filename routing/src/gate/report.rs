//! What an edge found when it ran the gates of a release. Level-triggered, as every report.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::result::GateResult;
use crate::id::{BootId, EdgeId, Generation, RegionId, ReleaseId, SiteId};
use crate::wire::Wire;

/// Sent before the report that a candidate is prepared, or cannot be; and when a run by hand has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatesReport {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it.
    pub boot: BootId,
    /// The site.
    pub site: SiteId,
    /// The release whose gates were run.
    pub release: ReleaseId,
    /// The run by hand that this answers; none for a candidate's own.
    pub run: Option<Generation>,
    /// Each gate; one that stands for all of them where the release could not be had.
    pub results: Vec<GateResult>,
}

impl Wire for GatesReport {
    const WHAT: &'static str = "gates report";
}
