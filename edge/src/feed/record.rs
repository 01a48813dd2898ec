//! Pure: what a message of a stream has to be before it counts.
//!
//! Every byte is hostile until its signature verifies, and then it still has to be the record of the place
//! where it was found: this stream, this key, this life of the stream, this region. Whether it is newer than
//! the one held is the ledger's question.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use bytes::Bytes;
use helix_routing::edge::record::EdgeRecord;
use helix_routing::gate::record::GateRecord;
use helix_routing::glass::Refused;
use helix_routing::id::{Epoch, Generation, Incarnation};
use helix_routing::key::{self, Scope};
use helix_routing::record::{HostRecord, PurgeRecord, SiteRecord, TermRecord};
use helix_routing::seal::{KeyRole, Seal};
use helix_routing::wire::{Wire, WireError};
use helix_service::keys::{KeyRing, VerifyError};

/// What a stream carries.
#[derive(Clone, Debug)]
pub enum Record {
    /// What a site serves in this region.
    Site(Box<SiteRecord>),
    /// Where a host routes.
    Host(Box<HostRecord>),
    /// What is to be forgotten of a site's responses in this region.
    Purge(Box<PurgeRecord>),
    /// Gates that are to be run in this region.
    Gate(Box<GateRecord>),
    /// What one edge of this region is told about itself.
    Edge(Box<EdgeRecord>),
    /// Who leads.
    Term(TermRecord),
}

/// A record whose signature and place are right.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its key in the stream.
    pub key: String,
    /// Its sequence; 0 when it came in a snapshot.
    pub sequence: u64,
    /// Whether an operator has signed it, past origin.
    pub by_operator: bool,
    /// The term in its envelope.
    pub sealed_epoch: Epoch,
    /// The term that wrote this generation.
    pub epoch: Epoch,
    /// Its generation.
    pub generation: Generation,
    /// Of its body: two records of one generation must agree in it.
    pub body: Fingerprint,
    /// What it says.
    pub record: Record,
    /// The envelope, as published; empty for a record that the signature of a whole snapshot covers.
    pub sealed: Bytes,
}

/// Tells bodies apart within one process: nobody outside knows the hash, so that nobody can choose two that agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// Of this body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        static HASHER: OnceLock<RandomState> = OnceLock::new();
        Self(HASHER.get_or_init(RandomState::new).hash_one(body))
    }
}

