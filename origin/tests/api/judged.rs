//! Debian's `docker-registry` takes releases, and `skopeo` pulls them from there. It has no referrers API, and a cache that goes on saying
//! that blobs are there which are not.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use helix_routing::artifact::Manifest;
use serde_json::json;
use tempfile::TempDir;

use crate::remote::Pushing;
use crate::running::Running;
use crate::variants::settle;

/// User and password of the registry, as its file of credentials has them: `secret`, by bcrypt.
const USERS: &str = "ci:$2b$05$ECd4HYR9.FXaaVUyj0A8QOboP.fvf1WsXvmRc2dvZXqFny2fFB29O\n";
const CREDENTIALS: &str = "ci:secret";

/// The registry, which ends with this.
struct Judge {
    _running: Running,
    folder: TempDir,
    address: String,
}

impl Judge {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("users"), USERS).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{ level: info }}\nstorage:\n  cache: {{ blobdescriptor: inmemory }}\n  filesystem: {{ rootdirectory: {:?} }}\n\
             http: {{ addr: '127.0.0.1:0', secret: none }}\nauth:\n  htpasswd: {{ realm: judge, path: {:?} }}\n",
            path("data"),
            path("users"),
        );
        std::fs::write(path("config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(path("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| {
                let (_, rest) = line.split_once("listening on ")?;
                let end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ':'));
                Some(rest[..end.unwrap_or(rest.len())].to_owned())
            })
            .unwrap();
        // It must not wait for somebody to read what it logs.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            _running: Running(child),
            folder,
            address,
        }
    }

    fn blob(&self, hex: &str) -> std::path::PathBuf {
        let blobs = self
            .folder
            .path()
            .join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("skopeo").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo: {said}");
    output.stdout
}

#[expect(clippy::print_stderr, reason = "the only word a skipped test has")]
fn is_there(program: &str, argument: &str) -> bool {
    let is_there = Command::new(program).arg(argument).output().is_ok();
    if !is_there {
        eprintln!("skipped: {program} is not installed");
    }
    is_there
}

#[tokio::test]
async fn docker_registry_takes_releases_and_skopeo_pulls_them() {
    if !is_there("docker-registry", "--version") || !is_there("skopeo", "--version") {
        return;
    }
    let judge = Judge::start();
    let credentials = judge.folder.path().join("credentials");
    std::fs::write(&credentials, CREDENTIALS).unwrap();
    let more = format!("credentials = {credentials:?}");
    let pushing = Pushing::start(judge.address.parse().unwrap(), &more).await;
    let view = pushing.deploy(&"a word and another ".repeat(2000)).await;
    pushing.until_pushed().await;

    let source = format!("docker://{}/team/shop:main-1", judge.address);
    let raw = skopeo(&[
        "inspect",
        "--tls-verify=false",
        "--creds",
        CREDENTIALS,
        "--raw",
        &source,
    ]);
    let ours = pushing
        .world
        .get(&format!("/v2/shop/manifests/{}", view.artifact))
        .await;
    assert_eq!(ours.bytes().await.unwrap(), raw, "byte for byte");
    let target = pushing.world.folder.path().join("pulled");
    let layout = format!("oci:{}:release", target.display());
    let from = ["copy", "--src-tls-verify=false", "--src-creds", CREDENTIALS];
    skopeo(&[&from[..], &[&source, &layout]].concat());
    let manifest: Manifest = serde_json::from_slice(&raw).unwrap();
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        let pulled = read(&target.join("blobs/sha256").join(blob.digest.hex()));
        assert_eq!(pulled, read(&pushing.layout(&blob.digest)));
    }

    // Referrers, in the index under their subject's tag: its improvement, and where it comes from.
    settle(&pushing.world, &view).await;
    assert!(pushing.world.app.artifacts.improve_next().await.unwrap());
    pushing.until_pushed().await;
    let index = format!(
        "docker://{}/team/shop:sha256-{}",
        judge.address,
        view.artifact.hex()
    );
    let index = skopeo(&[
        "inspect",
        "--tls-verify=false",
        "--creds",
        CREDENTIALS,
        "--raw",
        &index,
    ]);
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");

    // It loses a blob, and does not know it.
    let lost = &manifest.layers[0].digest;
    std::fs::remove_file(judge.blob(lost.hex())).unwrap();
    let found = pushing.verify(&view, true).await;
    assert_eq!(found["registry"]["lost"], json!([lost]), "{found}");
    pushing.until_pushed().await;
    assert!(judge.blob(lost.hex()).exists());
    // Origin loses it.
    std::fs::remove_file(pushing.layout(lost)).unwrap();
    let found = pushing.verify(&view, false).await;
    assert_eq!(found["mended"], json!([lost]), "{found}");
    assert_eq!(found["registry"]["lost"], json!([]), "{found}");
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
