//! Manifests, configs, indexes and improvements: what is believed lies where it says, within limits, under a path that is one.
//!
//! The input is a manifest, an index, an improvement and a config in JSON, with lines of three dashes between them.
#![no_main]

use std::collections::BTreeMap;

use helix_routing::artifact::belief;
use helix_routing::artifact::{
    FileEntry, FileIndex, Improvement, MAX_FILE_BYTES, Manifest, OUTPUT_VERSION, ReleaseConfig,
    Variant,
};
use helix_routing::id::{Digest, SiteId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(4, "\n---\n");
    let mut part = || parts.next().unwrap_or_default();
    let (manifest, index, improvement, config) = (part(), part(), part(), part());
    believed_config(config);
    let Ok(manifest) = serde_json::from_str::<Manifest>(manifest) else {
        return;
    };
    let _ = belief::manifest(&manifest);
    let Ok(index) = serde_json::from_str::<FileIndex>(index) else {
        return;
    };
    if belief::index(&index, &manifest).is_err() {
        return;
    }
    let layers = layers(&manifest);
    for (path, entry) in &index.files {
        assert!(!path.is_empty() && !path.starts_with('/') && !path.contains('\\'));
        assert!(!path.split('/').any(|part| matches!(part, "" | "." | "..")));
        lies_within(entry, &layers);
        smaller(&entry.variants, entry.size, &layers);
    }
    let Ok(improvement) = serde_json::from_str::<Improvement>(improvement) else {
        return;
    };
    if let Ok(better) = belief::better(improvement, &manifest, &index) {
        for (digest, variants) in &better {
            let mut files = index.files.values();
            let file = files.find(|file| file.digest == *digest);
            smaller(variants, file.expect("a file of the release").size, &layers);
        }
    }
});

fn believed_config(config: &str) {
    let site: SiteId = "shop/production".parse().expect("a site");
    if let Ok(config) = serde_json::from_str::<ReleaseConfig>(config) {
        let is_known = (1..=OUTPUT_VERSION).contains(&config.version)
            && (config.routes.output.is_none() || config.version == OUTPUT_VERSION);
        let is_ours =
            is_known && config.project == site.project && config.environment == site.environment;
        assert_eq!(belief::config(config, &site).is_ok(), is_ours);
    }
}

/// Sizes of the layers that hold files.
fn layers(manifest: &Manifest) -> BTreeMap<Digest, u64> {
    let layers = manifest.layers.iter().skip(1);
    layers
        .map(|layer| (layer.digest.clone(), layer.size))
        .collect()
}

fn lies_within(entry: &FileEntry, layers: &BTreeMap<Digest, u64>) {
    let end = u128::from(entry.offset) + u128::from(entry.length);
    assert!(end <= u128::from(layers[&entry.pack]), "{entry:?}");
    assert!(entry.size <= MAX_FILE_BYTES, "{entry:?}");
    assert!(
        http::HeaderValue::from_str(&entry.media_type).is_ok(),
        "{entry:?}"
    );
}

fn smaller(variants: &[Variant], size: u64, layers: &BTreeMap<Digest, u64>) {
    for (at, variant) in variants.iter().enumerate() {
        assert!(variant.size < size, "{variant:?}");
        lies_within(&belief::stored(variant), layers);
        assert!(
            variants[..at]
                .iter()
                .all(|before| before.encoding != variant.encoding)
        );
    }
}
