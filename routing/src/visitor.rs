//! What the API says of visitors who do not all get the same: pins, and the key of their cookies.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::api::shape;
use crate::id::{Environment, PinLabel, ReleaseId};
use crate::time::Timestamp;

shape! {
    /// Pins a release: who shows the label gets it, and who shows this header or this cookie.
    pub struct NewPin {
        /// Of which site.
        pub environment: Environment,
        /// The name of the pin. What was pinned under it is no more.
        pub label: PinLabel,
        /// The release; one of this site.
        pub release: ReleaseId,
        /// A header field that pins too, with its value.
        #[serde(default)]
        pub header: Option<NameAndValue>,
        /// A cookie that pins too, with its value. Not both.
        #[serde(default)]
        pub cookie: Option<NameAndValue>,
        /// Why, for whoever finds it later.
        #[serde(default)]
        pub reason: Option<String>,
    }
}

shape! {
    /// Of a header field or a cookie.
    pub struct NameAndValue {
        /// Its name.
        pub name: String,
        /// Its value, the whole of it.
        pub value: String,
    }
}

shape! {
    /// A pin.
    pub struct PinView {
        /// Its name.
        pub label: PinLabel,
        /// The release.
        pub release: ReleaseId,
        /// What pins besides the label: `label` (nothing), `header x-team: internal`, `cookie beta=1`.
        pub by: String,
        /// Who pinned it.
        pub by_whom: String,
        /// Why.
        pub reason: Option<String>,
        /// When.
        pub since: Timestamp,
        /// Whether edges are told already. While a rollout of the site runs, they are told with its next step, at the latest when
        /// it ends.
        pub told: bool,
    }
}

/// What edges sign visitors' cookies with. Whoever knows it can choose which of two releases they see. It is one half of the key that
/// lets in to protected sites; the other is in their records.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VisitorKey {
    /// The secret.
    pub secret: String,
    /// Others that are accepted as well: the one that comes, and those that were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
}

shape! {
    /// A new key of visitors' cookies is on its way.
    pub struct VisitorKeyRotation {
        /// From then on edges sign with it. Until then they are told of it, and accept it.
        pub signs_from: Timestamp,
        /// Until then what the one before has signed is accepted.
        pub accepted_until: Timestamp,
    }
}

impl core::fmt::Debug for VisitorKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("VisitorKey")
    }
}
