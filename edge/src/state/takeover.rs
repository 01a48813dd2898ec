//! A snapshot becomes the base of the state, while requests are served from what is held and records go on being admitted.
//!
//! ```text
//! incoming, verified ──compare──▶ too much is missing: refused, everything stays
//!                        │
//!                        └─▶ base on disk, what is newer carried over ──▶ its newer records, slice by slice
//! ```
//!
//! Reading and verifying takes time, and happens in a thread of its own. What it finds comes in pieces, each of
//! which the owner of the ledger takes in within a millisecond or so; between two of them it may admit records. Both take breaks. What
//! was admitted during the comparison is carried over with the rest: the snapshot is compared with what was held when it began, and
//! every record that it has is compared once more, by its generation, when it is taken in.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use helix_routing::record::Order;

use super::base::Base;
use super::frame::{Position, StoredRecord};
use super::reading::{Found, Held, Keys, Piece, Pieces, keys, reading, records};
use super::slots::Slot;
use super::{Ledger, StateError, order_of};
use crate::breaks::Breaks;
use crate::feed::record::Opened;

/// A takeover may drop this share of the records held, in percent; more is refused as an accident.
const MAX_DROP_PERCENT: usize = 5;
/// And not more than so many, whatever their share.
const MAX_DROPS: usize = 50;
/// So few records may always be dropped.
const FREE_DROPS: usize = 10;
/// Pages of places that are looked through at once.
const PIECE_PAGES: usize = 4;

/// Why a snapshot is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The stream is followed from the snapshot on.
    Resync,
    /// The stream is followed; the snapshot covers what the logs hold.
    Cover,
}

/// How far a takeover has come with a piece.
#[derive(Debug)]
pub enum Progress {
    /// It goes on.
    Compared,
    /// The snapshot is the base of the state now. These keys are held and it lacks them: gone, unless the stream after it has them.
    Based {
        /// The keys.
        missing: Vec<String>,
    },
    /// Some of its records.
    Slice(Slice),
    /// That was all.
    Done {
        /// Why it was taken over.
        purpose: Purpose,
        /// The sequence it stands for.
        at: u64,
    },
}

/// Some records of a snapshot.
#[derive(Debug, Default)]
pub struct Slice {
    /// Newer than those held.
    pub newer: Vec<Opened>,
    /// Refused: unreadable, or of one generation with another one.
    pub refused: Vec<(String, String)>,
}

/// A takeover under way.
#[derive(Debug)]
pub(super) struct Adopting {
    base: Arc<Base>,
    purpose: Purpose,
    pieces: Pieces,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Comparing(Comparing),
    /// It is the base, and its records are taken in.
    TakingIn,
}

/// What is held, beside a snapshot.
#[derive(Debug, Default)]
struct Comparing {
    /// The records of the logs, once they were read; some of those admitted since may be among them.
    loose: Arc<HashMap<String, StoredRecord>>,
    /// Keys of those that the snapshot covers, or that nobody needs any more.
    covered: HashSet<String>,
    /// What was admitted since.
    late: HashMap<String, StoredRecord>,
    /// The page that is looked through next, once all keys were shown.
    page: Option<usize>,
    /// Held, and not in the snapshot.
    missing: Vec<String>,
    /// Tombstones that neither the snapshot nor what is carried over has.
    forgotten: Vec<String>,
}

impl Ledger {
    /// Begins to make the incoming snapshot the base. Its pieces are then to be taken in, one after the other, until it is done;
    /// records may be admitted between them. One that was under way is given up.
    pub fn adopt(&mut self, base: Base, purpose: Purpose) {
        self.stop_adopting();
        let base = Arc::new(base);
        let (read, scope, folder) = (Arc::clone(&base), self.scope.clone(), self.folder.clone());
        let compaction = self.compaction.take();
        // Nothing is admitted while a stream is taken over, so where nothing is held now nothing can be missing.
        let compares = purpose == Purpose::Cover || self.slots.len() > 0;
        let runtime = tokio::runtime::Handle::current();
        let pieces = reading(move |pieces| {
            if let Some(compaction) = compaction {
                // It writes the same files, and takes less than a second.
                let _ = runtime.block_on(compaction);
            }
            let loose = Arc::new(folder.loose()?.records);
            pieces.send(Found::Logs(Arc::clone(&loose)))?;
            if compares {
                keys(&read, &scope, &loose, pieces)
            } else {
                Ok(())
            }
        });
        self.slots.begin_seeing();
        self.adopting = Some(Adopting {
            base,
            purpose,
            pieces,
            stage: Stage::Comparing(Comparing::default()),
        });
    }

