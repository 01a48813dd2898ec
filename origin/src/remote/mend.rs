//! What origin's own store has lost or damaged, fetched from the registry.
//!
//! Invariant: a blob is adopted only after all of its bytes were hashed here. A body that is cut short is gone on with where it ended; a
//! registry that then sends the whole is taken by its word and read from the start; other bytes are dropped.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use helix_routing::artifact::{MANIFEST_TYPE, OCI_INDEX_TYPE};
use helix_routing::id::{Digest, ProjectName};
use helix_service::digest::{Sha256, sha256_of};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::link::refusal;
use super::manifest::Manifests;
use super::{Attempted, Remote, RemoteError, attempted};
use crate::artifact::Layout;
use crate::store::{Store, count, id};

/// How often a body is gone on with, or begun anew.
const TRIES: u32 = 4;
/// A blob that could not be had is not asked for again for so long: whoever wants it asks again and again.
const NOT_HAD: Duration = Duration::from_secs(10);
/// How many of those are remembered. Beyond that all are forgotten.
const MAX_NOT_HAD: usize = 1024;
/// Projects whose repositories are asked for one blob.
const MAX_PROJECTS: i64 = 4;

impl Remote {
    /// Fetches a blob that is lost or damaged here, and puts it in its place.
    ///
    /// # Errors
    /// When the registry does not have it as its digest says, or the disk refuses.
    pub(crate) async fn mend(
        &self,
        store: &Store,
        layout: &Layout,
        digest: &Digest,
    ) -> Result<(), RemoteError> {
        let _turn = self.0.mending.lock().await;
        if is_whole(layout, digest).await {
            // Somebody else's turn was for the same.
            return Ok(());
        }
        self.check_tried(digest)?;
        let mended = self.fetch(store, layout, digest).await;
        match &mended {
            Ok(()) => {
                tracing::warn!(%digest, registry = self.name(), from = "lost", to = "mended", "blob");
            }
            Err(error) => self.note_tried(digest, error),
        }
        mended
    }

