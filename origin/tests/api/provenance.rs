//! Where releases come from: what origin says of it, who can check that, and what it stops.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helix_routing::id::Digest;
use helix_service::shutdown::Shutdown;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::forge::{commit, json_of};
use crate::world::{World, files, problem};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The statement in a bundle.
fn statement(bundle: &Value) -> Value {
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    serde_json::from_slice(&STANDARD.decode(payload).unwrap()).unwrap()
}

impl World {
    async fn provenance(&self, release: &Value) -> Value {
        let release = release.as_str().unwrap();
        let answer = self
            .get(&format!("/v1/releases/{release}/provenance"))
            .await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], BUNDLE);
        answer.json().await.unwrap()
    }

    async fn releases(&self, environment: &str) -> Value {
        let path = format!("/v1/projects/shop/releases?environment={environment}");
        self.get(&path).await.json().await.unwrap()
    }

    /// The bundles of an artifact, as a registry's client finds them.
    async fn referrers(&self, artifact: &Value) -> Vec<Value> {
        let artifact = artifact.as_str().unwrap();
        let path = format!("/v2/shop/referrers/{artifact}?artifactType={BUNDLE}");
        let listed: Value = self.get(&path).await.json().await.unwrap();
        listed["manifests"].as_array().unwrap().clone()
    }

    async fn key(&self) -> String {
        let answer = self.get("/v1/keys/provenance").await;
        answer.text().await.unwrap()
    }

    async fn built(&self, worker: &str, build: &str, page: &[(String, Vec<u8>)]) {
        json_of(self.claim(worker, build, "w").await).await;
        json_of(self.succeed(worker, build, "w", page).await).await;
    }
}

#[tokio::test]
async fn a_folder_carries_the_name_of_who_sent_it() {
    let world = World::start().await;
    let page = files(&[("index.html", "hello")]);
    let deployed: Value = world
        .deploy("production", &page)
        .await
        .json()
        .await
        .unwrap();
    let bundle = world.provenance(&deployed["release"]).await;
    assert_eq!(bundle["mediaType"], BUNDLE);
    let said = statement(&bundle);
    let digest = deployed["artifact"].as_str().unwrap();
    assert_eq!(
        said["subject"][0]["digest"]["sha256"],
        digest.trim_start_matches("sha256:")
    );
    let definition = &said["predicate"]["buildDefinition"];
    assert_eq!(
        definition["externalParameters"],
        json!({ "project": "shop", "environment": "production", "by": "bootstrap" })
    );
    assert_eq!(
        world.releases("production").await[0]["source"],
        "upload by bootstrap"
    );
    assert!(!bundle.to_string().contains(&world.token));
}

#[tokio::test]
async fn any_two_origins_call_the_same_files_the_same_release() {
    let (one, other) = (World::start().await, World::start().await);
    // It has packed a part of them before.
    let before = files(&[("a.txt", "kept")]);
    json_of(other.deploy("production", &before).await).await;
    let page = files(&[("index.html", "hello"), ("a.txt", "kept")]);
    let mut made = Vec::new();
    for world in [&one, &other] {
        let deployed = json_of(world.deploy("production", &page).await).await;
        made.push(deployed["release"].clone());
    }
    assert_eq!(made[0], made[1]);
    let changed = files(&[("index.html", "hello!"), ("a.txt", "kept")]);
    let deployed = json_of(one.deploy("production", &changed).await).await;
    assert_ne!(deployed["release"], made[0]);
}

