//! A small world around one edge: a real nats-server, and an origin that knows only how to publish and to be pulled from.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, HeaderMap};
use axum::http::HeaderMap as HttpHeaders;
use futures_util::StreamExt;
use helix_edge::app::{self, Running};
use helix_edge::config::{EdgeConfig, OriginConfig};
use helix_routing::artifact::*;
use helix_routing::gate::record::GateRecord;
use helix_routing::gate::report::GatesReport;
use helix_routing::host::HostPattern;
use helix_routing::id::{Epoch, Generation, Incarnation, SiteId};
use helix_routing::key::{self, Scope};
use helix_routing::record::*;
use helix_routing::report::{CandidateState, Heartbeat, Refusal, SiteReport};
use helix_routing::routes::Routes;
use helix_routing::seal::KeyRole;
use helix_routing::wire::Wire;
use helix_service::clock;
use helix_service::keys::{Address, PublicKey, SigningKey};
use helix_service::nats::{self, NatsConfig};
use helix_service::port;
use helix_service::shutdown::{Shutdown, ShutdownHandle};
use helix_service::telemetry::LogFormat;
use tempfile::TempDir;

use crate::blobs::{Blobs, entry, serve_origin};
use crate::nats::{start_nats, write_nats_config};

/// Far longer than anything takes; a test that reaches it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const SITE: &str = "shop/production";
pub(crate) const HOST: &str = "www.example.com";
pub(crate) const TOKEN: &str = "read-only";

/// Where nats-server is; none, with a word about it, when there is none.
pub(crate) fn nats_server() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
    let path = std::env::var_os("NATS_SERVER").map_or(own, PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    eprintln!(
        "skipped: no nats-server at {} (`make setup` fetches it, or set NATS_SERVER)",
        path.display()
    );
    None
}

pub(crate) struct World {
    pub(crate) folder: TempDir,
    server: PathBuf,
    child: Option<Child>,
    port: u16,
    signer: SigningKey,
    /// Keys of role `provenance` that edges pin.
    pub(crate) vouching: Vec<PublicKey>,
    pub(crate) life: Incarnation,
    pub(crate) epoch: Epoch,
    pub(crate) client: Client,
    pub(crate) blobs: Arc<Mutex<Blobs>>,
    origin: SocketAddr,
    origin_task: tokio::task::JoinHandle<()>,
    pub(crate) reports: Arc<Mutex<Vec<SiteReport>>>,
    pub(crate) refusals: Arc<Mutex<Vec<Refusal>>>,
    pub(crate) gates: Arc<Mutex<Vec<GatesReport>>>,
    pub(crate) heartbeats: Arc<Mutex<Vec<Heartbeat>>>,
    sequences: HashMap<String, u64>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop_nats();
    }
}

pub(crate) struct Edge {
    pub(crate) running: Running,
    pub(crate) stop: ShutdownHandle,
}

impl Edge {
    pub(crate) async fn stop(self) {
        self.stop.request();
        tokio::time::timeout(DEADLINE, self.running.join())
            .await
            .unwrap()
            .unwrap();
    }
}

impl World {
    pub(crate) async fn new(server: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = port::free().unwrap();
        write_nats_config(folder.path(), port);
        let child = start_nats(&server, folder.path());
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        let config = NatsConfig::new(
            format!("nats://127.0.0.1:{port}"),
            folder.path().join("origin.seed"),
        );
        let client = nats::connect(&config, "origin").await.unwrap();
        let blobs: Arc<Mutex<Blobs>> = Arc::default();
        let (origin, origin_task) =
            serve_origin(Arc::clone(&blobs), "127.0.0.1:0".parse().unwrap()).await;
        let mut world = Self {
            folder,
            server,
            child: Some(child),
            port,
            signer: SigningKey::generate(KeyRole::Record),
            vouching: Vec::new(),
            life: helix_service::random::hex16().parse().unwrap(),
            epoch: Epoch(1),
            client,
            blobs,
            origin,
            origin_task,
            reports: Arc::default(),
            refusals: Arc::default(),
            gates: Arc::default(),
            heartbeats: Arc::default(),
            sequences: HashMap::new(),
        };
        world.collect_reports().await;
        world.make_streams().await;
        world
    }

