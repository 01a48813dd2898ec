//! When the releases that a site had live ceased to be so: for a day after that, pages that were loaded from them
//! still find their files.
//!
//! [`Retired`] is pure. What it knows outlives a restart in one small file a site, which is written without haste:
//! if it is lost, or a record of before is new to this edge, the day counts from when the edge came to know.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use helix_routing::id::SiteId;
use helix_routing::record::{ReleaseRef, SiteRecord};
use helix_routing::time::Timestamp;
use helix_routing::wire::{Wire, WireError};
use serde::{Deserialize, Serialize};

/// How long after a cutover the files of the releases before answer for pages that were loaded from them.
pub const LATELY: Duration = Duration::from_secs(24 * 60 * 60);

/// When each release of a site that was live before was last live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    since: BTreeMap<ReleaseRef, Timestamp>,
}

impl Wire for Retired {
    const WHAT: &'static str = "list of retired releases";
}

impl Retired {
    /// Takes in what `record` says at `now`. True when that was news.
    pub fn follow(&mut self, record: &SiteRecord, now: Timestamp) -> bool {
        let was_live = |release: &ReleaseRef| {
            !record.removed
                && record.live.as_ref() != Some(release)
                && record.previous.contains(release)
        };
        let before = self.since.len();
        self.since.retain(|release, _| was_live(release));
        let mut news = self.since.len() != before;
        for release in record.previous.iter().filter(|release| was_live(release)) {
            self.since.entry(release.clone()).or_insert_with(|| {
                news = true;
                now
            });
        }
        news
    }

    /// Whether `release` was live within the day before `now`.
    #[must_use]
    pub fn was_live_lately(&self, release: &ReleaseRef, now: Timestamp) -> bool {
        self.since
            .get(release)
            .is_some_and(|since| now.since(*since) < LATELY)
    }

    /// What `folder` holds of `site`; nothing if that is nothing, or cannot be read.
    #[must_use]
    pub fn load(folder: &Path, site: &SiteId) -> Self {
        let path = file(folder, site);
        let decoded = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => Err(error),
            Ok(bytes) => Self::decode(&bytes)
                .map_err(|error: WireError| io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        decoded.unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), error = &error as &dyn std::error::Error, "when releases were last live is not known; it counts from now");
            Self::default()
        })
    }

    /// Replaces what `folder` holds of `site`.
    ///
    /// # Errors
    /// When the file cannot be written; then the old one stays.
    pub fn save(&self, folder: &Path, site: &SiteId) -> io::Result<()> {
        let path = file(folder, site);
        if self.since.is_empty() {
            return match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        std::fs::create_dir_all(folder)?;
        let beside = path.with_extension("tmp");
        // Not synced: after a power cut the file may be gone, and nothing else comes of that than another day.
        std::fs::write(&beside, self.encode())?;
        std::fs::rename(beside, path)
    }
}

/// Names of projects and environments hold no `=`.
fn file(folder: &Path, site: &SiteId) -> PathBuf {
    folder.join(site.to_string().replace('/', "="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::id::{Digest, Epoch, Generation};

    const HOUR: Duration = Duration::from_secs(3600);

    fn release(n: u8) -> ReleaseRef {
        ReleaseRef {
            release: format!("{n:020x}").parse().unwrap(),
            artifact: Digest::from_hex(&format!("{n:064x}")).unwrap(),
        }
    }

    fn record(live: u8, previous: &[u8]) -> SiteRecord {
        let site = "shop/preview/42".parse().unwrap();
        let mut record = SiteRecord::blank(site, "fra".parse().unwrap(), Epoch(1));
        record.generation = Generation(u64::from(live));
        record.live = Some(release(live));
        record.previous = previous.iter().copied().map(release).collect();
        record
    }

    fn start() -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    fn lately(retired: &Retired, now: Timestamp) -> Vec<u8> {
        (1..6)
            .filter(|n| retired.was_live_lately(&release(*n), now))
            .collect()
    }

    #[test]
    fn every_release_of_the_last_day_counts_from_its_own_cutover() {
        let mut retired = Retired::default();
        assert!(!retired.follow(&record(1, &[]), start()));
        assert!(retired.follow(&record(2, &[1]), start() + HOUR));
        assert!(!retired.follow(&record(2, &[1]), start() + HOUR * 2));
        assert!(retired.follow(&record(3, &[2, 1]), start() + HOUR * 10));
        for (after, expected) in [
            (10, &[1, 2][..]),
            (24, &[1, 2]),
            (25, &[2]),
            (33, &[2]),
            (34, &[]),
        ] {
            let now = start() + HOUR * after;
            assert_eq!(lately(&retired, now), expected, "after {after} hours");
        }
    }

    #[test]
    fn a_release_that_is_live_again_counts_anew() {
        let mut retired = Retired::default();
        retired.follow(&record(2, &[1]), start());
        assert!(retired.follow(&record(1, &[2]), start() + HOUR * 20));
        assert_eq!(lately(&retired, start() + HOUR * 20), [2]);
        retired.follow(&record(3, &[1, 2]), start() + HOUR * 30);
        assert_eq!(lately(&retired, start() + HOUR * 50), [1]);
        // A site that is removed has nothing any more.
        let removed = SiteRecord {
            removed: true,
            ..record(3, &[1, 2])
        };
        assert!(retired.follow(&removed, start() + HOUR * 31));
        assert_eq!(retired, Retired::default());
    }

    #[test]
    fn a_restart_goes_on_counting_and_a_harmed_file_counts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("retired");
        let record = record(3, &[2, 1]);
        assert_eq!(Retired::load(&folder, &record.site), Retired::default());
        let mut retired = Retired::default();
        retired.follow(&record, start());
        retired.save(&folder, &record.site).unwrap();
        let mut again = Retired::load(&folder, &record.site);
        assert_eq!(again, retired);
        assert!(!again.follow(&record, start() + HOUR * 23));
        assert_eq!(lately(&again, start() + HOUR * 24), [0_u8; 0]);
        std::fs::write(file(&folder, &record.site), b"\x01nonsense").unwrap();
        assert_eq!(Retired::load(&folder, &record.site), Retired::default());
        Retired::default().save(&folder, &record.site).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        Retired::default().save(&folder, &record.site).unwrap();
    }
}
