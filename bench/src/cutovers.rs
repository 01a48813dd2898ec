//! SQL commit to the last of four edges serving the new release.
//!
//! The commit's moment is the timestamp of origin's log line for it; a serving edge's is that of the first answer
//! under the committed generation, seen by a client that asks each edge every millisecond. One machine, one clock.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use helix_routing::id::RegionId;
use helix_tests::fleet::Fleet;
use helix_tests::folder::{Folder, page_digest};

use crate::figures::Figures;
use crate::watch::{Bodies, Sightings, Watch};

/// Deploys two releases in turn, `count` times, and prints how long each region's edges took.
pub(crate) fn run(fleet: &Fleet, count: usize) -> anyhow::Result<()> {
    let bodies = Bodies::default();
    let pages = ["one", "two"].map(|text| (Folder::page(text), page_digest(text)));
    let deploy = |number: usize| {
        let (folder, digest) = &pages[number % 2];
        let release = fleet.deploy("cutovers", folder);
        bodies
            .lock()
            .unwrap()
            .insert(release.to_string(), digest.clone());
    };
    deploy(1);
    let watch = Watch::start(fleet, &fleet.host("cutovers"), &Arc::clone(&bodies));
    for number in 0..count {
        deploy(number);
    }
    let (requests, sightings) = watch.finish()?;
    let log =
        fs::read_to_string(fleet.folder().join("log/origin.log")).context("read origin's log")?;
    let commits = commits(&log);
    let spans = spans(&commits, &sightings);
    println!(
        "SQL commit to last edge of its region   {}",
        Figures::of(spans)
    );
    println!("requests meanwhile                      {requests}, 0 failed, 0 of another release");
    Ok(())
}

type Commits = BTreeMap<(RegionId, u64), SystemTime>;

/// For each commit that every edge of its region was seen to serve: how long the last one took.
fn spans(commits: &Commits, sightings: &Sightings) -> Vec<Duration> {
    let last = |at: &(RegionId, u64)| {
        sightings
            .get(at)
            .filter(|edges| edges.len() == 2)?
            .values()
            .max()
            .copied()
    };
    commits
        .iter()
        .filter_map(|(at, committed)| last(at)?.duration_since(*committed).ok())
        .collect()
}

/// The moment of every commit: origin's lines for a region that went on to committing.
fn commits(log: &str) -> Commits {
    log.lines()
        .filter(|line| line.contains(" cutover ") && line.contains("to=Committing"))
        .filter_map(commit)
        .collect()
}

fn commit(line: &str) -> Option<((RegionId, u64), SystemTime)> {
    let field = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let region = field("region")?.parse().ok()?;
    let generation = field("generation")?.parse().ok()?;
    Some((
        (region, generation),
        moment(line.split_whitespace().next()?)?,
    ))
}

/// Reads `2026-11-23T19:48:38.123456Z` (RFC 3339 with microseconds, UTC).
fn moment(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.split(':');
    let (hours, minutes) = (
        time.next()?.parse::<u64>().ok()?,
        time.next()?.parse::<u64>().ok()?,
    );
    let seconds = time.next()?.parse::<f64>().ok()?;
    let days = days_since_1970(year, month, day);
    Some(
        SystemTime::UNIX_EPOCH
            + Duration::from_secs(days * 86_400 + hours * 3_600 + minutes * 60)
            + Duration::from_secs_f64(seconds),
    )
}

/// Counts years from March, so that the leap day is the last of its year.
const fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_read_from_its_line() {
        let line = "2026-11-23T00:00:01.500000Z  INFO helix_origin::rollout::driver: cutover rollout=00 site=a/production region=fra generation=7 from=Prepared to=Committing";
        let expected = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_392_001_500);
        assert_eq!(
            commits(line),
            Commits::from([(("fra".parse().unwrap(), 7), expected)])
        );
    }
}