    fn check_tried(&self, digest: &Digest) -> Result<(), RemoteError> {
        let tried = self.0.not_had.lock();
        let tried = tried.unwrap_or_else(std::sync::PoisonError::into_inner);
        match tried.get(digest) {
            Some((until, why)) if *until > Instant::now() => Err(RemoteError::JustTried {
                digest: digest.clone(),
                why: why.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn note_tried(&self, digest: &Digest, error: &RemoteError) {
        let tried = self.0.not_had.lock();
        let mut tried = tried.unwrap_or_else(std::sync::PoisonError::into_inner);
        if tried.len() >= MAX_NOT_HAD {
            tried.clear();
        }
        let why = helix_service::error::chain(error);
        tried.insert(digest.clone(), (Instant::now() + NOT_HAD, why));
    }

    async fn fetch(
        &self,
        store: &Store,
        layout: &Layout,
        digest: &Digest,
    ) -> Result<(), RemoteError> {
        let held: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT project, media_type, size FROM packs WHERE digest = $1 ORDER BY created DESC, project LIMIT $2",
        )
        .bind(digest.as_str())
        .bind(MAX_PROJECTS)
        .fetch_all(store.reader())
        .await?;
        let mut failed = RemoteError::Unknown(digest.clone());
        for (project, media_type, size) in held {
            let project: ProjectName = id(&project)?;
            let repository = self.repository(&project);
            let wanted = Wanted {
                remote: self,
                repository: &repository,
                digest,
                size: count(size, "packs.size")?,
            };
            let beside = layout.temporary();
            let fetched = if matches!(media_type.as_str(), MANIFEST_TYPE | OCI_INDEX_TYPE) {
                wanted.manifest(&beside).await
            } else {
                wanted.blob(&beside).await
            };
            let adopted = match fetched {
                Ok(()) => adopt(layout, &beside, digest).await,
                Err(error) => Err(error),
            };
            match adopted {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
            // What is left is removed at the next start otherwise.
            let _ = tokio::fs::remove_file(&beside).await;
        }
        Err(failed)
    }

    /// Reads a blob of the registry to its end, to see whether it is what its digest says. Nothing is kept.
    pub(super) async fn reads_back(
        &self,
        repository: &str,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, RemoteError> {
        let wanted = Wanted {
            remote: self,
            repository,
            digest,
            size,
        };
        let mut body = Body::nowhere();
        match wanted.read(&mut body, &wanted.attempted()).await {
            Ok(()) => Ok(body.sum.finish() == *digest),
            Err(RemoteError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => {
                Ok(false)
            }
            // Some send the head of what they have lost, since they remember its size, and then nothing.
            Err(RemoteError::Odd { .. } | RemoteError::Cut { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether a blob is there, with the bytes that its digest says.
pub(crate) async fn is_whole(layout: &Layout, digest: &Digest) -> bool {
    let path = layout.path(digest);
    let hashed = tokio::task::spawn_blocking(move || {
        std::fs::File::open(path).and_then(|mut file| sha256_of(&mut file))
    });
    matches!(hashed.await, Ok(Ok(found)) if found == *digest)
}

async fn adopt(layout: &Layout, beside: &Path, digest: &Digest) -> Result<(), RemoteError> {
    let (layout, beside, digest) = (layout.clone(), beside.to_owned(), digest.clone());
    let task = digest.clone();
    let adopted = tokio::task::spawn_blocking(move || layout.adopt(&beside, &task)).await;
    match adopted {
        Ok(adopted) => Ok(adopted?),
        Err(_) => Err(RemoteError::Damaged(digest)),
    }
}

/// A blob, and where it is looked for.
struct Wanted<'a> {
    remote: &'a Remote,
    repository: &'a str,
    digest: &'a Digest,
    size: u64,
}

/// What has arrived of one.
struct Body {
    /// None: it is only hashed.
    file: Option<File>,
    sum: Sha256,
    has: u64,
}

impl Body {
    fn nowhere() -> Self {
        Self {
            file: None,
            sum: Sha256::new(),
            has: 0,
        }
    }

    async fn begin_anew(&mut self) -> std::io::Result<()> {
        if let Some(file) = &mut self.file {
            file.set_len(0).await?;
            file.rewind().await?;
        }
        (self.sum, self.has) = (Sha256::new(), 0);
        Ok(())
    }

    async fn add(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(bytes).await?;
        }
        self.sum.update(bytes);
        self.has += bytes.len() as u64;
        Ok(())
    }
}

impl Wanted<'_> {
    fn attempted(&self) -> Attempted {
        attempted(format!("fetch blob {} of {}", self.digest, self.repository))
    }

    async fn manifest(&self, beside: &Path) -> Result<(), RemoteError> {
        let attempted = self.attempted();
        let manifests = Manifests {
            link: &self.remote.0.link,
            repository: self.repository,
        };
        let bytes = manifests.read(self.digest.as_str()).await?;
        let bytes =
            bytes.ok_or_else(|| RemoteError::odd(&attempted, "nothing: it is lost there"))?;
        if helix_service::digest::sha256(&bytes) != *self.digest {
            return Err(RemoteError::odd(&attempted, "other bytes"));
        }
        let written = tokio::fs::write(beside, bytes).await;
        written.map_err(|source| RemoteError::Disk { attempted, source })
    }

    async fn blob(&self, beside: &Path) -> Result<(), RemoteError> {
        let attempted = self.attempted();
        let disk = |source| RemoteError::Disk {
            attempted: attempted.clone(),
            source,
        };
        let mut body = Body {
            file: Some(File::create_new(beside).await.map_err(disk)?),
            ..Body::nowhere()
        };
        self.read(&mut body, &attempted).await?;
        if let Some(mut file) = body.file {
            file.flush().await.map_err(disk)?;
        }
        if body.sum.finish() != *self.digest {
            return Err(RemoteError::odd(&attempted, "other bytes"));
        }
        Ok(())
    }

    /// Reads until all bytes have arrived that there should be.
    async fn read(&self, body: &mut Body, attempted: &Attempted) -> Result<(), RemoteError> {
        let mut last = Ok(());
        for _ in 0..TRIES {
            last = self.ask(body, attempted).await;
            match &last {
                Ok(()) if body.has == self.size => return Ok(()),
                // Cut short: it is gone on with.
                Ok(()) | Err(RemoteError::Unreachable { .. } | RemoteError::Cut { .. }) => {}
                Err(_) => return last,
            }
        }
        last?;
        Err(RemoteError::odd(attempted, "fewer bytes than there are"))
    }

    async fn ask(&self, body: &mut Body, attempted: &Attempted) -> Result<(), RemoteError> {
        let link = &self.remote.0.link;
        let url = link.url(self.repository, &["blobs", self.digest.as_str()]);
        let from = body.has;
        let response = link
            .send(attempted, self.repository, |http| {
                let request = http.get(url.clone()).timeout(link.patience(self.size));
                Ok(if from > 0 {
                    request.header(RANGE, format!("bytes={from}-"))
                } else {
                    request
                })
            })
            .await?;
        let disk = |source| RemoteError::Disk {
            attempted: attempted.clone(),
            source,
        };
        match response.status() {
            StatusCode::PARTIAL_CONTENT if from > 0 => {
                if first(&response) != Some(from) {
                    return Err(RemoteError::odd(attempted, "a part that was not asked for"));
                }
            }
            StatusCode::OK => body.begin_anew().await.map_err(disk)?,
            _ => return Err(refusal(attempted, response).await),
        }
        let mut bytes = response.bytes_stream();
        while let Some(part) = bytes.next().await {
            let part = part.map_err(|source| RemoteError::Cut {
                attempted: attempted.clone(),
                source: source.without_url(),
            })?;
            if body.has + part.len() as u64 > self.size {
                return Err(RemoteError::odd(attempted, "more bytes than there are"));
            }
            body.add(&part).await.map_err(disk)?;
        }
        Ok(())
    }
}

/// The first byte of a part: `Content-Range: bytes <first>-<last>/<size>`.
fn first(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    first.parse().ok()
}
