//! A snapshot that comes in pieces, read as it comes.
//!
//! ```text
//!  Head ──8 bytes──▶ Index ──verified──▶ Parts ──the last──▶ Over
//!    └──────────────────┴──not what was signed──┴──────────────▲
//! ```
//!
//! Invariant: a record is handed out only when the digest of its part is one that the signed index names. Never more than an index or
//! a part is kept.

use std::collections::VecDeque;
use std::io::{self, Read as _};

use helix_routing::id::{Digest, Epoch};
use helix_routing::key::SNAPSHOT_NAME;
use helix_routing::seal::KeyRole;
use helix_routing::snapshot::{
    HEAD_BYTES, MAX_PART_BYTES, Part, PartRecords, SnapshotIndex, index_bytes,
};
use helix_routing::wire::{Wire as _, WireError};
use helix_service::digest::sha256;
use helix_service::keys::{KeyRing, VerifyError};

/// A snapshot is not what was signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadingError {
    #[error("it does not begin as one")]
    Head,
    #[error("its index is not signed")]
    Unsigned(#[from] VerifyError),
    #[error("its index was signed for another place")]
    Place,
    #[error("its index is unsound")]
    Unsound,
    #[error("a part of it is not what was signed")]
    Part,
    #[error("a part of it cannot be decompressed")]
    Compressed(#[from] io::Error),
    #[error("it cannot be read")]
    Content(#[from] WireError),
}

/// How far a snapshot is read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    state: State,
    /// What came and is not read.
    ahead: Vec<u8>,
    epoch: Epoch,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Index {
        bytes: usize,
    },
    Parts(VecDeque<Part>),
    Over,
}

impl Reading {
    /// The term in which it was signed, once that is known.
    pub(super) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Reads what `bytes` complete: each record of a part that `is_new` goes to `each`, by its key and body.
    ///
    /// # Errors
    /// When it is not what was signed. What comes after is left out.
    pub(super) fn take(
        &mut self,
        ring: &KeyRing,
        stream: &str,
        bytes: &[u8],
        is_new: impl FnMut(&Digest) -> bool,
        each: impl FnMut(&str, &[u8]),
    ) -> Result<(), ReadingError> {
        if matches!(self.state, State::Over) {
            return Ok(());
        }
        self.ahead.extend_from_slice(bytes);
        let read = self.advance(ring, stream, is_new, each);
        if read.is_err() {
            self.state = State::Over;
        }
        if matches!(self.state, State::Over) {
            self.ahead = Vec::new();
        }
        read
    }

    fn advance(
        &mut self,
        ring: &KeyRing,
        stream: &str,
        mut is_new: impl FnMut(&Digest) -> bool,
        mut each: impl FnMut(&str, &[u8]),
    ) -> Result<(), ReadingError> {
        loop {
            match &mut self.state {
                State::Head => {
                    let Some(head) = self.ahead.first_chunk::<HEAD_BYTES>() else {
                        return Ok(());
                    };
                    let bytes = index_bytes(*head).ok_or(ReadingError::Head)?;
                    self.ahead.drain(..HEAD_BYTES);
                    self.state = State::Index { bytes };
                }
                State::Index { bytes } => {
                    let Some(sealed) = cut(&mut self.ahead, *bytes) else {
                        return Ok(());
                    };
                    let (parts, epoch) = open(ring, stream, &sealed)?;
                    self.epoch = epoch;
                    self.state = State::Parts(parts);
                }
                State::Parts(parts) => {
                    let Some(part) = parts.front() else {
                        self.state = State::Over;
                        return Ok(());
                    };
                    // At most a few megabytes: the index is sound.
                    let size = usize::try_from(part.bytes).unwrap_or(usize::MAX);
                    let Some(stored) = cut(&mut self.ahead, size) else {
                        return Ok(());
                    };
                    if sha256(&stored) != part.digest {
                        return Err(ReadingError::Part);
                    }
                    if is_new(&part.digest) {
                        read_part(&stored, &mut each)?;
                    }
                    parts.pop_front();
                }
                State::Over => return Ok(()),
            }
        }
    }
}

/// The first `size` bytes, if there are so many.
fn cut(ahead: &mut Vec<u8>, size: usize) -> Option<Vec<u8>> {
    (ahead.len() >= size).then(|| ahead.drain(..size).collect())
}

fn open(
    ring: &KeyRing,
    stream: &str,
    sealed: &[u8],
) -> Result<(VecDeque<Part>, Epoch), ReadingError> {
    let seal = ring.verify(KeyRole::Record, sealed)?;
    if seal.stream != stream || seal.key != SNAPSHOT_NAME {
        return Err(ReadingError::Place);
    }
    let index = SnapshotIndex::decode(&seal.body)?;
    if !index.is_sound() {
        return Err(ReadingError::Unsound);
    }
    Ok((index.parts.into(), seal.epoch))
}

fn read_part(stored: &[u8], each: &mut impl FnMut(&str, &[u8])) -> Result<(), ReadingError> {
    let mut content = Vec::new();
    zstd::Decoder::with_buffer(stored)?
        .take(MAX_PART_BYTES as u64 + 1)
        .read_to_end(&mut content)?;
    for record in PartRecords::new(&content)? {
        let (key, body) = record?;
        each(key, body);
    }
    Ok(())
}
