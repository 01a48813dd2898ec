//! The rollout machine by example: one claim a test.
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod bakes;
mod cutover;
mod restart;
mod stages;

use std::collections::BTreeSet;

use helix_routing::id::{RegionId, SiteId};
use helix_routing::record::ReleaseRef;
use helix_routing::rollout::{Fleet, RegionFleet};
use helix_routing::time::Timestamp;

const START: Timestamp = Timestamp::from_millis(1_000);
const REGIONS: [&str; 2] = ["fra", "iad"];

fn site() -> SiteId {
    "shop/production".parse().unwrap()
}

fn release(number: u8) -> ReleaseRef {
    ReleaseRef {
        release: format!("{number:020x}").parse().unwrap(),
        artifact: format!("sha256:{number:064x}").parse().unwrap(),
    }
}

fn region(name: &str) -> RegionId {
    name.parse().unwrap()
}

/// Both regions with so many edges each, all live.
fn fleet(edges: u8) -> Fleet {
    let of_region = |name: &str| {
        let edges: BTreeSet<_> = (1..=edges)
            .map(|number| format!("{name}-{number}").parse().unwrap())
            .collect();
        RegionFleet {
            registered: edges.clone(),
            live: edges,
            ..RegionFleet::default()
        }
    };
    Fleet {
        regions: REGIONS.map(|name| (region(name), of_region(name))).into(),
    }
}
