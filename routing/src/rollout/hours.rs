//! Pure. Times of a week, in UTC: `mon-fri 09:00-17:00`.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES: u64 = 24 * 60;
const MINUTE: u64 = 60_000;
/// The Unix epoch was a Thursday.
const EPOCH_DAY: u64 = 3;

/// A part of some days of each week, in UTC. A range of days may go over the end of the week, one of times not over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    first_day: u8,
    last_day: u8,
    /// Minutes of the day.
    from: u16,
    until: u16,
}

/// The text is no time of a week.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time of a week: write days and UTC times, such as \"mon-fri 09:00-17:00\" or \"sat 00:00-24:00\""
)]
pub struct InvalidHours(String);

impl Hours {
    /// When one of these is first open, from `now` on; `now` itself while one is, and where there are none.
    #[must_use]
    pub fn open_at(hours: &[Self], now: Timestamp) -> Timestamp {
        let today = now.as_millis() / (DAY_MINUTES * MINUTE);
        let opening = |day: u64, hours: &Self| {
            let start = Timestamp::from_millis(day * DAY_MINUTES * MINUTE);
            let minutes = |minutes: u16| Duration::from_millis(u64::from(minutes) * MINUTE);
            let (from, until) = (start + minutes(hours.from), start + minutes(hours.until));
            (hours.has_day(day) && now < until).then(|| from.max(now))
        };
        // The same weekday comes again after seven days.
        let days = today..=today + 7;
        days.flat_map(|day| hours.iter().filter_map(move |hours| opening(day, hours)))
            .min()
            .unwrap_or(now)
    }

    fn has_day(&self, day: u64) -> bool {
        let weekday = u8::try_from((day + EPOCH_DAY) % 7).unwrap_or(0);
        if self.first_day <= self.last_day {
            (self.first_day..=self.last_day).contains(&weekday)
        } else {
            weekday >= self.first_day || weekday <= self.last_day
        }
    }
}

impl FromStr for Hours {
    type Err = InvalidHours;

    fn from_str(text: &str) -> Result<Self, InvalidHours> {
        let refused = || InvalidHours(text.chars().take(40).collect());
        let read = || {
            let (days, times) = text.trim().split_once(' ')?;
            let (first, last) = days.split_once('-').unwrap_or((days, days));
            let (from, until) = times.trim().split_once('-')?;
            let read = Self {
                first_day: weekday(first)?,
                last_day: weekday(last)?,
                from: minutes(from)?,
                until: minutes(until)?,
            };
            (read.from < read.until).then_some(read)
        };
        read().ok_or_else(refused)
    }
}

fn weekday(text: &str) -> Option<u8> {
    let day = DAYS.iter().position(|day| day.eq_ignore_ascii_case(text))?;
    u8::try_from(day).ok()
}

fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let is_number = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let at = hours * 60 + minutes;
    (minutes < 60 && u64::from(at) <= DAY_MINUTES).then_some(at)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |day: u8| DAYS.get(usize::from(day)).copied().unwrap_or("mon");
        f.write_str(day(self.first_day))?;
        if self.last_day != self.first_day {
            write!(f, "-{}", day(self.last_day))?;
        }
        let (from, until) = (self.from, self.until);
        write!(
            f,
            " {:02}:{:02}-{:02}:{:02}",
            from / 60,
            from % 60,
            until / 60,
            until % 60
        )
    }
}

impl TryFrom<String> for Hours {
    type Error = InvalidHours;

    fn try_from(text: String) -> Result<Self, InvalidHours> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Minutes after Monday, the 5th of January 1970, 00:00.
    fn monday(days: u64, hour: u64, minute: u64) -> Timestamp {
        Timestamp::from_millis(((4 + days) * DAY_MINUTES + hour * 60 + minute) * MINUTE)
    }

    #[test]
    fn a_stage_waits_for_the_next_opening() {
        let hours = |texts: &[&str]| -> Vec<Hours> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let work = hours(&["mon-fri 09:00-17:00"]);
        let cases = [
            (monday(0, 8, 0), monday(0, 9, 0)),
            (monday(0, 9, 0), monday(0, 9, 0)),
            (monday(0, 16, 59), monday(0, 16, 59)),
            (monday(0, 17, 0), monday(1, 9, 0)),
            (monday(4, 18, 0), monday(7, 9, 0)),
            (monday(5, 12, 0), monday(7, 9, 0)),
        ];
        for (now, open) in cases {
            assert_eq!(Hours::open_at(&work, now), open, "{now}");
        }
        let over_the_weekend = hours(&["sat-mon 00:00-24:00"]);
        assert_eq!(
            Hours::open_at(&over_the_weekend, monday(0, 3, 0)),
            monday(0, 3, 0)
        );
        assert_eq!(
            Hours::open_at(&over_the_weekend, monday(1, 3, 0)),
            monday(5, 0, 0)
        );
        let once = hours(&["tue 10:00-10:30"]);
        assert_eq!(Hours::open_at(&once, monday(1, 10, 30)), monday(8, 10, 0));
        let two = hours(&["tue 10:00-10:30", "tue 12:00-13:00"]);
        assert_eq!(Hours::open_at(&two, monday(1, 11, 0)), monday(1, 12, 0));
        assert_eq!(Hours::open_at(&[], monday(1, 1, 1)), monday(1, 1, 1));
    }

    #[test]
    fn only_times_of_a_week_are_read() {
        for text in [
            "mon-fri 09:00-17:00",
            "sun 00:00-24:00",
            "sat-mon 06:30-07:00",
        ] {
            assert_eq!(text.parse::<Hours>().unwrap().to_string(), text);
        }
        assert!("Mon-FRI 09:00-17:00".parse::<Hours>().is_ok());
        for text in [
            "",
            "mon",
            "mon 9:00-17:00",
            "mon 17:00-09:00",
            "mon 09:00-09:00",
            "mon 09:00-24:01",
            "mon 09:60-10:00",
            "day 09:00-10:00",
            "mon-fri",
            "09:00-17:00",
            "mon +9:00-10:00",
        ] {
            assert!(text.parse::<Hours>().is_err(), "{text}");
        }
    }
}
