//! Versions and ranges as npm writes them, as far as projects name Node and package managers by them.
//!
//! *Pure*. A range is a list of half-open intervals; every way of writing one comes to that. Versions with a tag behind `-`
//! are none that anybody asks for here, and are not read.

use core::fmt;
use core::str::FromStr;

/// Three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// What breaks.
    pub major: u64,
    /// What is new.
    pub minor: u64,
    /// What is mended.
    pub patch: u64,
}

/// Which versions will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range(Vec<Interval>);

/// From the first on, and below the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    from: Version,
    below: Version,
}

/// The text is no version, or no range of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version or range of versions")]
pub struct VersionError(pub String);

const LOWEST: Version = Version::new(0, 0, 0);
const HIGHEST: Version = Version::new(u64::MAX, 0, 0);

impl Version {
    /// Of its numbers.
    #[must_use]
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        match Partial::read(text) {
            Some(Partial(Some(major), Some(minor), Some(patch))) => {
                Ok(Self::new(major, minor, patch))
            }
            _ => Err(VersionError(text.to_owned())),
        }
    }
}

impl Range {
    /// Every version of one major.
    #[must_use]
    pub fn major(major: u64) -> Self {
        Self(vec![Partial(Some(major), None, None).interval()])
    }

    /// Every version.
    #[must_use]
    pub fn any() -> Self {
        Self(vec![Interval {
            from: LOWEST,
            below: HIGHEST,
        }])
    }

    /// That version alone.
    #[must_use]
    pub fn exactly(version: Version) -> Self {
        let below = Version::new(
            version.major,
            version.minor,
            version.patch.saturating_add(1),
        );
        Self(vec![Interval {
            from: version,
            below,
        }])
    }

    /// What of it is of one major.
    #[must_use]
    pub fn within(&self, major: u64) -> Self {
        let all = Partial(Some(major), None, None).interval();
        let cut = self.0.iter().map(|interval| Interval {
            from: interval.from.max(all.from),
            below: interval.below.min(all.below),
        });
        Self(
            cut.filter(|interval| interval.from < interval.below)
                .collect(),
        )
    }

    /// Whether `version` will do.
    #[must_use]
    pub fn holds(&self, version: Version) -> bool {
        self.0
            .iter()
            .any(|interval| interval.from <= version && version < interval.below)
    }

    /// Whether some version of `major` will do.
    #[must_use]
    pub fn touches(&self, major: u64) -> bool {
        let all = Partial(Some(major), None, None).interval();
        self.0
            .iter()
            .any(|interval| interval.from < all.below && all.from < interval.below)
    }
}

impl FromStr for Range {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let refused = || VersionError(text.to_owned());
        let intervals: Option<Vec<Interval>> = text.split("||").map(alternative).collect();
        // An alternative that nothing fulfils is no help to anybody.
        let intervals: Vec<Interval> = intervals
            .ok_or_else(refused)?
            .into_iter()
            .filter(|interval| interval.from < interval.below)
            .collect();
        if intervals.is_empty() {
            return Err(refused());
        }
        Ok(Self(intervals))
    }
}

/// A version of which the end may be left out.
struct Partial(Option<u64>, Option<u64>, Option<u64>);

impl Partial {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix(['v', '=', 'V']).unwrap_or(text);
        // What is built from the same source is the same version.
        let text = text.split('+').next()?.split('-').next()?;
        let mut parts = text.split('.');
        let mut part = || match parts.next() {
            None | Some("x" | "X" | "*" | "") => Some(None),
            Some(number) => number.parse().ok().map(Some),
        };
        let read = Self(part()?, part()?, part()?);
        (parts.next().is_none() && (!text.is_empty())).then_some(read)
    }

    fn from(&self) -> Version {
        Version::new(
            self.0.unwrap_or(0),
            self.1.unwrap_or(0),
            self.2.unwrap_or(0),
        )
    }

    /// All that begin with what is there.
    fn interval(&self) -> Interval {
        let from = self.from();
        let below = match (self.0, self.1, self.2) {
            (None, _, _) => HIGHEST,
            (Some(major), None, _) => Version::new(major.saturating_add(1), 0, 0),
            (Some(major), Some(minor), None) => Version::new(major, minor.saturating_add(1), 0),
            (Some(major), Some(minor), Some(patch)) => {
                Version::new(major, minor, patch.saturating_add(1))
            }
        };
        Interval { from, below }
    }

    /// What `^` means: nothing left of the first number that is not zero changes.
    fn caret(&self) -> Interval {
        let from = self.from();
        let below = match (self.0, self.1, self.2) {
            (Some(0), Some(0), Some(patch)) => Version::new(0, 0, patch.saturating_add(1)),
            (Some(0), Some(minor), _) => Version::new(0, minor.saturating_add(1), 0),
            _ => Self(self.0, None, None).interval().below,
        };
        Interval { from, below }
    }

    /// What `~` means: the patch may change, or the minor where there is none.
    fn tilde(&self) -> Interval {
        let below = Self(self.0, self.1, None).interval().below;
        Interval {
            from: self.from(),
            below,
        }
    }
}

