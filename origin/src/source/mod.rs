//! Where a project's files come from: its repository, what its provider says of it, and the variables it is built with.
//!
//! ```text
//!  provider ──webhook──▶ signature ─▶ payload ─▶ hints ─┐
//!  git server ◀──asked each minute── poll ──────────────┴─▶ intake: order, head, event, build
//!  provider ◀──commit status, one comment── feedback
//! ```
//!
//! Invariant: what a provider says is a hint. A commit is built because it is the newest of its branch or pull request as far as is
//! known, and what is built of somebody else's repository gets no secrets and never reaches production.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use self::repository::Schemes;
use self::seal::SealKey;
use crate::webhook::send::Permitted;

pub mod env;
pub mod expiry;
pub mod feedback;
pub mod intake;
pub mod link;
pub mod order;
pub mod payload;
pub mod poll;
pub mod repository;
pub mod seal;
pub mod settings;
pub mod signature;

/// Deliveries whose bodies are held at once. A small one has a place of its own, so that large ones do not hold it up.
const SMALL_AT_ONCE: usize = 64;
const LARGE_AT_ONCE: usize = 4;

/// Where sources may be, and how they are asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    /// The file with the key that variables and credentials are sealed with; `seal.key` in the data folder if there is none. Made if it is
    /// missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Repositories also by ssh: workers have keys of their own for them.
    pub ssh: bool,
    /// Repositories and providers also without TLS.
    pub plain_http: bool,
    /// Repositories also on this machine's disk.
    pub local: bool,
    /// How often a plain git server is asked, in seconds.
    pub poll_seconds: u64,
    /// The git that asks.
    pub git: PathBuf,
    /// Hosts that builds may reach, each `name` or `*.name`.
    pub hosts: Vec<String>,
}

impl Default for SourceConfig {
    fn default() -> Self {
        let hosts = [
            "registry.npmjs.org",
            "registry.yarnpkg.com",
            "npm.jsr.io",
            "jsr.io",
        ];
        Self {
            key: None,
            ssh: false,
            plain_http: false,
            local: false,
            poll_seconds: 60,
            git: PathBuf::from("git"),
            hosts: hosts.map(str::to_owned).to_vec(),
        }
    }
}

/// What everything about sources needs to know. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Source {
    /// What secrets are sealed with.
    pub key: Arc<SealKey>,
    /// What may be linked.
    pub schemes: Schemes,
    /// Where providers reach origin.
    pub public_url: Arc<str>,
    /// Where origin itself may connect to.
    pub permitted: Arc<Permitted>,
    /// Hosts that builds may reach.
    pub hosts: Arc<[String]>,
    /// The git that asks.
    pub git: Arc<PathBuf>,
    /// How often it does.
    pub poll_every: Duration,
    /// Places for bodies of deliveries.
    pub intake: Places,
    changed: watch::Sender<u64>,
}

/// Places for bodies of deliveries, by their size.
#[derive(Clone, Debug)]
pub struct Places {
    /// For small ones.
    pub small: Arc<Semaphore>,
    /// For large ones.
    pub large: Arc<Semaphore>,
}

impl Source {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        config: &SourceConfig,
        key: SealKey,
        public_url: &str,
        permitted: Arc<Permitted>,
    ) -> Self {
        Self {
            key: Arc::new(key),
            schemes: Schemes {
                ssh: config.ssh,
                plain_http: config.plain_http,
                local: config.local,
            },
            public_url: Arc::from(public_url.trim_end_matches('/')),
            permitted,
            hosts: config.hosts.clone().into(),
            git: Arc::new(config.git.clone()),
            poll_every: Duration::from_secs(config.poll_seconds.max(1)),
            intake: Places {
                small: Arc::new(Semaphore::new(SMALL_AT_ONCE)),
                large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
            },
            changed: watch::Sender::new(0),
        }
    }

    /// Says that a build or its log has changed, to whoever follows one.
    pub fn changed(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Hears of changes from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
