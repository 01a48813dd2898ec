//! What an edge says of itself.

use serde::{Deserialize, Serialize};

use crate::id::{BootId, EdgeId, Generation, RegionId};
use crate::wire::Wire;

/// How far an edge is with what its [`super::record::EdgeRecord`] says. Sent when that changes, with each new link, and each
/// second while it drains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeReport {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it.
    pub boot: BootId,
    /// The record that it keeps to.
    pub generation: Generation,
    /// It turns visitors away.
    pub drains: bool,
    /// Connections of visitors that are open.
    pub connections: u64,
}

impl Wire for EdgeReport {
    const WHAT: &'static str = "edge report";
}
