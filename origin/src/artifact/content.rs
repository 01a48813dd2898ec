//! Contents in SQL: what a project has uploaded, and where in which blob it lies.
//!
//! Invariant: contents are per project. That another project holds the same bytes is never shown
//! and never used, so nobody can find out or fetch what a project holds by knowing its hash.

use std::collections::BTreeMap;
use std::path::Path;

use helix_routing::api::{Content, PartialContent, UploadPlan};
use helix_routing::artifact::{BLOB_TYPE, Encoding, MAX_FILE_BYTES, PACK_TYPE, STANDALONE_BYTES};
use helix_routing::id::{Digest, ProjectName};
use helix_routing::time::Timestamp;
use helix_service::clock;

use super::frame;
use super::pack::{self, Pack, PackError, Packed};
use super::partial::{Partials, Upload, VerifyError};
use super::{Artifacts, LayoutError};
use crate::store::{Connection, Statement, StoreError, Tx, count, id, millis, number, time};

/// Values bound in one statement; SQLite's limit is 32,766, PostgreSQL's 65,535.
pub(super) const BINDS: usize = 500;

/// Values of one row of contents.
const CONTENT_BINDS: usize = 9;

/// An upload was refused, or could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The pack is not what it says.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The content is not what it was sent as.
    #[error(transparent)]
    Content(#[from] VerifyError),
    /// A content is larger than a file may be.
    #[error("content {digest} has {size} bytes; a file may have {MAX_FILE_BYTES}")]
    FileTooLarge {
        /// The content.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// The project would hold more than it may.
    #[error("project {project} would hold more than the {limit} bytes it may")]
    Quota {
        /// The project.
        project: ProjectName,
        /// What it may hold, in bytes.
        limit: u64,
    },
    /// The disk refused.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a content lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Size of the content in bytes.
    pub size: u64,
    /// The blob that holds it.
    pub pack: Digest,
    /// Where it starts in the blob.
    pub offset: u64,
    /// How many bytes of the blob it takes.
    pub length: u64,
    /// How they encode it.
    pub encoding: Encoding,
    /// Digest of the encoded bytes, where they can be sent as they are under `Content-Encoding: zstd`.
    pub encoded: Option<Digest>,
    /// When origin first saw the content.
    pub seen: Timestamp,
}

/// Contents of one project, by digest.
pub type Places = BTreeMap<Digest, Place>;

impl Artifacts {
    /// Which of `contents` the project lacks, and how each is to be sent.
    ///
    /// # Errors
    /// When one is too large, or the database fails.
    pub async fn plan_upload(
        &self,
        project: &ProjectName,
        contents: &[Content],
    ) -> Result<UploadPlan, UploadError> {
        let held = places(
            &self.store,
            project,
            contents.iter().map(|content| &content.digest),
        )
        .await?;
        let mut wanted = BTreeMap::new();
        for Content { digest, size } in contents
            .iter()
            .filter(|content| !held.contains_key(&content.digest))
        {
            if *size > MAX_FILE_BYTES {
                return Err(UploadError::FileTooLarge {
                    digest: digest.clone(),
                    size: *size,
                });
            }
            wanted.insert(digest.clone(), *size);
        }
        let bytes = wanted.values().sum();
        self.check_quota(project, bytes).await?;
        let (standalone, packed): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|(_, size)| *size >= STANDALONE_BYTES);
        Ok(UploadPlan {
            packed: packed.into_iter().map(|(digest, _)| digest).collect(),
            standalone: standalone
                .into_iter()
                .map(|(digest, _)| PartialContent {
                    offset: self.partials.offset(project, &digest),
                    digest,
                })
                .collect(),
        })
    }

    /// Verifies and stores an uploaded pack. Nothing of it is kept when one content is wrong.
    ///
    /// # Errors
    /// When it is refused, or cannot be stored.
    pub async fn receive_pack(
        &self,
        project: &ProjectName,
        upload: bytes::Bytes,
    ) -> Result<(), UploadError> {
        self.check_quota(project, upload.len() as u64).await?;
        let _permit = self
            .packing
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let layout = self.layout.clone();
        let (blob, contents, size) = blocking(move || {
            let Pack { bytes, contents } = pack::parse(&upload)?;
            Ok::<_, UploadError>((layout.put(&bytes)?, contents, bytes.len() as u64))
        })
        .await?;
        let mut tx = self.store.write().await?;
        insert_blob(&mut tx, project, &blob, PACK_TYPE, size).await?;
        insert_contents(&mut tx, project, &blob, &contents).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Verifies and stores a content that was sent on its own and is complete in `file`.
    /// A file that is not the content is removed: sending more of it cannot mend it.
    ///
    /// # Errors
    /// When it is refused, or cannot be stored.
    pub async fn receive_blob(&self, upload: Upload, file: &Path) -> Result<(), UploadError> {
        let (layout, path) = (self.layout.clone(), file.to_owned());
        let (upload, blob, size, encoded) = blocking(move || {
            let verified = Partials::verify(&upload, &path).inspect_err(|_| {
                // Swept later if this fails.
                let _ = std::fs::remove_file(&path);
            })?;
            let encoded =
                frame::sendable_file(upload.encoding, &path).then(|| verified.blob.clone());
            layout.adopt(&path, &verified.blob)?;
            Ok::<_, UploadError>((upload, verified.blob, verified.size, encoded))
        })
        .await?;
        let Upload {
            project,
            digest,
            encoding,
            length,
        } = upload;
        let content = Packed {
            digest,
            size,
            offset: 0,
            length,
            encoding,
            encoded,
        };
        let mut tx = self.store.write().await?;
        insert_blob(&mut tx, &project, &blob, BLOB_TYPE, length).await?;
        insert_contents(&mut tx, &project, &blob, std::slice::from_ref(&content)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whether the project holds a content.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn holds(&self, project: &ProjectName, digest: &Digest) -> Result<bool, StoreError> {
        Ok(!places(&self.store, project, std::iter::once(digest))
            .await?
            .is_empty())
    }

    /// Whether the project may hold `more` bytes.
    pub(crate) async fn check_quota(
        &self,
        project: &ProjectName,
        more: u64,
    ) -> Result<(), UploadError> {
        let held: i64 = sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM packs WHERE project = $1",
        )
        .bind(project.as_str())
        .fetch_one(self.store.reader())
        .await
        .map_err(StoreError::from)?;
        let limit = self.project_bytes;
        if count(held, "packs.size")?.saturating_add(more) > limit {
            return Err(UploadError::Quota {
                project: project.clone(),
                limit,
            });
        }
        Ok(())
    }
}

/// Where those of `digests` lie that the project holds.
///
/// # Errors
/// When the database fails.
pub async fn places(
    store: &crate::store::Store,
    project: &ProjectName,
    digests: impl Iterator<Item = &Digest>,
) -> Result<Places, StoreError> {
    let mut connection = store.read().await?;
    let digests: Vec<&Digest> = digests.collect();
    let mut places = Places::new();
    for part in digests.chunks(BINDS) {
        places.extend(some_places(&mut connection, project, part).await?);
    }
    Ok(places)
}

type PlaceRow = (String, i64, String, i64, i64, String, Option<String>, i64);

async fn some_places(
    connection: &mut Connection,
    project: &ProjectName,
    digests: &[&Digest],
) -> Result<Places, StoreError> {
    let rows: Vec<PlaceRow> = Statement::new(
        "SELECT digest, size, pack, position, length, encoding, encoded, seen FROM contents WHERE project = ",
    )
    .bind(project.as_str())
    .text(" AND digest IN (")
    .list(digests, |list, digest| list.bind(digest.as_str()))
    .text(")")
    .rows()?
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(read_place).collect()
}

fn read_place(
    (digest, size, pack, offset, length, encoding, encoded, seen): PlaceRow,
) -> Result<(Digest, Place), StoreError> {
    let encoding = match encoding.as_str() {
        "identity" => Encoding::Identity,
        "zstd" => Encoding::Zstd,
        _ => {
            return Err(StoreError::Corrupt {
                what: "contents.encoding",
            });
        }
    };
    let place = Place {
        size: count(size, "contents.size")?,
        pack: id(&pack)?,
        offset: count(offset, "contents.position")?,
        length: count(length, "contents.length")?,
        encoding,
        encoded: encoded.as_deref().map(id).transpose()?,
        seen: time(seen),
    };
    Ok((id(&digest)?, place))
}

/// Notes a blob of the project; one that is there already becomes young again, so it is not collected as unused.
pub(crate) async fn insert_blob(
    tx: &mut Tx,
    project: &ProjectName,
    blob: &Digest,
    media_type: &str,
    size: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO packs (project, digest, media_type, size, created) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (project, digest) DO UPDATE SET created = excluded.created",
    )
    .bind(project.as_str())
    .bind(blob.as_str())
    .bind(media_type)
    .bind(number(size))
    .bind(millis(clock::now()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes where contents lie. One that the project already holds stays where it is.
pub(super) async fn insert_contents(
    tx: &mut Tx,
    project: &ProjectName,
    blob: &Digest,
    contents: &[Packed],
) -> Result<(), StoreError> {
    for part in contents.chunks(BINDS / CONTENT_BINDS) {
        content_rows(project, blob, part)
            .text(" ON CONFLICT (project, digest) DO NOTHING")
            .query()?
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Notes where contents lie now, after they were packed anew.
pub(super) async fn move_contents(
    tx: &mut Tx,
    project: &ProjectName,
    blob: &Digest,
    contents: &[Packed],
) -> Result<(), StoreError> {
    for part in contents.chunks(BINDS / CONTENT_BINDS) {
        content_rows(project, blob, part)
            .text(
                " ON CONFLICT (project, digest) DO UPDATE SET pack = excluded.pack, position = excluded.position,
                  length = excluded.length, encoding = excluded.encoding",
            )
            .query()?
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

fn content_rows(project: &ProjectName, blob: &Digest, contents: &[Packed]) -> Statement {
    let now = millis(clock::now());
    Statement::new(
        "INSERT INTO contents (project, digest, size, pack, position, length, encoding, encoded, seen) VALUES ",
    )
    .list(contents, |row, content| {
        let encoding = match content.encoding {
            Encoding::Identity => "identity",
            Encoding::Zstd => "zstd",
        };
        row.row()
            .value(project.as_str())
            .value(content.digest.as_str())
            .value(number(content.size))
            .value(blob.as_str())
            .value(number(content.offset))
            .value(number(content.length))
            .value(encoding)
            .value(content.encoded.as_ref().map(Digest::as_str))
            .value(now)
            .end()
    })
}

/// Runs work that hashes or waits for the disk away from the async workers.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}
