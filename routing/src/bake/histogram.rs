//! How long requests took, in buckets that are the same everywhere, so that those of many edges can be added up.
//!
//! Log-linear: below 16 units each unit has its bucket, above that each doubling has 16. A quantile is told by the upper
//! bound of its bucket, which is at most a sixteenth, or one unit, above what it really was.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// What is told apart at least, in microseconds.
const UNIT_MICROS: u64 = 64;
/// Buckets of each doubling, as a power of two.
const SUB_BITS: u32 = 4;
const SUB: usize = 1 << SUB_BITS;
/// Doublings above the first buckets.
const OCTAVES: usize = 16;
/// How many buckets there are. The last holds everything from 65 seconds on.
pub const BUCKETS: usize = SUB + OCTAVES * SUB;

/// Times of requests, by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Histogram {
    /// Buckets that hold something, in order.
    counts: Vec<(u16, u64)>,
}

/// The counts are no histogram.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the buckets of a histogram rise, lie below {BUCKETS} and hold something")]
pub struct InvalidHistogram;

/// The bucket of a time, in microseconds.
#[must_use]
#[inline]
pub const fn bucket(micros: u64) -> usize {
    let units = micros / UNIT_MICROS;
    if units < SUB as u64 {
        return units as usize;
    }
    let octave = 63 - units.leading_zeros() - SUB_BITS;
    if octave as usize >= OCTAVES {
        return BUCKETS - 1;
    }
    let sub = (units >> octave) as usize & (SUB - 1);
    SUB + octave as usize * SUB + sub
}

/// The end of a bucket, in microseconds.
const fn upper_micros(bucket: usize) -> u64 {
    if bucket < SUB {
        return (bucket as u64 + 1) * UNIT_MICROS;
    }
    let (octave, sub) = ((bucket - SUB) / SUB, (bucket - SUB) % SUB);
    ((SUB + sub + 1) as u64 * UNIT_MICROS) << octave
}

impl Histogram {
    /// Of counts by bucket, as a core keeps them. What lies beyond the last bucket is left out.
    #[must_use]
    pub fn from_counts(counts: impl IntoIterator<Item = u64>) -> Self {
        let counts = (0_u16..).zip(counts).take(BUCKETS);
        Self {
            counts: counts.filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Counts one request.
    pub fn add(&mut self, micros: u64) {
        let bucket = u16::try_from(bucket(micros)).unwrap_or(u16::MAX);
        match self.counts.binary_search_by_key(&bucket, |(at, _)| *at) {
            Ok(found) => self.counts[found].1 = self.counts[found].1.saturating_add(1),
            Err(place) => self.counts.insert(place, (bucket, 1)),
        }
    }

    /// How many requests it holds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Both together.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        self.combined(other, u64::saturating_add)
    }

    /// What came since `earlier`, which counted the same and is part of this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.combined(earlier, u64::saturating_sub)
    }

    fn combined(&self, other: &Self, with: fn(u64, u64) -> u64) -> Self {
        let (mut left, mut right) = (
            self.counts.iter().copied().peekable(),
            other.counts.iter().copied().peekable(),
        );
        let mut counts = Vec::with_capacity(self.counts.len().max(other.counts.len()));
        loop {
            let bucket = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some((at, _)), None) | (None, Some((at, _))) => *at,
                (Some((a, _)), Some((b, _))) => *a.min(b),
            };
            let a = left.next_if(|(at, _)| *at == bucket);
            let b = right.next_if(|(at, _)| *at == bucket);
            let count = with(
                a.map_or(0, |(_, count)| count),
                b.map_or(0, |(_, count)| count),
            );
            if count > 0 {
                counts.push((bucket, count));
            }
        }
        Self { counts }
    }

    /// The time that so many of a thousand requests did not exceed, in microseconds: the end of its bucket. None of none.
    #[must_use]
    pub fn quantile(&self, per_mille: u16) -> Option<u64> {
        let total = u128::from(self.total());
        if total == 0 {
            return None;
        }
        let rank = (total * u128::from(per_mille.min(1000)))
            .div_ceil(1000)
            .max(1);
        let mut seen = 0_u128;
        for (bucket, count) in &self.counts {
            seen += u128::from(*count);
            if seen >= rank {
                return Some(upper_micros(usize::from(*bucket)));
            }
        }
        None
    }
}

