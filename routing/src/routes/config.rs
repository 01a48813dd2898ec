//! `helix.toml` as people write it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Drain, Forward, HtmlHandling, KeyProblem, NotFoundHandling, Upstream, forward};
use crate::bake::BakeRules;
use crate::gate::{self, GateConfig};
use crate::rollout::RolloutPolicy;

/// Everything a `helix.toml` may say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteConfig {
    /// What requests get that come without TLS.
    pub https: HttpsPolicy,
    /// How files are served.
    #[serde(rename = "static")]
    pub static_files: StaticConfig,
    /// Servers, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Which requests are sent on.
    pub forward: Vec<Forward>,
    /// What has to be shown on every edge before a release goes live there.
    pub gates: Vec<GateConfig>,
    /// What a release is held to after its swap.
    pub bake: BakeRules,
    /// What is granted to what is in flight once a release is no longer live.
    pub drain: Drain,
    /// In which stages a release goes out.
    pub rollout: RolloutPolicy,
}

/// What a request gets that comes without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpsPolicy {
    /// The same as over TLS.
    #[default]
    Optional,
    /// A redirect to the same URL over TLS, where an edge speaks TLS.
    Redirect,
}

impl HttpsPolicy {
    /// Whether it is the default.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        *self == Self::Optional
    }
}

/// How files are served: the table `[static]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticConfig {
    /// How pages are found by their path.
    pub html_handling: HtmlHandling,
    /// What a path gets that means no file.
    pub not_found_handling: NotFoundHandling,
    /// Whether responses do not carry `x-helix-*`.
    pub unmarked: bool,
    /// Whether responses carry `server-timing`.
    pub server_timing: bool,
}

impl SiteConfig {
    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// Names the first key that is wrong.
    pub fn check(&self) -> Result<(), KeyProblem> {
        self.bake.check()?;
        self.drain.check()?;
        self.rollout.check()?;
        forward::check(&self.upstreams, &self.forward)?;
        gate::check(&self.gates, &self.upstreams)
    }
}
