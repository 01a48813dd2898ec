//! Pure. Which releases of a site may go: those that nothing references and the keep rules don't hold.

use std::collections::BTreeSet;
use std::time::Duration;

use helix_routing::id::ReleaseId;
use helix_routing::time::Timestamp;

/// What is kept although nothing references it.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The newest releases of a site.
    pub releases: usize,
    /// Releases younger than this. Of the two rules the one that keeps more counts.
    pub age: Duration,
    /// Uploads that no release names, for this long: a deployment may be about to.
    pub upload_grace: Duration,
}

/// A release of one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub release: ReleaseId,
    pub created: Timestamp,
}

/// Those of `releases`, newest first, that may go, oldest first.
pub(super) fn expendable(
    keep: &Keep,
    now: Timestamp,
    releases: &[Made],
    referenced: &BTreeSet<ReleaseId>,
) -> Vec<ReleaseId> {
    let beyond = releases.iter().skip(keep.releases).rev();
    beyond
        .filter(|made| now.since(made.created) >= keep.age && !referenced.contains(&made.release))
        .map(|made| made.release.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(10_000_000);

    fn release(number: u64) -> ReleaseId {
        format!("{number:020x}").parse().unwrap()
    }

    /// `count` releases, the newest first, each a second older than the one before.
    fn made(count: u64) -> Vec<Made> {
        (0..count)
            .map(|number| Made {
                release: release(number),
                created: NOW - Duration::from_secs(number),
            })
            .collect()
    }

    fn keep(releases: usize, seconds: u64) -> Keep {
        Keep {
            releases,
            age: Duration::from_secs(seconds),
            upload_grace: Duration::ZERO,
        }
    }

    #[test]
    fn the_rule_that_keeps_more_counts() {
        let none = BTreeSet::new();
        for (releases, seconds, left) in [
            (0, 0, 5),
            (2, 0, 3),
            (0, 2, 3),
            (2, 4, 1),
            (4, 2, 1),
            (9, 0, 0),
            (0, 99, 0),
        ] {
            let gone = expendable(&keep(releases, seconds), NOW, &made(5), &none);
            assert_eq!(gone.len(), left, "keep {releases} and {seconds} s");
        }
    }

    #[test]
    fn the_oldest_goes_first_and_what_is_referenced_stays() {
        let referenced = BTreeSet::from([release(4), release(2)]);
        assert_eq!(
            expendable(&keep(1, 0), NOW, &made(5), &referenced),
            [release(3), release(1)]
        );
    }
}
