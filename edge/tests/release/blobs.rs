//! An origin's half of the artifact story: manifests and blobs by digest, with ranges, cuts and a memory of what was asked.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap as HttpHeaders, StatusCode};
use axum::routing::get;
use futures_util::StreamExt;
use helix_routing::artifact::{Descriptor, Encoding, FileEntry, IMPROVEMENT_TYPE};
use helix_routing::id::Digest;
use helix_routing::provenance::bundle::BUNDLE_TYPE;
use helix_service::digest::sha256;

use crate::world::TOKEN;

#[derive(Default)]
pub(crate) struct Blobs {
    blobs: HashMap<String, Vec<u8>>,
    /// What refers to an artifact, by its digest.
    pub(crate) referrers: HashMap<String, Descriptor>,
    /// What says where an artifact comes from, by its digest, newest first.
    pub(crate) bundles: HashMap<String, Vec<Descriptor>>,
    /// Requests by path.
    pub(crate) asked: Vec<String>,
    /// Answers are cut after this many bytes.
    pub(crate) cut: Option<usize>,
}

pub(crate) fn entry(bytes: &[u8], pack: Digest, offset: usize, length: usize) -> FileEntry {
    FileEntry {
        digest: sha256(bytes),
        size: bytes.len() as u64,
        media_type: "text/html; charset=utf-8".to_owned(),
        pack,
        offset: offset as u64,
        length: length as u64,
        encoding: Encoding::Zstd,
        modified: None,
        variants: Vec::new(),
    }
}

impl Blobs {
    pub(crate) fn put(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let digest = sha256(&bytes);
        let size = bytes.len() as u64;
        self.blobs.insert(digest.to_string(), bytes);
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: BTreeMap::new(),
        }
    }
}

pub(crate) async fn serve_origin(
    blobs: Arc<Mutex<Blobs>>,
    addr: SocketAddr,
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let routes = axum::Router::new()
        .route("/v2/{project}/{kind}/{digest}", get(blob))
        .with_state(blobs);
    let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap();
    (
        addr,
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() }),
    )
}

async fn blob(
    State(blobs): State<Arc<Mutex<Blobs>>>,
    UrlPath((_, kind, digest)): UrlPath<(String, String, String)>,
    headers: HttpHeaders,
) -> axum::response::Response {
    let mut blobs = blobs.lock().unwrap();
    let range = headers
        .get("range")
        .map(|range| range.to_str().unwrap().to_owned());
    blobs.asked.push(format!(
        "{kind}/{digest} {}",
        range.clone().unwrap_or_default()
    ));
    let mut response = http::Response::builder();
    if headers
        .get("authorization")
        .is_none_or(|value| value != &format!("Bearer {TOKEN}"))
    {
        return response
            .status(StatusCode::UNAUTHORIZED)
            .body(Vec::new().into())
            .unwrap();
    }
    if kind == "referrers" {
        let described = |one: &Descriptor, kind: &str| {
            serde_json::json!({
                "digest": one.digest, "size": one.size, "mediaType": one.media_type, "artifactType": kind,
            })
        };
        let bundles = blobs.bundles.get(&digest).into_iter().flatten();
        let improvement = blobs.referrers.get(&digest).into_iter();
        let listed: Vec<_> = bundles
            .map(|one| described(one, BUNDLE_TYPE))
            .chain(improvement.map(|one| described(one, IMPROVEMENT_TYPE)))
            .collect();
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": listed });
        return response.body(index.to_string().into()).unwrap();
    }
    let Some(bytes) = blobs.blobs.get(&digest) else {
        return response
            .status(StatusCode::NOT_FOUND)
            .body(Vec::new().into())
            .unwrap();
    };
    let start = range.map_or(0, |range| {
        range["bytes=".len()..]
            .trim_end_matches('-')
            .parse::<usize>()
            .unwrap()
    });
    if start > 0 {
        let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header("content-range", range);
    }
    let rest = bytes[start..].to_vec();
    let Some(cut) = blobs.cut.filter(|cut| *cut < rest.len()) else {
        return response.body(rest.into()).unwrap();
    };
    let sent = futures_util::stream::iter([Ok(rest[..cut].to_vec())]);
    // The server sends what it has while the body makes it wait; an error at once would swallow it.
    let end = futures_util::stream::once(async {
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut"))
    });
    response
        .header("content-length", rest.len())
        .body(axum::body::Body::from_stream(sent.chain(end)))
        .unwrap()
}
