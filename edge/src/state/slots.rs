//! Pure: the places of a million records in memory.
//!
//! Keys and places lie one after the other in pages of bytes, some fifty bytes a record, and a table of offsets finds them. It
//! remembers which keys it was shown since it was last asked to begin, so that what a whole snapshot lacks is found without a second set of keys.

use std::fmt;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use helix_routing::id::{Epoch, Generation};

/// Bytes of a page: no key comes near it, and what the last one has free does not count.
const PAGE_BYTES: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 18;
/// Generation, epoch, fingerprint, flags, length of the key.
const HEAD_BYTES: usize = 8 + 8 + 8 + 1 + 2;
/// Keys are subjects of NATS, which are far shorter.
pub(super) const MAX_KEY_BYTES: usize = 1024;
/// Bytes of removed records that are left alone.
const FREE_GARBAGE: usize = 4 * PAGE_BYTES;

const IS_TOMBSTONE: u8 = 1;
const WAS_SEEN: u8 = 2;

/// The place of a record that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) epoch: Epoch,
    pub(super) generation: Generation,
    /// Of its body: two records of one generation must agree in it.
    pub(super) body: u64,
    /// It says that something is gone.
    pub(super) is_tombstone: bool,
}

/// Places by key.
#[derive(Default)]
pub(super) struct Slots {
    pages: Vec<Vec<u8>>,
    /// Where each entry begins: page, and offset in it.
    index: HashTable<u32>,
    hasher: foldhash::quality::RandomState,
    garbage: usize,
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn get(&self, key: &str) -> Option<Slot> {
        let at = self.find(key)?;
        Some(self.entry(at).slot())
    }

    /// Holds `slot` under `key`, and returns what was there. A key that is too long for any stream is not held.
    pub(super) fn insert(&mut self, key: &str, slot: Slot) -> Option<Slot> {
        if let Some(at) = self.find(key) {
            let before = self.entry(at).slot();
            let seen = self.entry(at).flags() & WAS_SEEN;
            let (page, offset) = split(at);
            let head = &mut self.pages[page][offset..offset + HEAD_BYTES - 2];
            head.copy_from_slice(&head_of(slot, seen));
            return Some(before);
        }
        let length = u16::try_from(key.len())
            .ok()
            .filter(|_| key.len() <= MAX_KEY_BYTES)?;
        let at = self.room(HEAD_BYTES + key.len())?;
        let page = self.pages.last_mut()?;
        page.extend_from_slice(&head_of(slot, 0));
        page.extend_from_slice(&length.to_le_bytes());
        page.extend_from_slice(key.as_bytes());
        let (pages, hasher) = (&self.pages, &self.hasher);
        let hash = hasher.hash_one(key.as_bytes());
        self.index
            .insert_unique(hash, at, |at| hasher.hash_one(entry(pages, *at).key()));
        None
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Slot> {
        let (pages, hash) = (&self.pages, self.hasher.hash_one(key.as_bytes()));
        let found = self
            .index
            .find_entry(hash, |at| entry(pages, *at).key() == key.as_bytes());
        let (at, _) = found.ok()?.remove();
        let slot = self.entry(at).slot();
        self.garbage += HEAD_BYTES + key.len();
        let used = self.pages.len() * PAGE_BYTES;
        if self.garbage > FREE_GARBAGE && self.garbage * 2 > used {
            self.rewrite();
        }
        Some(slot)
    }

    /// Forgets which keys it was shown.
    pub(super) fn begin_seeing(&mut self) {
        let Self { pages, index, .. } = self;
        for at in &*index {
            let (page, offset) = split(*at);
            pages[page][offset + HEAD_BYTES - 3] &= !WAS_SEEN;
        }
    }

    /// Remembers that it was shown `key`, if it holds it.
    pub(super) fn see(&mut self, key: &str) {
        if let Some(at) = self.find(key) {
            let (page, offset) = split(at);
            self.pages[page][offset + HEAD_BYTES - 3] |= WAS_SEEN;
        }
    }

    /// The keys that it was not shown, and whether each is a tombstone's.
    pub(super) fn unseen(&self) -> impl Iterator<Item = (&str, bool)> {
        let entries = self.index.iter().map(|at| self.entry(*at));
        entries
            .filter(|entry| entry.flags() & WAS_SEEN == 0)
            .filter_map(|entry| {
                let key = std::str::from_utf8(entry.key()).ok()?;
                Some((key, entry.flags() & IS_TOMBSTONE != 0))
            })
    }

    /// How many are held that are no tombstones.
    pub(super) fn live(&self) -> usize {
        let entries = self.index.iter().map(|at| self.entry(*at));
        entries
            .filter(|entry| entry.flags() & IS_TOMBSTONE == 0)
            .count()
    }

    fn find(&self, key: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(key.as_bytes());
        self.index
            .find(hash, |at| self.entry(*at).key() == key.as_bytes())
            .copied()
    }

    fn entry(&self, at: u32) -> Entry<'_> {
        entry(&self.pages, at)
    }

