//! Pure: whether manifest, config and index of an artifact may be believed.
//!
//! Their digests say only that they arrived unharmed. Everything in them is checked here, once, so that
//! nobody who reads a [`FileIndex`] later has to ask whether an offset lies within its pack.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use helix_routing::artifact::{
    CONFIG_TYPE, Descriptor, Encoding, FileEntry, FileIndex, IMPROVEMENT_TYPE, INDEX_TYPE,
    Improvement, InvalidPath, MANIFEST_TYPE, MAX_CONFIG_BYTES, MAX_FILE_BYTES, MAX_FILES,
    MAX_INDEX_BYTES, Manifest, ReleaseConfig, VARIANTS_TYPE, Variant, check_path,
};
use helix_routing::id::{Digest, SiteId};
use helix_routing::routes::Routes;
use http::HeaderValue;

/// A media type is short; this one becomes a header.
const MAX_MEDIA_TYPE_BYTES: usize = 255;

/// Why an artifact is refused.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Not what its media type says.
    #[error("{what} is not valid JSON")]
    Json {
        /// Manifest, config or index.
        what: &'static str,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// A rule of the format is broken.
    #[error("{what} {problem}")]
    Rule {
        /// Manifest, config or index.
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

const fn rule(what: &'static str, problem: &'static str) -> Invalid {
    Invalid::Rule { what, problem }
}

/// Reads a manifest: its config, its index, and layers that hold files.
pub(super) fn manifest(bytes: &[u8]) -> Result<Manifest, Invalid> {
    let what = "manifest";
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|source| Invalid::Json { what, source })?;
    if manifest.schema_version != 2 || manifest.media_type != MANIFEST_TYPE {
        return Err(rule(what, "is not an OCI image manifest"));
    }
    if manifest.config.media_type != CONFIG_TYPE || manifest.config.size > MAX_CONFIG_BYTES {
        return Err(rule(what, "has no release config"));
    }
    match manifest.layers.first() {
        Some(index) if index.media_type == INDEX_TYPE && index.size <= MAX_INDEX_BYTES => {
            Ok(manifest)
        }
        Some(_) | None => Err(rule(what, "does not begin with a file index")),
    }
}

/// The routes of a config, which must be that of `site`.
pub(super) fn config(bytes: &[u8], site: &SiteId) -> Result<Routes, Invalid> {
    let what = "config";
    let config: ReleaseConfig =
        serde_json::from_slice(bytes).map_err(|source| Invalid::Json { what, source })?;
    if config.version != 1 {
        return Err(rule(what, "has a version that this build does not know"));
    }
    let made_for = SiteId {
        project: config.project,
        environment: config.environment,
    };
    if made_for == *site {
        Ok(config.routes)
    } else {
        Err(Invalid::OtherSite {
            made_for,
            site: site.clone(),
        })
    }
}

/// The digest of an improvement's manifest in a list of referrers; none when there is none, or the list is no such list.
pub(super) fn referrer(answer: &[u8]) -> Option<Digest> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Referrer {
        digest: Digest,
        artifact_type: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Referrers {
        manifests: Vec<Referrer>,
    }
    let referrers: Referrers = serde_json::from_slice(answer).ok()?;
    referrers
        .manifests
        .into_iter()
        .find(|one| one.artifact_type.as_deref() == Some(IMPROVEMENT_TYPE))
        .map(|one| one.digest)
}

/// Reads the manifest of an improvement, which must be one of `artifact`.
pub(super) fn improvement(bytes: &[u8], artifact: &Digest) -> Result<Manifest, Invalid> {
    let what = "improvement";
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|source| Invalid::Json { what, source })?;
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
        Some(list) if list.media_type == VARIANTS_TYPE && list.size <= MAX_INDEX_BYTES => {
            Ok(manifest)
        }
        Some(_) | None => Err(rule(what, "does not begin with a list of variants")),
    }
}

/// Reads an improvement's variants against its manifest and the index of its release. Contents that the release does not
/// have are left out.
pub(super) fn better(
    compressed: &[u8],
    manifest: &Manifest,
    index: &FileIndex,
) -> Result<BTreeMap<Digest, Vec<Variant>>, Invalid> {
    let what = "improvement";
    let bytes = unfold(compressed, what)?;
    let mut improvement: Improvement =
        serde_json::from_slice(&bytes).map_err(|source| Invalid::Json { what, source })?;
    if improvement.version != 1 {
        return Err(rule(what, "has a version that this build does not know"));
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
        check_variants(&entry, |pack| layers.get(pack).copied()).map_err(|problem| {
            Invalid::File {
                path: path.chars().take(200).collect(),
                problem,
            }
        })?;
        better.insert(entry.digest, entry.variants);
    }
    Ok(better)
}

/// Decompresses JSON of at most [`MAX_INDEX_BYTES`].
fn unfold(compressed: &[u8], what: &'static str) -> Result<Vec<u8>, Invalid> {
    let mut bytes = Vec::new();
    let read = zstd::Decoder::new(compressed)
        .and_then(|decoder| decoder.take(MAX_INDEX_BYTES + 1).read_to_end(&mut bytes));
    if read.is_err() || bytes.len() as u64 > MAX_INDEX_BYTES {
        return Err(rule(what, "is no zstd frame, or larger than allowed"));
    }
    Ok(bytes)
}

fn layers_of(manifest: &Manifest) -> HashMap<&Digest, &Descriptor> {
    let layers = manifest.layers.iter().skip(1);
    layers.map(|layer| (&layer.digest, layer)).collect()
}

