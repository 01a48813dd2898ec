//! Releases on their way to a registry that is down, slow, full, forgetful or wrong, and blobs on their way back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use helix_origin::artifact::Artifacts;
use helix_origin::remote::config::RemoteConfig;
use helix_origin::remote::{Remote, queue, run};
use helix_routing::api::DeploymentView;
use helix_routing::artifact::Manifest;
use helix_routing::id::Digest;
use helix_service::digest::sha256;
use helix_service::shutdown::{Shutdown, ShutdownHandle};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::double::Double;
use crate::variants::settle;
use crate::world::{PROJECT_BYTES, World, deployment, files, frame, noise, problem};

const DEADLINE: Duration = Duration::from_secs(60);

fn config(address: SocketAddr, more: &str) -> RemoteConfig {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.toml");
    let text = format!(
        "url = \"http://{address}/team\"\nfirst_retry = \"50ms\"\nlongest_retry = \"1h\"\n{more}"
    );
    std::fs::write(&path, text).unwrap();
    helix_service::config::load(&path, "HELIX_NO_SUCH_PREFIX").unwrap()
}

/// An origin with that registry, which it pushes to.
pub(crate) struct Pushing {
    pub(crate) world: World,
    _running: (JoinHandle<()>, ShutdownHandle),
}

impl Pushing {
    pub(crate) async fn start(address: SocketAddr, more: &str) -> Self {
        let mut world = World::start().await;
        let remote = Remote::open(&config(address, more)).unwrap();
        let artifacts = Artifacts::open(
            world.app.store.clone(),
            world.folder.path(),
            4 * PROJECT_BYTES,
        );
        world.app.artifacts = artifacts.unwrap().mending_from(Some(remote.clone()));
        world.app.remote = Some(remote);
        world.serve_again().await;
        let (shutdown, handle) = Shutdown::manual();
        let app = world.app.clone();
        let task = tokio::spawn(async move { run::run(&app, &shutdown).await });
        Self {
            world,
            _running: (task, handle),
        }
    }

