//! Ids, made once, and the numbers by which the simulation calls what they name.

use helix_routing::id::{EdgeId, RegionId, ReleaseId, SiteId};
use helix_routing::record::ReleaseRef;

use crate::scenario::{RELEASES, Scenario};

/// Ids, made once.
pub(crate) struct Names {
    pub(crate) site: SiteId,
    pub(crate) regions: Vec<RegionId>,
    pub(crate) edges: Vec<EdgeId>,
    pub(crate) releases: Vec<ReleaseRef>,
}

impl Names {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let regions = ["fra", "iad", "gru"].into_iter().take(scenario.regions);
        let edges = regions.clone().flat_map(|region| {
            (1..=scenario.edges).map(move |number| format!("{region}-{number}"))
        });
        Self {
            site: "shop/production".parse().unwrap(),
            edges: edges.map(|edge| edge.parse().unwrap()).collect(),
            regions: regions.map(|region| region.parse().unwrap()).collect(),
            releases: (0..RELEASES).map(release).collect(),
        }
    }

    pub(crate) fn region(&self, id: &RegionId) -> usize {
        self.regions.iter().position(|known| known == id).unwrap()
    }

    pub(crate) fn edge(&self, id: &EdgeId) -> usize {
        self.edges.iter().position(|known| known == id).unwrap()
    }
}

fn release(number: u8) -> ReleaseRef {
    ReleaseRef {
        release: format!("{number:020x}").parse().unwrap(),
        artifact: format!("sha256:{number:064x}").parse().unwrap(),
    }
}

/// The number of a release, which is all that its id says.
pub(crate) fn number(release: &ReleaseId) -> u8 {
    let digits = release.as_str().get(18..).unwrap();
    u8::from_str_radix(digits, 16).unwrap()
}
