//! Origin's configuration: one TOML file, overridden by `HELIX_ORIGIN_*`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use helix_routing::host::Host;
use helix_routing::id::{EdgeId, RegionId};
use helix_routing::rollout::{PlanError, RolloutPlan, RolloutPolicy};
use helix_routing::routes::KeyProblem;
use helix_service::keys::PublicKey;
use helix_service::nats::NatsConfig;
use helix_service::reachable::Network;
use helix_service::telemetry::LogFormat;
use serde::{Deserialize, Serialize};

use crate::address::MAX_BASE_BYTES;
use crate::admission::AdmissionConfig;
use crate::remote::config::{IllegalRemote, RemoteConfig};
use crate::rollout::bake::BakeConfig;
use crate::source::SourceConfig;
use crate::store::Place;
use crate::webhook::schedule::Patience;

/// What a project may hold unless the config says otherwise, in bytes.
const PROJECT_BYTES: u64 = 20 * 1024 * 1024 * 1024;

/// The file's shape.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the API and the registry answer.
    pub listen: SocketAddr,
    /// Where health and metrics answer.
    pub admin: SocketAddr,
    /// Where database and artifacts lie.
    pub data_dir: PathBuf,
    /// The database: a file, or a `postgres://` URL that several origins may share. Without it, `origin.db` in `data_dir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Place>,
    /// The folder of artifacts and uploads, which origins that share a database have to share too. Without it, `data_dir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<PathBuf>,
    /// Where the other origins reach this one's API; each has its own. Without it, `public_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// The domain sites are under.
    pub base_domain: Host,
    /// Where clients reach the API.
    pub public_url: String,
    /// The port in the URLs of sites.
    pub site_port: u16,
    /// The key that signs records; made if it is missing.
    pub record_key: PathBuf,
    /// The key that attests where releases come from; `provenance.pem` beside the record key if there is none. Made if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance_key: Option<PathBuf>,
    /// Keys of role `operator`, whose overrides are taken over; the same that edges pin.
    #[serde(default)]
    pub operator_keys: Vec<PublicKey>,
    /// Holds a token that may do everything; made if it is missing.
    pub bootstrap_token_file: PathBuf,
    /// Holds the token edges read artifacts with; made if it is missing.
    pub edge_token_file: PathBuf,
    /// The link to NATS.
    pub nats: NatsConfig,
    /// How edges are let in by join tokens; without it, only those named here are there.
    #[serde(default)]
    pub admission: Option<AdmissionConfig>,
    /// Servers that keep each stream: 3 in a cluster of three.
    #[serde(default = "one")]
    pub stream_replicas: usize,
    /// The fleet.
    pub regions: Vec<RegionConfig>,
    /// What is kept.
    #[serde(default)]
    pub keep: KeepConfig,
    /// What gates may do.
    #[serde(default)]
    pub gates: GatesConfig,
    /// How long releases are watched after their swap.
    #[serde(default)]
    pub bake: BakeConfig,
    /// Edges may drop whatever a snapshot lacks. Without it they refuse one that lacks more than an orderly change explains.
    #[serde(default)]
    pub snapshots_may_drop: bool,
    /// Where webhooks may be, and how patient their deliveries are.
    #[serde(default)]
    pub webhooks: WebhooksConfig,
    /// Where projects' files come from.
    #[serde(default)]
    pub source: SourceConfig,
    /// The registry that releases are pushed to; without it they are in origin's own store alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RemoteConfig>,
    /// In which stages releases go out that say nothing of it.
    #[serde(default)]
    pub rollout: RolloutPolicy,
    /// How log lines look.
    #[serde(default)]
    pub log: LogFormat,
    /// End when standard input closes.
    #[serde(default)]
    pub exit_with_parent: bool,
}

/// One region.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RegionConfig {
    /// Its name.
    pub region: RegionId,
    /// Its edges, besides those that join by a token.
    #[serde(default)]
    pub edges: Vec<EdgeConfig>,
}

