//! A snapshot becomes the base of the state, while requests are served from what is held.
//!
//! ```text
//! incoming, verified ──compare──▶ too much is missing: refused, everything stays
//!                        │
//!                        └─▶ base on disk, what is newer carried over ──▶ its newer records, slice by slice
//! ```
//!
//! Everything that takes time runs in a thread that yields to the ones that serve. The ledger waits meanwhile, so nothing
//! is admitted between the comparison and the last slice.

use std::collections::HashMap;
use std::io;

use helix_routing::record::Order;
use helix_routing::snapshot::PartRecords;
use tokio::sync::{mpsc, oneshot};

use super::base::{Base, BaseError};
use super::frame::{Position, StoredRecord};
use super::slots::{Slot, Slots};
use super::{Ledger, StateError, order_of};
use crate::feed::record::{self, Opened, Rejected};

/// A takeover may drop this share of the records held, in percent; more is refused as an accident.
const MAX_DROP_PERCENT: usize = 5;
/// And not more than so many, whatever their share.
const MAX_DROPS: usize = 50;
/// So few records may always be dropped.
const FREE_DROPS: usize = 10;
/// Niceness of the thread: it gets a tenth of what a serving thread gets where both want a core.
const NICENESS: i32 = 10;
/// Slices that wait for the feed.
const WAITING_SLICES: usize = 2;
/// Records of one slice: whoever takes it in is busy for a few milliseconds.
const SLICE_RECORDS: usize = 4096;

/// Why a snapshot is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The stream is followed from the snapshot on.
    Resync,
    /// The stream is followed; the snapshot covers what the logs hold.
    Cover,
}

/// What a takeover led to.
#[derive(Debug)]
pub struct Adopted {
    /// Keys that are held and that the snapshot lacks: gone, unless the stream after it has them.
    pub missing: Vec<String>,
    /// Its records that are newer than those held, in slices. They are held when all were received.
    pub slices: mpsc::Receiver<Slice>,
    rest: oneshot::Receiver<(Slots, Result<(), BaseError>)>,
}

/// Some records of a snapshot.
#[derive(Debug, Default)]
pub struct Slice {
    /// Newer than those held.
    pub newer: Vec<Opened>,
    /// Refused: unreadable, or of one generation with another one.
    pub refused: Vec<(String, String)>,
}

impl Ledger {
    /// Makes the incoming snapshot the base. After its slices were received, [`Ledger::adopted`] has to be told.
    ///
    /// # Errors
    /// When it lacks more than an orderly change explains, or cannot be read or kept. Nothing has changed then.
    pub async fn adopt(&mut self, base: Base, purpose: Purpose) -> Result<Adopted, StateError> {
        if let Some(compaction) = self.compaction.take() {
            // It writes the same files, and takes less than a second.
            let _ = compaction.await;
        }
        let folder = self.folder.clone();
        let stream = self.stream.clone();
        let loose = tokio::task::spawn_blocking(move || folder.loose())
            .await
            .map_err(io::Error::other)
            .and_then(|read| read)
            .map_err(|source| StateError::Append { stream, source })?;
        let mut comparing = Comparing {
            slots: std::mem::take(&mut self.slots),
            loose: loose.records,
            purpose,
            scope: self.scope.clone(),
        };
        let (base, mut comparing, compared) = in_background(move || {
            let compared = comparing.compare(&base);
            (base, comparing, compared)
        })
        .await;
        let judged = compared
            .map_err(|source| StateError::Base {
                stream: self.stream.clone(),
                source,
            })
            .and_then(|missing| self.judge(&base, missing, comparing.slots.live()));
        let missing = match judged {
            Ok(missing) => missing,
            Err(error) => {
                self.slots = comparing.slots;
                return Err(error);
            }
        };
        let forgotten = comparing.forgotten();
        let carried = std::mem::take(&mut comparing.loose);
        if let Err(error) = self.put_in_place(&base, purpose, carried).await {
            self.slots = comparing.slots;
            return Err(error);
        }
        self.led_in(base.epoch);
        for key in forgotten {
            comparing.slots.remove(&key);
        }
        Ok(slice(comparing, base, missing))
    }

    /// Takes back what a takeover worked with.
    ///
    /// # Errors
    /// When the snapshot was not read to its end: then the stream has to be taken over again.
    pub async fn adopted(&mut self, adopted: Adopted) -> Result<(), StateError> {
        let lost = |_| (Slots::default(), Err(BaseError::Shape));
        let (slots, read) = adopted.rest.await.unwrap_or_else(lost);
        self.slots = slots;
        read.map_err(|source| {
            self.position.incarnation = None;
            StateError::Base {
                stream: self.stream.clone(),
                source,
            }
        })
    }

    fn judge(
        &self,
        base: &Base,
        missing: Vec<String>,
        held: usize,
    ) -> Result<Vec<String>, StateError> {
        let count = missing.len();
        let is_many = count > MAX_DROPS || count * 100 > held * MAX_DROP_PERCENT;
        let is_empty = base.index.records == 0 && count > 0;
        if !base.index.may_drop && (is_empty || (count > FREE_DROPS && is_many)) {
            return Err(StateError::Shrinks {
                stream: self.stream.clone(),
                missing: count,
                held,
            });
        }
        Ok(missing)
    }

