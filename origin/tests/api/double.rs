//! A double of a registry (OCI distribution-spec 1.1), which can be told to fail as real ones do.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use helix_routing::id::Digest;
use helix_service::digest::sha256;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// What it does wrong.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// The next requests whose method is the first are answered with the second, and the header `Retry-After` if there is a third.
    pub(crate) refuse: VecDeque<(Method, u16, Option<u64>)>,
    /// Every upload is refused with this.
    pub(crate) full: Option<u16>,
    /// Nothing is answered before.
    pub(crate) slow: Duration,
    /// Only who shows this token is let in; it is given out by a realm to who shows `ci:secret`.
    pub(crate) token: Option<String>,
    /// `HEAD` says that every blob is there.
    pub(crate) lies: bool,
    /// The whole is sent to who asks for a part.
    pub(crate) no_ranges: bool,
    /// Whole blobs end after so many bytes.
    pub(crate) cut: Option<usize>,
    /// Blobs have other bytes.
    pub(crate) wrong: bool,
    /// A referrer is taken notice of, and said so.
    pub(crate) referrers: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) faults: Faults,
    pub(crate) blobs: BTreeMap<(String, String), Bytes>,
    pub(crate) manifests: BTreeMap<(String, String), (String, Bytes)>,
    uploads: BTreeMap<u64, Vec<u8>>,
    next: u64,
    /// `METHOD path` of each request, as it was answered: with its status.
    pub(crate) log: Vec<String>,
}

/// The registry. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Double(Arc<Mutex<Held>>);

impl Double {
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap()
    }

    pub(crate) async fn start(&self) -> (SocketAddr, JoinHandle<()>) {
        self.start_at("127.0.0.1:0".parse().unwrap()).await
    }

    /// At an address where it was, or will be.
    pub(crate) async fn start_at(&self, address: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(answer)
            .layer(DefaultBodyLimit::disable())
            .with_state((self.clone(), address));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        (address, serving)
    }

    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        let key = (repository.to_owned(), digest.to_string());
        self.held().blobs.get(&key).cloned()
    }

    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<Value> {
        let key = (repository.to_owned(), reference.to_owned());
        let held = self.held();
        let (_, bytes) = held.manifests.get(&key)?;
        serde_json::from_slice(bytes).ok()
    }

    /// Tags, without those under which referrers are listed.
    pub(crate) fn tags(&self, repository: &str) -> Vec<String> {
        let held = self.held();
        let named = held
            .manifests
            .keys()
            .filter(|(of, reference)| of == repository && !reference.starts_with("sha256"));
        named.map(|(_, reference)| reference.clone()).collect()
    }

    /// Requests that begin so.
    pub(crate) fn asked(&self, begin: &str) -> usize {
        let held = self.held();
        held.log
            .iter()
            .filter(|line| line.starts_with(begin))
            .count()
    }
}

async fn answer(
    State((double, address)): State<(Double, SocketAddr)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let slow = double.held().faults.slow;
    tokio::time::sleep(slow).await;
    let mut held = double.held();
    let response = held
        .refused(&method, &uri, &headers, address)
        .unwrap_or_else(|| held.routed(&method, &uri, &headers, body));
    let line = format!("{method} {} {}", uri.path(), response.status().as_u16());
    held.log.push(line);
    response
}

