//! What surrounds a backup: encrypted for one recipient, so that the machine that makes backups cannot read them.
//!
//! ```text
//! "helix-backup" version(1)  key made for this file (65, P-256 point)  recipient (8)  chunks
//! chunk: up to 64 KiB, AES-256-GCM with 16 bytes of tag; its number and whether it is the last are its nonce
//! ```
//!
//! The key of the chunks is HKDF-SHA256 of the agreement (ECDH) between the file's key and the recipient's, over the head. A
//! byte that was changed, chunks in another order and a file that was cut are all found before anything of them is used.

use std::io::{self, Read, Write};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use helix_service::digest::sha256;

const MAGIC: &[u8; 12] = b"helix-backup";
/// The only version there is.
const VERSION: u8 = 1;
const POINT_BYTES: usize = 65;
const RECIPIENT_BYTES: usize = 8;
const HEAD_BYTES: usize = MAGIC.len() + 1 + POINT_BYTES + RECIPIENT_BYTES;
const CHUNK_BYTES: usize = 64 * 1024;
const TAG_BYTES: usize = 16;
/// What the key of a file is derived for.
const PURPOSE: &[u8] = b"helix backup 1";
/// What stands before a private key in its file.
const IDENTITY: &str = "helix-backup-key-1:";

/// A file is no backup that can be read.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It begins with something else.
    #[error("it is no backup of helix-origin")]
    Foreign,
    /// It was made by a later build.
    #[error("it has version {0}, this build reads up to {VERSION}")]
    Newer(u8),
    /// Another key opens it.
    #[error("it was made for another key: {0}")]
    Recipient(String),
    /// A byte was changed, or the end is missing.
    #[error("it is damaged, or its end is missing")]
    Damaged,
    /// The text is no key.
    #[error("that is no {0} of backups; `helix-origin backup-key` makes one")]
    Key(&'static str),
    /// The file cannot be read or written.
    #[error("read or write it")]
    Io(#[from] io::Error),
}

/// Who may read backups: the public half of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(Vec<u8>);

/// The key that opens backups.
#[derive(Debug)]
pub struct Identity(PrivateKey);

impl Recipient {
    /// Reads what [`Recipient::text`] wrote.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        let bytes = hex::decode(text.trim()).ok();
        let bytes = bytes.filter(|bytes| bytes.len() == POINT_BYTES && bytes[0] == 4);
        bytes.map(Self).ok_or(EnvelopeError::Key("recipient"))
    }

    /// As it is handed on.
    #[must_use]
    pub fn text(&self) -> String {
        hex::encode(&self.0)
    }

    fn name(&self) -> [u8; RECIPIENT_BYTES] {
        let digest = sha256(&self.0);
        let mut name = [0; RECIPIENT_BYTES];
        name.copy_from_slice(&digest.hex().as_bytes()[..RECIPIENT_BYTES]);
        name
    }
}

impl Identity {
    /// A new key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, EnvelopeError> {
        let key = PrivateKey::generate(&ECDH_P256);
        key.map(Self).map_err(|_| EnvelopeError::Key("key"))
    }

    /// Reads what [`Identity::text`] wrote.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        let bytes = text.trim().strip_prefix(IDENTITY).map(hex::decode);
        let key = bytes
            .and_then(Result::ok)
            .and_then(|bytes| PrivateKey::from_private_key(&ECDH_P256, &bytes).ok());
        key.map(Self).ok_or(EnvelopeError::Key("key"))
    }

    /// As its file holds it.
    ///
    /// # Errors
    /// When the key cannot be written.
    pub fn text(&self) -> Result<String, EnvelopeError> {
        let bytes: EcPrivateKeyBin<'_> = self
            .0
            .as_be_bytes()
            .map_err(|_| EnvelopeError::Key("key"))?;
        Ok(format!("{IDENTITY}{}\n", hex::encode(bytes.as_ref())))
    }

    /// The half that backups are made for.
    ///
    /// # Errors
    /// When it cannot be computed.
    pub fn recipient(&self) -> Result<Recipient, EnvelopeError> {
        let public = self.0.compute_public_key();
        let public = public.map_err(|_| EnvelopeError::Key("key"))?;
        Ok(Recipient(public.as_ref().to_vec()))
    }
}

