//! Stored responses by what they answer: in memory, with the disk behind it.
//!
//! A key names the release, so a response of one release can never answer for another. Memory is bounded in
//! bytes; what was not used for longest goes to disk, where there is one. It decides nothing about freshness.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use helix_routing::id::{ReleaseId, SiteId};
use http::header::VARY;
use http::{HeaderMap, HeaderName, StatusCode};
use moka::notification::RemovalCause;
use moka::sync::Cache as Moka;
use serde::{Deserialize, Serialize};

use super::content::{Content, MEMORY_BODY_BYTES};
use super::directives::tokens;
use super::disk::{Disk, Name};
use super::policy::Freshness;
use super::purge::{Fate, Purge, Purges};

/// Bytes of bodies and heads that are kept in memory, unless the config says otherwise.
pub const DEFAULT_MEMORY_BYTES: u64 = 256 * 1024 * 1024;
/// Most responses kept for one URL: a `Vary` on something that is never the same must not push out the rest.
const MAX_VARIANTS: usize = 16;
/// What each stored response takes besides its bytes.
const OVERHEAD_BYTES: u64 = 1024;
/// Longest a stored response is kept in memory unused.
const UNUSED: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a response has to stay fresh, in seconds, to be written to disk when it is used again: what comes anew each minute
/// would wear the disk out, and is soon there again after a crash.
const WORTH_WRITING: u64 = 60;

/// What a stored response answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The site.
    pub site: SiteId,
    /// The release whose rule sent the request on.
    pub release: ReleaseId,
    /// Which of its rules.
    pub rule: usize,
    /// Whether over TLS.
    pub secure: bool,
    /// Lower case, with its port as sent.
    pub authority: String,
    /// Path and query as sent.
    pub target: String,
}

/// What is known of a stored response besides how fresh it is: what finds it, and what purges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it answers.
    pub key: Arc<Key>,
    /// The request's fields that it was chosen by, as they were (RFC 9111 4.1).
    pub selected: Vec<(HeaderName, String)>,
    /// Tags and groups.
    pub tags: Vec<String>,
}

impl Facts {
    /// Whether it was chosen by the same fields as `request` has.
    #[must_use]
    pub fn answers(&self, request: &HeaderMap) -> bool {
        let same = |(name, value): &(HeaderName, String)| normal(request, name) == *value;
        self.selected.iter().all(same)
    }

    /// What `request` has in the fields that this was chosen by.
    #[must_use]
    pub fn selected_of(&self, request: &HeaderMap) -> Vec<(HeaderName, String)> {
        let names = self.selected.iter();
        names
            .map(|(name, _)| (name.clone(), normal(request, name)))
            .collect()
    }
}

/// A response that is kept, or is coming and will be.
#[derive(Debug)]
pub struct Stored {
    /// What it answers, and what purges it.
    pub facts: Facts,
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those of one connection.
    pub headers: HeaderMap,
    /// How it may be used.
    pub freshness: Freshness,
    /// Its body.
    pub content: Arc<Content>,
    /// When it was asked for: see [`Purges::moment`].
    pub began: u64,
    /// The fleet's purges that had come by then: see [`Purges::number`].
    pub purged: u64,
    /// Where it lies on disk as well, since it was written or read.
    pub file: OnceLock<Name>,
    /// Set when it has to be asked about before it is used again.
    pub invalid: AtomicBool,
    /// Set when it has been handed to the disk, or came from there.
    pub offered: AtomicBool,
}

impl Stored {
    fn weight(&self) -> u64 {
        let fields = self.headers.iter();
        let head: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        self.content.length().unwrap_or(0) + head as u64 + OVERHEAD_BYTES
    }
}

/// The request's fields that `response` was chosen by.
#[must_use]
pub fn selected(request: &HeaderMap, response: &HeaderMap) -> Vec<(HeaderName, String)> {
    tokens(response, &VARY)
        .filter_map(|name| name.parse::<HeaderName>().ok())
        .map(|name| {
            let value = normal(request, &name);
            (name, value)
        })
        .collect()
}

