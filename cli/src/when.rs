//! Times as people type them: RFC 3339 in UTC or with an offset, or so long from now (`+2h`). *Pure*, but for `now`.

use std::str::FromStr;
use std::time::Duration;

use helix_routing::routes::Span;
use helix_routing::time::Timestamp;

use crate::moment;

/// A moment, or a while from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// This moment.
    At(Timestamp),
    /// So much later than now.
    In(Span),
}

/// The text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time: write it as 2026-11-28T18:00:00Z, 2026-11-28T19:00+01:00, or +2h for a while from now"
)]
pub(crate) struct InvalidWhen(String);

impl When {
    /// The moment, as seen from `now`.
    pub(crate) fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::In(span) => now + span.duration(),
        }
    }
}

impl FromStr for When {
    type Err = InvalidWhen;

    fn from_str(text: &str) -> Result<Self, InvalidWhen> {
        let refused = || InvalidWhen(text.chars().take(40).collect());
        if let Some(span) = text.strip_prefix('+') {
            return Ok(Self::In(span.parse().map_err(|_| refused())?));
        }
        zoned(text).map(Self::At).ok_or_else(refused)
    }
}

/// A moment whose zone is said: what is planned by one clock must not happen by another.
fn zoned(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let cut = date.len() + 1 + time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = text.split_at(cut);
    let read = moment::read(clock)?;
    if matches!(zone, "Z" | "z") {
        return Some(read);
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    let offset = Duration::from_secs((hours * 60 + minutes) * 60);
    let is_east = zone.starts_with('+');
    (hours < 24 && minutes < 60).then(|| {
        if is_east {
            read - offset
        } else {
            read + offset
        }
    })
}

fn two_digits(text: &str) -> Option<u64> {
    let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_utc_and_with_an_offset() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-28T18:00:00Z", 1_795_888_800),
            ("2026-11-28T18:00Z", 1_795_888_800),
            ("2026-11-28 19:00:00.500+01:00", 1_795_888_800),
            ("2026-11-28T12:30:00-05:30", 1_795_888_800),
        ] {
            let at = When::At(Timestamp::from_millis(seconds * 1000));
            assert_eq!(text.parse(), Ok(at), "{text}");
        }
        let now = Timestamp::from_millis(1000);
        let later: When = "+2m".parse().unwrap();
        assert_eq!(later.from(now), Timestamp::from_millis(121_000));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "tomorrow",
            "18:00",
            "2026-11-28",
            "2026-11-28T18:00:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T18:60Z",
            "1969-12-31T23:59:59Z",
            "+2",
            "+2d",
            "2026-11-28T18:00+1",
        ] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }
}