/// Writes a backup.
pub(super) struct Sealer<W> {
    out: W,
    key: LessSafeKey,
    number: u64,
    chunk: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    pub(super) fn begin(mut out: W, to: &Recipient) -> Result<Self, EnvelopeError> {
        let own = Identity::generate()?;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(MAGIC);
        head.push(VERSION);
        head.extend_from_slice(&own.recipient()?.0);
        head.extend_from_slice(&to.name());
        let key = key(&own, &to.0, &head)?;
        out.write_all(&head)?;
        Ok(Self {
            out,
            key,
            number: 0,
            chunk: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES),
        })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), EnvelopeError> {
        while !bytes.is_empty() {
            if self.chunk.len() == CHUNK_BYTES {
                self.seal(false)?;
            }
            let room = CHUNK_BYTES - self.chunk.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.chunk.extend_from_slice(now);
            bytes = rest;
        }
        Ok(())
    }

    /// Writes the last chunk: without it nothing counts.
    pub(super) fn finish(mut self) -> Result<W, EnvelopeError> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn seal(&mut self, is_last: bool) -> Result<(), EnvelopeError> {
        let nonce = nonce(self.number, is_last);
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut self.chunk);
        sealed.map_err(|_| EnvelopeError::Damaged)?;
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        self.number += 1;
        Ok(())
    }
}

/// Reads a backup. Whatever it gives out was verified.
pub(super) struct Opener<R> {
    from: R,
    key: LessSafeKey,
    number: u64,
    /// What was read ahead to know whether there is more.
    ahead: Vec<u8>,
    open: Vec<u8>,
    at: usize,
    is_over: bool,
}

impl<R: Read> Opener<R> {
    pub(super) fn begin(mut from: R, identity: &Identity) -> Result<Self, EnvelopeError> {
        let head = fill(&mut from, HEAD_BYTES)?;
        if !head.starts_with(MAGIC) {
            return Err(EnvelopeError::Foreign);
        }
        match head.get(MAGIC.len()) {
            Some(&VERSION) => {}
            Some(&newer) if newer > VERSION => return Err(EnvelopeError::Newer(newer)),
            Some(_) | None => return Err(EnvelopeError::Foreign),
        }
        if head.len() < HEAD_BYTES {
            return Err(EnvelopeError::Damaged);
        }
        let point = &head[MAGIC.len() + 1..][..POINT_BYTES];
        let name = &head[HEAD_BYTES - RECIPIENT_BYTES..];
        if name != identity.recipient()?.name() {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(EnvelopeError::Recipient(name));
        }
        let key = key(identity, point, &head)?;
        let ahead = fill(&mut from, CHUNK_BYTES + TAG_BYTES)?;
        Ok(Self {
            from,
            key,
            number: 0,
            ahead,
            open: Vec::new(),
            at: 0,
            is_over: false,
        })
    }

    /// Exactly `length` bytes more; none at the end.
    pub(super) fn read(&mut self, length: usize) -> Result<Option<Vec<u8>>, EnvelopeError> {
        let mut bytes = Vec::with_capacity(length.min(CHUNK_BYTES));
        while bytes.len() < length {
            if self.at == self.open.len() {
                if self.is_over {
                    // Half of something is not the end of it.
                    let is_end = bytes.is_empty();
                    return is_end.then_some(None).ok_or(EnvelopeError::Damaged);
                }
                self.next()?;
                continue;
            }
            let wanted = (length - bytes.len()).min(self.open.len() - self.at);
            bytes.extend_from_slice(&self.open[self.at..self.at + wanted]);
            self.at += wanted;
        }
        Ok(Some(bytes))
    }

    fn next(&mut self) -> Result<(), EnvelopeError> {
        let next = fill(&mut self.from, CHUNK_BYTES + TAG_BYTES)?;
        let is_last = next.is_empty();
        let mut chunk = std::mem::replace(&mut self.ahead, next);
        let opened = self
            .key
            .open_in_place(nonce(self.number, is_last), Aad::empty(), &mut chunk)
            .map_err(|_| EnvelopeError::Damaged)?
            .len();
        chunk.truncate(opened);
        self.open = chunk;
        self.at = 0;
        self.number += 1;
        self.is_over = is_last;
        Ok(())
    }
}

