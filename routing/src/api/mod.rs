//! The shapes of origin's HTTP API, shared by origin and the command.
//!
//! Paths, all under `/v1` and JSON unless said otherwise; errors are `application/problem+json` (RFC 9457):
//!
//! ```text
//! GET    /v1/status                                        Status
//! GET    /v1/projects                                      [ProjectView]
//! DELETE /v1/projects/{project}                            ProjectView  (removed; kept for 7 days)
//! POST   /v1/projects/{project}/restore                    ProjectView
//! GET    /v1/projects/{project}/domains                    [DomainView]
//! POST   /v1/projects/{project}/domains        NewDomain → DomainView
//! DELETE /v1/projects/{project}/domains/{host}             204
//! POST   /v1/projects/{project}/uploads        NewUpload → UploadPlan
//! POST   /v1/projects/{project}/packs          pack frames → 204   (content-type application/vnd.helixstack.pack-upload)
//! HEAD   /v1/projects/{project}/blobs/{digest}             204 with `upload-offset`, or 200 when complete
//! PATCH  /v1/projects/{project}/blobs/{digest}  bytes    → 204 with `upload-offset`
//! POST   /v1/projects/{project}/deployments    NewDeployment → DeploymentView
//! POST   /v1/projects/{project}/promotions     NewPromotion → DeploymentView  (a preview's release, on an operator's word)
//! POST   /v1/projects/{project}/rollbacks      NewRollback → RollbackView  (with `plan: true` nothing changes)
//! POST   /v1/projects/{project}/restarts       NewRestart → RestartView    (with `plan: true` nothing changes)
//! POST   /v1/projects/{project}/holds          NewHold → HoldsView
//! POST   /v1/projects/{project}/holds/clear    ClearHolds → HoldsView  (those it has lifted)
//! GET    /v1/holds?project=                                [HoldView]
//! POST   /v1/releases/{release}/quarantine     NewQuarantine → [QuarantineView]
//! POST   /v1/releases/{release}/unquarantine   NewQuarantine → [QuarantineView]  (those it has lifted)
//! POST   /v1/releases/{release}/verify         NewReleaseCheck → ReleaseCheck  (what is lost is fetched, or pushed again)
//! GET    /v1/quarantines?project=                          [QuarantineView]
//! GET    /v1/audit?project=&since=&by=&action=&before=     AuditPage  (newest first)
//! GET    /v1/audit/verification?number=&hash=              AuditCheck
//! GET    /v1/webhooks · POST NewWebhook → CreatedWebhook · DELETE /v1/webhooks/{webhook}
//! POST   /v1/webhooks/{webhook}/test                       DeliveryView  (so `enable`, which answers with a WebhookView)
//! GET    /v1/webhooks/{webhook}/deliveries?state=&before=  [DeliveryView]
//! GET    /v1/deliveries/{delivery} · POST …/replay         DeliveryView
//! GET    /v1/projects/{project}/releases?environment=      [ReleaseView]
//! POST   /v1/projects/{project}/purges         NewPurge → PurgeView  (told to the edges; who has applied it, so far)
//! GET    /v1/projects/{project}/purges?environment=        PurgeView  (the newest purge of each region)
//! POST   /v1/releases/{release}/gates          NewGateRun → GateRunView  (told to the edges; what they found, so far)
//! GET    /v1/releases/{release}/gates                      GateRunView  (the newest run of each region)
//! GET    /v1/releases/{release}/provenance                 Bundle  (of `crate::provenance`: a Sigstore bundle)
//! GET    /v1/releases/{release}/materials                  a bill of materials in CycloneDX, as its build brought it
//! GET    /v1/keys/provenance                               the key that signs those, in PEM
//! GET    /v1/visitor-key                                   VisitorKey  (of `crate::visitor`, for edges)
//! POST   /v1/projects/{project}/pins           NewPin → [PinView]  (of `crate::visitor`)
//! GET    /v1/projects/{project}/pins?environment=          [PinView]
//! DELETE /v1/projects/{project}/pins/{label}?environment=  204
//! POST   /v1/projects/{project}/freezes        NewFreeze → FreezeView  (no deployments to production meanwhile)
//! GET    /v1/projects/{project}/freezes                    [FreezeView]
//! DELETE /v1/projects/{project}/freezes/{freeze}               204
//! POST   /v1/projects/{project}/lock           NewLock → LockView  (others cannot deploy to the site)
//! GET    /v1/projects/{project}/lock?environment=          LockView
//! DELETE /v1/projects/{project}/lock?environment=&force=   LockView
//! GET    /v1/rollouts/{rollout}                            RolloutView
//! GET    /v1/rollouts/{rollout}/events                     text/event-stream of RolloutView, `event: rollout`; ends after the finished one
//! GET    /v1/rollouts?project=&environment=                 [RolloutView]  (the newest 50)
//! POST   /v1/rollouts/{rollout}/pause          ControlReason → RolloutView  (no further stage begins)
//! POST   /v1/rollouts/{rollout}/resume                     RolloutView
//! POST   /v1/rollouts/{rollout}/approve        Approval → RolloutView  (of the stage that waits, by its number)
//! POST   /v1/rollouts/{rollout}/abort          ControlReason → RolloutView  (what is live goes back)
//! GET    /v1/explain?url=                                  Explanation
//! GET    /v1/projects/{project}/link                       LinkView
//! PUT    /v1/projects/{project}/link           NewLink → LinkedView  (its webhook secret is shown once)
//! DELETE /v1/projects/{project}/link                       204
//! POST   /v1/projects/{project}/link/secret                LinkedView  (a new one; the one before counts for a day more)
//! GET    /v1/projects/{project}/protection?kind=           ProtectionView
//! PUT    /v1/projects/{project}/protection     NewProtection → ProtectionView  (what is left out stays)
//! POST   /v1/projects/{project}/shares         NewShare → ShareView  (a link that lets in)
//! GET    /v1/projects/{project}/env?kind=                  EnvView  (never the value of a secret)
//! PUT    /v1/projects/{project}/env/{name}     NewVariable → EnvView  (a new revision)
//! DELETE /v1/projects/{project}/env/{name}?kind=           EnvView  (a new revision)
//! POST   /v1/webhooks/in/{provider}/{project}  the provider's bytes → HookView  (no token: they are signed)
//! POST   /v1/projects/{project}/redeploys      NewRedeploy → BuildView
//! GET    /v1/builds?project=                               [BuildView]  (the newest 50)
//! GET    /v1/builds/{build}                                BuildView
//! POST   /v1/builds/{build}/approve                        BuildView  (of a fork: this commit and no other)
//! POST   /v1/builds/{build}/cancel                         BuildView
//! GET    /v1/builds/{build}/log                            text/event-stream of LogLine, `event: line`; `event: end` with a BuildView is the last
//! POST   /v1/builds/{build}/claim              BuildClaim → BuildJob   (a token of role `build`)
//! POST   /v1/builds/{build}/heartbeat          BuildClaim → BuildWish  (so `log` with BuildLog, and `end` with BuildEnd)
//! GET    /v1/tokens · POST NewToken → CreatedToken · DELETE /v1/tokens/{id}
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::artifact::Encoding;
pub use crate::bake::{BakeView, CheckView};
pub use crate::glass::view::OverrideView;
use crate::host::{Host, HostPattern};
use crate::id::{
    BootId, Commit, Digest, EdgeId, Environment, Epoch, Generation, ProjectName, RegionId,
    ReleaseId, RolloutId, SiteId,
};
pub use crate::in_flight::InFlightView;
pub use crate::operators::{
    HoldStatus, HoldView, NewRollback, RollbackStep, RollbackView, SkippedRegion,
};
pub use crate::restart::{NewRestart, RestartStep, RestartView};
use crate::rollout::RolloutPolicy;
pub use crate::rollout::{PlanView, StageView, Waits};
use crate::time::Timestamp;

