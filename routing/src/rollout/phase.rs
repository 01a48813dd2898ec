//! Pure. The phases of a cutover, and which edges each of them waits for.
//!
//! Invariant: a phase that waits never waits for an empty set, and always has a deadline.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::RegionFleet;
use super::baking::Baking;
use crate::id::{BootId, EdgeId};
use crate::time::Timestamp;

/// Edges that are prepared only have to write a small record and swap a pointer.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(20);
/// How often edges that have not answered are asked again.
pub const NUDGE_INTERVAL: Duration = Duration::from_secs(1);
/// `-ing` phases own a deadline; the others are settled or wait for one that does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    Pending,
    Preparing {
        clock: Clock,
        required: BTreeSet<EdgeId>,
        prepared: BTreeMap<EdgeId, BootId>,
    },
    /// Prepared, until its stage begins. What edges said is kept, since that may be at once.
    Ready {
        since: Timestamp,
        clock: Clock,
        required: BTreeSet<EdgeId>,
        prepared: BTreeMap<EdgeId, BootId>,
    },
    Committing(Proof),
    /// Edges are told to let some of the visitors in.
    Admitting(Proof),
    /// Some of the visitors get it, and it is watched.
    Canary(Baking),
    /// They go on getting it, until the next stage begins.
    Admitted,
    Baking(Baking),
    Stable,
    Undecided,
    RollingBack(Proof),
    RolledBack,
    RevertBlocked,
    Aborted,
    Superseded,
}

/// When a phase ends, and when late edges are asked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Clock {
    pub(super) until: Timestamp,
    pub(super) nudge: Timestamp,
}

/// Which edges have to show a new generation, and which have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proof {
    pub(super) clock: Clock,
    pub(super) required: BTreeSet<EdgeId>,
    pub(super) applied: BTreeSet<EdgeId>,
    pub(super) proven: BTreeSet<EdgeId>,
}

impl Clock {
    pub(super) fn new(now: Timestamp, deadline: Duration) -> Self {
        Self {
            until: now + deadline,
            nudge: now + NUDGE_INTERVAL,
        }
    }

    pub(super) fn due(&self) -> Timestamp {
        self.until.min(self.nudge)
    }
}

impl Proof {
    pub(super) fn new(now: Timestamp, required: BTreeSet<EdgeId>) -> Self {
        let clock = Clock::new(now, COMMIT_DEADLINE);
        Self {
            clock,
            required,
            applied: BTreeSet::new(),
            proven: BTreeSet::new(),
        }
    }

    /// An edge whose lease ended is stale, not a failure; but the set never becomes empty.
    pub(super) fn forget_gone(&mut self, fleet: &RegionFleet) {
        let left: BTreeSet<EdgeId> = self
            .required
            .iter()
            .filter(|edge| fleet.live.contains(*edge) || self.proven.contains(*edge))
            .cloned()
            .collect();
        if !left.is_empty() {
            self.required = left;
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.required.is_subset(&self.proven)
    }

    pub(super) fn missing(&self) -> String {
        names(self.required.difference(&self.proven))
    }
}

/// The edges a phase waits for: those that are live, if they are at least half of the registered ones. Fewer, and the
/// phase waits for all of them, so that it can only end by their return or by its deadline.
pub(super) fn plan_required(fleet: &RegionFleet) -> BTreeSet<EdgeId> {
    if is_quorum(&fleet.live, fleet) {
        fleet.live.clone()
    } else {
        fleet.registered.clone()
    }
}

pub(super) fn forget_gone(required: &mut BTreeSet<EdgeId>, fleet: &RegionFleet) {
    let left: BTreeSet<EdgeId> = required.intersection(&fleet.live).cloned().collect();
    if is_quorum(&left, fleet) {
        *required = left;
    }
}

fn is_quorum(edges: &BTreeSet<EdgeId>, fleet: &RegionFleet) -> bool {
    !edges.is_empty() && edges.len() * 2 >= fleet.registered.len()
}

pub(super) fn names<'a>(edges: impl Iterator<Item = &'a EdgeId>) -> String {
    let names: Vec<&str> = edges.map(EdgeId::as_str).collect();
    if names.is_empty() {
        String::from("the region has no edges")
    } else {
        names.join(", ")
    }
}
