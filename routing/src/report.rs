//! What edges tell origin. Level-triggered: a report says how things are, so a lost one is
//! repaired by the next and a repeated one changes nothing.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bake::Window;
use crate::id::{BootId, EdgeId, Generation, Incarnation, RegionId, ReleaseId, SiteId};
use crate::time::Timestamp;
use crate::wire::Wire;

/// Sent every heartbeat interval; holding the lease means to be counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it.
    pub boot: BootId,
    /// Its build.
    pub version: String,
    /// The newest [`crate::record::SiteRecord`] version it reads.
    pub record_version: u8,
    /// Its clock.
    pub at: Timestamp,
    /// It serves what its region's records name.
    pub ready: bool,
    /// How far it follows each stream.
    pub streams: Vec<StreamPosition>,
    /// Records it refused since it started.
    pub refused: u64,
}

impl Wire for Heartbeat {
    const WHAT: &'static str = "heartbeat";
}

/// How far an edge follows one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPosition {
    /// The stream.
    pub stream: String,
    /// The life of it that the edge follows; none before first contact.
    pub incarnation: Option<Incarnation>,
    /// Last sequence applied.
    pub sequence: u64,
    /// No beacon for longer than the silence limit.
    pub stale: bool,
}

/// What one edge does with one site. Sent when it changes, and again whenever its record is received again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteReport {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it.
    pub boot: BootId,
    /// The site.
    pub site: SiteId,
    /// Generation of the newest record on its disk.
    pub generation: Generation,
    /// Generation that requests are answered under. Lower than `generation` while the live release is still fetched.
    pub serving: Generation,
    /// The release that requests get.
    pub live: Option<ReleaseId>,
    /// How far the record's candidate has come.
    pub candidate: Option<CandidateReport>,
}

impl Wire for SiteReport {
    const WHAT: &'static str = "site report";
}

/// How far a candidate has come on an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateReport {
    /// The candidate.
    pub release: ReleaseId,
    /// Its state.
    pub state: CandidateState,
}

/// How far a candidate has come on an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CandidateState {
    /// Fetching and verifying.
    Preparing,
    /// On disk, verified, warm.
    Prepared,
    /// It cannot be prepared, for this reason.
    Failed(String),
}

/// How far an edge has applied a site's purges. Sent when it has, and again after every new link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeReport {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it.
    pub boot: BootId,
    /// The site.
    pub site: SiteId,
    /// Everything up to this purge is forgotten here, and its record is on disk.
    pub generation: Generation,
}

impl Wire for PurgeReport {
    const WHAT: &'static str = "purge report";
}

/// What an edge has counted of a site's live release since its swap. Sent again and again while the record says that it bakes.
///
/// Counts rise as long as the edge runs, so the newest report says all that those before it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowReport {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it: counts begin with it.
    pub boot: BootId,
    /// The site.
    pub site: SiteId,
    /// The release that answered.
    pub release: ReleaseId,
    /// The generation that it went live under.
    pub live_since: Generation,
    /// What was counted of it.
    pub window: Window,
    /// What the release before it showed here before the swap; none in a boot that did not see it.
    pub baseline: Option<Baseline>,
}

/// What a release showed before another took its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The release.
    pub release: ReleaseId,
    /// What was counted of it lately.
    pub window: Window,
}

impl Wire for WindowReport {
    const WHAT: &'static str = "window report";
    // Two windows of as many buckets as there are.
    const MAX_BYTES: usize = 16 * 1024;
}

/// A record that an edge refused. The last good one stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// The stream it came on.
    pub stream: String,
    /// Its key.
    pub key: String,
    /// Its sequence, 0 if it had none.
    pub sequence: u64,
    /// Why.
    pub reason: String,
}

impl Wire for Refusal {
    const WHAT: &'static str = "refusal";
}
