//! Takes this edge back while origin is silent, where a release that bakes asks for it and a hard limit breaks.
//!
//! The rule is [`helix_routing::glass::breaks`]. What comes of it is an override as any other: on disk first, reported, and taken
//! over by origin when most edges of the region agree. It happens once after each cutover, whatever comes then.

use std::time::Duration;

use helix_routing::glass::{Cause, NewOverride, Seen, breaks};
use helix_routing::id::SiteId;
use helix_service::clock;
use tokio::time::Instant;

use super::Agent;

/// How long an override by the guard is meant for: origin is back by then, or somebody looks.
const MEANT_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Who it was, beside the edge that reports it.
const BY: &str = "local guard";

impl Agent {
    /// Looks at every site that bakes, each second.
    pub(super) fn guard(&mut self) {
        let silence = self.silence();
        if silence.is_zero() || self.glass.is_writing() {
            return;
        }
        let broken = self.places.keys().find_map(|site| {
            let reason = self.broken(site, silence)?;
            Some((site.clone(), reason))
        });
        let Some((site, reason)) = broken else {
            return;
        };
        let wish = NewOverride {
            site: site.clone(),
            release: None,
            reason,
            by: BY.to_owned(),
            ttl_seconds: MEANT_FOR.as_secs(),
        };
        match self.decide(&wish, Cause::Guard) {
            Ok(local) => self.keep_guarded(site, Some(local)),
            Err(refused) => {
                tracing::error!(%site, reason = wish.reason, %refused, "a hard limit is broken and there is nothing to go back to");
                self.keep_guarded(site, None);
            }
        }
    }

    /// How long no beacon has come, by the stream that is longest without.
    fn silence(&mut self) -> Duration {
        let is_stale = self.feeds.iter().any(|feed| feed.borrow().stale);
        if !is_stale {
            self.stale_since = None;
            return Duration::ZERO;
        }
        self.stale_since.get_or_insert_with(Instant::now).elapsed()
    }

    fn broken(&self, site: &SiteId, silence: Duration) -> Option<String> {
        let place = self.places.get(site)?;
        let record = place.placement.record().filter(|record| !record.removed)?;
        record.bake_until?;
        let live = record.live.as_ref()?;
        let (counted, window, before) = place.watch.seen()?;
        let is_served = *counted == live.release && place.placement.local().is_none();
        let release = place.ready.get(live).filter(|_| is_served)?;
        let seen = Seen {
            rules: &release.routes.bake,
            is_parted: record.weight.is_some(),
            bake_until: record.bake_until,
            silence,
            is_spent: self.glass.is_spent(site, record.live_since),
            window: &window,
            before,
        };
        breaks(&seen, clock::now())
    }
}
