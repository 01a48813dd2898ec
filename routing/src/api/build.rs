//! Builds: what origin asks of workers, and what they say back.
//!
//! The queue at NATS carries a build's id and nothing else. A worker shows its token to claim the build, and gets what there
//! is to do over HTTP; what a build may know never travels through NATS. It says that it is alive each
//! [`HEARTBEAT_SECONDS`]; who is silent for [`LEASE_SECONDS`] has lost the build to whoever claims it next.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::NewFile;
use crate::id::{BuildId, Commit, Environment, ProjectName};
use crate::time::Timestamp;

/// How often a worker says that a build goes on.
pub const HEARTBEAT_SECONDS: u64 = 10;

/// How long a worker may be silent before another takes its build over.
pub const LEASE_SECONDS: u64 = 30;

/// Most lines that are sent at once.
pub const MAX_LOG_LINES: usize = 1_000;
/// Longest bill of materials: some ten thousand packages.
pub const MAX_MATERIALS_BYTES: usize = 8 << 20;

/// Longest line of a log in bytes; what is longer is cut.
pub const MAX_LOG_LINE_BYTES: usize = 8 * 1024;

shape! {
    /// How a project is built. Whatever is left out is found from what the repository holds.
    #[derive(Default)]
    pub struct BuildSettings {
        /// Folder within the repository, without `..`; the repository's own if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub root: Option<String>,
        /// A name of the table of frameworks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub framework: Option<String>,
        /// Shell line that installs dependencies; empty for none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub install: Option<String>,
        /// Shell line that builds; empty for none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub build: Option<String>,
        /// Folder of what is to be deployed, within `root`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub output: Option<String>,
        /// Shell line that starts the application. It is kept for a runtime; builds are not told of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub start: Option<String>,
    }
}

/// How far what is built is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Of somebody else's repository: no secrets, reads caches.
    Fork,
    /// A branch of the repository: the secrets of previews, reads caches.
    Branch,
    /// The default branch: the secrets of production, writes caches.
    Default,
}

shape! {
    /// Where the source is.
    pub struct Source {
        /// `https`, `http`, `ssh` or `file` address that git fetches from, without credentials.
        pub url: String,
        /// What git is asked for where the commit alone is not served, such as `refs/pull/42/head`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reference: Option<String>,
        /// The commit that is built, and no other.
        pub commit: Commit,
        /// Value of the `Authorization` header that git shows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub authorization: Option<String>,
    }
}

shape! {
    /// A variable of a build.
    pub struct BuildVariable {
        /// What it holds.
        pub value: String,
        /// Whether it must not appear in logs or in what is built.
        pub secret: bool,
    }
}

shape! {
    /// What one build may use.
    pub struct BuildLimits {
        /// Seconds from fetch to end.
        pub seconds: u64,
        /// Seconds without a line of output.
        pub silence_seconds: u64,
        /// Bytes of memory, of all its processes.
        pub memory_bytes: u64,
        /// Processes and threads at once.
        pub processes: u64,
        /// Bytes on disk: source, dependencies and output.
        pub disk_bytes: u64,
        /// Bytes of its log; what comes after is counted and dropped.
        pub log_bytes: u64,
    }
}

impl Default for BuildLimits {
    fn default() -> Self {
        Self {
            seconds: 15 * 60,
            silence_seconds: 10 * 60,
            memory_bytes: 4 << 30,
            processes: 1_024,
            disk_bytes: 8 << 30,
            log_bytes: 16 << 20,
        }
    }
}

shape! {
    /// A worker takes a build.
    pub struct BuildClaim {
        /// Which worker: a name of its own choice, and new with every start.
        pub worker: String,
    }
}

shape! {
    /// What there is to do.
    pub struct BuildJob {
        /// Which build.
        pub id: BuildId,
        /// For which project.
        pub project: ProjectName,
        /// For which of its environments.
        pub environment: Environment,
        /// Of what.
        pub source: Source,
        /// How.
        pub settings: BuildSettings,
        /// How far it is trusted.
        pub trust: Trust,
        /// What it is told, by name.
        pub env: BTreeMap<String, BuildVariable>,
        /// Hosts it may reach, each `name` or `*.name`; nothing else.
        pub hosts: Vec<String>,
        /// What it may use.
        pub limits: BuildLimits,
    }
}

shape! {
    /// What a worker is to do with a build that it has.
    pub struct BuildWish {
        /// Why to stop; goes on if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub stop: Option<String>,
    }
}

/// Which part of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum BuildStep {
    /// The source is fetched.
    Fetch,
    /// What it is, and how it is built.
    Detect,
    /// Programs of the right version.
    Toolchain,
    /// Dependencies.
    Install,
    /// The project's own command.
    Build,
    /// What came out is looked through.
    Output,
    /// It is sent to origin.
    Upload,
}

shape! {
    /// One line of a build's log.
    pub struct LogLine {
        /// Its number, from 1 on, without gaps.
        pub seq: u64,
        /// When.
        pub at: Timestamp,
        /// In which part.
        pub step: BuildStep,
        /// Without secrets, and without the line break.
        pub text: String,
    }
}

shape! {
    /// Lines that a worker sends, at most [`MAX_LOG_LINES`].
    pub struct BuildLog {
        /// Who sends them.
        pub worker: String,
        /// They follow what was sent before; those that came already are passed over.
        pub lines: Vec<LogLine>,
    }
}

shape! {
    /// How a build ended.
    pub struct BuildEnd {
        /// Who says so.
        pub worker: String,
        /// How.
        pub outcome: BuildOutcome,
    }
}

/// What came of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BuildOutcome {
    /// What is to be deployed, uploaded already.
    Succeeded {
        /// Every file.
        files: Vec<NewFile>,
        /// Which framework it was found to be, if any.
        framework: Option<String>,
        /// What it was made of: a bill of materials in CycloneDX, JSON, at most [`MAX_MATERIALS_BYTES`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        materials: Option<String>,
    },
    /// Nothing is deployed.
    Failed {
        /// In which part.
        step: BuildStep,
        /// What went wrong and what to do, without secrets.
        reason: String,
    },
}
