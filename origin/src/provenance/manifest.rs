//! Pure. The referrer that holds a bundle, as clients of Sigstore look for it.
//!
//! After cosign's BUNDLE_SPEC: `artifactType` and the one layer are of the bundle's type, `subject` is the artifact, and the
//! annotations say what is in it. What differs from one deployment to the next is said here and in no artifact's own manifest,
//! so that the same files stay the same artifact.

use helix_routing::artifact::{Descriptor, Manifest};
use helix_routing::provenance::Provenance;
use helix_routing::provenance::bundle::BUNDLE_TYPE;
use helix_routing::provenance::statement::PREDICATE_TYPE;
use helix_routing::time::Timestamp;

use crate::artifact::annotation;
use crate::artifact::referrer::{self, Said};

const CREATED: &str = "org.opencontainers.image.created";
const CONTENT: &str = "dev.sigstore.bundle.content";
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

/// A bundle as a referrer holds it.
pub(super) const fn said(bundle: &[u8]) -> Said<'_> {
    Said {
        kind: BUNDLE_TYPE,
        title: "provenance.sigstore.json",
        bytes: bundle,
    }
}

/// The referrer of an artifact.
pub(super) fn referrer(
    provenance: &Provenance,
    subject: Descriptor,
    said: &Said<'_>,
    created: Timestamp,
) -> Manifest {
    let mut annotations = annotation::of_site(&provenance.site);
    annotations.extend([
        (CONTENT.to_owned(), "dsse-envelope".to_owned()),
        (PREDICATE.to_owned(), PREDICATE_TYPE.to_owned()),
        (CREATED.to_owned(), created.rfc3339()),
    ]);
    if let Some(commit) = provenance.source.commit() {
        annotations.insert(annotation::COMMIT.to_owned(), commit.to_string());
    }
    referrer::manifest(subject, said, annotations)
}
