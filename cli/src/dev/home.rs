//! The folder that `helix dev` keeps everything in.
//!
//! Invariant: one `helix dev` per folder, held by a lock that ends with the process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Only its owner sees into it: it has keys and tokens.
const FOLDER_MODE: u32 = 0o700;
/// Everything in it, by kind.
const FOLDERS: [&str; 5] = ["keys", "config", "data", "log", "run"];

/// The folder, locked.
#[derive(Debug)]
pub(super) struct Home {
    root: PathBuf,
    _lock: File,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum HomeError {
    #[error("make folder {}", path.display())]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("lock {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another helix dev{by} runs in {}; end it, or choose another folder with --dir", path.display())]
    Taken { path: PathBuf, by: String },
}

impl Home {
    /// Makes the folder where it is missing, and takes its lock.
    pub(super) fn open(path: &Path) -> Result<Self, HomeError> {
        let made = |path: &Path| {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(FOLDER_MODE);
            builder.create(path).map_err(|source| HomeError::Make {
                path: path.to_owned(),
                source,
            })
        };
        made(path)?;
        let root = fs::canonicalize(path).map_err(|source| HomeError::Make {
            path: path.to_owned(),
            source,
        })?;
        let lock = lock(&root)?;
        FOLDERS
            .iter()
            .try_for_each(|folder| made(&root.join(folder)))?;
        Ok(Self { root, _lock: lock })
    }

    /// Its absolute path.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A key or token.
    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.root.join("keys").join(name)
    }

    /// A process's configuration.
    pub(super) fn config(&self, name: &str) -> PathBuf {
        self.root.join("config").join(name)
    }

    /// What a process keeps.
    pub(super) fn data(&self, name: &str) -> PathBuf {
        self.root.join("data").join(name)
    }

    /// What a process says.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    /// Where process ids are.
    pub(super) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The ports in use.
    pub(super) fn ports(&self) -> PathBuf {
        self.root.join("ports.json")
    }

    /// What is written once everything is ready.
    pub(super) fn info(&self) -> PathBuf {
        self.root.join("dev.json")
    }
}

fn lock(root: &Path) -> Result<File, HomeError> {
    let path = root.join("lock");
    let failed = |source| HomeError::Lock {
        path: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Whose it is only helps to find it.
            let _ = file.read_to_string(&mut holder);
            let by = if holder.is_empty() {
                holder
            } else {
                format!(" (process {})", holder.trim())
            };
            return Err(HomeError::Taken {
                path: root.to_owned(),
                by,
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_second_one_in_the_same_folder_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a/.helix");
        let first = Home::open(&dir).unwrap();
        let error = Home::open(&dir).unwrap_err().to_string();
        assert!(
            error.contains(&format!(
                "another helix dev (process {}) runs in",
                std::process::id()
            )),
            "{error}"
        );
        drop(first);
        // A child that another test forks has it, too, for as long as it takes to become another program.
        let until = Instant::now() + Duration::from_secs(10);
        while let Err(error) = Home::open(&dir) {
            assert!(Instant::now() < until, "{error}");
            std::thread::yield_now();
        }
    }
}
