//! Digests of many files, by a few threads.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use helix_routing::id::Digest;
use helix_service::digest::Sha256;

use super::Progress;
use super::folder::LocalFile;

/// More threads than this only wait for the disk.
const MAX_THREADS: usize = 8;
/// Read at a time: large enough that system calls do not count.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// A file could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("read file {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("file {path} changed while it was read")]
    Changed { path: String },
}

/// The digest of each file, in their order.
pub fn hash_all(files: &[LocalFile], progress: &impl Progress) -> Result<Vec<Digest>, HashError> {
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, file)) = take(files, &next) {
            done.push((index, hash(file)?));
            progress.add(file.size);
        }
        Ok(done)
    };
    let mut done = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let parts = workers
            .into_iter()
            .map(|worker| worker.join().expect("hashing does not panic"));
        parts.collect::<Result<Vec<_>, HashError>>()
    })?
    .concat();
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, digest)| digest).collect())
}

fn take<'a>(files: &'a [LocalFile], next: &AtomicUsize) -> Option<(usize, &'a LocalFile)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    files.get(index).map(|file| (index, file))
}

fn hash(file: &LocalFile) -> Result<Digest, HashError> {
    let (digest, size) = hash_file(&file.source).map_err(|source| HashError::Read {
        path: file.path.clone(),
        source,
    })?;
    if size == file.size {
        Ok(digest)
    } else {
        Err(HashError::Changed {
            path: file.path.clone(),
        })
    }
}

fn hash_file(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((sum.finish(), size)),
            read => {
                sum.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_service::digest::sha256;

    #[test]
    fn digests_come_in_the_order_of_the_files_and_a_changed_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut files: Vec<LocalFile> = (0..50)
            .map(|n| {
                let source = folder.path().join(n.to_string());
                std::fs::write(&source, format!("file {n}")).unwrap();
                LocalFile {
                    path: n.to_string(),
                    size: format!("file {n}").len() as u64,
                    source,
                }
            })
            .collect();
        let digests = hash_all(&files, &()).unwrap();
        for (n, digest) in digests.iter().enumerate() {
            assert_eq!(*digest, sha256(format!("file {n}").as_bytes()));
        }
        files[7].size += 1;
        assert_eq!(
            hash_all(&files, &()).unwrap_err().to_string(),
            "file 7 changed while it was read"
        );
    }
}