    /// Where an entry of so many bytes goes: the end of the last page, or a new one. None when four gigabytes are full.
    fn room(&mut self, bytes: usize) -> Option<u32> {
        let has_room = |page: &Vec<u8>| page.len() + bytes <= PAGE_BYTES;
        if !self.pages.last().is_some_and(has_room) {
            // Small streams stay small.
            let first = if self.pages.is_empty() { 0 } else { PAGE_BYTES };
            self.pages.push(Vec::with_capacity(first));
        }
        let (page, offset) = (self.pages.len() - 1, self.pages.last()?.len());
        let page = u32::try_from(page)
            .ok()
            .filter(|page| *page < 1 << (u32::BITS - PAGE_BITS))?;
        Some(page << PAGE_BITS | u32::try_from(offset).ok()?)
    }

    /// Leaves the removed ones behind.
    fn rewrite(&mut self) {
        let mut new = Self {
            hasher: self.hasher.clone(),
            ..Self::default()
        };
        for at in &self.index {
            let held = self.entry(*at);
            if let Ok(key) = std::str::from_utf8(held.key()) {
                new.insert(key, held.slot());
                if held.flags() & WAS_SEEN != 0 {
                    new.see(key);
                }
            }
        }
        *self = new;
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slots({})", self.len())
    }
}

/// An entry, from its head on.
#[derive(Clone, Copy)]
struct Entry<'a>(&'a [u8]);

impl<'a> Entry<'a> {
    fn number(self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    fn flags(self) -> u8 {
        self.0[HEAD_BYTES - 3]
    }

    fn slot(self) -> Slot {
        Slot {
            generation: Generation(self.number(0)),
            epoch: Epoch(self.number(8)),
            body: self.number(16),
            is_tombstone: self.flags() & IS_TOMBSTONE != 0,
        }
    }

    fn key(self) -> &'a [u8] {
        let length = u16::from_le_bytes([self.0[HEAD_BYTES - 2], self.0[HEAD_BYTES - 1]]);
        &self.0[HEAD_BYTES..HEAD_BYTES + usize::from(length)]
    }
}

fn entry(pages: &[Vec<u8>], at: u32) -> Entry<'_> {
    let (page, offset) = split(at);
    Entry(&pages[page][offset..])
}

const fn split(at: u32) -> (usize, usize) {
    ((at >> PAGE_BITS) as usize, at as usize & (PAGE_BYTES - 1))
}

fn head_of(slot: Slot, seen: u8) -> [u8; HEAD_BYTES - 2] {
    let mut head = [0; HEAD_BYTES - 2];
    head[..8].copy_from_slice(&slot.generation.0.to_le_bytes());
    head[8..16].copy_from_slice(&slot.epoch.0.to_le_bytes());
    head[16..24].copy_from_slice(&slot.body.to_le_bytes());
    head[24] = seen | if slot.is_tombstone { IS_TOMBSTONE } else { 0 };
    head
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, u64),
        Remove(u16),
        Begin,
        See(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0_u16..60;
        prop_oneof![
            4 => (key.clone(), any::<u64>()).prop_map(|(key, number)| Step::Insert(key, number)),
            2 => key.clone().prop_map(Step::Remove),
            1 => Just(Step::Begin),
            3 => key.prop_map(Step::See),
        ]
    }

    fn key(number: u16) -> String {
        format!(
            "h.{number:02x}.{}=example=com",
            "x".repeat(usize::from(number))
        )
    }

    fn slot(number: u64) -> Slot {
        Slot {
            epoch: Epoch(number / 3),
            generation: Generation(number),
            body: number ^ 77,
            is_tombstone: number.is_multiple_of(4),
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_map(steps in proptest::collection::vec(step(), 0..400)) {
            let mut slots = Slots::default();
            let mut model: BTreeMap<String, Slot> = BTreeMap::new();
            let mut seen: BTreeSet<String> = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Insert(n, number) => prop_assert_eq!(
                        slots.insert(&key(n), slot(number)),
                        model.insert(key(n), slot(number))
                    ),
                    Step::Remove(n) => {
                        seen.remove(&key(n));
                        prop_assert_eq!(slots.remove(&key(n)), model.remove(&key(n)));
                    }
                    Step::Begin => {
                        seen.clear();
                        slots.begin_seeing();
                    }
                    Step::See(n) => {
                        slots.see(&key(n));
                        if model.contains_key(&key(n)) {
                            seen.insert(key(n));
                        }
                    }
                }
            }
            prop_assert_eq!(slots.len(), model.len());
            for n in 0..60 {
                prop_assert_eq!(slots.get(&key(n)), model.get(&key(n)).copied());
            }
            let unseen: BTreeMap<String, bool> = slots.unseen().map(|(key, dead)| (key.to_owned(), dead)).collect();
            let expected = model.iter().filter(|(key, _)| !seen.contains(*key));
            prop_assert_eq!(unseen, expected.map(|(key, slot)| (key.clone(), slot.is_tombstone)).collect());
            prop_assert_eq!(slots.live(), model.values().filter(|slot| !slot.is_tombstone).count());
        }
    }

    #[test]
    fn removed_records_leave_no_memory_behind() {
        let mut slots = Slots::default();
        for n in 0..200_000_u64 {
            let key = format!("h.00.host-{n}=example=com");
            slots.insert(&key, slot(n));
            if n % 1000 != 0 {
                slots.remove(&key);
            }
        }
        assert_eq!(slots.len(), 200);
        assert!(slots.pages.len() < 10, "{} pages", slots.pages.len());
        assert_eq!(slots.get("h.00.host-5000=example=com"), Some(slot(5000)));
    }
}
