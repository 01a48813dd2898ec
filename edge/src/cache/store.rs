//! Stored responses, in memory, by what they answer.
//!
//! A key names the release, so a response of one release can never answer for another. Memory is bounded in
//! bytes; what was not used for longest goes first. It decides nothing about freshness.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use helix_routing::id::{ReleaseId, SiteId};
use http::header::VARY;
use http::{HeaderMap, HeaderName, StatusCode};
use moka::sync::Cache as Moka;
use serde::Deserialize;

use super::content::Content;
use super::directives::tokens;
use super::policy::Freshness;

/// Bytes of bodies and heads that are kept.
const MEMORY_BYTES: u64 = 256 * 1024 * 1024;
/// Most responses kept for one URL: a `Vary` on something that is never the same must not push out the rest.
const MAX_VARIANTS: usize = 16;
/// What each stored response takes besides its bytes.
const OVERHEAD_BYTES: u64 = 1024;
/// Purges remembered for responses that were on their way while they happened.
const REMEMBERED_PURGES: usize = 1024;
/// Longest a stored response is kept unused.
const UNUSED: Duration = Duration::from_secs(24 * 60 * 60);

/// What a stored response answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// A response that is kept, or is coming and will be.
#[derive(Debug)]
pub struct Stored {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those of one connection.
    pub headers: HeaderMap,
    /// How it may be used.
    pub freshness: Freshness,
    /// The request's fields that it was chosen by, as they were (RFC 9111 4.1).
    pub selected: Vec<(HeaderName, String)>,
    /// Tags and groups.
    pub tags: Vec<String>,
    /// Its body.
    pub content: Arc<Content>,
    /// Set when it has to be asked about before it is used again.
    pub invalid: AtomicBool,
}

impl Stored {
    /// Whether it was chosen by the same fields as `request` has.
    #[must_use]
    pub fn answers(&self, request: &HeaderMap) -> bool {
        let same = |(name, value): &(HeaderName, String)| normal(request, name) == *value;
        self.selected.iter().all(same)
    }

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

/// What is to be forgotten. Every part that is given has to fit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Purge {
    /// Of this site.
    pub site: Option<SiteId>,
    /// Of this release.
    pub release: Option<ReleaseId>,
    /// Under this host.
    pub host: Option<String>,
    /// With this path and query.
    pub target: Option<String>,
    /// With this tag or group.
    pub tag: Option<String>,
    /// Kept, but asked about before the next use, instead of removed.
    pub mark_stale: bool,
}

impl Purge {
    fn fits(&self, key: &Key, stored: &Stored) -> bool {
        self.site.as_ref().is_none_or(|site| *site == key.site)
            && self
                .release
                .as_ref()
                .is_none_or(|release| *release == key.release)
            && self
                .host
                .as_ref()
                .is_none_or(|host| host.eq_ignore_ascii_case(&key.authority))
            && self
                .target
                .as_ref()
                .is_none_or(|target| *target == key.target)
            && self
                .tag
                .as_ref()
                .is_none_or(|tag| stored.tags.contains(tag))
    }
}

/// Every stored response.
#[derive(Debug)]
pub struct Store {
    resources: Moka<Arc<Key>, Arc<Vec<Arc<Stored>>>>,
    purges: AtomicU64,
    recent: Mutex<VecDeque<Purge>>,
}

impl Default for Store {
    fn default() -> Self {
        let weigher = |_: &Arc<Key>, variants: &Arc<Vec<Arc<Stored>>>| {
            let weight: u64 = variants.iter().map(|stored| stored.weight()).sum();
            u32::try_from(weight).unwrap_or(u32::MAX)
        };
        let resources = Moka::builder()
            .max_capacity(MEMORY_BYTES)
            .weigher(weigher)
            .time_to_idle(UNUSED)
            .build();
        Self {
            resources,
            purges: AtomicU64::new(0),
            recent: Mutex::default(),
        }
    }
}

impl Store {
    /// The newest response to `key` that `request` may get, and the newest of all.
    #[must_use]
    pub fn find(
        &self,
        key: &Arc<Key>,
        request: &HeaderMap,
    ) -> (Option<Arc<Stored>>, Option<Arc<Stored>>) {
        let Some(variants) = self.resources.get(key) else {
            return (None, None);
        };
        let found = variants.iter().find(|stored| stored.answers(request));
        (found.cloned(), variants.first().cloned())
    }

    /// How many purges there were: to be passed to [`Self::insert`] by what began at this moment.
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.purges.load(Ordering::Acquire)
    }

    /// How many URLs something is kept for, and how many bytes that takes; both lag behind a little.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.resources.entry_count(), self.resources.weighted_size())
    }

    /// Keeps `stored`, unless it was purged since `began`.
    pub fn insert(&self, key: &Arc<Key>, stored: &Arc<Stored>, began: u64) {
        if self.purged_since(key, stored, began) {
            return;
        }
        self.resources
            .entry(Arc::clone(key))
            .and_upsert_with(|entry| {
                let mut variants = vec![Arc::clone(stored)];
                if let Some(entry) = entry {
                    let others = entry.into_value();
                    let others = others
                        .iter()
                        .filter(|other| other.selected != stored.selected);
                    variants.extend(others.take(MAX_VARIANTS - 1).cloned());
                }
                Arc::new(variants)
            });
        // One that happened in between has not seen it.
        if self.purged_since(key, stored, began) {
            self.resources.invalidate(key);
        }
    }

    /// Forgets everything that answers `key`: something was changed there (RFC 9111 4.4).
    pub fn invalidate(&self, key: &Arc<Key>) {
        let purge = Purge {
            site: Some(key.site.clone()),
            release: Some(key.release.clone()),
            host: Some(key.authority.clone()),
            target: Some(key.target.clone()),
            ..Purge::default()
        };
        self.remember(purge);
        self.resources.invalidate(key);
    }

    /// Forgets, or marks as stale, what fits, and says how many that were. Looks at everything that is kept.
    pub fn purge(&self, purge: &Purge) -> usize {
        self.remember(purge.clone());
        let mut count = 0;
        for (key, variants) in &self.resources {
            let fitting: Vec<_> = variants
                .iter()
                .filter(|stored| purge.fits(&key, stored))
                .collect();
            if fitting.is_empty() {
                continue;
            }
            count += fitting.len();
            if purge.mark_stale {
                for stored in fitting {
                    stored.invalid.store(true, Ordering::Release);
                }
            } else {
                self.resources.invalidate(&*key);
            }
        }
        count
    }

    fn remember(&self, purge: Purge) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back(purge);
        if recent.len() > REMEMBERED_PURGES {
            recent.pop_front();
        }
        self.purges.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether `stored` is among what was purged since `began`.
    #[must_use]
    pub fn purged_since(&self, key: &Key, stored: &Stored, began: u64) -> bool {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let since = usize::try_from(self.moment() - began).unwrap_or(usize::MAX);
        since > recent.len()
            || recent
                .iter()
                .rev()
                .take(since)
                .any(|purge| purge.fits(key, stored))
    }
}