/// All values of a field in one line, without the space that means nothing.
fn normal(headers: &HeaderMap, name: &HeaderName) -> String {
    let lines = headers.get_all(name).iter();
    let text = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    let members: Vec<String> = text
        .flat_map(|line| {
            line.split(',')
                .map(|member| member.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    members.join(",")
}

/// What of memory answers a request.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest response that the request may get.
    pub stored: Option<Arc<Stored>>,
    /// What the newest of all was chosen by.
    pub newest: Option<Facts>,
}

type Variants = Arc<Vec<Arc<Stored>>>;

/// Every stored response.
#[derive(Debug)]
pub struct Store {
    resources: Moka<Arc<Key>, Variants>,
    purges: Arc<Purges>,
    disk: Arc<OnceLock<Arc<Disk>>>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(DEFAULT_MEMORY_BYTES)
    }
}

impl Store {
    /// One that keeps so many bytes in memory, and nothing on disk.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        let weigher = |_: &Arc<Key>, variants: &Variants| {
            let weight: u64 = variants.iter().map(|stored| stored.weight()).sum();
            u32::try_from(weight).unwrap_or(u32::MAX)
        };
        let disk: Arc<OnceLock<Arc<Disk>>> = Arc::default();
        let behind = Arc::clone(&disk);
        let resources = Moka::builder()
            .max_capacity(memory_bytes)
            .weigher(weigher)
            .time_to_idle(UNUSED)
            .eviction_listener(move |_, variants: Variants, cause| {
                if let (RemovalCause::Size, Some(disk)) = (cause, behind.get()) {
                    for stored in variants.iter() {
                        // What finds no room is lost with its place in memory.
                        let _ = disk.keep_later(stored);
                    }
                }
            })
            .build();
        Self {
            resources,
            purges: Arc::default(),
            disk,
        }
    }

    /// Puts a disk behind memory, once.
    pub fn attach(&self, disk: Arc<Disk>) {
        // A second one would be another folder's; there is only one.
        let _ = self.disk.set(disk);
    }

    /// The disk, where there is one.
    #[must_use]
    pub fn disk(&self) -> Option<&Arc<Disk>> {
        self.disk.get()
    }

    /// How many URLs something is kept for, and how many bytes that takes; both lag behind a little.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.resources.entry_count(), self.resources.weighted_size())
    }

    /// What was purged.
    #[must_use]
    pub const fn purges(&self) -> &Arc<Purges> {
        &self.purges
    }

    /// The largest body that can be kept, in bytes.
    #[must_use]
    pub fn largest(&self) -> u64 {
        let disk = self.disk().map_or(0, |disk| disk.largest());
        disk.max(MEMORY_BODY_BYTES)
    }

    /// What of memory answers `request`.
    #[must_use]
    pub fn find(&self, key: &Arc<Key>, request: &HeaderMap) -> Found {
        let Some(variants) = self.resources.get(key) else {
            return Found::default();
        };
        let answers = |stored: &&Arc<Stored>| stored.facts.answers(request);
        Found {
            stored: variants.iter().find(answers).cloned(),
            newest: variants.first().map(|newest| newest.facts.clone()),
        }
    }

    /// The same, and what of the disk does where memory has nothing.
    pub async fn look_up(&self, key: &Arc<Key>, request: &HeaderMap) -> Found {
        let mut found = self.find(key, request);
        if found.stored.is_none()
            && let Some(disk) = self.disk()
        {
            found.stored = disk.load(key, request).await.map(Arc::new);
            if let Some(stored) = found
                .stored
                .as_ref()
                .filter(|stored| stored.content.is_in_memory())
            {
                self.hold(stored, false);
            }
            found.newest = found.newest.or_else(|| disk.newest(key));
        }
        found
    }

    /// Keeps `stored`, unless it was purged since it was asked for. A body that is on disk stays there.
    pub fn insert(&self, stored: &Arc<Stored>) {
        if self.was_purged(stored) {
            return;
        }
        let disk = self.disk();
        if !stored.content.is_in_memory() {
            if let Some(disk) = disk {
                disk.restate(stored);
            }
            return;
        }
        if let Some(disk) = disk {
            disk.supersede(&stored.facts);
        }
        self.hold(stored, true);
    }

    fn hold(&self, stored: &Arc<Stored>, newest: bool) {
        let key = &stored.facts.key;
        self.resources
            .entry(Arc::clone(key))
            .and_upsert_with(|entry| {
                let others = entry.map(moka::Entry::into_value).unwrap_or_default();
                let same = |other: &&Arc<Stored>| other.facts.selected == stored.facts.selected;
                if !newest && others.iter().any(|other| same(&other)) {
                    // Somebody fetched a newer one meanwhile.
                    return others;
                }
                let others = others.iter().filter(|other| !same(other));
                let mut variants: Vec<_> = others.take(MAX_VARIANTS - 1).cloned().collect();
                let at = if newest { 0 } else { variants.len() };
                variants.insert(at, Arc::clone(stored));
                Arc::new(variants)
            });
        // One that happened in between has not seen it.
        if self.was_purged(stored) {
            self.resources.invalidate(key);
        }
    }

    /// `stored` is used again, and stays fresh for `left` more seconds. What is worth it goes to disk now, once, where a crash does
    /// not reach it.
    pub fn used_again(&self, stored: &Arc<Stored>, left: u64) {
        let Some(disk) = self.disk() else { return };
        let worth = left >= WORTH_WRITING && stored.content.length().is_some();
        if !worth || stored.offered.load(Ordering::Relaxed) {
            return;
        }
        if !stored.offered.swap(true, Ordering::AcqRel) && !disk.keep_later(stored) {
            // It is busy; the next use may find it idle.
            stored.offered.store(false, Ordering::Release);
        }
    }

    /// Whether `stored` was purged since it was asked for.
    #[must_use]
    pub fn was_purged(&self, stored: &Stored) -> bool {
        self.purges.since(&stored.facts, stored.began)
    }

    /// Forgets everything that answers `key`: something was changed there (RFC 9111 4.4).
    pub async fn invalidate(&self, key: &Arc<Key>) {
        self.purges.remember_change(key);
        self.resources.invalidate(key);
        if let Some(disk) = self.disk() {
            disk.forget_key(key).await;
        }
    }

    /// Forgets, or marks as stale, what fits, and says how many that were. Looks at everything that is kept. Blocks.
    pub fn purge(&self, purge: &Purge) -> usize {
        self.purges.remember(purge.clone());
        self.forget(std::slice::from_ref(purge))
    }

    /// Forgets, or marks as stale, what any of `purges` fits, and says how many responses that were. They have to be
    /// remembered already. Blocks.
    pub fn forget(&self, purges: &[Purge]) -> usize {
        if purges.is_empty() {
            return 0;
        }
        let (mut count, mut files) = (0, HashSet::<Name>::new());
        for (key, variants) in &self.resources {
            let fates = variants.iter();
            let fates = fates.map(|stored| (stored, Fate::by(purges, &stored.facts)));
            let fitting: Vec<_> = fates.filter(|(_, fate)| *fate != Fate::Kept).collect();
            count += fitting.len();
            if fitting.iter().any(|(_, fate)| *fate == Fate::Gone) {
                self.resources.invalidate(&*key);
            }
            for (stored, _) in fitting {
                files.extend(stored.file.get());
                stored.invalid.store(true, Ordering::Release);
            }
        }
        let on_disk = self
            .disk()
            .map(|disk| disk.forget(|facts| Fate::by(purges, facts)));
        // What was in memory as well counts once.
        let on_disk = on_disk.unwrap_or_default().into_iter();
        count + on_disk.filter(|name| !files.contains(name)).count()
    }

    /// Writes what is in memory to disk, as far as it gets in `limit`: for the end of the process.
    pub async fn flush(&self, limit: Duration) {
        let Some(disk) = self.disk() else {
            return;
        };
        // What has no room in memory goes first, in its order.
        self.resources.run_pending_tasks();
        for (_, variants) in &self.resources {
            variants.iter().for_each(|stored| disk.keep_last(stored));
        }
        disk.settle(limit).await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a path of one site and release answers.
    pub(crate) fn key(path: &str) -> Key {
        Key {
            site: "shop/production".parse().unwrap(),
            release: "aaaaaaaaaaaaaaaaaaaa".parse().unwrap(),
            rule: 0,
            secure: true,
            authority: "shop.example".to_owned(),
            target: path.to_owned(),
        }
    }

    pub(crate) fn facts(path: &str, tags: &[&str]) -> Facts {
        Facts {
            key: Arc::new(key(path)),
            selected: Vec::new(),
            tags: tags.iter().map(ToString::to_string).collect(),
        }
    }
}
