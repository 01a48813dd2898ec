//! Whether manifest, config and index of an artifact may be believed.
//!
//! Their digests say only that they arrived unharmed. Everything in them is checked here, once, so that
//! nobody who reads a [`FileIndex`] later has to ask whether an offset lies within its pack.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::{
    CONFIG_TYPE, Descriptor, Encoding, FileEntry, FileIndex, IMPROVEMENT_TYPE, INDEX_TYPE,
    Improvement, InvalidPath, MANIFEST_TYPE, MAX_CONFIG_BYTES, MAX_FILE_BYTES, MAX_FILES,
    MAX_INDEX_BYTES, Manifest, OUTPUT_VERSION, ReleaseConfig, VARIANTS_TYPE, Variant, check_path,
};
use crate::id::{Digest, SiteId};
use crate::provenance::MAX_BUNDLE_BYTES;
use crate::provenance::bundle::BUNDLE_TYPE;
use crate::routes::Routes;

/// A media type is short; this one becomes a header.
const MAX_MEDIA_TYPE_BYTES: usize = 255;

/// Why an artifact is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disbelief {
    /// A rule of the format is broken.
    #[error("{what} {problem}")]
    Rule {
        /// Manifest, config, index or improvement.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Made for another project or environment.
    #[error("artifact was made for {made_for}, not for {site}")]
    OtherSite {
        /// Whose it is.
        made_for: SiteId,
        /// Whose it should be.
        site: SiteId,
    },
    /// A file may not have this path.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// A file's entry contradicts itself or the manifest.
    #[error("file {path:?} {problem}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

const fn rule(what: &'static str, problem: &'static str) -> Disbelief {
    Disbelief::Rule { what, problem }
}

fn file(path: &str, problem: &'static str) -> Disbelief {
    Disbelief::File {
        path: path.chars().take(200).collect(),
        problem,
    }
}

/// A manifest: its config, its index, and layers that hold files.
///
/// # Errors
/// When it is of something else.
pub fn manifest(manifest: &Manifest) -> Result<(), Disbelief> {
    let what = "manifest";
    if manifest.schema_version != 2 || manifest.media_type != MANIFEST_TYPE {
        return Err(rule(what, "is not an OCI image manifest"));
    }
    if manifest.config.media_type != CONFIG_TYPE || manifest.config.size > MAX_CONFIG_BYTES {
        return Err(rule(what, "has no release config"));
    }
    match manifest.layers.first() {
        Some(index) if index.media_type == INDEX_TYPE && index.size <= MAX_INDEX_BYTES => Ok(()),
        Some(_) | None => Err(rule(what, "does not begin with a file index")),
    }
}

/// The routes of a config, which must be that of `site`.
///
/// # Errors
/// When it is of another, or of a version that is not known.
pub fn config(config: ReleaseConfig, site: &SiteId) -> Result<Routes, Disbelief> {
    if !(1..=OUTPUT_VERSION).contains(&config.version) {
        return Err(rule(
            "config",
            "has a version that this build does not know",
        ));
    }
    if config.routes.output.is_some() && config.version < OUTPUT_VERSION {
        return Err(rule("config", "has more than its version knows"));
    }
    let made_for = SiteId {
        project: config.project,
        environment: config.environment,
    };
    if made_for == *site {
        Ok(config.routes)
    } else {
        Err(Disbelief::OtherSite {
            made_for,
            site: site.clone(),
        })
    }
}

/// The manifest of an improvement, which must be one of `artifact`.
///
/// # Errors
/// When it is of something else.
pub fn improvement(manifest: &Manifest, artifact: &Digest) -> Result<(), Disbelief> {
    let what = "improvement";
    if manifest.schema_version != 2
        || manifest.media_type != MANIFEST_TYPE
        || manifest.artifact_type.as_deref() != Some(IMPROVEMENT_TYPE)
    {
        return Err(rule(what, "is not one"));
    }
    if manifest.subject.as_ref().map(|subject| &subject.digest) != Some(artifact) {
        return Err(rule(what, "is of another artifact"));
    }
    match manifest.layers.first() {
        Some(list) if list.media_type == VARIANTS_TYPE && list.size <= MAX_INDEX_BYTES => Ok(()),
        Some(_) | None => Err(rule(what, "does not begin with a list of variants")),
    }
}

/// The bundle in a referrer, which must be one of `artifact` that says where it comes from.
///
/// # Errors
/// When it is of something else.
pub fn bundle(manifest: &Manifest, artifact: &Digest) -> Result<Digest, Disbelief> {
    let what = "referrer";
    if manifest.schema_version != 2
        || manifest.media_type != MANIFEST_TYPE
        || manifest.artifact_type.as_deref() != Some(BUNDLE_TYPE)
    {
        return Err(rule(what, "holds no bundle"));
    }
    if manifest.subject.as_ref().map(|subject| &subject.digest) != Some(artifact) {
        return Err(rule(what, "is of another artifact"));
    }
    match manifest.layers.as_slice() {
        [bundle] if bundle.media_type == BUNDLE_TYPE && bundle.size <= MAX_BUNDLE_BYTES as u64 => {
            Ok(bundle.digest.clone())
        }
        _ => Err(rule(what, "has not one bundle of a legal size")),
    }
}

/// An improvement's variants, against its manifest and the index of its release. Contents that the release does not
/// have are left out.
///
/// # Errors
/// When a variant contradicts its file or the manifest.
pub fn better(
    mut improvement: Improvement,
    manifest: &Manifest,
    index: &FileIndex,
) -> Result<BTreeMap<Digest, Vec<Variant>>, Disbelief> {
    if improvement.version != 1 {
        return Err(rule(
            "improvement",
            "has a version that this build does not know",
        ));
    }
    let layers = layers_of(manifest);
    let mut better = BTreeMap::new();
    for (path, entry) in &index.files {
        let Some(variants) = improvement.variants.remove(&entry.digest) else {
            continue;
        };
        let entry = FileEntry {
            variants,
            ..entry.clone()
        };
        check_variants(&entry, |pack| layers.get(pack).copied())
            .map_err(|problem| file(path, problem))?;
        better.insert(entry.digest, entry.variants);
    }
    Ok(better)
}

/// An index, against the manifest that names it.
///
/// # Errors
/// When a file's entry contradicts itself or the manifest, or there are too many.
pub fn index(index: &FileIndex, manifest: &Manifest) -> Result<(), Disbelief> {
    let what = "index";
    if index.version != 1 {
        return Err(rule(what, "has a version that this build does not know"));
    }
    if index.files.len() > MAX_FILES {
        return Err(rule(what, "has more files than allowed"));
    }
    let layers = layers_of(manifest);
    for (path, entry) in &index.files {
        check_path(path)?;
        let layer = |pack: &Digest| layers.get(pack).copied();
        check_entry(entry, layer(&entry.pack))
            .and_then(|()| check_variants(entry, layer))
            .map_err(|problem| file(path, problem))?;
    }
    Ok(())
}

fn layers_of(manifest: &Manifest) -> BTreeMap<&Digest, &Descriptor> {
    let layers = manifest.layers.iter().skip(1);
    layers.map(|layer| (&layer.digest, layer)).collect()
}

/// A variant as an entry of its own: the encoded bytes, as they lie.
#[must_use]
pub fn stored(variant: &Variant) -> FileEntry {
    FileEntry {
        digest: variant.digest.clone(),
        size: variant.size,
        media_type: String::new(),
        pack: variant.pack.clone(),
        offset: variant.offset,
        length: variant.size,
        encoding: Encoding::Identity,
        modified: None,
        variants: Vec::new(),
    }
}

/// Each coding at most once, each smaller than the file, each within its layer. What is wrong follows the file's name.
fn check_variants<'a>(
    entry: &FileEntry,
    layer: impl Fn(&Digest) -> Option<&'a Descriptor>,
) -> Result<(), &'static str> {
    for (at, variant) in entry.variants.iter().enumerate() {
        let is_second = entry.variants[..at]
            .iter()
            .any(|before| before.encoding == variant.encoding);
        if is_second {
            return Err("has two variants in one coding");
        }
        if variant.size >= entry.size {
            return Err("has a variant that is no smaller");
        }
        check_entry(&stored(variant), layer(&variant.pack))?;
    }
    Ok(())
}

fn check_entry(entry: &FileEntry, layer: Option<&Descriptor>) -> Result<(), &'static str> {
    let layer = layer.ok_or("lies in a layer that the manifest does not name")?;
    if entry.size > MAX_FILE_BYTES {
        return Err("is larger than allowed");
    }
    if entry
        .offset
        .checked_add(entry.length)
        .is_none_or(|end| end > layer.size)
    {
        return Err("does not lie within its layer");
    }
    if entry.encoding == Encoding::Identity && entry.length != entry.size {
        return Err("has two sizes");
    }
    // A file encoded to more than its size plus a frame's overhead was not encoded by us.
    if entry.length > entry.size.saturating_add(entry.size / 128 + 1024) {
        return Err("takes more room than it can need");
    }
    if entry.media_type.len() > MAX_MEDIA_TYPE_BYTES
        || !entry.media_type.bytes().all(is_header_value)
    {
        return Err("has a media type that is no header value");
    }
    Ok(())
}

/// Visible ASCII, spaces and tabs: what no client can read as anything but text (RFC 9110 5.5).
const fn is_header_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}
