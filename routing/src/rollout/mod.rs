//! One release to all regions in scope.
//!
//! ```text
//!  Pending ──▶ Preparing ──all required edges prepared──▶ Prepared ──its wave is prepared──▶ Committing
//!                 │ deadline, or an edge failed                                                │   │
//!                 ▼                                                 all report and are proven  │   │ deadline
//!              Aborted (nothing was live)         Stable, Undecided ◀── Baking ◀───────────────┘   ▼
//!                                                                         │ fail            RollingBack ──▶ RolledBack
//!                                                                         └───────────────────▶   │
//!                                                                                                 └──▶ RevertBlocked
//! ```
//!
//! A deployment goes in stages: each region waits prepared until its stage begins ([`staging`]), and some of its visitors may come first ([`canary`]).
//! A bake watches a release after its proof. Only its failure takes regions back, once, and never to what was worse.
//!
//! The machine owns the site's records while it runs: it alone writes them, each write a whole record
//! at the next generation. It is level-triggered: late and repeated reports change nothing, and
//! [`Rollout::resume`] issues the commands of the present state again.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bake::Number;
use crate::gate::report::GatesReport;
use crate::id::{BootId, EdgeId, Epoch, Generation, RegionId, ReleaseId};
use crate::record::{ReleaseRef, SiteRecord};
use crate::report::{SiteReport, WindowReport};

mod baking;
mod canary;
mod control;
mod cutover;
mod hours;
mod machine;
mod phase;
mod plan;
mod policy;
mod region;
mod returning;
mod saved;
mod staging;
mod view;

pub use baking::{BAKE_NUDGE, BakePlan};
pub use control::{Control, Refused};
pub use cutover::{KEEP_PREVIOUS, PREPARE_DEADLINE};
pub use hours::{Hours, InvalidHours};
pub use machine::{Order, Rollout, failure};
pub use phase::{COMMIT_DEADLINE, NUDGE_INTERVAL};
pub use plan::{ALL, Closed, PlanError, RolloutPlan, Stage};
pub use policy::{
    Approvals, InvalidApprovals, InvalidOrder, InvalidStep, RolloutPolicy, Step, UsualApprovals,
    UsualOrder, WaveOrder,
};
pub use view::{PlanView, StageView, Waits};

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every region in scope serves it.
    Settled,
    /// It was live somewhere and is back on the release before: in every region, or where its bake failed.
    WentBack,
    /// It ended before any visitor saw it.
    Aborted,
    /// A newer rollout of the site took over.
    Superseded,
    /// Regions are left that only a person can decide about.
    NeedsOperator,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Settled,
        Self::WentBack,
        Self::Aborted,
        Self::Superseded,
        Self::NeedsOperator,
    ];

    /// As in logs, metrics and databases.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::WentBack => "went-back",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
            Self::NeedsOperator => "needs-operator",
        }
    }

    /// The exit code of a command that waited for it.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Settled => 0,
            Self::WentBack => 2,
            Self::Aborted => 3,
            Self::Superseded => 5,
            Self::NeedsOperator => 6,
        }
    }
}

/// Why a rollout was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A new deployment. Regions of a wave commit only when all of them are prepared.
    Deploy,
    /// Going back. Each region commits on its own, as soon as it can.
    Rollback,
    /// What is live once more, one region after the other: gates, connections and what is known of servers begin anew.
    Restart,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Deploy, Self::Rollback, Self::Restart];
}

/// The edges of each region: who is registered, and who holds its lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// By region.
    pub regions: BTreeMap<RegionId, RegionFleet>,
}

/// The edges of one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionFleet {
    /// Every edge that was admitted.
    pub registered: BTreeSet<EdgeId>,
    /// Those that hold their lease.
    pub live: BTreeSet<EdgeId>,
    /// The boot that each was last heard in. What an edge said in another one is void.
    pub boots: BTreeMap<EdgeId, BootId>,
}

impl RegionFleet {
    /// Whether a word of this edge is of the boot that it was last heard in, as far as one is known.
    #[must_use]
    pub fn is_present(&self, edge: &EdgeId, boot: &BootId) -> bool {
        self.boots.get(edge).is_none_or(|newest| newest == boot)
    }
}

