//! Makes a release ready: whatever is not on disk is fetched, everything is checked, and it is held.
//!
//! The same code serves a deployment and a start from disk; with nothing missing it needs no network.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use helix_routing::artifact::belief;
use helix_routing::artifact::{
    Descriptor, FileEntry, FileIndex, MAX_MANIFEST_BYTES, Manifest, STANDALONE_BYTES,
};
use helix_routing::id::{Digest, ProjectName, SiteId};
use helix_routing::record::ReleaseRef;

use super::fetch::{FetchError, Fetcher, Wanted};
use super::held::Held;
use super::index::{self, Invalid};
use super::provenance::Unvouched;
use super::read::{self, StoreError};
use super::{Kind, Store};
use crate::release::Release;

/// Layers of one release that are made ready side by side.
const CONCURRENT_LAYERS: usize = 4;

/// A release is not ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Something is missing and cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The artifact is not one for this site.
    #[error("artifact {artifact} is refused")]
    Invalid {
        /// The artifact.
        artifact: Digest,
        /// Why.
        #[source]
        source: Invalid,
    },
    /// It does not come from where it may.
    #[error("artifact {artifact} is refused")]
    Provenance {
        /// The artifact.
        artifact: Digest,
        /// Why.
        #[source]
        source: Unvouched,
    },
    /// A file in it is not what its index says.
    #[error("artifact {artifact} does not hold what its index says")]
    Content {
        /// The artifact.
        artifact: Digest,
        /// Which content.
        #[source]
        source: StoreError,
    },
    /// It cannot be kept.
    #[error("keep artifact {artifact} on disk")]
    Disk {
        /// The artifact.
        artifact: Digest,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl PrepareError {
    /// The disk has no room: trying again at once is no use.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let (Self::Disk { source, .. } | Self::Fetch(FetchError::Disk { source, .. })) = self
        else {
            return false;
        };
        source.kind() == io::ErrorKind::StorageFull
    }

    /// The whole chain of causes in one line, for a report.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut reason = if self.is_disk_full() {
            format!("disk full: {self}")
        } else {
            self.to_string()
        };
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            reason = format!("{reason}: {error}");
            cause = error.source();
        }
        reason
    }
}

/// A temporary file that is gone when it was not moved into place.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Moved into place already, mostly; what is left is emptied at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

/// One layer and what this edge needs of it.
pub(super) struct Layer {
    descriptor: Descriptor,
    /// Files that are read from the pack.
    small: Vec<FileEntry>,
    /// Files that are kept decoded.
    large: Vec<FileEntry>,
}

impl Layer {
    pub(super) fn empty(descriptor: &Descriptor) -> Self {
        Self {
            descriptor: descriptor.clone(),
            small: Vec::new(),
            large: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, entry: FileEntry) {
        if entry.size >= STANDALONE_BYTES {
            self.large.push(entry);
        } else {
            self.small.push(entry);
        }
    }

    pub(super) fn is_needed(&self) -> bool {
        !self.small.is_empty() || !self.large.is_empty()
    }
}

impl Store {
    /// Makes `release` ready for `site`.
    ///
    /// # Errors
    /// As [`PrepareError`] says; what was fetched before stays until it is collected.
    pub async fn prepare(
        self: Arc<Self>,
        site: SiteId,
        release: ReleaseRef,
        fetcher: Fetcher,
    ) -> Result<Release, PrepareError> {
        let ReleaseRef { release, artifact } = release;
        let mut held = self.hold(vec![artifact.clone()]);
        let manifest = self.manifest_of(&site, &artifact, &fetcher).await?;
        self.vouch_or_known(&site, &artifact, &manifest, &fetcher)
            .await?;
        held.add(named(&manifest));
        let config = &manifest.config;
        let config = self
            .meta(&site.project, &config.digest, config.size, false, &fetcher)
            .await?;
        let routes = index::config(&config, &site).map_err(|source| PrepareError::Invalid {
            artifact: artifact.clone(),
            source,
        })?;
        let mut index = self.index_of(&site, &artifact, &fetcher).await?;
        held.add(large_files(&index));
        let layers = stream::iter(layers(&manifest, &index))
            .map(|layer| Arc::clone(&self).layer(&site.project, &artifact, layer, &fetcher))
            .buffer_unordered(CONCURRENT_LAYERS);
        layers.try_collect::<()>().await?;
        let improved = self
            .take_up(&site, &artifact, &mut index, &fetcher, &mut held)
            .await;
        let mut release = Release::from_store(release, artifact, routes, index, self, held);
        release.improved = improved;
        Ok(release)
    }

