//! Which packs a release keeps, and which of its contents are packed anew. Pure.
//!
//! A release points at the packs its contents came in, so a deployment adds one pack with what
//! changed. That wears: after many deployments a release is spread over many packs that are
//! mostly dead. Then the small and the sparse packs are merged; large full packs stay, so that
//! edges fetch again only what moved.
//!
//! Invariant: every content of the release is either kept where it lies or in exactly one group.

use std::collections::{BTreeMap, BTreeSet};

use helix_routing::artifact::{MAX_PACKS, PACK_BYTES};
use helix_routing::id::Digest;

use super::content::Places;

/// What lies where, and how large each pack is as a whole.
#[derive(Debug)]
pub struct Packs<'a> {
    /// Where the release's contents lie.
    pub places: &'a Places,
    /// Packs in use, with their size in bytes. Blobs of one file are not packs and are not here.
    pub sizes: &'a BTreeMap<Digest, u64>,
}

/// Groups of contents to be packed anew, each at most [`PACK_BYTES`]; none when the release is in order as it is.
#[must_use]
pub fn regroup(packs: &Packs<'_>) -> Vec<Vec<Digest>> {
    let live = live_bytes(packs);
    let total: u64 = packs.sizes.values().sum();
    let in_use: u64 = live.values().sum();
    let worn = live.len() > MAX_PACKS || in_use.saturating_mul(2) < total;
    if !worn {
        return Vec::new();
    }
    let merged: BTreeSet<&Digest> = live
        .iter()
        .filter(|(pack, live)| **live < PACK_BYTES / 2 || **live * 2 < packs.sizes[**pack])
        .map(|(pack, _)| *pack)
        .collect();
    let sparse = merged
        .iter()
        .any(|pack| live[*pack] * 2 < packs.sizes[*pack]);
    // One small full pack cannot be merged with anything.
    if merged.len() < 2 && !sparse {
        return Vec::new();
    }
    group(packs, &merged)
}

fn live_bytes<'a>(packs: &Packs<'a>) -> BTreeMap<&'a Digest, u64> {
    let mut live = BTreeMap::new();
    for place in packs.places.values() {
        if let Some((pack, _)) = packs.sizes.get_key_value(&place.pack) {
            *live.entry(pack).or_default() += place.length;
        }
    }
    live
}

/// In order of where they lie now, so that files uploaded together stay together.
fn group(packs: &Packs<'_>, merged: &BTreeSet<&Digest>) -> Vec<Vec<Digest>> {
    let mut moved: Vec<_> = packs
        .places
        .iter()
        .filter(|(_, place)| merged.contains(&place.pack))
        .collect();
    moved.sort_by_key(|(_, place)| (&place.pack, place.offset));
    let mut groups: Vec<Vec<Digest>> = Vec::new();
    let mut filled = PACK_BYTES;
    for (digest, place) in moved {
        if filled + place.length > PACK_BYTES || groups.is_empty() {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += place.length;
        groups
            .last_mut()
            .expect("pushed above")
            .push(digest.clone());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::super::content::Place;
    use super::*;
    use helix_routing::artifact::Encoding;
    use helix_service::digest::sha256;

    /// One content of `live` bytes in each of the given packs.
    fn release(packs: &[(u64, u64)]) -> (Places, BTreeMap<Digest, u64>) {
        let mut places = Places::new();
        let mut sizes = BTreeMap::new();
        for (n, (size, live)) in packs.iter().enumerate() {
            let pack = sha256(format!("pack {n}").as_bytes());
            let place = Place {
                size: *live,
                pack: pack.clone(),
                offset: 0,
                length: *live,
                encoding: Encoding::Identity,
                encoded: None,
                seen: helix_routing::time::Timestamp::from_millis(0),
            };
            places.insert(sha256(format!("content {n}").as_bytes()), place);
            sizes.insert(pack, *size);
        }
        (places, sizes)
    }

    fn regrouped(packs: &[(u64, u64)]) -> Vec<Vec<Digest>> {
        let (places, sizes) = release(packs);
        regroup(&Packs {
            places: &places,
            sizes: &sizes,
        })
    }

    #[test]
    fn few_packs_that_are_mostly_live_stay() {
        assert!(regrouped(&[]).is_empty());
        assert!(regrouped(&[(0, 0)]).is_empty());
        assert!(regrouped(&[(1000, 600), (1000, 500)]).is_empty());
        assert!(regrouped(&[(PACK_BYTES, PACK_BYTES); MAX_PACKS]).is_empty());
    }

    #[test]
    fn a_release_spread_over_too_many_packs_is_merged_into_one() {
        let groups = regrouped(&[(100, 100); MAX_PACKS + 1]);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].len(), MAX_PACKS + 1);
    }

    #[test]
    fn mostly_dead_packs_are_packed_anew() {
        let groups = regrouped(&[(1000, 100)]);
        assert_eq!(groups.len(), 1);
    }

    #[test]
    fn large_full_packs_are_left_alone() {
        let mut packs = vec![(PACK_BYTES, PACK_BYTES); 4];
        packs.extend([(50, 50); MAX_PACKS]);
        let groups = regrouped(&packs);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].len(), MAX_PACKS);
    }

    #[test]
    fn groups_are_no_larger_than_a_pack() {
        let groups = regrouped(&[(PACK_BYTES, PACK_BYTES / 3); 9]);
        assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), 9);
        assert!(groups.iter().all(|group| group.len() <= 3));
    }
}
