//! Times as people type them: RFC 3339 in UTC or with an offset, or so long from now (`+2h`). *Pure*, but for `now`.

use std::str::FromStr;

use helix_routing::routes::Span;
use helix_routing::time::Timestamp;

const DAY: i64 = 86_400;

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
        moment(text).map(Self::At).ok_or_else(refused)
    }
}

fn moment(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let cut = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(cut);
    let (clock, _fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(digits);
    let (hour, minute, second) = (
        clock.next()??,
        clock.next()??,
        clock.next().unwrap_or(Some(0))?,
    );
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let offset = digits(hours)? * 60 + digits(minutes)?;
            if zone.starts_with('-') {
                -offset
            } else {
                offset
            }
        }
    };
    let is_legal = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && offset.abs() < 24 * 60;
    if !is_legal {
        return None;
    }
    let seconds = days(year, month, day) * DAY + (hour * 60 + minute - offset) * 60 + second;
    let millis = u64::try_from(seconds).ok()?.checked_mul(1000)?;
    Some(Timestamp::from_millis(millis))
}

fn digits(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the Unix epoch to a date after it.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(before) - leaps(1969);
    let months: i64 = (1..month).map(|month| days_in(year, month)).sum();
    years + months + day - 1
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
