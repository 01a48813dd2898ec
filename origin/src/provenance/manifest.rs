//! Pure. The referrer that holds a bundle, as clients of Sigstore look for it.
//!
//! After cosign's BUNDLE_SPEC: `artifactType` and the one layer are of the bundle's type, `subject` is the artifact, and the
//! annotations say what is in it. What differs from one deployment to the next is said here and in no artifact's own manifest,
//! so that the same files stay the same artifact.

use std::collections::BTreeMap;

use helix_routing::artifact::{Descriptor, EMPTY_CONFIG, EMPTY_TYPE, MANIFEST_TYPE, Manifest};
use helix_routing::provenance::Provenance;
use helix_routing::provenance::bundle::BUNDLE_TYPE;
use helix_routing::provenance::statement::PREDICATE_TYPE;
use helix_routing::time::Timestamp;
use helix_service::digest::sha256;

use crate::artifact::annotation;

const TITLE: &str = "org.opencontainers.image.title";
const CREATED: &str = "org.opencontainers.image.created";
const CONTENT: &str = "dev.sigstore.bundle.content";
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

/// The referrer of an artifact whose manifest has `size` bytes.
pub(super) fn referrer(
    provenance: &Provenance,
    size: u64,
    bundle: &[u8],
    created: Timestamp,
) -> Manifest {
    let title = "provenance.sigstore.json".to_owned();
    let mut annotations = annotation::of_site(&provenance.site);
    annotations.extend([
        (CONTENT.to_owned(), "dsse-envelope".to_owned()),
        (PREDICATE.to_owned(), PREDICATE_TYPE.to_owned()),
        (CREATED.to_owned(), created.rfc3339()),
    ]);
    if let Some(commit) = provenance.source.commit() {
        annotations.insert(annotation::COMMIT.to_owned(), commit.to_string());
    }
    Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        artifact_type: Some(BUNDLE_TYPE.to_owned()),
        config: descriptor(EMPTY_TYPE, EMPTY_CONFIG),
        layers: vec![Descriptor {
            annotations: BTreeMap::from([(TITLE.to_owned(), title)]),
            ..descriptor(BUNDLE_TYPE, bundle)
        }],
        subject: Some(Descriptor {
            media_type: MANIFEST_TYPE.to_owned(),
            digest: provenance.artifact.clone(),
            size,
            annotations: BTreeMap::new(),
        }),
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
