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
use crate::cache::disk::MOST_BODY_BYTES;
use crate::cache::store::DEFAULT_MEMORY_BYTES;
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
    /// How much of upstreams' responses is kept.
    #[serde(default)]
    pub response_cache: ResponseCacheConfig,
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

/// Files of upstreams' responses, unless the config says otherwise: what a small machine has to spare beside releases.
const DEFAULT_DISK_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// The largest body of an upstream's response that is kept, unless the config says otherwise: a quarter of the disk's
/// share, so that one download does not push out all the rest.
const DEFAULT_MAX_BODY_BYTES: u64 = 1024 * 1024 * 1024;

/// How much of upstreams' responses is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResponseCacheConfig {
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Bytes of files under `data_dir`; 0 keeps none.
    pub disk_bytes: u64,
    /// Largest body on disk, in bytes, at most 4 GiB; larger ones pass through. In memory it is 8 MiB.
    #[serde(deserialize_with = "max_body_bytes")]
    pub max_body_bytes: u64,
}

impl Default for ResponseCacheConfig {
    fn default() -> Self {
        Self {
            memory_bytes: DEFAULT_MEMORY_BYTES,
            disk_bytes: DEFAULT_DISK_BYTES,
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
        }
    }
}

fn max_body_bytes<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let bytes = u64::deserialize(from)?;
    if bytes > MOST_BODY_BYTES {
        let text = format!("max_body_bytes is {bytes}, the most is {MOST_BODY_BYTES}");
        return Err(serde::de::Error::custom(text));
    }
    Ok(bytes)
}

/// Where artifacts come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginConfig {
    /// Base URL; `/v2/…` below it is the OCI pull API.
    pub url: String,
    /// The same of the fleet's other origins: asked when that one does not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// File with the token that may read. Read again for each artifact, so it can be changed in place.
    pub token_file: PathBuf,
}

const fn default_cache_bytes() -> u64 {
    DEFAULT_CACHE_BYTES
}

const fn default_log() -> LogFormat {
    LogFormat::Text
}
