//! Improvements: smaller variants of a release's files, which origin makes after the release went out.
//!
//! ```text
//! referrers ──▶ manifest, list, packs ──▶ each decodes to its content ──▶ noted on disk; prepared with them from then on
//! ```
//!
//! Invariant: no record vouches for an improvement, so nothing of it is offered before it was decoded and found to be
//! the content of a release that a record does vouch for. An edge that finds none goes on with what it has.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use helix_routing::artifact::belief;
use helix_routing::artifact::{
    Descriptor, FileEntry, FileIndex, MAX_MANIFEST_BYTES, STANDALONE_BYTES, Variant,
};
use helix_routing::id::{Digest, SiteId};
use helix_routing::record::ReleaseRef;

use super::coding::decodes_to;
use super::fetch::Fetcher;
use super::held::Held;
use super::prepare::{Layer, PrepareError, named};
use super::read::{StoreError, blocking};
use super::{Kind, NOTES, Store, index};

/// Variants by digest of their content.
pub(super) type Better = BTreeMap<Digest, Vec<Variant>>;

impl Store {
    /// Looks whether origin has an improvement of a release that is ready, and brings it into place; false when not.
    /// Preparing the release again then takes it up.
    ///
    /// # Errors
    /// As [`PrepareError`] says; the release is served as before.
    pub async fn improve(
        self: Arc<Self>,
        site: SiteId,
        release: ReleaseRef,
        fetcher: Fetcher,
    ) -> Result<bool, PrepareError> {
        let artifact = release.artifact;
        let Some(improvement) = fetcher.improvement(&site.project, &artifact).await? else {
            return Ok(false);
        };
        let mut held = self.hold(vec![artifact.clone()]);
        let index = self.index_of(&site, &artifact, &fetcher).await?;
        let better = Arc::clone(&self)
            .place(&site, &artifact, &improvement, &index, &fetcher, &mut held)
            .await?;
        let (store, of) = (Arc::clone(&self), artifact.clone());
        blocking(move || store.check(&better, &index))
            .await
            .map_err(|source| PrepareError::Content {
                artifact: improvement.clone(),
                source,
            })?;
        helix_service::disk::write_atomic(&self.note(&of), improvement.as_str().as_bytes())
            .map_err(|error| PrepareError::Disk {
                artifact: of,
                source: error.source,
            })?;
        Ok(true)
    }

    /// Takes up the improvement of a release, if one was noted, and says whether. One that is no longer whole is left out.
    pub(super) async fn take_up(
        self: &Arc<Self>,
        site: &SiteId,
        artifact: &Digest,
        index: &mut FileIndex,
        fetcher: &Fetcher,
        held: &mut Held,
    ) -> bool {
        let noted = tokio::fs::read_to_string(self.note(artifact)).await.ok();
        let Some(improvement) = noted.and_then(|text| text.trim().parse::<Digest>().ok()) else {
            return false;
        };
        let placed = Arc::clone(self).place(site, artifact, &improvement, index, fetcher, held);
        match placed.await {
            Ok(better) => {
                merge(index, &better);
                true
            }
            Err(error) => {
                tracing::warn!(
                    site = %site,
                    error = &error as &dyn std::error::Error,
                    "an improvement is not taken up"
                );
                false
            }
        }
    }

