//! Who may deploy to a site, and when: freezes and locks.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::id::{Environment, ProjectName, SiteId};
use crate::routes::Span;
use crate::time::Timestamp;

/// Longest reason of a freeze or a lock, in bytes.
pub const MAX_REASON_BYTES: usize = 500;

shape! {
    /// For a while nothing is deployed to a project's production.
    pub struct NewFreeze {
        /// From when on.
        pub from: Timestamp,
        /// Until when.
        pub until: Timestamp,
        /// Why: whoever is refused reads it.
        pub reason: String,
    }
}

shape! {
    /// A freeze of a project.
    pub struct FreezeView {
        /// Names it, for removing.
        pub id: String,
        /// The project.
        pub project: ProjectName,
        /// From when on.
        pub from: Timestamp,
        /// Until when.
        pub until: Timestamp,
        /// Why.
        pub reason: String,
        /// Who set it.
        pub by: String,
    }
}

shape! {
    /// Keeps others from deploying to a site.
    pub struct NewLock {
        /// Which of the project's.
        pub environment: Environment,
        /// Why: whoever is refused reads it.
        pub reason: String,
        /// For how long; none is until it is released.
        #[serde(default)]
        pub ttl: Option<Span>,
    }
}

shape! {
    /// Whether a site is locked, and by whom.
    pub struct LockView {
        /// The site.
        pub site: SiteId,
        /// The lock, if there is one.
        pub lock: Option<Held>,
    }
}

shape! {
    /// A lock that somebody holds.
    pub struct Held {
        /// The name of the token that holds it.
        pub holder: String,
        /// Why.
        pub reason: String,
        /// Since when.
        pub since: Timestamp,
        /// Until when; none is until it is released.
        pub until: Option<Timestamp>,
    }
}

/// What a deployment does that would come in a freeze.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum InFreeze {
    /// It is refused.
    #[default]
    Refuse,
    /// It is prepared, and goes live when the freeze is over.
    Wait,
    /// It goes live all the same, for this reason.
    Override(String),
}

impl InFreeze {
    /// Whether it is the usual.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        *self == Self::Refuse
    }
}