    pub(crate) async fn deploy(&self, text: &str) -> DeploymentView {
        let page = files(&[("index.html", text), ("a.txt", "a")]);
        let response = self.world.deploy("production", &page).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    /// How the newest release stands.
    async fn push(&self) -> Value {
        let path = "/v1/projects/shop/releases?environment=production";
        let releases: Value = self.world.get(path).await.json().await.unwrap();
        releases[0]["push"].clone()
    }

    pub(crate) async fn until_pushed(&self) {
        let begin = Instant::now();
        while self.push().await["state"] != "pushed" {
            let push = self.push().await;
            assert!(begin.elapsed() < DEADLINE, "not pushed in time: {push}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Why it is not pushed.
    async fn until_failed(&self) -> String {
        let begin = Instant::now();
        loop {
            let push = self.push().await;
            if let Some(error) = push["error"].as_str() {
                assert_eq!(push["state"], "waiting");
                return error.to_owned();
            }
            assert!(
                begin.elapsed() < DEADLINE,
                "it did not fail in time: {push}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn manifest(&self, artifact: &Digest) -> Manifest {
        let path = format!("/v2/shop/manifests/{artifact}");
        self.world.get(&path).await.json().await.unwrap()
    }

    pub(crate) fn layout(&self, digest: &Digest) -> std::path::PathBuf {
        self.world.app.artifacts.layout().path(digest)
    }

    pub(crate) async fn verify(&self, view: &DeploymentView, read: bool) -> Value {
        self.verify_release(view.release.as_str(), read).await
    }

    pub(crate) async fn verify_release(&self, release: &str, read: bool) -> Value {
        let path = format!("/v1/releases/{release}/verify");
        let response = self.world.post(&path, &json!({ "read": read })).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }
}

#[tokio::test]
async fn a_release_is_pushed_with_its_blobs_first_and_its_tags_last() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    let pushing = Pushing::start(address, "").await;
    let view = pushing.deploy("one").await;
    pushing.until_pushed().await;
    let manifest = pushing.manifest(&view.artifact).await;
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        let bytes = double.blob("team/shop", &blob.digest).unwrap();
        assert_eq!(sha256(&bytes), blob.digest);
    }
    assert_eq!(double.tags("team/shop"), ["main-1"]);
    let tagged = double.manifest("team/shop", "main-1").unwrap();
    assert_eq!(tagged, serde_json::to_value(&manifest).unwrap());
    let log = double.held().log.clone();
    let position = |begin: &str| log.iter().position(|line| line.starts_with(begin));
    let put = position(&format!("PUT /v2/team/shop/manifests/{}", view.artifact)).unwrap();
    let sent = log[..put].iter();
    let sent = sent.filter(|line| line.starts_with("PUT /v2/team/shop/blobs/uploads/"));
    // And those of what refers to it, if that was pushed with it.
    assert!(sent.count() > manifest.layers.len(), "{log:?}");
    assert!(
        Some(put) < position("PUT /v2/team/shop/manifests/main-1"),
        "{log:?}"
    );

    // What is there is not sent again.
    let before = double.asked("PUT /v2/team/shop/blobs/");
    let _ = pushing.deploy("two").await;
    pushing.until_pushed().await;
    assert_eq!(double.tags("team/shop"), ["main-1", "main-2"]);
    assert!(double.asked("PUT /v2/team/shop/blobs/") > before);
    let status: Value = pushing.world.get("/v1/status").await.json().await.unwrap();
    assert_eq!(status["registry"]["waiting"], 0, "{status}");
    assert_eq!(
        status["registry"]["registry"],
        format!("http://{address}/team")
    );
    crate::schema::events_fit(&pushing.world.app.store).await;
}

#[tokio::test]
async fn tags_name_the_newest_deployment_and_its_commit() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    let pushing = Pushing::start(address, "").await;
    let preview = async |text: &str| {
        let page = files(&[("index.html", text)]);
        let response = pushing.world.deploy("preview/7", &page).await;
        response.json::<DeploymentView>().await.unwrap()
    };
    let (first, second) = (preview("first").await, preview("second").await);
    let named = || {
        let key = ("team/shop".to_owned(), "preview-7".to_owned());
        let (_, bytes) = double.held().manifests.get(&key)?.clone();
        Some(sha256(&bytes))
    };
    until("the tag moves", || {
        named().as_ref() == Some(&second.artifact)
    })
    .await;
    // The first one once more, and of a commit: what is newer stays.
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let mut tx = pushing.world.app.store.write().await.unwrap();
    sqlx::query("UPDATE deployments SET commit_id = $1 WHERE number = 1")
        .bind(commit)
        .execute(&mut *tx)
        .await
        .unwrap();
    queue::want(&mut tx, &first.site.project, &first.artifact)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let of_commit = format!("git-{commit}-preview-7");
    until("the commit is a tag", || {
        double.tags("team/shop").contains(&of_commit)
    })
    .await;
    assert_eq!(named(), Some(second.artifact));
}

#[tokio::test]
async fn what_another_project_has_there_is_mounted() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    let pushing = Pushing::start(address, "").await;
    let _ = pushing.deploy("one").await;
    pushing.until_pushed().await;
    let page = files(&[("index.html", "one"), ("a.txt", "a")]);
    let mut upload = Vec::new();
    for (_, content) in &page {
        upload.extend(frame(content, &sha256(content)));
    }
    let _ = pushing.world.pack("other", upload).await;
    let path = "/v1/projects/other/deployments";
    let response = pushing
        .world
        .post(path, &deployment("production", &page))
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    until("it is pushed", || double.tags("team/other") == ["main-1"]).await;
    let mounted = double.asked("POST /v2/team/other/blobs/uploads/ 201");
    assert!(mounted >= 1, "its pack");
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_registry_that_is_down_gets_everything_once_it_is_back() {
    let double = Double::default();
    let (address, serving) = double.start().await;
    serving.abort();
    let _ = serving.await;
    let pushing = Pushing::start(address, "").await;
    let _ = pushing.deploy("one").await;
    let why = pushing.until_failed().await;
    assert!(why.contains("no answer"), "{why}");
    let (_, _serving) = double.start_at(address).await;
    pushing.until_pushed().await;
    assert_eq!(double.tags("team/shop"), ["main-1"]);
}

#[tokio::test]
async fn a_registry_that_is_slow_is_left_and_asked_again() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    double.held().faults.slow = Duration::from_secs(30);
    let pushing = Pushing::start(address, "answer_within = \"300ms\"").await;
    let began = Instant::now();
    let _ = pushing.deploy("one").await;
    let why = pushing.until_failed().await;
    assert!(why.contains("no answer"), "{why}");
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "nothing waits for it"
    );
    double.held().faults.slow = Duration::ZERO;
    pushing.until_pushed().await;
}

#[tokio::test]
async fn a_registry_that_is_full_is_shown_and_gets_what_is_left_later() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    for status in [507, 413, 500] {
        double.held().faults.full = Some(status);
        let pushing = Pushing::start(address, "").await;
        let _ = pushing.deploy(&format!("full {status}")).await;
        let why = pushing.until_failed().await;
        assert!(why.contains(&format!("answered {status}")), "{why}");
        assert!(why.contains("DENIED: as it was told"), "{why}");
        assert!(!why.contains("_state"), "{why}");
        double.held().faults.full = None;
        pushing.until_pushed().await;
    }
    assert!(
        double.asked("DELETE /v2/team/shop/blobs/uploads/") > 0,
        "what was begun is given up"
    );
}

