//! `helix.toml` as people write it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Forward, HtmlHandling, NotFoundHandling, Upstream};

/// Everything a `helix.toml` may say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteConfig {
    /// How pages are found by their path.
    pub html_handling: HtmlHandling,
    /// What a path gets that means no file.
    pub not_found_handling: NotFoundHandling,
    /// Servers, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Which requests are sent on.
    pub forward: Vec<Forward>,
}
