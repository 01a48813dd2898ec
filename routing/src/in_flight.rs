//! What is in flight on the releases of a site: as edges tell it, and as people see it.
//!
//! Level-triggered as every report: the newest of an edge says all.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{BootId, EdgeId, Generation, RegionId, ReleaseId, SiteId};
use crate::time::Timestamp;
use crate::wire::Wire;

/// Most releases of one site that an edge tells of: the live one, and the newest of those that it has left.
pub const MAX_FLYING: usize = 16;

/// What is in flight on the releases of one site, on one edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlightReport {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it.
    pub boot: BootId,
    /// The site.
    pub site: SiteId,
    /// Release by release; the same one twice where it was restarted.
    pub releases: Vec<Flying>,
}

/// What is in flight on one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flying {
    /// The release.
    pub release: ReleaseId,
    /// The generation that it went live under.
    pub live_since: Generation,
    /// Requests that are being answered.
    pub requests: u64,
    /// WebSockets that are open.
    pub websockets: u64,
    /// What becomes of it.
    pub state: FlyingState,
}

/// Whether a release is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlyingState {
    /// It is.
    Live,
    /// It is not, and what is in flight has until then.
    Until(Timestamp),
    /// It is not, and what is in flight may take as long as it likes.
    Unlimited,
}

impl Wire for InFlightReport {
    const WHAT: &'static str = "report of what is in flight";
}

impl InFlightReport {
    /// Whether there is anything to see.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_idle = |flying: &Flying| flying.requests == 0 && flying.websockets == 0;
        self.releases.iter().all(is_idle)
    }
}

/// What is in flight on one release in one region, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InFlightView {
    /// The region.
    pub region: RegionId,
    /// The release.
    pub release: ReleaseId,
    /// Requests that are being answered.
    pub requests: u64,
    /// WebSockets that are open.
    pub websockets: u64,
    /// Another release has taken its place, or it was restarted.
    pub draining: bool,
    /// When the last of it ends, while it drains; none where it may take as long as it likes.
    pub until: Option<Timestamp>,
}

/// What the edges of each region have told, added up. What is idle is left out.
#[must_use]
pub fn seen<'a>(reports: impl IntoIterator<Item = &'a InFlightReport>) -> Vec<InFlightView> {
    let mut views: BTreeMap<(RegionId, bool, ReleaseId), InFlightView> = BTreeMap::new();
    for report in reports {
        for flying in &report.releases {
            if flying.requests == 0 && flying.websockets == 0 {
                continue;
            }
            let draining = flying.state != FlyingState::Live;
            let until = match flying.state {
                FlyingState::Until(until) => Some(until),
                FlyingState::Live | FlyingState::Unlimited => None,
            };
            let key = (report.region.clone(), draining, flying.release.clone());
            let view = views.entry(key).or_insert_with(|| InFlightView {
                region: report.region.clone(),
                release: flying.release.clone(),
                requests: 0,
                websockets: 0,
                draining,
                until,
            });
            view.requests += flying.requests;
            view.websockets += flying.websockets;
            // What has no end comes last of all.
            view.until = view.until.zip(until).map(|(a, b)| a.max(b));
        }
    }
    views.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flying(digit: &str, requests: u64, websockets: u64, state: FlyingState) -> Flying {
        Flying {
            release: digit.repeat(20).parse().unwrap(),
            live_since: Generation(3),
            requests,
            websockets,
            state,
        }
    }

    fn report(edge: &str, releases: Vec<Flying>) -> InFlightReport {
        InFlightReport {
            edge: edge.parse().unwrap(),
            region: edge[..3].parse().unwrap(),
            boot: "0000000000000001".parse().unwrap(),
            site: "shop/production".parse().unwrap(),
            releases,
        }
    }

    #[test]
    fn edges_of_a_region_add_up_and_the_last_end_counts() {
        let until = |millis| FlyingState::Until(Timestamp::from_millis(millis));
        let reports = [
            report(
                "fra-1",
                vec![
                    flying("b", 2, 0, FlyingState::Live),
                    flying("a", 1, 30, until(500)),
                ],
            ),
            report(
                "fra-2",
                vec![
                    flying("b", 0, 0, FlyingState::Live),
                    flying("a", 0, 12, until(700)),
                ],
            ),
            report("iad-1", vec![flying("a", 0, 5, FlyingState::Unlimited)]),
        ];
        let shown: Vec<_> = seen(&reports)
            .into_iter()
            .map(|view| {
                let until = view.until.map(Timestamp::as_millis);
                (
                    view.region.to_string(),
                    view.requests,
                    view.websockets,
                    view.draining,
                    until,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("fra".to_owned(), 2, 0, false, None),
                ("fra".to_owned(), 1, 42, true, Some(700)),
                ("iad".to_owned(), 0, 5, true, None),
            ]
        );
        assert!(report("fra-1", vec![flying("a", 0, 0, until(1))]).is_empty());
    }
}
