//! Pure: which stored responses lie on disk, what they answer, and which goes first when there is no room.
//!
//! Invariant: what is listed and what is reserved together never take more than the limit. It knows no file, only
//! names; whoever takes a name out of here removes the file.

use std::collections::{BTreeMap, HashMap};

use http::HeaderMap;

use super::format::Name;
use crate::cache::store::{Facts, Key};

/// Files take whole blocks of the disk.
const DISK_BLOCK_BYTES: u64 = 4096;
/// Most responses on disk: each takes about 400 bytes of memory here, so all of them about 50 MiB.
const MAX_ENTRIES: usize = 131_072;

/// One response on disk.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: Name,
    pub(super) facts: Facts,
    /// Bytes of its files.
    pub(super) bytes: u64,
    /// When it was last used, in nanoseconds since 1970.
    pub(super) used: u64,
    /// It has to be asked about before its next use, which its head does not say.
    pub(super) stale: bool,
}

/// Where a response stands: by when it was last used, which file systems know to some milliseconds only, then by its age.
type Place = (u64, u64, Name);

/// All of them.
#[derive(Debug)]
pub(super) struct Index {
    by_key: HashMap<u128, Vec<Slot>>,
    /// The one that was not used for longest stands first.
    order: BTreeMap<Place, u64>,
    bytes: u64,
    reserved: u64,
    limit: u64,
    most: usize,
}

impl Index {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            by_key: HashMap::new(),
            order: BTreeMap::new(),
            bytes: 0,
            reserved: 0,
            limit,
            most: MAX_ENTRIES,
        }
    }

    /// How many there are, and how many bytes they take.
    pub(super) fn size(&self) -> (usize, u64) {
        (self.order.len(), self.bytes)
    }

    /// Whether anything under this hash is there.
    pub(super) fn has(&self, key: u128) -> bool {
        self.by_key.contains_key(&key)
    }

    /// The newest response to `key` that `request` may get. It counts as used.
    pub(super) fn find(
        &mut self,
        hash: u128,
        key: &Key,
        request: &HeaderMap,
        now: u64,
    ) -> Option<Name> {
        let slots = self.by_key.get_mut(&hash)?;
        let slot = slots
            .iter_mut()
            .filter(|slot| *slot.facts.key == *key && slot.facts.answers(request))
            .max_by_key(|slot| slot.name.serial)?;
        self.order.remove(&place(slot));
        slot.used = now;
        self.order.insert(place(slot), slot.bytes);
        Some(slot.name)
    }

    /// What the newest response to `key` was chosen by.
    pub(super) fn newest(&self, hash: u128, key: &Key) -> Option<Facts> {
        let slots = self.by_key.get(&hash)?;
        let slots = slots.iter().filter(|slot| *slot.facts.key == *key);
        let newest = slots.max_by_key(|slot| slot.name.serial)?;
        Some(newest.facts.clone())
    }

    /// The one that answers the same requests as what has these facts.
    pub(super) fn newest_like(&self, hash: u128, facts: &Facts) -> Option<Name> {
        let slots = self.by_key.get(&hash)?;
        let like = slots
            .iter()
            .filter(|slot| *slot.facts.key == *facts.key && slot.facts.selected == facts.selected);
        like.map(|slot| slot.name).max_by_key(|name| name.serial)
    }

    /// Whether `name` is listed.
    pub(super) fn contains(&self, name: Name) -> bool {
        self.is_stale(name).is_some()
    }

    /// Whether what is listed as `name` has to be asked about; none if nothing is.
    pub(super) fn is_stale(&self, name: Name) -> Option<bool> {
        let mut slots = self.by_key.get(&name.key)?.iter();
        slots.find(|slot| slot.name == name).map(|slot| slot.stale)
    }

    /// Lets every response whose facts fit be asked about before its next use, and names them.
    pub(super) fn mark(&mut self, fits: impl Fn(&Facts) -> bool) -> Vec<Name> {
        let mut marked = Vec::new();
        for slot in self.by_key.values_mut().flatten() {
            if fits(&slot.facts) {
                slot.stale = true;
                marked.push(slot.name);
            }
        }
        marked
    }

    /// Reserves room for `bytes`, and names what has to go for it; none if there is no such room.
    pub(super) fn reserve(&mut self, bytes: u64) -> Option<Vec<Name>> {
        if self.reserved + bytes > self.limit {
            return None;
        }
        self.reserved += bytes;
        Some(self.shrink())
    }

    /// Gives reserved room back.
    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Lists `slot`, and names what it replaces or pushes out.
    pub(super) fn insert(&mut self, slot: Slot) -> Vec<Name> {
        let mut gone = self.supersede(slot.name.key, &slot.facts);
        self.bytes += slot.bytes;
        self.order.insert(place(&slot), slot.bytes);
        self.by_key.entry(slot.name.key).or_default().push(slot);
        gone.extend(self.shrink());
        gone
    }

    /// Takes out what answers the same requests as what has these facts.
    pub(super) fn supersede(&mut self, hash: u128, facts: &Facts) -> Vec<Name> {
        self.take(Some(hash), |slot| {
            *slot.key == *facts.key && slot.selected == facts.selected
        })
    }

    /// Takes out every response whose facts fit.
    pub(super) fn take(&mut self, hash: Option<u128>, fits: impl Fn(&Facts) -> bool) -> Vec<Name> {
        let fitting = |slots: &Vec<Slot>| {
            let slots = slots.iter().filter(|slot| fits(&slot.facts));
            slots.map(|slot| slot.name).collect::<Vec<_>>()
        };
        let names: Vec<Name> = match hash {
            Some(hash) => self.by_key.get(&hash).map(fitting).unwrap_or_default(),
            None => self.by_key.values().flat_map(fitting).collect(),
        };
        names
            .into_iter()
            .filter(|name| self.remove(*name))
            .collect()
    }

    /// Takes one out. False if it was not there.
    pub(super) fn remove(&mut self, name: Name) -> bool {
        let Some(slots) = self.by_key.get_mut(&name.key) else {
            return false;
        };
        let Some(at) = slots.iter().position(|slot| slot.name == name) else {
            return false;
        };
        let slot = slots.swap_remove(at);
        if slots.is_empty() {
            self.by_key.remove(&name.key);
        }
        self.order.remove(&place(&slot));
        self.bytes -= slot.bytes;
        true
    }

    fn shrink(&mut self) -> Vec<Name> {
        let mut gone = Vec::new();
        while self.bytes + self.reserved > self.limit || self.order.len() > self.most {
            let Some((&(_, _, oldest), _)) = self.order.first_key_value() else {
                break;
            };
            self.remove(oldest);
            gone.push(oldest);
        }
        gone
    }
}