#[tokio::test]
async fn a_build_carries_its_repository_commit_and_log() {
    let world = World::start().await;
    let secret = world
        .link(json!({ "settings": { "build": "make", "root": "web" } }))
        .await;
    let worker = world.token("build").await;
    let build = world.push(&secret, &commit('0'), &commit('a')).await;
    json_of(world.claim(&worker, &build, "w").await).await;
    let line = |seq: u64, text: &str| json!({ "seq": seq, "at": 1, "step": "build", "text": text });
    let log = json!({ "worker": "w", "lines": [line(1, "one"), line(2, "two")] });
    json_of(world.worker(&worker, &build, "log", &log).await).await;
    json_of(
        world
            .succeed(&worker, &build, "w", &files(&[("index.html", "built")]))
            .await,
    )
    .await;
    let release = world.releases("production").await[0].clone();
    let said = statement(&world.provenance(&release["release"]).await);
    let definition = &said["predicate"]["buildDefinition"];
    assert_eq!(
        definition["externalParameters"],
        json!({
            "project": "shop", "environment": "production", "repository": "https://github.com/acme/shop",
            "ref": "refs/heads/main", "commit": commit('a'), "root": "web", "buildCommand": "make",
        })
    );
    assert_eq!(
        definition["resolvedDependencies"][0]["digest"],
        json!({ "gitCommit": commit('a') })
    );
    let details = &said["predicate"]["runDetails"];
    assert_eq!(details["metadata"]["invocationId"], build.as_str());
    let log = &details["byproducts"][0];
    let printed = helix_service::digest::sha256(b"one\ntwo\n");
    assert_eq!(
        (&log["digest"]["sha256"], &log["annotations"]["lines"]),
        (&json!(printed.hex()), &json!("2"))
    );
    let shown = release["source"].as_str().unwrap();
    assert!(shown.starts_with(&format!("build {build} of ")), "{shown}");
    // By its commit and environment, too.
    let tag = format!("git-{}-production", commit('a'));
    let path = format!("/v2/shop/manifests/{tag}");
    let named = world.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(
        named.headers()["docker-content-digest"],
        release["artifact"].as_str().unwrap()
    );
    let tags: Value = world.get("/v2/shop/tags/list").await.json().await.unwrap();
    assert_eq!(tags["tags"], json!([tag, "main-1"]));
}

#[tokio::test]
async fn the_same_files_are_the_same_artifact_with_one_bundle_for_each_source() {
    let world = World::start().await;
    let page = files(&[("index.html", "same"), ("a.css", "a {}")]);
    let mut artifacts = Vec::new();
    for _ in 0..3 {
        let deployed: Value = world
            .deploy("production", &page)
            .await
            .json()
            .await
            .unwrap();
        artifacts.push(deployed["artifact"].clone());
    }
    artifacts.dedup();
    assert_eq!(artifacts.len(), 1, "the same files, another digest");
    assert_eq!(world.referrers(&artifacts[0]).await.len(), 1);
    let other = World {
        token: world.token("deploy").await,
        ..world
    };
    other.deploy("production", &page).await;
    let referrers = other.referrers(&artifacts[0]).await;
    assert_eq!(referrers.len(), 2);
    // The newest is the first.
    let path = format!(
        "/v2/shop/manifests/{}",
        referrers[0]["digest"].as_str().unwrap()
    );
    let manifest: Value = other.get(&path).await.json().await.unwrap();
    assert_eq!(manifest["artifactType"], BUNDLE);
    assert_eq!(manifest["subject"]["digest"], artifacts[0]);
    assert_eq!(
        manifest["annotations"]["dev.sigstore.bundle.predicateType"],
        "https://slsa.dev/provenance/v1"
    );
    let layer = &manifest["layers"][0];
    let path = format!("/v2/shop/blobs/{}", layer["digest"].as_str().unwrap());
    let bundle: Value = other.get(&path).await.json().await.unwrap();
    assert_eq!(
        statement(&bundle)["predicate"]["buildDefinition"]["externalParameters"]["by"],
        "deploy"
    );
    // For clients that know no referrers API.
    let tag = artifacts[0].as_str().unwrap().replace(':', "-");
    let answer = other.get(&format!("/v2/shop/manifests/{tag}")).await;
    assert_eq!(
        answer.headers()["content-type"],
        "application/vnd.oci.image.index.v1+json"
    );
    let index: Value = answer.json().await.unwrap();
    assert_eq!(index["manifests"].as_array().unwrap(), &referrers);
}

