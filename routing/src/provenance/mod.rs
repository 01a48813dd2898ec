//! Pure. Where the files of an artifact come from, as origin attests it and edges and others check it.
//!
//! ```text
//! Provenance ──statement──▶ in-toto Statement v1 with SLSA provenance v1 ──signed──▶ DSSE envelope in a Sigstore bundle v0.3
//!     ▲                                                                                        │
//!     └──────────── believed only after the signature, read in `statement` ◀───────────────────┘
//! ```
//!
//! [`bundle`] is the shape of what is sent, [`statement`] what is said in it, [`policy`] what a site requires of it. Invariant:
//! nothing that a bundle says is looked at before its signature has verified. Signing and verifying is `helix_service::dsse`'s;
//! what was sent, and to whom, is not known here.

pub mod bundle;
pub mod policy;
pub mod statement;

use alloc::string::String;

use crate::api::Trust;
use crate::id::{BuildId, Commit, Digest, ReleaseId, SiteId};

/// Most bytes of a bundle: a statement names one artifact and one source, with a few shell lines.
pub const MAX_BUNDLE_BYTES: usize = 64 * 1024;
/// Most bundles of one artifact that are kept and looked at: one for each source that came to the same bytes, newest first.
pub const MAX_BUNDLES: usize = 16;

/// What is attested of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The site that it was made for.
    pub site: SiteId,
    /// Digest of its manifest.
    pub artifact: Digest,
    /// Where its files come from.
    pub source: Source,
}

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A worker built them.
    Build(Built),
    /// Somebody sent a folder.
    Upload {
        /// The name of the token that it was sent with.
        by: String,
    },
    /// An operator took a preview's release to production, past the rule.
    Promotion(Promoted),
}

/// A build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// What was built.
    pub of: Checkout,
    /// How far that is trusted.
    pub trust: Trust,
    /// Folder within the repository, if it is not all of it.
    pub root: Option<String>,
    /// The shell line that builds, if the project names one.
    pub command: Option<String>,
    /// The build.
    pub build: BuildId,
    /// What it printed, as far as it is known.
    pub log: Option<LogDigest>,
}

/// A commit of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// As git fetches from it, without credentials.
    pub repository: String,
    /// As in `refs/heads/main`.
    pub reference: String,
    /// The commit.
    pub commit: Commit,
}

/// What a build had printed when it was attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDigest {
    /// SHA-256 over the lines, each with a line feed.
    pub digest: Digest,
    /// How many those are.
    pub lines: u64,
}

/// A promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// The name of the token of whoever did it.
    pub by: String,
    /// Why, as it is in the audit log.
    pub reason: String,
    /// The preview.
    pub from: SiteId,
    /// Its release.
    pub release: ReleaseId,
    /// Digest of that one's manifest.
    pub artifact: Digest,
    /// What that was built of, if it was.
    pub built_of: Option<Checkout>,
}

impl Source {
    /// The commit that the files were built of, if they were.
    #[must_use]
    pub const fn commit(&self) -> Option<&Commit> {
        match self {
            Self::Build(built) => Some(&built.of.commit),
            Self::Upload { .. } => None,
            Self::Promotion(promoted) => match &promoted.built_of {
                Some(of) => Some(&of.commit),
                None => None,
            },
        }
    }
}

impl core::fmt::Display for Source {
    /// As it is shown to people: `build 0123… of 4567… on refs/heads/main`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Build(built) => write!(
                f,
                "build {} of {} on {}",
                built.build, built.of.commit, built.of.reference
            ),
            Self::Upload { by } => write!(f, "upload by {by}"),
            Self::Promotion(promoted) => write!(
                f,
                "promotion of {} of {} by {}",
                promoted.release, promoted.from, promoted.by
            ),
        }
    }
}
