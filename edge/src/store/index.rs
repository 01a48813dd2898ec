//! Pure: manifest, config and index of an artifact, from their bytes.
//!
//! What they say is judged in [`belief`], once; nothing else reads them.

use std::collections::BTreeMap;
use std::io::Read;

use helix_routing::artifact::belief::{self, Disbelief};
use helix_routing::artifact::{FileIndex, MAX_INDEX_BYTES, Manifest, Variant};
use helix_routing::id::{Digest, SiteId};
use helix_routing::routes::Routes;
use serde::de::DeserializeOwned;

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
    /// Not compressed as it should be.
    #[error("{what} is no zstd frame, or larger than allowed")]
    Frame {
        /// Index or improvement.
        what: &'static str,
    },
    /// What it says.
    #[error(transparent)]
    Said(#[from] Disbelief),
}

fn json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Invalid> {
    serde_json::from_slice(bytes).map_err(|source| Invalid::Json { what, source })
}

/// Reads a manifest: its config, its index, and layers that hold files.
pub(super) fn manifest(bytes: &[u8]) -> Result<Manifest, Invalid> {
    let manifest = json("manifest", bytes)?;
    belief::manifest(&manifest)?;
    Ok(manifest)
}

/// The routes of a config, which must be that of `site`.
pub(super) fn config(bytes: &[u8], site: &SiteId) -> Result<Routes, Invalid> {
    Ok(belief::config(json("config", bytes)?, site)?)
}

/// Digests of the manifests of a kind in a list of referrers, as it lists them; none when the list is no such list.
pub(super) fn referrers(answer: &[u8], kind: &str) -> Vec<Digest> {
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
    let Ok(referrers) = serde_json::from_slice::<Referrers>(answer) else {
        return Vec::new();
    };
    referrers
        .manifests
        .into_iter()
        .filter(|one| one.artifact_type.as_deref() == Some(kind))
        .map(|one| one.digest)
        .collect()
}

/// The bundle that a referrer holds, which must be one of `artifact`.
pub(super) fn bundle(bytes: &[u8], artifact: &Digest) -> Result<Digest, Invalid> {
    let manifest: Manifest = json("referrer", bytes)?;
    Ok(belief::bundle(&manifest, artifact)?)
}

/// Reads the manifest of an improvement, which must be one of `artifact`.
pub(super) fn improvement(bytes: &[u8], artifact: &Digest) -> Result<Manifest, Invalid> {
    let manifest = json("improvement", bytes)?;
    belief::improvement(&manifest, artifact)?;
    Ok(manifest)
}

/// Reads an improvement's variants against its manifest and the index of its release.
pub(super) fn better(
    compressed: &[u8],
    manifest: &Manifest,
    index: &FileIndex,
) -> Result<BTreeMap<Digest, Vec<Variant>>, Invalid> {
    let what = "improvement";
    let improvement = json(what, &unfold(compressed, what)?)?;
    Ok(belief::better(improvement, manifest, index)?)
}

/// Reads an index against the manifest that names it.
pub(super) fn index(compressed: &[u8], manifest: &Manifest) -> Result<FileIndex, Invalid> {
    let what = "index";
    let index = json(what, &unfold(compressed, what)?)?;
    belief::index(&index, manifest)?;
    Ok(index)
}

/// Decompresses JSON of at most [`MAX_INDEX_BYTES`].
fn unfold(compressed: &[u8], what: &'static str) -> Result<Vec<u8>, Invalid> {
    let mut bytes = Vec::new();
    let read = zstd::Decoder::new(compressed)
        .and_then(|decoder| decoder.take(MAX_INDEX_BYTES + 1).read_to_end(&mut bytes));
    if read.is_err() || bytes.len() as u64 > MAX_INDEX_BYTES {
        return Err(Invalid::Frame { what });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::artifact::{
        CONFIG_TYPE, Descriptor, Encoding, FileEntry, INDEX_TYPE, MANIFEST_TYPE, MAX_FILE_BYTES,
    };

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
                    Err(Invalid::Said(Disbelief::File { .. }))
                ),
                "{entry:?} was taken"
            );
        }
        for path in ["../x", "/x", "a//b", "a\\b", ""] {
            assert!(
                matches!(
                    read_index(path, entry()),
                    Err(Invalid::Said(Disbelief::Path(_)))
                ),
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
                matches!(refused, Err(Invalid::Said(Disbelief::File { .. }))),
                "{hostile:?} was taken"
            );
        }
    }

    #[test]
    fn an_index_that_unfolds_without_end_is_refused() {
        let bomb = zstd::encode_all(std::io::repeat(b' ').take(MAX_INDEX_BYTES + 10), 1).unwrap();
        assert!(matches!(
            index(&bomb, &sample_manifest()),
            Err(Invalid::Frame { .. })
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
                Err(Invalid::Said(Disbelief::OtherSite { .. }))
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
