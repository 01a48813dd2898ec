//! Fetches blobs from origin's pull API (OCI distribution-spec 1.1): streamed to a file, bounded, verified.
//!
//! A download that is cut goes on where it stopped. It is given up when nothing arrives for a while, not after
//! a total time: the region's deadline is origin's to keep. What a blob means is not known here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use helix_routing::artifact::IMPROVEMENT_TYPE;
use helix_routing::id::{Digest, ProjectName};
use helix_routing::provenance::bundle::BUNDLE_TYPE;
use helix_routing::visitor::VisitorKey;
use helix_service::digest::Sha256;
use reqwest::header::{ACCEPT, CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::index;
use super::provenance::Trust;

/// Blobs fetched side by side: enough to hide latency, few enough that one release does not starve another.
const CONCURRENT: usize = 8;
/// Origin is near or away.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Between two parts of a body.
const READ_WAIT: Duration = Duration::from_secs(10);
/// Without a byte for this long, a blob is given up: the default prepare deadline of a static site.
const GIVE_UP: Duration = Duration::from_secs(20);
/// Between attempts at first; doubles.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Between attempts at most.
const MAX_RETRY: Duration = Duration::from_secs(2);
/// A list of what refers to one artifact has a few lines.
const MAX_REFERRERS_BYTES: usize = 64 * 1024;
/// A key is a line of JSON.
const MAX_KEY_BYTES: u64 = 4096;
/// A token is a line.
const MAX_TOKEN_BYTES: usize = 4096;

/// A blob was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The token cannot be read.
    #[error("read origin's token {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Origin cannot be reached, or stopped in the middle.
    #[error("fetch {url}")]
    Transport {
        /// What was asked for.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// Origin refused.
    #[error("fetch {url}: origin answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// Its answer.
        status: StatusCode,
    },
    /// It is larger than it may be.
    #[error("blob {digest} is larger than the {limit} bytes it may have")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The most it may have.
        limit: u64,
    },
    /// It is not what was asked for.
    #[error("blob {digest} arrived as {found}")]
    Digest {
        /// The blob.
        digest: Digest,
        /// What came.
        found: Digest,
    },
    /// It is not on disk, and was not asked for anywhere else.
    #[error("blob {digest} is not on disk")]
    Absent {
        /// The blob.
        digest: Digest,
    },
    /// It cannot be kept.
    #[error("write blob {digest}")]
    Disk {
        /// The blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What to fetch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) project: &'a ProjectName,
    pub(super) digest: &'a Digest,
    /// The most bytes it may have.
    pub(super) limit: u64,
    pub(super) is_manifest: bool,
}

/// Where blobs come from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: reqwest::Client,
    bases: Arc<[String]>,
    /// Which of them is asked now; the next once that one does not answer.
    turn: Arc<AtomicUsize>,
    token_file: Arc<Path>,
    slots: Arc<Semaphore>,
    /// Nobody is asked: what is not on disk is absent.
    is_disk_only: bool,
    /// Whose word on where artifacts come from counts; nobody is asked where there is none.
    pub(super) trust: Option<Trust>,
}

/// How far one download is.
struct Download<'a> {
    wanted: Wanted<'a>,
    file: tokio::fs::File,
    sum: Sha256,
    size: u64,
    progress: Instant,
}

