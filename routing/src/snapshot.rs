//! A whole stream as one signed object in parts: what an edge starts from, over the wire and from its own disk.
//!
//! ```text
//! "hxs2"  length of the index u32 LE  index, sealed  part  part  …        each part compressed with zstd
//! ```
//!
//! The index is sealed as a record is and names every part by its digest, so one signature covers a million records,
//! and whoever holds the object can show again that nothing in it was changed. Parts are small enough to be read one at a time.
//! *Pure*: it lays out and takes apart; it neither compresses nor verifies.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::time::Timestamp;
use crate::wire::{Wire, WireError};

/// What an object begins with.
pub const MAGIC: [u8; 4] = *b"hxs2";
/// Bytes before the sealed index.
pub const HEAD_BYTES: usize = 8;
/// Most bytes of a sealed index: four thousand parts at about a hundred bytes.
pub const MAX_INDEX_BYTES: usize = 1024 * 1024;
/// Most parts of one snapshot.
pub const MAX_PARTS: usize = 4096;
/// A part is ended when it holds so many records: a few megabytes of hosts.
pub const PART_RECORDS: usize = 32 * 1024;
/// A part is ended when its content is larger than this.
pub const PART_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes of a part's content: one record of the largest size may come last.
pub const MAX_PART_BYTES: usize = 8 * 1024 * 1024;
/// Written before the records of each part.
const PART_VERSION: u8 = 1;
const WHAT_PART: &str = "snapshot part";

/// What origin signs of a snapshot. Version 1 was a snapshot in one piece: [`crate::record::Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotIndex {
    /// The stream's last sequence when this was begun; repair starts after it.
    pub at_sequence: u64,
    /// When it was made.
    pub at: Timestamp,
    /// How many records all parts hold.
    pub records: u64,
    /// An operator's word that what it lacks is really gone, however much that is.
    pub may_drop: bool,
    /// The parts in their order. Keys rise over all of them.
    pub parts: Vec<Part>,
}

/// One part, as the index names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Digest of the part as it is stored, compressed.
    pub digest: Digest,
    /// Its size as it is stored.
    pub bytes: u64,
}

impl Wire for SnapshotIndex {
    const WHAT: &'static str = "snapshot";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = MAX_INDEX_BYTES;
}

impl SnapshotIndex {
    /// Whether its numbers can be: parts of possible sizes, not too many.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let sizes = self.parts.iter().map(|part| part.bytes);
        self.parts.len() <= MAX_PARTS
            && sizes
                .into_iter()
                .all(|bytes| (1..=MAX_PART_BYTES as u64).contains(&bytes))
    }

    /// Bytes of all parts together.
    #[must_use]
    pub fn part_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// The head of an object whose sealed index has this size.
#[must_use]
pub fn head(index_bytes: usize) -> [u8; HEAD_BYTES] {
    let [m0, m1, m2, m3] = MAGIC;
    // An index that is too long for a u32 is refused by whoever reads it.
    let [l0, l1, l2, l3] = u32::try_from(index_bytes).unwrap_or(u32::MAX).to_le_bytes();
    [m0, m1, m2, m3, l0, l1, l2, l3]
}

/// The size of the sealed index behind this head; none when it is no such head.
#[must_use]
pub fn index_bytes(head: [u8; HEAD_BYTES]) -> Option<usize> {
    let [m0, m1, m2, m3, length @ ..] = head;
    let length = u32::from_le_bytes(length) as usize;
    ([m0, m1, m2, m3] == MAGIC && length <= MAX_INDEX_BYTES).then_some(length)
}

/// A part in the making.
#[derive(Debug)]
pub struct PartContent {
    bytes: Vec<u8>,
    records: usize,
}

impl Default for PartContent {
    fn default() -> Self {
        Self {
            bytes: Vec::from([PART_VERSION]),
            records: 0,
        }
    }
}

impl PartContent {
    /// Adds a record: its key, and its body without an envelope. A key of more than 64 KiB cannot be, and is left out.
    pub fn push(&mut self, key: &str, body: &[u8]) {
        let sizes = (u16::try_from(key.len()), u32::try_from(body.len()));
        if let (Ok(key_bytes), Ok(body_bytes)) = sizes {
            self.bytes.extend_from_slice(&key_bytes.to_le_bytes());
            self.bytes.extend_from_slice(&body_bytes.to_le_bytes());
            self.bytes.extend_from_slice(key.as_bytes());
            self.bytes.extend_from_slice(body);
            self.records += 1;
        }
    }

    /// How many records it holds.
    #[must_use]
    pub const fn records(&self) -> usize {
        self.records
    }

    /// Whether the next record belongs into another part.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.records >= PART_RECORDS || self.bytes.len() >= PART_BYTES
    }

    /// The bytes to compress.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The records of a part, from its content.
#[derive(Clone, Debug)]
pub struct PartRecords<'a> {
    rest: &'a [u8],
}

impl<'a> PartRecords<'a> {
    /// Reads what [`PartContent`] wrote.
    ///
    /// # Errors
    /// When it is of another version, or too large.
    pub const fn new(content: &'a [u8]) -> Result<Self, WireError> {
        match content.split_first() {
            Some((&PART_VERSION, rest)) if content.len() <= MAX_PART_BYTES => Ok(Self { rest }),
            Some((&PART_VERSION, _)) => Err(WireError::TooLarge {
                what: WHAT_PART,
                size: content.len(),
                limit: MAX_PART_BYTES,
            }),
            Some((&found, _)) => Err(WireError::Version {
                what: WHAT_PART,
                found,
                newest: PART_VERSION,
            }),
            None => Err(WireError::Malformed { what: WHAT_PART }),
        }
    }

    fn record(&mut self) -> Option<(&'a str, &'a [u8])> {
        let (&[k0, k1, b0, b1, b2, b3], rest) = self.rest.split_first_chunk::<6>()?;
        let key_bytes = usize::from(u16::from_le_bytes([k0, k1]));
        let body_bytes = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
        let (key, rest) = rest.split_at_checked(key_bytes)?;
        let (body, rest) = rest.split_at_checked(body_bytes)?;
        self.rest = rest;
        Some((core::str::from_utf8(key).ok()?, body))
    }
}

impl<'a> Iterator for PartRecords<'a> {
    /// Key and body; an error is the last item.
    type Item = Result<(&'a str, &'a [u8]), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.record().ok_or_else(|| {
            self.rest = &[];
            WireError::Malformed { what: WHAT_PART }
        }))
    }
}
