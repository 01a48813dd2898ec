//! One blob on its way to the registry (OCI distribution-spec 1.1, pushing blobs): mounted from another repository, in one request, or in
//! chunks that go on where the registry says that it is.
//!
//! Invariant: a blob is hashed here before it is sent, so that damage of our own is not taken for the registry's.

use std::io::{Seek, SeekFrom};
use std::path::Path;

use helix_routing::id::Digest;
use helix_service::digest::sha256_of;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Body, Method, Response, StatusCode};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;
use url::Url;

use super::link::{Link, refusal};
use super::{Attempted, RemoteError, attempted};

/// Blobs up to this size go in one request: any pack, with room.
const WHOLE_BYTES: u64 = 32 * 1024 * 1024;
/// Larger ones go in parts of this size: proxies in front of registries often take no more than 32 MiB at once.
const CHUNK_BYTES: u64 = 16 * 1024 * 1024;
/// A registry that takes only larger parts gets them up to this size.
const MAX_CHUNK_BYTES: u64 = 256 * 1024 * 1024;
/// How often an upload is taken up where it was cut off, before the whole push is tried again later.
const RESUMES: u32 = 3;
/// Read at a time.
const READ_BYTES: usize = 128 * 1024;
const OCTETS: &str = "application/octet-stream";
const MIN_CHUNK: &str = "oci-chunk-min-length";

/// A blob, and where it goes.
pub(super) struct Upload<'a> {
    pub(super) link: &'a Link,
    pub(super) repository: &'a str,
    pub(super) digest: &'a Digest,
    pub(super) size: u64,
    pub(super) file: &'a Path,
}

/// An upload that the registry has begun.
struct Session {
    /// Where it goes on.
    at: Url,
    /// How much of the blob is there.
    offset: u64,
    chunk: u64,
}