    /// Brings an improvement's blobs into place and checks all of it but what it decodes to.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of where an improvement belongs"
    )]
    async fn place(
        self: Arc<Self>,
        site: &SiteId,
        artifact: &Digest,
        improvement: &Digest,
        index: &FileIndex,
        fetcher: &Fetcher,
        held: &mut Held,
    ) -> Result<Better, PrepareError> {
        let invalid = |source| PrepareError::Invalid {
            artifact: improvement.clone(),
            source,
        };
        let project = &site.project;
        held.add(vec![improvement.clone()]);
        let limit = MAX_MANIFEST_BYTES as u64;
        let bytes = self
            .meta(project, improvement, limit, true, fetcher)
            .await?;
        let manifest = index::improvement(&bytes, artifact).map_err(invalid)?;
        held.add(named(&manifest));
        let list = &manifest.layers[0];
        let bytes = self
            .meta(project, &list.digest, list.size, false, fetcher)
            .await?;
        let better = index::better(&bytes, &manifest, index).map_err(invalid)?;
        held.add(large(&better));
        for layer in layers(&manifest.layers[1..], &better) {
            Arc::clone(&self)
                .layer(project, improvement, layer, fetcher)
                .await?;
        }
        Ok(better)
    }

    /// Decodes every variant once. Blocks.
    fn check(&self, better: &Better, index: &FileIndex) -> Result<(), StoreError> {
        let contents: HashMap<&Digest, u64> = index
            .files
            .values()
            .map(|entry| (&entry.digest, entry.size))
            .collect();
        for (content, variants) in better {
            for variant in variants {
                let size = contents.get(content).copied().unwrap_or(0);
                let decoded = self
                    .encoded(variant)
                    .and_then(|encoded| decodes_to(variant.encoding, encoded, content, size));
                // What cannot be decoded is as bad as what decodes to something else.
                if !decoded.unwrap_or(false) {
                    return Err(StoreError::Damaged {
                        digest: variant.digest.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    fn encoded(&self, variant: &Variant) -> io::Result<impl Read + use<>> {
        let is_large = variant.size >= STANDALONE_BYTES;
        let (path, offset) = if is_large {
            (self.path(Kind::File, &variant.digest), 0)
        } else {
            (self.path(Kind::Pack, &variant.pack), variant.offset)
        };
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.take(variant.size))
    }

    /// Where the digest of an artifact's improvement is noted.
    pub(super) fn note(&self, artifact: &Digest) -> PathBuf {
        self.root.join("improved").join(artifact.hex())
    }

    /// Removes notes of artifacts that are gone.
    pub(super) fn sweep_notes(&self) -> io::Result<()> {
        for notes in NOTES {
            for entry in fs::read_dir(self.root.join(notes))? {
                let entry = entry?;
                let name = entry.file_name();
                let of = name.to_str().and_then(|hex| Digest::from_hex(hex).ok());
                let is_gone = of.is_some_and(|of| !self.path(Kind::Meta, &of).exists());
                if is_gone {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// Puts better variants in the place of those of the same coding.
fn merge(index: &mut FileIndex, better: &Better) {
    for entry in index.files.values_mut() {
        let Some(better) = better.get(&entry.digest) else {
            continue;
        };
        if entry.variants.is_empty() && !is_offered(&entry.media_type) {
            continue;
        }
        for variant in better {
            entry
                .variants
                .retain(|before| before.encoding != variant.encoding);
            entry.variants.push(variant.clone());
        }
    }
}

/// Two files may have one content and different types; a picture is not sent encoded because a page is.
#[expect(clippy::nonminimal_bool, reason = "said as it is meant, type by type")]
fn is_offered(media_type: &str) -> bool {
    !(media_type.starts_with("image/") && !media_type.starts_with("image/svg"))
        && !media_type.starts_with("video/")
        && !media_type.starts_with("audio/")
        && !media_type.starts_with("application/octet-stream")
}

fn large(better: &Better) -> Vec<Digest> {
    let variants = better.values().flatten();
    variants
        .filter(|variant| variant.size >= STANDALONE_BYTES)
        .map(|variant| variant.digest.clone())
        .collect()
}

fn layers(descriptors: &[Descriptor], better: &Better) -> Vec<Layer> {
    let mut layers: HashMap<&Digest, Layer> = descriptors
        .iter()
        .map(|descriptor| (&descriptor.digest, Layer::empty(descriptor)))
        .collect();
    for variant in better.values().flatten() {
        if let Some(layer) = layers.get_mut(&variant.pack) {
            let stored: FileEntry = belief::stored(variant);
            layer.add(stored);
        }
    }
    layers.into_values().filter(Layer::is_needed).collect()
}
