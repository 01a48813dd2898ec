//! The shapes of who may see a project's sites, and of links that let somebody in.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::EnvKind;
use crate::id::{Environment, ProjectName, RegionId, SiteId};
use crate::protection::PathRule;
use crate::time::Timestamp;

/// Shortest password, in characters: what a person chooses is guessed at.
pub const MIN_PASSWORD_CHARS: usize = 8;
/// Longest password, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 256;
/// Longest life of a link, in seconds: 90 days. What runs for longer is given a new one.
pub const MAX_SHARE_SECONDS: u64 = 90 * 24 * 60 * 60;

/// A password as it was typed. It is printed nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

shape! {
    /// Changes who may see sites. What is left out stays as it is.
    pub struct NewProtection {
        /// Production, or every preview.
        pub kind: EnvKind,
        /// Whether it is on. The first change turns it on if nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub on: Option<bool>,
        /// A new password. Whoever was let in before has to come in anew.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub password: Option<Password>,
        /// There is no password any more: only links let in. Whoever was let in before has to come in anew.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        pub no_password: bool,
        /// Paths that are answered unasked, in place of those before: one, or all below one with `/*`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub exempt: Option<Vec<PathRule>>,
        /// End every session and every link.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        pub revoke: bool,
    }
}

shape! {
    /// Who may see a project's sites of one kind.
    pub struct ProtectionView {
        /// The project.
        pub project: ProjectName,
        /// Production, or every preview.
        pub kind: EnvKind,
        /// Whether only who was let in sees them.
        pub on: bool,
        /// Whether a password lets in.
        pub has_password: bool,
        /// Paths that are answered unasked.
        pub exempt: Vec<PathRule>,
        /// Counts up with every change that ends sessions and links; 0 before the first.
        pub revision: u64,
        /// Who changed it last.
        pub by: Option<String>,
        /// When.
        pub changed: Option<Timestamp>,
        /// Sites whose edges are not told yet: with the next step of the rollout that runs, at the latest when it ends.
        pub untold: Vec<SiteId>,
        /// Regions with an edge that cannot read it: it serves nothing new of these sites.
        pub unread_in: Vec<RegionId>,
    }
}

shape! {
    /// Asks for a link that lets somebody in.
    pub struct NewShare {
        /// To which site.
        pub environment: Environment,
        /// For how long, in seconds.
        pub ttl_seconds: u64,
    }
}

/// A link that lets in. Whoever has it is let in, too.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ShareView {
    /// The site.
    pub site: SiteId,
    /// To be opened in a browser.
    pub url: String,
    /// To be sent by programs, as `x-helix-access`.
    pub pass: String,
    /// Until when.
    pub until: Timestamp,
}

impl fmt::Debug for ShareView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShareView({})", self.site)
    }
}
