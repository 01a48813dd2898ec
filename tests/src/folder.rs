//! Folders to deploy.

use std::fs;
use std::path::Path;

use helix_routing::id::Digest;
use helix_service::digest::sha256;
use tempfile::TempDir;

/// A folder that is gone when this is dropped.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A site of one page that says `text`.
    #[must_use]
    pub fn page(text: &str) -> Self {
        Self::empty().with("index.html", page(text).as_bytes())
    }

    /// The same folder with one more file.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn with(self, path: &str, content: &[u8]) -> Self {
        self.write(path, content);
        self
    }

    /// Writes a file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: &[u8]) {
        let target = self.0.path().join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, content).unwrap();
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The page that [`Folder::page`] holds.
#[must_use]
pub fn page(text: &str) -> String {
    format!("<!doctype html><title>{text}</title><p>{text}</p>\n")
}

/// Its digest.
#[must_use]
pub fn page_digest(text: &str) -> Digest {
    sha256(page(text).as_bytes())
}

/// `size` bytes that do not compress and differ by `seed` (a 64-bit linear congruential generator).
#[must_use]
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let words = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    });
    let mut bytes: Vec<u8> = words
        .take(size.div_ceil(4))
        .flat_map(u32::to_le_bytes)
        .collect();
    bytes.truncate(size);
    bytes
}
