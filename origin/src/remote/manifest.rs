//! Manifests and tags in the registry (OCI distribution-spec 1.1), and referrers where it has no API for them.
//!
//! Invariant: a manifest is put under the digest of its bytes before any tag names it. Where the registry does not say that it has taken
//! notice of a `subject`, the index under the subject's tag is kept by origin; it is the only one that writes it, and only adds to it.

use helix_routing::artifact::{MANIFEST_TYPE, MAX_MANIFEST_BYTES, OCI_INDEX_TYPE};
use helix_routing::id::Digest;
use helix_service::digest::sha256;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use super::link::{Link, limited, refusal};
use super::tree::Stored;
use super::{Attempted, RemoteError, attempted};

/// What is accepted of a registry: what origin puts there, no more.
const ACCEPTED: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
const CONTENT_DIGEST: &str = "docker-content-digest";
/// Says that the registry lists the manifest as a referrer of this.
const SUBJECT: &str = "oci-subject";

/// Manifests of one repository.
#[derive(Clone, Copy)]
pub(super) struct Manifests<'a> {
    pub(super) link: &'a Link,
    pub(super) repository: &'a str,
}

impl Manifests<'_> {
    fn attempted(&self, what: &str, reference: &str) -> Attempted {
        attempted(format!("{what} {}:{reference}", self.repository))
    }

    /// Whether a tag or digest names exactly this manifest.
    pub(super) async fn names(
        &self,
        reference: &str,
        digest: &Digest,
    ) -> Result<bool, RemoteError> {
        let attempted = self.attempted("look for", reference);
        let url = self.link.url(self.repository, &["manifests", reference]);
        let response = self
            .link
            .send(&attempted, self.repository, |http| {
                Ok(http.head(url.clone()).header(ACCEPT, ACCEPTED))
            })
            .await?;
        match response.status() {
            StatusCode::OK => {
                let named = response.headers().get(CONTENT_DIGEST);
                Ok(named.is_some_and(|named| named.as_bytes() == digest.as_str().as_bytes()))
            }
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refusal(&attempted, response).await),
        }
    }

    /// The bytes of a manifest, if there is one. They are not compared with anything.
    pub(super) async fn read(&self, reference: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        let attempted = self.attempted("fetch", reference);
        let url = self.link.url(self.repository, &["manifests", reference]);
        let response = self
            .link
            .send(&attempted, self.repository, |http| {
                Ok(http.get(url.clone()).header(ACCEPT, ACCEPTED))
            })
            .await?;
        match response.status() {
            StatusCode::OK => Ok(Some(
                limited(response, MAX_MANIFEST_BYTES, &attempted).await?,
            )),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refusal(&attempted, response).await),
        }
    }

    /// Whether the registry has a referrers API that lists a manifest. What is further down than an answer reaches is not found.
    pub(super) async fn lists(
        &self,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<bool, RemoteError> {
        let attempted = self.attempted("list what refers to", subject.as_str());
        let url = self
            .link
            .url(self.repository, &["referrers", subject.as_str()]);
        let response = self
            .link
            .send(&attempted, self.repository, |http| {
                Ok(http.get(url.clone()).header(ACCEPT, OCI_INDEX_TYPE))
            })
            .await?;
        match response.status() {
            StatusCode::OK => {
                let bytes = limited(response, MAX_MANIFEST_BYTES, &attempted).await?;
                let index: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                let listed = index["manifests"].as_array();
                Ok(listed.is_some_and(|listed| {
                    listed.iter().any(|one| one["digest"] == referrer.as_str())
                }))
            }
            StatusCode::TOO_MANY_REQUESTS => Err(refusal(&attempted, response).await),
            // However registries without the API say so. A refusal of another kind shows when it is put.
            status if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED => {
                Ok(false)
            }
            _ => Err(refusal(&attempted, response).await),
        }
    }

    /// Puts a manifest under its digest, and sees to it that it is found from its subject.
    pub(super) async fn put(&self, stored: &Stored) -> Result<(), RemoteError> {
        let lists = self
            .put_as(
                stored.digest.as_str(),
                &stored.media_type,
                &stored.bytes,
                &stored.digest,
            )
            .await?;
        match &stored.subject {
            Some(subject) if !lists => self.note_referrer(subject, stored).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Lets a tag name a manifest that is there.
    pub(super) async fn tag(&self, tag: &str, stored: &Stored) -> Result<(), RemoteError> {
        if self.names(tag, &stored.digest).await? {
            return Ok(());
        }
        self.put_as(tag, &stored.media_type, &stored.bytes, &stored.digest)
            .await
            .map(drop)
    }

    /// Whether the registry says that it lists the manifest as a referrer.
    async fn put_as(
        &self,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
        digest: &Digest,
    ) -> Result<bool, RemoteError> {
        let attempted = self.attempted("push manifest", reference);
        let url = self.link.url(self.repository, &["manifests", reference]);
        let response = self
            .link
            .send(&attempted, self.repository, |http| {
                Ok(http
                    .put(url.clone())
                    .timeout(self.link.patience(bytes.len() as u64))
                    .header(CONTENT_TYPE, media_type)
                    .body(bytes.to_vec()))
            })
            .await?;
        if !response.status().is_success() {
            return Err(refusal(&attempted, response).await);
        }
        let headers = response.headers();
        if let Some(named) = headers.get(CONTENT_DIGEST)
            && named.as_bytes() != digest.as_str().as_bytes()
        {
            return Err(RemoteError::odd(&attempted, "another digest"));
        }
        Ok(headers.contains_key(SUBJECT))
    }

    /// Adds a manifest to the index under its subject's tag (OCI distribution-spec, referrers tag schema).
    async fn note_referrer(&self, subject: &Digest, stored: &Stored) -> Result<(), RemoteError> {
        let tag = format!("sha256-{}", subject.hex());
        let attempted = self.attempted("list a referrer in", &tag);
        let mut index: Value = match self.read(&tag).await? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|_| RemoteError::odd(&attempted, "something that is no index"))?,
            None => json!({ "schemaVersion": 2, "mediaType": OCI_INDEX_TYPE, "manifests": [] }),
        };
        let listed = index["manifests"]
            .as_array_mut()
            .ok_or_else(|| RemoteError::odd(&attempted, "something that is no index"))?;
        if listed
            .iter()
            .any(|one| one["digest"] == stored.digest.as_str())
        {
            return Ok(());
        }
        listed.push(json!({
            "mediaType": MANIFEST_TYPE,
            "digest": stored.digest,
            "size": stored.bytes.len(),
            "artifactType": stored.artifact_type,
        }));
        let bytes = index.to_string().into_bytes();
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(RemoteError::odd(
                &attempted,
                "more referrers than an index can list",
            ));
        }
        let digest = sha256(&bytes);
        self.put_as(&tag, OCI_INDEX_TYPE, &bytes, &digest)
            .await
            .map(drop)
    }
}
