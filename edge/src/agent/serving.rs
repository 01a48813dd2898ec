//! Lets requests see what a site serves, and lets what it served before end.
//!
//! Invariant: what requests pin after the swap is the new release; what they pinned before keeps the old one to its end, which
//! [`crate::in_flight`] sees to. A release that is served anew connects to its servers anew.

use std::sync::Arc;

use helix_routing::id::{Generation, ReleaseId, SiteId};
use helix_routing::record::ReleaseRef;
use helix_routing::routes::Drain;
use helix_service::{clock, failpoint};
use tokio::time::Instant;

use super::Agent;
use super::counting::{Counts, Ended};
use super::placement::Plan;
use crate::in_flight::InFlight;
use crate::left::Left;
use crate::table::Serving;

impl Agent {
    pub(super) fn serve(&mut self, site: &SiteId, plan: &Plan) {
        let Some(place) = self.places.get_mut(site) else {
            return;
        };
        place.follow_retired(clock::now());
        let live_since = place.placement.record().map(|record| record.live_since);
        let live = plan.live.as_ref().map(|live| &live.release);
        let (counts, ended) = place.watch.follow(live, live_since.unwrap_or_default());
        let is_again = ended.as_ref().is_some_and(|ended| ended.is_again);
        if is_again {
            self.renew_upstreams(site);
        }
        let Some(place) = self.places.get_mut(site) else {
            return;
        };
        let Counts { counted, in_flight } = counts;
        let split = place.split(plan);
        let record = place.placement.record();
        let protection = record.and_then(|record| record.protection.clone());
        let release = |named: &ReleaseRef| place.ready.get(named).cloned();
        let before = self.table.site(site).map(|site| site.serving());
        let serving = Serving {
            counted,
            in_flight,
            split,
            protection,
            ..Serving::new(
                plan.generation,
                plan.live.as_ref().and_then(release),
                plan.kept.iter().filter_map(release).collect(),
            )
        };
        let before = before.and_then(|serving| serving.live.clone());
        let from = before.as_ref().map(|live| live.id.clone());
        let to = plan.live.as_ref().map(|live| live.release.clone());
        if from != to {
            if let Some(live) = &plan.live {
                self.improve_later(site, live, 0);
            }
            tracing::info!(site = %site, generation = plan.generation.0, from = ?from, to = ?to, "live release");
        } else if is_again {
            tracing::info!(site = %site, generation = plan.generation.0, release.id = ?to, "live release begins anew");
        }
        self.table.publish(site, serving);
        failpoint::hit("edge.published");
        if let Some(ended) = ended {
            let drain = before.map(|before| before.routes.drain);
            self.leave(site, ended, &drain.unwrap_or_default());
        }
    }

    pub(super) fn remove(&mut self, site: &SiteId) {
        tracing::info!(site = %site, "site removed");
        let before = self.table.site(site).map(|site| site.serving());
        // Emptied first: the map may free what it lost only much later, and a release keeps its blobs.
        self.table.publish(site, Serving::default());
        self.table.remove(site);
        let place = self.places.get_mut(site);
        let ended = place.and_then(|place| place.watch.follow(None, Generation::default()).1);
        if let Some(ended) = ended {
            let live = before.and_then(|before| before.live.clone());
            let drain = live.map(|live| live.routes.drain);
            self.leave(site, ended, &drain.unwrap_or_default());
        }
    }

    /// No longer holds a release, nor makes it ready. What came by its own name may end.
    pub(super) fn drop_release(&mut self, site: &SiteId, release: &ReleaseRef) {
        let Some(place) = self.places.get_mut(site) else {
            return;
        };
        if let Some(task) = place.fetching.remove(release) {
            task.abort();
        }
        if let Some(held) = place.ready.remove(release) {
            let since = Generation::default();
            let in_flight = Arc::clone(&held.in_flight);
            self.left(
                site,
                (&release.release, since),
                in_flight,
                &held.routes.drain,
            );
        }
    }

    fn leave(&self, site: &SiteId, ended: Ended, drain: &Drain) {
        let Ended {
            release,
            since,
            in_flight,
            ..
        } = ended;
        self.left(site, (&release, since), in_flight, drain);
        // So that whoever looks sees at once what is left.
        self.tell_in_flight(site);
    }

    fn left(
        &self,
        site: &SiteId,
        (release, live_since): (&ReleaseId, Generation),
        in_flight: Arc<InFlight>,
        drain: &Drain,
    ) {
        let load = in_flight.load();
        if !load.is_none() {
            tracing::info!(
                site = %site, release.id = %release, requests = load.requests, websockets = load.sockets,
                from = "live", to = "draining", "release"
            );
        }
        in_flight.leave(drain, Instant::now());
        self.table.left().add(Left {
            site: site.clone(),
            release: release.clone(),
            live_since,
            in_flight,
        });
    }

    /// What is left of releases that are no longer live: told, and in the end forgotten and collected.
    pub(super) fn follow_left(&mut self) {
        let left = self.table.left();
        let drained = left.sweep(Instant::now());
        for site in left.sites().iter().chain(&drained) {
            self.tell_in_flight(site);
        }
        self.tell_sockets();
        if !drained.is_empty() {
            self.collect_later();
        }
    }

    /// Servers are looked up and connected to anew, and are well until they show otherwise. Requests that are in flight keep
    /// to what they have.
    fn renew_upstreams(&self, site: &SiteId) {
        if let Some(asker) = &*self.asking.borrow() {
            asker.edge().upstreams.renew(site);
        }
        let Some(place) = self.places.get(site) else {
            return;
        };
        for release in place.ready.values() {
            release.groups.renew();
        }
    }
}
