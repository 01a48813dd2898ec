//! Blobs that this store has lost, or whose bytes have changed, come back from the registry before anything fails.
//!
//! Invariant: what is taken for whole was hashed by this process since it last changed. Without a registry nothing is looked at
//! beforehand: nothing could be done about it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use helix_routing::id::Digest;
use helix_service::error::chain;
use tokio::sync::Semaphore;

use super::content::blocking;
use super::read::ReadError;
use super::{Artifacts, Layout, LayoutError};
use crate::remote::{Remote, RemoteError, is_whole};

/// Blobs hashed at one time: more would leave no core to the API.
const LOOKS_AT_ONCE: usize = 2;
/// Blobs that are remembered as whole. Beyond that all are looked at anew.
const MAX_SEEN: usize = 100_000;
/// Blobs that are mended for one reading: a manifest, its config and its index are three.
const MENDS: usize = 4;

/// Where blobs come back from, and which are whole. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Mending {
    remote: Remote,
    looking: Arc<Semaphore>,
    /// By size and time of change.
    seen: Arc<Mutex<HashMap<Digest, (u64, SystemTime)>>>,
}

impl Mending {
    fn is_seen(&self, digest: &Digest, now: (u64, SystemTime)) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(digest) == Some(&now)
    }

    fn see(&self, digest: &Digest, layout: &Layout) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_SEEN {
            seen.clear();
        }
        if let Some(now) = state(layout, digest) {
            seen.insert(digest.clone(), now);
        }
    }
}

fn state(layout: &Layout, digest: &Digest) -> Option<(u64, SystemTime)> {
    let metadata = std::fs::metadata(layout.path(digest)).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

impl Artifacts {
    /// The same with a registry that has copies.
    #[must_use]
    pub fn mending_from(mut self, remote: Option<Remote>) -> Self {
        self.mending = remote.map(|remote| Mending {
            remote,
            looking: Arc::new(Semaphore::new(LOOKS_AT_ONCE)),
            seen: Arc::default(),
        });
        self
    }

    /// Sees to it that a blob is there and is what its digest says, if there is a registry to have it from.
    ///
    /// # Errors
    /// When it is not, and the registry does not have it either.
    pub async fn whole(&self, digest: &Digest) -> Result<(), RemoteError> {
        let Some(mending) = &self.mending else {
            return Ok(());
        };
        if let Some(now) = state(&self.layout, digest)
            && mending.is_seen(digest, now)
        {
            return Ok(());
        }
        self.look_at(mending, digest).await.map(drop)
    }

    /// Mends those of some blobs that can be. Whoever reads one that could not be finds that out.
    pub(super) async fn whole_of(&self, digests: BTreeSet<Digest>) {
        for digest in &digests {
            if let Err(error) = self.whole(digest).await {
                tracing::warn!(%digest, error = %chain(&error), "a blob is lost, and not to be had from the registry");
            }
        }
    }

    /// The same, whatever was seen before. Whether it had to be mended.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn whole_again(&self, digest: &Digest) -> Result<bool, RemoteError> {
        match &self.mending {
            Some(mending) => self.look_at(mending, digest).await,
            None if is_whole(&self.layout, digest).await => Ok(false),
            None => Err(RemoteError::Damaged(digest.clone())),
        }
    }

    async fn look_at(&self, mending: &Mending, digest: &Digest) -> Result<bool, RemoteError> {
        let is_whole = {
            let _permit = mending
                .looking
                .acquire()
                .await
                .expect("the semaphore is never closed");
            is_whole(&self.layout, digest).await
        };
        if !is_whole {
            let mended = mending.remote.mend(&self.store, &self.layout, digest);
            mended.await?;
        }
        mending.see(digest, &self.layout);
        Ok(!is_whole)
    }

    /// Reads something of the layout, again after what that lacks was mended.
    pub(super) async fn read_mended<T: Send + 'static>(
        &self,
        read: impl Fn(&Layout) -> Result<T, ReadError> + Clone + Send + 'static,
    ) -> Result<T, ReadError> {
        for _ in 0..MENDS {
            let (layout, reading) = (self.layout.clone(), read.clone());
            let error = match blocking(move || reading(&layout)).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let (Some(_), ReadError::Layout(LayoutError::Read { digest, .. })) =
                (&self.mending, &error)
            else {
                return Err(error);
            };
            if let Err(not_mended) = self.whole(digest).await {
                tracing::warn!(%digest, error = %chain(&not_mended), "a blob is lost, and not to be had from the registry");
                return Err(error);
            }
        }
        let layout = self.layout.clone();
        blocking(move || read(&layout)).await
    }
}