#[tokio::test]
async fn a_token_is_fetched_when_the_registry_wants_one_and_is_never_shown() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    double.held().faults.token = Some("t0ken".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, "ci:wr0ng\n").unwrap();
    let more = format!("credentials = {file:?}");
    let pushing = Pushing::start(address, &more).await;
    let _ = pushing.deploy("one").await;
    let why = pushing.until_failed().await;
    assert!(why.contains("gives no token: 401"), "{why}");
    assert!(!why.contains("wr0ng") && !why.contains("t0ken"), "{why}");
    // The file is read anew: origin goes on.
    std::fs::write(&file, "ci:secret\n").unwrap();
    pushing.until_pushed().await;
    assert!(double.asked("GET /token 200") >= 1);
    // Another one: what was kept does not count any more.
    double.held().faults.token = Some("an0ther".to_owned());
    let _ = pushing.deploy("two").await;
    pushing.until_pushed().await;
}

#[tokio::test]
async fn a_registry_that_wants_to_be_left_alone_is_for_so_long() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    double
        .held()
        .faults
        .refuse
        .push_back((Method::POST, 429, Some(2)));
    let pushing = Pushing::start(address, "").await;
    let began = Instant::now();
    let _ = pushing.deploy("one").await;
    let why = pushing.until_failed().await;
    assert!(why.contains("answered 429"), "{why}");
    pushing.until_pushed().await;
    assert!(
        began.elapsed() > Duration::from_millis(1900),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn blobs_that_the_registry_says_it_has_and_has_lost_are_pushed_again() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    let pushing = Pushing::start(address, "").await;
    let view = pushing.deploy("one").await;
    pushing.until_pushed().await;
    let manifest = pushing.manifest(&view.artifact).await;
    let lost = manifest.layers[0].digest.clone();

    let found = pushing.verify(&view, false).await;
    assert_eq!(found["registry"]["lost"], json!([]), "{found}");
    // It says so itself.
    double
        .held()
        .blobs
        .remove(&("team/shop".to_owned(), lost.to_string()));
    double
        .held()
        .manifests
        .remove(&("team/shop".to_owned(), "main-1".to_owned()));
    let found = pushing.verify(&view, false).await;
    assert_eq!(found["registry"]["lost"], json!([lost]), "{found}");
    assert_eq!(found["registry"]["tags_lost"], json!(["main-1"]));
    pushing.until_pushed().await;
    assert!(double.blob("team/shop", &lost).is_some());
    assert_eq!(double.tags("team/shop"), ["main-1"]);
    // It lies, which only reading finds out.
    double
        .held()
        .blobs
        .remove(&("team/shop".to_owned(), lost.to_string()));
    double.held().faults.lies = true;
    let found = pushing.verify(&view, false).await;
    assert_eq!(found["registry"]["lost"], json!([]), "{found}");
    let found = pushing.verify(&view, true).await;
    assert_eq!(found["registry"]["lost"], json!([lost]), "{found}");
    pushing.until_pushed().await;
    assert!(double.blob("team/shop", &lost).is_some());
    // It lies, and refuses the next manifest for it.
    double.held().blobs.clear();
    let next = pushing.deploy("two").await;
    pushing.until_pushed().await;
    let manifest = pushing.manifest(&next.artifact).await;
    for blob in &manifest.layers {
        assert!(double.blob("team/shop", &blob.digest).is_some());
    }
    // It is away: that is said, and nothing else.
    double
        .held()
        .faults
        .refuse
        .push_back((Method::HEAD, 503, None));
    let found = pushing.verify(&next, false).await;
    let problem = found["registry"]["problem"].as_str().unwrap();
    assert!(problem.contains("answered 503"), "{problem}");
    crate::schema::events_fit(&pushing.world.app.store).await;
}

