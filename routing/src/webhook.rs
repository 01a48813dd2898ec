//! Shapes of origin's API for webhooks and their deliveries.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::api::shape;
use crate::id::ProjectName;
use crate::time::Timestamp;

shape! {
    /// Sends events to a URL.
    pub struct NewWebhook {
        /// Where to, by POST.
        pub url: String,
        /// Only events of this project; those of every project if there is none.
        #[serde(default)]
        pub project: Option<ProjectName>,
        /// Kinds such as `hold.set`, or families such as `deployment.*`; every kind if there are none.
        #[serde(default)]
        pub events: Vec<String>,
    }
}

shape! {
    /// A webhook, without its secret.
    pub struct WebhookView {
        /// Names it.
        pub webhook: String,
        /// Where to.
        pub url: String,
        /// Only events of this project.
        pub project: Option<ProjectName>,
        /// Only these kinds of events; every kind if there are none.
        pub events: Vec<String>,
        /// Who added it.
        pub by: String,
        /// When.
        pub created: Timestamp,
        /// Since when nothing could be delivered; none: the newest delivery went well.
        pub failing: Option<Timestamp>,
        /// Since when nothing is sent, since it failed for too long.
        pub disabled: Option<Timestamp>,
        /// Why.
        pub disabled_because: Option<String>,
        /// Deliveries that wait.
        pub waiting: u64,
    }
}

shape! {
    /// A new webhook with its secret, shown this once.
    pub struct CreatedWebhook {
        /// What deliveries are signed with, after Standard Webhooks: `whsec_` and base64.
        pub secret: String,
        /// The rest.
        pub view: WebhookView,
    }
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It is sent, or will be sent again.
    Pending,
    /// The receiver answered with 2xx.
    Delivered,
    /// It was given up.
    Failed,
    /// Too many waited: it was never sent.
    Dropped,
}

shape! {
    /// One event on its way to one webhook.
    pub struct DeliveryView {
        /// Names it, for sending it again.
        pub delivery: String,
        /// The webhook.
        pub webhook: String,
        /// The event: `webhook-id` of every attempt.
        pub event: String,
        /// The event's number.
        pub number: u64,
        /// The event's kind.
        pub kind: String,
        /// How it stands.
        pub state: DeliveryState,
        /// How often it was tried.
        pub attempts: u64,
        /// When it was to be sent first, or again by hand.
        pub created: Timestamp,
        /// When it is tried again.
        pub next: Option<Timestamp>,
        /// The newest attempt.
        pub tried: Option<Timestamp>,
        /// The status that was answered with.
        pub status: Option<u16>,
        /// Why it was not delivered.
        pub error: Option<String>,
        /// How long the newest attempt took.
        pub elapsed_ms: Option<u64>,
    }
}
