//! Large contents as they arrive, in as many requests as it takes.
//!
//! A partial is one file per (project, content, encoding, encoded length): `uploads/<project>/<hex>-<encoding>-<length>`.
//! Its size on disk is the offset to go on from, so a process that dies loses nothing it had written.
//!
//! Invariant: one request at a time writes to a partial, and only at its end. A partial is a blob
//! only after [`Partials::verify`] has hashed what it decodes to.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Take};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use helix_routing::artifact::{Encoding, MAX_FILE_BYTES};
use helix_routing::id::{Digest, ProjectName};
use helix_service::digest::Sha256;
use tokio::sync::OwnedMutexGuard;

use super::layout::{LayoutError, make_folder};

/// Largest zstd window that is decoded, as a power of two: 8 MiB, what zstd's own levels up to 19 use.
const MAX_WINDOW_LOG: u32 = 23;
/// How much is read and hashed at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Encoded bytes may exceed the content by this: frame head, block heads and checksum of incompressible data.
const ENCODING_OVERHEAD_BYTES: u64 = MAX_FILE_BYTES / 128;
/// Largest encoded content.
pub const MAX_ENCODED_BYTES: u64 = MAX_FILE_BYTES + ENCODING_OVERHEAD_BYTES;

/// The folder of partial uploads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Partials {
    root: PathBuf,
    /// Who writes what; entries are dropped when nobody holds them.
    writers: Arc<Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>>,
}

/// Which upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Whose.
    pub project: ProjectName,
    /// Digest of the content, decoded.
    pub digest: Digest,
    /// How it is sent.
    pub encoding: Encoding,
    /// How many encoded bytes there are in all.
    pub length: u64,
}

/// What a complete upload turned out to be.
#[derive(Debug)]
pub struct Verified {
    /// Digest of the encoded bytes.
    pub blob: Digest,
    /// Size of the content, decoded.
    pub size: u64,
}

/// A complete upload was refused.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The decoded bytes have another digest.
    #[error("content {digest} has other bytes: they hash to {found}")]
    Digest {
        /// The digest it was sent as.
        digest: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// Larger than a file may be.
    #[error("content {digest} decodes to more than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The digest it was sent as.
        digest: Digest,
    },
    /// It cannot be read, or is not one zstd frame.
    #[error("decode content {digest}")]
    Undecodable {
        /// The digest it was sent as.
        digest: Digest,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Partials {
    /// Opens the folder, making it if it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> Result<Self, LayoutError> {
        make_folder(root)?;
        Ok(Self {
            root: root.to_owned(),
            writers: Arc::default(),
        })
    }

    /// The file of an upload; its folder exists afterwards.
    ///
    /// # Errors
    /// When the project's folder cannot be made.
    pub fn file(&self, upload: &Upload) -> Result<PathBuf, LayoutError> {
        let folder = self.root.join(upload.project.as_str());
        make_folder(&folder)?;
        Ok(folder.join(format!(
            "{}-{}-{}",
            upload.digest.hex(),
            name(upload.encoding),
            upload.length
        )))
    }

    /// Waits until nobody else writes to `file`.
    pub async fn lock(&self, file: &Path) -> OwnedMutexGuard<()> {
        let writer = {
            let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
            writers.retain(|_, writer| Arc::strong_count(writer) > 1);
            Arc::clone(writers.entry(file.to_owned()).or_default())
        };
        writer.lock_owned().await
    }

    /// How many encoded bytes of a content have arrived, in whichever encoding has come farthest.
    #[must_use]
    pub fn offset(&self, project: &ProjectName, digest: &Digest) -> u64 {
        let Ok(entries) = fs::read_dir(self.root.join(project.as_str())) else {
            return 0;
        };
        let sizes = entries
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(digest.hex())
            })
            .filter_map(|entry| entry.metadata().ok())
            .map(|metadata| metadata.len());
        sizes.max().unwrap_or(0)
    }

    /// Hashes a complete upload, encoded and decoded. Reads the whole file, never more than a chunk at a time.
    ///
    /// # Errors
    /// When it is not the content it was sent as.
    pub fn verify(upload: &Upload, file: &Path) -> Result<Verified, VerifyError> {
        let digest = || upload.digest.clone();
        let (blob, found, size) =
            hash(upload.encoding, file).map_err(|source| VerifyError::Undecodable {
                digest: digest(),
                source,
            })?;
        if size > MAX_FILE_BYTES {
            return Err(VerifyError::TooLarge { digest: digest() });
        }
        if found != upload.digest {
            return Err(VerifyError::Digest {
                digest: digest(),
                found,
            });
        }
        Ok(Verified { blob, size })
    }

    /// Removes what nobody went on with for `kept`.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn sweep(&self, kept: Duration) -> io::Result<()> {
        for project in fs::read_dir(&self.root)? {
            for entry in fs::read_dir(project?.path())? {
                let entry = entry?;
                let changed = entry.metadata()?.modified()?;
                let age = SystemTime::now()
                    .duration_since(changed)
                    .unwrap_or_default();
                if age > kept {
                    tracing::info!(file = %entry.path().display(), "partial upload removed: nobody went on with it");
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

const fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Identity => "identity",
        Encoding::Zstd => "zstd",
    }
}

/// Digest of the file, digest of what it decodes to, and the size of that, counted no further than one past the limit.
fn hash(encoding: Encoding, file: &Path) -> io::Result<(Digest, Digest, u64)> {
    let encoded = Summed {
        inner: File::open(file)?,
        sum: Sha256::new(),
    };
    match encoding {
        Encoding::Identity => {
            let mut limited = encoded.take(MAX_FILE_BYTES + 1);
            let (found, size) = drain(&mut limited)?;
            Ok((found.clone(), found, size))
        }
        Encoding::Zstd => {
            let buffered = BufReader::with_capacity(CHUNK_BYTES, encoded);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?.single_frame();
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            let mut limited: Take<_> = decoder.take(MAX_FILE_BYTES + 1);
            let (found, size) = drain(&mut limited)?;
            let mut rest = limited.into_inner().finish();
            if rest.buffer().is_empty() && rest.read(&mut [0; 1])? == 0 {
                return Ok((rest.into_inner().sum.finish(), found, size));
            }
            if size > MAX_FILE_BYTES {
                // Refused by size; its encoded digest is of no interest.
                return Ok((found.clone(), found, size));
            }
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "bytes follow its zstd frame",
            ))
        }
    }
}