    async fn put_in_place(
        &mut self,
        base: &Base,
        purpose: Purpose,
        carried: HashMap<String, StoredRecord>,
    ) -> Result<(), StateError> {
        let at = base.index.at_sequence;
        let position = match purpose {
            Purpose::Cover => self.position.clone(),
            Purpose::Resync => Position {
                incarnation: Some(base.incarnation.clone()),
                sequence: at,
                contact: helix_service::clock::now(),
            },
        };
        self.log_number += 1;
        let (folder, number, kept) = (self.folder.clone(), self.log_number, position.clone());
        self.loose = carried.len();
        let written = tokio::task::spawn_blocking(move || {
            let carried = carried.into_values().map(|record| StoredRecord {
                // That of another life says nothing.
                sequence: if purpose == Purpose::Cover {
                    record.sequence
                } else {
                    0
                },
                ..record
            });
            folder.adopt(number, purpose, carried, kept)
        });
        let written = written
            .await
            .map_err(io::Error::other)
            .and_then(|done| done);
        match written {
            Ok((log, bytes)) => {
                self.log = Some(log);
                self.log_bytes = bytes;
                self.older_bytes = 0;
                self.position = position;
                self.covered = Some(at);
                Ok(())
            }
            Err(source) => {
                // How far it came is not known: what comes next goes to a log that follows in either case.
                self.log = None;
                self.log_number += 1;
                self.log_bytes = 0;
                Err(StateError::Append {
                    stream: self.stream.clone(),
                    source,
                })
            }
        }
    }
}

/// What is held, beside a snapshot.
struct Comparing {
    slots: Slots,
    /// The records of the logs; after the comparison those that the snapshot does not cover.
    loose: HashMap<String, StoredRecord>,
    purpose: Purpose,
    scope: helix_routing::key::Scope,
}

impl Comparing {
    /// Finds which records have to be carried over, and which keys the snapshot lacks.
    fn compare(&mut self, base: &Base) -> Result<Vec<String>, BaseError> {
        self.slots.begin_seeing();
        base.each_record(|key, body| {
            self.slots.see(key);
            if self.loose.contains_key(key)
                && let Ok(opened) = record::open_covered(&self.scope, key, body, base.epoch)
                && order_of(self.slots.get(key), &opened) != Order::Older
            {
                self.loose.remove(key);
            }
        })?;
        let at = base.index.at_sequence;
        let unseen: HashMap<&str, bool> = self.slots.unseen().collect();
        // What the stream repeats as it is held is not written again, so all that may still come is carried.
        self.loose.retain(|key, stored| {
            unseen
                .get(key.as_str())
                .is_none_or(|is_tombstone| !is_tombstone || stored.sequence > at)
        });
        let came_later = |key: &str| {
            let stored = self.loose.get(key);
            self.purpose == Purpose::Cover && stored.is_some_and(|stored| stored.sequence > at)
        };
        let missing = unseen
            .iter()
            .filter(|(key, is_tombstone)| !**is_tombstone && !came_later(key))
            .map(|(key, _)| (*key).to_owned());
        Ok(missing.collect())
    }

    /// Tombstones that neither the snapshot nor what is carried over has.
    fn forgotten(&self) -> Vec<String> {
        let unseen = self.slots.unseen();
        unseen
            .filter(|(key, is_tombstone)| *is_tombstone && !self.loose.contains_key(*key))
            .map(|(key, _)| key.to_owned())
            .collect()
    }

    /// The records of the snapshot that are newer than those held, which they replace.
    fn slice(&mut self, base: &Base, slices: &mpsc::Sender<Slice>) -> Result<(), BaseError> {
        base.each_content(|number, content| {
            let unreadable = |source| BaseError::Content { number, source };
            let mut slice = Slice::default();
            for record in PartRecords::new(content).map_err(unreadable)? {
                let (key, body) = record.map_err(unreadable)?;
                self.look_at(
                    key,
                    record::open_covered(&self.scope, key, body, base.epoch),
                    &mut slice,
                );
                if slice.newer.len() == SLICE_RECORDS {
                    // Nobody takes it only when the process ends.
                    let _ = slices.blocking_send(std::mem::take(&mut slice));
                }
            }
            if !slice.newer.is_empty() || !slice.refused.is_empty() {
                let _ = slices.blocking_send(slice);
            }
            Ok(())
        })
    }

    fn look_at(&mut self, key: &str, opened: Result<Opened, Rejected>, slice: &mut Slice) {
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return slice.refused.push((key.to_owned(), error.to_string())),
        };
        match order_of(self.slots.get(key), &opened) {
            Order::Newer => {
                self.slots.insert(key, Slot::of(&opened));
                slice.newer.push(opened);
            }
            // A snapshot may lag behind what is held.
            Order::Same | Order::Older => {}
            Order::Conflict => slice.refused.push((
                key.to_owned(),
                format!(
                    "generation {} is held with other content",
                    opened.generation
                ),
            )),
        }
    }
}

fn slice(mut comparing: Comparing, base: Base, missing: Vec<String>) -> Adopted {
    let (slices, receiver) = mpsc::channel(WAITING_SLICES);
    let (done, rest) = oneshot::channel();
    spawn(move || {
        let read = comparing.slice(&base, &slices);
        // Nobody waits for it only when the process ends.
        let _ = done.send((comparing.slots, read));
    });
    Adopted {
        missing,
        slices: receiver,
        rest,
    }
}

/// Runs what takes time in a thread of its own that yields to those that serve.
pub(crate) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = oneshot::channel();
    spawn(move || {
        let _ = done.send(work());
    });
    result
        .await
        .expect("a thread whose work does not panic answers")
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    // A thread of its own, since a niceness cannot be taken back.
    let thread = std::thread::Builder::new().name("takeover".to_owned());
    let spawned = thread.spawn(move || {
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!(%error, "a takeover runs as urgently as requests");
        }
        work();
    });
    spawned.expect("the system has room for one more thread");
}