/// One edge.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeConfig {
    /// Its name.
    pub edge: EdgeId,
    /// Where origin probes it.
    pub url: String,
}

/// Where webhooks may be, and how patient their deliveries are.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhooksConfig {
    /// The file with the key that secrets are derived from; `webhook.key` in the data folder if there is none. Made if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Ranges that are permitted although they are loopback, private or otherwise special.
    pub allow: Vec<Network>,
    /// Also without TLS.
    pub plain_http: bool,
    /// How often deliveries are tried.
    pub retries: Patience,
}

const fn one() -> usize {
    1
}

/// What is kept of releases that nothing refers to, and of uploads.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepConfig {
    /// Releases of a site, newest first.
    pub releases: usize,
    /// Releases younger than this, in days.
    pub days: u32,
    /// Uploads that no release names, in seconds.
    pub upload_seconds: u64,
    /// What one project may hold, in bytes.
    pub project_bytes: u64,
}

/// What the gates of releases may do.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatesConfig {
    /// Run commands: true only where every edge has a runtime for them.
    pub commands: bool,
}

impl Default for KeepConfig {
    fn default() -> Self {
        Self {
            releases: 20,
            days: 30,
            upload_seconds: 24 * 60 * 60,
            project_bytes: PROJECT_BYTES,
        }
    }
}