fn key(own: &Identity, theirs: &[u8], head: &[u8]) -> Result<LessSafeKey, EnvelopeError> {
    let theirs = UnparsedPublicKey::new(&ECDH_P256, theirs);
    agree(&own.0, theirs, EnvelopeError::Damaged, |secret| {
        let secret = Salt::new(HKDF_SHA256, head).extract(secret);
        let expanded = secret.expand(&[PURPOSE], &AES_256_GCM);
        let key = expanded.map_err(|_| EnvelopeError::Damaged)?;
        Ok(LessSafeKey::new(UnboundKey::from(key)))
    })
}

fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(bytes)
}

/// Up to `length` bytes; fewer only at the end.
fn fill(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(to: &Recipient, bytes: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::begin(Vec::new(), to).unwrap();
        sealer.write(bytes).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(identity: &Identity, file: &[u8], length: usize) -> Result<Vec<u8>, EnvelopeError> {
        let mut opener = Opener::begin(file, identity)?;
        let bytes = opener.read(length)?.unwrap_or_default();
        assert_eq!(opener.read(1)?, None, "there is no more than was written");
        Ok(bytes)
    }

    #[test]
    fn what_was_sealed_is_opened_by_its_key_alone() {
        let identity = Identity::parse(&Identity::generate().unwrap().text().unwrap()).unwrap();
        let to = Recipient::parse(&identity.recipient().unwrap().text()).unwrap();
        for length in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            3 * CHUNK_BYTES,
        ] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let file = sealed(&to, &bytes);
            assert_eq!(opened(&identity, &file, length).unwrap(), bytes, "{length}");
            assert!(
                !file
                    .windows(16)
                    .any(|part| length > 64 && part == &bytes[..16])
            );
        }
        let other = Identity::generate().unwrap();
        let refused = opened(&other, &sealed(&to, b"secret"), 6);
        assert!(matches!(refused, Err(EnvelopeError::Recipient(_))));
    }

    #[test]
    fn files_that_were_cut_changed_or_never_were_backups_are_refused() {
        let identity = Identity::generate().unwrap();
        let to = identity.recipient().unwrap();
        let bytes = vec![7; 2 * CHUNK_BYTES + 10];
        let file = sealed(&to, &bytes);
        let chunk = CHUNK_BYTES + TAG_BYTES;
        for cut in [
            HEAD_BYTES,
            HEAD_BYTES + chunk,
            HEAD_BYTES + 2 * chunk,
            file.len() - 1,
        ] {
            let read = opened(&identity, &file[..cut], bytes.len());
            assert!(
                matches!(read, Err(EnvelopeError::Damaged)),
                "cut at {cut}: {read:?}"
            );
        }
        for at in [20, HEAD_BYTES, HEAD_BYTES + chunk + 5, file.len() - 1] {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(
                opened(&identity, &changed, bytes.len()).is_err(),
                "byte {at}"
            );
        }
        let mut swapped = file[..HEAD_BYTES].to_vec();
        swapped.extend_from_slice(&file[HEAD_BYTES + chunk..HEAD_BYTES + 2 * chunk]);
        swapped.extend_from_slice(&file[HEAD_BYTES..HEAD_BYTES + chunk]);
        swapped.extend_from_slice(&file[HEAD_BYTES + 2 * chunk..]);
        assert!(opened(&identity, &swapped, bytes.len()).is_err());
        let mut newer = file.clone();
        newer[MAGIC.len()] = VERSION + 1;
        assert!(matches!(
            opened(&identity, &newer, 1),
            Err(EnvelopeError::Newer(2))
        ));
        for foreign in [&b""[..], b"SQLite format 3", &[0; 200]] {
            let read = opened(&identity, foreign, 1);
            assert!(matches!(read, Err(EnvelopeError::Foreign)), "{read:?}");
        }
        for text in ["", "abc", "04", &"zz".repeat(65)] {
            assert!(Recipient::parse(text).is_err() && Identity::parse(text).is_err());
        }
    }
}
