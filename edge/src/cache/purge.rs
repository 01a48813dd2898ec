//! What is to be forgotten, and what was: so that a response that was on its way, or lay on disk, does not come back.
//!
//! Two clocks say what a stored response has lived through. A *moment* counts the purges of this process: a
//! response that was asked for at one moment may be kept only if no purge since fits it. A *number* counts the
//! fleet's purges of a site and lasts: it stands in the response's file, and after a restart the site's purge record
//! says what came after it. Nothing here forgets anything; that is the store's.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use helix_routing::id::{ReleaseId, SiteId};
use helix_routing::record::{PurgeEntry, PurgeRecord};

use super::store::{Facts, Key};

/// Purges remembered for responses that are on their way, or in memory and may go to disk. What is older counts as purged.
const REMEMBERED: usize = 1024;
/// Unsafe requests are remembered by what they changed, in so many cells: two that share one cost a fetch, and
/// half a megabyte is nothing beside the cache.
const CELLS: usize = 65_536;
/// More at once, and everything of their site is remembered as purged instead.
const MOST_AT_ONCE: usize = 64;

/// What is to be forgotten. Every part that is given has to fit.
#[derive(Clone, Debug, Default)]
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
    /// Whether it means the response of these facts.
    #[must_use]
    pub fn fits(&self, facts: &Facts) -> bool {
        let key = &facts.key;
        let is = |wanted: Option<&String>, found: &str| wanted.is_none_or(|wanted| wanted == found);
        let host = self.host.as_ref();
        self.site.as_ref().is_none_or(|site| *site == key.site)
            && self
                .release
                .as_ref()
                .is_none_or(|release| *release == key.release)
            && host.is_none_or(|host| host.eq_ignore_ascii_case(&key.authority))
            && is(self.target.as_ref(), &key.target)
            && self.tag.as_ref().is_none_or(|tag| facts.tags.contains(tag))
    }

    /// The purges that one of the fleet's consists of: one for each URL and each tag, or one for all.
    #[must_use]
    pub fn of(site: &SiteId, entry: &PurgeEntry) -> Vec<Self> {
        let all = Self {
            site: Some(site.clone()),
            release: entry.release.clone(),
            mark_stale: entry.stale,
            ..Self::default()
        };
        let urls = entry.urls.iter().map(|url| Self {
            host: Some(url.authority.clone()),
            target: Some(url.target.clone()),
            ..all.clone()
        });
        let tags = entry.tags.iter().map(|tag| Self {
            tag: Some(tag.clone()),
            ..all.clone()
        });
        let parts: Vec<_> = urls.chain(tags).collect();
        if parts.is_empty() { vec![all] } else { parts }
    }
}

/// What becomes of a stored response; of two the later one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Nothing fits it.
    Kept,
    /// It is kept, and asked about before its next use.
    Stale,
    /// It goes.
    Gone,
}

impl Fate {
    /// What `purges` make of a response of these facts.
    #[must_use]
    pub fn by(purges: &[Purge], facts: &Facts) -> Self {
        Self::of(purges.iter(), facts)
    }

    fn of<'a>(purges: impl Iterator<Item = &'a Purge>, facts: &Facts) -> Self {
        let fitting = purges.filter(|purge| purge.fits(facts));
        let mut fate = Self::Kept;
        for purge in fitting {
            if !purge.mark_stale {
                return Self::Gone;
            }
            fate = Self::Stale;
        }
        fate
    }
}

/// Every purge that still matters.
#[derive(Debug)]
pub struct Purges {
    moment: AtomicU64,
    recent: Mutex<Recent>,
    changed: Box<[AtomicU64]>,
    hasher: RandomState,
    fleet: Mutex<HashMap<SiteId, PurgeRecord>>,
}

#[derive(Debug, Default)]
struct Recent {
    purges: VecDeque<(u64, Purge)>,
    /// The newest moment of which nothing is remembered any more.
    lost: u64,
}

impl Default for Purges {
    fn default() -> Self {
        Self {
            moment: AtomicU64::new(0),
            recent: Mutex::default(),
            changed: (0..CELLS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            fleet: Mutex::default(),
        }
    }
}

impl Purges {
    /// Now, as purges count it.
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.moment.load(Ordering::Acquire)
    }

    /// From now on nothing that `purge` fits and that was asked for before may be kept.
    pub fn remember(&self, purge: Purge) {
        let mut recent = self.recent();
        let moment = self.moment.fetch_add(1, Ordering::AcqRel) + 1;
        recent.purges.push_back((moment, purge));
        if recent.purges.len() > REMEMBERED
            && let Some((lost, _)) = recent.purges.pop_front()
        {
            recent.lost = lost;
        }
    }