/// What a rollout is to do in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionPlan {
    /// The record as it stands; a blank one at generation 0 where there was none.
    pub record: SiteRecord,
    /// What to make live.
    pub target: ReleaseRef,
    /// The last release that settled here: where to go back to.
    pub baseline: Option<ReleaseRef>,
    /// Whether that may not be gone back to by itself.
    pub is_baseline_quarantined: bool,
    /// Size of the target in bytes: the prepare deadline grows with it.
    pub bytes: u64,
    /// How long its gates may take: the prepare deadline grows by it.
    pub gates: Duration,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An edge said how it stands with the site.
    Reported(SiteReport),
    /// An edge said what the target's gates showed.
    Gated(GatesReport),
    /// A request through an edge was answered by this release under this generation.
    Proved {
        /// The edge's region.
        region: RegionId,
        /// The edge.
        edge: EdgeId,
        /// The generation it answered under.
        generation: Generation,
        /// The release it answered with.
        release: ReleaseId,
    },
    /// An edge said what it has counted of a release.
    Measured(Box<WindowReport>),
    /// Prometheus answered a question of [`Command::Ask`], or could not be asked, for this reason.
    Answered {
        /// The region it was asked for.
        region: RegionId,
        /// Which of the release's questions.
        check: usize,
        /// The answer.
        answer: Result<Number, String>,
    },
    /// Most edges of a region took themselves back while its release baked and nobody else could decide.
    WentBack {
        /// The region.
        region: RegionId,
        /// Why they did.
        reason: String,
        /// The generation of the cutover after which they did: what they say of an earlier one is no news.
        base: Generation,
    },
    /// A newer rollout of the site takes over.
    Superseded {
        /// Term of the origin that says so: it may not have resumed this one.
        epoch: Epoch,
    },
    /// Time passed, or the fleet changed.
    Tick,
}

/// What must be done. Writes, settlements, returns, places in the plan and the end are saved in one transaction with the machine; the rest follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Store this record and publish it.
    Write(SiteRecord),
    /// The release settled in the region.
    Settle {
        /// The region.
        region: RegionId,
        /// What settled.
        release: ReleaseRef,
        /// Under which generation.
        generation: Generation,
    },
    /// Publish the region's record again, unchanged: edges answer with their report.
    Republish {
        /// The region.
        region: RegionId,
    },
    /// Ask through the edge which release answers, until it is at least this generation; the answer is [`Event::Proved`].
    Probe {
        /// The edge's region.
        region: RegionId,
        /// The edge.
        edge: EdgeId,
        /// The generation to see.
        generation: Generation,
    },
    /// A bake has begun. Saved, so that a restarted origin goes on with its clock.
    Bake {
        /// The region.
        region: RegionId,
    },
    /// The region goes back, with the write before this. What it goes back to counts as settled again.
    Return {
        /// The region.
        region: RegionId,
        /// What it leaves.
        left: ReleaseRef,
        /// What it goes back to.
        to: ReleaseRef,
        /// Why the one left is quarantined and the region held, if they are.
        quarantine: Option<String>,
    },
    /// The region's visitors no longer get the candidate, with the write before this. What is live stays.
    Withdraw {
        /// The region.
        region: RegionId,
        /// What they no longer get.
        left: ReleaseRef,
        /// Why it is quarantined and the region held, if they are.
        quarantine: Option<String>,
    },
    /// Where the rollout is in its plan has changed, or somebody asked something of it. Saved, so that a restarted origin
    /// knows.
    Plan,
    /// Ask Prometheus this; the answer is [`Event::Answered`].
    Ask {
        /// The region it is asked for.
        region: RegionId,
        /// Which of the release's questions.
        check: usize,
        /// PromQL.
        query: String,
    },
    /// The rollout is over.
    Finish(Outcome),
}

impl Command {
    /// Whether the machine has to be saved with it. What asks for none only counts progress, and is asked for again.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        match self {
            Self::Write(_)
            | Self::Settle { .. }
            | Self::Bake { .. }
            | Self::Return { .. }
            | Self::Withdraw { .. }
            | Self::Plan
            | Self::Finish(_) => true,
            Self::Republish { .. } | Self::Probe { .. } | Self::Ask { .. } => false,
        }
    }
}