impl TryFrom<Vec<(u16, u64)>> for Histogram {
    type Error = InvalidHistogram;

    fn try_from(counts: Vec<(u16, u64)>) -> Result<Self, InvalidHistogram> {
        let rises = counts.is_sorted_by(|(a, _), (b, _)| a < b);
        let is_sound = |(bucket, count): &(u16, u64)| usize::from(*bucket) < BUCKETS && *count > 0;
        if rises && counts.iter().all(is_sound) {
            Ok(Self { counts })
        } else {
            Err(InvalidHistogram)
        }
    }
}

impl From<Histogram> for Vec<(u16, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(times: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        times.iter().for_each(|micros| histogram.add(*micros));
        histogram
    }

    fn times() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(
            prop_oneof![0_u64..2_000, 0_u64..70_000_000, any::<u64>()],
            0..60,
        )
    }

    #[test]
    fn buckets_follow_on_one_another() {
        let mut last = 0;
        for micros in 0..200_000_u64 {
            let now = bucket(micros);
            assert!(now == last || now == last + 1, "{micros}: {last} to {now}");
            assert!(micros < upper_micros(now), "{micros}");
            last = now;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(upper_micros(BUCKETS - 1) - 1), BUCKETS - 1);
        assert_eq!(upper_micros(BUCKETS - 1), 1 << 26);
    }

    #[test]
    fn of_nothing_there_is_no_quantile() {
        assert_eq!(Histogram::default().quantile(990), None);
        assert_eq!(of(&[100]).quantile(0), Some(128));
        assert_eq!(of(&[100]).quantile(1000), Some(128));
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        for text in ["[[1,0]]", "[[2,1],[1,1]]", "[[1,1],[1,1]]", "[[272,1]]"] {
            assert!(serde_json::from_str::<Histogram>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Histogram>("[[0,1],[271,2]]").is_ok());
    }

    proptest! {
        #[test]
        fn merging_is_associative_and_commutative(a in times(), b in times(), c in times()) {
            let (a, b, c) = (of(&a), of(&b), of(&c));
            prop_assert_eq!(a.merged(&b), b.merged(&a));
            prop_assert_eq!(a.merged(&b).merged(&c), a.merged(&b.merged(&c)));
            prop_assert_eq!(&a.merged(&Histogram::default()), &a);
            prop_assert_eq!(a.merged(&b).since(&b), a);
        }

        #[test]
        fn merging_is_counting_together(a in times(), b in times()) {
            let both: Vec<u64> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(of(&a).merged(&of(&b)), of(&both));
        }

        #[test]
        fn a_quantile_is_at_most_a_sixteenth_or_a_unit_too_high(
            mut times in prop::collection::vec(0_u64..60_000_000, 1..200), per_mille in 1_u16..=1000,
        ) {
            let told = of(&times).quantile(per_mille).unwrap();
            times.sort_unstable();
            let rank = (times.len() * usize::from(per_mille)).div_ceil(1000).max(1);
            let real = times[rank - 1];
            prop_assert!(told > real, "{} for {}", told, real);
            prop_assert!(told - real <= (real / 16).max(UNIT_MICROS), "{} for {}", told, real);
        }

        #[test]
        fn it_is_written_and_read_alike(a in times()) {
            let a = of(&a);
            let json = serde_json::to_string(&a).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Histogram>(&json).unwrap(), &a);
            let bytes = postcard::to_allocvec(&a).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Histogram>(&bytes).unwrap(), a);
        }
    }
}
