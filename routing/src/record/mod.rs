//! The records that travel from origin to edges, and which of two is newer.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::host::HostPattern;
use crate::id::{Epoch, Generation, Incarnation, RegionId, ReleaseId, SiteId};
use crate::time::Timestamp;
use crate::wire::Wire;

mod older;
mod pin;
mod site;

pub use pin::{InvalidPin, MAX_PINS, Pin, PinBy, Shown};
pub use site::{Guard, Hold, MAX_WEIGHT, Override, ReleaseRef, SiteRecord};

/// Where a host routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// The host, or the wildcard.
    pub host: HostPattern,
    /// Term of the origin that wrote this generation.
    pub epoch: Epoch,
    /// Rises with every write, also of the tombstone.
    pub generation: Generation,
    /// The site; none is a tombstone: the host routes nowhere any more.
    pub site: Option<SiteId>,
}

impl Wire for HostRecord {
    const WHAT: &'static str = "host record";
}

/// Most purges that one record lists. An edge that has missed more forgets everything of the site.
pub const MAX_LISTED_PURGES: usize = 128;

/// What edges of `region` are to forget of the responses they keep for `site`.
///
/// Purges are numbered from 1 without a gap, and the newest has the number of the record's generation. The list holds the
/// newest of them, oldest first. It says what was purged, not what to do: an edge that has applied all up to a
/// number applies what comes after it, as often as it likes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeRecord {
    /// The site.
    pub site: SiteId,
    /// The region this record is for.
    pub region: RegionId,
    /// Term of the origin that wrote this generation.
    pub epoch: Epoch,
    /// The number of the newest purge.
    pub generation: Generation,
    /// The newest purges, oldest first; at least one.
    pub purges: Vec<PurgeEntry>,
}

/// One purge: what fits any of its URLs or tags, or everything if it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeEntry {
    /// When origin accepted it.
    pub at: Timestamp,
    /// Only what was fetched under this release.
    pub release: Option<ReleaseId>,
    /// These URLs, over either scheme, in all their variants.
    pub urls: Vec<PurgeUrl>,
    /// What carries one of these tags or groups.
    pub tags: Vec<String>,
    /// It is kept, and asked about before its next use, instead of removed.
    pub stale: bool,
}

/// What a URL names on an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeUrl {
    /// Host, and port where it is not the usual one.
    pub authority: String,
    /// Path and query.
    pub target: String,
}

impl PurgeRecord {
    /// The record of a site of which nothing was ever purged in `region`: generation 0. It is never sent.
    #[must_use]
    pub const fn blank(site: SiteId, region: RegionId, epoch: Epoch) -> Self {
        Self {
            site,
            region,
            epoch,
            generation: Generation(0),
            purges: Vec::new(),
        }
    }

    /// Adds the next purge, and lets the oldest go where there are too many, or too many bytes of them.
    pub fn push(&mut self, epoch: Epoch, entry: PurgeEntry) {
        self.epoch = epoch;
        self.generation = self.generation.next();
        self.purges.push(entry);
        while self.purges.len() > 1
            && (self.purges.len() > MAX_LISTED_PURGES || self.encode().len() > Self::MAX_LIST_BYTES)
        {
            self.purges.remove(0);
        }
    }

    /// The purges after the one with this number, oldest first; none if the list no longer reaches back so far.
    #[must_use]
    pub fn since(&self, number: u64) -> Option<&[PurgeEntry]> {
        let missed = usize::try_from(self.generation.0.saturating_sub(number)).ok()?;
        let from = self.purges.len().checked_sub(missed)?;
        self.purges.get(from..)
    }

    /// Whether it lists as many purges as one can: at least one, and not more than there were.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let listed = self.purges.len();
        (1..=MAX_LISTED_PURGES).contains(&listed) && listed as u64 <= self.generation.0
    }

    /// Most bytes of a record with several purges: it travels whole with each of them.
    const MAX_LIST_BYTES: usize = 64 * 1024;
}

impl Wire for PurgeRecord {
    const WHAT: &'static str = "purge record";
}

/// Who may write to a stream: every other write is conditional on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermRecord {
    /// The leading origin's term.
    pub epoch: Epoch,
}

impl Wire for TermRecord {
    const WHAT: &'static str = "term record";
}

/// One stream at one sequence, whole: what an edge with no state starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The stream's last sequence when this was made; repair starts after it.
    pub at_sequence: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Every sealed record of the stream, as published.
    pub records: Vec<Vec<u8>>,
}

