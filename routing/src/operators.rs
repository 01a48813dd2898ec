//! Shapes of origin's API for those who operate a fleet: rollbacks and their plans, holds, quarantines.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::api::{PhaseName, shape};
use crate::id::{EdgeId, Environment, Generation, RegionId, ReleaseId, RolloutId, SiteId};
use crate::time::Timestamp;

/// Longest reason that is kept, in characters.
pub const MAX_REASON: usize = 500;

shape! {
    /// Takes regions back.
    pub struct NewRollback {
        /// The environment.
        pub environment: Environment,
        /// The release to go to; none means the newest settled one before what is live, region by region.
        #[serde(default)]
        pub release: Option<ReleaseId>,
        /// The regions; none means all.
        #[serde(default)]
        pub regions: Option<Vec<RegionId>>,
        /// Why, for the record.
        #[serde(default)]
        pub reason: Option<String>,
        /// Only say what would change.
        #[serde(default)]
        pub plan: bool,
    }
}

shape! {
    /// What a rollback changes.
    pub struct RollbackView {
        /// The rollout; none when only planned.
        pub rollout: Option<RolloutId>,
        /// Region by region.
        pub regions: Vec<RollbackStep>,
        /// Hosts whose visitors will see it.
        pub hosts: Vec<String>,
        /// The running rollout that it ends.
        #[serde(default)]
        pub preempts: Option<PreemptedRollout>,
    }
}

shape! {
    /// What a rollback changes in one region.
    pub struct RollbackStep {
        /// The region.
        pub region: RegionId,
        /// What is live.
        pub from: Option<ReleaseId>,
        /// What will be.
        pub to: ReleaseId,
        /// Files that differ between the two.
        pub files_changed: u64,
        /// Generation of the region's record now; each write of the rollback raises it.
        #[serde(default)]
        pub generation: Generation,
        /// How many live edges hold the target: they need to fetch nothing.
        #[serde(default)]
        pub resident: Vec<EdgeId>,
        /// Live edges that do not, or did not say so: they fetch it before anything changes.
        #[serde(default)]
        pub absent: Vec<EdgeId>,
        /// Why it is held afterwards.
        #[serde(default)]
        pub hold: String,
        /// What is quarantined there once it is back; none where that is so already.
        #[serde(default)]
        pub quarantines: Option<ReleaseId>,
    }
}

shape! {
    /// The rollout that a rollback ends, and what becomes of its regions.
    pub struct PreemptedRollout {
        /// Its id.
        pub rollout: RolloutId,
        /// `deploy` or `rollback`.
        pub kind: String,
        /// Who started it.
        pub by: String,
        /// Region by region.
        pub regions: Vec<PreemptedRegion>,
    }
}

shape! {
    /// One region of a rollout that a rollback ends.
    pub struct PreemptedRegion {
        /// The region.
        pub region: RegionId,
        /// How far it is.
        pub phase: PhaseName,
        /// What it was to bring there.
        pub release: ReleaseId,
        /// What is live there now, and stays so where the rollback does not go.
        pub live: Option<ReleaseId>,
        /// Whether the rollback goes there.
        pub goes_back: bool,
    }
}

shape! {
    /// No automatic deployments to these regions of a site, or of every site that a project has.
    pub struct NewHold {
        /// Of which site; every site of the project if there is none.
        #[serde(default)]
        pub environment: Option<Environment>,
        /// Where; every region if none are named.
        #[serde(default)]
        pub regions: Option<Vec<RegionId>>,
        /// Why.
        pub reason: String,
        /// For how long, in milliseconds; until it is lifted if there is none.
        #[serde(default)]
        pub ttl_ms: Option<u64>,
    }
}

shape! {
    /// Lifts holds.
    pub struct ClearHolds {
        /// Of which site; every site of the project if there is none.
        #[serde(default)]
        pub environment: Option<Environment>,
        /// Where; every region if none are named.
        #[serde(default)]
        pub regions: Option<Vec<RegionId>>,
        /// Why.
        #[serde(default)]
        pub reason: Option<String>,
    }
}

