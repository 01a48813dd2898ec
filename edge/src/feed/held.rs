//! Answers a restored origin that asks what is held here.
//!
//! A recall is sealed like a beacon. Answering changes nothing on this edge, and what is sent was signed by an origin once.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use helix_routing::id::EdgeId;
use helix_routing::key::{self, Scope};
use helix_routing::recall::{HeldRecord, RECALL, Recall};
use helix_routing::seal::{self, KeyRole};
use helix_routing::wire::Wire;
use helix_service::keys::KeyRing;
use tokio::time::Instant;

use super::record::{self, Rejected};
use crate::state::base::Base;
use crate::state::{Ledger, Peeked, StoredRecord};

/// The same question is answered again no sooner: the answer may be large.
const ANSWER_PAUSE: Duration = Duration::from_secs(4);

/// What is held of a stream, for who asked.
#[derive(Debug)]
pub struct Recalled {
    /// The question.
    pub recall: String,
    /// The stream.
    pub stream: String,
    /// The snapshot that state begins with, if origin may not know of it.
    pub snapshot: Vec<u8>,
    /// What origin may not know of besides.
    pub records: Vec<HeldRecord>,
}

/// The question to answer next, and the one answered last.
#[derive(Debug)]
pub(super) struct Recalls {
    edge: EdgeId,
    due: Option<Recall>,
    answered: Option<(String, Instant)>,
}

impl Recalls {
    /// Of this edge.
    pub(super) const fn new(edge: EdgeId) -> Self {
        Self {
            edge,
            due: None,
            answered: None,
        }
    }

    /// Takes a question in, if it is one and comes from origin.
    pub(super) fn hear(&mut self, ring: &KeyRing, scope: &Scope, sealed: &[u8]) {
        match open(ring, scope, sealed) {
            Ok(recall) => {
                let is_answered =
                    |(id, at): &(String, Instant)| *id == recall.id && at.elapsed() < ANSWER_PAUSE;
                let is_heard = recall.heard.contains(&self.edge);
                if !is_heard && !self.answered.as_ref().is_some_and(is_answered) {
                    self.due = Some(recall);
                }
            }
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::warn!(stream = scope.stream(), error, "recall is refused");
            }
        }
    }

    /// The question that is due.
    pub(super) fn take(&mut self) -> Option<Recall> {
        let due = self.due.take()?;
        tracing::warn!(stream = due.stream, "a restored origin asks what is held");
        self.answered = Some((due.id.clone(), Instant::now()));
        Some(due)
    }
}

fn open(ring: &KeyRing, scope: &Scope, sealed: &[u8]) -> Result<Recall, Rejected> {
    let seal = ring.verify(KeyRole::Record, sealed)?;
    record::check_place(&seal, &scope.recall(), None, RECALL)?;
    let recall = Recall::decode(&seal.body)?;
    if recall.stream != scope.stream() {
        return Err(Rejected::Disagrees { what: "the stream" });
    }
    Ok(recall)
}

/// Reads what is held and leaves out what the backup knows of.
pub(super) fn answer(recall: Recall, ledger: &Ledger) -> impl Future<Output = Recalled> + use<> {
    let asked = recall.clone();
    let peeked = ledger.peek(move |base| !knows(&asked, base));
    async move {
        let Peeked { snapshot, records } = peeked.await.unwrap_or_else(|error| {
            let error = &error as &dyn Error;
            tracing::error!(stream = recall.stream, error, "what is held cannot be read");
            Peeked::default()
        });
        let is_news = |stored: &StoredRecord| stored.key == key::TERM || !is_known(&recall, stored);
        let records = records.into_iter().filter(is_news);
        let records = records.map(|stored| HeldRecord {
            key: stored.key,
            sealed: stored.sealed,
        });
        Recalled {
            records: records.collect(),
            snapshot,
            recall: recall.id,
            stream: recall.stream,
        }
    }
}

/// Whether the backup has all of a snapshot: origin made it, in the life that the backup knows, before its end.
fn knows(recall: &Recall, base: &Base) -> bool {
    Some(&base.incarnation) == recall.incarnation.as_ref() && base.index.at_sequence <= recall.after
}

/// Whether the backup has it: it came in the life that the backup knows, before its end. A record without a sequence may have
/// come at any time.
fn is_known(recall: &Recall, stored: &StoredRecord) -> bool {
    let is_early = stored.sequence != 0 && stored.sequence <= recall.after;
    is_early
        && seal::open(&stored.sealed)
            .is_ok_and(|opened| Some(&opened.seal.incarnation) == recall.incarnation.as_ref())
}
