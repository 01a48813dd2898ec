//! What parts a site's visitors, as its plan says and with what is ready.

use super::Place;
use super::placement::Plan;
use crate::visitor::{Canary, Split};

impl Place {
    /// None where all visitors get the same.
    pub(super) fn split(&mut self, plan: &Plan) -> Option<Box<Split>> {
        let canary = plan.canary.as_deref();
        let named = canary.map(|(candidate, weight)| (&candidate.release, *weight));
        let counted = self.watch.follow_canary(named, plan.generation);
        let canary = canary
            .zip(counted)
            .and_then(|((candidate, weight), counted)| {
                Some(Canary {
                    candidate: self.ready.get(candidate)?.clone(),
                    weight: *weight,
                    counted,
                })
            });
        let pins = plan.pins.iter();
        let pins: Vec<_> = pins
            .filter_map(|pin| Some((pin.clone(), self.ready.get(&pin.release)?.clone())))
            .collect();
        let parts = canary.is_some() || !pins.is_empty();
        parts.then(|| Box::new(Split { canary, pins }))
    }
}
