//! `helix.toml` as people write it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Forward, HtmlHandling, KeyProblem, NotFoundHandling, Upstream, forward};

/// Everything a `helix.toml` may say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteConfig {
    /// How files are served.
    #[serde(rename = "static")]
    pub static_files: StaticConfig,
    /// Servers, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Which requests are sent on.
    pub forward: Vec<Forward>,
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
        forward::check(&self.upstreams, &self.forward)
    }
}
