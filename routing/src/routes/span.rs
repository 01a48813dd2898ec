//! A length of time as people write it: `500ms`, `2s`, `5m`, `1h`.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);

/// The text is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time: write a whole number and ms, s, m or h, such as \"500ms\" or \"2s\"")]
pub struct InvalidSpan(String);

impl Span {
    /// This many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// This many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// As people say how long something still takes: in seconds for two minutes, then in minutes.
    #[must_use]
    pub const fn roughly(span: Duration) -> Self {
        let seconds = span.as_secs();
        if seconds < 120 {
            Self::from_secs(seconds)
        } else {
            Self::from_secs(seconds.div_ceil(60) * 60)
        }
    }

    /// The same, as clocks want it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Units, largest first, in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let refused = || InvalidSpan(text.chars().take(40).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start_matches(' ');
        let factor = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or_else(refused)?;
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(refused)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(("ms", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl TryFrom<String> for Span {
    type Error = InvalidSpan;

    fn try_from(text: String) -> Result<Self, InvalidSpan> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        format!("{span}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_written_and_written_shortly() {
        for (text, millis, written) in [
            ("500ms", 500, "500ms"),
            ("2s", 2000, "2s"),
            ("2000ms", 2000, "2s"),
            ("90s", 90_000, "90s"),
            ("60 s", 60_000, "1m"),
            ("1h", 3_600_000, "1h"),
            ("0s", 0, "0ms"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, Span::from_millis(millis), "{text}");
            assert_eq!(String::from(span), written);
        }
    }

    #[test]
    fn what_still_takes_long_is_told_in_minutes() {
        for (seconds, told) in [(0, "0ms"), (119, "119s"), (121, "3m"), (3599, "1h")] {
            let roughly = Span::roughly(Duration::from_secs(seconds));
            assert_eq!(String::from(roughly), told, "{seconds}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "2",
            "s",
            "-1s",
            "1.5s",
            "2 sec",
            "1d",
            "99999999999999999999h",
            "９s",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