    /// The same for one key.
    pub fn remember_change(&self, key: &Key) {
        // Counted under the lock: a moment that was seen has its purge remembered.
        let recent = self.recent();
        let moment = self.moment.fetch_add(1, Ordering::AcqRel) + 1;
        self.cell(key).fetch_max(moment, Ordering::AcqRel);
        drop(recent);
    }

    /// Whether what has these facts was purged since `began`, in either way, or may have been.
    #[must_use]
    pub fn since(&self, facts: &Facts, began: u64) -> bool {
        self.fate_since(facts, began) != Fate::Kept
    }

    /// What the purges since `began` make of what has these facts. What may have been purged goes.
    #[must_use]
    pub fn fate_since(&self, facts: &Facts, began: u64) -> Fate {
        let recent = self.recent();
        if began < recent.lost || self.cell(&facts.key).load(Ordering::Acquire) > began {
            return Fate::Gone;
        }
        let newer = recent.purges.iter().rev();
        let newer = newer.take_while(|(moment, _)| *moment > began);
        Fate::of(newer.map(|(_, purge)| purge), facts)
    }

    /// How many of the fleet's purges of `site` have come.
    #[must_use]
    pub fn number(&self, site: &SiteId) -> u64 {
        self.fleet()
            .get(site)
            .map_or(0, |record| record.generation.0)
    }

    /// Takes the fleet's newest word about a site, and says what of it is new: what has to be forgotten now.
    pub fn adopt(&self, record: &PurgeRecord) -> Vec<Purge> {
        let mut fleet = self.fleet();
        let held = fleet.get(&record.site).map_or(0, |held| held.generation.0);
        if record.generation.0 <= held {
            return Vec::new();
        }
        fleet.insert(record.site.clone(), record.clone());
        drop(fleet);
        let purges = match record.since(held) {
            Some(entries) => entries
                .iter()
                .flat_map(|entry| Purge::of(&record.site, entry))
                .collect(),
            None => vec![whole(&record.site)],
        };
        self.remember_all(&record.site, &purges);
        purges
    }

    /// The fleet says nothing of `site` any more: everything of it has to be forgotten.
    pub fn abandon(&self, site: &SiteId) -> Purge {
        self.fleet().remove(site);
        let purge = whole(site);
        self.remember(purge.clone());
        purge
    }

    /// What later purges of the fleet make of a response that had lived through the first `number` of its site. What may
    /// have been purged goes.
    #[must_use]
    pub fn fate_after(&self, facts: &Facts, number: u64) -> Fate {
        let fleet = self.fleet();
        let site = &facts.key.site;
        let Some(record) = fleet.get(site) else {
            // It may know of purges that this edge has lost.
            return if number > 0 { Fate::Gone } else { Fate::Kept };
        };
        let entries = record.since(number);
        let Some(entries) = entries.filter(|_| number <= record.generation.0) else {
            return Fate::Gone;
        };
        let purges = entries.iter().flat_map(|entry| Purge::of(site, entry));
        Fate::by(&purges.collect::<Vec<_>>(), facts)
    }

    fn remember_all(&self, site: &SiteId, purges: &[Purge]) {
        if purges.len() > MOST_AT_ONCE {
            return self.remember(whole(site));
        }
        for purge in purges {
            self.remember(purge.clone());
        }
    }

