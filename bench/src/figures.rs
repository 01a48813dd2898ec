//! Pure. Figures from samples.

use std::fmt;
use std::time::Duration;

/// A distribution of spans.
#[derive(Debug)]
pub(crate) struct Figures {
    sorted: Vec<Duration>,
}

impl Figures {
    pub(crate) fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort();
        Self { sorted: samples }
    }

    /// The smallest sample that at least this share of all samples does not exceed (nearest rank).
    pub(crate) fn quantile(&self, per_thousand: usize) -> Duration {
        let rank = (self.sorted.len() * per_thousand).div_ceil(1_000).max(1);
        self.sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// As what it shows, in microseconds, and with one in a thousand: for what takes less than a millisecond.
    pub(crate) fn fine(&self) -> String {
        let micros = |per_thousand| self.quantile(per_thousand).as_secs_f64() * 1e6;
        format!(
            "n {}  p50 {:.0} µs  p99 {:.0} µs  p99.9 {:.0} µs  max {:.0} µs",
            self.sorted.len(),
            micros(500),
            micros(990),
            micros(999),
            micros(1_000)
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |per_thousand| self.quantile(per_thousand).as_secs_f64() * 1_000.0;
        write!(
            f,
            "n {}  p50 {:.1} ms  p90 {:.1} ms  p99 {:.1} ms  max {:.1} ms",
            self.sorted.len(),
            millis(500),
            millis(900),
            millis(990),
            millis(1_000)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        let figures = Figures::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(figures.quantile(500), Duration::from_millis(50));
        assert_eq!(figures.quantile(990), Duration::from_millis(99));
        assert_eq!(figures.quantile(1_000), Duration::from_millis(100));
        assert_eq!(Figures::of(Vec::new()).quantile(990), Duration::ZERO);
    }
}
