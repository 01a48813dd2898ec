//! What edges have said, put together: of each record the newest, and which edges have said all.

use std::collections::{BTreeMap, HashSet};

use helix_routing::edge::record::EdgeRecord;
use helix_routing::gate::record::GateRecord;
use helix_routing::id::{Digest, EdgeId, Epoch, Generation};
use helix_routing::key;
use helix_routing::recall::{self, HeldRecord, HeldReport};
use helix_routing::record::{HostRecord, PurgeRecord, SiteRecord, TermRecord};
use helix_routing::seal::{KeyRole, Seal};
use helix_routing::wire::{Wire, WireError};
use helix_service::keys::{KeyRing, VerifyError};

use super::reading::Reading;

/// Most records taken from edges: those of a million hosts and more.
const MAX_RECORDS: usize = 4_000_000;

/// A record that an edge holds, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub epoch: Epoch,
    pub generation: Generation,
    pub body: Vec<u8>,
}

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// By stream and key, the newest.
    pub records: BTreeMap<(String, String), Held>,
    /// The highest term in which anything was signed.
    pub highest: Epoch,
    answers: BTreeMap<(EdgeId, String), Answer>,
    /// Parts of snapshots that were read: many edges hold the same.
    parts: HashSet<(String, Digest)>,
}

/// How far an edge has answered for a stream. Pages come in their order, or from the first on again.
#[derive(Debug, Default)]
struct Answer {
    next: u32,
    is_whole: bool,
    reading: Reading,
}

impl Heard {
    /// Whether the edge has said all of a stream.
    pub(super) fn has(&self, edge: &EdgeId, stream: &str) -> bool {
        let answer = self.answers.get(&(edge.clone(), stream.to_owned()));
        answer.is_some_and(|answer| answer.is_whole)
    }

    /// The edges that have said all of a stream.
    pub(super) fn of(&self, stream: &str) -> Vec<EdgeId> {
        let whole = self
            .answers
            .iter()
            .filter(|((_, of), answer)| of == stream && answer.is_whole);
        whole.map(|((edge, _), _)| edge.clone()).collect()
    }

    /// Takes a page in.
    pub(super) fn take(&mut self, ring: &KeyRing, report: HeldReport) {
        let of = (report.edge.clone(), report.stream.clone());
        let mut answer = self.answers.remove(&of).unwrap_or_default();
        if report.page == 0 && !answer.is_whole {
            answer = Answer::default();
        }
        if !answer.is_whole && report.page == answer.next {
            answer.next += 1;
            answer.is_whole = answer.next >= report.pages;
            match report.held {
                recall::Held::Snapshot(bytes) => {
                    self.read(ring, &mut answer.reading, &bytes, &of);
                }
                recall::Held::Records(records) => {
                    for record in records {
                        self.record(ring, record, &of);
                    }
                }
            }
        }
        self.answers.insert(of, answer);
    }

    fn record(&mut self, ring: &KeyRing, record: HeldRecord, (edge, stream): &(EdgeId, String)) {
        let seal = match verify(ring, &record.sealed) {
            Ok(seal) if seal.stream == *stream && seal.key == record.key => seal,
            Ok(_) => {
                tracing::warn!(%edge, key = record.key, "a record that an edge holds is of another place");
                return;
            }
            Err(error) => {
                tracing::warn!(%edge, key = record.key, %error, "a record that an edge holds does not verify");
                return;
            }
        };
        self.highest = self.highest.max(seal.epoch);
        self.keep(stream, &record.key, &seal.body, edge);
    }

    /// Goes on reading the snapshot that an edge's state begins with. One that is not what was signed is left out.
    fn read(
        &mut self,
        ring: &KeyRing,
        reading: &mut Reading,
        bytes: &[u8],
        (edge, stream): &(EdgeId, String),
    ) {
        let (mut records, mut parts) = (Vec::new(), std::mem::take(&mut self.parts));
        let is_new = |digest: &Digest| parts.insert((stream.clone(), digest.clone()));
        let read = reading.take(ring, stream, bytes, is_new, |key, body| {
            records.push((key.to_owned(), body.to_vec()));
        });
        self.parts = parts;
        if let Err(error) = read {
            let error = &error as &dyn std::error::Error;
            tracing::error!(%edge, stream, error, "the snapshot that an edge holds is not what was signed");
        }
        self.highest = self.highest.max(reading.epoch());
        for (key, body) in records {
            self.keep(stream, &key, &body, edge);
        }
    }

    fn keep(&mut self, stream: &str, key: &str, body: &[u8], edge: &EdgeId) {
        let held = match read(key, body) {
            Ok(Some((epoch, generation))) => Held {
                epoch,
                generation,
                body: body.to_vec(),
            },
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%edge, key, %error, "a record that an edge holds cannot be read");
                return;
            }
        };
        let is_full = self.records.len() >= MAX_RECORDS;
        let place = (stream.to_owned(), key.to_owned());
        match self.records.get(&place) {
            Some(known) if known.generation == held.generation && known.body != held.body => {
                tracing::error!(%edge, key, generation = held.generation.0, "edges hold two records of one generation; that of the later term counts");
                if held.epoch > known.epoch {
                    self.records.insert(place, held);
                }
            }
            Some(known) if known.generation >= held.generation => {}
            None if is_full => {}
            Some(_) | None => {
                self.records.insert(place, held);
            }
        }
    }
}

fn verify(ring: &KeyRing, sealed: &[u8]) -> Result<Seal, VerifyError> {
    ring.verify(KeyRole::Record, sealed)
        .or_else(|_| ring.verify(KeyRole::Operator, sealed))
}

/// The term and generation that a record says; none for one that has none, and for what this build does not know.
fn read(key: &str, body: &[u8]) -> Result<Option<(Epoch, Generation)>, WireError> {
    if key == key::TERM {
        return TermRecord::decode(body).map(|_| None);
    }
    let place = match key.split('.').next() {
        Some("cut") => {
            let record = SiteRecord::decode(body)?;
            (record.epoch, record.generation)
        }
        Some("h" | "w") => {
            let record = HostRecord::decode(body)?;
            (record.epoch, record.generation)
        }
        Some("purge") => {
            let record = PurgeRecord::decode(body)?;
            (record.epoch, record.generation)
        }
        Some("gate") => {
            let record = GateRecord::decode(body)?;
            (record.epoch, record.generation)
        }
        Some("edge") => {
            let record = EdgeRecord::decode(body)?;
            (record.epoch, record.generation)
        }
        Some(_) | None => return Ok(None),
    };
    Ok(Some(place))
}

#[cfg(test)]
#[path = "heard_tests.rs"]
mod tests;
