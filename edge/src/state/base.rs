//! A snapshot on disk, as origin signed it: what state begins with.
//!
//! The file is the object that origin published. Its one signature covers an index with the digest of every part, so a start verifies a
//! million records by hashing some tens of megabytes, and whoever edits a byte is found out. Parts are read one at a time.
//! It does not judge whether a record is newer than another.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use helix_routing::id::{Epoch, Incarnation};
use helix_routing::key::{SNAPSHOT_NAME, Scope};
use helix_routing::seal::KeyRole;
use helix_routing::snapshot::{
    HEAD_BYTES, MAX_PART_BYTES, PART_RECORDS, PartRecords, SnapshotIndex, index_bytes,
};
use helix_routing::wire::{Wire, WireError};
use helix_service::digest::Sha256;
use helix_service::keys::KeyRing;

use crate::breaks::Breaks;
use crate::feed::record::{self, Rejected};

/// Hashed, or taken apart, before a break may be due: some tens of microseconds.
const STRETCH_BYTES: usize = 64 * 1024;

/// A file is no snapshot, or not the one that was signed.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// It cannot be read.
    #[error("read a snapshot")]
    Read(#[from] io::Error),
    /// It does not begin as one, or its parts have other sizes than it says.
    #[error("a snapshot is cut short, or is none")]
    Shape,
    /// Its index is not signed by whom it should be, or for another place.
    #[error("the index of a snapshot is refused")]
    Index(#[source] Rejected),
    /// A part is not the one that was signed.
    #[error("part {number} of a snapshot is not what was signed")]
    Part {
        /// Counted from 0.
        number: usize,
    },
    /// A part that was signed cannot be read by this build.
    #[error("part {number} of a snapshot cannot be read")]
    Content {
        /// Counted from 0.
        number: usize,
        /// Why not.
        #[source]
        source: WireError,
    },
}

/// A snapshot whose index is verified. Each part is, whenever it is read.
#[derive(Debug)]
pub struct Base {
    file: File,
    /// The life it belongs to.
    pub incarnation: Incarnation,
    /// The term of the origin that signed it.
    pub epoch: Epoch,
    /// What it says of itself.
    pub index: SnapshotIndex,
    /// Where the parts begin.
    parts_at: u64,
}

impl Base {
    /// Opens a file and verifies its index, but no part yet.
    ///
    /// # Errors
    /// As [`BaseError`] says.
    pub fn open(path: &Path, ring: &KeyRing, scope: &Scope) -> Result<Self, BaseError> {
        let mut file = File::open(path)?;
        let mut head = [0; HEAD_BYTES];
        read_exact(&mut file, &mut head)?;
        let length = index_bytes(head).ok_or(BaseError::Shape)?;
        let mut sealed = vec![0; length];
        read_exact(&mut file, &mut sealed)?;
        let refused = BaseError::Index;
        let seal = ring
            .verify(KeyRole::Record, &sealed)
            .map_err(|error| refused(error.into()))?;
        record::check_place(&seal, &scope.stream(), None, SNAPSHOT_NAME).map_err(refused)?;
        let index = SnapshotIndex::decode(&seal.body).map_err(|error| refused(error.into()))?;
        let parts_at = (HEAD_BYTES + length) as u64;
        let is_whole = file.metadata()?.len() == parts_at + index.part_bytes();
        if !index.is_sound() || !is_whole {
            return Err(BaseError::Shape);
        }
        Ok(Self {
            file,
            incarnation: seal.incarnation,
            epoch: seal.epoch,
            index,
            parts_at,
        })
    }

    /// How many records it holds, as far as its parts can hold so many.
    #[must_use]
    pub fn records(&self) -> usize {
        let most = self.index.parts.len() * PART_RECORDS;
        usize::try_from(self.index.records).map_or(most, |records| records.min(most))
    }

    /// Verifies every part.
    ///
    /// # Errors
    /// When one is not what was signed, or cannot be read.
    pub fn verify(&self) -> Result<(), BaseError> {
        self.each_part(|number, stored| self.check(number, stored))
    }

    /// Calls `each` with the content of every part, verified, one after the other.
    ///
    /// # Errors
    /// When a part is not what was signed, or cannot be read, or `each` says so.
    pub fn each_content(
        &self,
        mut each: impl FnMut(usize, &[u8]) -> Result<(), BaseError>,
    ) -> Result<(), BaseError> {
        let mut content = Vec::new();
        self.each_part(|number, stored| {
            self.check(number, stored)?;
            content.clear();
            let limit = MAX_PART_BYTES as u64;
            let mut decoded = zstd::Decoder::with_buffer(stored)?.take(limit + 1);
            let mut breaks = Breaks::begin();
            while decoded
                .by_ref()
                .take(STRETCH_BYTES as u64)
                .read_to_end(&mut content)?
                > 0
            {
                breaks.may_be_due();
            }
            each(number, &content)
        })
    }

    /// Calls `each` with key and body of every record, verified.
    ///
    /// # Errors
    /// As [`Base::each_content`].
    pub fn each_record(&self, mut each: impl FnMut(&str, &[u8])) -> Result<(), BaseError> {
        self.each_content(|number, content| {
            let unreadable = |source| BaseError::Content { number, source };
            for record in PartRecords::new(content).map_err(unreadable)? {
                let (key, body) = record.map_err(unreadable)?;
                each(key, body);
            }
            Ok(())
        })
    }

    fn each_part(
        &self,
        mut each: impl FnMut(usize, &[u8]) -> Result<(), BaseError>,
    ) -> Result<(), BaseError> {
        let mut stored = Vec::new();
        let mut at = self.parts_at;
        for (number, part) in self.index.parts.iter().enumerate() {
            // At most a few megabytes: `is_sound` was asked.
            stored.resize(usize::try_from(part.bytes).unwrap_or(0), 0);
            self.file.read_exact_at(&mut stored, at)?;
            at += part.bytes;
            each(number, &stored)?;
        }
        Ok(())
    }

    fn check(&self, number: usize, stored: &[u8]) -> Result<(), BaseError> {
        let mut sum = Sha256::new();
        let mut breaks = Breaks::begin();
        for stretch in stored.chunks(STRETCH_BYTES) {
            sum.update(stretch);
            breaks.may_be_due();
        }
        if self.index.parts[number].digest == sum.finish() {
            Ok(())
        } else {
            Err(BaseError::Part { number })
        }
    }
}

/// What ends early is no snapshot.
fn read_exact(file: &mut File, bytes: &mut [u8]) -> Result<(), BaseError> {
    file.read_exact(bytes).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            BaseError::Shape
        } else {
            error.into()
        }
    })
}