const fn place(slot: &Slot) -> Place {
    (slot.used, slot.name.serial, slot.name)
}

/// What a file of so many bytes takes of a disk.
pub(super) const fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(DISK_BLOCK_BYTES) * DISK_BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::tests::key;
    use std::sync::Arc;

    fn slot(serial: u64, path: &str, bytes: u64, used: u64) -> Slot {
        let key = key(path);
        Slot {
            name: Name {
                key: super::super::format::hash(&key),
                serial,
            },
            facts: Facts {
                key: Arc::new(key),
                selected: Vec::new(),
                tags: vec![format!("tag of {path}")],
            },
            bytes,
            used,
            stale: false,
        }
    }

    fn serials(names: &[Name]) -> Vec<u64> {
        names.iter().map(|name| name.serial).collect()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut index = Index::new(300);
        for (serial, path, used) in [(1, "/a", 10), (2, "/b", 20), (3, "/c", 30)] {
            assert_eq!(index.insert(slot(serial, path, 100, used)), []);
        }
        let key = key("/a");
        let hash = super::super::format::hash(&key);
        let found = index.find(hash, &key, &HeaderMap::new(), 40);
        assert_eq!(found.map(|name| name.serial), Some(1));
        assert_eq!(serials(&index.insert(slot(4, "/d", 100, 50))), [2]);
        assert_eq!(serials(&index.reserve(150).unwrap()), [3, 1]);
        assert_eq!(index.size(), (1, 100));
        assert!(index.reserve(200).is_none(), "more than all of it");
        index.release(150);
        assert_eq!(index.insert(slot(5, "/e", 200, 60)), []);
        assert_eq!(index.size(), (2, 300));
    }

    #[test]
    fn a_newer_response_replaces_what_answers_the_same() {
        let mut index = Index::new(1000);
        index.insert(slot(1, "/a", 100, 10));
        index.insert(slot(2, "/b", 100, 10));
        let mut german = slot(3, "/a", 100, 10);
        let chosen_by = http::header::ACCEPT_LANGUAGE;
        german.facts.selected = vec![(chosen_by.clone(), "de".to_owned())];
        assert_eq!(index.insert(german), []);
        assert_eq!(serials(&index.insert(slot(4, "/a", 100, 20))), [1]);
        let key = key("/a");
        let hash = super::super::format::hash(&key);
        let german = HeaderMap::from_iter([(chosen_by, "de".parse().unwrap())]);
        for (request, serial) in [(german, 4), (HeaderMap::new(), 4)] {
            let found = index.find(hash, &key, &request, 30).unwrap();
            assert_eq!(found.serial, serial, "the newest that answers");
        }
        assert_eq!(index.size(), (3, 300));
    }

    #[test]
    fn responses_are_taken_out_by_what_is_known_of_them() {
        let mut index = Index::new(1000);
        for (serial, path) in [(1, "/a"), (2, "/b"), (3, "/c")] {
            index.insert(slot(serial, path, 100, serial));
        }
        let tagged = |facts: &Facts| facts.tags.contains(&"tag of /b".to_owned());
        assert_eq!(serials(&index.take(None, tagged)), [2]);
        assert_eq!(serials(&index.take(None, tagged)), [0; 0]);
        let hash = super::super::format::hash(&key("/c"));
        assert_eq!(serials(&index.take(Some(hash), |_| true)), [3]);
        assert!(!index.has(hash));
        assert_eq!(index.size(), (1, 100));
    }

    #[test]
    fn what_is_marked_stays_listed_until_it_is_replaced() {
        let mut index = Index::new(1000);
        for (serial, path) in [(1, "/a"), (2, "/b")] {
            index.insert(slot(serial, path, 100, serial));
        }
        let names = index.mark(|facts| facts.key.target == "/a");
        assert_eq!(serials(&names), [1]);
        let b = slot(2, "/b", 100, 2).name;
        assert_eq!(
            (index.is_stale(names[0]), index.is_stale(b)),
            (Some(true), Some(false))
        );
        let newer = slot(3, "/a", 100, 3);
        let name = newer.name;
        assert_eq!(serials(&index.insert(newer)), [1]);
        assert_eq!(
            (index.is_stale(names[0]), index.is_stale(name)),
            (None, Some(false))
        );
    }

    #[test]
    fn there_are_never_more_than_memory_allows() {
        let mut index = Index::new(u64::MAX / 2);
        index.most = 3;
        for serial in 0..10 {
            index.insert(slot(serial, &format!("/{serial}"), 1, serial));
        }
        assert_eq!(index.size(), (3, 3));
    }
}
