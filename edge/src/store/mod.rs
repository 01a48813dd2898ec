//! Artifacts on this edge's disk, by digest, and the bytes of their files.
//!
//! ```text
//! meta/<hex>   manifests, configs, indexes
//! packs/<hex>  packs, as published
//! files/<hex>  large files, decoded
//! improved/<hex of an artifact>  digest of its improvement's manifest
//! attested/<hex of an artifact>  the bundle that says where it comes from
//! tmp/         what is not whole yet; emptied at start
//! ```
//!
//! Names are digests, so nothing in a URL, an index or a manifest ever becomes a path. A file is moved into
//! place only when it is whole, verified and synced. Invariant: what is [`Held`] is not removed. Which
//! releases to fetch is the agent's question; how to fetch a blob is [`fetch`]'s.

mod coding;
mod collect;
pub mod fetch;
mod held;
mod improve;
mod index;
mod prepare;
mod provenance;
mod read;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use helix_routing::artifact::{FileEntry, STANDALONE_BYTES};
use helix_routing::id::Digest;

pub use self::collect::Swept;
pub use self::fetch::{FetchError, Fetcher};
pub use self::held::Held;
use self::held::Holds;
pub use self::index::Invalid;
pub use self::prepare::PrepareError;
pub use self::provenance::{Trust, Unvouched};
pub use self::read::StoreError;
use crate::release::Body;

/// What a blob is, and so in which folder it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Meta,
    Pack,
    File,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Meta, Self::Pack, Self::File];

    const fn folder(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Pack => "packs",
            Self::File => "files",
        }
    }
}

/// Folders of what is noted of artifacts that are here.
pub(crate) const NOTES: [&str; 2] = ["improved", "attested"];

/// The store of one edge.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    holds: Arc<Holds>,
    /// Decoded files by digest, as many bytes as the config allows.
    memory: moka::future::Cache<Digest, Bytes>,
    /// Large files whose digest was checked since this start.
    verified: papaya::HashSet<Digest>,
    /// Packs and large files found to be harmed; they are fetched again.
    damaged: papaya::HashSet<Digest>,
    damage: tokio::sync::Notify,
    /// One preparation of a blob at a time; the second finds it done.
    busy: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Store {
    /// Opens the store under `root`, which it makes if need be.
    ///
    /// # Errors
    /// When a folder cannot be made or emptied.
    pub fn open(root: &Path, cache_bytes: u64) -> io::Result<Arc<Self>> {
        let tmp = root.join("tmp");
        if tmp.exists() {
            fs::remove_dir_all(&tmp)?;
        }
        fs::create_dir_all(&tmp)?;
        for kind in Kind::ALL {
            fs::create_dir_all(root.join(kind.folder()))?;
        }
        for notes in NOTES {
            fs::create_dir_all(root.join(notes))?;
        }
        let memory = moka::future::Cache::builder()
            .max_capacity(cache_bytes)
            .weigher(|_: &Digest, bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX))
            .build();
        Ok(Arc::new(Self {
            root: root.to_owned(),
            holds: Arc::default(),
            memory,
            verified: papaya::HashSet::new(),
            damaged: papaya::HashSet::new(),
            damage: tokio::sync::Notify::new(),
            busy: Mutex::default(),
        }))
    }

    /// The bytes of one file, verified against its digest.
    ///
    /// # Errors
    /// When they cannot be read, or are not what the digest says.
    pub async fn body(&self, entry: &FileEntry) -> Result<Body, StoreError> {
        if entry.size >= STANDALONE_BYTES {
            return self.large(entry).await;
        }
        if let Some(bytes) = self.memory.get(&entry.digest).await {
            return Ok(Body::Memory(bytes));
        }
        let bytes = self
            .memory
            .try_get_with(entry.digest.clone(), self.small(entry))
            .await;
        if bytes.is_err() {
            self.note_damage(&entry.pack);
        }
        bytes.map(Body::Memory).map_err(StoreError::Shared)
    }

    /// Returns when something on disk was found to be missing or harmed: releases then have to be prepared again.
    pub async fn damage_found(&self) {
        self.damage.notified().await;
    }

    fn note_damage(&self, digest: &Digest) {
        if self.damaged.pin().insert(digest.clone()) {
            tracing::error!(
                digest = digest.hex(),
                "what lies on disk is harmed, it is fetched again"
            );
            self.damage.notify_one();
        }
    }

    async fn small(&self, entry: &FileEntry) -> Result<Bytes, StoreError> {
        let (pack, entry) = (self.path(Kind::Pack, &entry.pack), entry.clone());
        read::blocking(move || read::small(&pack, &entry)).await
    }

    async fn large(&self, entry: &FileEntry) -> Result<Body, StoreError> {
        let (path, entry) = (self.path(Kind::File, &entry.digest), entry.clone());
        let known = self.verified.pin().contains(&entry.digest);
        let digest = entry.digest.clone();
        let body = read::blocking(move || read::large(&path, &entry, known)).await;
        if body.is_err() {
            self.verified.pin().remove(&digest);
            self.note_damage(&digest);
        }
        let body = body?;
        self.verified.pin().insert(digest);
        Ok(body)
    }

    pub(crate) fn path(&self, kind: Kind, digest: &Digest) -> PathBuf {
        self.root.join(kind.folder()).join(digest.hex())
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp").join(helix_service::random::hex16())
    }

    /// Whether a blob of this digest and size is in place.
    pub(crate) fn has(&self, kind: Kind, digest: &Digest, size: u64) -> bool {
        !self.damaged.pin().contains(digest)
            && fs::metadata(self.path(kind, digest))
                .is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Moves a whole, verified file into place, so that it survives a power cut.
    pub(crate) fn keep(&self, temporary: &Path, kind: Kind, digest: &Digest) -> io::Result<()> {
        let path = self.path(kind, digest);
        fs::rename(temporary, &path)?;
        self.damaged.pin().remove(digest);
        helix_service::disk::sync_folder(&self.root.join(kind.folder()))
    }

    /// The lock of one blob's preparation.
    fn lock_of(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().expect("no one panics while holding it");
        // Locks that no one waits for are let go, so the map stays as small as what is in flight.
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(busy.entry(digest.clone()).or_default())
    }
}