impl Wire for Snapshot {
    const WHAT: &'static str = "snapshot";
    // A million hosts at about 200 bytes.
    const MAX_BYTES: usize = 1024 * 1024 * 1024;
}

/// Sent every second per stream: how far it has come. Silence means staleness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// The stream.
    pub stream: String,
    /// Its life.
    pub incarnation: Incarnation,
    /// The leading origin's term.
    pub epoch: Epoch,
    /// Its last sequence.
    pub last_sequence: u64,
    /// The newest snapshot's sequence, if there is one.
    pub snapshot_sequence: Option<u64>,
    /// Origin's clock.
    pub at: Timestamp,
}

impl Wire for Beacon {
    const WHAT: &'static str = "beacon";
    const MAX_BYTES: usize = 4096;
}

/// What to do with a record that verified, given the one held for the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Take it.
    Newer,
    /// The one held, again: changes nothing, is answered with the same report.
    Same,
    /// Refused: lower generation or epoch.
    Older,
    /// Refused and alarmed: the same generation with other content.
    Conflict,
}

/// Compares an incoming record's place with the held one's: generation first, then epoch and content.
#[must_use]
pub fn order(held: Option<(Epoch, Generation, &[u8])>, new: (Epoch, Generation, &[u8])) -> Order {
    let Some((held_epoch, held_generation, held_body)) = held else {
        return Order::Newer;
    };
    let (epoch, generation, body) = new;
    if generation < held_generation || (generation > held_generation && epoch < held_epoch) {
        Order::Older
    } else if generation > held_generation {
        Order::Newer
    } else if body == held_body {
        Order::Same
    } else {
        Order::Conflict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: &str) -> PurgeEntry {
        PurgeEntry {
            at: Timestamp::from_millis(0),
            release: None,
            urls: Vec::new(),
            tags: Vec::from([String::from(tag)]),
            stale: false,
        }
    }

    fn purged() -> PurgeRecord {
        let (site, region) = ("shop/production".parse(), "fra".parse());
        PurgeRecord::blank(site.unwrap(), region.unwrap(), Epoch(1))
    }

    #[test]
    fn a_purge_record_lists_the_newest_purges_and_says_how_far_back_they_go() {
        let mut record = purged();
        assert!(!record.is_sound(), "nothing was purged");
        for _ in 0..MAX_LISTED_PURGES + 10 {
            record.push(Epoch(2), tagged("x"));
        }
        let newest = MAX_LISTED_PURGES as u64 + 10;
        assert_eq!(record.generation, Generation(newest));
        assert!(record.is_sound());
        for (number, missed) in [
            (newest, Some(0)),
            (newest - 1, Some(1)),
            (10, Some(MAX_LISTED_PURGES)),
            (9, None),
            (0, None),
            (newest + 5, Some(0)),
        ] {
            let since = record.since(number).map(<[_]>::len);
            assert_eq!(since, missed, "{number}");
        }
        record.generation = Generation(3);
        assert!(!record.is_sound(), "it lists more than there were");
    }

    #[test]
    fn a_purge_record_stays_small_and_keeps_the_newest_whatever_its_size() {
        let mut record = purged();
        for _ in 0..20 {
            record.push(Epoch(1), tagged(&"x".repeat(10_000)));
        }
        assert!(record.encode().len() <= PurgeRecord::MAX_LIST_BYTES);
        assert_eq!(record.purges.len(), 6);
        record.push(Epoch(1), tagged(&"x".repeat(100_000)));
        assert_eq!(
            (record.purges.len(), record.generation),
            (1, Generation(21))
        );
    }

    #[test]
    fn a_record_replaces_only_what_is_older() {
        let held = Some((Epoch(3), Generation(7), b"x".as_slice()));
        let cases = [
            ((Epoch(3), Generation(8), b"y".as_slice()), Order::Newer),
            ((Epoch(4), Generation(8), b"y".as_slice()), Order::Newer),
            ((Epoch(2), Generation(8), b"y".as_slice()), Order::Older),
            ((Epoch(9), Generation(6), b"y".as_slice()), Order::Older),
            ((Epoch(3), Generation(7), b"x".as_slice()), Order::Same),
            ((Epoch(3), Generation(7), b"y".as_slice()), Order::Conflict),
        ];
        for (new, expected) in cases {
            assert_eq!(order(held, new), expected, "{new:?}");
        }
        assert_eq!(order(None, (Epoch(0), Generation(0), b"")), Order::Newer);
    }
}
