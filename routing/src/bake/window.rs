//! What was counted of one release in one region.

use serde::{Deserialize, Serialize};

use super::Histogram;

/// Requests of one release: how many, how many of them the server's fault, and how long they took.
///
/// Counts only ever rise while an edge runs, so of two windows of one edge the one with more requests is the newer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Counts", into = "Counts")]
pub struct Window {
    requests: u64,
    errors: u64,
    latency: Histogram,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Counts {
    requests: u64,
    errors: u64,
    latency: Histogram,
}

/// The counts contradict one another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a window has more errors or times than requests")]
pub struct InvalidWindow;

impl Window {
    /// Of so many requests, of which so many were answered with 5xx. Tunnels have no time in `latency`. What is more than
    /// the requests, since cores went on counting while they were read, is cut.
    #[must_use]
    pub fn new(requests: u64, errors: u64, latency: Histogram) -> Self {
        let requests = requests.max(latency.total());
        Self {
            requests,
            errors: errors.min(requests),
            latency,
        }
    }

    /// Counts one request that took so many microseconds.
    pub fn add(&mut self, is_error: bool, micros: u64) {
        self.requests = self.requests.saturating_add(1);
        self.errors = self.errors.saturating_add(u64::from(is_error));
        self.latency.add(micros);
    }

    /// Requests.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Those that were answered with 5xx.
    #[must_use]
    pub const fn errors(&self) -> u64 {
        self.errors
    }

    /// How long they took.
    #[must_use]
    pub const fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Both together.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            errors: self.errors.saturating_add(other.errors),
            latency: self.latency.merged(&other.latency),
        }
    }

    /// What came since `earlier`, which counted the same and is part of this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self::new(
            self.requests.saturating_sub(earlier.requests),
            self.errors.saturating_sub(earlier.errors),
            self.latency.since(&earlier.latency),
        )
    }

    /// Share of errors, in millionths; none of none.
    #[must_use]
    pub fn error_millionths(&self) -> Option<u64> {
        let millionths =
            (u128::from(self.errors) * 1_000_000).checked_div(u128::from(self.requests))?;
        u64::try_from(millionths).ok()
    }
}

impl TryFrom<Counts> for Window {
    type Error = InvalidWindow;

    fn try_from(counts: Counts) -> Result<Self, InvalidWindow> {
        let Counts {
            requests,
            errors,
            latency,
        } = counts;
        if errors > requests || latency.total() > requests {
            return Err(InvalidWindow);
        }
        Ok(Self {
            requests,
            errors,
            latency,
        })
    }
}

impl From<Window> for Counts {
    fn from(window: Window) -> Self {
        Self {
            requests: window.requests,
            errors: window.errors,
            latency: window.latency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(requests: &[(bool, u64)]) -> Window {
        let mut window = Window::default();
        for (is_error, micros) in requests {
            window.add(*is_error, *micros);
        }
        window
    }

    fn requests() -> impl Strategy<Value = Vec<(bool, u64)>> {
        prop::collection::vec((any::<bool>(), 0_u64..80_000_000), 0..40)
    }

    #[test]
    fn a_window_that_contradicts_itself_is_refused() {
        for text in [
            r#"{"requests":1,"errors":2,"latency":[]}"#,
            r#"{"requests":1,"errors":0,"latency":[[3,2]]}"#,
        ] {
            assert!(serde_json::from_str::<Window>(text).is_err(), "{text}");
        }
        let tunnels = r#"{"requests":3,"errors":1,"latency":[[3,2]]}"#;
        assert!(serde_json::from_str::<Window>(tunnels).is_ok());
    }

    proptest! {
        #[test]
        fn merging_is_associative_commutative_and_undone_by_since(
            a in requests(), b in requests(), c in requests(),
        ) {
            let (a, b, c) = (of(&a), of(&b), of(&c));
            prop_assert_eq!(a.merged(&b), b.merged(&a));
            prop_assert_eq!(a.merged(&b).merged(&c), a.merged(&b.merged(&c)));
            prop_assert_eq!(a.merged(&b).since(&b), a);
        }
    }
}