#[tokio::test]
async fn the_layouts_list_names_site_label_and_commit() {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let worker = world.token("build").await;
    let build = &world.opened(&secret, &commit('b')).await;
    json_of(world.claim(&worker, build, "w").await).await;
    let page = files(&[("index.html", "preview")]);
    let bill = json!("{\"bomFormat\": \"CycloneDX\"}");
    json_of(world.succeed_with(&worker, build, "w", &page, &bill).await).await;
    let artifact = world.releases("preview/42").await[0]["artifact"].clone();
    let (shutdown, handle) = Shutdown::manual();
    let artifacts = world.app.artifacts.clone();
    let exporting = tokio::spawn(async move { artifacts.export_on_demand(&shutdown).await });
    world.app.artifacts.export_soon();
    let blob: Digest = artifact.as_str().unwrap().parse().unwrap();
    let blob = world.app.artifacts.layout().path(&blob);
    let list = blob.ancestors().nth(3).unwrap().join("index.json");
    let whole = async {
        loop {
            let text = std::fs::read_to_string(&list).unwrap_or_default();
            let list: Value = serde_json::from_str(&text).unwrap_or_default();
            let listed = list["manifests"].as_array().cloned().unwrap_or_default();
            if listed
                .iter()
                .filter(|one| one["digest"] == artifact)
                .count()
                == 2
            {
                return listed;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let whole = tokio::time::timeout(Duration::from_secs(30), whole).await;
    let (named, referrers): (Vec<Value>, Vec<Value>) = whole
        .unwrap()
        .into_iter()
        .partition(|one| one["digest"] == artifact);
    let kinds: Vec<&Value> = referrers.iter().map(|one| &one["artifactType"]).collect();
    assert_eq!(kinds, [BUNDLE, "application/vnd.cyclonedx+json"]);
    let tags = [
        "preview-42".to_owned(),
        format!("git-{}-preview-42", commit('b')),
    ];
    for (one, tag) in named.iter().zip(tags) {
        assert_eq!(
            one["annotations"],
            json!({
                "dev.helixstack.project": "shop",
                "dev.helixstack.environment": "preview/42",
                "dev.helixstack.label": "preview/42",
                "dev.helixstack.commit": commit('b'),
                "org.opencontainers.image.ref.name": format!("shop:{tag}"),
            })
        );
    }
    handle.request();
    exporting.await.unwrap();
}

#[tokio::test]
async fn a_promotion_says_who_and_why() {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let worker = world.token("build").await;
    let build = &world.opened(&secret, &commit('b')).await;
    world
        .built(&worker, build, &files(&[("index.html", "preview")]))
        .await;
    let preview = world.releases("preview/42").await[0].clone();
    let wanted = json!({ "release": preview["release"], "override_reason": "the train is late" });
    let promoted = json_of(world.post("/v1/projects/shop/promotions", &wanted).await).await;
    let said = statement(&world.provenance(&promoted["release"]).await);
    let definition = &said["predicate"]["buildDefinition"];
    assert_eq!(
        definition["buildType"],
        "https://helixstack.dev/provenance/promotion/v1"
    );
    let parameters = &definition["externalParameters"];
    assert_eq!(
        (&parameters["by"], &parameters["reason"]),
        (&json!("bootstrap"), &json!("the train is late"))
    );
    assert_eq!(
        parameters["from"],
        json!({ "environment": "preview/42", "release": preview["release"] })
    );
    assert_eq!(parameters["commit"], commit('b'));
    let artifact = preview["artifact"].as_str().unwrap();
    assert_eq!(
        definition["resolvedDependencies"][0]["digest"]["sha256"],
        artifact.trim_start_matches("sha256:")
    );
}

#[tokio::test]
async fn what_is_built_of_another_repository_than_the_linked_one_does_not_reach_production() {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let worker = world.token("build").await;
    let build = world.push(&secret, &commit('0'), &commit('a')).await;
    json_of(world.claim(&worker, &build, "w").await).await;
    world
        .link(json!({ "url": "https://github.com/acme/other" }))
        .await;
    let page = files(&[("index.html", "built")]);
    let ended = world.succeed(&worker, &build, "w", &page).await;
    json_of(ended).await;
    let view = world.build(&build).await;
    assert_eq!(view["state"], "failed", "{view}");
    let reason = view["reason"].as_str().unwrap();
    assert!(
        reason.contains("takes what is built of main of https://github.com/acme/other"),
        "{reason}"
    );
}

#[tokio::test]
async fn releases_from_before_are_attested_when_somebody_asks() {
    let world = World::start().await;
    let page = files(&[("index.html", "before")]);
    let deployed: Value = world
        .deploy("production", &page)
        .await
        .json()
        .await
        .unwrap();
    let mut tx = world.app.store.write().await.unwrap();
    sqlx::query("DELETE FROM provenances")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.referrers(&deployed["artifact"]).await.len(), 1);
    let said = statement(&world.provenance(&deployed["release"]).await);
    assert_eq!(
        said["predicate"]["buildDefinition"]["externalParameters"]["by"],
        "bootstrap"
    );
    let nothing = world
        .get(&format!("/v1/releases/{}/provenance", "0".repeat(20)))
        .await;
    assert_eq!(problem(nothing).await.1, "unknown-release");
}

/// Where the judge is; none, with a word about it, when it is not there.
fn judge() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/judges");
    let has_node = std::process::Command::new("node")
        .arg("--version")
        .output()
        .is_ok_and(|answer| answer.status.success());
    if has_node && folder.join("node_modules/@sigstore/verify").exists() {
        return Some(folder);
    }
    eprintln!("skipped: no Node, or no @sigstore/verify in .tools/judges");
    None
}

/// What Sigstore's own verifier says of bundles under a key: `verified`, or the code of its error.
async fn judged(folder: &Path, key: &str, bundles: &[Value]) -> Vec<String> {
    const SCRIPT: &str = "
const { createPublicKey } = require('crypto');
const { Verifier, toSignedEntity } = require('@sigstore/verify');
const { bundleFromJSON } = require('@sigstore/bundle');
const { key, bundles } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const publicKey = createPublicKey(key);
const trust = {
  certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [],
  publicKey: () => ({ publicKey, validFor: () => true }),
};
const none = { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 };
console.log(JSON.stringify(bundles.map(json => {
  try {
    new Verifier(trust, none).verify(toSignedEntity(bundleFromJSON(json)));
    return 'verified';
  } catch (error) {
    return String(error.code || error);
  }
})));";
    let mut child = tokio::process::Command::new("node")
        .args(["-e", SCRIPT])
        .env("NODE_PATH", folder.join("node_modules"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = json!({ "key": key, "bundles": bundles }).to_string();
    let mut input = child.stdin.take().unwrap();
    input.write_all(asked.as_bytes()).await.unwrap();
    drop(input);
    let answer = child.wait_with_output().await.unwrap();
    assert!(answer.status.success(), "the judge has failed");
    serde_json::from_slice(&answer.stdout).unwrap()
}

#[tokio::test]
async fn sigstores_own_verifier_accepts_a_bundle_and_no_other() {
    let Some(folder) = judge() else { return };
    let world = World::start().await;
    let page = files(&[("index.html", "judged")]);
    let deployed: Value = world
        .deploy("production", &page)
        .await
        .json()
        .await
        .unwrap();
    let bundle = world.provenance(&deployed["release"]).await;
    let key = world.key().await;
    let mut said = statement(&bundle);
    said["predicate"]["buildDefinition"]["externalParameters"]["by"] = json!("somebody else");
    let mut other_payload = bundle.clone();
    other_payload["dsseEnvelope"]["payload"] = json!(STANDARD.encode(said.to_string()));
    let mut other_type = bundle.clone();
    other_type["dsseEnvelope"]["payloadType"] = json!("application/json");
    let verdicts = judged(&folder, &key, &[bundle.clone(), other_payload, other_type]).await;
    assert_eq!(verdicts, ["verified", "SIGNATURE_ERROR", "SIGNATURE_ERROR"]);
    let stranger = World::start().await.key().await;
    assert_eq!(
        judged(&folder, &stranger, &[bundle]).await,
        ["SIGNATURE_ERROR"]
    );
}
