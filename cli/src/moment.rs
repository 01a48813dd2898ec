//! Moments as people write and read them, in UTC. *Pure*.

use std::time::Duration;

use helix_routing::time::Timestamp;

/// From when on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

impl Since {
    /// The moment it means at `now`.
    pub(crate) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(ago) => now - ago,
            Self::At(at) => at,
        }
    }
}

/// A moment in UTC, `2026-01-31 09:05:00`.
pub(crate) fn write(at: Timestamp) -> String {
    let [year, month, day, hour, minute, second] = at.calendar();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Reads `2026-01-31`, `2026-01-31T09:05:00Z`, and the same with a space, without seconds or with parts of one; none when it is neither.
pub(crate) fn read(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text
        .split_once(['T', 't', ' '])
        .unwrap_or((text, "00:00:00"));
    let [year, month, day] = numbers(date, '-')?;
    let (time, _parts) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] =
        numbers(time, ':').or_else(|| numbers(&format!("{time}:00"), ':'))?;
    let days = days(year, month, day)?;
    let is_time = hour < 24 && minute < 60 && second < 60;
    is_time.then(|| {
        Timestamp::from_millis((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000)
    })
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let mut parts = text.split(between).map(|part| {
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|_| is_number)
    });
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

/// Days since 1970-01-01, if there is such a date.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let days = (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year)
        .checked_sub(719_468)?;
    let back = Timestamp::from_millis(days * 86_400_000).calendar();
    (back[..3] == [year, month, day]).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_799, "2000-02-29 23:59:59"),
            (1_769_850_300, "2026-01-31 09:05:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(write(Timestamp::from_millis(seconds * 1000)), text);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (text, millis) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400_000),
            ("2026-01-31T09:05:00Z", 1_769_850_300_000),
            ("2026-01-31 09:05:00", 1_769_850_300_000),
            ("2026-01-31 09:05", 1_769_850_300_000),
            ("2026-01-31T09:05:00.750Z", 1_769_850_300_000),
        ] {
            assert_eq!(read(text), Some(Timestamp::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "2026",
            "2026-02-30",
            "2026-13-01",
            "1969-12-31",
            "2026-01-31T24:00:00",
            "2026-01-31T9",
            "x-1-1",
            "+2026-1-1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
