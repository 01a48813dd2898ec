//! Pure: the places of a million records in memory.
//!
//! Keys and places lie one after the other in pages of bytes, some fifty bytes a record (numbers take as many as they need), and a table of offsets finds them. It
//! remembers which keys it was shown since it was last asked to begin, so that what a whole snapshot lacks is found without a second set
//! of keys. That takes no pass over all of them at once: keys are marked with the number of the round, and looked through page by page.

use std::fmt;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use helix_routing::id::{Epoch, Generation};

/// Bytes of a page: no key comes near it, and what the last one has free does not count.
const PAGE_BYTES: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 18;
/// Fingerprint, flags, length of the key. Behind it lie generation, epoch and key.
const HEAD_BYTES: usize = 8 + 1 + 2;
const FLAGS_AT: usize = 8;
/// Most bytes of a number, seven bits in each.
const NUMBER_BYTES: usize = 10;
/// Keys are subjects of NATS, which are far shorter.
pub(super) const MAX_KEY_BYTES: usize = 1024;
/// Bytes of removed records that are left alone.
const FREE_GARBAGE: usize = 4 * PAGE_BYTES;

const IS_TOMBSTONE: u8 = 1;
/// Removed, and left where it lies until the pages are written anew.
const IS_GONE: u8 = 2;
/// The rest of the flags is the round in which it was last shown; 0 is none.
const ROUND_SHIFT: u8 = 2;
const LAST_ROUND: u8 = u8::MAX >> ROUND_SHIFT;

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
    /// Held that are no tombstones.
    live: usize,
    /// How often it began to be shown keys.
    round: u8,
    /// A round is under way: what lies in the pages stays where it is.
    is_seeing: bool,
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Makes room for so many places in all, so that those found until then need not be looked up again when there are more.
    pub(super) fn reserve(&mut self, places: usize) {
        let (pages, hasher) = (&self.pages, &self.hasher);
        let more = places.saturating_sub(self.index.len());
        self.index
            .reserve(more, |at| hasher.hash_one(entry(pages, *at).key()));
    }

    pub(super) fn get(&self, key: &str) -> Option<Slot> {
        let at = self.find(key)?;
        Some(self.entry(at).slot())
    }

    /// Holds `slot` under `key`, and returns what was there. A key that is too long for any stream is not held.
    pub(super) fn insert(&mut self, key: &str, slot: Slot) -> Option<Slot> {
        let hash = self.hasher.hash_one(key.as_bytes());
        let pages = &self.pages;
        let held = self
            .index
            .find(hash, |at| entry(pages, *at).key() == key.as_bytes())
            .copied();
        let Some(at) = held else {
            let at = self.append(key, Head::of(slot, 0, key)?)?;
            let (pages, hasher) = (&self.pages, &self.hasher);
            self.index
                .insert_unique(hash, at, |at| hasher.hash_one(entry(pages, *at).key()));
            self.live += usize::from(!slot.is_tombstone);
            return None;
        };
        let before = self.entry(at).slot();
        let head = Head::of(
            slot,
            self.entry(at).flags() & !(IS_TOMBSTONE | IS_GONE),
            key,
        )?;
        if head.len == self.entry(at).key_at() {
            let (page, offset) = split(at);
            self.pages[page][offset..offset + head.len].copy_from_slice(head.bytes());
        } else {
            // A number has become longer: the record moves to the end.
            let moved = self.append(key, head)?;
            self.leave(at, key);
            if let Some(place) = self.index.find_mut(hash, |held| *held == at) {
                *place = moved;
            }
        }
        self.live += usize::from(!slot.is_tombstone);
        self.live -= usize::from(!before.is_tombstone);
        self.leave_garbage();
        Some(before)
    }

    fn append(&mut self, key: &str, head: Head) -> Option<u32> {
        let at = self.room(head.len + key.len())?;
        let page = self.pages.last_mut()?;
        page.extend_from_slice(head.bytes());
        page.extend_from_slice(key.as_bytes());
        Some(at)
    }

    /// What lies there counts no longer.
    fn leave(&mut self, at: u32, key: &str) {
        self.garbage += self.entry(at).key_at() + key.len();
        let (page, offset) = split(at);
        self.pages[page][offset + FLAGS_AT] |= IS_GONE;
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Slot> {
        let (pages, hash) = (&self.pages, self.hasher.hash_one(key.as_bytes()));
        let found = self
            .index
            .find_entry(hash, |at| entry(pages, *at).key() == key.as_bytes());
        let (at, _) = found.ok()?.remove();
        let slot = self.entry(at).slot();
        self.leave(at, key);
        self.live -= usize::from(!slot.is_tombstone);
        self.leave_garbage();
        Some(slot)
    }

    /// Forgets which keys it was shown. Until [`Slots::end_seeing`] it is a round.
    pub(super) fn begin_seeing(&mut self) {
        if self.mark() == LAST_ROUND {
            self.rewrite();
        } else {
            self.round += 1;
        }
        self.is_seeing = true;
    }

    /// The round is over.
    pub(super) fn end_seeing(&mut self) {
        self.is_seeing = false;
        self.leave_garbage();
    }

    /// Remembers that it was shown `key`, if it holds it.
    pub(super) fn see(&mut self, key: &str) {
        let mark = self.mark();
        if let Some(at) = self.find(key) {
            let (page, offset) = split(at);
            let flags = &mut self.pages[page][offset + FLAGS_AT];
            *flags = (*flags & (IS_TOMBSTONE | IS_GONE)) | (mark << ROUND_SHIFT);
        }
    }

    /// What keys are marked with that are shown in this round.
    const fn mark(&self) -> u8 {
        self.round + 1
    }

    /// How many pages there are to look through.
    pub(super) const fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The keys of a page that it was not shown in this round, and whether each is a tombstone's.
    pub(super) fn unseen(&self, page: usize) -> impl Iterator<Item = (&str, bool)> {
        let entries = self.pages.get(page).map(|page| Entries(page));
        let mark = self.mark();
        entries
            .into_iter()
            .flatten()
            .filter(move |entry| {
                entry.flags() & IS_GONE == 0 && entry.flags() >> ROUND_SHIFT != mark
            })
            .filter_map(|entry| {
                let key = std::str::from_utf8(entry.key()).ok()?;
                Some((key, entry.flags() & IS_TOMBSTONE != 0))
            })
    }

    /// How many are held that are no tombstones.
    pub(super) const fn live(&self) -> usize {
        self.live
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

    fn leave_garbage(&mut self) {
        let used = self.pages.len() * PAGE_BYTES;
        if !self.is_seeing && self.garbage > FREE_GARBAGE && self.garbage * 2 > used {
            self.rewrite();
        }
    }

    /// Leaves the removed ones behind, and what was shown before.
    fn rewrite(&mut self) {
        let mut new = Self {
            hasher: self.hasher.clone(),
            ..Self::default()
        };
        for held in self.pages.iter().flat_map(|page| Entries(page)) {
            let is_held = held.flags() & IS_GONE == 0;
            if let Ok(key) = std::str::from_utf8(held.key())
                && is_held
            {
                new.insert(key, held.slot());
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
    fn flags(self) -> u8 {
        self.0[FLAGS_AT]
    }

    fn slot(self) -> Slot {
        let (generation, rest) = number(&self.0[HEAD_BYTES..]);
        let (epoch, _) = number(rest);
        let mut body = [0; FLAGS_AT];
        body.copy_from_slice(&self.0[..FLAGS_AT]);
        Slot {
            generation: Generation(generation),
            epoch: Epoch(epoch),
            body: u64::from_le_bytes(body),
            is_tombstone: self.flags() & IS_TOMBSTONE != 0,
        }
    }

    /// Where its key begins: how long head and numbers are.
    fn key_at(self) -> usize {
        let numbers = self.0[HEAD_BYTES..].iter();
        let ends = numbers.enumerate().filter(|(_, byte)| **byte < 0x80);
        HEAD_BYTES + ends.map(|(at, _)| at + 1).nth(1).unwrap_or(0)
    }

    fn key(self) -> &'a [u8] {
        let length = u16::from_le_bytes([self.0[HEAD_BYTES - 2], self.0[HEAD_BYTES - 1]]);
        let from = self.key_at();
        &self.0[from..from + usize::from(length)]
    }
}

/// The number at the start of `bytes`, and what lies behind it.
fn number(bytes: &[u8]) -> (u64, &[u8]) {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(NUMBER_BYTES).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            return (value, &bytes[at + 1..]);
        }
    }
    (value, &[])
}

/// What lies before a key.
struct Head {
    bytes: [u8; HEAD_BYTES + 2 * NUMBER_BYTES],
    len: usize,
}

impl Head {
    /// None when the key is too long for any stream.
    fn of(slot: Slot, seen: u8, key: &str) -> Option<Self> {
        let length = u16::try_from(key.len())
            .ok()
            .filter(|_| key.len() <= MAX_KEY_BYTES)?;
        let mut head = Self {
            bytes: [0; HEAD_BYTES + 2 * NUMBER_BYTES],
            len: HEAD_BYTES,
        };
        head.bytes[..FLAGS_AT].copy_from_slice(&slot.body.to_le_bytes());
        head.bytes[FLAGS_AT] = seen | if slot.is_tombstone { IS_TOMBSTONE } else { 0 };
        head.bytes[HEAD_BYTES - 2..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
        head.push(slot.generation.0);
        head.push(slot.epoch.0);
        Some(head)
    }

    fn push(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes[self.len] = (number & 0x7f) as u8 | 0x80;
            self.len += 1;
            number >>= 7;
        }
        self.bytes[self.len] = number as u8;
        self.len += 1;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The entries of a page, from its start on.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = Entry(self.0);
        self.0 = &self.0[entry.key_at() + entry.key().len()..];
        Some(entry)
    }
}

fn entry(pages: &[Vec<u8>], at: u32) -> Entry<'_> {
    let (page, offset) = split(at);
    Entry(&pages[page][offset..])
}

