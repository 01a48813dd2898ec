//! SHA-256 over bytes and streams, as the [`Digest`] that OCI names blobs by.

use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};
use helix_routing::id::Digest;

/// Read at a time: large enough that system calls do not count.
const PART_BYTES: usize = 64 * 1024;

/// The digest of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut sum = Sha256::new();
    sum.update(bytes);
    sum.finish()
}

/// The digest of everything `content` has.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of(content: &mut impl Read) -> io::Result<Digest> {
    let mut sum = Sha256::new();
    let mut part = vec![0; PART_BYTES];
    loop {
        match content.read(&mut part)? {
            0 => return Ok(sum.finish()),
            read => sum.update(&part[..read]),
        }
    }
}

/// A digest of bytes that arrive in parts.
#[derive(Clone)]
pub struct Sha256(Context);

impl Sha256 {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::from_hex(&hex::encode(self.0.finish())).expect("a SHA-256 is 64 hex digits")
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_whole_agree_with_the_published_vector() {
        let mut sum = Sha256::new();
        sum.update(b"a");
        sum.update(b"bc");
        let whole = sha256(b"abc");
        assert_eq!(sum.finish(), whole);
        assert!(whole.hex().starts_with("ba7816bf8f01cfea"));
    }
}
