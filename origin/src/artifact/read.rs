//! Reading what a release is made of, for people: which files, and how two releases differ.

use std::sync::Arc;

use helix_routing::artifact::{
    FileIndex, INDEX_TYPE, MAX_CONFIG_BYTES, MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, Manifest,
    ReleaseConfig,
};
use helix_routing::id::Digest;
use helix_routing::record::ReleaseRef;
use helix_routing::routes::Routes;

use super::{Artifacts, Layout, LayoutError};

/// A release cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A blob cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A blob is not what it should be.
    #[error("read {what} of artifact {artifact}")]
    Malformed {
        /// Manifest, config or index.
        what: &'static str,
        /// The artifact.
        artifact: Digest,
    },
}

impl Artifacts {
    /// The files of an artifact.
    ///
    /// # Errors
    /// When its manifest or index cannot be read.
    pub async fn index(&self, artifact: &Digest) -> Result<Arc<FileIndex>, ReadError> {
        let artifact = artifact.clone();
        self.read_mended(move |layout| read_index(layout, &artifact))
            .await
            .map(Arc::new)
    }

    /// What an artifact does with requests besides looking files up.
    ///
    /// # Errors
    /// When its manifest or config cannot be read.
    pub async fn routes(&self, artifact: &Digest) -> Result<Routes, ReadError> {
        let artifact = artifact.clone();
        self.read_mended(move |layout| read_routes(layout, &artifact))
            .await
    }

    /// The files of an artifact, and what it does with requests besides looking them up.
    ///
    /// # Errors
    /// When its manifest, config or index cannot be read.
    pub async fn contents(&self, artifact: &Digest) -> Result<(Routes, FileIndex), ReadError> {
        let artifact = artifact.clone();
        self.read_mended(move |layout| {
            let routes = read_routes(layout, &artifact)?;
            Ok((routes, read_index(layout, &artifact)?))
        })
        .await
    }

    /// What an artifact says besides its files.
    ///
    /// # Errors
    /// When its manifest or config cannot be read.
    pub async fn routes_of(&self, artifact: &Digest) -> Result<Routes, ReadError> {
        let artifact = artifact.clone();
        self.read_mended(move |layout| read_routes(layout, &artifact))
            .await
    }

    /// How many files differ between two releases; 0 when that cannot be told.
    pub async fn files_changed(&self, from: Option<&ReleaseRef>, to: &ReleaseRef) -> u64 {
        let from = match from {
            Some(from) if from == to => return 0,
            Some(from) => self.index(&from.artifact).await,
            None => Ok(Arc::new(FileIndex {
                version: 1,
                files: Default::default(),
            })),
        };
        match (from, self.index(&to.artifact).await) {
            (Ok(from), Ok(to)) => differing(&from, &to),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(error = %helix_service::error::chain(&error), "releases cannot be compared");
                0
            }
        }
    }
}

fn differing(from: &FileIndex, to: &FileIndex) -> u64 {
    let changed = to.files.iter().filter(|(path, file)| {
        from.files
            .get(*path)
            .is_none_or(|before| before.digest != file.digest)
    });
    let gone = from
        .files
        .keys()
        .filter(|path| !to.files.contains_key(*path));
    (changed.count() + gone.count()) as u64
}

pub(super) fn read_manifest(layout: &Layout, artifact: &Digest) -> Result<Manifest, ReadError> {
    let manifest = layout.read(artifact, MAX_MANIFEST_BYTES as u64)?;
    serde_json::from_slice(&manifest).map_err(|_| ReadError::Malformed {
        what: "manifest",
        artifact: artifact.clone(),
    })
}

pub(super) fn read_routes(layout: &Layout, artifact: &Digest) -> Result<Routes, ReadError> {
    let manifest = read_manifest(layout, artifact)?;
    let config = layout.read(&manifest.config.digest, MAX_CONFIG_BYTES)?;
    let config: ReleaseConfig =
        serde_json::from_slice(&config).map_err(|_| ReadError::Malformed {
            what: "config",
            artifact: artifact.clone(),
        })?;
    Ok(config.routes)
}

fn read_index(layout: &Layout, artifact: &Digest) -> Result<FileIndex, ReadError> {
    let malformed = |what| ReadError::Malformed {
        what,
        artifact: artifact.clone(),
    };
    let manifest = read_manifest(layout, artifact)?;
    let index = manifest
        .layers
        .iter()
        .find(|layer| layer.media_type == INDEX_TYPE)
        .ok_or_else(|| malformed("manifest"))?;
    let index = layout.read(&index.digest, MAX_INDEX_BYTES)?;
    let limit = usize::try_from(MAX_INDEX_BYTES).unwrap_or(usize::MAX);
    // Room for what the frame says, which this origin wrote; the limit holds whatever it says.
    let said = zstd::zstd_safe::get_frame_content_size(&index)
        .ok()
        .flatten()
        .unwrap_or(MAX_INDEX_BYTES);
    let room = usize::try_from(said).unwrap_or(limit).min(limit);
    let index = zstd::bulk::decompress(&index, room).map_err(|_| malformed("index"))?;
    serde_json::from_slice(&index).map_err(|_| malformed("index"))
}