fn error(status: u16, code: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": "as it\nwas told" }] });
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

impl Held {
    fn refused(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        address: SocketAddr,
    ) -> Option<Response> {
        let shown = headers
            .get("authorization")
            .map(|value| value.to_str().unwrap());
        if let Some(token) = &self.faults.token {
            if uri.path() == "/token" {
                // The base64 of `ci:secret`.
                let is_known = shown == Some("Basic Y2k6c2VjcmV0");
                return Some(if is_known {
                    json!({ "token": token, "expires_in": 300 })
                        .to_string()
                        .into_response()
                } else {
                    error(401, "UNAUTHORIZED")
                });
            }
            if shown != Some(&format!("Bearer {token}")) {
                let realm = format!(
                    "Bearer realm=\"http://{address}/token\",service=\"double\",scope=\"repository:x:pull\""
                );
                let mut response = error(401, "UNAUTHORIZED");
                let headers = response.headers_mut();
                headers.insert("www-authenticate", realm.parse().unwrap());
                return Some(response);
            }
        }
        if self
            .faults
            .refuse
            .front()
            .is_some_and(|(of, ..)| of == method)
        {
            let (_, status, retry_after) = self.faults.refuse.pop_front()?;
            let mut response = error(status, "TOOMANYREQUESTS");
            if let Some(seconds) = retry_after {
                response.headers_mut().insert("retry-after", seconds.into());
            }
            return Some(response);
        }
        let sends = matches!(*method, Method::PUT | Method::PATCH);
        match self.faults.full {
            Some(status) if sends => Some(error(status, "DENIED")),
            Some(_) | None => None,
        }
    }

    fn routed(&mut self, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let Some(path) = uri.path().strip_prefix("/v2/") else {
            return error(404, "NAME_UNKNOWN");
        };
        if let Some((repository, _)) = path.split_once("/blobs/uploads/") {
            let (repository, path) = (repository.to_owned(), path.to_owned());
            return self.uploaded(method, (&repository, &path), &query, body);
        }
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            return self.blob_of(method, (repository, digest), headers);
        }
        if let Some((repository, reference)) = path.split_once("/manifests/") {
            return self.manifest_of(method, (repository, reference), headers, body);
        }
        error(404, "NAME_UNKNOWN")
    }

    fn uploaded(
        &mut self,
        method: &Method,
        (repository, path): (&str, &str),
        query: &BTreeMap<String, String>,
        body: Bytes,
    ) -> Response {
        if *method == Method::POST {
            if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from")) {
                let key = (from.clone(), digest.clone());
                if let Some(blob) = self.blobs.get(&key).cloned() {
                    self.blobs
                        .insert((repository.to_owned(), digest.clone()), blob);
                    return StatusCode::CREATED.into_response();
                }
            }
            self.next += 1;
            self.uploads.insert(self.next, Vec::new());
            return self.at(repository, self.next, StatusCode::ACCEPTED);
        }
        let number: u64 = path.rsplit('/').next().unwrap().parse().unwrap();
        let Some(upload) = self.uploads.get_mut(&number) else {
            return error(404, "BLOB_UPLOAD_UNKNOWN");
        };
        match *method {
            Method::PATCH => {
                upload.extend_from_slice(&body);
                self.at(repository, number, StatusCode::ACCEPTED)
            }
            Method::GET => self.at(repository, number, StatusCode::NO_CONTENT),
            Method::DELETE => {
                self.uploads.remove(&number);
                StatusCode::NO_CONTENT.into_response()
            }
            _ => {
                upload.extend_from_slice(&body);
                let whole = self.uploads.remove(&number).unwrap();
                let digest = sha256(&whole).to_string();
                if query.get("digest") != Some(&digest) {
                    return error(400, "DIGEST_INVALID");
                }
                let key = (repository.to_owned(), digest);
                self.blobs.insert(key, whole.into());
                StatusCode::CREATED.into_response()
            }
        }
    }

    fn at(&self, repository: &str, number: u64, status: StatusCode) -> Response {
        let has = self.uploads[&number].len();
        // With a query, as real ones have it.
        let location = format!("/v2/{repository}/blobs/uploads/{number}?_state=secret");
        let range = format!("0-{}", has.saturating_sub(1));
        (status, [("location", location), ("range", range)]).into_response()
    }

    fn blob_of(
        &self,
        method: &Method,
        (repository, digest): (&str, &str),
        headers: &HeaderMap,
    ) -> Response {
        let key = (repository.to_owned(), digest.to_owned());
        let Some(blob) = self.blobs.get(&key) else {
            let lies = self.faults.lies && *method == Method::HEAD;
            return if lies {
                // Without a length, which it does not know.
                let nothing = futures_util::stream::empty::<Result<Bytes, std::io::Error>>();
                Body::from_stream(nothing).into_response()
            } else {
                error(404, "BLOB_UNKNOWN")
            };
        };
        if *method == Method::HEAD {
            return ([("content-length", blob.len().to_string())], Body::empty()).into_response();
        }
        let mut bytes = blob.to_vec();
        if self.faults.wrong {
            bytes[0] ^= 1;
        }
        let range = headers.get("range").map(|range| range.to_str().unwrap());
        let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        if let Some(from) = from.filter(|_| !self.faults.no_ranges) {
            let from: usize = from.parse().unwrap();
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            let part = bytes.split_off(from);
            return (
                StatusCode::PARTIAL_CONTENT,
                [("content-range", range)],
                part,
            )
                .into_response();
        }
        match self.faults.cut.filter(|_| from.is_none()) {
            Some(cut) => {
                let length = bytes.len();
                bytes.truncate(cut);
                let parts = futures_util::stream::unfold(Some(bytes), |left| async {
                    match left {
                        Some(bytes) if !bytes.is_empty() => Some((Ok(bytes), Some(Vec::new()))),
                        // What was sent is on its way by then.
                        Some(_) => {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            Some((Err(std::io::Error::other("cut")), None))
                        }
                        None => None,
                    }
                });
                let body = Body::from_stream(parts);
                ([("content-length", length.to_string())], body).into_response()
            }
            None => bytes.into_response(),
        }
    }

    fn manifest_of(
        &mut self,
        method: &Method,
        (repository, reference): (&str, &str),
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response {
        let key = (repository.to_owned(), reference.to_owned());
        if *method != Method::PUT {
            return match self.manifests.get(&key) {
                Some((media_type, bytes)) => {
                    let digest = sha256(bytes).to_string();
                    let headers = [
                        ("content-type", media_type.clone()),
                        ("docker-content-digest", digest),
                    ];
                    (headers, bytes.clone()).into_response()
                }
                None => error(404, "MANIFEST_UNKNOWN"),
            };
        }
        let manifest: Value = serde_json::from_slice(&body).unwrap();
        let layers = manifest["layers"].as_array().into_iter().flatten();
        let blobs = layers.chain(manifest.get("config"));
        for blob in blobs {
            let digest = blob["digest"].as_str().unwrap().to_owned();
            if !self.blobs.contains_key(&(repository.to_owned(), digest)) {
                return error(400, "MANIFEST_BLOB_UNKNOWN");
            }
        }
        let media_type = headers["content-type"].to_str().unwrap().to_owned();
        let digest = sha256(&body).to_string();
        let by_digest = (repository.to_owned(), digest.clone());
        self.manifests
            .insert(by_digest, (media_type.clone(), body.clone()));
        self.manifests.insert(key, (media_type, body));
        let mut response =
            (StatusCode::CREATED, [("docker-content-digest", digest)]).into_response();
        if let (true, Some(subject)) = (self.faults.referrers, manifest.get("subject")) {
            let subject = subject["digest"].as_str().unwrap().parse().unwrap();
            response.headers_mut().insert("oci-subject", subject);
        }
        response
    }
}