/// Derives what every API shape has.
macro_rules! shape {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    };
}
pub(crate) use shape;

mod build;
mod builds;
mod lane;
mod protection;
mod purge;
mod push;
mod role;
mod rollout;
mod source;

pub use build::{
    BuildClaim, BuildEnd, BuildJob, BuildLimits, BuildLog, BuildOutcome, BuildSettings, BuildStep,
    BuildVariable, BuildWish, HEARTBEAT_SECONDS, LEASE_SECONDS, LogLine, MAX_LOG_LINE_BYTES,
    MAX_LOG_LINES, MAX_MATERIALS_BYTES, Source, Trust,
};
pub use builds::{BuildState, BuildView, HookView, NewPromotion, NewRedeploy};
pub use lane::{FreezeView, Held, InFreeze, LockView, MAX_REASON_BYTES, NewFreeze, NewLock};
pub use protection::{
    MAX_PASSWORD_BYTES, MAX_SHARE_SECONDS, MIN_PASSWORD_CHARS, NewProtection, NewShare, Password,
    ProtectionView, ShareView,
};
pub use purge::{MAX_PURGE_PART_BYTES, MAX_PURGE_PARTS, NewPurge, PurgeView, RegionPurge};
pub use push::{NewReleaseCheck, PushState, PushView, RegistryCheck, RegistryStatus, ReleaseCheck};
pub use role::{Role, UnknownRole};
pub use rollout::{
    Approval, ControlReason, PhaseName, RegionMark, RegionView, RolloutMark, RolloutView,
};
pub use source::{
    EnvKind, EnvView, Forks, LinkView, LinkedView, MAX_ENV_BYTES, MAX_ENV_NAME_BYTES,
    MAX_ENV_NAMES, MAX_PREVIEW_DAYS, NewLink, NewVariable, PREVIEW_DAYS, Provider, VariableView,
};

