//! Uploads through the API itself: cut off, resumed, and lying about their content.

use helix_routing::api::{
    Content, DeploymentView, NewDeployment, NewFile, NewUpload, PACK_UPLOAD_TYPE, UploadPlan,
};
use helix_routing::id::{Digest, Environment};
use helix_routing::rollout::RolloutPolicy;
use helix_service::digest::sha256;
use helix_tests::api::{Api, problem};
use helix_tests::client::Response;
use helix_tests::fleet::{Fleet, REVIVE_LIMIT};
use helix_tests::folder::noise;
use helix_tests::wait;

/// Large enough to stand alone.
const BIG: usize = 3_000_000;

fn plan(api: &Api, project: &str, content: &[u8]) -> UploadPlan {
    let content = Content {
        digest: sha256(content),
        size: content.len() as u64,
    };
    api.create(
        &format!("/v1/projects/{project}/uploads"),
        &NewUpload {
            contents: vec![content],
        },
    )
}

fn patch(
    api: &Api,
    project: &str,
    digest: &Digest,
    offset: usize,
    total: usize,
    bytes: &[u8],
) -> Response {
    let (offset, total) = (offset.to_string(), total.to_string());
    let headers = [
        ("content-type", "application/octet-stream"),
        ("upload-offset", offset.as_str()),
        ("upload-length", total.as_str()),
        ("upload-encoding", "identity"),
    ];
    api.send(
        "PATCH",
        &format!("/v1/projects/{project}/blobs/{digest}"),
        &headers,
        bytes,
    )
    .unwrap()
}

fn deploy(api: &Api, project: &str, content: &[u8]) -> Response {
    let file = NewFile {
        path: "big.bin".to_owned(),
        digest: sha256(content),
        size: content.len() as u64,
    };
    let new = NewDeployment {
        environment: Environment::Production,
        files: vec![file],
        lift_quarantine: false,
        automatic: false,
        rollout: RolloutPolicy::default(),
        at: None,
        in_freeze: Default::default(),
        push_seq: None,
        static_only: false,
    };
    api.post(&format!("/v1/projects/{project}/deployments"), &new)
}

#[test]
fn an_upload_that_was_cut_off_goes_on_where_it_stopped() {
    let fleet = Fleet::shared();
    let api = fleet.api();
    let content = noise(11, BIG);
    let digest = sha256(&content);
    let asked = plan(&api, "up-cut", &content);
    assert_eq!((asked.packed.len(), asked.standalone.len()), (0, 1));
    assert_eq!(asked.standalone[0].offset, 0);

    let half = BIG / 2;
    assert_eq!(
        patch(&api, "up-cut", &digest, 0, BIG, &content[..half]).status,
        204
    );
    let refused = deploy(&api, "up-cut", &content);
    assert!(
        (400..500).contains(&refused.status),
        "half a file was deployed: {}",
        refused.status
    );
    let _ = problem(&refused);

    let offset = plan(&api, "up-cut", &content).standalone[0].offset;
    assert_eq!(offset, half as u64);
    let wrong = patch(&api, "up-cut", &digest, half + 1, BIG, &content[half + 1..]);
    assert!(
        (400..500).contains(&wrong.status),
        "a gap was taken: {}",
        wrong.status
    );
    assert_eq!(
        patch(&api, "up-cut", &digest, half, BIG, &content[half..]).status,
        204
    );
    let done = plan(&api, "up-cut", &content);
    assert_eq!((done.packed.len(), done.standalone.len()), (0, 0));

    let response = deploy(&api, "up-cut", &content);
    assert!(response.status < 300, "{}", response.text());
    let view: DeploymentView = serde_json::from_slice(&response.body).unwrap();
    wait::until_true("it settles", REVIVE_LIMIT, || {
        api.rollout(&view.rollout).outcome.is_some()
    });
    fleet.all_answer(&fleet.host("up-cut"), "/big.bin", 200, Some(&content));
}

#[test]
fn bytes_that_are_not_what_their_digest_says_are_refused() {
    let fleet = Fleet::shared();
    let api = fleet.api();
    let content = noise(12, BIG);
    let digest = sha256(&content);
    let _ = plan(&api, "up-lie", &content);
    let refused = patch(&api, "up-lie", &digest, 0, BIG, &noise(13, BIG));
    assert!((400..500).contains(&refused.status), "{}", refused.status);
    let _ = problem(&refused);
    assert_eq!(
        plan(&api, "up-lie", &content).standalone[0].offset,
        0,
        "the lie was kept"
    );
    assert!((400..500).contains(&deploy(&api, "up-lie", &content).status));
    // The honest bytes are still welcome.
    assert_eq!(patch(&api, "up-lie", &digest, 0, BIG, &content).status, 204);
}

#[test]
fn packs_are_refused_for_wrong_digests_and_torn_frames() {
    let fleet = Fleet::shared();
    let api = fleet.api();
    let _ = plan(&api, "up-pack", b"hello");
    let frame = |digest: &Digest, content: &[u8]| {
        let mut bytes: Vec<u8> = (0..32)
            .map(|at| u8::from_str_radix(&digest.hex()[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        bytes.push(0);
        bytes.extend_from_slice(&u32::try_from(content.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(content);
        bytes
    };
    let send = |bytes: &[u8]| {
        let headers = [("content-type", PACK_UPLOAD_TYPE)];
        api.send("POST", "/v1/projects/up-pack/packs", &headers, bytes)
            .unwrap()
            .status
    };
    let honest = frame(&sha256(b"hello"), b"hello");
    let cases = [
        ("a wrong digest", frame(&sha256(b"hello"), b"jello")),
        ("a torn frame", honest[..honest.len() - 1].to_vec()),
        ("a torn head", honest[..20].to_vec()),
        ("an unknown encoding", {
            let mut bytes = honest.clone();
            bytes[32] = 9;
            bytes
        }),
        ("zstd that is none", {
            let mut bytes = honest.clone();
            bytes[32] = 1;
            bytes
        }),
    ];
    for (what, bytes) in cases {
        let status = send(&bytes);
        assert!((400..500).contains(&status), "{what}: {status}");
    }
    assert_eq!(
        plan(&api, "up-pack", b"hello").packed.len(),
        1,
        "a refused pack was kept"
    );
    assert_eq!(send(&honest), 204);
    assert!(plan(&api, "up-pack", b"hello").packed.is_empty());
}

#[test]
fn paths_that_leave_the_release_are_refused() {
    let fleet = Fleet::shared();
    let api = fleet.api();
    let content = noise(14, BIG);
    let _ = plan(&api, "up-path", &content);
    assert_eq!(
        patch(&api, "up-path", &sha256(&content), 0, BIG, &content).status,
        204
    );
    for path in ["../x", "/x", "a//b", "a/./b", "a\\b", "", "a\u{0}b"] {
        let file = NewFile {
            path: path.to_owned(),
            digest: sha256(&content),
            size: content.len() as u64,
        };
        let new = NewDeployment {
            environment: Environment::Production,
            files: vec![file],
            lift_quarantine: false,
            automatic: false,
            rollout: RolloutPolicy::default(),
            at: None,
            in_freeze: Default::default(),
            push_seq: None,
            static_only: false,
        };
        let response = api.post("/v1/projects/up-path/deployments", &new);
        assert!(
            (400..500).contains(&response.status),
            "{path:?}: {}",
            response.status
        );
    }
}