    async fn manifest_of(
        &self,
        site: &SiteId,
        artifact: &Digest,
        fetcher: &Fetcher,
    ) -> Result<Manifest, PrepareError> {
        let limit = MAX_MANIFEST_BYTES as u64;
        let bytes = self
            .meta(&site.project, artifact, limit, true, fetcher)
            .await?;
        index::manifest(&bytes).map_err(|source| PrepareError::Invalid {
            artifact: artifact.clone(),
            source,
        })
    }

    /// The checked index of an artifact.
    pub(super) async fn index_of(
        &self,
        site: &SiteId,
        artifact: &Digest,
        fetcher: &Fetcher,
    ) -> Result<FileIndex, PrepareError> {
        let manifest = self.manifest_of(site, artifact, fetcher).await?;
        let index = &manifest.layers[0];
        let bytes = self
            .meta(&site.project, &index.digest, index.size, false, fetcher)
            .await?;
        index::index(&bytes, &manifest).map_err(|source| PrepareError::Invalid {
            artifact: artifact.clone(),
            source,
        })
    }

    pub(super) fn hold(&self, digests: Vec<Digest>) -> Held {
        self.holds.hold(digests)
    }

    /// A small blob, from disk if it is there and unharmed.
    pub(super) async fn meta(
        &self,
        project: &ProjectName,
        digest: &Digest,
        limit: u64,
        is_manifest: bool,
        fetcher: &Fetcher,
    ) -> Result<Vec<u8>, PrepareError> {
        let lock = self.lock_of(digest);
        let _one = lock.lock().await;
        let path = self.path(Kind::Meta, digest);
        let failed = |source| PrepareError::Disk {
            artifact: digest.clone(),
            source,
        };
        if let Ok(bytes) = tokio::fs::read(&path).await
            && helix_service::digest::sha256(&bytes) == *digest
        {
            return Ok(bytes);
        }
        let temporary = Temporary(self.temporary());
        fetcher
            .fetch(
                Wanted {
                    project,
                    digest,
                    limit,
                    is_manifest,
                },
                &temporary.0,
            )
            .await?;
        let bytes = tokio::fs::read(&temporary.0).await.map_err(failed)?;
        self.keep(&temporary.0, Kind::Meta, digest)
            .map_err(failed)?;
        Ok(bytes)
    }

