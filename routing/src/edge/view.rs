//! Edges in origin's HTTP API.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::record::Drain;
use crate::id::{BootId, EdgeId, RegionId};
use crate::time::Timestamp;

/// Longest reason for a drain or a removal, in characters.
pub const MAX_REASON: usize = 200;
/// Longest deadline of a drain: a week. Whoever wants more sets none.
pub const MAX_DRAIN_SECONDS: u64 = 7 * 24 * 60 * 60;

/// One edge: which build it runs, whether it is there, and how far it follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EdgeView {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// Where origin probes it.
    pub url: String,
    /// How it came into the fleet.
    pub admitted: Admitted,
    /// When it did.
    pub joined: Timestamp,
    /// It holds its lease.
    pub live: bool,
    /// Since when it does, or since when it does not; none when it was never heard from in this term.
    pub since: Option<Timestamp>,
    /// When its lease ends unless it is heard from again; none without one.
    pub lease_until: Option<Timestamp>,
    /// It serves what its region's records name.
    pub ready: bool,
    /// Its running boot.
    pub boot: Option<BootId>,
    /// Its build.
    pub version: Option<String>,
    /// Its build as compared with origin's.
    pub skew: Option<Skew>,
    /// Last heartbeat.
    pub seen: Option<Timestamp>,
    /// Streams that it has had no beacon of for too long.
    pub stale: Vec<String>,
    /// Records that it has not applied yet; none while that cannot be said.
    pub behind: Option<u64>,
    /// It is taken out for maintenance.
    pub drain: Option<DrainView>,
    /// Until when its certificate is good; none for one without.
    pub certificate_until: Option<Timestamp>,
    /// What is not in order, if anything.
    pub note: Option<String>,
}

/// How an edge came into the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Admitted {
    /// Origin's configuration names it.
    Config,
    /// It joined by a token.
    Token,
}

/// An edge's build as compared with origin's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Skew {
    /// It is older.
    Older,
    /// It is newer.
    Newer,
    /// It is another one of which neither can be said.
    Other,
}

/// How far a drain has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DrainView {
    /// What was asked for.
    pub drain: Drain,
    /// The edge has said that it turns visitors away.
    pub confirmed: bool,
    /// Connections of visitors that are open there; none before it has said so.
    pub connections: Option<u64>,
}

/// Takes an edge out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewDrain {
    /// Why, for the record.
    #[serde(default)]
    pub reason: Option<String>,
    /// After so many seconds what lasts is told to end as well.
    #[serde(default)]
    pub deadline_seconds: Option<u64>,
}

impl Skew {
    /// How `edge` compares with `origin`; none when they are the same.
    #[must_use]
    pub fn between(edge: &str, origin: &str) -> Option<Self> {
        if edge == origin {
            return None;
        }
        Some(match (numbers(edge), numbers(origin)) {
            (Some(edge), Some(origin)) if edge < origin => Self::Older,
            (Some(edge), Some(origin)) if edge > origin => Self::Newer,
            _ => Self::Other,
        })
    }
}

/// Major, minor and patch of a version (Semantic Versioning 2.0.0).
fn numbers(version: &str) -> Option<[u64; 3]> {
    let core = version.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(str::parse);
    let mut next = || parts.next()?.ok();
    let numbers = [next()?, next()?, next()?];
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_compared_by_their_numbers() {
        for (edge, origin, skew) in [
            ("0.1.0", "0.1.0", None),
            ("0.1.0", "0.2.0", Some(Skew::Older)),
            ("0.10.0", "0.9.1", Some(Skew::Newer)),
            ("1.0.0-rc.1", "1.0.0", Some(Skew::Other)),
            ("1.0.0-rc.1", "1.0.1", Some(Skew::Older)),
            ("x", "1.0.0", Some(Skew::Other)),
            ("1.0", "1.0.0", Some(Skew::Other)),
            ("1.0.0.0", "1.0.0", Some(Skew::Other)),
            ("", "1.0.0", Some(Skew::Other)),
        ] {
            assert_eq!(Skew::between(edge, origin), skew, "{edge} {origin}");
        }
    }
}
