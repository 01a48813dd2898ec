//! What must not be removed: a count per digest.
//!
//! Whoever needs blobs holds them first and looks whether they are there after; the collector asks and removes
//! under the same lock. So nothing vanishes between the look and the use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use helix_routing::id::Digest;

/// How often each digest is held.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<HashMap<Digest, usize>>);

/// Keeps blobs from being removed, until it is dropped.
#[derive(Debug)]
pub struct Held {
    holds: Arc<Holds>,
    digests: Vec<Digest>,
}

impl Holds {
    pub(super) fn hold(self: &Arc<Self>, digests: Vec<Digest>) -> Held {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &digests {
            *counts.entry(digest.clone()).or_default() += 1;
        }
        drop(counts);
        Held {
            holds: Arc::clone(self),
            digests,
        }
    }

    /// Runs `remove` unless `digest` is held; nobody can begin to hold it meanwhile.
    pub(super) fn unless_held<T>(&self, digest: &Digest, remove: impl FnOnce() -> T) -> Option<T> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!counts.contains_key(digest)).then(remove)
    }
}

impl Held {
    /// Holds these as well.
    pub(super) fn add(&mut self, digests: Vec<Digest>) {
        let mut more = self.holds.hold(digests);
        self.digests.append(&mut more.digests);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.holds.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}
