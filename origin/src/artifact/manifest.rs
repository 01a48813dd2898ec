//! The blobs that describe a release to any OCI client: its manifest and its config.
//!
//! Pure: the same release gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use helix_routing::artifact::{
    BLOB_TYPE, CONFIG_TYPE, Descriptor, EMPTY_CONFIG, EMPTY_TYPE, IMPROVEMENT_TYPE, INDEX_TYPE,
    MANIFEST_TYPE, Manifest, OUTPUT_VERSION, PACK_TYPE, RELEASE_TYPE, ReleaseConfig, VARIANTS_TYPE,
};
use helix_routing::id::{Digest, SiteId};
use helix_routing::routes::Routes;
use helix_service::digest::sha256;
use serde::Serialize;
use serde_json::json;

use super::annotation::{ENVIRONMENT, PROJECT, of_site};
use super::content::Places;
use super::release::Sizes;

/// What generic OCI clients save a layer as.
const TITLE: &str = "org.opencontainers.image.title";

pub(super) fn manifest(
    site: &SiteId,
    index: &[u8],
    places: &Places,
    sizes: &Sizes,
    config: &[u8],
) -> Manifest {
    let used: BTreeSet<&Digest> = places.values().map(|place| &place.pack).collect();
    let mut layers = vec![described(
        INDEX_TYPE,
        sha256(index),
        index.len() as u64,
        "index.json.zst".to_owned(),
    )];
    for pack in used {
        let short = &pack.hex()[..12];
        layers.push(match sizes.packs.get(pack) {
            Some(size) => described(PACK_TYPE, pack.clone(), *size, format!("pack-{short}")),
            None => described(
                BLOB_TYPE,
                pack.clone(),
                sizes.blobs.get(pack).copied().unwrap_or(0),
                format!("blob-{short}"),
            ),
        });
    }
    Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        artifact_type: Some(RELEASE_TYPE.to_owned()),
        config: Descriptor {
            media_type: CONFIG_TYPE.to_owned(),
            digest: sha256(config),
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        },
        layers,
        subject: None,
        annotations: of_site(site),
    }
}

/// A manifest with the same layers, for a site and with the config of that.
pub(super) fn restated(manifest: Manifest, site: &SiteId, config: &[u8]) -> Manifest {
    Manifest {
        config: Descriptor {
            media_type: CONFIG_TYPE.to_owned(),
            digest: sha256(config),
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        },
        annotations: of_site(site),
        ..manifest
    }
}

/// The manifest of an improvement of the release whose manifest is `subject`.
pub(super) fn improvement(
    subject: Descriptor,
    variants: &[u8],
    packs: &BTreeMap<Digest, (&'static str, u64)>,
) -> Manifest {
    let digest = sha256(variants);
    let size = variants.len() as u64;
    let mut layers = vec![described(
        VARIANTS_TYPE,
        digest,
        size,
        "variants.json.zst".to_owned(),
    )];
    layers.extend(packs.iter().map(|(pack, (media_type, size))| {
        let title = format!("variants-{}", &pack.hex()[..12]);
        described(media_type, pack.clone(), *size, title)
    }));
    Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        artifact_type: Some(IMPROVEMENT_TYPE.to_owned()),
        config: Descriptor {
            media_type: EMPTY_TYPE.to_owned(),
            digest: sha256(EMPTY_CONFIG),
            size: EMPTY_CONFIG.len() as u64,
            annotations: BTreeMap::new(),
        },
        layers,
        subject: Some(subject),
        annotations: BTreeMap::new(),
    }
}

fn described(media_type: &str, digest: Digest, size: u64, title: String) -> Descriptor {
    let annotations = BTreeMap::from([(TITLE.to_owned(), title)]);
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        annotations,
    }
}

/// [`ReleaseConfig`] within an OCI image config, as labels too: what tools made for images require and show.
pub(super) fn config_bytes(site: &SiteId, routes: Routes) -> Vec<u8> {
    #[derive(Serialize)]
    struct ImageConfig {
        #[serde(flatten)]
        release: ReleaseConfig,
        architecture: &'static str,
        os: &'static str,
        config: serde_json::Value,
        rootfs: serde_json::Value,
    }
    let config = ImageConfig {
        release: ReleaseConfig {
            version: if routes.output.is_some() {
                OUTPUT_VERSION
            } else {
                1
            },
            project: site.project.clone(),
            environment: site.environment,
            routes,
        },
        architecture: "unknown",
        os: "unknown",
        config: json!({ "Labels": { (ENVIRONMENT): site.environment, (PROJECT): site.project } }),
        rootfs: json!({ "type": "layers", "diff_ids": [] }),
    };
    serde_json::to_vec(&config).expect("plain data with text keys always encodes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_is_read_as_ours_and_as_an_images() {
        let bytes = config_bytes(&"shop/preview/7".parse().unwrap(), Routes::default());
        let ours: ReleaseConfig = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(ours.environment.to_string(), "preview/7");
        let image: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(image["config"]["Labels"][PROJECT], "shop");
        assert_eq!(image["rootfs"]["type"], "layers");
    }
}
