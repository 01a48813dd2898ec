//! Which phase a region comes to from which, as the machine draws it: no other, and each of them at some time.

use helix_routing::api::PhaseName;
use helix_routing::rollout::Rollout;

use crate::checks::Check;
use crate::world::World;

use PhaseName::{
    Aborted, Admitted, Admitting, Baking, Canary, Committing, Pending, Prepared, Preparing,
    RevertBlocked, RolledBack, RollingBack, Stable, Superseded, Undecided,
};

/// In one step of the machine, so that a wait of no time is not seen: what is prepared may commit at once. A region begins as
/// [`Pending`] and mostly leaves that before anybody looks.
pub(crate) const TRANSITIONS: &[(PhaseName, PhaseName)] = &[
    // A restart goes region by region.
    (Pending, Preparing),
    (Pending, Aborted),
    (Pending, Superseded),
    // All edges are prepared; one restarted; the deadline passed, or another region failed; the stage begins.
    (Preparing, Prepared),
    (Prepared, Preparing),
    (Preparing, Aborted),
    (Prepared, Aborted),
    (Preparing, Superseded),
    (Prepared, Superseded),
    (Preparing, Committing),
    (Prepared, Committing),
    (Preparing, Admitting),
    (Prepared, Admitting),
    // A part of the visitors.
    (Admitting, Canary),
    (Admitting, RollingBack),
    (Admitting, Superseded),
    (Canary, Admitted),
    (Canary, RollingBack),
    (Canary, Superseded),
    // The next stage asks the edges again; a pause steps out of it; what has some visitors goes back.
    (Canary, Preparing),
    (Admitted, Preparing),
    (Preparing, Admitted),
    (Prepared, Admitted),
    (Admitted, RollingBack),
    (Preparing, RollingBack),
    (Prepared, RollingBack),
    (Admitted, Superseded),
    // All of the visitors.
    (Committing, Baking),
    (Committing, Stable),
    (Committing, RollingBack),
    (Committing, RevertBlocked),
    (Committing, Superseded),
    (Baking, Stable),
    (Baking, Undecided),
    (Baking, RollingBack),
    (Baking, RevertBlocked),
    (Baking, Superseded),
    // Another region failed, or somebody aborted.
    (Stable, RollingBack),
    (Stable, RevertBlocked),
    (Undecided, RollingBack),
    (Undecided, RevertBlocked),
    (RollingBack, RolledBack),
    (RollingBack, RevertBlocked),
    (RollingBack, Superseded),
];

impl World {
    pub(crate) fn check_transitions(&mut self, before: &[PhaseName], machine: &Rollout) {
        for (from, (region, to)) in before.iter().zip(machine.phases()) {
            if *from == to {
                continue;
            }
            self.counts.moved(*from, to);
            if !TRANSITIONS.contains(&(*from, to)) {
                let text = format!("{region} goes from {from:?} to {to:?}");
                self.fail(Check::Drawn, text);
            }
        }
    }
}