    fn cell(&self, key: &Key) -> &AtomicU64 {
        let hash = self.hasher.hash_one(key);
        // The cells are a power of two.
        &self.changed[usize::try_from(hash).unwrap_or(0) & (CELLS - 1)]
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fleet(&self) -> MutexGuard<'_, HashMap<SiteId, PurgeRecord>> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whole(site: &SiteId) -> Purge {
    Purge {
        site: Some(site.clone()),
        ..Purge::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::tests::facts;
    use helix_routing::id::{Epoch, Generation};
    use helix_routing::record::PurgeUrl;
    use helix_routing::time::Timestamp;

    fn tagged(tag: &str) -> PurgeEntry {
        PurgeEntry {
            at: Timestamp::from_millis(0),
            release: None,
            urls: Vec::new(),
            tags: vec![tag.to_owned()],
            stale: false,
        }
    }

    /// The fleet's purges up to `generation`, of which the list holds the newest two.
    fn record(generation: u64) -> PurgeRecord {
        let tags = (1..=generation).map(|number| tagged(&format!("t{number}")));
        let purges: Vec<_> = tags.collect();
        PurgeRecord {
            site: "shop/production".parse().unwrap(),
            region: "fra".parse().unwrap(),
            epoch: Epoch(1),
            generation: Generation(generation),
            purges: purges[purges.len().saturating_sub(2)..].to_vec(),
        }
    }

    #[test]
    fn what_was_asked_for_before_a_purge_that_fits_is_purged() {
        let purges = Purges::default();
        let began = purges.moment();
        purges.remember(Purge {
            tag: Some("news".to_owned()),
            ..Purge::default()
        });
        assert!(purges.since(&facts("/a", &["news"]), began));
        assert!(!purges.since(&facts("/a", &["other"]), began));
        assert!(!purges.since(&facts("/a", &["news"]), purges.moment()));
        purges.remember_change(&facts("/b", &[]).key);
        assert!(purges.since(&facts("/b", &[]), began));
        assert!(!purges.since(&facts("/b", &[]), purges.moment()));
    }

    #[test]
    fn what_is_marked_by_one_purge_and_removed_by_another_goes() {
        let purges = Purges::default();
        let mut moments = Vec::new();
        for mark_stale in [false, true, true] {
            moments.push(purges.moment());
            purges.remember(Purge {
                mark_stale,
                ..Purge::default()
            });
        }
        let fates = moments
            .iter()
            .map(|began| purges.fate_since(&facts("/a", &[]), *began));
        assert_eq!(
            fates.collect::<Vec<_>>(),
            [Fate::Gone, Fate::Stale, Fate::Stale]
        );
        assert!(purges.since(&facts("/a", &[]), moments[2]));
    }

    #[test]
    fn what_is_older_than_memory_counts_as_purged() {
        let purges = Purges::default();
        let began = purges.moment();
        for number in 0..=REMEMBERED {
            purges.remember(Purge {
                tag: Some(number.to_string()),
                ..Purge::default()
            });
        }
        assert!(purges.since(&facts("/a", &[]), began));
        assert!(!purges.since(&facts("/a", &[]), began + 1));
    }

    #[test]
    fn changes_of_many_keys_push_no_purge_out() {
        let purges = Purges::default();
        let began = purges.moment();
        for number in 0..REMEMBERED * 2 {
            purges.remember_change(&facts(&format!("/{number}"), &[]).key);
        }
        let spared = (0..100).filter(|n| !purges.since(&facts(&format!("/x{n}"), &[]), began));
        assert!(spared.count() > 50);
    }

    #[test]
    fn the_fleets_purges_are_taken_over_once_and_in_part() {
        let purges = Purges::default();
        let tags = |generation| {
            let new = purges.adopt(&record(generation));
            new.into_iter().map(|purge| purge.tag).collect::<Vec<_>>()
        };
        assert_eq!(tags(1), [Some("t1".to_owned())]);
        assert_eq!(tags(1), []);
        assert_eq!(tags(3), [Some("t2".to_owned()), Some("t3".to_owned())]);
        assert_eq!(tags(6), [None], "more were missed than the list holds");
        assert_eq!(tags(2), [], "an older record says nothing new");
    }

    #[test]
    fn a_stored_response_is_judged_by_the_purges_it_has_not_lived_through() {
        let purges = Purges::default();
        let fate = |tags: &[&str], number| purges.fate_after(&facts("/a", tags), number);
        assert_eq!(fate(&[], 0), Fate::Kept);
        assert_eq!(fate(&[], 1), Fate::Gone, "the record is lost");
        let mut newest = record(5);
        newest.purges[1].stale = true;
        purges.adopt(&newest);
        for (tags, number, expected) in [
            (&["t5"][..], 4, Fate::Stale),
            (&["t5"], 5, Fate::Kept),
            (&["t4"], 4, Fate::Kept),
            (&["t4"], 3, Fate::Gone),
            (&["t4", "t5"], 3, Fate::Gone),
            (&["x"], 3, Fate::Kept),
            (&["x"], 2, Fate::Gone),
            (&["x"], 6, Fate::Gone),
        ] {
            assert_eq!(fate(tags, number), expected, "{tags:?} {number}");
        }
    }

    #[test]
    fn a_purge_of_urls_and_tags_means_each_of_them_of_one_release() {
        let mut entry = tagged("news");
        entry.release = Some("bbbbbbbbbbbbbbbbbbbb".parse().unwrap());
        entry.urls = vec![PurgeUrl {
            authority: "SHOP.example".to_owned(),
            target: "/a".to_owned(),
        }];
        let site = "shop/production".parse().unwrap();
        let fits = |entry: &PurgeEntry, path: &str, tags: &[&str]| {
            let facts = facts(path, tags);
            Purge::of(&site, entry)
                .iter()
                .any(|purge| purge.fits(&facts))
        };
        assert!(!fits(&entry, "/a", &["news"]), "another release");
        entry.release = None;
        assert!(fits(&entry, "/a", &[]) && fits(&entry, "/b", &["news"]));
        assert!(!fits(&entry, "/b", &[]));
        entry.urls.clear();
        entry.tags.clear();
        assert!(fits(&entry, "/b", &[]), "all of the site");
    }
}
