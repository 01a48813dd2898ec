//! Origin's API in this process, over real HTTP, with a database and a disk of its own and no NATS.

use std::net::SocketAddr;
use std::sync::Arc;

use helix_origin::address::Addresses;
use helix_origin::app::App;
use helix_origin::artifact::Artifacts;
use helix_origin::feed::{Feed, Policy};
use helix_origin::fleet::{Edge, Roster};
use helix_origin::provenance::Attestor;
use helix_origin::rollout::Conductor;
use helix_origin::rollout::bake::BakeConfig;
use helix_origin::source::seal::SealKey;
use helix_origin::source::{Source, SourceConfig};
use helix_origin::store::{Place, Store};
use helix_origin::webhook::deliver::Sender;
use helix_origin::webhook::schedule::Patience;
use helix_origin::webhook::secret::WebhookKey;
use helix_origin::webhook::send::Permitted;
use helix_origin::{api, auth};
use helix_routing::api::{PACK_UPLOAD_TYPE, Role, encoding_byte};
use helix_routing::artifact::Encoding;
use helix_routing::id::{Digest, RegionId};
use helix_routing::seal::KeyRole;
use helix_service::clock;
use helix_service::digest::sha256;
use helix_service::keys::SigningKey;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Small, so that a test can fill it.
pub(crate) const PROJECT_BYTES: u64 = 32 * 1024 * 1024;

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) app: App,
    pub(crate) client: reqwest::Client,
    pub(crate) token: String,
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lead(crate::place::of(folder.path()).parse::<Place>().unwrap())
            .await
            .unwrap();
        let file = folder.path().join("token");
        auth::ensure_file(&store, &file, "bootstrap", Role::Operate)
            .await
            .unwrap();
        let app = app(store, &folder).await;
        let address = serve(&app).await;
        let token = std::fs::read_to_string(&file).unwrap();
        Self {
            address,
            app,
            client: reqwest::Client::new(),
            token,
            folder,
        }
    }

    /// Answers with what `app` has become.
    pub(crate) async fn serve_again(&mut self) {
        self.address = serve(&self.app).await;
    }

    /// Answers with these artifacts from now on.
    pub(crate) async fn serve_with(&mut self, artifacts: Artifacts) {
        self.app.artifacts = artifacts;
        self.address = serve(&self.app).await;
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.address))
            .bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path)
            .json(body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn token(&self, role: &str) -> String {
        let created: Value = self
            .post("/v1/tokens", &json!({ "name": role, "role": role }))
            .await
            .json()
            .await
            .unwrap();
        created["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn pack(&self, project: &str, upload: Vec<u8>) -> Response {
        let path = format!("/v1/projects/{project}/packs");
        self.request(Method::POST, &path)
            .header("content-type", PACK_UPLOAD_TYPE)
            .body(upload)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn part(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
        bytes: Vec<u8>,
    ) -> Response {
        self.request(Method::PATCH, &format!("/v1/projects/shop/blobs/{digest}"))
            .header("upload-offset", offset)
            .header("upload-length", length)
            .body(bytes)
            .send()
            .await
            .unwrap()
    }

    /// Uploads and deploys files.
    pub(crate) async fn deploy(&self, environment: &str, files: &[(String, Vec<u8>)]) -> Response {
        let mut upload = Vec::new();
        for (_, content) in files {
            upload.extend(frame(content, &sha256(content)));
        }
        assert_eq!(
            self.pack("shop", upload).await.status(),
            StatusCode::NO_CONTENT
        );
        self.post(
            "/v1/projects/shop/deployments",
            &deployment(environment, files),
        )
        .await
    }
}

async fn serve(app: &App) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = api::router(app.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

pub(crate) fn deployment(environment: &str, files: &[(String, Vec<u8>)]) -> Value {
    let files: Vec<Value> = files
        .iter()
        .map(|(path, content)| json!({ "path": path, "digest": sha256(content), "size": content.len() }))
        .collect();
    json!({ "environment": environment, "files": files })
}

pub(crate) fn frame(content: &[u8], digest: &Digest) -> Vec<u8> {
    let mut bytes = hex::decode(digest.hex()).unwrap();
    bytes.push(encoding_byte(Encoding::Identity));
    bytes.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
    bytes.extend(content);
    bytes
}

/// The content compressed, as the command sends it.
pub(crate) fn encoded_frame(content: &[u8]) -> Vec<u8> {
    let encoded = zstd::bulk::compress(content, 3).unwrap();
    if encoded.len() >= content.len() {
        return frame(content, &sha256(content));
    }
    let mut bytes = hex::decode(sha256(content).hex()).unwrap();
    bytes.push(encoding_byte(Encoding::Zstd));
    bytes.extend(u32::try_from(encoded.len()).unwrap().to_be_bytes());
    bytes.extend(encoded);
    bytes
}

/// Bytes that do not compress.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    (0..size).map(|_| rand::random()).collect()
}

pub(crate) fn files(list: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    list.iter()
        .map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec()))
        .collect()
}

/// Reads a problem and checks its shape.
pub(crate) async fn problem(response: Response) -> (u16, String, Value) {
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status);
    (
        status,
        problem["type"].as_str().unwrap().to_owned(),
        problem,
    )
}

async fn app(store: Store, folder: &TempDir) -> App {
    let region: RegionId = "fra".parse().unwrap();
    // Nobody listens there: the feed waits, and what is committed stays in the outbox.
    let client = async_nats::ConnectOptions::new()
        .retry_on_initial_connect()
        .connect("nats://127.0.0.1:1")
        .await
        .unwrap();
    let key = Arc::new(SigningKey::generate(KeyRole::Record));
    let feed = Feed::new(
        store.clone(),
        client,
        key,
        std::slice::from_ref(&region),
        Policy::default(),
    );
    let edge = Edge {
        region: region.clone(),
        edge: "fra-1".parse().unwrap(),
        url: "http://127.0.0.1:1".to_owned(),
    };
    let roster = Roster::new(vec![edge], clock::now());
    let base: helix_routing::host::Host = "helix.localhost".parse().unwrap();
    let artifacts = Artifacts::open(store.clone(), folder.path(), PROJECT_BYTES).unwrap();
    let attesting = SigningKey::generate(KeyRole::Provenance);
    App {
        attestor: Attestor::new(store.clone(), artifacts.layout().clone(), attesting),
        artifacts,
        addresses: Arc::new(Addresses::new(base.clone(), 8081)),
        regions: Arc::from([region]),
        bakes: Arc::new(BakeConfig::none()),
        rollouts: Default::default(),
        conductor: Conductor::new(store.clone(), feed.clone(), roster.clone(), base, None),
        feed,
        admission: None,
        roster,
        asking: reqwest::Client::new(),
        webhooks: Sender {
            key: Arc::new(WebhookKey::open(&folder.path().join("webhook.key")).unwrap()),
            permitted: Arc::default(),
            patience: Patience::default(),
        },
        source: source(folder),
        remote: None,
        store,
    }
}

fn source(folder: &TempDir) -> Source {
    let config = SourceConfig {
        plain_http: true,
        local: true,
        ..SourceConfig::default()
    };
    let mut permitted = Permitted {
        plain_http: true,
        ..Permitted::default()
    };
    permitted.reachable.allow = vec!["127.0.0.0/8".parse().unwrap()];
    let key = SealKey::open(&folder.path().join("seal.key")).unwrap();
    Source::new(&config, key, "http://origin.example", Arc::new(permitted))
}
