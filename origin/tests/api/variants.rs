//! Contents encoded for clients that accept it, as they lie in a release.

use std::io::Read;

use helix_routing::api::DeploymentView;
use helix_routing::artifact::{
    ContentEncoding, FileEntry, IMPROVEMENT_TYPE, Improvement, Manifest, Variant,
};
use helix_routing::id::Digest;
use helix_service::digest::sha256;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::world::{World, deployment, encoded_frame, files, noise};

/// Text of about `size` bytes that compresses to a third or so, and differs by `seed`.
pub(crate) fn text(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let mut text = Vec::with_capacity(size + 32);
    while text.len() < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(format!("word{} ", (state >> 33) % 4000).as_bytes());
    }
    text
}

/// Bytes of a blob, as an edge fetches them.
pub(crate) async fn bytes(world: &World, pack: &Digest, offset: u64, length: u64) -> Vec<u8> {
    let part = world
        .request(Method::GET, &format!("/v2/shop/blobs/{pack}"))
        .header("range", format!("bytes={offset}-{}", offset + length - 1))
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    part.bytes().await.unwrap().to_vec()
}

/// What a variant's bytes decode to, when they are what its digest says.
async fn decoded(world: &World, variant: &Variant) -> Vec<u8> {
    let encoded = bytes(world, &variant.pack, variant.offset, variant.size).await;
    assert_eq!(sha256(&encoded), variant.digest);
    let mut content = Vec::new();
    let read = match variant.encoding {
        ContentEncoding::Br => brotli::Decompressor::new(&*encoded, 4096).read_to_end(&mut content),
        ContentEncoding::Zstd => zstd::Decoder::new(&*encoded)
            .unwrap()
            .read_to_end(&mut content),
        ContentEncoding::Gzip => flate2::read::GzDecoder::new(&*encoded).read_to_end(&mut content),
    };
    read.unwrap();
    content
}

fn codings(file: &FileEntry) -> Vec<ContentEncoding> {
    let mut codings: Vec<_> = file
        .variants
        .iter()
        .map(|variant| variant.encoding)
        .collect();
    codings.sort();
    codings
}

const ALL: [ContentEncoding; 3] = [
    ContentEncoding::Br,
    ContentEncoding::Zstd,
    ContentEncoding::Gzip,
];

#[tokio::test]
async fn text_has_variants_that_decode_to_it_and_pictures_and_little_files_have_none() {
    let world = World::start().await;
    let (page, noise) = (text(1, 20_000), noise(20_000));
    let site = vec![
        ("index.html".to_owned(), page.clone()),
        ("copy.js".to_owned(), page.clone()),
        ("page.png".to_owned(), page.clone()),
        ("noise.txt".to_owned(), noise),
        ("little.txt".to_owned(), text(2, 500)),
    ];
    let mut upload = Vec::new();
    for (_, content) in &site {
        upload.extend(encoded_frame(content));
    }
    assert_eq!(world.pack("shop", upload).await.status(), 204);
    let made = world
        .post(
            "/v1/projects/shop/deployments",
            &deployment("production", &site),
        )
        .await;
    let view: DeploymentView = made.json().await.unwrap();
    let index = world.app.artifacts.index(&view.artifact).await.unwrap();
    for path in ["index.html", "copy.js"] {
        let file = &index.files[path];
        assert_eq!(codings(file), ALL, "{path}");
        for variant in &file.variants {
            assert!(variant.size < 10_000, "{variant:?}");
            assert_eq!(decoded(&world, variant).await, page);
        }
    }
    for path in ["page.png", "noise.txt", "little.txt"] {
        assert_eq!(codings(&index.files[path]), [], "{path}");
    }
}

#[tokio::test]
async fn a_large_content_has_variants_of_its_own() {
    let world = World::start().await;
    let script = text(3, 3_000_000);
    let digest = sha256(&script);
    let sent = world
        .part(&digest, 0, script.len() as u64, script.clone())
        .await;
    assert_eq!(sent.status(), StatusCode::NO_CONTENT);
    let site = vec![("app.js".to_owned(), script.clone())];
    let view: DeploymentView = world
        .post(
            "/v1/projects/shop/deployments",
            &deployment("production", &site),
        )
        .await
        .json()
        .await
        .unwrap();
    let index = world.app.artifacts.index(&view.artifact).await.unwrap();
    let file = &index.files["app.js"];
    // It was sent as it is, so there is no frame to send on.
    assert_eq!(codings(file), [ContentEncoding::Br, ContentEncoding::Gzip]);
    for variant in &file.variants {
        assert_eq!(decoded(&world, variant).await, script);
    }
}

