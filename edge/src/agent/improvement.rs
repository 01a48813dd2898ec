//! Smaller variants of the files of a release that is live: asked for after a while, and taken up when origin has
//! made them. Without them the release is served as it is.

use std::sync::Arc;
use std::time::Duration;

use helix_routing::id::SiteId;
use helix_routing::record::ReleaseRef;

use super::{Agent, Done};
use crate::release::Release;
use crate::store::{Fetcher, Store};

/// After a release went live, before origin is first asked for smaller variants of its files; doubles.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Between two such questions at most.
const MAX_LOOK: Duration = Duration::from_secs(600);
/// Then origin has none to give, and the edge goes on without: about two hours later.
const MAX_LOOKS: u32 = 18;

impl Agent {
    /// Asks again after a while: rarer and rarer, and not for ever.
    pub(super) fn improve_later(&self, site: &SiteId, release: &ReleaseRef, looks: u32) {
        if looks < MAX_LOOKS {
            let wait = (FIRST_LOOK * 2_u32.saturating_pow(looks)).min(MAX_LOOK);
            // Edges became live in the same moment; they do not ask in the same moment.
            let wait = wait.mul_f64(rand::random_range(1.0..2.0));
            let due = Done::ImprovementDue {
                site: site.clone(),
                release: release.clone(),
                looks,
            };
            self.later(wait, due);
        }
    }

    pub(super) fn look_for_improvement(&self, site: &SiteId, release: ReleaseRef, looks: u32) {
        let Some(place) = self.places.get(site) else {
            return;
        };
        let is_live = place
            .placement
            .served()
            .is_some_and(|plan| plan.live.as_ref() == Some(&release));
        let is_wanted = place.ready.get(&release).is_some_and(|held| !held.improved);
        if !is_live || !is_wanted {
            return;
        }
        let (store, fetcher, done) = (
            Arc::clone(&self.store),
            self.fetcher.clone(),
            self.done.clone(),
        );
        let site = site.clone();
        tokio::spawn(async move {
            let better = Box::pin(improve(store, &site, &release, fetcher)).await;
            // The agent ends only with the process.
            let _ = done
                .send(Done::Improved {
                    site,
                    release,
                    looks,
                    better,
                })
                .await;
        });
    }

    /// The same release under the same generation: what a request gets differs in its encoding alone.
    pub(super) fn improved(
        &mut self,
        site: &SiteId,
        release: ReleaseRef,
        looks: u32,
        better: Option<Box<Release>>,
    ) {
        let Some(better) = better else {
            return self.improve_later(site, &release, looks + 1);
        };
        let Some(place) = self.places.get_mut(site) else {
            return;
        };
        let Some(held) = place.ready.get_mut(&release) else {
            // Dropped meanwhile.
            return;
        };
        let mut better = *better;
        better.in_flight = Arc::clone(&held.in_flight);
        *held = Arc::new(better);
        tracing::info!(site = %site, release.id = %release.release, "release improved");
        if let Some(plan) = place.placement.served().cloned() {
            self.serve(site, &plan);
        }
    }
}

/// The release with its improvement, once origin has one. What goes wrong is no harm: the release is served as it is.
async fn improve(
    store: Arc<Store>,
    site: &SiteId,
    release: &ReleaseRef,
    fetcher: Fetcher,
) -> Option<Box<Release>> {
    let improved = Arc::clone(&store).improve(site.clone(), release.clone(), fetcher.clone());
    match improved.await {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => {
            tracing::debug!(site = %site, reason = error.reason(), "no improvement");
            return None;
        }
    }
    let prepared = store.prepare(site.clone(), release.clone(), fetcher).await;
    prepared
        .ok()
        .filter(|release| release.improved)
        .map(Box::new)
}
