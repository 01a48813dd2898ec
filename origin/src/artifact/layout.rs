//! An OCI image layout on disk (OCI image-spec, image-layout.md): `oci-layout`, `index.json`, `blobs/sha256/<hex>`.
//!
//! Invariant: a file below `blobs/` has the digest it is named by, and is complete and synced: it
//! is written beside, in `incoming/`, and renamed. `index.json` is an export for other tools; SQL
//! says which tag names what.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use helix_routing::artifact::MANIFEST_TYPE;
use helix_routing::id::Digest;
use helix_service::digest::sha256;
use helix_service::disk::{self, WriteError};
use serde_json::json;

/// The layout could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A folder cannot be made.
    #[error("make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A blob cannot be stored.
    #[error("store a blob in {}", path.display())]
    Store {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A blob that SQL names cannot be read.
    #[error("read blob {digest}")]
    Read {
        /// The blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// One of the layout's own files cannot be written.
    #[error("write the layout")]
    Write(#[from] WriteError),
}

/// The folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

/// One manifest as `index.json` lists it.
#[derive(Debug)]
pub struct Listed {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is.
    pub artifact_type: &'static str,
    /// Its name, if it has one, and what differs from one deployment of it to the next.
    pub annotations: BTreeMap<String, String>,
}

impl Layout {
    /// Opens the layout, making what is missing. What an earlier process left half written is removed.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn open(root: &Path) -> Result<Self, LayoutError> {
        let layout = Self {
            root: root.to_owned(),
        };
        // A leftover was never renamed, so nothing names it.
        let _ = fs::remove_dir_all(layout.incoming());
        make_folder(&layout.blobs())?;
        make_folder(&layout.incoming())?;
        disk::write_atomic(
            &root.join("oci-layout"),
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        if !root.join("index.json").exists() {
            layout.export(&[])?;
        }
        Ok(layout)
    }

    /// Where a blob lies. The digest is checked text, so this stays inside the layout.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Stores `bytes` under their digest. The same bytes again change nothing.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, LayoutError> {
        let digest = sha256(bytes);
        if self.renew(&digest) {
            return Ok(digest);
        }
        let beside = self.temporary();
        let written = File::create_new(&beside).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        self.settle(written, &beside, &digest)?;
        Ok(digest)
    }

    /// Where a file may grow until it is adopted; what is left there is removed at the next start.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.incoming().join(helix_service::random::hex16())
    }

    /// Takes a complete file as the blob `digest`, which the caller has computed over its bytes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn adopt(&self, file: &Path, digest: &Digest) -> Result<(), LayoutError> {
        let synced = File::open(file).and_then(|file| file.sync_all());
        self.settle(synced, file, digest)
    }

    /// Whether a blob is there; then it is young again, so that a collection that is under way spares it.
    fn renew(&self, digest: &Digest) -> bool {
        let renewed = File::options()
            .append(true)
            .open(self.path(digest))
            .and_then(|file| file.set_modified(SystemTime::now()));
        renewed.is_ok()
    }

    /// A whole blob, of `limit` bytes at most, which are compared with its digest.
    ///
    /// # Errors
    /// When it is not there, larger, or damaged.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, LayoutError> {
        let read = || {
            let path = self.path(digest);
            if fs::metadata(&path)?.len() > limit {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "larger than any legal one",
                ));
            }
            let bytes = fs::read(path)?;
            if sha256(&bytes) != *digest {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "its bytes are not what its digest says",
                ));
            }
            Ok(bytes)
        };
        read().map_err(|source| LayoutError::Read {
            digest: digest.clone(),
            source,
        })
    }

    /// The size of a blob, in bytes.
    ///
    /// # Errors
    /// When it is not there.
    pub fn size(&self, digest: &Digest) -> Result<u64, LayoutError> {
        match fs::metadata(self.path(digest)) {
            Ok(metadata) => Ok(metadata.len()),
            Err(source) => Err(LayoutError::Read {
                digest: digest.clone(),
                source,
            }),
        }
    }

    /// Removes a blob that nothing names. One that is not there is removed already.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, digest: &Digest) -> Result<(), LayoutError> {
        match fs::remove_file(self.path(digest)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(LayoutError::Store {
                path: self.blobs(),
                source,
            }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes `index.json` anew.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn export(&self, listed: &[Listed]) -> Result<(), LayoutError> {
        let manifests: Vec<_> = listed
            .iter()
            .map(|one| {
                json!({
                    "mediaType": MANIFEST_TYPE,
                    "digest": one.digest,
                    "size": one.size,
                    "artifactType": one.artifact_type,
                    "annotations": one.annotations,
                })
            })
            .collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        });
        disk::write_atomic(&self.root.join("index.json"), index.to_string().as_bytes())?;
        Ok(())
    }

    fn settle(
        &self,
        written: io::Result<()>,
        beside: &Path,
        digest: &Digest,
    ) -> Result<(), LayoutError> {
        let settled = written
            .and_then(|()| fs::rename(beside, self.path(digest)))
            .and_then(|()| disk::sync_folder(&self.blobs()));
        settled.map_err(|source| {
            // The first error is the one to report.
            let _ = fs::remove_file(beside);
            LayoutError::Store {
                path: self.blobs(),
                source,
            }
        })
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs").join("sha256")
    }

    fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }
}

/// Makes a folder and those above it.
pub(super) fn make_folder(path: &Path) -> Result<(), LayoutError> {
    fs::create_dir_all(path).map_err(|source| LayoutError::Folder {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_found_under_its_digest_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::open(folder.path()).unwrap();
        let digest = layout.put(b"abc").unwrap();
        assert_eq!(layout.put(b"abc").unwrap(), digest);
        assert_eq!(layout.read(&digest, 3).unwrap(), b"abc");
        assert!(layout.read(&digest, 2).is_err());
        assert_eq!(fs::read_dir(layout.incoming()).unwrap().count(), 0);
        fs::write(layout.path(&digest), b"abd").unwrap();
        assert!(layout.read(&digest, 3).is_err(), "damaged");
        layout.remove(&digest).unwrap();
        layout.remove(&digest).unwrap();
        assert!(layout.read(&digest, 3).is_err());
    }
}
