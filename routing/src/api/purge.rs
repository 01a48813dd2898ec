//! Purges: what edges are to forget of what they keep, and how far they have come.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{EdgeId, Environment, Generation, RegionId, ReleaseId, SiteId};

/// Most URLs and tags of one purge. More are several purges.
pub const MAX_PURGE_PARTS: usize = 30;
/// Longest URL or tag of a purge, in bytes.
pub const MAX_PURGE_PART_BYTES: usize = 1024;

shape! {
    /// Lets edges forget responses of upstreams that they keep: those that fit any of the URLs or tags, or all of the site
    /// where there are none.
    pub struct NewPurge {
        /// Of which site.
        pub environment: Environment,
        /// URLs with scheme and host; each is meant over either scheme, in all its variants. Up to 30 with the tags.
        #[serde(default)]
        pub urls: Vec<String>,
        /// What carries one of these in `Cache-Tag`, `Cache-Groups` or `Surrogate-Key`.
        #[serde(default)]
        pub tags: Vec<String>,
        /// Only what was fetched under this release.
        #[serde(default)]
        pub release: Option<ReleaseId>,
        /// Where; all regions that have the site, if none are named.
        #[serde(default)]
        pub regions: Option<Vec<RegionId>>,
        /// Keep it, and ask about it before its next use.
        #[serde(default)]
        pub stale: bool,
    }
}

shape! {
    /// How far a site's newest purges have come.
    pub struct PurgeView {
        /// The site.
        pub site: SiteId,
        /// Each region that has one, in the order of the config.
        pub regions: Vec<RegionPurge>,
    }
}

shape! {
    /// How far a site's newest purge has come in one region.
    pub struct RegionPurge {
        /// The region.
        pub region: RegionId,
        /// The number of the purge; the next one has the next.
        pub purge: Generation,
        /// Edges that have forgotten what it and all before it mean.
        pub confirmed: Vec<EdgeId>,
        /// Edges that are there and have not said so yet.
        pub waiting: Vec<EdgeId>,
        /// Edges that are not there and have not said so: they forget before they serve from disk, once they have a link.
        pub absent: Vec<EdgeId>,
    }
}
