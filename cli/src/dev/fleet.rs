//! What a fleet consists of, and the files that its processes are started with.
//!
//! Everything is written again at every start, from ports and secrets that are kept: so a port that was
//! taken meanwhile, or another number of edges, is no special case.

use std::path::PathBuf;

use anyhow::Context as _;
use helix_routing::id::{EdgeId, RegionId};
use helix_service::disk::{write_atomic, write_secret};
use helix_service::keys::PublicKey;
use helix_service::nats;
use serde::Serialize;

use super::certificate::{self, CertificateFiles};
use super::home::Home;
use super::nats_config::{EdgeUser, NatsConfig};
use super::ports::Ports;
use super::secrets;

/// Every project has a host below it, and every such name is this machine (RFC 6761 6.3).
pub(super) const BASE_DOMAIN: &str = "helix.localhost";
/// Where the API is unless somebody else is there.
const API_PORT: u16 = 7700;
/// Where the first edge is unless somebody else is there; the others follow.
const FIRST_EDGE_PORT: u16 = 8081;
/// Where the first edge speaks TLS unless somebody else is there.
const FIRST_TLS_PORT: u16 = 8443;
/// Any free port will do: nobody types these.
const ANY: Option<u16> = None;

/// A fleet on this machine.
#[derive(Debug)]
pub(super) struct Fleet {
    /// Port of `nats-server`.
    pub(super) nats: u16,
    /// Port of its monitoring pages.
    pub(super) monitor: u16,
    /// Port of the first origin's API.
    pub(super) api: u16,
    /// Every origin; they share the database.
    pub(super) origins: Vec<OriginPorts>,
    database: Option<String>,
    /// Every edge, region by region.
    pub(super) edges: Vec<Edge>,
    /// The token that may do everything.
    pub(super) token: String,
}

/// One origin.
#[derive(Debug)]
pub(super) struct OriginPorts {
    /// What it is called: `origin`, `origin-2`.
    pub(super) name: String,
    /// Port of its API.
    pub(super) api: u16,
    /// Port of its admin pages.
    admin: u16,
}

/// What a fleet is to consist of.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The regions.
    pub(super) regions: &'a [RegionId],
    /// Edges in each.
    pub(super) edges: u8,
    /// Origins.
    pub(super) origins: u8,
    /// The PostgreSQL they share; without one, a file.
    pub(super) database: Option<&'a str>,
    /// Whether no port is better than another.
    pub(super) any_ports: bool,
}

/// One edge.
#[derive(Debug)]
pub(super) struct Edge {
    /// Its id: region and number.
    pub(super) edge: EdgeId,
    /// Its region.
    pub(super) region: RegionId,
    /// Port it serves on.
    pub(super) http: u16,
    /// Port it speaks TLS on.
    pub(super) https: u16,
    /// Port of its admin pages.
    pub(super) admin: u16,
}

#[derive(Serialize)]
struct OriginFile {
    listen: String,
    admin: String,
    data_dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    artifacts: PathBuf,
    base_domain: &'static str,
    public_url: String,
    site_port: u16,
    record_key: PathBuf,
    provenance_key: PathBuf,
    bootstrap_token_file: PathBuf,
    edge_token_file: PathBuf,
    log: &'static str,
    exit_with_parent: bool,
    nats: nats::NatsConfig,
    regions: Vec<RegionTable>,
    bake: BakeTable,
    operator_keys: [PublicKey; 1],
    webhooks: WebhooksTable,
    source: SourceTable,
    rollout: RolloutTable,
}

/// The keys that edges pin, for whoever breaks the glass.
#[derive(Serialize)]
struct RingFile<'a> {
    keys: [&'a PublicKey; 2],
}

