//! Artifacts: what was uploaded, the releases made of it, and the OCI image layout that holds both.
//!
//! ```text
//! packs, blobs ──verify every digest──▶ contents ──make──▶ release: config, index, packs, manifest
//! ```
//!
//! Invariant: a blob is in the layout only under the digest of its bytes, and a content is in SQL
//! only after its decoded bytes were hashed. It decides nothing about where a release is live.
//!
//! The provenance of a release is a referrer of its manifest ([`crate::provenance`]): one more manifest in the layout
//! whose `subject` is the release's, listed by [`crate::registry`]'s referrers answer.

pub(crate) mod annotation;
pub mod append;
mod coding;
pub mod content;
pub mod export;
mod files;
mod frame;
pub mod improve;
pub mod layering;
pub mod layout;
mod manifest;
pub mod media_type;
mod mending;
pub mod pack;
pub mod partial;
pub mod read;
pub(crate) mod referrer;
pub mod release;
mod restate;
pub(crate) mod variants;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

pub use layout::{Layout, LayoutError};

use crate::store::Store;

/// Packs verified at one time. Each holds its request in memory, at most [`pack::MAX_REQUEST_BYTES`].
const PACKS_AT_ONCE: usize = 2;
/// Releases made at one time: each holds an index of up to [`helix_routing::artifact::MAX_FILES`] files.
const RELEASES_AT_ONCE: usize = 2;
/// Contents encoded at one time, at most: more would leave no core to the API.
const MAX_ENCODERS: usize = 4;
/// A partial upload that nobody went on with for this long is removed.
pub const PARTIAL_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The artifact store of this origin. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: Store,
    layout: Layout,
    partials: partial::Partials,
    packing: Arc<Semaphore>,
    making: Arc<Semaphore>,
    encoding: Arc<Semaphore>,
    encoders: usize,
    export: Arc<Notify>,
    project_bytes: u64,
    /// Whether edges have what runs the commands of gates.
    runs_commands: bool,
    mending: Option<mending::Mending>,
}

impl Artifacts {
    /// Opens the layout and the partial uploads below `data_dir`. A project may hold `project_bytes`.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn open(store: Store, data_dir: &Path, project_bytes: u64) -> Result<Self, LayoutError> {
        let encoders =
            std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_ENCODERS));
        Ok(Self {
            store,
            layout: Layout::open(&data_dir.join("registry"))?,
            partials: partial::Partials::open(&data_dir.join("uploads"))?,
            packing: Arc::new(Semaphore::new(PACKS_AT_ONCE)),
            making: Arc::new(Semaphore::new(RELEASES_AT_ONCE)),
            encoding: Arc::new(Semaphore::new(encoders)),
            encoders,
            export: Arc::default(),
            project_bytes,
            runs_commands: false,
            mending: None,
        })
    }

    /// The same of a fleet whose edges run the commands of gates, or not.
    #[must_use]
    pub const fn running_commands(mut self, runs: bool) -> Self {
        self.runs_commands = runs;
        self
    }

    /// The blobs on disk.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The uploads that have not all arrived.
    #[must_use]
    pub const fn partials(&self) -> &partial::Partials {
        &self.partials
    }
}
