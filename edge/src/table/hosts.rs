//! A map from a name to what it means, for a million names: compact, read by every request, written in batches.
//!
//! Names are spread over shards by a hash, of the whole name or, where names of one group are asked for together, of its first
//! part. A shard is one immutable piece, its entries in order of the rest of the hash and its
//! names in one row of bytes: about forty bytes a host. A change makes the touched shards anew and swaps them; a reader
//! loads one pointer and waits for nobody. Whoever writes has to do so alone, or one of two changes is lost.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::breaks::Breaks;

/// A shard of a million names holds some 240, which are written anew in a few microseconds. Four times as many shards are slower to
/// look up in by a tenth or two: their pointers lie further apart.
const SHARD_BITS: u32 = 12;
/// Bits of a hash that tell names of one shard apart.
const TAG_BITS: u32 = 32;

/// Names and what they mean.
#[derive(Debug)]
pub(super) struct Hosts<V> {
    shards: Box<[ArcSwap<Shard<V>>]>,
    hasher: foldhash::fast::RandomState,
    held: AtomicUsize,
    /// Names that agree up to their first slash lie together.
    is_grouped: bool,
}

#[derive(Debug)]
struct Shard<V> {
    /// In order of their tags.
    entries: Box<[Entry<V>]>,
    /// Each name with its length before it.
    names: Box<[u8]>,
}

#[derive(Debug)]
struct Entry<V> {
    tag: u32,
    /// Where its name begins in the shard's.
    name: u32,
    value: Arc<V>,
}

/// The values of names that were set, and of those that were replaced or removed.
#[derive(Debug)]
pub(super) struct Moves<V> {
    pub(super) come: Vec<Arc<V>>,
    pub(super) gone: Vec<Arc<V>>,
}

impl<V> Default for Moves<V> {
    fn default() -> Self {
        Self {
            come: Vec::new(),
            gone: Vec::new(),
        }
    }
}

/// What becomes of a name.
#[derive(Debug)]
struct Change<'a, V> {
    shard: usize,
    tag: u32,
    name: &'a str,
    /// None removes it.
    value: Option<Arc<V>>,
}

impl<V> Default for Hosts<V> {
    fn default() -> Self {
        let empty = Arc::new(Shard {
            entries: Box::default(),
            names: Box::default(),
        });
        Self {
            shards: (0..1_usize << SHARD_BITS)
                .map(|_| ArcSwap::new(Arc::clone(&empty)))
                .collect(),
            hasher: foldhash::fast::RandomState::default(),
            held: AtomicUsize::new(0),
            is_grouped: false,
        }
    }
}

impl<V> Hosts<V> {
    /// A map of names whose group, up to the first slash, is asked for, too.
    pub(super) fn grouped() -> Self {
        Self {
            is_grouped: true,
            ..Self::default()
        }
    }