#[tokio::test]
async fn what_origin_has_lost_comes_back_whatever_the_registry_does_with_bodies() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    let pushing = Pushing::start(address, "").await;
    let large = noise(300_000);
    let page = vec![("index.bin".to_owned(), large)];
    let response = pushing.world.deploy("production", &page).await;
    let view: DeploymentView = response.json().await.unwrap();
    pushing.until_pushed().await;
    let manifest = pushing.manifest(&view.artifact).await;
    let pack = manifest
        .layers
        .iter()
        .max_by_key(|layer| layer.size)
        .unwrap();
    let path = format!("/v2/shop/blobs/{}", pack.digest);
    let whole = std::fs::read(pushing.layout(&pack.digest)).unwrap();
    let get = async || {
        let response = pushing.world.get(&path).await;
        let status = response.status();
        (status, response.bytes().await.unwrap())
    };

    // Lost; the body is cut short, and gone on with.
    std::fs::remove_file(pushing.layout(&pack.digest)).unwrap();
    double.held().faults.cut = Some(100_000);
    assert_eq!(get().await, (StatusCode::OK, whole.clone().into()));
    // Damaged; cut short again, and the whole is sent where a part is asked for.
    let damage = || {
        let mut damaged = whole.clone();
        damaged[1000] ^= 1;
        std::fs::write(pushing.layout(&pack.digest), damaged).unwrap();
    };
    damage();
    double.held().faults.no_ranges = true;
    assert_eq!(get().await, (StatusCode::OK, whole.clone().into()));
    assert_eq!(std::fs::read(pushing.layout(&pack.digest)).unwrap(), whole);
    // Manifest, config and index, as origin itself reads them.
    double.held().faults.cut = None;
    for digest in [
        &view.artifact,
        &manifest.config.digest,
        &manifest.layers[0].digest,
    ] {
        std::fs::remove_file(pushing.layout(digest)).unwrap();
    }
    let contents = pushing.world.app.artifacts.contents(&view.artifact).await;
    assert_eq!(contents.unwrap().1.files.len(), 1);
    // Other bytes are not taken, and it is not asked again at once.
    damage();
    double.held().faults.wrong = true;
    assert_eq!(get().await.0, StatusCode::NOT_FOUND);
    let asked = double.asked("GET /v2/team/shop/blobs/");
    assert_eq!(get().await.0, StatusCode::NOT_FOUND);
    assert_eq!(double.asked("GET /v2/team/shop/blobs/"), asked);
    let found = pushing.verify(&view, false).await;
    assert_eq!(found["lost"], json!([pack.digest]), "{found}");
}

#[tokio::test]
async fn a_referrer_is_found_from_its_subject_with_the_api_and_without() {
    for has_api in [true, false] {
        let double = Double::default();
        let (address, _serving) = double.start().await;
        double.held().faults.referrers = has_api;
        let pushing = Pushing::start(address, "").await;
        let text = "a word and another ".repeat(2000);
        let view = pushing.deploy(&text).await;
        pushing.until_pushed().await;
        settle(&pushing.world, &view).await;
        assert!(pushing.world.app.artifacts.improve_next().await.unwrap());
        pushing.until_pushed().await;
        let held = double.held();
        let refers = |(_, bytes): &&(String, axum::body::Bytes)| {
            let manifest: Value = serde_json::from_slice(bytes).unwrap();
            manifest["subject"]["digest"] == view.artifact.as_str()
        };
        assert!(
            held.manifests.values().any(|one| refers(&one)),
            "with the API: {has_api}"
        );
        drop(held);
        let tag = format!("sha256-{}", view.artifact.hex());
        let index = double.manifest("team/shop", &tag);
        assert_eq!(index.is_none(), has_api);
        if let Some(index) = index {
            // Its improvement, and where it comes from.
            assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
        }
    }
}

#[tokio::test]
async fn a_release_that_has_to_be_there_first_does_not_go_out_before() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    double.held().faults.full = Some(507);
    let pushing = Pushing::start(address, "required = true\nwait = \"500ms\"").await;
    let page = files(&[("index.html", "one")]);
    let response = pushing.world.deploy("production", &page).await;
    let (status, kind, problem) = problem(response).await;
    assert_eq!((status, kind.as_str()), (504, "not-in-registry"));
    assert!(
        problem["title"].as_str().unwrap().contains("answered 507"),
        "{problem}"
    );
    let rollouts: Value = pushing
        .world
        .get("/v1/rollouts?project=shop&environment=production")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(rollouts, json!([]), "nothing has begun");
    double.held().faults.full = None;
    pushing.until_pushed().await;
    let response = pushing.world.deploy("production", &page).await;
    assert_eq!(response.status(), StatusCode::OK);
    pushing.until_pushed().await;
    assert_eq!(double.tags("team/shop"), ["main-1"]);
}

#[tokio::test]
async fn a_large_blob_goes_in_parts_and_goes_on_where_it_was_cut_off() {
    let double = Double::default();
    let (address, _serving) = double.start().await;
    let pushing = Pushing::start(address, "").await;
    let large = noise(40 * 1024 * 1024);
    let (digest, length) = (sha256(&large), large.len() as u64);
    let taken = pushing.world.part(&digest, 0, length, large.clone()).await;
    assert_eq!(taken.status(), StatusCode::NO_CONTENT);
    let refused = (Method::PATCH, 503, None);
    double.held().faults.refuse.push_back(refused);
    let page = vec![("large.bin".to_owned(), large)];
    let new = deployment("production", &page);
    let response = pushing
        .world
        .post("/v1/projects/shop/deployments", &new)
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    pushing.until_pushed().await;
    assert_eq!(
        double
            .blob("team/shop", &digest)
            .map(|blob| blob.len() as u64),
        Some(length)
    );
    assert_eq!(double.asked("PATCH "), 4, "three parts, and one again");
}
