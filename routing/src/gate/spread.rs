//! Pure. By how much a gate's probes are moved from the times that its timing names.
//!
//! All edges get a record within the same milliseconds. Asked exactly when the timing says, an upstream would hear from all of
//! them at once, and again at once in each interval. The dice are the caller's: one seed for each run of a gate.
//!
//! Invariant: answers that are all good pass a gate by its deadline, if they would without this. What of the deadline is
//! not needed for them is the most that probes are late by.

use core::time::Duration;

use super::Timing;

/// The part of an interval within which the first probe comes.
const FIRST_PART: u64 = 4;
/// The first probe is not later than this, however long the interval: a deployment waits for it.
const FIRST_MOST: u64 = 1000;
/// The part of an interval by which the next probe is earlier or later.
const BETWEEN_PART: u64 = 10;

/// How probes are moved, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Where the dice are.
    dice: u64,
    /// The first probe is late by at most this.
    first: u64,
    /// The others are early or late by at most this.
    between: u64,
}

impl Spread {
    /// None at all: what is asked does not leave the edge.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            dice: 0,
            first: 0,
            between: 0,
        }
    }

    /// What the deadline of `timing` has room for, with dice that begin with `seed`.
    #[must_use]
    pub fn of(timing: &Timing, seed: u64) -> Self {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let interval = millis(timing.interval.duration());
        let gaps = u64::from(timing.rise.saturating_sub(1));
        let needed = interval
            .saturating_mul(gaps)
            .saturating_add(millis(timing.timeout.duration()));
        // Half of it for the first probe, half for those after it.
        let room = millis(timing.deadline.duration()).saturating_sub(needed) / 2;
        Self {
            dice: seed,
            first: (interval / FIRST_PART).min(FIRST_MOST).min(room),
            between: (interval / BETWEEN_PART).min(room / gaps.max(1)),
        }
    }

    /// The same with the first probe at once: nobody should wait for it.
    #[must_use]
    pub const fn at_once(self) -> Self {
        Self { first: 0, ..self }
    }

    /// How late the first probe is.
    pub(super) fn first(&mut self) -> Duration {
        Duration::from_millis(self.roll(self.first))
    }

    /// How long after one probe the next one starts, where `interval` is what the timing says.
    pub(super) fn next(&mut self, interval: Duration) -> Duration {
        let later = Duration::from_millis(self.roll(self.between * 2));
        (interval + later).saturating_sub(Duration::from_millis(self.between))
    }

    /// From 0 to `most`, by SplitMix64.
    const fn roll(&mut self, most: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // `most` is at most some seconds, so no number is favoured by more than one in 2^50.
        mixed % (most + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Span;

    fn timing(interval: u64, rise: u32, deadline: u64) -> Timing {
        Timing {
            interval: Span::from_millis(interval),
            timeout: Span::from_millis(2000),
            rise,
            fall: None,
            initial_delay: Span::from_millis(0),
            deadline: Span::from_millis(deadline),
        }
    }

    #[test]
    fn probes_move_as_far_as_the_deadline_has_room_for() {
        for (interval, rise, deadline, (first, between)) in [
            (1000, 3, 20_000, (250, 100)),
            (1000, 1, 10_000, (250, 100)),
            (100, 3, 20_000, (25, 10)),
            (60_000, 3, 600_000, (1000, 6000)),
            // 1 s is left, of which the two steps between three probes get a quarter each.
            (10_000, 3, 23_000, (500, 250)),
            (1000, 3, 4000, (0, 0)),
            (1000, 3, 2500, (0, 0)),
        ] {
            let spread = Spread::of(&timing(interval, rise, deadline), 1);
            assert_eq!(
                (spread.first, spread.between),
                (first, between),
                "{interval} {rise} {deadline}"
            );
            assert_eq!(
                (spread.at_once().first, spread.at_once().between),
                (0, between)
            );
        }
    }

    #[test]
    fn the_dice_reach_everything_and_nothing_else() {
        let (mut firsts, mut nexts) = ([0_u32; 251], [0_u32; 201]);
        for seed in 0..5000 {
            let mut spread = Spread::of(&timing(1000, 3, 20_000), seed);
            firsts[usize::try_from(spread.first().as_millis()).unwrap()] += 1;
            let next = spread.next(Duration::from_secs(1)).as_millis();
            nexts[usize::try_from(next - 900).unwrap()] += 1;
        }
        assert!(firsts.iter().chain(&nexts).all(|count| *count > 0));
        assert!(firsts.iter().chain(&nexts).all(|count| *count < 100));
        let mut none = Spread::none();
        assert_eq!(none.first(), Duration::ZERO);
        assert_eq!(none.next(Duration::from_secs(1)), Duration::from_secs(1));
    }
}