fn drain(reader: &mut impl Read) -> io::Result<(Digest, u64)> {
    let (mut sum, mut size) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            return Ok((sum.finish(), size));
        }
        sum.update(&chunk[..read]);
        size += read as u64;
    }
}

/// Hashes what is read through it.
struct Summed<R> {
    inner: R,
    sum: Sha256,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sum.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_service::digest::sha256;

    fn upload(content: &[u8], encoded: &[u8], encoding: Encoding) -> Upload {
        Upload {
            project: "shop".parse().unwrap(),
            digest: sha256(content),
            encoding,
            length: encoded.len() as u64,
        }
    }

    #[test]
    fn a_complete_upload_is_hashed_encoded_and_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3_000_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let encoded = zstd::bulk::compress(&content, 3).unwrap();
        let file = folder.path().join("x");
        fs::write(&file, &encoded).unwrap();
        let verified =
            Partials::verify(&upload(&content, &encoded, Encoding::Zstd), &file).unwrap();
        assert_eq!(verified.blob, sha256(&encoded));
        assert_eq!(verified.size, content.len() as u64);
        fs::write(&file, &content).unwrap();
        let verified =
            Partials::verify(&upload(&content, &content, Encoding::Identity), &file).unwrap();
        assert_eq!(verified.blob, sha256(&content));
    }

    #[test]
    fn what_is_not_the_content_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        fs::write(&file, b"evil").unwrap();
        let refused =
            |encoding| Partials::verify(&upload(b"good", b"evil", encoding), &file).unwrap_err();
        assert!(matches!(
            refused(Encoding::Identity),
            VerifyError::Digest { .. }
        ));
        assert!(matches!(
            refused(Encoding::Zstd),
            VerifyError::Undecodable { .. }
        ));
        let mut trailing = zstd::bulk::compress(b"good", 3).unwrap();
        trailing.push(0);
        fs::write(&file, &trailing).unwrap();
        assert!(matches!(
            refused(Encoding::Zstd),
            VerifyError::Undecodable { .. }
        ));
    }

    #[test]
    fn only_partials_that_nobody_goes_on_with_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let partials = Partials::open(folder.path()).unwrap();
        let upload = upload(b"good", b"good", Encoding::Identity);
        let file = partials.file(&upload).unwrap();
        fs::write(&file, b"go").unwrap();
        assert_eq!(partials.offset(&upload.project, &upload.digest), 2);
        partials.sweep(Duration::from_secs(3600)).unwrap();
        assert!(file.exists());
        partials.sweep(Duration::ZERO).unwrap();
        assert!(!file.exists());
        assert_eq!(partials.offset(&upload.project, &upload.digest), 0);
    }

    #[tokio::test]
    async fn one_request_at_a_time_writes_to_a_partial() {
        let folder = tempfile::tempdir().unwrap();
        let partials = Partials::open(folder.path()).unwrap();
        let file = folder.path().join("x");
        let held = partials.lock(&file).await;
        let waiting = tokio::spawn({
            let (partials, file) = (partials.clone(), file.clone());
            async move { drop(partials.lock(&file).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.unwrap();
    }
}