    /// Whether a takeover is under way.
    #[must_use]
    pub const fn is_adopting(&self) -> bool {
        self.adopting.is_some()
    }

    /// Waits for the next piece of the takeover that is under way; for ever when none is. What waits may be given up.
    pub async fn next_piece(&mut self) -> Piece {
        let Some(adopting) = &mut self.adopting else {
            return std::future::pending().await;
        };
        if let Stage::Comparing(Comparing { page: Some(_), .. }) = adopting.stage {
            return Piece(Found::Pages);
        }
        Piece(adopting.pieces.next().await)
    }

    /// The last piece was taken in, and handed on: the next one may be read.
    pub fn read_on(&self) {
        if let Some(adopting) = &self.adopting {
            adopting.pieces.go_on();
        }
    }

    /// Takes a piece in.
    ///
    /// # Errors
    /// When the snapshot lacks more than an orderly change explains, or cannot be read or kept: then it is given up and nothing has
    /// changed. When its records were not read to their end: then the stream has to be taken over again.
    pub async fn take_piece(&mut self, Piece(found): Piece) -> Result<Progress, StateError> {
        let Some(mut adopting) = self.adopting.take() else {
            return Ok(Progress::Compared);
        };
        let taken = match self.take(&mut adopting, found) {
            Ok(None) => self.found_on(&mut adopting).await,
            Ok(Some(progress)) => Ok(progress),
            Err(error) => Err(error),
        };
        match taken {
            Ok(Progress::Done { .. }) => {}
            Ok(Progress::Compared | Progress::Based { .. } | Progress::Slice(_)) => {
                self.adopting = Some(adopting);
            }
            Err(_) => self.slots.end_seeing(),
        }
        taken
    }

    /// None when everything was compared.
    fn take(
        &mut self,
        adopting: &mut Adopting,
        found: Found,
    ) -> Result<Option<Progress>, StateError> {
        let at = adopting.base.index.at_sequence;
        let purpose = adopting.purpose;
        match (&mut adopting.stage, found) {
            (Stage::Comparing(comparing), Found::Logs(loose)) => comparing.loose = loose,
            (Stage::Comparing(comparing), Found::Keys(keys)) => self.compare(comparing, &keys),
            (Stage::Comparing(comparing), Found::End(Ok(()))) => comparing.page = Some(0),
            (Stage::Comparing(comparing), Found::Pages) => {
                if self.look_through(comparing, purpose, at) {
                    return Ok(None);
                }
            }
            (Stage::TakingIn, Found::Records(records)) => {
                return Ok(Some(Progress::Slice(self.take_in_newer(records))));
            }
            (Stage::TakingIn, Found::End(Ok(()))) => {
                return Ok(Some(Progress::Done { purpose, at }));
            }
            (stage, Found::End(Err(source))) => {
                if matches!(stage, Stage::TakingIn) {
                    self.position.incarnation = None;
                }
                return Err(StateError::Base {
                    stream: self.stream.clone(),
                    source,
                });
            }
            (Stage::Comparing(_), Found::Records(_))
            | (Stage::TakingIn, Found::Logs(_) | Found::Keys(_) | Found::Pages) => {}
        }
        Ok(Some(Progress::Compared))
    }

    /// What was admitted while a snapshot is compared, and so is not in the logs that were read for that.
    pub(super) fn admitted_late(&mut self, records: Vec<StoredRecord>) {
        if let Some(Adopting {
            stage: Stage::Comparing(comparing),
            ..
        }) = &mut self.adopting
        {
            let records = records
                .into_iter()
                .map(|stored| (stored.key.clone(), stored));
            comparing.late.extend(records);
        }
    }

    /// Keys that were dropped meanwhile need not be carried over.
    pub(super) fn dropped_late(&mut self, keys: &[String]) {
        if let Some(Adopting {
            stage: Stage::Comparing(comparing),
            ..
        }) = &mut self.adopting
        {
            for key in keys {
                comparing.late.remove(key);
                comparing.covered.insert(key.clone());
            }
        }
    }

    fn stop_adopting(&mut self) {
        if self.adopting.take().is_some() {
            self.slots.end_seeing();
        }
    }

