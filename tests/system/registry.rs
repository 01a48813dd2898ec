//! The pull half of the OCI distribution API, judged by a client that is not ours.

use std::process::Command;

use helix_tests::fleet::Fleet;
use helix_tests::folder::Folder;
use helix_tests::skipped;

#[test]
fn skopeo_inspects_and_copies_a_release() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        skipped("skopeo is not installed");
        return;
    }
    let fleet = Fleet::shared();
    let release = fleet.deploy("pulled", &Folder::page("pulled").with("a.txt", b"a"));
    let artifact = fleet
        .api()
        .releases("pulled")
        .into_iter()
        .find(|view| view.release == release)
        .unwrap()
        .artifact;
    let registry = fleet
        .info
        .api
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let source = format!("docker://{registry}/pulled@{artifact}");
    let inspected = skopeo(&[
        "inspect",
        "--tls-verify=false",
        &token(&fleet),
        "--raw",
        &source,
    ]);
    let manifest: serde_json::Value = serde_json::from_slice(&inspected).unwrap();
    assert_eq!(
        manifest["artifactType"],
        "application/vnd.helixstack.release.v1"
    );

    let target = Folder::empty();
    let layout = format!("oci:{}:release", target.path().display());
    let _ = skopeo(&[
        "copy",
        "--src-tls-verify=false",
        &source_token(&fleet),
        &source,
        &layout,
    ]);
    let copied = std::fs::read(target.path().join("blobs/sha256").join(artifact.hex())).unwrap();
    assert_eq!(copied, inspected, "the manifest was changed on its way");
}

fn token(fleet: &Fleet) -> String {
    format!("--creds=any:{}", fleet.info.token)
}

fn source_token(fleet: &Fleet) -> String {
    format!("--src-creds=any:{}", fleet.info.token)
}

fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("skopeo").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "skopeo: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}
