//! Sends origin the contents it lacks.
//!
//! Every call may be repeated, so a connection that breaks costs at most the chunk or pack in flight, and a
//! command that was cut off goes on where it was when it is run again.

pub mod built;
pub mod folder;
pub mod hash;
mod pack;
mod standalone;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use helix_routing::api::{self, NewFile, NewUpload, PACK_UPLOAD_TYPE, PartialContent, UploadPlan};
use helix_routing::artifact::Encoding;
use helix_routing::id::{Digest, ProjectName};
use reqwest::{Method, Response, StatusCode};
use tokio::task::spawn_blocking;

use crate::origin::{Origin, OriginError, UPLOAD_OFFSET};
use crate::retry::{FIRST_CONTACT, MID_UPLOAD, patiently};
use folder::LocalFile;
use standalone::Encoded;

/// Packs that are made and sent at the same time: one is compressed while another is on the line. Bounds memory to
/// as many packs, twice.
const PACKS_AT_ONCE: usize = 3;
/// Times that origin may name another offset than expected before it counts as confused.
const MAX_OFFSET_SURPRISES: usize = 8;

/// The type of the problem that names bytes which are not what they were announced as.
const DIGEST_MISMATCH: &str = "digest-mismatch";

const LENGTH: &str = "upload-length";
const ENCODING: &str = "upload-encoding";

/// Origin keeps naming offsets that do not fit.
#[derive(Debug, thiserror::Error)]
#[error("origin names no usable offset for file {path}")]
struct OffsetError {
    path: String,
}

/// How much of a large content origin has.
enum Arrived {
    /// All of it, checked.
    Complete,
    /// So many encoded bytes.
    Upto(u64),
}

/// Who is told how far it has come.
pub trait Progress: Send + Sync {
    /// So many bytes more.
    fn add(&self, bytes: u64);
}

/// Nobody.
impl Progress for () {
    fn add(&self, _: u64) {}
}

/// One distinct content of a folder, and one file that has it.
#[derive(Clone, Debug)]
pub struct Content {
    /// What it is.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Path of the file within the release.
    pub path: String,
    /// Where its bytes are.
    pub source: PathBuf,
}

/// The files as origin is told of them, and their distinct contents. Each digest is that of the file at its place.
#[must_use]
pub fn contents(files: Vec<LocalFile>, digests: Vec<Digest>) -> (Vec<NewFile>, Vec<Content>) {
    let mut contents = BTreeMap::new();
    let mut told = Vec::with_capacity(digests.len());
    for (LocalFile { path, source, size }, digest) in files.into_iter().zip(digests) {
        contents.entry(digest.clone()).or_insert_with(|| Content {
            digest: digest.clone(),
            size,
            path: path.clone(),
            source,
        });
        told.push(NewFile { path, digest, size });
    }
    (told, contents.into_values().collect())
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Contents that origin lacked.
    pub files: u64,
    /// Encoded bytes on the line.
    pub bytes: u64,
}

/// Sends what origin lacks of `contents`. `progress` is told how many bytes of content that is.
///
/// # Errors
/// When origin refuses, is away for too long, or a file changes meanwhile.
pub async fn send<P: Progress>(
    origin: &Origin,
    project: &ProjectName,
    contents: Vec<Content>,
    progress: impl FnOnce(u64) -> P,
) -> anyhow::Result<Sent> {
    let plan = ask(origin, project, &contents).await?;
    let mut known: BTreeMap<Digest, Content> = contents
        .into_iter()
        .map(|content| (content.digest.clone(), content))
        .collect();
    // Origin can ask only for what it was offered.
    let packed: Vec<Content> = plan
        .packed
        .iter()
        .filter_map(|digest| known.remove(digest))
        .collect();
    let standalone: Vec<(Content, u64)> = plan
        .standalone
        .iter()
        .filter_map(|PartialContent { digest, offset }| Some((known.remove(digest)?, *offset)))
        .collect();

    let files = (packed.len() + standalone.len()) as u64;
    let total = packed
        .iter()
        .chain(standalone.iter().map(|(content, _)| content))
        .map(|content| content.size)
        .sum();
    let upload = Upload {
        origin,
        project,
        progress: progress(total),
    };
    let mut bytes = upload.packs(packed).await?;
    for (content, offset) in standalone {
        bytes += upload.standalone(content, offset).await?;
    }
    Ok(Sent { files, bytes })
}

async fn ask(
    origin: &Origin,
    project: &ProjectName,
    contents: &[Content],
) -> Result<UploadPlan, OriginError> {
    let contents = contents.iter().map(|content| api::Content {
        digest: content.digest.clone(),
        size: content.size,
    });
    let question = NewUpload {
        contents: contents.collect(),
    };
    patiently(FIRST_CONTACT, async || {
        origin
            .create(&["projects", project.as_str(), "uploads"], &question)
            .await
    })
    .await
}

