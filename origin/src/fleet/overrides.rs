//! Pure. Which edges serve something else than their records name, or did, as they say it themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use helix_routing::glass::{
    EndedOverride, EndedOverrides, EndedReport, LocalOverride, LocalReport,
};
use helix_routing::id::{BootId, EdgeId, RegionId, SiteId};

/// Overrides remembered; each is made by a person or once in a bake. More are left out until some are over.
const MAX_OVERRIDES: usize = 16_384;

/// For how long a word counts when edges are asked whether they agree: what stands is said with every heartbeat, so one that was not
/// said three times may be over, and the word of that lost.
const SAID_FOR: Duration = Duration::from_secs(15);

/// The newest word of each edge.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides {
    /// On each site.
    standing: BTreeMap<(SiteId, EdgeId), Said>,
    /// On what is over.
    ended: BTreeMap<EdgeId, (RegionId, EndedOverrides)>,
}

/// An override, its region, and the edges that agree in it.
pub(super) type Agreed = (RegionId, LocalOverride, BTreeSet<EdgeId>);

#[derive(Clone, Debug)]
struct Said {
    region: RegionId,
    boot: BootId,
    at: Instant,
    local: LocalOverride,
}

impl Overrides {
    pub(super) fn heard(&mut self, at: Instant, report: LocalReport) {
        let key = (report.site, report.edge);
        let Some(local) = report.standing else {
            self.standing.remove(&key);
            return;
        };
        if local.site != key.0
            || (self.standing.len() >= MAX_OVERRIDES && !self.standing.contains_key(&key))
        {
            return;
        }
        let said = Said {
            region: report.region,
            boot: report.boot,
            at,
            local,
        };
        self.standing.insert(key, said);
    }

    /// What is over stays over, whatever boot says it.
    pub(super) fn heard_ended(&mut self, report: EndedReport) {
        let mut ended = report.ended;
        ended.overrides.truncate(EndedOverrides::MAX);
        self.ended.insert(report.edge, (report.region, ended));
    }

    pub(super) fn each_ended(&self) -> Vec<(EdgeId, RegionId, EndedOverride)> {
        let each = |(edge, (region, ended)): (&EdgeId, &(RegionId, EndedOverrides))| {
            let (edge, region) = (edge.clone(), region.clone());
            let overrides = ended.overrides.clone().into_iter();
            overrides.map(move |over| (edge.clone(), region.clone(), over))
        };
        self.ended.iter().flat_map(each).collect()
    }

    /// An edge says again in each boot what stands: what it said in another one is void.
    pub(super) fn booted(&mut self, edge: &EdgeId, boot: &BootId) {
        self.standing
            .retain(|(_, said_by), said| said_by != edge || said.boot == *boot);
    }

    pub(super) fn each(&self) -> Vec<(EdgeId, RegionId, LocalOverride)> {
        let said = self.standing.iter();
        said.map(|((_, edge), said)| (edge.clone(), said.region.clone(), said.local.clone()))
            .collect()
    }

    /// What edges have said, each with those that agree in it.
    pub(super) fn standing(&self) -> Vec<Agreed> {
        self.grouped(|_| true)
    }

    /// The same of what was said lately.
    pub(super) fn lately(&self, now: Instant) -> Vec<Agreed> {
        self.grouped(|said| now.duration_since(said.at) < SAID_FOR)
    }

    fn grouped(&self, counts: impl Fn(&Said) -> bool) -> Vec<Agreed> {
        let mut groups: Vec<Agreed> = Vec::new();
        for ((_, edge), said) in self.standing.iter().filter(|(_, said)| counts(said)) {
            let agrees = |(region, local, _): &&mut Agreed| {
                *region == said.region
                    && local.site == said.local.site
                    && local.release == said.local.release
            };
            match groups.iter_mut().find(agrees) {
                // The newest of them speaks for all.
                Some((_, local, edges)) => {
                    edges.insert(edge.clone());
                    if said.local.since > local.since {
                        *local = said.local.clone();
                    }
                }
                None => {
                    let edges = BTreeSet::from([edge.clone()]);
                    groups.push((said.region.clone(), said.local.clone(), edges));
                }
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::glass::Cause;
    use helix_routing::id::Generation;
    use helix_routing::record::ReleaseRef;
    use helix_routing::time::Timestamp;

    fn report(edge: &str, boot: &str, release: Option<&str>, since: u64) -> LocalReport {
        let site: SiteId = "shop/production".parse().unwrap();
        let standing = release.map(|digit| LocalOverride {
            site: site.clone(),
            release: ReleaseRef {
                release: digit.repeat(20).parse().unwrap(),
                artifact: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
            },
            left: None,
            base: Generation(7),
            cause: Cause::Operator,
            reason: "sick".to_owned(),
            by: "ada".to_owned(),
            since: Timestamp::from_millis(since),
            until: Timestamp::from_millis(since + 1000),
        });
        LocalReport {
            edge: edge.parse().unwrap(),
            region: edge[..3].parse().unwrap(),
            boot: boot.repeat(16).parse().unwrap(),
            site,
            standing,
        }
    }

    fn counted(overrides: &Overrides) -> Vec<(String, usize, u64)> {
        let standing = overrides.standing();
        let rows = standing.iter().map(|(region, local, edges)| {
            (region.to_string(), edges.len(), local.since.as_millis())
        });
        rows.collect()
    }

    #[test]
    fn edges_agree_by_region_site_and_release_and_the_newest_word_counts() {
        let mut overrides = Overrides::default();
        for (edge, boot, release, since, expected) in [
            ("fra-1", "a", Some("a"), 5, vec![("fra", 1, 5)]),
            ("fra-2", "a", Some("a"), 3, vec![("fra", 2, 5)]),
            (
                "iad-1",
                "a",
                Some("a"),
                4,
                vec![("fra", 2, 5), ("iad", 1, 4)],
            ),
            (
                "fra-2",
                "a",
                Some("b"),
                9,
                vec![("fra", 1, 5), ("fra", 1, 9), ("iad", 1, 4)],
            ),
            ("fra-2", "a", None, 9, vec![("fra", 1, 5), ("iad", 1, 4)]),
            ("fra-9", "a", None, 9, vec![("fra", 1, 5), ("iad", 1, 4)]),
        ] {
            overrides.heard(Instant::now(), report(edge, boot, release, since));
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(region, edges, since)| (region.to_owned(), edges, since))
                .collect();
            assert_eq!(counted(&overrides), expected, "{edge} {release:?}");
        }
        overrides.booted(&"fra-1".parse().unwrap(), &"a".repeat(16).parse().unwrap());
        assert_eq!(counted(&overrides).len(), 2, "the same boot");
        overrides.booted(&"fra-1".parse().unwrap(), &"b".repeat(16).parse().unwrap());
        assert_eq!(
            counted(&overrides).len(),
            1,
            "what an earlier boot said is void"
        );
    }

    #[test]
    fn a_word_that_is_not_repeated_is_shown_and_does_not_count() {
        let (mut overrides, start) = (Overrides::default(), Instant::now());
        overrides.heard(start, report("fra-1", "a", Some("a"), 5));
        let later = start + SAID_FOR / 2;
        overrides.heard(later, report("fra-2", "a", Some("a"), 5));
        for (now, agree) in [
            (later, Some(2)),
            (start + SAID_FOR, Some(1)),
            (later + SAID_FOR, None),
        ] {
            let lately = overrides.lately(now);
            assert_eq!(lately.first().map(|(_, _, edges)| edges.len()), agree);
        }
        assert_eq!(counted(&overrides), [("fra".to_owned(), 2, 5)]);
    }
}
