//! Removes what nothing references.
//!
//! Held blobs stay, whoever holds them. What a record names but is not ready (its preparation failed, or has
//! not begun) stays as far as its manifest is here to say what it is made of.

use std::collections::HashSet;
use std::fs;
use std::io;

use helix_routing::id::Digest;

use super::{Kind, Store, index, prepare};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many blobs.
    pub blobs: u64,
    /// Their size on disk, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Removes every blob that is neither held nor part of an artifact in `named`. Blocks.
    ///
    /// # Errors
    /// When a folder cannot be read; what could not be removed is left for the next time.
    pub fn sweep(&self, named: &[Digest]) -> io::Result<Swept> {
        let keep: HashSet<Digest> = named
            .iter()
            .flat_map(|artifact| self.parts(artifact))
            .collect();
        let mut swept = Swept::default();
        for kind in Kind::ALL {
            for entry in fs::read_dir(self.root.join(kind.folder()))? {
                let entry = entry?;
                let name = entry.file_name();
                let Some(digest) = name.to_str().and_then(|hex| Digest::from_hex(hex).ok()) else {
                    continue;
                };
                if keep.contains(&digest) {
                    continue;
                }
                let bytes = entry.metadata().map_or(0, |meta| meta.len());
                if let Some(Ok(())) = self
                    .holds
                    .unless_held(&digest, || fs::remove_file(entry.path()))
                {
                    self.verified.pin().remove(&digest);
                    swept.blobs += 1;
                    swept.bytes += bytes;
                }
            }
        }
        self.sweep_notes()?;
        Ok(swept)
    }

    /// Everything an artifact is made of, as far as it is here.
    fn parts(&self, artifact: &Digest) -> Vec<Digest> {
        let mut parts = vec![artifact.clone()];
        let Some(manifest) = self
            .meta_here(artifact)
            .and_then(|bytes| index::manifest(&bytes).ok())
        else {
            return parts;
        };
        parts.extend(prepare::named(&manifest));
        if let Some(index) = self
            .meta_here(&manifest.layers[0].digest)
            .and_then(|bytes| index::index(&bytes, &manifest).ok())
        {
            parts.extend(prepare::large_files(&index));
        }
        parts
    }

    fn meta_here(&self, digest: &Digest) -> Option<Vec<u8>> {
        fs::read(self.path(Kind::Meta, digest))
            .ok()
            .filter(|bytes| helix_service::digest::sha256(bytes) == *digest)
    }
}
