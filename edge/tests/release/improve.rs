//! Improvements: taken up when every variant decodes to its content, refused otherwise, and kept over a restart.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use helix_edge::release::{Body, Release};
use helix_edge::store::{Fetcher, PrepareError, Store};
use helix_routing::artifact::*;
use helix_routing::id::SiteId;
use helix_routing::record::ReleaseRef;
use helix_service::digest::sha256;
use tempfile::TempDir;

use crate::blobs::{Blobs, entry, serve_origin};
use crate::world::{SITE, TOKEN};

struct Shop {
    folder: TempDir,
    blobs: Arc<Mutex<Blobs>>,
    fetcher: Fetcher,
    server: tokio::task::JoinHandle<()>,
    release: ReleaseRef,
    page: Vec<u8>,
}

impl Shop {
    /// An origin with a release of one page.
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        let blobs: Arc<Mutex<Blobs>> = Arc::default();
        let (address, server) =
            serve_origin(Arc::clone(&blobs), "127.0.0.1:0".parse().unwrap()).await;
        let fetcher =
            Fetcher::new(&format!("http://{address}"), &folder.path().join("token")).unwrap();
        let page = b"a page, a page, a page\n".repeat(400);
        let release = publish(&mut blobs.lock().unwrap(), &page);
        Self {
            folder,
            blobs,
            fetcher,
            server,
            release,
            page,
        }
    }

    fn store(&self) -> Arc<Store> {
        Store::open(&self.folder.path().join("store"), 1024 * 1024).unwrap()
    }

    async fn prepare(&self, store: &Arc<Store>) -> Release {
        let prepared =
            Arc::clone(store).prepare(site(), self.release.clone(), self.fetcher.clone());
        Box::pin(prepared).await.unwrap()
    }

    async fn improve(&self, store: &Arc<Store>) -> Result<bool, PrepareError> {
        let improved =
            Arc::clone(store).improve(site(), self.release.clone(), self.fetcher.clone());
        Box::pin(improved).await
    }

    /// Offers `encoded` as the gzip variant of the page.
    fn offer(&self, encoded: &[u8]) {
        let mut blobs = self.blobs.lock().unwrap();
        let pack = blobs.put(PACK_TYPE, [b"before", encoded].concat());
        let variant = Variant {
            encoding: ContentEncoding::Gzip,
            digest: sha256(encoded),
            size: encoded.len() as u64,
            pack: pack.digest.clone(),
            offset: 6,
        };
        let list = Improvement {
            version: 1,
            variants: BTreeMap::from([(sha256(&self.page), vec![variant])]),
        };
        let list = zstd::encode_all(&*serde_json::to_vec(&list).unwrap(), 3).unwrap();
        let artifact = &self.release.artifact;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: Some(IMPROVEMENT_TYPE.to_owned()),
            config: blobs.put(EMPTY_TYPE, EMPTY_CONFIG.to_vec()),
            layers: vec![blobs.put(VARIANTS_TYPE, list), pack],
            subject: Some(Descriptor {
                media_type: MANIFEST_TYPE.to_owned(),
                digest: artifact.clone(),
                size: 1,
                annotations: BTreeMap::new(),
            }),
            annotations: BTreeMap::new(),
        };
        let manifest = blobs.put(MANIFEST_TYPE, serde_json::to_vec(&manifest).unwrap());
        blobs.referrers.insert(artifact.to_string(), manifest);
    }
}

fn site() -> SiteId {
    SITE.parse().unwrap()
}

fn publish(blobs: &mut Blobs, page: &[u8]) -> ReleaseRef {
    let encoded = zstd::encode_all(page, 3).unwrap();
    let length = encoded.len();
    let pack = blobs.put(PACK_TYPE, encoded);
    let index = FileIndex {
        version: 1,
        files: BTreeMap::from([(
            "index.html".to_owned(),
            entry(page, pack.digest.clone(), 0, length),
        )]),
    };
    let index = zstd::encode_all(&*serde_json::to_vec(&index).unwrap(), 3).unwrap();
    let config = ReleaseConfig {
        version: 1,
        project: site().project,
        environment: site().environment,
        routes: Default::default(),
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        artifact_type: Some(RELEASE_TYPE.to_owned()),
        config: blobs.put(CONFIG_TYPE, serde_json::to_vec(&config).unwrap()),
        layers: vec![blobs.put(INDEX_TYPE, index), pack],
        subject: None,
        annotations: BTreeMap::new(),
    };
    let artifact = blobs
        .put(MANIFEST_TYPE, serde_json::to_vec(&manifest).unwrap())
        .digest;
    ReleaseRef {
        release: artifact.hex()[..20].parse().unwrap(),
        artifact,
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(9));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The bytes of the page in each coding there is.
async fn sent(release: &Release) -> BTreeMap<Option<ContentEncoding>, Vec<u8>> {
    let file = release.file("index.html").unwrap();
    let mut sent = BTreeMap::new();
    for representation in &file.representations {
        let body = match release.body(representation).await.unwrap() {
            Body::Memory(bytes) => bytes.to_vec(),
            Body::Disk { .. } => unreachable!("it is small"),
        };
        sent.insert(representation.encoding, body);
    }
    sent
}

#[tokio::test]
async fn an_improvement_is_taken_up_and_kept_without_origin() {
    let shop = Shop::open().await;
    let store = shop.store();
    let before = shop.prepare(&store).await;
    assert!(!shop.improve(&store).await.unwrap(), "there is none yet");
    let encoded = gzip(&shop.page);
    shop.offer(&encoded);
    assert!(shop.improve(&store).await.unwrap());
    let better = shop.prepare(&store).await;
    assert_eq!(better.id, before.id);
    let expected = BTreeMap::from([
        (None, shop.page.clone()),
        (Some(ContentEncoding::Gzip), encoded),
    ]);
    assert_eq!(sent(&better).await, expected);
    assert_eq!(
        sent(&before).await.len(),
        1,
        "what is in flight stays as it is"
    );

    // What is held is not collected, also not the note of it.
    store.sweep(&[]).unwrap();
    shop.server.abort();
    let again = shop.prepare(&shop.store()).await;
    assert_eq!(sent(&again).await, expected);
}

#[tokio::test]
async fn a_variant_that_decodes_to_something_else_is_never_offered() {
    let shop = Shop::open().await;
    let store = shop.store();
    let bomb = gzip(&vec![b'x'; 3_000_000]);
    for hostile in [gzip(b"another page"), b"no gzip at all".to_vec(), bomb] {
        shop.offer(&hostile);
        let refused = shop.improve(&store).await.unwrap_err();
        assert!(
            matches!(refused, PrepareError::Content { .. }),
            "{}",
            refused.reason()
        );
        assert_eq!(sent(&shop.prepare(&store).await).await.len(), 1);
    }
}

#[tokio::test]
async fn an_improvement_of_another_artifact_is_refused() {
    let shop = Shop::open().await;
    let store = shop.store();
    shop.offer(&gzip(&shop.page));
    let other = publish(
        &mut shop.blobs.lock().unwrap(),
        b"another release, the same site",
    );
    {
        let mut blobs = shop.blobs.lock().unwrap();
        let improvement = blobs.referrers[&shop.release.artifact.to_string()].clone();
        blobs
            .referrers
            .insert(other.artifact.to_string(), improvement);
    }
    let improved = Arc::clone(&store).improve(site(), other, shop.fetcher.clone());
    let refused = Box::pin(improved).await.unwrap_err();
    assert!(matches!(refused, PrepareError::Invalid { .. }));
}
