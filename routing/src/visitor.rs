//! What the API says of visitors who do not all get the same.

use alloc::string::String;

use serde::{Deserialize, Serialize};

/// What edges sign visitors' cookies with. Whoever knows it can choose which of two releases they see, and nothing else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VisitorKey {
    /// The secret.
    pub secret: String,
}

impl core::fmt::Debug for VisitorKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("VisitorKey")
    }
}