shape! {
    /// A hold, and whose it is.
    pub struct HoldView {
        /// The site.
        pub site: SiteId,
        /// The region.
        pub region: RegionId,
        /// The hold.
        pub hold: HoldStatus,
    }
}

shape! {
    /// Why there are no automatic deployments, and until when.
    pub struct HoldStatus {
        /// Why.
        pub reason: String,
        /// Since when.
        pub since: Timestamp,
        /// Who set it; none where nobody did: a release went back by itself.
        #[serde(default)]
        pub by: Option<String>,
        /// When it ends by itself; none: it does not.
        #[serde(default)]
        pub until: Option<Timestamp>,
    }
}

shape! {
    /// Holds that were set or lifted.
    pub struct HoldsView {
        /// Each of them.
        pub holds: Vec<HoldView>,
        /// Rollouts of these sites that run: a hold does not stop them.
        pub running: Vec<RolloutId>,
    }
}

shape! {
    /// A region that an automatic deployment leaves alone.
    pub struct SkippedRegion {
        /// The region.
        pub region: RegionId,
        /// Why it is held.
        pub reason: String,
    }
}

shape! {
    /// Marks a release, or takes the mark back: it is not deployed again without the word, and no rollback goes to it.
    pub struct NewQuarantine {
        /// Where; every region if none are named.
        #[serde(default)]
        pub regions: Option<Vec<RegionId>>,
        /// Why.
        pub reason: String,
    }
}

shape! {
    /// A release that may not be deployed without the word, in one region.
    pub struct QuarantineView {
        /// The site.
        pub site: SiteId,
        /// The region.
        pub region: RegionId,
        /// The release.
        pub release: ReleaseId,
        /// Why.
        pub reason: String,
        /// Since when.
        pub since: Timestamp,
        /// Who; none where nobody did: it went back by itself.
        #[serde(default)]
        pub by: Option<String>,
        /// It is live there all the same.
        #[serde(default)]
        pub live: bool,
    }
}

shape! {
    /// One act in the audit log.
    pub struct AuditEntry {
        /// Counts up by one.
        pub number: u64,
        /// When.
        pub at: Timestamp,
        /// Id of the token; `origin` for what no person did.
        pub actor: String,
        /// Its name.
        pub by: String,
        /// What was done, such as `hold.set`.
        pub action: String,
        /// On what.
        pub subject: String,
        /// Of which project.
        pub project: Option<String>,
        /// Why, in the words of who did it.
        pub reason: Option<String>,
        /// More, where there is more to say.
        pub detail: Option<String>,
        /// Id of the request, as its response had it in `x-request-id`.
        pub request: Option<String>,
        /// Over this entry and the hash of the one before, in hex; empty in entries from before the chain.
        pub hash: String,
    }
}

shape! {
    /// Entries of the audit log, newest first.
    pub struct AuditPage {
        /// The entries.
        pub entries: Vec<AuditEntry>,
        /// Ask for what is `before` this to go on; none: there is nothing older.
        pub next: Option<u64>,
    }
}

shape! {
    /// The newest entry of the audit log.
    pub struct AuditHead {
        /// Its number.
        pub number: u64,
        /// Its hash.
        pub hash: String,
    }
}

shape! {
    /// What came of walking the whole audit log.
    pub struct AuditCheck {
        /// Entries that fit.
        pub entries: u64,
        /// Entries from before the chain.
        pub unchained: u64,
        /// The newest: write it down elsewhere, and a log that is cut short or forged as a whole is found too.
        pub head: AuditHead,
        /// Where the chain is broken; none: it is whole.
        pub broken: Option<BrokenAudit>,
    }
}

shape! {
    /// Where the audit log is not what was written.
    pub struct BrokenAudit {
        /// The number of the entry that does not fit.
        pub number: u64,
        /// What is wrong.
        pub what: String,
    }
}
