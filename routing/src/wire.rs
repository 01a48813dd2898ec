//! Versioned encoding of everything that is stored or sent between origin and edges.
//!
//! A value is one version byte and a postcard body. Bytes from a newer version, bytes left
//! over and bytes that do not fit are errors, never a panic: the reader keeps what it has. What has changed its form
//! is still read in the forms before.

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
    /// The oldest version that is still read.
    const OLDEST: u8 = Self::VERSION;
    /// The most bytes that are read.
    const MAX_BYTES: usize = 256 * 1024;

    /// The value as bytes.
    #[must_use]
    fn encode(&self) -> Vec<u8> {
        body_of(Self::VERSION, self)
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
        if found == Self::VERSION {
            whole(body).ok_or(WireError::Malformed { what })
        } else if (Self::OLDEST..Self::VERSION).contains(&found) {
            Self::older(found, body).ok_or(WireError::Malformed { what })
        } else {
            Err(WireError::Version {
                what,
                found,
                newest: Self::VERSION,
            })
        }
    }

    /// Reads the body of a version between [`Wire::OLDEST`] and this build's; none when it is no such value.
    #[must_use]
    fn older(_version: u8, _body: &[u8]) -> Option<Self> {
        None
    }
}

/// The value that `body` is, to its last byte.
pub(crate) fn whole<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Some(value),
        Ok(_) | Err(_) => None,
    }
}

/// `value` as a body after the byte of this version.
pub(crate) fn body_of(version: u8, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, Vec::from([version]))
        .expect("plain data with known lengths always encodes")
}