    pub(crate) fn stop_nats(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn start_nats(&mut self) {
        self.child = Some(start_nats(&self.server, self.folder.path()));
    }

    pub(crate) async fn stop_origin(&mut self) {
        self.origin_task.abort();
        let _ = (&mut self.origin_task).await;
    }

    /// At the address where it was before.
    pub(crate) async fn start_origin(&mut self) {
        let blobs = Arc::clone(&self.blobs);
        (_, self.origin_task) = serve_origin(blobs, self.origin).await;
    }

    pub(crate) async fn make_streams(&mut self) {
        let jetstream = jetstream::new(self.client.clone());
        for scope in scopes() {
            let config = stream::Config {
                name: scope.stream(),
                subjects: vec![format!("{}>", scope.stored_prefix())],
                max_messages_per_subject: 1,
                allow_direct: true,
                allow_message_ttl: true,
                discard: stream::DiscardPolicy::New,
                republish: Some(stream::Republish {
                    source: format!("{}>", scope.stored_prefix()),
                    destination: format!("{}>", scope.feed_prefix()),
                    headers_only: false,
                }),
                ..stream::Config::default()
            };
            until(async || jetstream.create_stream(config.clone()).await.is_ok()).await;
            let bucket = jetstream::object_store::Config {
                bucket: scope.snapshot_bucket(),
                ..Default::default()
            };
            until(async || jetstream.create_object_store(bucket.clone()).await.is_ok()).await;
            self.sequences.insert(scope.stream(), 0);
        }
    }

    /// Another life of the streams: nothing of the old one is in them.
    pub(crate) async fn wipe(&mut self) {
        let jetstream = jetstream::new(self.client.clone());
        for scope in scopes() {
            jetstream.delete_stream(scope.stream()).await.unwrap();
        }
        self.life = helix_service::random::hex16().parse().unwrap();
        self.make_streams().await;
    }

    async fn collect_reports(&self) {
        let mut messages = self.client.subscribe("rpt.>").await.unwrap();
        tokio::time::timeout(DEADLINE, self.client.flush())
            .await
            .unwrap()
            .unwrap();
        let (reports, refusals) = (Arc::clone(&self.reports), Arc::clone(&self.refusals));
        let (gates, heartbeats) = (Arc::clone(&self.gates), Arc::clone(&self.heartbeats));
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                match message.subject.as_str() {
                    "rpt.fra.fra-1.site" => reports
                        .lock()
                        .unwrap()
                        .push(SiteReport::decode(&message.payload).unwrap()),
                    "rpt.fra.fra-1.gates" => gates
                        .lock()
                        .unwrap()
                        .push(GatesReport::decode(&message.payload).unwrap()),
                    "rpt.fra.fra-1.refusal" => refusals
                        .lock()
                        .unwrap()
                        .push(Refusal::decode(&message.payload).unwrap()),
                    "rpt.fra.fra-1.heartbeat" => heartbeats
                        .lock()
                        .unwrap()
                        .push(Heartbeat::decode(&message.payload).unwrap()),
                    "rpt.fra.fra-1.edge" | "rpt.fra.fra-1.in-flight" => {}
                    other => panic!("nobody reports on {other}"),
                }
            }
        });
    }

    pub(crate) fn seal(
        &self,
        scope: &Scope,
        key: &str,
        generation: Generation,
        body: Vec<u8>,
    ) -> Vec<u8> {
        self.seal_as(&scope.stream(), key, generation, body)
    }

    pub(crate) fn seal_as(
        &self,
        stream: &str,
        key: &str,
        generation: Generation,
        body: Vec<u8>,
    ) -> Vec<u8> {
        let address = Address {
            stream: stream.to_owned(),
            key: key.to_owned(),
            incarnation: self.life.clone(),
            epoch: self.epoch,
            generation,
        };
        self.signer.seal(address, body)
    }

    /// Publishes bytes under a key, and returns their sequence.
    pub(crate) async fn publish(
        &mut self,
        scope: &Scope,
        key: &str,
        headers: HeaderMap,
        sealed: Vec<u8>,
    ) -> u64 {
        let jetstream = jetstream::new(self.client.clone());
        let subject = format!("{}{key}", scope.stored_prefix());
        let ack = jetstream
            .publish_with_headers(subject, headers, sealed.into())
            .await
            .unwrap()
            .await
            .unwrap();
        self.sequences.insert(scope.stream(), ack.sequence);
        ack.sequence
    }

    pub(crate) async fn site(&mut self, record: &SiteRecord) {
        let key = key::site(&record.site);
        let sealed = self.seal(&fra(), &key, record.generation, record.encode());
        self.publish(&fra(), &key, HeaderMap::new(), sealed).await;
    }

    pub(crate) async fn gate(&mut self, record: &GateRecord) {
        let key = key::gate(&record.site);
        let sealed = self.seal(&fra(), &key, record.generation, record.encode());
        self.publish(&fra(), &key, HeaderMap::new(), sealed).await;
    }

    pub(crate) fn host_record(
        &self,
        host: &str,
        generation: u64,
        site: Option<&str>,
    ) -> (String, Vec<u8>) {
        let host: HostPattern = host.parse().unwrap();
        let key = key::host(&host);
        let generation = Generation(generation);
        let record = HostRecord {
            host,
            epoch: self.epoch,
            generation,
            site: site.map(|site| site.parse().unwrap()),
        };
        let sealed = self.seal(&Scope::Global, &key, generation, record.encode());
        (key, sealed)
    }

    pub(crate) async fn host(&mut self, host: &str, generation: u64, site: Option<&str>) {
        let (key, sealed) = self.host_record(host, generation, site);
        let mut headers = HeaderMap::new();
        if site.is_none() {
            headers.insert("KV-Operation", "DEL");
            headers.insert("Nats-TTL", "604800");
        }
        self.publish(&Scope::Global, &key, headers, sealed).await;
    }

    pub(crate) async fn beacon(&self) {
        for scope in scopes() {
            let stream = scope.stream();
            let beacon = Beacon {
                incarnation: self.life.clone(),
                epoch: self.epoch,
                last_sequence: self.sequences[&stream],
                snapshot_sequence: None,
                at: clock::now(),
                stream,
            };
            let sealed = self.seal_as(&scope.beacon(), key::BEACON, Generation(0), beacon.encode());
            self.client
                .publish(scope.beacon(), sealed.into())
                .await
                .unwrap();
        }
        self.client.flush().await.unwrap();
    }

    pub(crate) async fn snapshot(&self, scope: &Scope, records: Vec<Vec<u8>>) {
        let snapshot = Snapshot {
            at_sequence: self.sequences[&scope.stream()],
            at: clock::now(),
            records,
        };
        let sealed = self.seal(scope, key::SNAPSHOT_NAME, Generation(0), snapshot.encode());
        let compressed = zstd::encode_all(&sealed[..], 3).unwrap();
        let bucket = jetstream::new(self.client.clone())
            .get_object_store(scope.snapshot_bucket())
            .await
            .unwrap();
        bucket
            .put(key::SNAPSHOT_NAME, &mut &compressed[..])
            .await
            .unwrap();
    }

    /// Stores an artifact of these files at origin.
    pub(crate) fn release(&self, site: &str, files: &[(&str, &[u8])]) -> ReleaseRef {
        self.ruled_release(site, files, Routes::default())
    }

    /// A release that has rules.
    pub(crate) fn ruled_release(
        &self,
        site: &str,
        files: &[(&str, &[u8])],
        routes: Routes,
    ) -> ReleaseRef {
        let site: SiteId = site.parse().unwrap();
        let mut blobs = self.blobs.lock().unwrap();
        let mut layers = Vec::new();
        let mut index = FileIndex {
            version: 1,
            files: BTreeMap::new(),
        };
        let mut pack = Vec::new();
        let mut places = Vec::new();
        for (path, bytes) in files {
            let encoded = zstd::encode_all(*bytes, 3).unwrap();
            if bytes.len() as u64 >= STANDALONE_BYTES {
                let layer = blobs.put(BLOB_TYPE, encoded.clone());
                index.files.insert(
                    (*path).to_owned(),
                    entry(bytes, layer.digest.clone(), 0, encoded.len()),
                );
                layers.push(layer);
            } else {
                places.push((*path, *bytes, pack.len(), encoded.len()));
                pack.extend_from_slice(&encoded);
            }
        }
        if !places.is_empty() {
            let layer = blobs.put(PACK_TYPE, pack);
            for (path, bytes, offset, length) in places {
                index.files.insert(
                    path.to_owned(),
                    entry(bytes, layer.digest.clone(), offset, length),
                );
            }
            layers.push(layer);
        }
        let json = serde_json::to_vec(&index).unwrap();
        layers.insert(
            0,
            blobs.put(INDEX_TYPE, zstd::encode_all(&json[..], 3).unwrap()),
        );
        let config = ReleaseConfig {
            version: 1,
            project: site.project,
            environment: site.environment,
            routes,
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: Some(RELEASE_TYPE.to_owned()),
            config: blobs.put(CONFIG_TYPE, serde_json::to_vec(&config).unwrap()),
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let artifact = blobs
            .put(MANIFEST_TYPE, serde_json::to_vec(&manifest).unwrap())
            .digest;
        ReleaseRef {
            release: artifact.hex()[..20].parse().unwrap(),
            artifact,
        }
    }

    pub(crate) fn edge_config(&self) -> EdgeConfig {
        EdgeConfig {
            edge: "fra-1".parse().unwrap(),
            region: "fra".parse().unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            data_dir: self.folder.path().join("edge"),
            base_domain: "helix.localhost".parse().unwrap(),
            tls: None,
            threads: 1,
            cache_bytes: 1024 * 1024,
            access_log: helix_edge::access_log::AccessLogConfig::off(),
            response_cache: helix_edge::config::ResponseCacheConfig::default(),
            log: LogFormat::Text,
            exit_with_parent: false,
            upstreams: helix_edge::forward::Reachable::default(),
            origin: OriginConfig {
                url: format!("http://{}", self.origin),
                others: Vec::new(),
                token_file: self.folder.path().join("token"),
            },
            nats: NatsConfig::new(
                format!("nats://127.0.0.1:{}", self.port),
                self.folder.path().join("edge.seed"),
            ),
            keys: [self.signer.public()]
                .into_iter()
                .chain(self.vouching.clone())
                .collect(),
        }
    }

    pub(crate) async fn edge(&self) -> Edge {
        let (shutdown, stop) = Shutdown::manual();
        let running = Box::pin(app::start(self.edge_config(), shutdown))
            .await
            .unwrap();
        Edge { running, stop }
    }

    /// Sends beacons until `reached`.
    pub(crate) async fn until(&self, mut reached: impl FnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !reached() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "not reached; last report {:?}",
                self.reports.lock().unwrap().last()
            );
            self.beacon().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn last_report(&self) -> Option<SiteReport> {
        self.reports.lock().unwrap().last().cloned()
    }

    pub(crate) fn serves(&self, generation: u64) -> bool {
        self.last_report().is_some_and(|report| {
            report.serving == Generation(generation) && report.generation == Generation(generation)
        })
    }

    pub(crate) fn candidate_state(&self) -> Option<CandidateState> {
        Some(self.last_report()?.candidate?.state)
    }
}