#[tokio::test]
async fn variants_are_made_once_and_files_keep_the_date_they_were_first_seen() {
    let world = World::start().await;
    let page = String::from_utf8(text(4, 5_000)).unwrap();
    let first = files(&[("index.html", &page)]);
    let second = files(&[("index.html", &page), ("more.html", "more")]);
    let mut seen = Vec::new();
    for site in [&first, &second] {
        let view: DeploymentView = world.deploy("production", site).await.json().await.unwrap();
        let index = world.app.artifacts.index(&view.artifact).await.unwrap();
        let file = index.files["index.html"].clone();
        assert!(file.modified.is_some_and(|at| at > 1_700_000_000));
        seen.push((file.modified, file.variants));
    }
    assert_eq!(seen[0], seen[1]);
    assert!(!seen[0].1.is_empty());
}

#[tokio::test]
async fn a_settled_release_is_improved_once_and_the_improvement_refers_to_it() {
    let world = World::start().await;
    let page = text(5, 30_000);
    let site = vec![("index.html".to_owned(), page.clone())];
    let view: DeploymentView = world
        .deploy("production", &site)
        .await
        .json()
        .await
        .unwrap();
    let artifacts = &world.app.artifacts;
    assert!(!artifacts.improve_next().await.unwrap(), "nothing settled");
    settle(&world, &view).await;
    assert!(artifacts.improve_next().await.unwrap());
    assert!(!artifacts.improve_next().await.unwrap(), "it is improved");

    let referrers = format!(
        "/v2/shop/referrers/{}?artifactType={IMPROVEMENT_TYPE}",
        view.artifact
    );
    let answer = world.get(&referrers).await;
    assert_eq!(answer.headers()["oci-filters-applied"], "artifactType");
    let listed: Value = answer.json().await.unwrap();
    let digest = listed["manifests"][0]["digest"].as_str().unwrap();
    let manifest: Manifest = world
        .get(&format!("/v2/shop/manifests/{digest}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(manifest.subject.unwrap().digest, view.artifact);
    let list = world
        .get(&format!("/v2/shop/blobs/{}", manifest.layers[0].digest))
        .await
        .bytes()
        .await
        .unwrap();
    let list: Improvement = serde_json::from_slice(&zstd::decode_all(&*list).unwrap()).unwrap();
    let index = artifacts.index(&view.artifact).await.unwrap();
    let quick = &index.files["index.html"].variants;
    let slow = &list.variants[&sha256(&page)];
    assert!(!slow.is_empty());
    for variant in slow {
        assert_eq!(decoded(&world, variant).await, page);
        let before = quick.iter().find(|one| one.encoding == variant.encoding);
        assert!(before.is_none_or(|before| variant.size < before.size));
        assert!(
            manifest
                .layers
                .iter()
                .any(|layer| layer.digest == variant.pack)
        );
    }

    let other: Value = world
        .get(&format!(
            "/v2/shop/referrers/{}?artifactType=other",
            view.artifact
        ))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(other["manifests"], serde_json::json!([]));
}

/// As the rollout's machine would note it.
pub(crate) async fn settle(world: &World, view: &DeploymentView) {
    settle_all(world).await;
    assert_eq!(view.site.to_string(), "shop/production");
}

/// Says of every release that it is live and settled.
pub(crate) async fn settle_all(world: &World) {
    let mut tx = world.app.store.write().await.unwrap();
    for statement in [
        "UPDATE rollouts SET outcome = 'settled'",
        "INSERT INTO region_sites (site, region, settled, settled_artifact)
         SELECT site, 'fra', release_id, artifact FROM releases WHERE true
         ON CONFLICT (site, region) DO UPDATE SET settled = excluded.settled",
    ] {
        sqlx::query(statement).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
}
