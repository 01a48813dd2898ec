//! Reads a snapshot beside what serves, and says what it finds in pieces.
//!
//! It verifies every part, and judges nothing: that is for who holds the places. A thread of low priority does it, so that requests come first.

use std::collections::HashMap;
use std::sync::Arc;

use helix_routing::key::Scope;
use helix_routing::snapshot::PartRecords;
use tokio::sync::{mpsc, oneshot};

use super::base::{Base, BaseError};
use super::frame::StoredRecord;
use super::slots::Slot;
use crate::feed::record::{self, Opened, Rejected};

/// Niceness of the thread: it gets a tenth of what a serving thread gets where both want a core.
const NICENESS: i32 = 10;
/// Pieces that wait for the ledger.
const WAITING_PIECES: usize = 4;
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
    Records(Vec<(String, Result<Opened, Rejected>)>),
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
    read: impl FnOnce(&mpsc::Sender<Found>) -> Result<(), BaseError> + Send + 'static,
) -> mpsc::Receiver<Found> {
    let (sender, pieces) = mpsc::channel(WAITING_PIECES);
    spawn(move || {
        let end = read(&sender);
        // Nobody takes it only when the takeover was given up, or the process ends.
        let _ = sender.blocking_send(Found::End(end));
    });
    pieces
}

/// Sends what was found; an error when nobody wants more.
pub(super) fn send(pieces: &mpsc::Sender<Found>, found: Found) -> Result<(), BaseError> {
    pieces.blocking_send(found).map_err(|_| BaseError::Shape)
}

/// Finds the keys of a snapshot, and the places of those that lie in the logs.
pub(super) fn keys(
    base: &Base,
    scope: &Scope,
    loose: &HashMap<String, StoredRecord>,
    pieces: &mpsc::Sender<Found>,
) -> Result<(), BaseError> {
    base.each_content(|number, content| {
        let unreadable = |source| BaseError::Content { number, source };
        let mut keys = Keys::default();
        for record in PartRecords::new(content).map_err(unreadable)? {
            let (key, body) = record.map_err(unreadable)?;
            keys.text.push_str(key);
            keys.ends.push(keys.text.len());
            if loose.contains_key(key)
                && let Ok(opened) = record::open_covered(scope, key, body, base.epoch)
            {
                keys.loose.push((opened.key.clone(), Slot::of(&opened)));
            }
            if keys.ends.len() == PIECE_KEYS {
                send(pieces, Found::Keys(std::mem::take(&mut keys)))?;
            }
        }
        send(pieces, Found::Keys(keys))
    })
}

/// Finds the records of a snapshot.
pub(super) fn records(
    base: &Base,
    scope: &Scope,
    pieces: &mpsc::Sender<Found>,
) -> Result<(), BaseError> {
    base.each_content(|number, content| {
        let unreadable = |source| BaseError::Content { number, source };
        let mut records = Vec::new();
        for record in PartRecords::new(content).map_err(unreadable)? {
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
                send(pieces, Found::Records(std::mem::take(&mut records)))?;
            }
        }
        send(pieces, Found::Records(records))
    })
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
