//! Versioned encoding of everything that is stored or sent between origin and edges.
//!
//! A value is one version byte and a postcard body. Bytes from a newer version, bytes left
//! over and bytes that do not fit are errors, never a panic: the reader keeps what it has.

use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The version byte is one this build does not know.
    #[error("{what} has version {found}, this build reads up to {newest}")]
    Version {
        /// What was being read.
        what: &'static str,
        /// The version byte found.
        found: u8,
        /// The newest version this build reads.
        newest: u8,
    },
    /// Not a well-formed value.
    #[error("{what} is malformed")]
    Malformed {
        /// What was being read.
        what: &'static str,
    },
    /// Larger than any legal value.
    #[error("{what} has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The largest size that is read, in bytes.
        limit: usize,
    },
}

/// A value with a version on the wire.
pub trait Wire: Serialize + DeserializeOwned {
    /// What it is called in errors.
    const WHAT: &'static str;
    /// The version byte that this build writes and the newest it reads.
    const VERSION: u8 = 1;
    /// The most bytes that are read.
    const MAX_BYTES: usize = 256 * 1024;

    /// The value as bytes.
    #[must_use]
    fn encode(&self) -> Vec<u8> {
        let start = Vec::from([Self::VERSION]);
        postcard::to_extend(self, start).expect("plain data with known lengths always encodes")
    }

    /// Reads a value that [`Wire::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are too many, of a newer version, or not such a value.
    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let what = Self::WHAT;
        if bytes.len() > Self::MAX_BYTES {
            return Err(WireError::TooLarge {
                what,
                size: bytes.len(),
                limit: Self::MAX_BYTES,
            });
        }
        let (&found, body) = bytes.split_first().ok_or(WireError::Malformed { what })?;
        if found != Self::VERSION {
            return Err(WireError::Version {
                what,
                found,
                newest: Self::VERSION,
            });
        }
        match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok(_) | Err(_) => Err(WireError::Malformed { what }),
        }
    }
}
