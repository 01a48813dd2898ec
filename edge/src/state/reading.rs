//! Reads a snapshot beside what serves, and says what it finds in pieces.
//!
//! It verifies every part, and judges nothing: that is for who holds the places. A thread of its own does it, with breaks, so that requests come first.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use helix_routing::key::Scope;
use helix_routing::snapshot::PartRecords;
use tokio::sync::{mpsc, oneshot};

use super::base::{Base, BaseError};
use super::frame::StoredRecord;
use super::slots::Slot;
use crate::breaks::Breaks;
use crate::feed::record::{self, Opened, Rejected};

/// Keys that are compared at once: some half a millisecond, in which nothing is admitted.
const PIECE_KEYS: usize = 2048;
/// Records that are taken in at once.
const PIECE_RECORDS: usize = 1024;

/// What was found next in a snapshot.
#[derive(Debug)]
pub struct Piece(pub(super) Found);

#[derive(Debug)]
pub(super) enum Found {
    /// The records of the logs.
    Logs(Arc<HashMap<String, StoredRecord>>),
    Keys(Keys),
    /// All keys are known: it is time to look for those that the snapshot lacks.
    Pages,
    Records(Vec<Held>),
    End(Result<(), BaseError>),
}

/// Keys of a snapshot, one after the other.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) text: String,
    pub(super) ends: Vec<usize>,
    /// The places of those that lie in the logs, too.
    pub(super) loose: Vec<(String, Slot)>,
}

/// Reads a snapshot in a thread of its own: `read` sends what it finds, and the end is told after it.
pub(super) fn reading(
    read: impl FnOnce(&Finds) -> Result<(), BaseError> + Send + 'static,
) -> Pieces {
    let (sender, found) = mpsc::channel(1);
    let (go_on, turns) = sync_channel(1);
    spawn(move || {
        let finds = Finds { sender, turns };
        let end = read(&finds);
        // Nobody takes it only when the takeover was given up, or the process ends.
        let _ = finds.sender.blocking_send(Found::End(end));
    });
    Pieces { found, go_on }
}

/// Where the thread sends what it finds, and waits until that was taken in: a takeover needs one core, and leaves the others to who serves.
pub(super) struct Finds {
    sender: mpsc::Sender<Found>,
    turns: Receiver<()>,
}

impl Finds {
    /// Sends what was found; an error when nobody wants more.
    pub(super) fn send(&self, found: Found) -> Result<(), BaseError> {
        let unwanted = BaseError::Shape;
        if self.sender.blocking_send(found).is_err() || self.turns.recv().is_err() {
            return Err(unwanted);
        }
        Ok(())
    }
}

/// The other end of it.
#[derive(Debug)]
pub(super) struct Pieces {
    found: mpsc::Receiver<Found>,
    go_on: SyncSender<()>,
}

impl Pieces {
    /// The next piece. What waits may be given up.
    pub(super) async fn next(&mut self) -> Found {
        // A thread that panicked has not read to the end.
        let lost = Found::End(Err(BaseError::Shape));
        self.found.recv().await.unwrap_or(lost)
    }

    /// The last piece was taken in.
    pub(super) fn go_on(&self) {
        // The thread may have read to the end.
        let _ = self.go_on.try_send(());
    }
}

/// Finds the keys of a snapshot, and the places of those that lie in the logs.
pub(super) fn keys(
    base: &Base,
    scope: &Scope,
    loose: &HashMap<String, StoredRecord>,
    pieces: &Finds,
) -> Result<(), BaseError> {
    base.each_content(|number, content| {
        let unreadable = |source| BaseError::Content { number, source };
        let mut keys = Keys::default();
        let mut breaks = Breaks::begin();
        for record in PartRecords::new(content).map_err(unreadable)? {
            breaks.may_be_due();
            let (key, body) = record.map_err(unreadable)?;
            keys.text.push_str(key);
            keys.ends.push(keys.text.len());
            if loose.contains_key(key)
                && let Ok(opened) = record::open_covered(scope, key, body, base.epoch)
            {
                keys.loose.push((opened.key.clone(), Slot::of(&opened)));
            }
            if keys.ends.len() == PIECE_KEYS {
                pieces.send(Found::Keys(std::mem::take(&mut keys)))?;
            }
        }
        pieces.send(Found::Keys(keys))
    })
}

/// A record of a snapshot; with its key where it is refused.
pub(super) type Held = (String, Result<Opened, Rejected>);

/// Finds the records of a snapshot.
pub(super) fn records(base: &Base, scope: &Scope, pieces: &Finds) -> Result<(), BaseError> {
    each_piece(base, scope, |records| pieces.send(Found::Records(records)))
}

/// Calls `each` with the records of a snapshot, some at a time: many would take memory that is free again, and resident, afterwards.
pub(super) fn each_piece(
    base: &Base,
    scope: &Scope,
    mut each: impl FnMut(Vec<Held>) -> Result<(), BaseError>,
) -> Result<(), BaseError> {
    base.each_content(|number, content| {
        let unreadable = |source| BaseError::Content { number, source };
        let mut records = Vec::new();
        let mut breaks = Breaks::begin();
        for record in PartRecords::new(content).map_err(unreadable)? {
            breaks.may_be_due();
            let (key, body) = record.map_err(unreadable)?;
            let opened = record::open_covered(scope, key, body, base.epoch);
            records.push((
                if opened.is_err() {
                    key.to_owned()
                } else {
                    String::new()
                },
                opened,
            ));
            if records.len() == PIECE_RECORDS {
                each(std::mem::take(&mut records))?;
            }
        }
        each(records)
    })
}

/// Runs what takes time in a thread of its own. It is to take breaks.
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
    let thread = std::thread::Builder::new().name("takeover".to_owned());
    thread
        .spawn(work)
        .expect("the system has room for one more thread");
}
