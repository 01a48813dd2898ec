//! The command against an origin that misbehaves on purpose: cuts uploads off, breaks event streams, refuses.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path as Segments, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, head, post};
use axum::{Json, Router};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::process::Command;

/// Nothing here takes longer.
const LIMIT: Duration = Duration::from_secs(60);
const RELEASE: &str = "00112233445566778899";
const ROLLOUT: &str = "00112233445566aa";

#[derive(Default)]
struct Fake {
    /// How the rollout ends; none: it does not.
    outcome: Option<&'static str>,
    /// Event streams that break before the end.
    broken_streams: usize,
    /// Packs answered with 503 first.
    refused_packs: usize,
    /// The next chunk arrives by half, and its answer is lost.
    cut_chunk: bool,
    /// Every call is refused.
    refuse: bool,
    have: BTreeMap<String, Vec<u8>>,
    partial: Vec<u8>,
    packs: usize,
    deployment: Option<Value>,
    keys: Vec<String>,
    streams: usize,
}

type Shared = Arc<Mutex<Fake>>;

fn problem(status: StatusCode, kind: &str, title: &str, detail: &str) -> Response {
    let body = json!({"type": kind, "title": title, "status": status.as_u16(), "detail": detail});
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        body.to_string(),
    )
        .into_response()
}