shape! {
    /// An error, after RFC 9457.
    pub struct Problem {
        /// A stable name for this kind of error, such as `host-taken`.
        #[serde(rename = "type")]
        pub kind: String,
        /// What was attempted, on what, and what to do.
        pub title: String,
        /// The HTTP status.
        pub status: u16,
        /// More, where there is more to say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub detail: Option<String>,
    }
}

shape! {
    /// One file that a deployment has.
    pub struct NewFile {
        /// Path within the release.
        pub path: String,
        /// Digest of its content.
        pub digest: Digest,
        /// Size in bytes.
        pub size: u64,
    }
}

shape! {
    /// Asks which files origin lacks.
    pub struct NewUpload {
        /// Every distinct content of the deployment.
        pub contents: Vec<Content>,
    }
}

shape! {
    /// One distinct content.
    pub struct Content {
        /// Its digest.
        pub digest: Digest,
        /// Its size in bytes.
        pub size: u64,
    }
}

shape! {
    /// What has to be uploaded before the deployment can be made.
    pub struct UploadPlan {
        /// Contents origin lacks, smaller than [`crate::artifact::STANDALONE_BYTES`]: send them in packs.
        pub packed: Vec<Digest>,
        /// Contents origin lacks that are sent one by one.
        pub standalone: Vec<PartialContent>,
    }
}

shape! {
    /// A content that is sent on its own, and how much of it has arrived.
    pub struct PartialContent {
        /// Its digest.
        pub digest: Digest,
        /// How many encoded bytes origin has; go on from here.
        pub offset: u64,
    }
}

shape! {
    /// Makes a release of uploaded files and rolls it out.
    pub struct NewDeployment {
        /// Where to.
        pub environment: Environment,
        /// Every file.
        pub files: Vec<NewFile>,
        /// Deploy although the release is quarantined.
        #[serde(default)]
        pub lift_quarantine: bool,
        /// Nobody asked for it by hand: regions that are held are left alone.
        #[serde(default)]
        pub automatic: bool,
        /// In which stages it goes out; what is not said here is left to the release, then to origin's config.
        #[serde(default, skip_serializing_if = "RolloutPolicy::is_silent")]
        pub rollout: RolloutPolicy,
        /// Nothing goes live before this time; it is prepared at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub at: Option<Timestamp>,
        /// What happens if that is in a freeze.
        #[serde(default, skip_serializing_if = "InFreeze::is_refused")]
        pub in_freeze: InFreeze,
        /// The number of the push it comes from: one that comes after a higher one is superseded at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub push_seq: Option<u64>,
        /// Of a Build Output folder, only what needs no runtime.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        pub static_only: bool,
    }
}

