//! A run of gates by hand, as it travels to the edges of one region.

use alloc::string::String;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, Generation, RegionId, SiteId};
use crate::record::ReleaseRef;
use crate::time::Timestamp;
use crate::wire::Wire;

/// How long a run is worth carrying out: nobody waits for it any more after that.
pub const RUN_LIFE: Duration = Duration::from_secs(30 * 60);

/// The newest run of gates of `site` that edges of `region` are asked for.
///
/// Runs are numbered from 1 without a gap. An edge that has carried out a run does not carry it out again in the same boot,
/// however often the record arrives; a newer one takes the place of one under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRecord {
    /// The site.
    pub site: SiteId,
    /// The region this record is for.
    pub region: RegionId,
    /// Term of the origin that wrote this generation.
    pub epoch: Epoch,
    /// The number of the run.
    pub generation: Generation,
    /// When origin accepted it.
    pub at: Timestamp,
    /// The release whose gates are run.
    pub release: ReleaseRef,
    /// The only gate that is run; all of them without.
    pub gate: Option<String>,
}

impl GateRecord {
    /// Whether somebody may still wait for it at `now`. A clock that is a little ahead does not matter.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.since(self.at) < RUN_LIFE
    }
}

impl Wire for GateRecord {
    const WHAT: &'static str = "gate record";
}
