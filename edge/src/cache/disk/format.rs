//! Pure: how a stored response lies in files.
//!
//! ```text
//! <name>.e   "hxc" version  head length u32 LE  SHA-256 over these 8 bytes and the head  head  body, if not beside
//! <name>.b   the body of a large response
//! <name>.s   empty: the response has to be asked about before its next use, whatever its head says
//! ```
//!
//! The head says everything: the name that the file has to have, what it answers, how it may be used, and a sum for
//! each block of the body. So a file that was cut off, changed, or put in another's place is told from a
//! good one, and a part of a body can be checked without reading the rest. Nothing here touches a disk.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256, digest};
use helix_routing::wire::{Wire, WireError};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::cache::policy::Freshness;
use crate::cache::store::{Facts, Key};

/// The version in a file's first bytes. Files of another one are deleted: what they hold can be fetched again.
const MAGIC: [u8; 4] = *b"hxc\x01";
/// Bytes before the head.
pub(super) const PRELUDE_BYTES: usize = 40;
/// A body is checked in blocks of so many bytes: small enough that a short range reads little, large enough that the
/// sums of 4 GiB take 1 MiB.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;
/// Largest body whose sums fit into a head.
pub const MOST_BODY_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Sum of one block: half of its SHA-256.
pub(super) type Sum = [u8; 16];

/// What a file is called: what it answers, by hash alone, and a number that no other file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// The key's hash.
    pub key: u128,
    /// Rises with every file.
    pub serial: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}-{:016x}", self.key, self.serial)
    }
}

impl Name {
    /// Reads what [`Name`] displays as.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (key, serial) = text.split_once('-')?;
        let name = Self {
            key: u128::from_str_radix(key, 16).ok()?,
            serial: u64::from_str_radix(serial, 16).ok()?,
        };
        (name.to_string() == text).then_some(name)
    }
}

/// The hash that files of `key` are named by.
pub(super) fn hash(key: &Key) -> u128 {
    let bytes = postcard::to_allocvec(key).unwrap_or_default();
    let sum = digest(&SHA256, &bytes);
    let mut half = [0; 16];
    half.copy_from_slice(&sum.as_ref()[..16]);
    u128::from_be_bytes(half)
}

/// What is known of a stored response without its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) name: Name,
    pub(super) key: Key,
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    pub(super) freshness: Freshness,
    selected: Vec<(String, String)>,
    pub(super) tags: Vec<String>,
    /// The fleet's purges of the site that had come when it was asked for.
    pub(super) purged: u64,
    /// It has to be asked about before its next use.
    pub(super) invalid: bool,
    pub(super) body: Body,
}

/// Where the body is, and how it is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Body {
    pub(super) length: u64,
    /// In a file of its own.
    pub(super) beside: bool,
    pub(super) sums: Vec<Sum>,
}

impl Wire for Head {
    const WHAT: &'static str = "stored response";
    // The sums of the largest body, a head of a response, and room for what it was chosen by.
    const MAX_BYTES: usize = 2 * 1024 * 1024;
}

