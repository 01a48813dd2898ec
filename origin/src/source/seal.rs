//! Secrets at rest: sealed with a key that lies beside the database, and not in it.
//!
//! ```text
//! "1:" base64( salt (24 random bytes)  ChaCha20-Poly1305 with 16 bytes of tag )
//! ```
//!
//! The key of each value is HKDF-SHA256 of the file's key and the salt, so it is used once and random salts never meet. What the
//! value belongs to is authenticated with it: a sealed value that is moved to another project, name or version does not open.
//!
//! Invariant: no error and no log has a byte of a key or of a value.

use std::path::Path;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::key_file::{self, KeyFileError};

const VERSION: &str = "1:";
const SALT_BYTES: usize = 24;
/// What keys of values are derived for.
const PURPOSE: &[u8] = b"helix sealed value 1";

/// A value cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Its key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The library refuses, which it never does for keys of this length.
    #[error("seal {what}")]
    Seal {
        /// What it belongs to.
        what: String,
    },
    /// It was sealed with another key, for something else, or is damaged.
    #[error("open {what}: it is damaged, or was sealed with another key")]
    Open {
        /// What it belongs to.
        what: String,
    },
}

/// What secrets are sealed with.
pub struct SealKey(Vec<u8>);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    /// The key in this file; made, readable by its owner only, if there is none.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds no key.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let key = key_file::open(path, "sealed values")?;
        Ok(Self(key.into_bytes()))
    }

    /// Seals a value for `what` it belongs to.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn seal(&self, what: &str, value: &str) -> Result<String, SealError> {
        let refused = || SealError::Seal {
            what: what.to_owned(),
        };
        let salt: [u8; SALT_BYTES] = rand::random();
        let key = self.key(&salt).ok_or_else(refused)?;
        let mut sealed = value.as_bytes().to_vec();
        key.seal_in_place_append_tag(nonce(), Aad::from(what.as_bytes()), &mut sealed)
            .map_err(|_| refused())?;
        let bytes = [salt.as_slice(), &sealed].concat();
        Ok(format!("{VERSION}{}", STANDARD.encode(bytes)))
    }

    /// Opens what was sealed for the same.
    ///
    /// # Errors
    /// When it was sealed with another key or for something else, or is damaged.
    pub fn unseal(&self, what: &str, sealed: &str) -> Result<String, SealError> {
        self.opened(what, sealed).ok_or_else(|| SealError::Open {
            what: what.to_owned(),
        })
    }

    fn opened(&self, what: &str, sealed: &str) -> Option<String> {
        let bytes = STANDARD.decode(sealed.strip_prefix(VERSION)?).ok()?;
        let (salt, sealed) = bytes.split_at_checked(SALT_BYTES)?;
        let mut sealed = sealed.to_vec();
        let value = self
            .key(salt)?
            .open_in_place(nonce(), Aad::from(what.as_bytes()), &mut sealed)
            .ok()?;
        String::from_utf8(value.to_vec()).ok()
    }

    fn key(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let derived = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let key: UnboundKey = derived.expand(&[PURPOSE], &CHACHA20_POLY1305).ok()?.into();
        Some(LessSafeKey::new(key))
    }
}

/// Each key seals one value, so its nonce is always the same.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_value_opens_for_what_it_was_sealed_for_and_for_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let key = SealKey::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let sealed = key
            .seal("shop|production|TOKEN|1", "s3cret \u{e9}")
            .unwrap();
        assert!(!sealed.contains("s3cret"));
        assert_ne!(
            sealed,
            key.seal("shop|production|TOKEN|1", "s3cret \u{e9}")
                .unwrap()
        );
        let again = SealKey::open(&path).unwrap();
        let opened = again.unseal("shop|production|TOKEN|1", &sealed).unwrap();
        assert_eq!(opened, "s3cret \u{e9}");
        for what in ["shop|production|TOKEN|2", "shop|preview|TOKEN|1", ""] {
            assert!(key.unseal(what, &sealed).is_err(), "{what}");
        }
        let other = SealKey::open(&folder.path().join("other.key")).unwrap();
        assert!(other.unseal("shop|production|TOKEN|1", &sealed).is_err());
    }

    #[test]
    fn damaged_values_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let key = SealKey::open(&folder.path().join("seal.key")).unwrap();
        let sealed = key.seal("a", "value").unwrap();
        for cut in 0..sealed.len() {
            assert!(key.unseal("a", &sealed[..cut]).is_err(), "cut at {cut}");
        }
        let path = folder.path().join("short.key");
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(
            SealKey::open(&path),
            Err(SealError::Key(KeyFileError::Short { .. }))
        ));
    }
}
