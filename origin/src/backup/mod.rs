//! Backups: what origin knows and its keys, in one encrypted file; and a new machine that is made from it.
//!
//! ```text
//!  database (one moment, as rows) ┐
//!  every key that origin has      ┴─▶ frames ──▶ envelope (for one recipient) ──▶ file
//! ```
//!
//! Artifacts are not in it: they are named by what they are, so any tool copies them at any time, after the backup. A restored
//! database lies still until [`crate::recovery`] has asked the edges what they hold.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use helix_routing::time::Timestamp;
use helix_routing::wire::{Wire, WireError};
use helix_service::disk;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::store::dump::{Table, Value};
use crate::store::{Place, StoreError};

mod envelope;
mod make;
mod restore;

pub use envelope::{EnvelopeError, Identity, Recipient};
pub use make::make;
pub use restore::restore;

/// The oldest schema that knows of restores.
const OLDEST_SCHEMA: i64 = 20;
/// The largest frame: a row with the largest record or machine, and room.
const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;

/// A backup could not be made or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("{attempted} {}", path.display())]
    File {
        /// What was attempted.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is no backup, or not one for us.
    #[error("read the backup {}", path.display())]
    Envelope {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: EnvelopeError,
    },
    /// It was opened, and what is inside is not what this build writes.
    #[error("read what is in the backup")]
    Frame(#[source] WireError),
    /// It was opened, and does not hold what it says.
    #[error("read what is in the backup: {0}")]
    Content(&'static str),
    /// A later build made it.
    #[error(
        "the backup's schema is {theirs}, this build knows up to {ours}: restore it with the build that made it, or a later one"
    )]
    Newer {
        /// Its schema.
        theirs: i64,
        /// Ours.
        ours: i64,
    },
    /// The database is of an earlier build.
    #[error(
        "the database's schema is {theirs}, and one that can be restored has at least {oldest}: start origin of this build on it once"
    )]
    Older {
        /// Its schema.
        theirs: i64,
        /// The oldest that can be restored.
        oldest: i64,
    },
    /// An origin has written there.
    #[error("there is a database already at {0}: a restore needs a new one")]
    Occupied(Box<Place>),
    /// Another key is there.
    #[error("{} is there already, and is another one than the backup's: a restore overwrites no key", .0.display())]
    OtherKey(PathBuf),
    /// There is no place for the keys that let edges in.
    #[error(
        "the backup holds the keys that let edges in: name a folder for them in the config, `[admission]` `keys`"
    )]
    NoAdmission,
    /// The backup lacks a key.
    #[error("the backup lacks the {0}")]
    NoKey(&'static str),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key could not be written.
    #[error(transparent)]
    Write(#[from] disk::WriteError),
}

/// Part of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Frame {
    /// First.
    Head(Head),
    /// Rows of this table follow.
    Table(Table),
    /// A row of the table named last.
    Row(Vec<Value>),
    /// A secret.
    Secret { what: Secret, bytes: Vec<u8> },
    /// Last.
    End { rows: u64 },
}

impl Wire for Frame {
    const WHAT: &'static str = "backup frame";
    const MAX_BYTES: usize = MAX_FRAME_BYTES;
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// When it was made.
    pub made: Timestamp,
    /// By which build.
    pub build: String,
    /// The newest migration of its schema.
    pub schema: i64,
    /// Of which fleet.
    pub base_domain: String,
}

/// The secrets of an origin: every file with one that its config names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Secret {
    RecordKey,
    BootstrapToken,
    EdgeToken,
    NatsSeed,
    WebhookKey,
    /// A key of the folder that `admission.keys` names, by the name of its file.
    Admission(String),
    /// Backups from before there were sealed values have none.
    SealKey,
    /// Backups from before releases were attested have none.
    ProvenanceKey,
}

/// Those that every origin has.
const SECRETS: [Secret; 5] = [
    Secret::RecordKey,
    Secret::BootstrapToken,
    Secret::EdgeToken,
    Secret::NatsSeed,
    Secret::WebhookKey,
];

impl Secret {
    /// Every secret of an origin. What else is in the folder of admission's keys, `helix-origin nats` makes of them.
    fn all(config: &Config) -> Result<Vec<Self>, BackupError> {
        let mut all = SECRETS.to_vec();
        if config.seal_key().exists() {
            all.push(Self::SealKey);
        }
        if config.provenance_key().exists() {
            all.push(Self::ProvenanceKey);
        }
        if let Some(admission) = &config.admission {
            let unreadable = || failed("read", &admission.keys);
            for entry in fs::read_dir(&admission.keys).map_err(unreadable())? {
                let name = entry.map_err(unreadable())?.file_name();
                all.extend(name.to_str().and_then(Self::of_admission));
            }
        }
        Ok(all)
    }

    /// A key of admission by the name of its file, which may come out of a backup that somebody else made.
    fn of_admission(name: &str) -> Option<Self> {
        let (stem, kind) = name.rsplit_once('.')?;
        let is_plain = stem
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let is_key = matches!(kind, "nk" | "pem" | "key");
        (is_plain && is_key && !stem.is_empty()).then(|| Self::Admission(name.to_owned()))
    }

    fn path(&self, config: &Config) -> Result<PathBuf, BackupError> {
        Ok(match self {
            Self::RecordKey => config.record_key.clone(),
            Self::BootstrapToken => config.bootstrap_token_file.clone(),
            Self::EdgeToken => config.edge_token_file.clone(),
            Self::NatsSeed => config.nats.seed_file.clone(),
            Self::WebhookKey => config.webhook_key(),
            Self::SealKey => config.seal_key(),
            Self::ProvenanceKey => config.provenance_key(),
            Self::Admission(name) => {
                let admission = config.admission.as_ref();
                let admission = admission.ok_or(BackupError::NoAdmission)?;
                Self::of_admission(name)
                    .ok_or(BackupError::Content("a key has an illegal name"))?;
                admission.keys.join(name)
            }
        })
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::RecordKey => "key that signs records",
            Self::BootstrapToken => "bootstrap token",
            Self::EdgeToken => "token of edges",
            Self::NatsSeed => "seed of NATS",
            Self::WebhookKey => "key of webhooks",
            Self::SealKey => "key of sealed values",
            Self::ProvenanceKey => "key that attests releases",
            Self::Admission(_) => "key of the edges' accounts",
        }
    }
}

/// What was backed up, or restored.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What the backup says of itself.
    pub head: Head,
    /// Rows of the database.
    pub rows: u64,
    /// After a restore: packs that are on disk, of how many.
    pub packs: (u64, u64),
}

fn failed(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File {
        attempted,
        path,
        source,
    }
}

#[cfg(test)]
mod tests;
