//! What is shown of builds.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::{BuildStep, Trust};
use crate::id::{BuildId, Commit, Environment, ProjectName, ReleaseId, SiteId};
use crate::time::Timestamp;

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum BuildState {
    /// It is of a fork, and nobody has approved its commit.
    Waiting,
    /// It waits for a worker.
    Queued,
    /// A worker has it.
    Claimed,
    /// Its files are deployed.
    Succeeded,
    /// Nothing is deployed.
    Failed,
    /// A newer commit came, or somebody said so.
    Cancelled,
}

impl BuildState {
    /// Whether nothing more comes.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Waiting | Self::Queued | Self::Claimed => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

shape! {
    /// A build of a project.
    pub struct BuildView {
        /// Its id.
        pub id: BuildId,
        /// The project.
        pub project: ProjectName,
        /// Counts up per project.
        pub number: u64,
        /// What it is for.
        pub site: SiteId,
        /// Of which commit.
        pub commit: Commit,
        /// How far that is trusted.
        pub trust: Trust,
        /// How far it is.
        pub state: BuildState,
        /// Why it failed or was cancelled.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reason: Option<String>,
        /// In which part it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub step: Option<BuildStep>,
        /// Which worker has it, or had it last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub worker: Option<String>,
        /// How often it was claimed.
        pub attempts: u64,
        /// The revision of the variables that it gets, once it is claimed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub env_revision: Option<u64>,
        /// What it was found to be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub framework: Option<String>,
        /// The deployment that it made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub deployment: Option<u64>,
        /// Where the site answers.
        pub url: String,
        /// Who asked for it.
        pub by: String,
        /// When it was asked for.
        pub created: Timestamp,
        /// When it was claimed last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub started: Option<Timestamp>,
        /// When it ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub ended: Option<Timestamp>,
    }
}

shape! {
    /// Builds the newest commit of a site once more.
    pub struct NewRedeploy {
        /// Of which site.
        pub environment: Environment,
    }
}

shape! {
    /// Rolls a preview's release out to production.
    pub struct NewPromotion {
        /// Which.
        pub release: ReleaseId,
        /// Why production gets what was not built of the default branch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub override_reason: Option<String>,
    }
}

shape! {
    /// What became of a provider's webhook.
    pub struct HookView {
        /// Whether anything follows from it.
        pub accepted: bool,
        /// What follows, or why nothing does.
        pub reason: String,
        /// The build that follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub build: Option<BuildId>,
    }
}