pub(crate) fn fra() -> Scope {
    Scope::Region("fra".parse().unwrap())
}

fn scopes() -> [Scope; 2] {
    [Scope::Global, fra()]
}

pub(crate) fn record(
    generation: u64,
    live: Option<&ReleaseRef>,
    candidate: Option<&ReleaseRef>,
    previous: &[&ReleaseRef],
) -> SiteRecord {
    SiteRecord {
        site: SITE.parse().unwrap(),
        region: "fra".parse().unwrap(),
        epoch: Epoch(1),
        generation: Generation(generation),
        live_since: Generation(generation),
        live: live.cloned(),
        candidate: candidate.cloned(),
        weight: None,
        previous: previous.iter().map(|release| (*release).clone()).collect(),
        pins: Vec::new(),
        overridden: None,
        guard: None,
        requires: None,
        protection: None,
        hold: None,
        bake_until: None,
        removed: false,
    }
}

pub(crate) async fn fetch(edge: &Edge, host: &str, path: &str) -> (u16, HttpHeaders, Vec<u8>) {
    let url = format!("http://{}{path}", edge.running.listen_addr());
    let response = reqwest::Client::new()
        .get(url)
        .header("host", host)
        .send()
        .await
        .unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.bytes().await.unwrap().to_vec())
}

async fn until(mut attempt: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !attempt().await {
        assert!(tokio::time::Instant::now() < deadline, "not reached");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