/// Everything between two `||`.
fn alternative(text: &str) -> Option<Interval> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Interval {
            from: LOWEST,
            below: HIGHEST,
        });
    }
    if let Some((from, to)) = text.split_once(" - ") {
        return Some(Interval {
            from: Partial::read(from)?.from(),
            below: Partial::read(to)?.interval().below,
        });
    }
    let mut met = Interval {
        from: LOWEST,
        below: HIGHEST,
    };
    for interval in comparators(text) {
        let interval = interval?;
        met.from = met.from.max(interval.from);
        met.below = met.below.min(interval.below);
    }
    Some(met)
}

/// Each comparator, which may have a space behind its sign.
fn comparators(text: &str) -> impl Iterator<Item = Option<Interval>> {
    let mut words = text.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    std::iter::from_fn(move || {
        let word = words.next()?;
        let (sign, version) = sign(word);
        let version = if version.is_empty() {
            words.next().unwrap_or_default()
        } else {
            version
        };
        Some(comparator(sign, version))
    })
}

fn sign(word: &str) -> (&str, &str) {
    let end = word
        .find(|c: char| !matches!(c, '<' | '>' | '=' | '^' | '~'))
        .unwrap_or(word.len());
    word.split_at(end)
}

fn comparator(sign: &str, version: &str) -> Option<Interval> {
    let version = Partial::read(version)?;
    let all = version.interval();
    Some(match sign {
        "" | "=" | "==" => all,
        "^" => version.caret(),
        "~" | "~>" => version.tilde(),
        ">=" => Interval {
            from: all.from,
            below: HIGHEST,
        },
        ">" => Interval {
            from: all.below,
            below: HIGHEST,
        },
        "<" => Interval {
            from: LOWEST,
            below: all.from,
        },
        "<=" => Interval {
            from: LOWEST,
            below: all.below,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_hold_what_npm_says_they_hold() {
        for (text, held, not) in [
            ("20", "20.1.2", "21.0.0"),
            ("v20.11.1", "20.11.1", "20.11.2"),
            ("20.x", "20.9.0", "18.0.0"),
            (">=18", "24.0.0", "17.9.9"),
            (">= 18.17.0 <21", "20.0.0", "21.0.0"),
            ("^18.17.0 || >=20", "20.0.0", "18.16.9"),
            ("^0.2.3", "0.2.9", "0.3.0"),
            ("^0.0.3", "0.0.3", "0.0.4"),
            ("~1.2", "1.2.9", "1.3.0"),
            ("1.2 - 2.3", "2.3.9", "2.4.0"),
            (">1.2", "1.3.0", "1.2.9"),
            ("<=1.2", "1.2.9", "1.3.0"),
            ("*", "99.0.0", ""),
            ("", "1.0.0", ""),
            ("9.1.0+sha512.abc", "9.1.0", "9.1.1"),
        ] {
            assert!(range(text).holds(held.parse().unwrap()), "{text}: {held}");
            if let Ok(not) = not.parse::<Version>() {
                assert!(!range(text).holds(not), "{text}: {not}");
            }
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "latest",
            ">1 <1",
            "1.2.3.4",
            "=>1",
            "workspace:*",
            ">=",
            "v",
        ] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
        assert!("1.2".parse::<Version>().is_err());
    }

    #[test]
    fn a_range_touches_the_majors_of_which_it_holds_one() {
        let wish = range(">=18.17 <20 || 22.x");
        let touched: Vec<u64> = (16..25).filter(|major| wish.touches(*major)).collect();
        assert_eq!(touched, [18, 19, 22]);
    }
}