/// Whoever is told of events on a developer's machine runs there too.
#[derive(Serialize)]
struct WebhooksTable {
    allow: [&'static str; 2],
    plain_http: bool,
}

/// A developer's repositories are on this machine, too, and a push is looked for where one waits for it. All origins have one key.
#[derive(Serialize)]
struct SourceTable {
    key: PathBuf,
    plain_http: bool,
    local: bool,
    poll_seconds: u64,
}

/// A deployment to one's own machine is there at once; a release that names its window bakes all the same.
#[derive(Serialize)]
struct BakeTable {
    window: &'static str,
    window_with_upstreams: &'static str,
}

/// The same: every region at once, unless a release or a deployment says otherwise.
#[derive(Serialize)]
struct RolloutTable {
    order: &'static str,
}

#[derive(Serialize)]
struct RegionTable {
    region: RegionId,
    edges: Vec<EdgeTable>,
}

#[derive(Serialize)]
struct EdgeTable {
    edge: EdgeId,
    url: String,
}

#[derive(Serialize)]
struct EdgeFile<'a> {
    edge: &'a EdgeId,
    region: &'a RegionId,
    listen: String,
    admin: String,
    data_dir: PathBuf,
    base_domain: &'static str,
    threads: usize,
    access_log: AccessLogTable,
    log: &'static str,
    exit_with_parent: bool,
    upstreams: UpstreamsTable,
    origin: OriginTable,
    nats: nats::NatsConfig,
    keys: [&'a PublicKey; 3],
    tls: TlsTable,
}

#[derive(Serialize)]
struct TlsTable {
    listen: String,
    certificates: [CertificateFiles; 1],
}

#[derive(Serialize)]
struct AccessLogTable {
    path: PathBuf,
}

#[derive(Serialize)]
struct UpstreamsTable {
    allow: [&'static str; 2],
}

#[derive(Serialize)]
struct OriginTable {
    url: String,
    others: Vec<String>,
    token_file: PathBuf,
}

impl Fleet {
    /// Chooses ports for what is wanted, and makes what secrets are missing.
    pub(super) fn plan(home: &Home, wanted: &Wanted<'_>) -> anyhow::Result<Self> {
        let mut ports = Ports::load(&home.ports());
        let mut port = |name: &str, preferred: Option<u16>| {
            let preferred = preferred.filter(|_| !wanted.any_ports);
            ports.choose(name, preferred).context("find a free port")
        };
        let (nats, monitor) = (port("nats", ANY)?, port("nats-monitor", ANY)?);
        let (api, admin) = (port("api", Some(API_PORT))?, port("origin-admin", ANY)?);
        let mut origins = vec![OriginPorts {
            name: "origin".to_owned(),
            api,
            admin,
        }];
        for number in 2..=wanted.origins {
            let name = format!("origin-{number}");
            origins.push(OriginPorts {
                api: port(&format!("{name}-api"), ANY)?,
                admin: port(&format!("{name}-admin"), ANY)?,
                name,
            });
        }
        let mut edges = Vec::new();
        for region in wanted.regions {
            for number in 1..=wanted.edges {
                let edge: EdgeId = format!("{region}-{number}").parse()?;
                let number = u16::try_from(edges.len())?;
                let http = port(edge.as_str(), Some(FIRST_EDGE_PORT + number))?;
                let https = port(&format!("{edge}-tls"), Some(FIRST_TLS_PORT + number))?;
                let admin = port(&format!("{edge}-admin"), ANY)?;
                edges.push(Edge {
                    edge,
                    region: region.clone(),
                    http,
                    https,
                    admin,
                });
            }
        }
        ports.save(&home.ports())?;
        let (_, token) = secrets::token(home, "operate")?;
        Ok(Self {
            nats,
            monitor,
            api,
            origins,
            database: wanted.database.map(str::to_owned),
            edges,
            token,
        })
    }

    /// Writes the configuration of every process.
    pub(super) fn write_configs(&self, home: &Home) -> anyhow::Result<()> {
        self.write_nats(home)?;
        let (record_key, public) = secrets::record_key(home)?;
        let operator = secrets::operator_key(home)?;
        let (_, provenance) = secrets::provenance_key(home)?;
        let ring = RingFile {
            keys: [&public, &operator],
        };
        write_atomic(&home.key("ring.toml"), toml::to_string(&ring)?.as_bytes())?;
        let keys = [&public, &operator, &provenance];
        for origin in &self.origins {
            let file = self.origin_file(home, origin, record_key.clone())?;
            // The URL of a database may hold a password.
            write_secret(
                &home.config(&format!("{}.toml", origin.name)),
                toml::to_string(&file)?.as_bytes(),
            )?;
        }
        for edge in &self.edges {
            let file = self.edge_file(home, edge, keys)?;
            write_atomic(
                &home.config(&format!("{}.toml", edge.edge)),
                toml::to_string(&file)?.as_bytes(),
            )?;
        }
        Ok(())
    }

    fn write_nats(&self, home: &Home) -> anyhow::Result<()> {
        let user = |edge: &Edge| {
            let (_, nkey) = secrets::nats_user(home, edge.edge.as_str())?;
            Ok(EdgeUser {
                edge: edge.edge.clone(),
                region: edge.region.clone(),
                nkey,
            })
        };
        let config = NatsConfig {
            port: self.nats,
            monitor_port: self.monitor,
            store: home.data("nats"),
            origin: secrets::nats_user(home, "origin")?.1,
            operator: secrets::nats_user(home, "operator")?.1,
            worker: secrets::nats_user(home, "build")?.1,
            edges: self.edges.iter().map(user).collect::<anyhow::Result<_>>()?,
        };
        Ok(write_atomic(
            &home.config("nats.conf"),
            config.render().as_bytes(),
        )?)
    }