/// Reads an index against the manifest that names it.
pub(super) fn index(compressed: &[u8], manifest: &Manifest) -> Result<FileIndex, Invalid> {
    let what = "index";
    let bytes = unfold(compressed, what)?;
    let index: FileIndex =
        serde_json::from_slice(&bytes).map_err(|source| Invalid::Json { what, source })?;
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
            .map_err(|problem| Invalid::File {
                path: path.chars().take(200).collect(),
                problem,
            })?;
    }
    Ok(index)
}

/// A variant as an entry of its own: the encoded bytes, as they lie.
pub(crate) fn stored(variant: &Variant) -> FileEntry {
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

/// Each coding at most once, each smaller than the file, each within its layer.
pub(super) fn check_variants<'a>(
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
        || HeaderValue::from_str(&entry.media_type).is_err()
    {
        return Err("has a media type that is no header value");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        helix_service::digest::sha256(&[n])
    }

    fn descriptor(media_type: &str, n: u8, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: digest(n),
            size,
            annotations: BTreeMap::new(),
        }
    }

    fn sample_manifest() -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: None,
            config: descriptor(CONFIG_TYPE, 1, 10),
            layers: vec![descriptor(INDEX_TYPE, 2, 10), descriptor("pack", 3, 100)],
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    fn entry() -> FileEntry {
        FileEntry {
            digest: digest(9),
            size: 20,
            media_type: "text/html".to_owned(),
            pack: digest(3),
            offset: 80,
            length: 20,
            encoding: Encoding::Identity,
            modified: None,
            variants: Vec::new(),
        }
    }

    fn read_index(path: &str, entry: FileEntry) -> Result<FileIndex, Invalid> {
        let index = FileIndex {
            version: 1,
            files: BTreeMap::from([(path.to_owned(), entry)]),
        };
        let json = serde_json::to_vec(&index).unwrap();
        super::index(&zstd::encode_all(&json[..], 3).unwrap(), &sample_manifest())
    }

    #[test]
    fn an_entry_must_lie_within_a_layer_of_the_manifest() {
        assert!(read_index("index.html", entry()).is_ok());
        let hostile = [
            FileEntry {
                pack: digest(2),
                ..entry()
            },
            FileEntry {
                pack: digest(77),
                ..entry()
            },
            FileEntry {
                offset: 81,
                ..entry()
            },
            FileEntry {
                offset: u64::MAX,
                ..entry()
            },
            FileEntry {
                length: 19,
                ..entry()
            },
            FileEntry {
                size: MAX_FILE_BYTES + 1,
                length: MAX_FILE_BYTES + 1,
                ..entry()
            },
            FileEntry {
                media_type: "text/html\r\nx: y".to_owned(),
                ..entry()
            },
        ];
        for entry in hostile {
            assert!(
                matches!(
                    read_index("index.html", entry.clone()),
                    Err(Invalid::File { .. })
                ),
                "{entry:?} was taken"
            );
        }
        for path in ["../x", "/x", "a//b", "a\\b", ""] {
            assert!(
                matches!(read_index(path, entry()), Err(Invalid::Path(_))),
                "{path:?} was taken"
            );
        }
    }

    #[test]
    fn a_variant_is_smaller_than_its_file_and_lies_within_a_layer() {
        let variant = |encoding, size, pack, offset| Variant {
            encoding,
            digest: digest(8),
            size,
            pack: digest(pack),
            offset,
        };
        let with = |variants| {
            let entry = FileEntry {
                variants,
                ..entry()
            };
            read_index("index.html", entry)
        };
        use helix_routing::artifact::ContentEncoding::{Br, Gzip};
        assert!(with(vec![variant(Br, 19, 3, 0), variant(Gzip, 19, 3, 81)]).is_ok());
        for hostile in [
            vec![variant(Br, 20, 3, 0)],
            vec![variant(Br, 10, 3, 91)],
            vec![variant(Br, 10, 3, u64::MAX)],
            vec![variant(Br, 10, 2, 0)],
            vec![variant(Br, 10, 3, 0), variant(Br, 11, 3, 10)],
        ] {
            let refused = with(hostile.clone());
            assert!(
                matches!(refused, Err(Invalid::File { .. })),
                "{hostile:?} was taken"
            );
        }
    }

    #[test]
    fn an_index_that_unfolds_without_end_is_refused() {
        let bomb = zstd::encode_all(std::io::repeat(b' ').take(MAX_INDEX_BYTES + 10), 1).unwrap();
        assert!(matches!(
            index(&bomb, &sample_manifest()),
            Err(Invalid::Rule { .. })
        ));
        assert!(index(b"not zstd", &sample_manifest()).is_err());
    }

    #[test]
    fn a_config_is_for_one_site() {
        let shop: SiteId = "shop/production".parse().unwrap();
        let bytes = br#"{"version":1,"project":"shop","environment":"production"}"#;
        assert!(config(bytes, &shop).is_ok());
        for other in ["shop/preview/1", "shoe/production"] {
            assert!(matches!(
                config(bytes, &other.parse().unwrap()),
                Err(Invalid::OtherSite { .. })
            ));
        }
    }

    #[test]
    fn a_manifest_names_a_config_and_an_index() {
        let read = |made: &Manifest| manifest(&serde_json::to_vec(made).unwrap());
        assert!(read(&sample_manifest()).is_ok());
        assert!(
            read(&Manifest {
                layers: Vec::new(),
                ..sample_manifest()
            })
            .is_err()
        );
        assert!(
            read(&Manifest {
                schema_version: 1,
                ..sample_manifest()
            })
            .is_err()
        );
        assert!(
            read(&Manifest {
                config: descriptor("other", 1, 10),
                ..sample_manifest()
            })
            .is_err()
        );
        assert!(manifest(b"{").is_err());
    }
}
