//! What time it is, as text: asked of the system once a second, and written once a second.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::text::{low, pair};

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// The second that is now.
#[derive(Debug)]
pub(super) struct Wall {
    /// When this second began and ends.
    from: Instant,
    until: Instant,
    /// `2026-11-27T23:29:17`
    rfc3339: [u8; 19],
    /// `27/Nov/2026:23:29:17`
    combined: [u8; 20],
}

impl Wall {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let mut wall = Self {
            from: now,
            until: now,
            rfc3339: *b"0000-00-00T00:00:00",
            combined: *b"00/Jan/0000:00:00:00",
        };
        wall.turn(now);
        wall
    }

    /// Brings it to `now`.
    pub(super) fn turn(&mut self, now: Instant) {
        if now < self.until {
            return;
        }
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let into = Duration::from_nanos(since.subsec_nanos().into());
        self.from = now.checked_sub(into).unwrap_or(now);
        self.until = now + Duration::from_secs(1).saturating_sub(into);
        self.write(since.as_secs());
    }

    /// A moment of this second, in UTC to the millisecond (RFC 3339).
    pub(super) fn rfc3339(&self, out: &mut Vec<u8>, at: Instant) {
        let into = at.saturating_duration_since(self.from).as_millis();
        let millis = u64::try_from(into).unwrap_or(u64::MAX).min(999);
        let mut end = *b".000Z";
        end[1] = b'0' + low(millis / 100);
        end[2..4].copy_from_slice(pair(millis));
        out.extend_from_slice(&self.rfc3339);
        out.extend_from_slice(&end);
    }

    /// This second as in combined logs, without brackets.
    pub(super) fn combined(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.combined);
        out.extend_from_slice(b" +0000");
    }

    fn write(&mut self, second: u64) {
        let (year, month, day) = date(second / 86_400);
        let time = second % 86_400;
        let mut hms = *b"00:00:00";
        hms[0..2].copy_from_slice(pair(time / 3600));
        hms[3..5].copy_from_slice(pair(time / 60 % 60));
        hms[6..8].copy_from_slice(pair(time % 60));
        self.rfc3339[0..2].copy_from_slice(pair(year / 100));
        self.rfc3339[2..4].copy_from_slice(pair(year));
        self.rfc3339[5..7].copy_from_slice(pair(month));
        self.rfc3339[8..10].copy_from_slice(pair(day));
        self.rfc3339[11..19].copy_from_slice(&hms);
        self.combined[0..2].copy_from_slice(pair(day));
        self.combined[3..6].copy_from_slice(MONTHS[usize::from(low(month - 1)) % 12]);
        self.combined[7..9].copy_from_slice(pair(year / 100));
        self.combined[9..11].copy_from_slice(pair(year));
        self.combined[12..20].copy_from_slice(&hms);
    }
}

/// Year, month and day so many days after 1 January 1970. Years are counted from March, so that the day that only
/// some of them have is the last; 400 of them have 146,097 days.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn dates_are_those_of_the_calendar(second in 0u64..253_402_300_800) {
            let mut wall = Wall::new();
            wall.write(second);
            // Wed, 21 Oct 2015 07:28:00 GMT
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            let (day, month, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
            prop_assert_eq!(written(|out| wall.combined(out)), format!("{day}/{month}/{year}:{time} +0000"));
            let number = MONTHS.iter().position(|name| *name == month.as_bytes()).unwrap() + 1;
            let expected = format!("{year}-{number:02}-{day}T{time}.000Z");
            prop_assert_eq!(written(|out| wall.rfc3339(out, wall.from)), expected);
        }
    }

    #[test]
    fn a_moment_is_told_to_the_millisecond_within_its_second() {
        let wall = Wall::new();
        for (millis, end) in [(0, ".000Z"), (7, ".007Z"), (999, ".999Z"), (1500, ".999Z")] {
            let at = wall.from + Duration::from_millis(millis);
            let told = written(|out| wall.rfc3339(out, at));
            assert!(told.ends_with(end), "{told}");
        }
    }

    #[test]
    fn the_second_is_that_of_the_system() {
        let seconds = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.unwrap().as_secs()
        };
        let before = seconds();
        let mut wall = Wall::new();
        let now = Instant::now();
        wall.turn(now);
        let told = written(|out| wall.rfc3339(out, now));
        let expected = |second| {
            wall.write(second);
            written(|out| wall.combined(out))
        };
        let told_second = &told[11..19];
        let possible: Vec<String> = (before..=seconds()).map(expected).collect();
        assert!(
            possible
                .iter()
                .any(|combined| combined.contains(told_second)),
            "{told} is none of {possible:?}"
        );
    }
}
