//! Artifacts on this edge's disk, by digest, and the bytes of their files.
use helix_routing::artifact::FileEntry;
use helix_routing::id::Digest;

use crate::release::Body;

/// Why a file's bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing of this digest is held.
    #[error("content {digest} is not held")]
    Missing {
        /// The content.
        digest: Digest,
    },
}

/// The store.
#[derive(Debug)]
pub struct Store;
/// Keeps contents from being collected.
#[derive(Debug)]
pub struct Held;

impl Store {
    /// The bytes of one file.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn body(&self, entry: &FileEntry) -> Result<Body, StoreError> {
        Err(StoreError::Missing { digest: entry.digest.clone() })
    }
}