impl Fetcher {
    /// Fetches from origin at `base`, with the token that `token_file` holds at the time.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(base: &str, token_file: &Path) -> Result<Self, reqwest::Error> {
        Self::of_several([base], token_file)
    }

    /// The same, from any of several origins of one fleet.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn of_several<'a>(
        bases: impl IntoIterator<Item = &'a str>,
        token_file: &Path,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_WAIT)
            .read_timeout(READ_WAIT)
            .pool_max_idle_per_host(CONCURRENT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            bases: bases
                .into_iter()
                .map(|base| base.trim_end_matches('/').to_owned())
                .collect(),
            turn: Arc::default(),
            token_file: token_file.into(),
            slots: Arc::new(Semaphore::new(CONCURRENT)),
            is_disk_only: false,
            trust: None,
        })
    }

    /// The same, that asks nobody: only what is on disk is there.
    #[must_use]
    pub fn on_disk(&self) -> Self {
        Self {
            is_disk_only: true,
            ..self.clone()
        }
    }

    /// The same, of artifacts that somebody trusted has to vouch for.
    #[must_use]
    pub fn trusting(mut self, trust: Option<Trust>) -> Self {
        self.trust = trust;
        self
    }

    fn asks_for(&self, digest: &Digest) -> Result<(), FetchError> {
        if self.is_disk_only {
            let digest = digest.clone();
            return Err(FetchError::Absent { digest });
        }
        Ok(())
    }

    fn base(&self) -> &str {
        let turn = self.turn.load(Ordering::Relaxed) % self.bases.len().max(1);
        self.bases.get(turn).map_or("", String::as_str)
    }

    /// Fetches a blob to `path`, which is whole, verified and synced when this succeeds.
    pub(super) async fn fetch(&self, wanted: Wanted<'_>, path: &Path) -> Result<(), FetchError> {
        self.asks_for(wanted.digest)?;
        let _slot = self
            .slots
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let disk = |source| FetchError::Disk {
            digest: wanted.digest.clone(),
            source,
        };
        let file = tokio::fs::File::create_new(path).await.map_err(disk)?;
        let mut download = Download {
            wanted,
            file,
            sum: Sha256::new(),
            size: 0,
            progress: Instant::now(),
        };
        let mut wait = FIRST_RETRY;
        let mut before = 0;
        while let Err(error) = self.attempt(&mut download).await {
            if download.size > before {
                wait = FIRST_RETRY;
            }
            before = download.size;
            if !may_pass(&error) || download.progress.elapsed() + wait > GIVE_UP {
                return Err(error);
            }
            self.turn.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(
                digest = wanted.digest.hex(),
                error = &error as &dyn std::error::Error,
                "fetch is tried again"
            );
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_RETRY);
        }
        let found = download.sum.finish();
        if found != *wanted.digest {
            return Err(FetchError::Digest {
                digest: wanted.digest.clone(),
                found,
            });
        }
        download.file.sync_all().await.map_err(disk)
    }

    /// The manifest of an artifact's improvement, if origin has made one.
    pub(super) async fn improvement(
        &self,
        project: &ProjectName,
        artifact: &Digest,
    ) -> Result<Option<Digest>, FetchError> {
        let listed = self.referrers(project, artifact, IMPROVEMENT_TYPE).await?;
        Ok(listed.into_iter().next())
    }

    /// The manifests that hold what is attested of an artifact, newest first. Origin is asked again for a while where it does not answer.
    pub(super) async fn bundles(
        &self,
        project: &ProjectName,
        artifact: &Digest,
    ) -> Result<Vec<Digest>, FetchError> {
        let began = Instant::now();
        let mut wait = FIRST_RETRY;
        loop {
            match self.referrers(project, artifact, BUNDLE_TYPE).await {
                Err(error) if may_pass(&error) && began.elapsed() + wait <= GIVE_UP => {
                    self.turn.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(MAX_RETRY);
                }
                result => return result,
            }
        }
    }

    /// What refers to an artifact and is of a kind (OCI distribution-spec 1.1, referrers).
    async fn referrers(
        &self,
        project: &ProjectName,
        artifact: &Digest,
        kind: &str,
    ) -> Result<Vec<Digest>, FetchError> {
        self.asks_for(artifact)?;
        let url = format!("{}/v2/{project}/referrers/{artifact}", self.base());
        let transport = |source| FetchError::Transport {
            url: url.clone(),
            source,
        };
        let request = self
            .client
            .get(&url)
            .query(&[("artifactType", kind)])
            .bearer_auth(self.token().await?);
        let response = request.send().await.map_err(transport)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(FetchError::Status { url, status });
        }
        let mut answer = Vec::new();
        let mut body = response.bytes_stream();
        while let Some(part) = body.next().await {
            answer.extend_from_slice(&part.map_err(transport)?);
            if answer.len() > MAX_REFERRERS_BYTES {
                return Err(FetchError::TooLarge {
                    digest: artifact.clone(),
                    limit: MAX_REFERRERS_BYTES as u64,
                });
            }
        }
        Ok(index::referrers(&answer, kind))
    }

    /// What visitors' draws are signed with.
    pub(crate) async fn visitor_key(&self) -> Result<VisitorKey, FetchError> {
        let url = format!("{}/v1/visitor-key", self.base());
        let transport = |source| FetchError::Transport {
            url: url.clone(),
            source,
        };
        let request = self.client.get(&url).bearer_auth(self.token().await?);
        // Another origin is asked next time, if there is one.
        let response = request.send().await.map_err(|source| {
            self.turn.fetch_add(1, Ordering::Relaxed);
            transport(source)
        })?;
        let status = response.status();
        if status != StatusCode::OK
            || response
                .content_length()
                .is_none_or(|length| length > MAX_KEY_BYTES)
        {
            return Err(FetchError::Status { url, status });
        }
        response.json().await.map_err(transport)
    }

    /// One request, from where the download stands to its end.
    async fn attempt(&self, download: &mut Download<'_>) -> Result<(), FetchError> {
        let Wanted {
            project,
            digest,
            is_manifest,
            ..
        } = download.wanted;
        let kind = if is_manifest { "manifests" } else { "blobs" };
        let url = format!("{}/v2/{project}/{kind}/{digest}", self.base());
        let mut request = self.client.get(&url).bearer_auth(self.token().await?);
        if is_manifest {
            request = request.header(ACCEPT, helix_routing::artifact::MANIFEST_TYPE);
        }
        if download.size > 0 {
            request = request.header(RANGE, format!("bytes={}-", download.size));
        }
        let response = request
            .send()
            .await
            .map_err(|source| FetchError::Transport {
                url: url.clone(),
                source,
            })?;
        match response.status() {
            StatusCode::OK => download.restart().await?,
            StatusCode::PARTIAL_CONTENT if starts_at(&response, download.size) => {}
            // A range that does not fit what we have: from the start, then.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
                if download.size > 0 =>
            {
                download.restart().await?;
                return Err(FetchError::Status {
                    url,
                    status: StatusCode::RANGE_NOT_SATISFIABLE,
                });
            }
            status => return Err(FetchError::Status { url, status }),
        }
        let mut body = response.bytes_stream();
        while let Some(part) = body.next().await {
            download
                .take(&part.map_err(|source| FetchError::Transport {
                    url: url.clone(),
                    source,
                })?)
                .await?;
        }
        download.flush().await
    }

    async fn token(&self) -> Result<String, FetchError> {
        let failed = |source| FetchError::Token {
            path: self.token_file.to_path_buf(),
            source,
        };
        let text = tokio::fs::read_to_string(&self.token_file)
            .await
            .map_err(failed)?;
        if text.len() > MAX_TOKEN_BYTES {
            return Err(failed(io::Error::other("it is longer than a token")));
        }
        Ok(text.trim().to_owned())
    }
}