/// A file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Harm {
    /// It cannot be read.
    #[error("cannot be read")]
    Unreadable(#[from] std::io::Error),
    /// Another build wrote it.
    #[error("is of another version")]
    Version,
    /// Bytes were changed or are missing.
    #[error("is damaged")]
    Damaged,
    /// It is whole, and another file's.
    #[error("stands in another file's place")]
    Misplaced,
    /// Its head is no head.
    #[error(transparent)]
    Head(#[from] WireError),
}

impl Head {
    /// The head of a response that is kept under `name`.
    #[expect(
        clippy::too_many_arguments,
        reason = "one for each thing that is told apart"
    )]
    pub(super) fn new(
        name: Name,
        facts: &Facts,
        status: StatusCode,
        headers: &HeaderMap,
        freshness: &Freshness,
        purged: u64,
        invalid: bool,
        body: Body,
    ) -> Self {
        let text = |name: &HeaderName| name.as_str().to_owned();
        Self {
            name,
            key: Key::clone(&facts.key),
            status: status.as_u16(),
            headers: headers
                .iter()
                .map(|(name, value)| (text(name), value.as_bytes().to_vec()))
                .collect(),
            freshness: freshness.clone(),
            selected: facts
                .selected
                .iter()
                .map(|(name, value)| (text(name), value.clone()))
                .collect(),
            tags: facts.tags.clone(),
            purged,
            invalid,
            body,
        }
    }

    /// Prelude and head.
    pub(super) fn seal(&self) -> Vec<u8> {
        let head = self.encode();
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = Vec::with_capacity(PRELUDE_BYTES + head.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(&sum_of_head(length, &head));
        bytes.extend_from_slice(&head);
        bytes
    }

    /// How long the head behind this prelude is.
    pub(super) fn length(prelude: &[u8; PRELUDE_BYTES]) -> Result<usize, Harm> {
        let [m0, m1, m2, m3, l0, l1, l2, l3, ..] = *prelude;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(Harm::Version);
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > Self::MAX_BYTES {
            return Err(Harm::Damaged);
        }
        Ok(length)
    }

    /// Reads a head that stands in the file of `name`.
    pub(super) fn open(
        prelude: &[u8; PRELUDE_BYTES],
        head: &[u8],
        name: Name,
    ) -> Result<Self, Harm> {
        let length = Self::length(prelude)?;
        let [_, _, _, _, l0, l1, l2, l3, sum @ ..] = prelude;
        if head.len() != length || sum_of_head([*l0, *l1, *l2, *l3], head) != *sum {
            return Err(Harm::Damaged);
        }
        let head = Self::decode(head)?;
        let blocks = head.body.length.div_ceil(BLOCK_BYTES as u64);
        if head.body.sums.len() as u64 != blocks {
            return Err(Harm::Damaged);
        }
        if head.name != name || hash(&head.key) != name.key {
            return Err(Harm::Misplaced);
        }
        Ok(head)
    }

    /// What the index holds of it.
    pub(super) fn facts(&self) -> Option<Facts> {
        let selected = self.selected.iter();
        let selected: Option<Vec<_>> = selected
            .map(|(name, value)| Some((name.parse().ok()?, value.clone())))
            .collect();
        Some(Facts {
            key: Arc::new(self.key.clone()),
            selected: selected?,
            tags: self.tags.clone(),
        })
    }

    /// Status and fields.
    pub(super) fn response(&self) -> Option<(StatusCode, HeaderMap)> {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            headers.append(
                name.parse::<HeaderName>().ok()?,
                HeaderValue::from_bytes(value).ok()?,
            );
        }
        Some((StatusCode::from_u16(self.status).ok()?, headers))
    }
}

fn sum_of_head(length: [u8; 4], head: &[u8]) -> [u8; 32] {
    let mut sum = Context::new(&SHA256);
    sum.update(&MAGIC);
    sum.update(&length);
    sum.update(head);
    let mut whole = [0; 32];
    whole.copy_from_slice(sum.finish().as_ref());
    whole
}

/// The sum of one block.
pub(super) fn sum(block: &[u8]) -> Sum {
    let mut half = [0; 16];
    half.copy_from_slice(&digest(&SHA256, block).as_ref()[..16]);
    half
}

/// Sums of a body, part by part.
pub(super) struct Summing {
    sums: Vec<Sum>,
    block: Context,
    filled: usize,
    length: u64,
}

impl Summing {
    pub(super) fn new() -> Self {
        Self {
            sums: Vec::new(),
            block: Context::new(&SHA256),
            filled: 0,
            length: 0,
        }
    }

    /// Takes the next bytes.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.filled));
            self.block.update(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == BLOCK_BYTES {
                self.close_block();
            }
        }
    }

    /// The whole body's.
    pub(super) fn finish(mut self, beside: bool) -> Body {
        if self.filled > 0 {
            self.close_block();
        }
        Body {
            length: self.length,
            beside,
            sums: self.sums,
        }
    }

    fn close_block(&mut self) {
        let block = std::mem::replace(&mut self.block, Context::new(&SHA256));
        let mut half = [0; 16];
        half.copy_from_slice(&block.finish().as_ref()[..16]);
        self.sums.push(half);
        self.filled = 0;
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
