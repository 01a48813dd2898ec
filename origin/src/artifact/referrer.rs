//! Manifests that say more about an artifact: they name it as their `subject` (OCI image-spec 1.1), and hold one blob.
//!
//! Invariant: what is kept here lives as long as a release that names it, and is collected with the last.

use std::collections::BTreeMap;

use helix_routing::artifact::{Descriptor, EMPTY_CONFIG, EMPTY_TYPE, MANIFEST_TYPE, Manifest};
use helix_routing::id::{Digest, ProjectName, ReleaseId, SiteId};
use helix_service::digest::sha256;

use super::content::insert_blob;
use super::{Layout, LayoutError};
use crate::store::{Connection, StoreError, Tx, count, id};

const TITLE: &str = "org.opencontainers.image.title";

/// What a referrer holds.
pub(crate) struct Said<'a> {
    /// Type of the blob, and of the referrer.
    pub(crate) kind: &'a str,
    /// A file's name for it.
    pub(crate) title: &'a str,
    pub(crate) bytes: &'a [u8],
}

/// A referrer in the store, and what it holds: each with its size.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) manifest: (Digest, u64),
    pub(crate) bytes: (Digest, u64),
}

/// A referrer as the registry lists it.
#[derive(Clone, Debug)]
pub(crate) struct Referrer {
    pub(crate) manifest: Digest,
    pub(crate) size: u64,
}

impl Referrer {
    /// Of its row: digest of the manifest, and its size.
    ///
    /// # Errors
    /// When the row holds what this build cannot have written.
    pub(crate) fn of((manifest, size): (String, i64)) -> Result<Self, StoreError> {
        Ok(Self {
            manifest: id(&manifest)?,
            size: count(size, "manifest_size")?,
        })
    }
}

/// The artifact as its referrers name it.
///
/// # Errors
/// When the database fails.
pub(crate) async fn subject(
    connection: &mut Connection,
    project: &ProjectName,
    artifact: &Digest,
) -> Result<Descriptor, StoreError> {
    let bytes: Option<i64> =
        sqlx::query_scalar("SELECT size FROM packs WHERE project = $1 AND digest = $2")
            .bind(project.as_str())
            .bind(artifact.as_str())
            .fetch_optional(connection)
            .await?;
    Ok(Descriptor {
        media_type: MANIFEST_TYPE.to_owned(),
        digest: artifact.clone(),
        size: count(bytes.unwrap_or_default(), "packs.size")?,
        annotations: BTreeMap::new(),
    })
}

/// The manifest.
pub(crate) fn manifest(
    subject: Descriptor,
    said: &Said<'_>,
    annotations: BTreeMap<String, String>,
) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        artifact_type: Some(said.kind.to_owned()),
        config: descriptor(EMPTY_TYPE, EMPTY_CONFIG),
        layers: vec![Descriptor {
            annotations: BTreeMap::from([(TITLE.to_owned(), said.title.to_owned())]),
            ..descriptor(said.kind, said.bytes)
        }],
        subject: Some(subject),
        annotations,
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: sha256(bytes),
        size: bytes.len() as u64,
        annotations: BTreeMap::new(),
    }
}

/// Writes the manifest and what it holds. Blocks.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn write(
    layout: &Layout,
    manifest: &Manifest,
    said: &Said<'_>,
) -> Result<Held, LayoutError> {
    let manifest = serde_json::to_vec(manifest).expect("plain data always encodes");
    layout.put(EMPTY_CONFIG)?;
    let put = |bytes: &[u8]| Ok::<_, LayoutError>((layout.put(bytes)?, bytes.len() as u64));
    Ok(Held {
        manifest: put(&manifest)?,
        bytes: put(said.bytes)?,
    })
}

/// Makes the blobs a part of a release.
///
/// # Errors
/// When the database fails.
pub(crate) async fn keep(
    tx: &mut Tx,
    site: &SiteId,
    release: &ReleaseId,
    held: &Held,
    kind: &str,
) -> Result<(), StoreError> {
    let blobs = [
        (&sha256(EMPTY_CONFIG), EMPTY_TYPE, EMPTY_CONFIG.len() as u64),
        (&held.manifest.0, MANIFEST_TYPE, held.manifest.1),
        (&held.bytes.0, kind, held.bytes.1),
    ];
    for (digest, media_type, size) in blobs {
        insert_blob(tx, &site.project, digest, media_type, size).await?;
        sqlx::query(
            "INSERT INTO release_packs (site, release_id, digest) VALUES ($1, $2, $3) \
             ON CONFLICT (site, release_id, digest) DO NOTHING",
        )
        .bind(site.to_string())
        .bind(release.as_str())
        .bind(digest.as_str())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
