//! The rules of ARCHITECTURE.md and CONTRIBUTING.md that a machine can hold us to.
//!
//! Each test names one rule and lists every place that breaks it. They read manifests, the lock
//! file and sources; they build nothing and need no network.
//! How each was seen to fail: `docs/decisions/0008-rules-are-tests.md`.
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod dependencies;
mod sources;
mod versions;

use std::path::PathBuf;

/// The checkout. Asked at run time, so that the checks can be pointed at a copy with a rule broken.
fn root() -> PathBuf {
    let package = std::env::var("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    PathBuf::from(package).parent().unwrap().to_path_buf()
}

/// Fails with every violation at once, so that one run shows them all.
#[track_caller]
fn none_of(violations: &[String], rule: &str) {
    assert!(
        violations.is_empty(),
        "{rule}:\n  {}",
        violations.join("\n  ")
    );
}
