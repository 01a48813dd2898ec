//! What one edge is told about itself.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::id::{EdgeId, Epoch, Generation, RegionId};
use crate::time::Timestamp;
use crate::wire::Wire;

/// How one edge shall be, besides what it serves. It travels on its region's stream, and the others pay it no heed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeRecord {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// Term of the origin that wrote this generation.
    pub epoch: Epoch,
    /// Rises with every write.
    pub generation: Generation,
    /// It is to be left by its visitors; none: it serves as the others do.
    pub drain: Option<Drain>,
}

/// An edge is taken out for maintenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drain {
    /// Why, in the operator's words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When what lasts (WebSockets) is told to end as well; never, if there is none.
    pub until: Option<Timestamp>,
}

impl EdgeRecord {
    /// The record of an edge that was never told anything: generation 0. It is never sent.
    #[must_use]
    pub const fn blank(edge: EdgeId, region: RegionId, epoch: Epoch) -> Self {
        Self {
            edge,
            region,
            epoch,
            generation: Generation(0),
            drain: None,
        }
    }
}

impl Wire for EdgeRecord {
    const WHAT: &'static str = "edge record";
}
