//! What this edge knows of one stream, on disk before it counts.
//!
//! A [`Ledger`] holds the place (epoch, generation, fingerprint) of every record in memory and the records
//! themselves on disk: a snapshot that origin signed as a whole, and a log of what came after, each under its own signature.
//! Invariant: a record that [`Ledger::admit`] returned is on disk, and a generation
//! never decreases. A cutover costs one small append and one sync; records that arrive together share it.
//! Everything is verified when it arrives, and again when it is read back.

pub mod base;
mod files;
mod frame;
mod peek;
mod reading;
mod restore;
mod slots;
mod takeover;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use helix_routing::id::{Epoch, Incarnation};
use helix_routing::key::Scope;
use helix_routing::record::{Order, order};
use helix_routing::time::Timestamp;
use helix_service::failpoint;
use helix_service::keys::KeyRing;

use self::base::BaseError;
use self::files::Folder;
use self::frame::Frame;
pub use self::frame::Position;
pub(crate) use self::frame::StoredRecord;
pub(crate) use self::peek::Peeked;
pub use self::reading::Piece;
pub(crate) use self::reading::in_background;
use self::slots::{Slot, Slots};
use self::takeover::Adopting;
pub use self::takeover::{Progress, Purpose, Slice};
use crate::feed::record::{Opened, Record};

/// A log is folded with those before it when it is larger than this and larger than they are: so each record is written again a few times only.
const COMPACT_BYTES: u64 = 4 * 1024 * 1024;
/// Records in the logs before a newer snapshot is to cover them: each costs a start some 60 µs to verify, a covered one a hundredth of that.
const LOOSE_RECORDS: usize = 8 * 1024;
/// Contact older than this, and tombstones may have been missed: the stream is taken over whole. Half of what they live.
pub const MAX_ABSENCE: Duration = Duration::from_secs(7 * 24 * 3600 / 2);

/// State could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The files cannot be read at start.
    #[error("read state {}", folder.display())]
    Read {
        /// The stream's folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Records cannot be written. They do not count.
    #[error("append to the state of {stream}")]
    Append {
        /// The stream.
        stream: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The snapshot that was to be taken over cannot be read.
    #[error("take over the snapshot of {stream}")]
    Base {
        /// The stream.
        stream: String,
        /// Why not.
        #[source]
        source: BaseError,
    },
    /// A takeover would drop too much of what is held.
    #[error(
        "snapshot of {stream} lacks {missing} of {held} records, which looks like an accident; if they are really gone, say so to origin with `snapshots_may_drop = true` in its config"
    )]
    Shrinks {
        /// The stream.
        stream: String,
        /// Records held that it lacks.
        missing: usize,
        /// Records held.
        held: usize,
    },
}

/// What was decided about a record.
#[derive(Debug)]
pub struct Decision {
    /// The record.
    pub opened: Opened,
    /// What it is to the one held.
    pub order: Order,
}

/// One stream's state.
#[derive(Debug)]
pub struct Ledger {
    scope: Scope,
    ring: Arc<KeyRing>,
    stream: String,
    folder: Folder,
    slots: Slots,
    position: Position,
    /// The highest term seen in an envelope: a lower one is an origin that lost its lead.
    epoch: Epoch,
    /// The sequence of the snapshot that the state begins with.
    covered: Option<u64>,
    /// Records in the logs behind it.
    loose: usize,
    /// The highest in one that an origin has signed: an operator has to be above it.
    origin_epoch: Epoch,
    log: Option<File>,
    log_number: u64,
    log_bytes: u64,
    /// Bytes of the logs before it, behind the base.
    older_bytes: u64,
    compaction: Option<tokio::task::JoinHandle<()>>,
    /// A snapshot on its way to be what the state begins with.
    adopting: Option<Adopting>,
}

impl Ledger {
    /// How far the stream is known.
    #[must_use]
    pub const fn position(&self) -> &Position {
        &self.position
    }

    /// Where to go on from; none when the stream has to be taken over whole.
    #[must_use]
    pub fn resume(&self, now: Timestamp) -> Option<(Incarnation, u64)> {
        let fresh = now.since(self.position.contact) <= MAX_ABSENCE;
        self.position
            .incarnation
            .clone()
            .filter(|_| fresh)
            .map(|incarnation| (incarnation, self.position.sequence))
    }

    /// The highest term seen.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Decides about records in the order of the stream, and keeps those that are newer.
    /// `sequenced` records move the position; those of a snapshot do not.
    ///
    /// # Errors
    /// When they cannot be written; then none of them counts.
    pub async fn admit(
        &mut self,
        now: Timestamp,
        records: Vec<Opened>,
        sequenced: bool,
    ) -> Result<Vec<Decision>, StateError> {
        let mut decisions = Vec::with_capacity(records.len());
        let mut bytes = Vec::new();
        let mut undo = Vec::new();
        let mut late = Vec::new();
        for opened in records {
            let order = self.order(&opened);
            if order == Order::Newer {
                undo.push((opened.key.clone(), self.hold(&opened)));
                let sequence = if sequenced { opened.sequence } else { 0 };
                let record = StoredRecord {
                    sequence,
                    received: now,
                    key: opened.key.clone(),
                    sealed: opened.sealed.to_vec(),
                };
                if self.is_adopting() {
                    late.push(record.clone());
                }
                frame::write(&Frame::Record(record), &mut bytes);
            }
            decisions.push(Decision { opened, order });
        }
        if let Err(error) = self.append(bytes).await {
            // In reverse, so that of two records of one key the first one's predecessor comes back last.
            for (key, slot) in undo.into_iter().rev() {
                match slot {
                    Some(slot) => self.slots.insert(&key, slot),
                    None => self.slots.remove(&key),
                };
            }
            return Err(error);
        }
        self.admitted_late(late);
        self.loose += undo.len();
        if !undo.is_empty() {
            failpoint::hit("edge.persisted");
        }
        Ok(decisions)
    }

