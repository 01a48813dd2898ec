//! Keys in files of their own beside the database: made once, readable by their owner only, and part of every backup of keys.
//!
//! Invariant: no error has a byte of a key.

use std::io;
use std::path::{Path, PathBuf};

use helix_service::disk::{WriteError, write_secret};
use helix_service::random;

/// Shortest key that a file may hold, in bytes.
const MIN_BYTES: usize = 32;

/// A key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("read the key of {what} {}", path.display())]
    Read {
        /// What the key is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is no key.
    #[error("the key of {what} {} is shorter than {MIN_BYTES} characters", path.display())]
    Short {
        /// What the key is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("make the key of {what}")]
    Write {
        /// What the key is for.
        what: &'static str,
        /// Why not.
        #[source]
        source: WriteError,
    },
}

/// The key of `what` in this file; made if there is none.
///
/// # Errors
/// When the file cannot be read or made, or holds no key.
pub fn open(path: &Path, what: &'static str) -> Result<String, KeyFileError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let text = random::secret();
            let written = write_secret(path, text.as_bytes());
            written.map_err(|source| KeyFileError::Write { what, source })?;
            text
        }
        Err(source) => {
            let path = path.to_owned();
            return Err(KeyFileError::Read { what, path, source });
        }
    };
    let key = text.trim();
    if key.len() < MIN_BYTES {
        let path = path.to_owned();
        return Err(KeyFileError::Short { what, path });
    }
    Ok(key.to_owned())
}