    /// Takes note of keys that the snapshot has, and which records it covers.
    fn compare(&mut self, comparing: &mut Comparing, keys: &Keys) {
        let mut from = 0;
        let mut breaks = Breaks::begin();
        for end in &keys.ends {
            breaks.may_be_due();
            self.slots.see(&keys.text[from..*end]);
            from = *end;
        }
        for (key, slot) in &keys.loose {
            if order_of(self.slots.get(key), *slot) != Order::Older {
                comparing.covered.insert(key.clone());
            }
        }
    }

    /// Looks for what the snapshot lacks, in some pages. True when they were the last.
    fn look_through(&self, comparing: &mut Comparing, purpose: Purpose, at: u64) -> bool {
        let mut breaks = Breaks::begin();
        let from = comparing.page.unwrap_or(0);
        let to = self.slots.pages().min(from + PIECE_PAGES);
        for (key, is_tombstone) in (from..to).flat_map(|page| self.slots.unseen(page)) {
            breaks.may_be_due();
            let came_later = comparing
                .stored(key)
                .is_some_and(|stored| stored.sequence > at);
            if is_tombstone && !came_later {
                comparing.forgotten.push(key.to_owned());
                comparing.covered.insert(key.to_owned());
            } else if !(is_tombstone || came_later && purpose == Purpose::Cover) {
                comparing.missing.push(key.to_owned());
            }
        }
        comparing.page = Some(to);
        to == self.slots.pages()
    }

    /// Everything was compared: the snapshot becomes the base, if it may.
    async fn found_on(&mut self, adopting: &mut Adopting) -> Result<Progress, StateError> {
        let Stage::Comparing(comparing) = &mut adopting.stage else {
            return Ok(Progress::Compared);
        };
        // What was admitted since its page was looked through is neither.
        let came_late = |key: &String| comparing.late.contains_key(key);
        comparing.missing.retain(|key| !came_late(key));
        comparing.forgotten.retain(|key| !came_late(key));
        let missing = std::mem::take(&mut comparing.missing);
        let missing = self.judge(&adopting.base, missing, self.slots.live())?;
        let forgotten = std::mem::take(&mut comparing.forgotten);
        // What the stream repeats as it is held is not written again, so all that may still come is carried.
        let carried = comparing.carried();
        self.put_in_place(&adopting.base, adopting.purpose, carried)
            .await?;
        self.led_in(adopting.base.epoch);
        self.slots.end_seeing();
        for key in forgotten {
            self.slots.remove(&key);
        }
        self.slots.reserve(adopting.base.records());
        let (read, scope) = (Arc::clone(&adopting.base), self.scope.clone());
        adopting.pieces = reading(move |pieces| records(&read, &scope, pieces));
        adopting.stage = Stage::TakingIn;
        Ok(Progress::Based { missing })
    }

    /// The records of the snapshot that are newer than those held, which they replace.
    fn take_in_newer(&mut self, records: Vec<Held>) -> Slice {
        let mut slice = Slice::default();
        let mut breaks = Breaks::begin();
        for (key, opened) in records {
            breaks.may_be_due();
            let opened = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    slice.refused.push((key, error.to_string()));
                    continue;
                }
            };
            match self.order(&opened) {
                Order::Newer => {
                    self.slots.insert(&opened.key, Slot::of(&opened));
                    slice.newer.push(opened);
                }
                // A snapshot may lag behind what is held.
                Order::Same | Order::Older => {}
                Order::Conflict => {
                    let reason = format!(
                        "generation {} is held with other content",
                        opened.generation
                    );
                    slice.refused.push((opened.key, reason));
                }
            }
        }
        slice
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

impl Comparing {
    /// What the logs hold under `key`, and the snapshot does not cover.
    fn stored(&self, key: &str) -> Option<&StoredRecord> {
        let loose = || self.loose.get(key).filter(|_| !self.covered.contains(key));
        self.late.get(key).or_else(loose)
    }

    /// The records that have to be written behind the snapshot.
    fn carried(&mut self) -> HashMap<String, StoredRecord> {
        // The thread that read it, too, has ended, or is about to.
        let mut carried = Arc::unwrap_or_clone(std::mem::take(&mut self.loose));
        carried.retain(|key, _| !self.covered.contains(key));
        carried.extend(std::mem::take(&mut self.late));
        carried
    }
}