impl Upload<'_> {
    fn attempted(&self, what: &str) -> Attempted {
        attempted(format!("{what} blob {} {}", self.digest, self.repository))
    }

    /// Whether the registry says that it has the blob, with the right size.
    pub(super) async fn is_there(&self) -> Result<bool, RemoteError> {
        let attempted = self.attempted("look for");
        let url = self
            .link
            .url(self.repository, &["blobs", self.digest.as_str()]);
        let response = self
            .link
            .send(&attempted, self.repository, |http| {
                Ok(http.head(url.clone()))
            })
            .await?;
        match response.status() {
            StatusCode::OK => {
                let length = response.headers().get(CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
                Ok(length.is_none_or(|length| length == self.size))
            }
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refusal(&attempted, response).await),
        }
    }

    /// Sends the blob, if it cannot be had from the repository `mount`.
    pub(super) async fn push(&self, mount: Option<&str>) -> Result<(), RemoteError> {
        if let Some(from) = mount
            && self.mount(from).await?
        {
            return Ok(());
        }
        self.check_own().await?;
        let mut session = self.begin().await?;
        let sent = if self.size <= WHOLE_BYTES {
            self.finish(&session).await
        } else {
            self.send_chunks(&mut session).await
        };
        if sent.is_err() {
            // A registry that is full keeps what was begun otherwise. It is not told of a failure of that.
            self.cancel(&session).await;
        }
        sent
    }

    /// Whether the registry took the blob from another repository. It may say no for any reason.
    async fn mount(&self, from: &str) -> Result<bool, RemoteError> {
        let attempted = self.attempted("mount");
        let mut url = self.link.url(self.repository, &["blobs", "uploads", ""]);
        url.query_pairs_mut()
            .append_pair("mount", self.digest.as_str())
            .append_pair("from", from);
        let mounting = self.link.send(&attempted, self.repository, |http| {
            Ok(http.post(url.clone()).header(CONTENT_LENGTH, 0))
        });
        let response = match mounting.await {
            Ok(response) => response,
            // A token for both repositories may not be given out.
            Err(RemoteError::Access { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if response.status() == StatusCode::ACCEPTED
            && let Ok(at) = self.link.place(&attempted, &url, response.headers())
        {
            let begun = Session {
                at,
                offset: 0,
                chunk: CHUNK_BYTES,
            };
            self.cancel(&begun).await;
        }
        Ok(response.status() == StatusCode::CREATED)
    }

    async fn check_own(&self) -> Result<(), RemoteError> {
        let file = self.file.to_owned();
        let hashed = tokio::task::spawn_blocking(move || {
            std::fs::File::open(file).and_then(|mut file| sha256_of(&mut file))
        });
        match hashed.await {
            Ok(Ok(found)) if found == *self.digest => Ok(()),
            Ok(Err(source)) => Err(self.disk(source)),
            Ok(Ok(_)) | Err(_) => Err(RemoteError::Damaged(self.digest.clone())),
        }
    }

    fn disk(&self, source: std::io::Error) -> RemoteError {
        RemoteError::Disk {
            attempted: self.attempted("read"),
            source,
        }
    }

    async fn begin(&self) -> Result<Session, RemoteError> {
        let attempted = self.attempted("begin to push");
        let url = self.link.url(self.repository, &["blobs", "uploads", ""]);
        let response = self
            .link
            .send(&attempted, self.repository, |http| {
                Ok(http.post(url.clone()).header(CONTENT_LENGTH, 0))
            })
            .await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(refusal(&attempted, response).await);
        }
        let least = response.headers().get(MIN_CHUNK);
        let least = least.and_then(|least| least.to_str().ok()?.parse::<u64>().ok());
        Ok(Session {
            at: self.link.place(&attempted, &url, response.headers())?,
            offset: 0,
            chunk: least
                .unwrap_or_default()
                .clamp(CHUNK_BYTES, MAX_CHUNK_BYTES),
        })
    }

    /// What is left of the blob, and the word that this is all.
    async fn finish(&self, session: &Session) -> Result<(), RemoteError> {
        let attempted = self.attempted("push");
        let mut url = session.at.clone();
        url.query_pairs_mut()
            .append_pair("digest", self.digest.as_str());
        let left = self.size.saturating_sub(session.offset);
        let response = self
            .carry(&attempted, Method::PUT, &url, (session.offset, left))
            .await?;
        if !response.status().is_success() {
            return Err(refusal(&attempted, response).await);
        }
        Ok(())
    }

    async fn send_chunks(&self, session: &mut Session) -> Result<(), RemoteError> {
        let mut resumes = 0;
        while session.offset < self.size {
            let Err(error) = self.send_chunk(session).await else {
                continue;
            };
            resumes += 1;
            if resumes > RESUMES || !is_cut(&error) || self.take_up(session).await.is_err() {
                return Err(error);
            }
        }
        self.finish(session).await
    }

    async fn send_chunk(&self, session: &mut Session) -> Result<(), RemoteError> {
        let attempted = self.attempted("push a part of");
        let length = session.chunk.min(self.size - session.offset);
        let part = (session.offset, length);
        let response = self
            .carry(&attempted, Method::PATCH, &session.at, part)
            .await?;
        if !response.status().is_success() {
            return Err(refusal(&attempted, response).await);
        }
        let end = session.offset + length;
        let has = has(response.headers()).unwrap_or(end);
        if has <= session.offset || has > end {
            return Err(RemoteError::odd(&attempted, "a range that was not sent"));
        }
        session.offset = has;
        session.at = self
            .link
            .place(&attempted, &session.at, response.headers())?;
        Ok(())
    }

    /// Asks how much of the blob has arrived.
    async fn take_up(&self, session: &mut Session) -> Result<(), RemoteError> {
        let attempted = self.attempted("go on with");
        let response = self
            .link
            .send(&attempted, self.repository, |http| {
                Ok(http.get(session.at.clone()))
            })
            .await?;
        if response.status() != StatusCode::NO_CONTENT {
            return Err(refusal(&attempted, response).await);
        }
        let has = has(response.headers()).unwrap_or_default();
        if has > self.size {
            return Err(RemoteError::odd(&attempted, "more than was sent"));
        }
        session.offset = has;
        if let Ok(at) = self.link.place(&attempted, &session.at, response.headers()) {
            session.at = at;
        }
        Ok(())
    }

    /// Tells the registry that no more comes. What comes of that is of no interest.
    async fn cancel(&self, session: &Session) {
        let attempted = self.attempted("give up");
        let _ = self
            .link
            .send(&attempted, self.repository, |http| {
                Ok(http.delete(session.at.clone()))
            })
            .await;
    }

    /// Sends so many bytes of the file, from there on.
    async fn carry(
        &self,
        attempted: &Attempted,
        method: Method,
        url: &Url,
        (offset, length): (u64, u64),
    ) -> Result<Response, RemoteError> {
        let is_part = method == Method::PATCH;
        self.link
            .send(attempted, self.repository, |http| {
                let mut request = http
                    .request(method.clone(), url.clone())
                    .timeout(self.link.patience(length))
                    .header(CONTENT_TYPE, OCTETS)
                    .header(CONTENT_LENGTH, length);
                if is_part {
                    let last = offset + length.saturating_sub(1);
                    request = request.header(CONTENT_RANGE, format!("{offset}-{last}"));
                }
                if length == 0 {
                    return Ok(request);
                }
                let mut file = std::fs::File::open(self.file).map_err(|error| self.disk(error))?;
                file.seek(SeekFrom::Start(offset))
                    .map_err(|error| self.disk(error))?;
                let part = tokio::fs::File::from_std(file).take(length);
                let stream = ReaderStream::with_capacity(part, READ_BYTES);
                Ok(request.body(Body::wrap_stream(stream)))
            })
            .await
    }
}

/// Whether an upload may go on after this.
fn is_cut(error: &RemoteError) -> bool {
    match error {
        RemoteError::Unreachable { .. } => true,
        RemoteError::Refused { status, .. } => {
            *status == StatusCode::RANGE_NOT_SATISFIABLE || matches!(status.as_u16(), 502..=504)
        }
        _ => false,
    }
}

/// How many bytes have arrived: the header `Range` of an upload is `0-<last>`.
fn has(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    // Nothing and one byte are written alike by some: `0-0`. The larger guess is corrected by the registry's refusal.
    Some(if last == 0 { 0 } else { last + 1 })
}
