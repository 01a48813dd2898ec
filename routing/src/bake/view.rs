//! A bake as origin's API shows it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Measure;
use crate::time::Timestamp;
use crate::verdict::Verdict;

/// What a release showed after its swap in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BakeView {
    /// When it began.
    pub since: Timestamp,
    /// When it is over, unless it fails before.
    pub until: Timestamp,
    /// When it was decided; none while it is not.
    pub decided: Option<Timestamp>,
    /// What it came to; none while that is open, and where another region's failure ended it.
    pub verdict: Option<Verdict>,
    /// Requests that the release answered.
    pub requests: u64,
    /// Requests that say something at least.
    pub min_requests: u32,
    /// Requests that the release before answered lately, before the swap.
    pub baseline_requests: u64,
    /// What was measured, and what it is held to.
    pub measures: Vec<Measure>,
    /// What Prometheus said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckView>,
}

/// What Prometheus said to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckView {
    /// The question's name.
    pub name: String,
    /// What it is held to.
    pub bounds: String,
    /// Its newest answer; none while it has none.
    pub answer: Option<String>,
    /// Whether that is beyond its bounds.
    pub broken: bool,
    /// Why it could not be asked, if it could not.
    pub error: Option<String>,
}
