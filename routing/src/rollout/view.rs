//! How far a rollout is in its plan, as the API says it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::RegionId;
use crate::routes::Span;
use crate::time::Timestamp;

/// The stages of a rollout, and which of them it is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PlanView {
    /// In order.
    pub stages: Vec<StageView>,
    /// The one that runs or comes next, from 1.
    pub stage: u16,
    /// What it waits for; none while something happens.
    pub waits: Option<Waits>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StageView {
    /// Its wave, from 1.
    pub wave: u16,
    /// Its regions.
    pub regions: Vec<RegionId>,
    /// Percent of their visitors that get the release.
    pub percent: u8,
    /// How long fewer than all are watched.
    pub time: Span,
    /// Whether somebody has to approve it.
    pub approve: bool,
}

/// What a rollout waits for that is not an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "for", rename_all = "kebab-case")]
pub enum Waits {
    /// Somebody paused it.
    Resume {
        /// Who.
        by: String,
        /// When.
        since: Timestamp,
        /// Why.
        reason: Option<String>,
    },
    /// Somebody has to approve the next stage.
    Approval {
        /// Its number.
        stage: u16,
    },
    /// The next stage has its time.
    Time {
        /// When.
        until: Timestamp,
    },
}
