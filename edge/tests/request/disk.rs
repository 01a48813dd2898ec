//! Bodies that lie on disk, in a store that was filled by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use helix_edge::store::{Fetcher, Store};
use helix_edge::table::Serving;
use helix_routing::artifact::{
    BLOB_TYPE, CONFIG_TYPE, Descriptor, Encoding, FileEntry, FileIndex, INDEX_TYPE, MANIFEST_TYPE,
    Manifest, RELEASE_TYPE, ReleaseConfig,
};
use helix_routing::id::{Digest, Generation};
use helix_routing::record::ReleaseRef;
use helix_service::digest::sha256;

use crate::support::{Edge, LIVE, get, site};

const SIZE: usize = 5 * 1024 * 1024 + 17;

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| (at % 253) as u8).collect()
}

/// An edge whose site has one large file, `large.bin`, on disk under `root`.
async fn edge_on(root: &Path) -> (Edge, Digest) {
    let store = Store::open(root, 1024 * 1024).unwrap();
    let large = keep(root, "files", &content());
    let manifest = lay_out(root, &large);
    let release = ReleaseRef {
        release: LIVE.parse().unwrap(),
        artifact: manifest,
    };
    // Everything is there, so nobody is asked for it.
    let fetcher = Fetcher::new("http://127.0.0.1:9", Path::new("/dev/null")).unwrap();
    let release = Arc::new(store.prepare(site(), release, fetcher).await.unwrap());
    let edge = Edge::start();
    edge.table.publish(
        &site(),
        Serving {
            generation: Generation(2),
            live: Some(release),
            kept: Vec::new(),
            counted: Default::default(),
        },
    );
    (edge, large)
}

fn lay_out(root: &Path, large: &Digest) -> Digest {
    let entry = FileEntry {
        digest: large.clone(),
        size: SIZE as u64,
        media_type: "application/octet-stream".to_owned(),
        pack: large.clone(),
        offset: 0,
        length: SIZE as u64,
        encoding: Encoding::Identity,
        modified: None,
        variants: Vec::new(),
    };
    let index = FileIndex {
        version: 1,
        files: BTreeMap::from([("large.bin".to_owned(), entry)]),
    };
    let index = zstd::encode_all(&*serde_json::to_vec(&index).unwrap(), 3).unwrap();
    let config = ReleaseConfig {
        version: 1,
        project: site().project,
        environment: site().environment,
        routes: Default::default(),
    };
    let config = serde_json::to_vec(&config).unwrap();
    let layer = descriptor(BLOB_TYPE, large.clone(), SIZE);
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        artifact_type: Some(RELEASE_TYPE.to_owned()),
        config: descriptor(CONFIG_TYPE, keep(root, "meta", &config), config.len()),
        layers: vec![
            descriptor(INDEX_TYPE, keep(root, "meta", &index), index.len()),
            layer,
        ],
        subject: None,
        annotations: BTreeMap::new(),
    };
    keep(root, "meta", &serde_json::to_vec(&manifest).unwrap())
}

fn descriptor(media_type: &str, digest: Digest, size: usize) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: size as u64,
        annotations: BTreeMap::new(),
    }
}

fn keep(root: &Path, folder: &str, bytes: &[u8]) -> Digest {
    let digest = sha256(bytes);
    fs::write(root.join(folder).join(digest.hex()), bytes).unwrap();
    digest
}

#[tokio::test]
async fn a_large_file_is_streamed_from_disk_and_its_bytes_are_its_own() {
    let root = tempfile::tempdir().unwrap();
    let (edge, _) = edge_on(root.path()).await;
    let mut client = edge.client();
    for _ in 0..2 {
        client.send(get("/large.bin"));
        let response = client.response();
        assert_eq!(
            (response.status, response.header("content-type")),
            (200, Some("application/octet-stream"))
        );
        assert!(response.body == content());
    }
    client.send(get("/large.bin").replacen("GET", "HEAD", 1));
    assert_eq!(
        client.head().header("content-length"),
        Some(&*SIZE.to_string())
    );
    client.send(get("/missing"));
    assert_eq!(client.response().status, 404);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_a_500_that_says_little() {
    let root = tempfile::tempdir().unwrap();
    let (edge, large) = edge_on(root.path()).await;
    fs::remove_file(root.path().join("files").join(large.hex())).unwrap();
    let mut client = edge.client();
    client.send(get("/large.bin"));
    let response = client.response();
    assert_eq!(
        (response.status, response.text()),
        (500, "this file cannot be read right now\n")
    );
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("x-helix-release"), Some(LIVE));
    assert_eq!(edge.metrics.bodies_failed.get(), 1);
    client.send(get("/missing"));
    assert_eq!(client.response().status, 404);
}

#[tokio::test]
async fn a_file_cut_short_while_it_is_sent_ends_the_connection_and_not_the_body() {
    let root = tempfile::tempdir().unwrap();
    let (edge, large) = edge_on(root.path()).await;
    // Read once, so that its digest is known to be right.
    assert_eq!(edge.get("/large.bin").status, 200);
    let path = root.path().join("files").join(large.hex());
    let mut clients: Vec<_> = (0..3).map(|_| edge.client()).collect();
    for client in &mut clients {
        // Several times what the sockets hold, so that the edge is still reading when the file shrinks.
        client.send(get("/large.bin").repeat(8));
        client.head();
    }
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(100_000)
        .unwrap();
    for client in &mut clients {
        assert!(client.bytes_until_the_end() < SIZE * 8);
    }
    edge.until_idle();
}