shape! {
    /// One attempt from event to outcome.
    pub struct DeploymentView {
        /// Counts up per project and kind of environment.
        pub number: u64,
        /// `main/<number>` or `preview/<pull request>`.
        pub label: String,
        /// The site.
        pub site: SiteId,
        /// The release it made or found.
        pub release: ReleaseId,
        /// Digest of the release's manifest.
        pub artifact: Digest,
        /// The rollout that carries it out.
        pub rollout: RolloutId,
        /// Where the site answers.
        pub url: String,
        /// Where this release answers for as long as it is kept.
        pub release_url: String,
        /// Regions whose hold this deployment lifts.
        pub held: Vec<RegionId>,
        /// Held regions that this deployment leaves alone, since it is automatic.
        #[serde(default)]
        pub skipped: Vec<SkippedRegion>,
    }
}

shape! {
    /// A project.
    pub struct ProjectView {
        /// Its name.
        pub project: ProjectName,
        /// When it was made.
        pub created: Timestamp,
        /// When it will be gone for good; none unless it was deleted.
        pub purge_at: Option<Timestamp>,
        /// Its sites.
        pub sites: Vec<SiteId>,
    }
}

shape! {
    /// Registers a host for a site.
    pub struct NewDomain {
        /// The host, or `*.` and a suffix.
        pub host: HostPattern,
        /// The environment it shows.
        pub environment: Environment,
    }
}

shape! {
    /// A host of a project.
    pub struct DomainView {
        /// The host.
        pub host: HostPattern,
        /// The site it shows.
        pub site: SiteId,
        /// When it was added.
        pub added: Timestamp,
    }
}

shape! {
    /// A release of a site.
    pub struct ReleaseView {
        /// Its id.
        pub release: ReleaseId,
        /// Digest of its manifest.
        pub artifact: Digest,
        /// When it was first made.
        pub created: Timestamp,
        /// Files in it.
        pub files: u64,
        /// Their size in bytes.
        pub bytes: u64,
        /// The newest deployment of it.
        pub label: String,
        /// Where it answers for as long as it is kept.
        pub url: String,
        /// Rollouts that brought it out, newest first, of the newest 50 of the site.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub rollouts: Vec<RolloutMark>,
        /// Regions where it is live.
        pub live_in: Vec<RegionId>,
        /// Regions where it is quarantined.
        pub quarantined_in: Vec<RegionId>,
        /// Digest of its route table; none when it only serves files.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub routes: Option<Digest>,
        /// The commit that it was built of, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub commit: Option<Commit>,
        /// Where it comes from, as origin has attested it: `build … of … on …`, `upload by …`, `promotion of …`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub source: Option<String>,
        /// The revision of the variables that it has; none where there were none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub env_revision: Option<u64>,
        /// Whether the registry has it; none where releases are pushed to none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub push: Option<PushView>,
        /// What is in flight on it, where.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub in_flight: Vec<InFlightView>,
    }
}

shape! {
    /// The fleet and every site.
    pub struct Status {
        /// Origin's term.
        pub epoch: Epoch,
        /// Base domain.
        pub base_domain: Host,
        /// Every origin, where several share one database; else none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub origins: Vec<OriginStatus>,
        /// How far the registry is behind; none where releases are pushed to none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub registry: Option<RegistryStatus>,
        /// Every registered edge.
        pub edges: Vec<EdgeStatus>,
        /// Every site.
        pub sites: Vec<SiteStatus>,
    }
}

shape! {
    /// One of several origins.
    pub struct OriginStatus {
        /// Where its API is.
        pub address: String,
        /// What it does.
        pub state: OriginState,
    }
}

/// What an origin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OriginState {
    /// It decides and writes.
    Leading,
    /// It takes over when the leader is gone.
    StandingBy,
    /// It stood by, and has not been heard of lately.
    Silent,
}