    /// What the names mean that begin with `group` and a slash, in a map that is grouped.
    pub(super) fn group(&self, group: &str) -> Vec<Arc<V>> {
        let (shard, tag) = self.place(group);
        let shard = self.shards[shard].load();
        let is_of = |entry: &&Entry<V>| {
            let rest = shard.name(entry).strip_prefix(group.as_bytes());
            rest.is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        let entries = shard.with_tag(tag).iter();
        entries
            .take_while(|entry| entry.tag == tag)
            .filter(is_of)
            .map(|entry| Arc::clone(&entry.value))
            .collect()
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// What `name` means.
    pub(super) fn get(&self, name: &str) -> Option<Arc<V>> {
        let (shard, tag) = self.place(name);
        let shard = self.shards[shard].load();
        shard
            .with_tag(tag)
            .iter()
            .take_while(|entry| entry.tag == tag)
            .find(|entry| shard.name(entry) == name.as_bytes())
            .map(|entry| Arc::clone(&entry.value))
    }

    /// Takes in changes; of several of one name the last counts. `Moves` says which values more and fewer names have now.
    pub(super) fn apply<'a>(
        &self,
        changes: impl Iterator<Item = (&'a str, Option<Arc<V>>)>,
    ) -> Moves<V> {
        let mut changes: Vec<Change<'_, V>> = changes
            .filter(|(name, _)| name.len() <= usize::from(u8::MAX))
            .map(|(name, value)| {
                let (shard, tag) = self.place(name);
                Change {
                    shard,
                    tag,
                    name,
                    value,
                }
            })
            .collect();
        // Stable, so that changes of one name stay in their order.
        changes.sort_by_key(|change| (change.shard, change.tag));
        let mut moves = Moves::default();
        let mut breaks = Breaks::begin();
        for changes in changes.chunk_by(|a, b| a.shard == b.shard) {
            breaks.may_be_due();
            let place = &self.shards[changes[0].shard];
            let before = place.load_full();
            let after = before.changed(changes, &mut moves);
            self.held.fetch_add(after.entries.len(), Ordering::Relaxed);
            self.held.fetch_sub(before.entries.len(), Ordering::Relaxed);
            place.store(Arc::new(after));
        }
        moves
    }

    /// Which of `parts` parts, each of several shards, a name belongs to.
    pub(super) fn part(&self, name: &str, parts: usize) -> usize {
        self.place(name).0 * parts / self.shards.len()
    }

    /// Calls `each` with every name and what it means.
    pub(super) fn for_each(&self, mut each: impl FnMut(&str, &Arc<V>)) {
        for shard in &self.shards {
            let shard = shard.load();
            for entry in &shard.entries {
                if let Ok(name) = std::str::from_utf8(shard.name(entry)) {
                    each(name, &entry.value);
                }
            }
        }
    }

    fn place(&self, name: &str) -> (usize, u32) {
        let hashed = if self.is_grouped {
            name.split_once('/').map_or(name, |(group, _)| group)
        } else {
            name
        };
        let hash = self.hasher.hash_one(hashed);
        let shard = usize::try_from(hash >> (u64::BITS - SHARD_BITS)).unwrap_or(0);
        (shard, (hash & u64::from(u32::MAX)) as u32)
    }
}

impl<V> Shard<V> {
    /// The entries from the first one with this tag on, or from where it would stand.
    fn with_tag(&self, tag: u32) -> &[Entry<V>] {
        let entries = &self.entries;
        // Tags are spread evenly, so an entry stands near its share of the way.
        let guess = (u64::from(tag) * entries.len() as u64) >> TAG_BITS;
        let mut at = usize::try_from(guess).unwrap_or(0);
        while at > 0 && entries[at - 1].tag >= tag {
            at -= 1;
        }
        while entries.get(at).is_some_and(|entry| entry.tag < tag) {
            at += 1;
        }
        &entries[at..]
    }

    fn name(&self, entry: &Entry<V>) -> &[u8] {
        let from = entry.name as usize;
        let length = usize::from(self.names[from]);
        &self.names[from + 1..from + 1 + length]
    }

    /// This shard with `changes`, which are in order of their tags.
    fn changed(&self, changes: &[Change<'_, V>], moves: &mut Moves<V>) -> Self {
        let added = changes.iter().filter(|change| change.value.is_some());
        let added_bytes: usize = added.clone().map(|change| change.name.len() + 1).sum();
        let mut made = Making {
            entries: Vec::with_capacity(self.entries.len() + added.count()),
            names: Vec::with_capacity(self.names.len() + added_bytes),
        };
        let mut changes = changes.chunk_by(|a, b| a.tag == b.tag).peekable();
        let mut held = self.entries.chunk_by(|a, b| a.tag == b.tag).peekable();
        loop {
            let (of_held, of_changes) = match (held.peek(), changes.peek()) {
                (None, None) => break,
                (Some(held), Some(changes)) => {
                    (held[0].tag <= changes[0].tag, changes[0].tag <= held[0].tag)
                }
                (held, changes) => (held.is_some(), changes.is_some()),
            };
            let held = held.next_if(|_| of_held).unwrap_or_default();
            let changes = changes.next_if(|_| of_changes).unwrap_or_default();
            self.merge(held, changes, &mut made, moves);
        }
        Self {
            entries: made.entries.into_boxed_slice(),
            names: made.names.into_boxed_slice(),
        }
    }

    /// Entries and changes of one tag.
    fn merge(
        &self,
        held: &[Entry<V>],
        changes: &[Change<'_, V>],
        made: &mut Making<V>,
        moves: &mut Moves<V>,
    ) {
        for entry in held {
            let name = self.name(entry);
            if changes.iter().any(|change| change.name.as_bytes() == name) {
                moves.gone.push(Arc::clone(&entry.value));
            } else {
                made.push(entry.tag, name, Arc::clone(&entry.value));
            }
        }
        for (at, change) in changes.iter().enumerate() {
            let is_last = !changes[at + 1..]
                .iter()
                .any(|later| later.name == change.name);
            if let Some(value) = change.value.as_ref().filter(|_| is_last) {
                moves.come.push(Arc::clone(value));
                made.push(change.tag, change.name.as_bytes(), Arc::clone(value));
            }
        }
    }
}

struct Making<V> {
    entries: Vec<Entry<V>>,
    names: Vec<u8>,
}

impl<V> Making<V> {
    /// Names are at most 255 bytes long, and a shard with four gigabytes of them cannot be.
    fn push(&mut self, tag: u32, name: &[u8], value: Arc<V>) {
        let (Ok(length), Ok(at)) = (u8::try_from(name.len()), u32::try_from(self.names.len()))
        else {
            return;
        };
        self.names.push(length);
        self.names.extend_from_slice(name);
        self.entries.push(Entry {
            tag,
            name: at,
            value,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn all(hosts: &Hosts<u32>) -> BTreeMap<String, u32> {
        let mut all = BTreeMap::new();
        hosts.for_each(|name, value| {
            all.insert(name.to_owned(), **value);
        });
        all
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_map(
            batches in proptest::collection::vec(
                proptest::collection::vec((0_u16..300, proptest::option::of(0_u32..5)), 0..200),
                0..20,
            )
        ) {
            let hosts = Hosts::default();
            let mut model = BTreeMap::new();
            for batch in batches {
                let names: Vec<String> = batch.iter().map(|(n, _)| format!("h{n}.example.com")).collect();
                let changes = names.iter().zip(&batch);
                hosts.apply(changes.map(|(name, (_, value))| (name.as_str(), value.map(Arc::new))));
                for (name, (_, value)) in names.iter().zip(&batch) {
                    match value {
                        Some(value) => model.insert(name.clone(), *value),
                        None => model.remove(name),
                    };
                }
                prop_assert_eq!(all(&hosts), model.clone());
                prop_assert_eq!(hosts.len(), model.len());
            }
            for n in 0..300 {
                let name = format!("h{n}.example.com");
                prop_assert_eq!(hosts.get(&name).map(|value| *value), model.get(&name).copied());
            }
        }
    }

    #[test]
    fn names_of_a_group_are_found_together() {
        let hosts = Hosts::grouped();
        let names = [
            "shop/production",
            "shop/preview/1",
            "shoe/production",
            "sh/op",
        ];
        hosts.apply(names.iter().map(|name| (*name, Some(Arc::new(*name)))));
        hosts.apply(
            [
                ("shop/preview/2", Some(Arc::new("shop/preview/2"))),
                ("sh/op", None),
            ]
            .into_iter(),
        );
        let group = |group| {
            let mut found: Vec<_> = hosts.group(group).into_iter().map(|name| *name).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(
            group("shop"),
            ["shop/preview/1", "shop/preview/2", "shop/production"]
        );
        assert_eq!(group("shoe"), ["shoe/production"]);
        assert_eq!(group("sh"), [""; 0]);
        assert_eq!(
            hosts.get("shop/preview/1").as_deref(),
            Some(&"shop/preview/1")
        );
    }

    #[test]
    fn names_of_one_tag_are_told_apart() {
        let shard = Shard::<u32> {
            entries: Box::default(),
            names: Box::default(),
        };
        let change = |name, value: Option<u32>| Change {
            shard: 0,
            tag: 7,
            name,
            value: value.map(Arc::new),
        };
        let mut moves = Moves::default();
        let shard = shard.changed(&[change("a", Some(1)), change("b", Some(2))], &mut moves);
        let shard = shard.changed(&[change("a", None), change("c", Some(3))], &mut moves);
        let held: Vec<_> = shard
            .with_tag(7)
            .iter()
            .map(|entry| (shard.name(entry), *entry.value))
            .collect();
        assert_eq!(held, [(b"b".as_slice(), 2), (b"c".as_slice(), 3)]);
        assert_eq!((moves.come.len(), moves.gone.len()), (3, 1));
        assert!(shard.with_tag(8).is_empty());
    }
}
