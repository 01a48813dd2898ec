//! How releases stand at the registry that they are pushed to.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, ReleaseId, SiteId};
use crate::time::Timestamp;

/// How far a push is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PushState {
    /// Something of it is not there yet: all of it, or only a tag or a referrer.
    Waiting,
    /// The registry has all of it.
    Pushed,
}

shape! {
    /// How a release stands at the registry.
    pub struct PushView {
        /// How far it is.
        pub state: PushState,
        /// When the registry had it first; none before. It can be released without what still waits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub since: Option<Timestamp>,
        /// Why the last attempt failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<String>,
        /// When the next one is, after a failure.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next_at: Option<Timestamp>,
    }
}

shape! {
    /// How far the registry is behind.
    pub struct RegistryStatus {
        /// Where it is.
        pub registry: String,
        /// No release goes out before it has it.
        pub required: bool,
        /// Artifacts that wait.
        pub waiting: u64,
        /// Of those, how many have failed.
        pub failing: u64,
        /// Why, of one of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<String>,
    }
}

shape! {
    /// Looks whether origin's own store and the registry have all of a release.
    pub struct NewReleaseCheck {
        /// Every blob of the registry is fetched and hashed, too, instead of asked for.
        #[serde(default)]
        pub read: bool,
    }
}

shape! {
    /// What origin's own store and the registry have of a release.
    pub struct ReleaseCheck {
        /// The release.
        pub release: ReleaseId,
        /// Its site.
        pub site: SiteId,
        /// Its manifest.
        pub artifact: Digest,
        /// How many manifests and blobs it consists of.
        pub blobs: u64,
        /// Blobs that were lost or damaged in origin's own store, and came back from the registry.
        pub mended: Vec<Digest>,
        /// Blobs that are lost or damaged in origin's own store, and are nowhere to be had.
        pub lost: Vec<Digest>,
        /// What of it the registry has; none where releases are pushed to none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub registry: Option<RegistryCheck>,
    }
}

shape! {
    /// What the registry has of a release.
    pub struct RegistryCheck {
        /// Where it is.
        pub registry: String,
        /// Manifests and blobs that it has lost, or has with other bytes. They are pushed again.
        pub lost: Vec<Digest>,
        /// Tags that it has lost, or that name something else. They are put again.
        pub tags_lost: Vec<String>,
        /// Why it could not be asked for all of that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub problem: Option<String>,
    }
}
