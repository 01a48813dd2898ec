//! Gates in origin's HTTP API.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::result::GateResult;
use crate::id::{EdgeId, Generation, RegionId, ReleaseId, SiteId};

/// Lets edges run the gates of a release, whether it is live, a candidate or neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewGateRun {
    /// Where; all regions, if none are named.
    #[serde(default)]
    pub regions: Option<Vec<RegionId>>,
    /// Only this gate, by its name; `artifact`, `certificate` and `upstream` are built in.
    #[serde(default)]
    pub gate: Option<String>,
}

/// How far the newest run of a release's gates has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GateRunView {
    /// The site.
    pub site: SiteId,
    /// The release.
    pub release: ReleaseId,
    /// How long its gates may take on an edge that has it, in milliseconds.
    pub patience_ms: u64,
    /// Each region whose newest run is one of this release, in the order of the config.
    pub regions: Vec<RegionGates>,
}

/// How far the newest run has come in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RegionGates {
    /// The region.
    pub region: RegionId,
    /// The number of the run; the next one has the next.
    pub run: Generation,
    /// Edges that have carried it out, and what they found.
    pub done: Vec<EdgeGates>,
    /// Edges that are there and have not.
    pub waiting: Vec<EdgeId>,
    /// Edges that are not there and have not.
    pub absent: Vec<EdgeId>,
}

/// What the gates of a release showed on one edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EdgeGates {
    /// The edge.
    pub edge: EdgeId,
    /// Each gate.
    pub results: Vec<GateResult>,
}
