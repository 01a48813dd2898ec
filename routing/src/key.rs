//! Stream, key and subject names; spelled nowhere else.
//!
//! A record's key within its stream is a NATS subject without the stream's prefix. Host names are
//! written with `=` for `.`, so a host is one token. No key starts with `_`: that is the beacon's.

use alloc::format;
use alloc::string::String;

use crate::host::HostPattern;
use crate::id::{EdgeId, RegionId, SiteId};

/// Which edges a stream is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Every edge.
    Global,
    /// The edges of one region.
    Region(RegionId),
}

impl Scope {
    fn tag(&self) -> String {
        match self {
            Self::Global => String::from("g"),
            Self::Region(region) => format!("r_{region}"),
        }
    }

    /// The stream, such as `KV_r_fra`.
    #[must_use]
    pub fn stream(&self) -> String {
        format!("KV_{}", self.tag())
    }

    /// The subject prefix of its records as stored, such as `$KV.r_fra.`.
    #[must_use]
    pub fn stored_prefix(&self) -> String {
        format!("$KV.{}.", self.tag())
    }

    /// The subject prefix of its feed, such as `edge.r.fra.`: where records are republished and the beacon is sent.
    #[must_use]
    pub fn feed_prefix(&self) -> String {
        match self {
            Self::Global => String::from("edge.g."),
            Self::Region(region) => format!("edge.r.{region}."),
        }
    }

    /// The subject of its beacon.
    #[must_use]
    pub fn beacon(&self) -> String {
        format!("{}_head", self.feed_prefix())
    }

    /// The subject on which its edges are asked what they hold.
    #[must_use]
    pub fn recall(&self) -> String {
        format!("{}{}", self.feed_prefix(), crate::recall::RECALL)
    }

    /// The object store bucket of its snapshots, such as `snap_r_fra`.
    #[must_use]
    pub fn snapshot_bucket(&self) -> String {
        format!("snap_{}", self.tag())
    }

    /// The stream behind [`Scope::snapshot_bucket`], such as `OBJ_snap_r_fra`.
    #[must_use]
    pub fn snapshot_stream(&self) -> String {
        format!("OBJ_{}", self.snapshot_bucket())
    }
}

/// The name of the newest snapshot in its bucket.
pub const SNAPSHOT_NAME: &str = "snapshot";

/// The key that beacons are sealed under; their stream is [`Scope::beacon`].
pub const BEACON: &str = "_head";

/// The key of the term that fences a stream's writes.
pub const TERM: &str = "ctl.term";

/// The key of a site's record in its region's stream: `cut.<site>`.
#[must_use]
pub fn site(site: &SiteId) -> String {
    format!("cut.{site}")
}

/// The key of a site's purges in its region's stream: `purge.<site>`.
#[must_use]
pub fn purge(site: &SiteId) -> String {
    format!("purge.{site}")
}

/// The key of a site's run of gates in its region's stream: `gate.<site>`.
#[must_use]
pub fn gate(site: &SiteId) -> String {
    format!("gate.{site}")
}

/// The key of what one edge is told about itself, in its region's stream: `edge.<edge>`.
#[must_use]
pub fn edge(edge: &EdgeId) -> String {
    format!("edge.{edge}")
}

/// The key of a host's record in the global stream: `h.<xx>.<host>`, or `w.<xx>.<suffix>` for a wildcard.
#[must_use]
pub fn host(pattern: &HostPattern) -> String {
    let (kind, name) = match pattern {
        HostPattern::Exact(host) => ('h', host.as_str()),
        HostPattern::Wildcard(suffix) => ('w', suffix.as_str()),
    };
    format!("{kind}.{:02x}.{}", shard(name), name.replace('.', "="))
}

/// The subject an edge's reports of `kind` go to: `rpt.<region>.<edge>.<kind>`.
#[must_use]
pub fn report(region: &RegionId, edge: &EdgeId, kind: &str) -> String {
    format!("rpt.{region}.{edge}.{kind}")
}

/// One of 256 shards by name (FNV-1a), so that parts of the host map can be compared by digest.
fn shard(name: &str) -> u8 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.to_be_bytes()[7]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_the_edges_accounts_allow() {
        let fra = Scope::Region("fra".parse().unwrap());
        assert_eq!(fra.stream(), "KV_r_fra");
        assert_eq!(fra.stored_prefix(), "$KV.r_fra.");
        assert_eq!(fra.beacon(), "edge.r.fra._head");
        assert_eq!(fra.snapshot_stream(), "OBJ_snap_r_fra");
        assert_eq!(Scope::Global.beacon(), "edge.g._head");
        assert_eq!(
            site(&"shop/preview/42".parse().unwrap()),
            "cut.shop/preview/42"
        );
        assert_eq!(
            purge(&"shop/preview/42".parse().unwrap()),
            "purge.shop/preview/42"
        );
        assert_eq!(
            gate(&"shop/preview/42".parse().unwrap()),
            "gate.shop/preview/42"
        );
        assert!(host(&"www.example.com".parse().unwrap()).ends_with(".www=example=com"));
        assert!(host(&"*.example.com".parse().unwrap()).starts_with("w."));
    }
}