/// The file is well-formed, and what it says cannot be.
#[derive(Debug, thiserror::Error)]
pub enum IllegalConfig {
    /// No region, or a region without edges.
    #[error(
        "regions: name at least one region, each with at least one edge unless `[admission]` lets them in"
    )]
    NoEdges,
    /// NATS cannot do that.
    #[error("stream_replicas: 1, 3 or 5 servers can keep a stream, not {0}")]
    Replicas(usize),
    /// A name is there twice.
    #[error("regions: {name} is there twice")]
    Twice {
        /// The region or edge.
        name: String,
    },
    /// Not a usable address.
    #[error("{key}: {value:?} is not an http URL")]
    Url {
        /// Which.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// A key of the rollouts' policy has a value that cannot be.
    #[error(transparent)]
    Policy(#[from] KeyProblem),
    /// The rollouts' policy names what there is not.
    #[error(transparent)]
    Rollout(#[from] PlanError),
    /// The table of the registry says what cannot be.
    #[error(transparent)]
    Registry(#[from] IllegalRemote),
    /// Release hosts would not fit a DNS name.
    #[error("base_domain: {base} is longer than {MAX_BASE_BYTES} bytes")]
    BaseTooLong {
        /// What it says.
        base: Host,
    },
}

impl Config {
    /// Where the database is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.database
            .clone()
            .unwrap_or_else(|| Place::from(&self.data_dir.join("origin.db")))
    }

    /// The folder of artifacts and uploads.
    #[must_use]
    pub fn artifacts(&self) -> &Path {
        self.artifacts.as_deref().unwrap_or(&self.data_dir)
    }

    /// The file with the key that secrets of webhooks are derived from.
    #[must_use]
    pub fn webhook_key(&self) -> PathBuf {
        let named = self.webhooks.key.clone();
        named.unwrap_or_else(|| self.data_dir.join("webhook.key"))
    }

    /// The file with the key that variables and credentials are sealed with.
    #[must_use]
    pub fn seal_key(&self) -> PathBuf {
        let named = self.source.key.clone();
        named.unwrap_or_else(|| self.data_dir.join("seal.key"))
    }

    /// The file with the key that attests where releases come from.
    #[must_use]
    pub fn provenance_key(&self) -> PathBuf {
        let named = self.provenance_key.clone();
        named.unwrap_or_else(|| self.record_key.with_file_name("provenance.pem"))
    }

    /// Where others reach this origin's API.
    #[must_use]
    pub fn address(&self) -> String {
        let address = self.advertise.as_deref().unwrap_or(&self.public_url);
        address.trim_end_matches('/').to_owned()
    }

    /// Checks what the shape alone does not say.
    ///
    /// # Errors
    /// At the first thing that cannot be.
    pub fn check(&self) -> Result<(), IllegalConfig> {
        if self.base_domain.as_str().len() > MAX_BASE_BYTES {
            return Err(IllegalConfig::BaseTooLong {
                base: self.base_domain.clone(),
            });
        }
        check_url("public_url", &self.public_url)?;
        if let Some(advertise) = &self.advertise {
            check_url("advertise", advertise)?;
        }
        for origin in self.admission.iter().flat_map(|own| &own.origins) {
            check_url("admission.origins", origin)?;
        }
        if let Some(prometheus) = &self.bake.prometheus {
            check_url("bake.prometheus", prometheus)?;
        }
        if let Some(registry) = &self.registry {
            registry.check()?;
        }
        if !matches!(self.stream_replicas, 1 | 3 | 5) {
            return Err(IllegalConfig::Replicas(self.stream_replicas));
        }
        let joins = self.admission.is_some();
        let is_empty = |region: &RegionConfig| region.edges.is_empty() && !joins;
        if self.regions.is_empty() || self.regions.iter().any(is_empty) {
            return Err(IllegalConfig::NoEdges);
        }
        self.rollout.check()?;
        let regions = self.regions.iter().map(|region| region.region.clone());
        RolloutPlan::of(&self.rollout, &regions.collect::<Vec<_>>())?;
        let mut names = std::collections::BTreeSet::new();
        for region in &self.regions {
            let edges = region
                .edges
                .iter()
                .map(|edge| format!("edge {}", edge.edge));
            for name in edges.chain([format!("region {}", region.region)]) {
                if !names.insert(name.clone()) {
                    return Err(IllegalConfig::Twice { name });
                }
            }
            for edge in &region.edges {
                check_url("regions.edges.url", &edge.url)?;
            }
        }
        Ok(())
    }
}

fn check_url(key: &'static str, value: &str) -> Result<(), IllegalConfig> {
    let legal = url::Url::parse(value)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if legal {
        Ok(())
    } else {
        Err(IllegalConfig::Url {
            key,
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
        listen = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        data_dir = "/tmp/x"
        base_domain = "helix.localhost"
        public_url = "http://127.0.0.1:7700"
        site_port = 8081
        record_key = "record.pem"
        bootstrap_token_file = "token"
        edge_token_file = "edge-token"
        [nats]
        url = "nats://127.0.0.1:4222"
        seed_file = "seed"
        [[regions]]
        region = "fra"
        [[regions.edges]]
        edge = "fra-1"
        url = "http://127.0.0.1:8081"
    "#;

    fn read(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origin.toml");
        std::fs::write(&path, text).unwrap();
        helix_service::config::load(&path, "HELIX_NO_SUCH_PREFIX").unwrap()
    }

    #[test]
    fn a_sample_is_legal_and_defaults_are_filled_in() {
        let config = read(SAMPLE);
        config.check().unwrap();
        assert_eq!(config.keep.releases, 20);
    }

    #[test]
    fn fleets_that_cannot_be_are_refused() {
        let mut config = read(SAMPLE);
        config.regions.push(config.regions[0].clone());
        assert!(matches!(config.check(), Err(IllegalConfig::Twice { .. })));
        config.regions.clear();
        assert!(matches!(config.check(), Err(IllegalConfig::NoEdges)));
        config = read(&format!("{SAMPLE}\n[registry]\nurl = \"http://r.example\""));
        assert!(matches!(config.check(), Err(IllegalConfig::Registry(_))));
        config = read(&SAMPLE.replace("http://127.0.0.1:8081", "127.0.0.1"));
        assert!(matches!(config.check(), Err(IllegalConfig::Url { .. })));
    }
}
