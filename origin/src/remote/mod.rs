//! The registry outside of origin: every release is pushed there, and what origin's own store has lost is fetched back.
//!
//! ```text
//! a release, a tag, a referrer ──one transaction──▶ pushes (queue)
//!      run ──one artifact of a project at a time──▶ push: tree → blobs (upload) → manifests, children first → tags
//! a blob that is lost or damaged here ──▶ mend: fetched, compared with its digest, adopted
//! ```
//!
//! Invariant: origin's store and SQL are the record; the registry has copies. Nothing waits for it, unless `required` says that no
//! release goes out before the registry has it. Whatever it answers is compared with digests that origin knows.

pub mod access;
mod challenge;
pub mod check;
pub mod config;
mod link;
mod manifest;
mod mend;
mod push;
pub mod queue;
pub mod run;
mod tree;
mod upload;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use helix_routing::id::{Digest, ProjectName};
use tokio::sync::watch;
use tokio::time::Instant;

use self::access::CredentialsError;
use self::config::{IllegalRemote, RemoteConfig};
use self::link::Link;
use crate::artifact::LayoutError;
use crate::store::StoreError;
use crate::webhook::schedule::Patience;

pub use self::link::Said;
pub(crate) use self::mend::is_whole;

/// Blobs that are noted as not to be believed. Beyond that all are pushed as if nothing had been noted.
const MAX_DISTRUSTED: usize = 10_000;

/// The registry cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The table says what cannot be.
    #[error(transparent)]
    Config(#[from] IllegalRemote),
    /// The credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The HTTP client cannot be made.
    #[error("set up the client of the registry")]
    Client(#[source] reqwest::Error),
}

/// What was attempted, for errors: `push blob sha256:… to a/shop`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted(pub(crate) Arc<str>);

impl fmt::Display for Attempted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No answer, or only a part of one.
    #[error("{attempted}: no answer")]
    Unreachable {
        /// What was attempted.
        attempted: Attempted,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Its answer has begun and not ended.
    #[error("{attempted}: the answer was cut short")]
    Cut {
        /// What was attempted.
        attempted: Attempted,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It says no.
    #[error("{attempted}: answered {status} {said}")]
    Refused {
        /// What was attempted.
        attempted: Attempted,
        /// Its status.
        status: reqwest::StatusCode,
        /// What it says.
        said: Said,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It wants to be shown something that origin does not have.
    #[error("{attempted}: {why}")]
    Access {
        /// What was attempted.
        attempted: Attempted,
        /// What is missing.
        why: String,
    },
    /// Its answer is none.
    #[error("{attempted}: answered with {what}")]
    Odd {
        /// What was attempted.
        attempted: Attempted,
        /// What it answered with.
        what: &'static str,
    },
    /// A blob of origin's own store is not what its digest says.
    #[error("blob {0} is damaged in origin's own store")]
    Damaged(Digest),
    /// A manifest of origin's own store cannot be read.
    #[error("manifest {0} in origin's own store cannot be read")]
    Malformed(Digest),
    /// No project has the blob, as far as SQL knows, or its size there cannot be.
    #[error("no project has a blob {0}")]
    Unknown(Digest),
    /// A moment ago it was not to be had.
    #[error("fetch blob {digest}: it was tried a moment ago: {why}")]
    JustTried {
        /// The blob.
        digest: Digest,
        /// What came of that.
        why: String,
    },
    /// Origin's own store refused.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A blob cannot be read or written here.
    #[error("{attempted}: origin's own disk")]
    Disk {
        /// What was attempted.
        attempted: Attempted,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The credentials cannot be read any more.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RemoteError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

impl RemoteError {
    fn odd(attempted: &Attempted, what: &'static str) -> Self {
        Self::Odd {
            attempted: attempted.clone(),
            what,
        }
    }

    /// When the registry wants to be asked again.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the registry lacks a blob that a manifest names, though it said that it has it.
    fn lacks_a_blob(&self) -> bool {
        const CODES: [&str; 3] = ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"];
        match self {
            Self::Refused { said, .. } => CODES.contains(&said.code.as_str()),
            _ => false,
        }
    }
}

/// The registry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Remote(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Link,
    name: String,
    /// No release goes out before the registry has it, and how long a deployment waits for that.
    required: Option<Duration>,
    patience: Patience,
    /// Counts what came of attempts.
    changed: watch::Sender<u64>,
    /// Blobs that the registry says it has, and was found not to have as they are: pushed again without asking.
    distrusted: Mutex<BTreeSet<(String, Digest)>>,
    /// One blob at a time is mended.
    mending: tokio::sync::Mutex<()>,
    /// Until when the registry wants to be left alone.
    quiet: Mutex<Option<Instant>>,
    /// Blobs that could not be fetched, until when that is not tried again, and why not.
    not_had: Mutex<HashMap<Digest, (Instant, String)>>,
}

impl Remote {
    /// Checks the configuration; the registry itself is not asked, since origin starts without it.
    ///
    /// # Errors
    /// As [`OpenError`] says.
    pub fn open(config: &RemoteConfig) -> Result<Self, OpenError> {
        let address = config.check()?;
        Ok(Self(Arc::new(Inner {
            name: address.name(),
            link: Link::open(config, address)?,
            required: config.required.then(|| config.wait.duration()),
            patience: Patience {
                first_retry: config.first_retry,
                longest_retry: config.longest_retry,
                ..Patience::default()
            },
            changed: watch::Sender::new(0),
            distrusted: Mutex::default(),
            mending: tokio::sync::Mutex::default(),
            quiet: Mutex::default(),
            not_had: Mutex::default(),
        })))
    }

    /// Where it is, as people and records name it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How long a deployment waits for the registry to have its release; none where it does not wait.
    #[must_use]
    pub fn required(&self) -> Option<Duration> {
        self.0.required
    }

    fn repository(&self, project: &ProjectName) -> String {
        self.0.link.address.repository(project)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn changed(&self) {
        self.0
            .changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Leaves the registry alone for so long: it said so about one request, and means all.
    fn be_quiet(&self, wait: Duration) {
        let mut quiet = self.0.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet = Some(Instant::now() + wait);
    }

    fn is_quiet(&self) -> bool {
        let quiet = self.0.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        quiet.is_some_and(|until| until > Instant::now())
    }

    /// Notes that a blob has to be pushed whatever the registry says of it.
    fn distrust(&self, repository: &str, digest: &Digest) {
        let distrusted = self.0.distrusted.lock();
        let mut distrusted = distrusted.unwrap_or_else(PoisonError::into_inner);
        if distrusted.len() < MAX_DISTRUSTED {
            distrusted.insert((repository.to_owned(), digest.clone()));
        }
    }

    fn is_distrusted(&self, repository: &str, digest: &Digest) -> bool {
        let distrusted = self.0.distrusted.lock();
        let distrusted = distrusted.unwrap_or_else(PoisonError::into_inner);
        distrusted.contains(&(repository.to_owned(), digest.clone()))
    }

    fn trust(&self, repository: &str, digest: &Digest) {
        let distrusted = self.0.distrusted.lock();
        let mut distrusted = distrusted.unwrap_or_else(PoisonError::into_inner);
        distrusted.remove(&(repository.to_owned(), digest.clone()));
    }
}

fn attempted(text: String) -> Attempted {
    Attempted(text.into())
}