shape! {
    /// One edge as origin sees it.
    pub struct EdgeStatus {
        /// The edge.
        pub edge: EdgeId,
        /// Its region.
        pub region: RegionId,
        /// Where origin probes it.
        pub url: String,
        /// It holds its lease.
        pub live: bool,
        /// It serves what its region's records name.
        pub ready: bool,
        /// Its running boot.
        pub boot: Option<BootId>,
        /// Its build.
        pub version: Option<String>,
        /// Last heartbeat.
        pub seen: Option<Timestamp>,
        /// Why it is not in order, if it is not: stale feed, refused records.
        pub note: Option<String>,
    }
}

shape! {
    /// One site.
    pub struct SiteStatus {
        /// The site.
        pub site: SiteId,
        /// Its hosts.
        pub hosts: Vec<String>,
        /// Region by region.
        pub regions: Vec<SiteRegionStatus>,
        /// The rollout in flight.
        pub rollout: Option<RolloutId>,
        /// What that waits for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub waits: Option<Waits>,
    }
}

shape! {
    /// One site in one region.
    pub struct SiteRegionStatus {
        /// The region.
        pub region: RegionId,
        /// What is live.
        pub live: Option<ReleaseId>,
        /// What is being prepared.
        pub candidate: Option<ReleaseId>,
        /// Generation of the record.
        pub generation: Generation,
        /// No automatic deploys here.
        pub hold: Option<HoldStatus>,
        /// The newest failure here: region not cut over, and why.
        pub note: Option<String>,
        /// What is in flight here on the site's releases.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub in_flight: Vec<InFlightView>,
        /// What edges serve instead of what the record names, until origin takes it over or replaces it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub overrides: Vec<OverrideView>,
    }
}

shape! {
    /// Which site, release, region, edge and file answer a URL, and why.
    pub struct Explanation {
        /// The URL that was asked.
        pub url: String,
        /// Its host.
        pub host: Host,
        /// Why the host is this site's: `domain`, `wildcard *.example.com`, `alias of preview/42`, …
        pub host_rule: String,
        /// The site; none when the host is nobody's.
        pub site: Option<SiteId>,
        /// One answer per edge.
        pub answers: Vec<EdgeAnswer>,
    }
}

shape! {
    /// What one edge answers.
    pub struct EdgeAnswer {
        /// The region.
        pub region: RegionId,
        /// The edge.
        pub edge: EdgeId,
        /// Status it gave; none when it could not be asked.
        pub status: Option<u16>,
        /// Release it answered with.
        pub release: Option<ReleaseId>,
        /// Generation it answered under.
        pub generation: Option<Generation>,
        /// The file in that release.
        pub file: Option<String>,
        /// Why this file, or why none.
        pub reason: String,
    }
}

shape! {
    /// Makes a token.
    pub struct NewToken {
        /// What it is for.
        pub name: String,
        /// What it may do.
        pub role: Role,
    }
}

shape! {
    /// A token, without its secret.
    pub struct TokenView {
        /// Names it, for revoking.
        pub id: String,
        /// What it is for.
        pub name: String,
        /// What it may do.
        pub role: Role,
        /// When it was made.
        pub created: Timestamp,
        /// When it was last used, to the minute.
        pub used: Option<Timestamp>,
    }
}

shape! {
    /// A new token with its secret, shown this once.
    pub struct CreatedToken {
        /// The secret to send as `Authorization: Bearer`.
        pub token: String,
        /// The rest.
        pub view: TokenView,
    }
}

/// Content type of `POST …/packs`: frames one after the other, each the 32 bytes of a content's SHA-256,
/// one byte of encoding (0 identity, 1 zstd), four bytes of length (big-endian), and that many encoded bytes.
pub const PACK_UPLOAD_TYPE: &str = "application/vnd.helixstack.pack-upload";
/// Bytes before a frame's content in a pack upload.
pub const PACK_FRAME_HEAD_BYTES: usize = 32 + 1 + 4;

/// How a content was encoded for upload, as the byte in a pack frame.
#[must_use]
pub const fn encoding_byte(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Identity => 0,
        Encoding::Zstd => 1,
    }
}