    /// Everything up to `sequence` was taken over. Kept in memory; the next record or [`Ledger::mark`] writes it.
    pub fn advance(&mut self, sequence: u64) {
        self.position.sequence = self.position.sequence.max(sequence);
    }

    /// Writes the position, after a takeover or now and then.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn mark(&mut self, position: Position) -> Result<(), StateError> {
        let mut bytes = Vec::new();
        frame::write(&Frame::Position(position.clone()), &mut bytes);
        self.append(bytes).await?;
        self.position = position;
        Ok(())
    }

    /// Whether a newer snapshot would make the next start shorter, and one of this sequence would.
    #[must_use]
    pub fn wants(&self, snapshot: u64) -> bool {
        let newer = snapshot.saturating_sub(self.covered.unwrap_or(0));
        let behind = self.position.sequence.saturating_sub(snapshot);
        !self.is_adopting() && self.loose > LOOSE_RECORDS && newer > behind
    }

    /// Where a snapshot is put together before it is taken over.
    #[must_use]
    pub fn incoming(&self, purpose: Purpose) -> PathBuf {
        self.folder.incoming(purpose)
    }

    /// Drops what the stream no longer has, and returns the keys that were held.
    ///
    /// # Errors
    /// When that cannot be written. Nothing is dropped then.
    pub async fn drop_keys(&mut self, keys: Vec<String>) -> Result<Vec<String>, StateError> {
        let mut bytes = Vec::new();
        for key in &keys {
            frame::write(&Frame::Dropped { key: key.clone() }, &mut bytes);
        }
        self.append(bytes).await?;
        self.dropped_late(&keys);
        Ok(keys
            .into_iter()
            .filter(|key| self.slots.remove(key).is_some())
            .collect())
    }

    /// The highest term of an origin seen.
    #[must_use]
    pub const fn origin_epoch(&self) -> Epoch {
        self.origin_epoch
    }

    /// What a record is to the one held.
    #[must_use]
    pub fn order(&self, opened: &Opened) -> Order {
        order_of(self.slots.get(&opened.key), Slot::of(opened))
    }

    /// An origin of this term has signed something.
    fn led_in(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
        self.origin_epoch = self.origin_epoch.max(epoch);
    }

    fn hold(&mut self, opened: &Opened) -> Option<Slot> {
        self.epoch = self.epoch.max(opened.sealed_epoch);
        if !opened.by_operator {
            self.origin_epoch = self.origin_epoch.max(opened.sealed_epoch);
        }
        self.slots.insert(&opened.key, Slot::of(opened))
    }

    /// One write and one sync, off the runtime's threads.
    async fn append(&mut self, bytes: Vec<u8>) -> Result<(), StateError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.compact_when_due();
        let size = bytes.len() as u64;
        let log = self.log.take();
        let (folder, number, good) = (self.folder.clone(), self.log_number, self.log_bytes);
        let written = tokio::task::spawn_blocking(move || {
            let mut log = log.map_or_else(|| folder.create_log(number), Ok)?;
            match log.write_all(&bytes).and_then(|()| log.sync_data()) {
                Ok(()) => Ok(log),
                // What was half written must not stand before what comes next.
                Err(error) => log.set_len(good).and(Err(error)),
            }
        });
        match written
            .await
            .map_err(io::Error::other)
            .and_then(|result| result)
        {
            Ok(log) => {
                self.log = Some(log);
                self.log_bytes += size;
                Ok(())
            }
            Err(source) => {
                // The file may be in any state: what comes next goes to a new one.
                self.log_number += 1;
                self.log_bytes = 0;
                Err(StateError::Append {
                    stream: self.stream.clone(),
                    source,
                })
            }
        }
    }

    /// Starts a new log when this one is long, and folds the finished ones in the background.
    fn compact_when_due(&mut self) {
        // A takeover has read the logs, and replaces them.
        if self.is_adopting()
            || self.is_compacting()
            || self.log_bytes < COMPACT_BYTES.max(self.older_bytes)
        {
            return;
        }
        // At start no log is open yet, and what damage left behind is folded before the first one.
        if self.log.take().is_some() {
            self.log_number += 1;
            self.older_bytes += self.log_bytes;
        }
        self.log_bytes = 0;
        let (folder, number, stream) = (self.folder.clone(), self.log_number, self.stream.clone());
        self.compaction = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = folder.fold(number) {
                tracing::error!(
                    stream,
                    error = &error as &dyn std::error::Error,
                    "state was not compacted"
                );
            }
        }));
    }

    fn is_compacting(&self) -> bool {
        self.compaction
            .as_ref()
            .is_some_and(|task| !task.is_finished())
    }
}

/// What a record at `found` is to the one held.
fn order_of(held: Option<Slot>, found: Slot) -> Order {
    let held = held.map(|slot| (slot.epoch, slot.generation, slot.body.to_le_bytes()));
    let held = held
        .as_ref()
        .map(|(epoch, generation, body)| (*epoch, *generation, body.as_slice()));
    let body = found.body.to_le_bytes();
    order(held, (found.epoch, found.generation, &body))
}

impl Slot {
    const fn of(opened: &Opened) -> Self {
        Self {
            epoch: opened.epoch,
            generation: opened.generation,
            body: opened.body.0,
            is_tombstone: opened.is_tombstone(),
        }
    }
}

impl Opened {
    /// Whether this says that its key routes nowhere any more.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        match &self.record {
            Record::Site(site) => site.removed,
            Record::Host(host) => host.site.is_none(),
            Record::Purge(_) | Record::Gate(_) | Record::Edge(_) | Record::Term(_) => false,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
