//! The shapes of a restart in origin's API: what is asked for, and what of a site begins anew.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Environment, Generation, RegionId, ReleaseId, RolloutId};

/// Begins what is live anew, region by region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRestart {
    /// The environment.
    pub environment: Environment,
    /// The regions; none means all in which something is live.
    #[serde(default)]
    pub regions: Option<Vec<RegionId>>,
    /// Why, for the record.
    #[serde(default)]
    pub reason: Option<String>,
    /// Only say what would begin anew.
    #[serde(default)]
    pub plan: bool,
    /// With the newest revision of the variables, instead of the one that the release has. That is a deployment of the same files.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub reload_env: bool,
}

/// What a restart begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RestartView {
    /// The rollout; none when only planned.
    pub rollout: Option<RolloutId>,
    /// Region by region, in the order in which they are restarted.
    pub regions: Vec<RestartStep>,
}

/// What a restart begins anew in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RestartStep {
    /// The region.
    pub region: RegionId,
    /// What is live there, and stays.
    pub release: ReleaseId,
    /// The generation it is served under now.
    pub generation: Generation,
    /// Its upstreams with their addresses: connected to anew, and all of them well until they show otherwise.
    pub upstreams: Vec<String>,
    /// The gates it declares: run once more on every edge. Those that every release has are run too.
    pub gates: Vec<String>,
    /// How many rules of `_redirects` it has.
    pub redirects: u64,
    /// How many blocks of `_headers` it has.
    pub headers: u64,
}