impl Download<'_> {
    async fn take(&mut self, part: &[u8]) -> Result<(), FetchError> {
        self.size += part.len() as u64;
        if self.size > self.wanted.limit {
            return Err(FetchError::TooLarge {
                digest: self.wanted.digest.clone(),
                limit: self.wanted.limit,
            });
        }
        self.sum.update(part);
        self.file
            .write_all(part)
            .await
            .map_err(|source| self.disk(source))?;
        self.progress = Instant::now();
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), FetchError> {
        self.file.flush().await.map_err(|source| self.disk(source))
    }

    async fn restart(&mut self) -> Result<(), FetchError> {
        if self.size == 0 {
            return Ok(());
        }
        self.flush().await?;
        self.file
            .set_len(0)
            .await
            .map_err(|source| self.disk(source))?;
        tokio::io::AsyncSeekExt::rewind(&mut self.file)
            .await
            .map_err(|source| self.disk(source))?;
        self.sum = Sha256::new();
        self.size = 0;
        Ok(())
    }

    fn disk(&self, source: io::Error) -> FetchError {
        FetchError::Disk {
            digest: self.wanted.digest.clone(),
            source,
        }
    }
}

/// Whether trying again can help.
fn may_pass(error: &FetchError) -> bool {
    match error {
        FetchError::Transport { .. } => true,
        FetchError::Status { status, .. } => {
            status.is_server_error()
                || *status == StatusCode::TOO_MANY_REQUESTS
                || *status == StatusCode::RANGE_NOT_SATISFIABLE
        }
        FetchError::Token { .. }
        | FetchError::TooLarge { .. }
        | FetchError::Digest { .. }
        | FetchError::Absent { .. }
        | FetchError::Disk { .. } => false,
    }
}

/// Whether a partial answer begins where we stopped (RFC 9110 14.4).
fn starts_at(response: &Response, offset: u64) -> bool {
    let range = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok());
    range
        .and_then(|range| range.strip_prefix("bytes "))
        .and_then(|range| range.split_once('-'))
        .is_some_and(|(start, _)| start.parse() == Ok(offset))
}
