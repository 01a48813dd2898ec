//! What this edge knows of one stream, on disk before it counts.
//!
//! A [`Ledger`] holds the place (epoch, generation, digest) of every record in memory and the records
//! themselves on disk. Invariant: a record that [`Ledger::admit`] returned is on disk, and a generation
//! never decreases. A cutover costs one small append and one sync; records that arrive together share it.
//! Signatures are checked by the caller, when a record arrives and again when it is read back.

mod files;
mod frame;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use helix_routing::id::{Digest, Epoch, Generation, Incarnation};
use helix_routing::record::{Order, order};
use helix_routing::time::Timestamp;
use helix_service::failpoint;

use self::files::Folder;
use self::frame::Frame;
pub use self::frame::{Position, StoredRecord};
use crate::feed::record::{Opened, Record};

/// The log is folded into a new base when it is larger than this and larger than the base's share below.
const COMPACT_BYTES: u64 = 4 * 1024 * 1024;
/// Tombstones live this long in the streams, so an edge needs them no longer.
pub const TOMBSTONE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Contact older than this, and tombstones may have been missed: the stream is taken over whole.
pub const MAX_ABSENCE: Duration = Duration::from_secs(7 * 24 * 3600 / 2);
/// A takeover may drop this share of the records held, in percent; more is refused as an accident.
const MAX_DROP_PERCENT: usize = 20;
/// So few records may always be dropped.
const FREE_DROPS: usize = 10;

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
    /// A takeover would drop too much of what is held.
    #[error("snapshot of {stream} lacks {missing} of {held} records, which looks like an accident")]
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

/// The place of a record that is held.
#[derive(Debug)]
struct Slot {
    epoch: Epoch,
    generation: Generation,
    body: Digest,
}

/// One stream's state.
#[derive(Debug)]
pub struct Ledger {
    stream: String,
    folder: Folder,
    slots: HashMap<Box<str>, Slot>,
    position: Position,
    /// The highest term seen in an envelope: a lower one is an origin that lost its lead.
    epoch: Epoch,
    log: Option<File>,
    log_number: u64,
    log_bytes: u64,
    compact_at: u64,
    compaction: Option<tokio::task::JoinHandle<()>>,
}

impl Ledger {
    /// Reads the state of `stream`, and hands out every record that `reopen` still accepts.
    ///
    /// # Errors
    /// When the files cannot be read. Damage in them is no error: it is repaired from the stream.
    pub fn open(
        folder: PathBuf,
        stream: String,
        reopen: impl Fn(&StoredRecord) -> Option<Opened>,
    ) -> Result<(Self, Vec<Opened>), StateError> {
        let failed = |source| StateError::Read {
            folder: folder.clone(),
            source,
        };
        let files = Folder::open(folder.clone()).map_err(failed)?;
        let (contents, log_number, is_long) = files.load().map_err(failed)?;
        let mut ledger = Self {
            stream,
            folder: files,
            slots: HashMap::with_capacity(contents.records.len()),
            position: contents.position,
            epoch: Epoch(0),
            log: None,
            log_number,
            // Counts as full: the first write then folds what is there.
            log_bytes: if contents.damaged || is_long {
                u64::MAX
            } else {
                0
            },
            compact_at: COMPACT_BYTES,
            compaction: None,
        };
        let mut opened = Vec::with_capacity(contents.records.len());
        let mut bytes = 0;
        for record in contents.records.values() {
            bytes += record.sealed.len() as u64;
            if let Some(record) = reopen(record) {
                ledger.hold(&record);
                opened.push(record);
            }
        }
        ledger.compact_at = bytes.max(COMPACT_BYTES);
        Ok((ledger, opened))
    }

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
        for opened in records {
            let order = self.order(&opened);
            if order == Order::Newer {
                undo.push((opened.key.clone(), self.slots.remove(opened.key.as_str())));
                self.hold(&opened);
                let sequence = if sequenced { opened.sequence } else { 0 };
                let record = StoredRecord {
                    sequence,
                    received: now,
                    key: opened.key.clone(),
                    sealed: opened.sealed.to_vec(),
                };
                frame::write(&Frame::Record(record), &mut bytes);
            }
            decisions.push(Decision { opened, order });
        }
        if let Err(error) = self.append(bytes).await {
            // In reverse, so that of two records of one key the first one's predecessor comes back last.
            for (key, slot) in undo.into_iter().rev() {
                self.slots.remove(key.as_str());
                self.slots.extend(slot.map(|slot| (key.into(), slot)));
            }
            return Err(error);
        }
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

    /// Drops what a whole snapshot lacks, and returns the keys.
    ///
    /// # Errors
    /// When it lacks more than an orderly change explains, or the change cannot be written. Nothing is dropped then.
    pub async fn drop_missing(
        &mut self,
        present: &BTreeSet<String>,
    ) -> Result<Vec<String>, StateError> {
        let missing: Vec<String> = self
            .slots
            .keys()
            .filter(|key| !present.contains(&***key))
            .map(|key| key.to_string())
            .collect();
        let held = self.slots.len();
        if missing.len() > FREE_DROPS && missing.len() * 100 > held * MAX_DROP_PERCENT {
            return Err(StateError::Shrinks {
                stream: self.stream.clone(),
                missing: missing.len(),
                held,
            });
        }
        let mut bytes = Vec::new();
        for key in &missing {
            frame::write(&Frame::Dropped { key: key.clone() }, &mut bytes);
        }
        self.append(bytes).await?;
        for key in &missing {
            self.slots.remove(key.as_str());
        }
        Ok(missing)
    }

    fn order(&self, opened: &Opened) -> Order {
        let held = self.slots.get(opened.key.as_str());
        let held = held.map(|slot| (slot.epoch, slot.generation, slot.body.hex().as_bytes()));
        order(
            held,
            (
                opened.epoch,
                opened.generation,
                opened.body.hex().as_bytes(),
            ),
        )
    }

    fn hold(&mut self, opened: &Opened) {
        self.epoch = self.epoch.max(opened.sealed_epoch);
        let slot = Slot {
            epoch: opened.epoch,
            generation: opened.generation,
            body: opened.body.clone(),
        };
        self.slots.insert(opened.key.as_str().into(), slot);
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
        let busy = self
            .compaction
            .as_ref()
            .is_some_and(|task| !task.is_finished());
        if busy || self.log_bytes < self.compact_at {
            return;
        }
        // At start no log is open yet, and what damage left behind is folded before the first one.
        if self.log.take().is_some() {
            self.log_number += 1;
        }
        self.log_bytes = 0;
        let (folder, number, stream) = (self.folder.clone(), self.log_number, self.stream.clone());
        self.compaction = Some(tokio::task::spawn_blocking(move || {
            let now = helix_service::clock::now();
            if let Err(error) = folder.compact(number, |record| is_worth_keeping(now, record)) {
                tracing::error!(
                    stream,
                    error = &error as &dyn std::error::Error,
                    "state was not compacted"
                );
            }
        }));
    }
}

/// Tombstones that no stream holds any more are let go.
fn is_worth_keeping(now: Timestamp, record: &StoredRecord) -> bool {
    now.since(record.received) < TOMBSTONE_LIFE || !crate::feed::record::is_tombstone(record)
}

impl Opened {
    /// Whether this says that its key routes nowhere any more.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        match &self.record {
            Record::Site(site) => site.removed,
            Record::Host(host) => host.site.is_none(),
            Record::Purge(_) | Record::Gate(_) | Record::Term(_) => false,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
