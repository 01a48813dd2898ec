//! Overrides as people are shown them.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Cause;
use crate::api::shape;
use crate::id::{EdgeId, ReleaseId};
use crate::time::Timestamp;

shape! {
    /// Edges that serve something else than the record of their region names.
    pub struct OverrideView {
        /// What they serve.
        pub release: ReleaseId,
        /// Those that do.
        pub edges: Vec<EdgeId>,
        /// Who made it.
        pub cause: Cause,
        /// Why.
        pub reason: String,
        /// Who it was.
        pub by: String,
        /// Since when.
        pub since: Timestamp,
        /// How long it was meant for. What is served does not change with it.
        pub until: Timestamp,
        /// Its time is over, and it stands.
        pub expired: bool,
    }
}
