//! A ledger from its files: what a start reads.
//!
//! Records of the logs are few, and each is verified by its own signature, on every core. Those of the base are many, and its one
//! signature and the digests of its parts were verified when it was opened; one thread takes them apart while another takes them in.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use helix_routing::id::Epoch;
use helix_routing::key::Scope;
use helix_routing::record::Order;
use helix_service::keys::KeyRing;

use super::base::{Base, BaseError};
use super::files::{Folder, Loaded};
use super::frame::StoredRecord;
use super::reading::each_piece;
use super::slots::{Slot, Slots};
use super::{Ledger, StateError, order_of};
use crate::feed::record::{self, Opened};

/// Pieces of a base that were read and wait to be taken in: more would only take memory.
const WAITING_PIECES: usize = 4;
/// Fewer records than this are verified before another thread would have begun.
const WORTH_A_THREAD: usize = 64;

impl Ledger {
    /// Reads the state of the stream of `scope`, and hands every record that is still accepted to `each`, in batches; of two of one key
    /// the later counts.
    ///
    /// # Errors
    /// When the files cannot be read. Damage in them is no error: it is repaired from the stream.
    pub fn open(
        folder: PathBuf,
        scope: Scope,
        ring: Arc<KeyRing>,
        mut each: impl FnMut(Vec<Opened>),
    ) -> Result<Self, StateError> {
        let failed = |source| StateError::Read {
            folder: folder.clone(),
            source,
        };
        let files = Folder::open(folder.clone()).map_err(failed)?;
        let Loaded {
            base,
            contents,
            next,
            is_long,
        } = files.load(&ring, &scope).map_err(failed)?;
        let loose_bytes: usize = contents
            .records
            .values()
            .map(|record| record.sealed.len())
            .sum();
        let mut ledger = Self {
            stream: scope.stream(),
            folder: files,
            slots: Slots::default(),
            position: contents.position,
            epoch: Epoch(0),
            origin_epoch: Epoch(0),
            covered: base.as_ref().map(|base| base.index.at_sequence),
            loose: contents.records.len(),
            log: None,
            log_number: next,
            // Counts as full: the first write then folds what is there.
            log_bytes: if contents.damaged || is_long {
                u64::MAX
            } else {
                0
            },
            older_bytes: loose_bytes as u64,
            compaction: None,
            adopting: None,
            scope,
            ring,
        };
        // First and at once, so that what they take is free again when those of the base come.
        let loose = ledger.open_loose(contents.records.into_values().collect());
        for opened in &loose {
            ledger.hold(opened);
        }
        each(loose);
        if let Some(base) = base {
            ledger.led_in(base.epoch);
            let is_dropped = |key: &str| contents.dropped.contains(key);
            let taken = ledger.take_in(&base, is_dropped, &mut each);
            if let Err(error) = taken {
                // Its digests were right a moment ago: it is read again from the stream.
                tracing::error!(
                    stream = ledger.stream,
                    error = &error as &dyn std::error::Error,
                    "state base was not read to its end"
                );
                ledger.position.incarnation = None;
            }
        }
        Ok(ledger)
    }

    /// Verifies records of the logs, each by its own signature.
    fn open_loose(&self, mut stored: Vec<StoredRecord>) -> Vec<Opened> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let share = stored.len().div_ceil(cores).max(WORTH_A_THREAD);
        let mut shares = Vec::new();
        while !stored.is_empty() {
            shares.push(stored.split_off(stored.len().saturating_sub(share)));
        }
        thread::scope(|scope| {
            let open = |stored: Vec<StoredRecord>| {
                let opened = stored.into_iter().filter_map(|stored| self.reopen(stored));
                opened.collect::<Vec<_>>()
            };
            let spawn = |stored| scope.spawn(move || open(stored));
            let threads: Vec<_> = shares.into_iter().map(spawn).collect();
            let joined = threads.into_iter().filter_map(|thread| thread.join().ok());
            joined.flatten().collect()
        })
    }

    fn reopen(&self, stored: StoredRecord) -> Option<Opened> {
        let sealed = stored.sealed.into();
        match record::open(&self.ring, &self.scope, None, &stored.key, sealed) {
            // The envelope is on disk.
            Ok(opened) => Some(Opened {
                sealed: Bytes::new(),
                ..opened
            }),
            Err(error) => {
                tracing::error!(
                    stream = self.stream,
                    key = stored.key,
                    error = &error as &dyn std::error::Error,
                    "stored record is refused"
                );
                None
            }
        }
    }

    /// Takes in the records of the base that the logs do not replace.
    fn take_in(
        &mut self,
        base: &Base,
        is_dropped: impl Fn(&str) -> bool,
        each: &mut impl FnMut(Vec<Opened>),
    ) -> Result<(), BaseError> {
        self.slots.reserve(base.records());
        let scope = self.scope.clone();
        let (sender, pieces) = mpsc::sync_channel(WAITING_PIECES);
        thread::scope(|threads| {
            let reading = threads.spawn(move || {
                each_piece(base, &scope, |records| {
                    // Nobody takes them only when this thread's owner has panicked.
                    let _ = sender.send(records);
                    Ok(())
                })
            });
            for records in pieces {
                let mut batch = Vec::with_capacity(records.len());
                for (key, opened) in records {
                    match opened {
                        Ok(opened) if !is_dropped(&opened.key) => {
                            let before = self.hold(&opened);
                            if order_of(before, Slot::of(&opened)) == Order::Newer {
                                batch.push(opened);
                            } else if let Some(before) = before {
                                self.slots.insert(&opened.key, before);
                            }
                        }
                        Ok(_) => {}
                        Err(error) => {
                            tracing::error!(
                                stream = self.stream,
                                key,
                                error = &error as &dyn std::error::Error,
                                "stored record is refused"
                            );
                        }
                    }
                }
                each(batch);
            }
            reading.join().unwrap_or(Err(BaseError::Shape))
        })
    }
}
