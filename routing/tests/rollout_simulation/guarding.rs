//! Takes an edge back by itself while origin is silent, where the release that bakes asks for it and a hard limit breaks.

use std::time::Duration;

use helix_routing::bake::{BakeRules, OnOriginLoss};
use helix_routing::glass::{Cause, NewOverride, Seen, breaks};
use helix_routing::id::Generation;

use crate::agenda::Due;
use crate::names::number;
use crate::scenario::Safeguard;
use crate::world::World;

/// After so long without a beacon a feed is stale, and from then on origin's silence is counted.
const STALE: u64 = 3_000;
const MEANT_SECONDS: u64 = 24 * 60 * 60;
/// So soon somebody may end what an edge did by itself.
const OTHERWISE: u64 = 2_000;

/// Whether the release asks its edges to take themselves back. Half of the sick ones do, and half of the others.
const fn asks_for_guard(release: u8) -> bool {
    release.is_multiple_of(2)
}

impl World {
    /// Each second: whether a beacon came, and what follows from it where none did.
    pub(crate) fn guard(&mut self, edge: usize) {
        if self.hears_origin(edge) {
            self.edges[edge].memory.heard_at = self.now;
        }
        let this = &self.edges[edge];
        let silence = self.now.saturating_sub(this.memory.heard_at + STALE);
        if this.memory.glass.is_writing {
            return;
        }
        let Some((reason, live_since)) = self.broken(edge, Duration::from_millis(silence)) else {
            return;
        };
        let wish = NewOverride {
            site: self.names.site.clone(),
            release: None,
            reason,
            by: "local guard".to_owned(),
            ttl_seconds: MEANT_SECONDS,
        };
        let next = self.decide_on(edge, &wish, Cause::Guard);
        self.check_guard(edge, live_since, next.as_ref());
        if next.is_some() {
            self.counts.count("an edge took itself back");
            if self.dice.one_in(4) {
                // Somebody at its socket thinks otherwise.
                self.due(OTHERWISE, Due::EndBreak(edge));
            }
        }
        let mut held = self.edges[edge].memory.glass.with(next.as_ref());
        held.guarded.insert(self.names.site.clone(), live_since);
        self.keep(edge, next, held);
    }

    /// Beacons come from whoever writes to the stream.
    fn hears_origin(&self, edge: usize) -> bool {
        let this = &self.edges[edge];
        let is_reached = this.cut_until.max(this.deaf_until) <= self.now;
        let beats = self.origins.iter().any(|origin| {
            let term = self.stream.terms[this.region];
            let leads = origin.leads && origin.epoch == term.epoch && !term.by_operator;
            origin.is_up && leads && origin.frozen_until <= self.now
        });
        is_reached && beats
    }

    fn broken(&self, edge: usize, silence: Duration) -> Option<(String, Generation)> {
        let this = &self.edges[edge];
        let record = &this.memory.record.as_ref()?.record;
        record.bake_until?;
        let live = number(&record.live.as_ref()?.release);
        let (release, window, before) = this.memory.counting.seen()?;
        let is_served = release == live && this.memory.glass.local.is_none();
        if !is_served || !asks_for_guard(live) {
            return None;
        }
        let rules = BakeRules {
            on_origin_loss: OnOriginLoss::LocalGuard,
            ..BakeRules::default()
        };
        let guarded = this.memory.glass.held.guarded.get(&self.names.site);
        let is_spent = guarded.is_some_and(|guarded| *guarded >= record.live_since);
        let is_deaf = self.without == Some(Safeguard::GuardInSilence);
        let seen = Seen {
            rules: &rules,
            is_parted: record.weight.is_some() && self.without != Some(Safeguard::GuardOfWhole),
            bake_until: record.bake_until,
            silence: if is_deaf { Duration::MAX } else { silence },
            is_spent: is_spent && self.without != Some(Safeguard::GuardOnce),
            window,
            before,
        };
        let reason = breaks(&seen, this.clock.read(self.now))?;
        Some((reason, record.live_since))
    }
}