const fn split(at: u32) -> (usize, usize) {
    ((at >> PAGE_BITS) as usize, at as usize & (PAGE_BYTES - 1))
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
                        slots.end_seeing();
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
            let pages = 0..slots.pages();
            let unseen: BTreeMap<String, bool> = pages.flat_map(|page| slots.unseen(page)).map(|(key, dead)| (key.to_owned(), dead)).collect();
            let expected = model.iter().filter(|(key, _)| !seen.contains(*key));
            prop_assert_eq!(unseen, expected.map(|(key, slot)| (key.clone(), slot.is_tombstone)).collect());
            prop_assert_eq!(slots.live(), model.values().filter(|slot| !slot.is_tombstone).count());
        }
    }

    #[test]
    fn what_was_shown_in_a_round_long_ago_was_not_shown_in_this_one() {
        let mut slots = Slots::default();
        for n in 0..3 {
            slots.insert(&key(n), slot(1));
        }
        for round in 0..200 {
            slots.begin_seeing();
            slots.see(&key(round % 3));
            let unseen: BTreeSet<_> = (0..slots.pages())
                .flat_map(|page| slots.unseen(page))
                .map(|(key, _)| key.to_owned())
                .collect();
            let expected: BTreeSet<_> = (0..3).filter(|n| *n != round % 3).map(key).collect();
            assert_eq!(unseen, expected, "round {round}");
            slots.end_seeing();
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
