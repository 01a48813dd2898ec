//! Rollouts, as the API shows them and is asked about them.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bake::BakeView;
use crate::gate::view::EdgeGates;
use crate::id::{EdgeId, Generation, RegionId, ReleaseId, RolloutId, SiteId};
use crate::in_flight::InFlightView;
use crate::rollout::{Outcome, PlanView};
use crate::time::Timestamp;

/// How far a rollout is in one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PhaseName {
    /// Its wave has not begun.
    Pending,
    /// Edges fetch and verify.
    Preparing,
    /// Every required edge is prepared; waiting for the rest of its wave.
    Prepared,
    /// Edges swap, and are probed.
    Committing,
    /// Edges let a part of the visitors in, and are probed.
    Admitting,
    /// A part of the visitors gets it, and it is watched.
    Canary,
    /// They go on getting it; waiting for the next stage.
    Admitted,
    /// Watched before it counts.
    Baking,
    /// Settled.
    Stable,
    /// Live and not settled: its bake said nothing, and its rules want a person to decide.
    Undecided,
    /// Going back to the release before.
    RollingBack,
    /// Back on the release before.
    RolledBack,
    /// Could not go back; needs an operator.
    RevertBlocked,
    /// Ended before anything was live.
    Aborted,
    /// A newer rollout took over.
    Superseded,
}

shape! {
    /// One rollout, whole.
    pub struct RolloutView {
        /// Its id.
        pub rollout: RolloutId,
        /// The site.
        pub site: SiteId,
        /// `deploy`, `rollback` or `restart`.
        pub kind: String,
        /// Who started it.
        pub by: String,
        /// Counts up with every change of this rollout.
        pub revision: u64,
        /// When it started.
        pub started: Timestamp,
        /// When it last changed.
        pub changed: Timestamp,
        /// How it ended; none while it runs.
        pub outcome: Option<Outcome>,
        /// Region by region.
        pub regions: Vec<RegionView>,
        /// What is in flight on the site's releases.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub in_flight: Vec<InFlightView>,
        /// Its stages, and what it waits for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub plan: Option<PlanView>,
    }
}

shape! {
    /// A rollout in the history of one release.
    pub struct RolloutMark {
        /// Its id.
        pub rollout: RolloutId,
        /// `deploy`, `rollback` or `restart`.
        pub kind: String,
        /// Who started it.
        pub by: String,
        /// When it started.
        pub started: Timestamp,
        /// How it ended; none while it runs.
        pub outcome: Option<Outcome>,
        /// How far the release came in each region that it was to go to.
        pub regions: Vec<RegionMark>,
    }
}

shape! {
    /// How far a release came in one region.
    pub struct RegionMark {
        /// The region.
        pub region: RegionId,
        /// How far.
        pub phase: PhaseName,
    }
}

impl RolloutMark {
    /// What a rollout did with `release`; none where it was about others.
    #[must_use]
    pub fn of(rollout: &RolloutView, release: &ReleaseId) -> Option<Self> {
        let regions = rollout.regions.iter();
        let regions: Vec<RegionMark> = regions
            .filter(|view| view.release == *release)
            .map(|view| RegionMark {
                region: view.region.clone(),
                phase: view.phase,
            })
            .collect();
        (!regions.is_empty()).then(|| Self {
            rollout: rollout.rollout.clone(),
            kind: rollout.kind.clone(),
            by: rollout.by.clone(),
            started: rollout.started,
            outcome: rollout.outcome,
            regions,
        })
    }
}

shape! {
    /// Why somebody pauses or aborts a rollout.
    pub struct ControlReason {
        /// Why, for the record.
        #[serde(default)]
        pub reason: Option<String>,
    }
}

shape! {
    /// Approves one stage of a rollout: the one that waits for it.
    pub struct Approval {
        /// Its number, from 1.
        pub stage: u16,
    }
}

shape! {
    /// One region of a rollout.
    pub struct RegionView {
        /// The region.
        pub region: RegionId,
        /// What is rolled out there.
        pub release: ReleaseId,
        /// How far it is.
        pub phase: PhaseName,
        /// Generation of the region's record.
        pub generation: Generation,
        /// Required edges of this phase.
        pub required: Vec<EdgeId>,
        /// Those of them that have done their part of it.
        pub done: Vec<EdgeId>,
        /// Why it failed, or which edge is late.
        pub reason: Option<String>,
        /// What the release's gates showed, on each edge that has said so.
        #[serde(default)]
        pub gates: Vec<EdgeGates>,
        /// What it was measured by after its swap; none where it does not bake, or not yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub bake: Option<BakeView>,
        /// Percent of its visitors that get it while it is not live.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub weight: Option<u8>,
    }
}
