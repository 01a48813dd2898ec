//! What is in flight, told to origin.
//!
//! What a release has left is told each second until nothing is; of live releases the WebSockets and what lasts, when their
//! number has changed, and now and then all the same: who takes over from origin has heard nothing.

use helix_routing::id::SiteId;
use helix_routing::in_flight::{Flying, FlyingState, MAX_FLYING};
use helix_service::clock;
use tokio::time::Instant;

use super::Agent;
use crate::in_flight::{Leaving, Load};

/// Between two looks at live releases, in seconds.
const LOOK: u32 = 5;
/// Between two reports of a site whose numbers stay, in looks.
const REPEAT: u32 = 3;
/// Most live sites told of in one look: a fleet has a thousand edges, and origin one queue.
const MAX_TOLD: usize = 64;

/// What was told of live releases, and when to look again.
#[derive(Debug, Default)]
pub(super) struct Told {
    seconds: u32,
    looks: u32,
}

impl Agent {
    /// What is in flight on a site, as it is now.
    pub(super) fn tell_in_flight(&self, site: &SiteId) {
        let live = self.places.get(site).and_then(|place| place.watch.live());
        let live = live.map(|(release, live_since, load)| Flying {
            release: release.clone(),
            live_since,
            requests: load.requests,
            websockets: load.sockets,
            state: FlyingState::Live,
        });
        let left = self.table.left().of(site).into_iter().rev().map(|left| {
            let load = left.in_flight.load();
            Flying {
                release: left.release,
                live_since: left.live_since,
                requests: load.requests,
                websockets: load.sockets,
                state: left.in_flight.leaving().map_or(FlyingState::Live, state),
            }
        });
        let releases = live.into_iter().chain(left).take(MAX_FLYING).collect();
        self.reports.in_flight(site, releases);
    }

    /// A second has passed: tells of live releases what has changed.
    pub(super) fn tell_sockets(&mut self) {
        self.flying.seconds += 1;
        if !self.flying.seconds.is_multiple_of(LOOK) {
            return;
        }
        self.flying.looks = self.flying.looks.wrapping_add(1);
        let repeats = self.flying.looks.is_multiple_of(REPEAT);
        let mut due = Vec::new();
        for (site, place) in &mut self.places {
            let load = place.watch.live().map_or_else(Load::default, |live| live.2);
            let has_changed = load != place.told;
            if has_changed || (repeats && !load.is_none()) {
                due.push((load.sockets == 0, site.clone(), load));
            }
        }
        // WebSockets first: their clients feel a cutover most.
        due.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for (_, site, load) in due.into_iter().take(MAX_TOLD) {
            self.tell_in_flight(&site);
            if let Some(place) = self.places.get_mut(&site) {
                place.told = load;
            }
        }
    }
}

fn state(leaving: &Leaving) -> FlyingState {
    leaving.until().map_or(FlyingState::Unlimited, |until| {
        let left = until.saturating_duration_since(Instant::now());
        FlyingState::Until(clock::now() + left)
    })
}