/// A record was refused. The last good one stays.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// The envelope is not one, or not signed by whom it should be.
    #[error(transparent)]
    Seal(#[from] VerifyError),
    /// The body cannot be read.
    #[error(transparent)]
    Body(#[from] WireError),
    /// It was signed for another place.
    #[error("signed for {what} {signed}, found at {found}")]
    Place {
        /// What differs.
        what: &'static str,
        /// What was signed.
        signed: String,
        /// Where it was found.
        found: String,
    },
    /// Envelope and record disagree.
    #[error("envelope and record disagree about {what}")]
    Disagrees {
        /// About what.
        what: &'static str,
    },
    /// This build knows no such key in this stream.
    #[error("no record is known under this key")]
    UnknownKey,
    /// A list of purges that cannot be.
    #[error("it lists no purges, or more than there were")]
    Unsound,
    /// An operator's record that may not be.
    #[error(transparent)]
    Glass(#[from] Refused),
    /// An origin that no longer leads wrote it.
    #[error("written in term {found}, the stream is in term {known}")]
    OldTerm {
        /// Its term.
        found: Epoch,
        /// The highest seen.
        known: Epoch,
    },
}

/// Opens what was stored under `key` of the stream of `scope`. `life` is the stream's incarnation;
/// none for what is read back from disk, where records of earlier lives stay good.
///
/// # Errors
/// As [`Rejected`] says.
pub fn open(
    ring: &KeyRing,
    scope: &Scope,
    life: Option<&Incarnation>,
    key: &str,
    sealed: Bytes,
) -> Result<Opened, Rejected> {
    let seal = match ring.verify(KeyRole::Record, &sealed) {
        Err(VerifyError::Role {
            found: KeyRole::Operator,
            ..
        }) if may_be_an_operators(scope, key) => ring.verify(KeyRole::Operator, &sealed)?,
        verified => verified?,
    };
    let by_operator = seal.role == KeyRole::Operator;
    check_place(&seal, &scope.stream(), life, key)?;
    let opened = read(scope, key, &seal.body, seal.epoch)?;
    // A term has no generation of its own, and its envelope none.
    if opened.generation != seal.generation && key != key::TERM {
        return Err(Rejected::Disagrees {
            what: "the generation",
        });
    }
    Ok(Opened {
        by_operator,
        sealed,
        ..opened
    })
}

/// Opens a record that a verified snapshot holds under `key`; `sealed_epoch` is that of the snapshot.
///
/// # Errors
/// As [`Rejected`] says.
pub fn open_covered(
    scope: &Scope,
    key: &str,
    body: &[u8],
    sealed_epoch: Epoch,
) -> Result<Opened, Rejected> {
    read(scope, key, body, sealed_epoch)
}

fn read(scope: &Scope, key: &str, body: &[u8], sealed_epoch: Epoch) -> Result<Opened, Rejected> {
    let (record, epoch, generation) = decode(scope, key, body, sealed_epoch)?;
    if epoch > sealed_epoch {
        return Err(Rejected::Disagrees { what: "the term" });
    }
    Ok(Opened {
        key: key.to_owned(),
        sequence: 0,
        by_operator: false,
        sealed_epoch,
        epoch,
        generation,
        body: Fingerprint::of(body),
        record,
        sealed: Bytes::new(),
    })
}

/// An operator overrides sites of a region, and raises its term for that.
fn may_be_an_operators(scope: &Scope, key: &str) -> bool {
    matches!(scope, Scope::Region(_)) && (key == key::TERM || key.starts_with("cut."))
}

/// Opens an envelope whose own stream and key say where it belongs: those of a snapshot.
///
/// # Errors
/// As [`Rejected`] says.
pub fn open_from_snapshot(
    ring: &KeyRing,
    scope: &Scope,
    life: &Incarnation,
    sealed: Bytes,
) -> Result<Opened, Rejected> {
    let key = helix_routing::seal::open(&sealed)?.seal.key;
    open(ring, scope, Some(life), &key, sealed)
}

/// Checks that an envelope was signed for this stream, life and key.
///
/// # Errors
/// When it was signed for another.
pub fn check_place(
    seal: &Seal,
    stream: &str,
    life: Option<&Incarnation>,
    key: &str,
) -> Result<(), Rejected> {
    let place = |what, signed: &str, found: &str| Rejected::Place {
        what,
        signed: signed.to_owned(),
        found: found.to_owned(),
    };
    if seal.stream != stream {
        return Err(place("stream", &seal.stream, stream));
    }
    if seal.key != key {
        return Err(place("key", &seal.key, key));
    }
    match life {
        Some(life) if *life != seal.incarnation => Err(place(
            "incarnation",
            seal.incarnation.as_str(),
            life.as_str(),
        )),
        Some(_) | None => Ok(()),
    }
}

fn decode(
    scope: &Scope,
    found: &str,
    body: &[u8],
    sealed_epoch: Epoch,
) -> Result<(Record, Epoch, Generation), Rejected> {
    if found == key::TERM {
        let term = TermRecord::decode(body)?;
        // A term has no generation of its own: it is one.
        let generation = Generation(term.epoch.0);
        return Ok((Record::Term(term), sealed_epoch, generation));
    }
    let (record, expected, epoch, generation) = match (scope, found.split('.').next()) {
        (Scope::Region(region), Some("cut")) => {
            let site = SiteRecord::decode(body)?;
            if site.region != *region {
                return Err(Rejected::Disagrees { what: "the region" });
            }
            let (expected, epoch, generation) =
                (key::site(&site.site), site.epoch, site.generation);
            (Record::Site(Box::new(site)), expected, epoch, generation)
        }
        (Scope::Region(region), Some("purge")) => {
            let purge = PurgeRecord::decode(body)?;
            if purge.region != *region {
                return Err(Rejected::Disagrees { what: "the region" });
            }
            if !purge.is_sound() {
                return Err(Rejected::Unsound);
            }
            let (expected, epoch, generation) =
                (key::purge(&purge.site), purge.epoch, purge.generation);
            (Record::Purge(Box::new(purge)), expected, epoch, generation)
        }
        (Scope::Region(region), Some("gate")) => {
            let gate = GateRecord::decode(body)?;
            if gate.region != *region {
                return Err(Rejected::Disagrees { what: "the region" });
            }
            let (expected, epoch, generation) =
                (key::gate(&gate.site), gate.epoch, gate.generation);
            (Record::Gate(Box::new(gate)), expected, epoch, generation)
        }
        (Scope::Region(region), Some("edge")) => {
            let edge = EdgeRecord::decode(body)?;
            if edge.region != *region {
                return Err(Rejected::Disagrees { what: "the region" });
            }
            let (expected, epoch, generation) =
                (key::edge(&edge.edge), edge.epoch, edge.generation);
            (Record::Edge(Box::new(edge)), expected, epoch, generation)
        }
        (Scope::Global, Some("h" | "w")) => {
            let host = HostRecord::decode(body)?;
            let (expected, epoch, generation) =
                (key::host(&host.host), host.epoch, host.generation);
            (Record::Host(Box::new(host)), expected, epoch, generation)
        }
        (Scope::Global | Scope::Region(_), _) => return Err(Rejected::UnknownKey),
    };
    if expected != found {
        return Err(Rejected::Disagrees { what: "the key" });
    }
    Ok((record, epoch, generation))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
