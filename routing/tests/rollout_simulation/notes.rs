//! What is truly so, for checks alone: nobody in the simulation looks at it.

use std::collections::{BTreeMap, BTreeSet};

use helix_routing::api::PhaseName;
use helix_routing::id::Generation;
use helix_routing::rollout::BakePlan;
use helix_routing::time::Timestamp;

/// What the running rollout is held to.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) plan: BakePlan,
    /// When bakes began, by region and percent of its visitors.
    pub(crate) began: BTreeMap<(usize, u8), Timestamp>,
    /// Regions that went back by themselves.
    pub(crate) returned: BTreeSet<usize>,
    pub(crate) approved: BTreeSet<u16>,
    pub(crate) was_paused: bool,
    pub(crate) committed: BTreeSet<usize>,
    /// Edges that held their lease and their boot since it began, and were known by it.
    pub(crate) steady: Vec<bool>,
    /// Since when nothing has happened that sets deadlines anew.
    pub(crate) calm_since: u64,
    /// By how much origin's clock may have moved since the rollout began.
    pub(crate) slack: u64,
    /// Since when each region is in its phase.
    pub(crate) entered: BTreeMap<usize, (PhaseName, u64)>,
    pub(crate) has_bad_answer: bool,
    /// Prometheus has no answer to anything.
    pub(crate) is_unanswered: bool,
    /// Requests that were truly answered, by region, release and since when that was live; of all rollouts.
    pub(crate) answered: BTreeMap<(usize, u8, Generation), u64>,
    /// A region whose record an operator has signed, while that is taken over.
    pub(crate) signed: Option<usize>,
    /// Which version of the page each purge of it asks for, by region and number.
    pub(crate) purged: BTreeMap<(usize, u64), u64>,
}

impl Notes {
    pub(crate) fn begin(&mut self, steady: Vec<bool>) {
        let answered = std::mem::take(&mut self.answered);
        let purged = std::mem::take(&mut self.purged);
        *self = Self {
            answered,
            purged,
            steady,
            ..Self::default()
        };
    }

    /// The edge was away: it is held to nothing in this rollout.
    pub(crate) fn left(&mut self, edge: usize) {
        if let Some(steady) = self.steady.get_mut(edge) {
            *steady = false;
        }
    }

    pub(crate) fn is_steady(&self, edge: usize) -> bool {
        self.steady.get(edge).is_some_and(|steady| *steady)
    }
}
