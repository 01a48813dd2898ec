//! Shares, factors and numbers as people write them in `helix.toml`: `"1%"`, `"1.25x"`, `0.5`.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// A part of a whole, in millionths: `"1%"`, `"0.05%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share(u32);

/// How many times as much, in thousandths: `"2x"`, `"1.25x"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Times(u32);

/// Any number, as measurements by others have them. Two are the same when they are written alike.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(pub f64);

/// The text is no such quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is {wanted}")]
pub struct InvalidQuantity {
    text: String,
    wanted: &'static str,
}

impl Share {
    /// So many millionths.
    #[must_use]
    pub const fn from_millionths(millionths: u32) -> Self {
        Self(millionths)
    }

    /// In millionths.
    #[must_use]
    pub const fn millionths(self) -> u64 {
        self.0 as u64
    }
}

impl Times {
    /// So many thousandths.
    #[must_use]
    pub const fn from_thousandths(thousandths: u32) -> Self {
        Self(thousandths)
    }

    /// So many times as much as `value`.
    #[must_use]
    pub fn of(self, value: u64) -> u64 {
        u64::try_from(u128::from(value) * u128::from(self.0) / 1000).unwrap_or(u64::MAX)
    }
}

/// A number with so many places behind the point at most, in units of the last of them.
fn fixed(text: &str, places: usize) -> Option<u32> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(rest) || rest.len() > places {
        return None;
    }
    let padded = format!("{whole}{rest:0<places$}");
    padded.parse().ok()
}

fn written(f: &mut fmt::Formatter<'_>, value: u32, places: usize, unit: &str) -> fmt::Result {
    let one = 10_u32.pow(u32::try_from(places).unwrap_or(0));
    let (whole, rest) = (value / one, value % one);
    if rest == 0 {
        return write!(f, "{whole}{unit}");
    }
    let rest = format!("{rest:0places$}");
    write!(f, "{whole}.{}{unit}", rest.trim_end_matches('0'))
}

fn refused(text: &str, wanted: &'static str) -> InvalidQuantity {
    InvalidQuantity {
        text: text.chars().take(40).collect(),
        wanted,
    }
}

impl FromStr for Share {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        text.strip_suffix('%')
            .and_then(|number| fixed(number, 4))
            .filter(|millionths| *millionths <= 1_000_000)
            .map(Self)
            .ok_or_else(|| {
                refused(
                    text,
                    "no share: write a number from 0 to 100 and %, such as \"1%\" or \"0.05%\"",
                )
            })
    }
}

impl FromStr for Times {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        text.strip_suffix('x')
            .and_then(|number| fixed(number, 3))
            .map(Self)
            .ok_or_else(|| {
                refused(
                    text,
                    "no factor: write a number and x, such as \"2x\" or \"1.25x\"",
                )
            })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        written(f, self.0, 4, "%")
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        written(f, self.0, 3, "x")
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Number {}

macro_rules! as_text {
    ($name:ty) => {
        impl TryFrom<String> for $name {
            type Error = InvalidQuantity;

            fn try_from(text: String) -> Result<Self, InvalidQuantity> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(quantity: $name) -> Self {
                format!("{quantity}")
            }
        }
    };
}

as_text!(Share);
as_text!(Times);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn quantities_are_read_as_written_and_written_shortly() {
        for (text, millionths, written) in [
            ("1%", 10_000, "1%"),
            ("0.05%", 500, "0.05%"),
            ("100%", 1_000_000, "100%"),
            ("2.50%", 25_000, "2.5%"),
            ("0%", 0, "0%"),
        ] {
            let share: Share = text.parse().unwrap();
            assert_eq!(
                (share.millionths(), share.to_string().as_str()),
                (millionths, written)
            );
        }
        for (text, of_1000, written) in [
            ("2x", 2000, "2x"),
            ("1.25x", 1250, "1.25x"),
            ("0.5x", 500, "0.5x"),
        ] {
            let times: Times = text.parse().unwrap();
            assert_eq!(
                (times.of(1000), times.to_string().as_str()),
                (of_1000, written)
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", "1", "%", "101%", "-1%", "1.%", ".5%", "1.23456%", "1 %", "１%", "1e2%",
        ] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        for text in ["", "2", "x", "-2x", "1.2345x", "99999999999x"] {
            assert!(text.parse::<Times>().is_err(), "{text}");
        }
    }
}