struct Upload<'a, P> {
    origin: &'a Origin,
    project: &'a ProjectName,
    progress: P,
}

impl<P: Progress> Upload<'_, P> {
    async fn packs(&self, contents: Vec<Content>) -> anyhow::Result<u64> {
        stream::iter(pack::plan(contents))
            .map(|contents| self.pack(contents))
            .buffer_unordered(PACKS_AT_ONCE)
            .try_fold(0, async |sum, bytes| Ok(sum + bytes))
            .await
    }

    async fn pack(&self, contents: Vec<Content>) -> anyhow::Result<u64> {
        let raw: u64 = contents.iter().map(|content| content.size).sum();
        let pack = spawn_blocking(move || pack::build(&contents)).await??;
        let path = ["projects", self.project.as_str(), "packs"];
        let headers = [("content-type", PACK_UPLOAD_TYPE.to_owned())];
        patiently(MID_UPLOAD, async || {
            self.origin
                .upload(Method::POST, &path, &headers, pack.clone())
                .await
        })
        .await?;
        self.progress.add(raw);
        Ok(pack.len() as u64)
    }

    /// Sends one large file; the bytes it took.
    async fn standalone(&self, content: Content, start: u64) -> anyhow::Result<u64> {
        let (path, digest, size) = (content.path.clone(), content.digest.clone(), content.size);
        let mut encoded = spawn_blocking(move || Encoded::prepare(&content)).await??;
        let (mut offset, mut sent, mut surprises) = (start, 0, 0);
        loop {
            // At the end this is a chunk of nothing, which makes origin take in a content whose last chunk was not confirmed.
            let bytes = encoded.chunk(offset)?;
            let length = bytes.len() as u64;
            match self.chunk(&digest, &encoded, offset, bytes).await? {
                Arrived::Complete => return Ok(sent + length),
                Arrived::Upto(next) if next == offset + length => {
                    sent += length;
                    surprises = 0;
                    offset = next;
                    // In bytes of the content, since that is what the bar counts.
                    self.progress.add(size * length / encoded.length.max(1));
                }
                Arrived::Upto(next)
                    if next > encoded.length || surprises == MAX_OFFSET_SURPRISES =>
                {
                    return Err(OffsetError { path }.into());
                }
                Arrived::Upto(next) => {
                    surprises += 1;
                    offset = next;
                }
            }
        }
    }

    /// Sends one chunk; how far the content has come.
    async fn chunk(
        &self,
        digest: &Digest,
        encoded: &Encoded,
        offset: u64,
        bytes: Bytes,
    ) -> anyhow::Result<Arrived> {
        let sent_to = offset + bytes.len() as u64;
        match self.patch(digest, encoded, offset, bytes).await {
            Ok(response) => {
                let next = offset_of(&response).unwrap_or(sent_to);
                let complete = response.status().is_success() && next == encoded.length;
                Ok(if complete {
                    Arrived::Complete
                } else {
                    Arrived::Upto(next)
                })
            }
            Err(OriginError::Problem(problem)) if problem.kind.ends_with(DIGEST_MISMATCH) => {
                Err(encoded.changed().into())
            }
            Err(error) if error.is_passing() => Ok(self.how_far(digest).await?),
            Err(error) => Err(error.into()),
        }
    }

    async fn patch(
        &self,
        digest: &Digest,
        encoded: &Encoded,
        offset: u64,
        bytes: Bytes,
    ) -> Result<Response, OriginError> {
        let encoding = match encoded.encoding {
            Encoding::Identity => "identity",
            Encoding::Zstd => "zstd",
        };
        let headers = [
            (UPLOAD_OFFSET, offset.to_string()),
            (LENGTH, encoded.length.to_string()),
            (ENCODING, encoding.to_owned()),
            ("content-type", "application/octet-stream".to_owned()),
        ];
        self.origin
            .upload(Method::PATCH, &self.blob(digest), &headers, bytes)
            .await
    }

    /// Asks where to go on: after a broken connection nobody here knows how much arrived.
    async fn how_far(&self, digest: &Digest) -> Result<Arrived, OriginError> {
        let path = self.blob(digest);
        let asked = patiently(MID_UPLOAD, async || {
            self.origin
                .upload(Method::HEAD, &path, &[], Bytes::new())
                .await
        })
        .await;
        match asked {
            Ok(response) if response.status() == StatusCode::OK => Ok(Arrived::Complete),
            Ok(response) => Ok(Arrived::Upto(offset_of(&response).unwrap_or(0))),
            Err(OriginError::Unexpected {
                status: StatusCode::NOT_FOUND,
                ..
            }) => Ok(Arrived::Upto(0)),
            Err(error) => Err(error),
        }
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> [&'a str; 4] {
        ["projects", self.project.as_str(), "blobs", digest.as_str()]
    }
}

fn offset_of(response: &Response) -> Option<u64> {
    response
        .headers()
        .get(UPLOAD_OFFSET)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
