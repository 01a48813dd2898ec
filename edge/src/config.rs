//! The edge's configuration: one TOML file, overlaid by `HELIX_EDGE_…` variables.
//!
//! Parsed once into types that cannot be wrong; what is not set has the default named here.

use std::net::SocketAddr;
use std::path::PathBuf;

use helix_routing::host::Host;
use helix_routing::id::{EdgeId, RegionId};
use helix_service::keys::PublicKey;
use helix_service::nats::NatsConfig;
use helix_service::telemetry::LogFormat;
use serde::{Deserialize, Serialize};

use crate::access_log::AccessLogConfig;
use crate::forward::Reachable;
use crate::tls::TlsConfig;

/// Prefix of the variables that override the file.
pub const VARIABLE_PREFIX: &str = "HELIX_EDGE";

/// Decoded files held in memory, unless the config says otherwise.
const DEFAULT_CACHE_BYTES: u64 = 256 * 1024 * 1024;

/// Everything an edge is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeConfig {
    /// This edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// Where visitors reach it.
    pub listen: SocketAddr,
    /// Where its operator reaches it; never the open internet.
    pub admin: SocketAddr,
    /// Everything it keeps.
    pub data_dir: PathBuf,
    /// Domain under which every project has a host.
    pub base_domain: Host,
    /// Where visitors reach it over TLS, and with which certificates; nowhere when it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Threads that serve; 0 means one per core.
    #[serde(default)]
    pub threads: usize,
    /// Most bytes of decoded files held in memory.
    #[serde(default = "default_cache_bytes")]
    pub cache_bytes: u64,
    /// One line for each request.
    #[serde(default)]
    pub access_log: AccessLogConfig,
    /// How the log is written.
    #[serde(default = "default_log")]
    pub log: LogFormat,
    /// End when standard input ends: for whoever starts this as a child.
    #[serde(default)]
    pub exit_with_parent: bool,
    /// Which addresses sites may have requests sent on to, besides public ones.
    #[serde(default)]
    pub upstreams: Reachable,
    /// Where artifacts come from.
    pub origin: OriginConfig,
    /// Where records come from.
    pub nats: NatsConfig,
    /// Keys that are trusted, by role.
    pub keys: Vec<PublicKey>,
}

/// Where artifacts come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginConfig {
    /// Base URL; `/v2/…` below it is the OCI pull API.
    pub url: String,
    /// File with the token that may read. Read again for each artifact, so it can be changed in place.
    pub token_file: PathBuf,
}

const fn default_cache_bytes() -> u64 {
    DEFAULT_CACHE_BYTES
}

const fn default_log() -> LogFormat {
    LogFormat::Text
}