    /// Brings everything needed of one layer into place.
    pub(super) async fn layer(
        self: Arc<Self>,
        project: &ProjectName,
        artifact: &Digest,
        layer: Layer,
        fetcher: &Fetcher,
    ) -> Result<(), PrepareError> {
        let digest = layer.descriptor.digest.clone();
        let lock = self.lock_of(&digest);
        let _one = lock.lock().await;
        let pack_missing =
            !layer.small.is_empty() && !self.has(Kind::Pack, &digest, layer.descriptor.size);
        let large: Vec<FileEntry> = layer
            .large
            .iter()
            .filter(|entry| !self.has(Kind::File, &entry.digest, entry.size))
            .cloned()
            .collect();
        if !pack_missing && large.is_empty() {
            return Ok(());
        }
        let on_disk = !layer.small.is_empty() && !pack_missing;
        let temporary = Temporary(self.temporary());
        if !on_disk {
            let wanted = Wanted {
                project,
                digest: &digest,
                limit: layer.descriptor.size,
                is_manifest: false,
            };
            fetcher.fetch(wanted, &temporary.0).await?;
        }
        let artifact = artifact.clone();
        let unpacked = tokio::task::spawn_blocking(move || {
            let source = if on_disk {
                self.path(Kind::Pack, &digest)
            } else {
                temporary.0.clone()
            };
            self.unpack(&artifact, &source, &large)?;
            if pack_missing {
                check_small(&artifact, &source, &layer.small)?;
                self.keep(&source, Kind::Pack, &digest)
                    .map_err(|source| PrepareError::Disk { artifact, source })?;
            }
            Ok(())
        });
        match unpacked.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether everything needed of one layer is in place.
    pub(super) fn has_layer(&self, layer: &Layer) -> bool {
        let pack = &layer.descriptor;
        let has_pack = layer.small.is_empty() || self.has(Kind::Pack, &pack.digest, pack.size);
        let mut large = layer.large.iter();
        has_pack && large.all(|entry| self.has(Kind::File, &entry.digest, entry.size))
    }

    /// Decodes large files out of a layer into place.
    fn unpack(
        &self,
        artifact: &Digest,
        layer: &Path,
        large: &[FileEntry],
    ) -> Result<(), PrepareError> {
        let disk = |source| PrepareError::Disk {
            artifact: artifact.clone(),
            source,
        };
        for entry in large {
            let temporary = Temporary(self.temporary());
            let mut out = File::create_new(&temporary.0).map_err(disk)?;
            let found = copy_entry(artifact, layer, entry, &mut out)?;
            if found != entry.digest {
                let source = StoreError::Damaged {
                    digest: entry.digest.clone(),
                };
                return Err(PrepareError::Content {
                    artifact: artifact.clone(),
                    source,
                });
            }
            out.sync_all().map_err(disk)?;
            self.keep(&temporary.0, Kind::File, &entry.digest)
                .map_err(disk)?;
        }
        Ok(())
    }
}

/// Decodes every small file of a new pack once, so that a wrong index is found now and not by a visitor.
fn check_small(artifact: &Digest, layer: &Path, small: &[FileEntry]) -> Result<(), PrepareError> {
    for entry in small {
        if copy_entry(artifact, layer, entry, &mut io::sink())? != entry.digest {
            let source = StoreError::Damaged {
                digest: entry.digest.clone(),
            };
            return Err(PrepareError::Content {
                artifact: artifact.clone(),
                source,
            });
        }
    }
    Ok(())
}

fn copy_entry(
    artifact: &Digest,
    layer: &Path,
    entry: &FileEntry,
    out: &mut impl io::Write,
) -> Result<Digest, PrepareError> {
    let disk = |source| PrepareError::Disk {
        artifact: artifact.clone(),
        source,
    };
    let mut file = File::open(layer).map_err(disk)?;
    file.seek(SeekFrom::Start(entry.offset)).map_err(disk)?;
    match read::copy(io::Read::take(file, entry.length), entry, out) {
        Ok(found) => Ok(found),
        Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
            Err(disk(source))
        }
        Err(source) => Err(PrepareError::Content {
            artifact: artifact.clone(),
            source,
        }),
    }
}

/// Every blob that a manifest names.
pub(super) fn named(manifest: &Manifest) -> Vec<Digest> {
    std::iter::once(&manifest.config)
        .chain(&manifest.layers)
        .map(|descriptor| descriptor.digest.clone())
        .collect()
}

/// Every content and variant that is kept as a file of its own.
pub(super) fn large_files(index: &FileIndex) -> Vec<Digest> {
    let large = index.files.values().flat_map(|entry| {
        let variants = entry
            .variants
            .iter()
            .map(|variant| (&variant.digest, variant.size));
        std::iter::once((&entry.digest, entry.size)).chain(variants)
    });
    large
        .filter(|(_, size)| *size >= STANDALONE_BYTES)
        .map(|(digest, _)| digest.clone())
        .collect()
}

/// What is needed of each layer; a layer that no file lies in is not fetched.
pub(super) fn layers(manifest: &Manifest, index: &FileIndex) -> Vec<Layer> {
    let mut layers: HashMap<&Digest, Layer> = HashMap::new();
    for descriptor in manifest.layers.iter().skip(1) {
        layers.insert(&descriptor.digest, Layer::empty(descriptor));
    }
    for entry in index.files.values() {
        let variants = entry.variants.iter().map(belief::stored);
        let plain = FileEntry {
            variants: Vec::new(),
            ..entry.clone()
        };
        for stored in std::iter::once(plain).chain(variants) {
            if let Some(layer) = layers.get_mut(&stored.pack) {
                layer.add(stored);
            }
        }
    }
    for files in layers
        .values_mut()
        .flat_map(|layer| [&mut layer.small, &mut layer.large])
    {
        // Two paths may have one content; it is decoded once.
        files.sort_by(|a, b| (&a.digest, a.offset).cmp(&(&b.digest, b.offset)));
        files.dedup_by(|a, b| (&a.digest, a.offset, a.size) == (&b.digest, b.offset, b.size));
    }
    layers.into_values().filter(Layer::is_needed).collect()
}