    fn origin_file(
        &self,
        home: &Home,
        origin: &OriginPorts,
        record_key: PathBuf,
    ) -> anyhow::Result<OriginFile> {
        Ok(OriginFile {
            listen: address(origin.api),
            admin: address(origin.admin),
            data_dir: home.data(&origin.name),
            database: self.database.clone(),
            artifacts: home.data("origin"),
            base_domain: BASE_DOMAIN,
            public_url: url(origin.api),
            site_port: self.edges.first().map_or(0, |edge| edge.http),
            record_key,
            provenance_key: secrets::provenance_key(home)?.0,
            bootstrap_token_file: secrets::token(home, "operate")?.0,
            edge_token_file: secrets::token(home, "edge")?.0,
            log: "text",
            exit_with_parent: true,
            nats: nats::NatsConfig {
                monitor: Some(url(self.monitor)),
                ..nats::NatsConfig::new(self.nats_url(), secrets::nats_user(home, "origin")?.0)
            },
            regions: self.regions().into_iter().map(RegionTable::new).collect(),
            bake: BakeTable {
                window: "0s",
                window_with_upstreams: "0s",
            },
            operator_keys: [secrets::operator_key(home)?],
            webhooks: WebhooksTable {
                allow: ["127.0.0.0/8", "::1/128"],
                plain_http: true,
            },
            source: SourceTable {
                key: secrets::token(home, "seal")?.0,
                plain_http: true,
                local: true,
                poll_seconds: 5,
            },
            rollout: RolloutTable { order: "together" },
        })
    }

    fn edge_file<'a>(
        &self,
        home: &Home,
        edge: &'a Edge,
        keys: [&'a PublicKey; 3],
    ) -> anyhow::Result<EdgeFile<'a>> {
        Ok(EdgeFile {
            edge: &edge.edge,
            region: &edge.region,
            listen: address(edge.http),
            admin: address(edge.admin),
            data_dir: home.data(edge.edge.as_str()),
            base_domain: BASE_DOMAIN,
            // Several edges share this machine, so none of them takes every core.
            threads: 1,
            access_log: AccessLogTable {
                path: home.log(&format!("{}.access", edge.edge)),
            },
            log: "text",
            exit_with_parent: true,
            // What is forwarded to on a developer's machine runs there too.
            upstreams: UpstreamsTable {
                allow: ["127.0.0.0/8", "::1/128"],
            },
            origin: OriginTable {
                url: url(self.api),
                others: self.other_origins().collect(),
                token_file: secrets::token(home, "edge")?.0,
            },
            nats: nats::NatsConfig::new(
                self.nats_url(),
                secrets::nats_user(home, edge.edge.as_str())?.0,
            ),
            keys,
            tls: TlsTable {
                listen: address(edge.https),
                certificates: [certificate::open(home)?],
            },
        })
    }

    /// Where the origins after the first are.
    pub(super) fn other_origins(&self) -> impl Iterator<Item = String> {
        self.origins.iter().skip(1).map(|origin| url(origin.api))
    }

    /// Edges region by region, in the order they were asked for.
    pub(super) fn regions(&self) -> Vec<(&RegionId, Vec<&Edge>)> {
        let mut regions: Vec<(&RegionId, Vec<&Edge>)> = Vec::new();
        for edge in &self.edges {
            match regions
                .iter_mut()
                .find(|(region, _)| **region == edge.region)
            {
                Some((_, edges)) => edges.push(edge),
                None => regions.push((&edge.region, vec![edge])),
            }
        }
        regions
    }

    /// Where NATS is.
    pub(super) fn nats_url(&self) -> String {
        format!("nats://{}", address(self.nats))
    }
}

impl RegionTable {
    fn new((region, edges): (&RegionId, Vec<&Edge>)) -> Self {
        let edges = edges.into_iter().map(|edge| EdgeTable {
            edge: edge.edge.clone(),
            url: url(edge.http),
        });
        Self {
            region: region.clone(),
            edges: edges.collect(),
        }
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The address of a port of this machine.
pub(super) fn url(port: u16) -> String {
    format!("http://{}", address(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_plan_keeps_ports_and_secrets_and_takes_more_edges() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let regions: Vec<RegionId> = ["fra", "iad"]
            .iter()
            .map(|region| region.parse().unwrap())
            .collect();
        let wanted = |edges, origins, database| Wanted {
            regions: &regions,
            edges,
            origins,
            database,
            any_ports: false,
        };
        let first = Fleet::plan(&home, &wanted(1, 1, None)).unwrap();
        first.write_configs(&home).unwrap();
        let second = Fleet::plan(&home, &wanted(2, 2, Some("postgres://h/d"))).unwrap();
        second.write_configs(&home).unwrap();

        let ids: Vec<&str> = second.edges.iter().map(|edge| edge.edge.as_str()).collect();
        assert_eq!(ids, ["fra-1", "fra-2", "iad-1", "iad-2"]);
        assert_eq!(
            (first.api, first.nats, first.edges[0].http),
            (second.api, second.nats, second.edges[0].http)
        );
        assert_eq!(first.token, second.token);
        let read = |name: &str| std::fs::read_to_string(home.config(name)).unwrap();
        let (origin, other) = (read("origin.toml"), read("origin-2.toml"));
        for file in [&origin, &other] {
            assert!(file.contains("database = \"postgres://h/d\""), "{file}");
        }
        assert!(!origin.contains(&url(second.origins[1].api)), "{origin}");
        assert!(read("fra-1.toml").contains(&url(second.origins[1].api)));
        assert!(
            origin.contains("[[regions.edges]]") && !origin.contains(&first.token),
            "{origin}"
        );
        assert!(
            std::fs::read_to_string(home.config("iad-2.toml"))
                .unwrap()
                .contains("[[tls.certificates]]")
        );
    }
}
