//! A registry that has a referrers API, `ferro-oci-server` of crates.io, takes a release with all that refers to it, lists that, and
//! gives it back.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use helix_routing::artifact::{IMPROVEMENT_TYPE, Manifest};
use helix_routing::id::Digest;
use helix_service::digest::sha256;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::forge::{commit, json_of};
use crate::remote::Pushing;
use crate::running::Running;
use crate::variants::settle_all;
use crate::world::files;

const BILL: &str = "application/vnd.cyclonedx+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The registry: a folder of blobs, each by its digest. It ends with this.
struct Judge {
    _running: Running,
    folder: TempDir,
    address: String,
}

impl Judge {
    /// None where it is not installed.
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        loop {
            // It does not say which port it got, so it is told one that is free. If that is taken by then, it ends, and gets another.
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap().to_string();
            drop(free);
            let started = Command::new("ferro-oci-server")
                .env("FERRO_OCI_LISTEN", &address)
                .env("FERRO_OCI_STORAGE_DIR", folder.path())
                .env("RUST_LOG", "error")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let mut child = started.ok()?;
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(&address).is_ok() {
                    return Some(Self {
                        _running: Running(child),
                        folder,
                        address,
                    });
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        let (first, rest) = digest.hex().split_at(2);
        self.folder.path().join("sha256").join(first).join(rest)
    }

    async fn ask(&self, path: &str) -> Response {
        let url = format!("http://{}/v2/team/shop/{path}", self.address);
        reqwest::get(url).await.unwrap()
    }

    async fn manifest(&self, reference: &str) -> Vec<u8> {
        let answer = self.ask(&format!("manifests/{reference}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{reference}");
        answer.bytes().await.unwrap().to_vec()
    }

    /// What it says that refers to an artifact, of one kind or of all: kinds and digests.
    async fn referrers(&self, artifact: &str, kind: Option<&str>) -> Vec<(String, String)> {
        let query = kind.map(|kind| format!("?artifactType={}", kind.replace('+', "%2B")));
        let query = query.unwrap_or_default();
        let answer = self.ask(&format!("referrers/{artifact}{query}")).await;
        let is_filtered = answer.headers().contains_key("oci-filters-applied");
        assert_eq!(is_filtered, kind.is_some());
        let index = json_of(answer).await;
        let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
        let listed = index["manifests"].as_array().unwrap().iter();
        let mut listed: Vec<_> = listed
            .map(|one| (text(one, "artifactType"), text(one, "digest")))
            .collect();
        listed.sort();
        listed
    }
}

/// A build of the default branch with a bill of materials, and its release with an improvement, all of it pushed.
async fn built(pushing: &Pushing, bill: &str) -> Value {
    let world = &pushing.world;
    let (secret, worker) = (world.link(json!({})).await, world.token("build").await);
    let build = world.push(&secret, &commit('0'), &commit('a')).await;
    json_of(world.claim(&worker, &build, "w").await).await;
    let page = files(&[("index.html", &"a word and another ".repeat(2000))]);
    let bill = json!(bill);
    let ended = world.succeed_with(&worker, &build, "w", &page, &bill);
    json_of(ended.await).await;
    settle_all(world).await;
    assert!(world.app.artifacts.improve_next().await.unwrap());
    pushing.until_pushed().await;
    let path = "/v1/projects/shop/releases?environment=production";
    json_of(world.get(path).await).await[0].clone()
}

/// Every blob that a manifest and those in `others` name.
fn blobs<'a>(manifests: impl Iterator<Item = &'a Vec<u8>>) -> Vec<Digest> {
    let named = manifests.flat_map(|bytes| {
        let manifest: Manifest = serde_json::from_slice(bytes).unwrap();
        let config = manifest.config.digest;
        let layers = manifest.layers.into_iter().map(|layer| layer.digest);
        layers.chain([config]).collect::<Vec<_>>()
    });
    let mut named: Vec<Digest> = named.collect();
    named.sort();
    named.dedup();
    named
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the only word a skipped test has")]
async fn a_registry_with_referrers_lists_what_refers_to_a_release_and_gives_all_of_it_back() {
    let Some(judge) = Judge::start().await else {
        eprintln!("skipped: ferro-oci-server is not installed");
        return;
    };
    let pushing = Pushing::start(judge.address.parse().unwrap(), "").await;
    let bill = json!({ "bomFormat": "CycloneDX", "components": [] }).to_string();
    let release = built(&pushing, &bill).await;
    let artifact = release["artifact"].as_str().unwrap();

    // By its digest and by each of its tags it is what origin has, byte for byte.
    let path = format!("/v2/shop/manifests/{artifact}");
    let ours = pushing.world.get(&path).await.bytes().await.unwrap();
    let of_commit = format!("git-{}-production", commit('a'));
    for reference in [artifact, "main-1", &of_commit] {
        assert_eq!(judge.manifest(reference).await, ours, "{reference}");
    }

    // It lists what refers to it. No index stands in for its API.
    let listed = judge.referrers(artifact, None).await;
    let kinds: Vec<&str> = listed.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, [BILL, BUNDLE, IMPROVEMENT_TYPE]);
    let index = format!("manifests/{}", artifact.replace(':', "-"));
    assert_eq!(judge.ask(&index).await.status(), StatusCode::NOT_FOUND);
    let mut manifests = vec![ours.to_vec()];
    for (kind, digest) in &listed {
        assert_eq!(
            judge.referrers(artifact, Some(kind)).await,
            [(kind.clone(), digest.clone())]
        );
        let bytes = judge.manifest(digest).await;
        assert_eq!(sha256(&bytes).as_str(), digest);
        let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest.subject.unwrap().digest.as_str(), artifact);
        if kind == BILL {
            let layer = format!("blobs/{}", manifest.layers[0].digest);
            assert_eq!(judge.ask(&layer).await.text().await.unwrap(), bill);
        }
        manifests.push(bytes);
    }

    // Origin loses every blob of it and of what refers to it.
    let lost = blobs(manifests.iter());
    let held: Vec<Vec<u8>> = lost
        .iter()
        .map(|digest| std::fs::read(pushing.layout(digest)).unwrap())
        .collect();
    for digest in &lost {
        std::fs::remove_file(pushing.layout(digest)).unwrap();
    }
    let id = release["release"].as_str().unwrap();
    let found = pushing.verify_release(id, false).await;
    assert_eq!(found["lost"], json!([]), "{found}");
    assert_eq!(found["registry"]["lost"], json!([]), "{found}");
    for (digest, held) in lost.iter().zip(&held) {
        assert_eq!(&std::fs::read(pushing.layout(digest)).unwrap(), held);
    }
    let path = format!("/v1/releases/{id}/materials");
    let shown = pushing.world.get(&path).await;
    assert_eq!(shown.text().await.unwrap(), bill);

    // The registry loses one, and gets it again. (The empty config it makes up: there is no file of it.)
    let manifest: Manifest = serde_json::from_slice(&ours).unwrap();
    let one = &manifest.layers[0].digest;
    let whole = std::fs::read(pushing.layout(one)).unwrap();
    std::fs::remove_file(judge.blob(one)).unwrap();
    let found = pushing.verify_release(id, true).await;
    assert_eq!(found["registry"]["lost"], json!([one]), "{found}");
    pushing.until_pushed().await;
    assert_eq!(std::fs::read(judge.blob(one)).unwrap(), whole);
}