async fn uploads(State(fake): State<Shared>, Json(body): Json<Value>) -> Response {
    let fake = fake.lock().unwrap();
    if fake.refuse {
        return problem(
            StatusCode::FORBIDDEN,
            "forbidden",
            "the token may not deploy",
            "it has the role \x1b[31mread",
        );
    }
    let missing = body["contents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|content| !fake.have.contains_key(content["digest"].as_str().unwrap()));
    let (large, small): (Vec<&Value>, Vec<&Value>) =
        missing.partition(|content| content["size"].as_u64().unwrap() >= 1 << 20);
    let packed: Vec<&Value> = small.iter().map(|content| &content["digest"]).collect();
    let standalone: Vec<Value> = large
        .iter()
        .map(|content| json!({"digest": content["digest"], "offset": fake.partial.len()}))
        .collect();
    Json(json!({"packed": packed, "standalone": standalone})).into_response()
}

async fn packs(State(fake): State<Shared>, body: Bytes) -> Response {
    let mut fake = fake.lock().unwrap();
    if fake.refused_packs > 0 {
        fake.refused_packs -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    fake.packs += 1;
    let mut rest = &body[..];
    while !rest.is_empty() {
        let digest = format!("sha256:{}", hex::encode(&rest[..32]));
        let length = u32::from_be_bytes(rest[33..37].try_into().unwrap()) as usize;
        let bytes = &rest[37..37 + length];
        let content = if rest[32] == 1 {
            zstd::decode_all(bytes).unwrap()
        } else {
            bytes.to_vec()
        };
        assert_eq!(helix_service::digest::sha256(&content).as_str(), digest);
        fake.have.insert(digest, content);
        rest = &rest[37 + length..];
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn offset(State(fake): State<Shared>) -> Response {
    (
        StatusCode::NO_CONTENT,
        [(
            "upload-offset",
            fake.lock().unwrap().partial.len().to_string(),
        )],
    )
        .into_response()
}

async fn patch(
    State(fake): State<Shared>,
    Segments((_, digest)): Segments<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut fake = fake.lock().unwrap();
    let number = |name: &str| headers[name].to_str().unwrap().parse::<usize>().unwrap();
    let here = fake.partial.len();
    if number("upload-offset") != here {
        return (StatusCode::CONFLICT, [("upload-offset", here.to_string())]).into_response();
    }
    if std::mem::take(&mut fake.cut_chunk) {
        fake.partial.extend(&body[..body.len() / 2]);
        return StatusCode::BAD_GATEWAY.into_response();
    }
    fake.partial.extend(&body);
    if fake.partial.len() == number("upload-length") {
        let encoded = fake.partial.clone();
        let content = if headers["upload-encoding"] == "zstd" {
            zstd::decode_all(&encoded[..]).unwrap()
        } else {
            encoded
        };
        assert_eq!(helix_service::digest::sha256(&content).as_str(), digest);
        fake.have.insert(digest, content);
    }
    (
        StatusCode::NO_CONTENT,
        [("upload-offset", fake.partial.len().to_string())],
    )
        .into_response()
}

async fn deployments(
    State(fake): State<Shared>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Json<Value> {
    let mut fake = fake.lock().unwrap();
    fake.keys
        .push(headers["idempotency-key"].to_str().unwrap().to_owned());
    fake.deployment = Some(body);
    Json(json!({
        "number": 1, "label": "main/1", "site": "shop/production", "release": RELEASE,
        "artifact": format!("sha256:{}", "ab".repeat(32)), "rollout": ROLLOUT,
        "url": "http://shop.helix.localhost:8081/", "release_url": "http://x.preview.shop.helix.localhost:8081/", "held": [],
    }))
}

fn view(outcome: Option<&str>) -> String {
    let phase = if outcome.is_some() {
        "stable"
    } else {
        "preparing"
    };
    json!({
        "rollout": ROLLOUT, "site": "shop/production", "kind": "deploy", "by": "ana", "revision": 1, "started": 1, "changed": 2,
        "outcome": outcome,
        "regions": [{"region": "fra", "release": RELEASE, "phase": phase, "generation": 1, "required": ["fra-1"], "done": [], "reason": null}],
    })
    .to_string()
}

/// Says where the rollout is, then ends it, breaks off, or falls silent.
async fn events(State(fake): State<Shared>) -> Response {
    let mut fake = fake.lock().unwrap();
    fake.streams += 1;
    let mut text = format!("event: rollout\ndata: {}\n\n", view(None));
    let mut silent = false;
    if fake.broken_streams > 0 {
        fake.broken_streams -= 1;
        text.push_str("event: rollout\nda");
    } else if let Some(outcome) = fake.outcome {
        text.push_str(&format!(
            "event: rollout\ndata: {}\n\n",
            view(Some(outcome))
        ));
    } else {
        silent = true;
    }
    let first = stream::iter([Ok::<_, Infallible>(text)]);
    let rest = stream::unfold(silent, async |silent| {
        if silent {
            std::future::pending().await
        } else {
            None
        }
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// Starts a fake; its address, and what it saw.
async fn start(fake: Fake) -> (String, Shared) {
    let shared = Arc::new(Mutex::new(fake));
    let router = Router::new()
        .route("/v1/projects/{project}/uploads", post(uploads))
        .route(
            "/v1/projects/{project}/packs",
            post(packs).layer(axum::extract::DefaultBodyLimit::disable()),
        )
        .route(
            "/v1/projects/{project}/blobs/{digest}",
            head(offset)
                .patch(patch)
                .layer(axum::extract::DefaultBodyLimit::disable()),
        )
        .route("/v1/projects/{project}/deployments", post(deployments))
        .route("/v1/rollouts/{rollout}/events", get(events))
        .with_state(Arc::clone(&shared));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (api, shared)
}

fn helix(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_helix"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for name in [
        "HELIX_API",
        "HELIX_TOKEN",
        "HELIX_PROJECT",
        "XDG_CONFIG_HOME",
    ] {
        command.env_remove(name);
    }
    command
}

async fn finish(mut command: Command) -> Output {
    tokio::time::timeout(LIMIT, command.output())
        .await
        .expect("the command ends")
        .unwrap()
}

async fn deploy(api: &str, folder: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = helix(&["deploy", folder.to_str().unwrap(), "--project", "shop"]);
    command
        .args(more)
        .env("HELIX_API", api)
        .env("HELIX_TOKEN", "secret-token");
    read(finish(command).await)
}

fn read(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), "hello ".repeat(100)).unwrap();
    fs::write(folder.path().join("copy.html"), "hello ".repeat(100)).unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    folder
}

#[tokio::test]
async fn of_a_prebuilt_project_its_output_is_deployed_and_nothing_else() {
    let (api, fake) = start(Fake {
        outcome: Some("settled"),
        ..Fake::default()
    })
    .await;
    let project = tempfile::tempdir().unwrap();
    let manifest = r#"{"scripts": {"build": "x"}, "devDependencies": {"vite": "7"}}"#;
    fs::write(project.path().join("package.json"), manifest).unwrap();
    let (code, _, stderr) = deploy(&api, project.path(), &["--prebuilt"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no output"), "{stderr}");
    fs::create_dir(project.path().join("dist")).unwrap();
    fs::write(project.path().join("dist/index.html"), "hello").unwrap();
    let (code, _, stderr) = deploy(&api, project.path(), &["--prebuilt"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let files = fake.lock().unwrap().deployment.as_ref().unwrap()["files"].clone();
    assert_eq!(files.as_array().unwrap().len(), 1);
    assert_eq!(files[0]["path"], "index.html");
}

#[tokio::test]
async fn only_what_is_missing_is_sent_and_standard_output_is_the_url() {
    let (api, fake) = start(Fake {
        outcome: Some("settled"),
        refused_packs: 2,
        ..Fake::default()
    })
    .await;
    let site = site();
    let (code, stdout, stderr) = deploy(&api, site.path(), &[]).await;
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "http://shop.helix.localhost:8081/\n"),
        "{stderr}"
    );
    assert!(
        stderr.contains("uploaded 2 of 3 files") && stderr.contains("fra"),
        "{stderr}"
    );
    assert_eq!(
        fake.lock().unwrap().deployment.as_ref().unwrap()["files"]
            .as_array()
            .unwrap()
            .len(),
        3
    );

    fs::write(site.path().join("index.html"), "changed").unwrap();
    let (code, stdout, stderr) = deploy(&api, site.path(), &["--json"]).await;
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &summary["uploaded_files"]),
        (Some(0), &json!(1)),
        "{stderr}"
    );
    assert_eq!(
        (&summary["outcome"], &summary["release"]),
        (&json!("settled"), &json!(RELEASE))
    );
    assert_eq!(fake.lock().unwrap().packs, 2);
}

#[tokio::test]
async fn a_large_file_goes_on_where_the_line_broke() {
    let (api, fake) = start(Fake {
        outcome: Some("settled"),
        cut_chunk: true,
        ..Fake::default()
    })
    .await;
    let site = site();
    let noise: Vec<u8> = (0..20_000_000).map(|_| rand::random()).collect();
    fs::write(site.path().join("film"), &noise).unwrap();
    let (code, _, stderr) = deploy(&api, site.path(), &[]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        fake.lock()
            .unwrap()
            .have
            .values()
            .any(|content| *content == noise)
    );
}

#[tokio::test]
async fn a_stream_that_breaks_is_taken_up_again_and_every_outcome_has_its_code() {
    for (outcome, expected) in [
        ("settled", 0),
        ("went-back", 2),
        ("aborted", 3),
        ("superseded", 5),
        ("needs-operator", 6),
    ] {
        let (api, fake) = start(Fake {
            outcome: Some(outcome),
            broken_streams: 2,
            ..Fake::default()
        })
        .await;
        let (code, stdout, stderr) = deploy(&api, site().path(), &[]).await;
        assert_eq!(code, Some(expected), "{outcome}: {stderr}");
        assert_eq!(stdout.is_empty(), expected != 0, "{stdout}");
        assert_eq!(fake.lock().unwrap().streams, 3);
    }
}

#[tokio::test]
async fn ctrl_c_leaves_the_rollout_running_and_says_how_to_watch_it() {
    let (api, fake) = start(Fake::default()).await;
    let site = site();
    let mut command = helix(&["deploy", site.path().to_str().unwrap(), "--project", "shop"]);
    let child = command
        .env("HELIX_API", &api)
        .env("HELIX_TOKEN", "secret-token")
        .spawn()
        .unwrap();
    let process = nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    tokio::time::timeout(LIMIT, async {
        while fake.lock().unwrap().streams == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGINT).unwrap();
    let (code, stdout, stderr) = read(
        tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .unwrap()
            .unwrap(),
    );
    assert_eq!((code, stdout.as_str()), (Some(4), ""), "{stderr}");
    assert!(
        stderr.contains(&format!("helix rollout watch {ROLLOUT}")),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_refusal_is_shown_by_title_and_detail_and_never_a_secret() {
    let (api, _fake) = start(Fake {
        refuse: true,
        ..Fake::default()
    })
    .await;
    let (code, stdout, stderr) = deploy(&api, site().path(), &[]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains("the token may not deploy") && stderr.contains("it has the role"),
        "{stderr}"
    );
    assert!(
        !stderr.contains("secret-token") && !stderr.contains('\x1b') && !stderr.contains('{'),
        "{stderr}"
    );
}

#[tokio::test]
async fn nothing_is_sent_of_a_folder_that_cannot_be_deployed() {
    let (api, fake) = start(Fake::default()).await;
    let site = site();
    std::os::unix::fs::symlink("/etc/hostname", site.path().join("out")).unwrap();
    let (code, _, stderr) = deploy(&api, site.path(), &[]).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("\"out\" is a link out of the folder, to /etc/hostname"),
        "{stderr}"
    );
    assert_eq!(fake.lock().unwrap().packs, 0);
}

#[tokio::test]
async fn mistakes_end_with_one_and_say_what_would_help() {
    let here = tempfile::tempdir().unwrap();
    let mut command = helix(&["status"]);
    command.current_dir(here.path()).env("HOME", here.path());
    let (code, _, stderr) = read(finish(command).await);
    assert_eq!(code, Some(1));
    for word in ["--api", "HELIX_API", "helix dev", "helix login"] {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
    for arguments in [
        &["deploy"][..],
        &["nothing"],
        &["deploy", ".", "--project", "Shop"],
        &["rollback", "xyz", "--project", "a"],
    ] {
        let (code, _, stderr) = read(finish(helix(arguments)).await);
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
    }
    assert_eq!(finish(helix(&["--help"])).await.status.code(), Some(0));
}

#[tokio::test]
async fn the_nearest_dev_file_says_where_origin_is() {
    let (api, _fake) = start(Fake {
        outcome: Some("settled"),
        ..Fake::default()
    })
    .await;
    let site = site();
    let here = site.path().join("a/b");
    fs::create_dir_all(&here).unwrap();
    fs::create_dir(site.path().join(".helix")).unwrap();
    fs::write(
        site.path().join(".helix/dev.json"),
        json!({"api": api, "token": "t", "console": null}).to_string(),
    )
    .unwrap();
    let mut command = helix(&["deploy", "../..", "--project", "shop", "--detach"]);
    command.current_dir(&here);
    let (code, stdout, stderr) = read(finish(command).await);
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "http://shop.helix.localhost:8081/\n"),
        "{stderr}"
    );
}
