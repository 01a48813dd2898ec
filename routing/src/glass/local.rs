//! Pure. An override of one edge: made on the edge itself, on its disk, told to origin when it can be.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Refused, check_terms};
use crate::id::{BootId, EdgeId, Generation, RegionId, ReleaseId, SiteId};
use crate::record::{ReleaseRef, SiteRecord};
use crate::time::Timestamp;
use crate::wire::Wire;
use core::time::Duration;

/// Who made a local override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// A person, at the edge's local socket.
    Operator,
    /// The edge itself: a hard limit broke while its release baked and origin was silent.
    Guard,
}

/// One edge serves another release of a site than its record names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalOverride {
    /// The site.
    pub site: SiteId,
    /// What is served instead.
    pub release: ReleaseRef,
    /// What the record named when it was made.
    pub left: Option<ReleaseRef>,
    /// The generation of the region's last cutover then: a later cutover was decided after it and replaces it.
    pub base: Generation,
    /// Who made it.
    pub cause: Cause,
    /// Why.
    pub reason: String,
    /// Who it was.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// From then on it is shown as expired. It goes on being served.
    pub until: Timestamp,
}

impl LocalOverride {
    /// Whether it still counts beside `record`: no cutover has come after it, and the site is not gone.
    #[must_use]
    pub fn stands(&self, record: &SiteRecord) -> bool {
        !record.removed && record.live_since <= self.base
    }

    /// Whether its time to live is over.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.until
    }
}

/// What is asked for at an edge's local socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOverride {
    /// The site.
    pub site: SiteId,
    /// What to serve instead; none is the newest release before what is served that is held.
    #[serde(default)]
    pub release: Option<ReleaseId>,
    /// Why.
    pub reason: String,
    /// Who it is.
    pub by: String,
    /// For how many seconds it is meant.
    pub ttl_seconds: u64,
}

/// What an edge has of a site.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// Its record.
    pub record: &'a SiteRecord,
    /// The releases that are on disk, verified and ready to be served.
    pub ready: &'a [ReleaseRef],
    /// What requests get.
    pub served: Option<&'a ReleaseRef>,
}

/// What comes of `wish` on an edge that has `held` of the site.
///
/// # Errors
/// Says why nothing does.
pub fn decide(
    held: Option<Held<'_>>,
    wish: &NewOverride,
    cause: Cause,
    now: Timestamp,
) -> Result<LocalOverride, Refused> {
    let ttl = Duration::from_secs(wish.ttl_seconds);
    check_terms(&wish.reason, &wish.by, ttl)?;
    let held = held.filter(|held| !held.record.removed);
    let held = held.ok_or(Refused::UnknownSite)?;
    let record = held.record;
    let release = match &wish.release {
        Some(named) => held
            .ready
            .iter()
            .find(|ready| ready.release == *named)
            .ok_or_else(|| Refused::NotHeld(named.clone()))?,
        None => undone(record)
            .filter(|live| held.served == Some(live))
            .or_else(|| before(record, held.served).find(|release| held.ready.contains(release)))
            .ok_or(Refused::NothingHeld)?,
    };
    let is_undone = undone(record) == Some(release);
    if held.served == Some(release) && !is_undone {
        return Err(Refused::Served(release.release.clone()));
    }
    if record.live.as_ref() == Some(release) && !is_undone {
        return Err(Refused::Named(release.release.clone()));
    }
    Ok(LocalOverride {
        site: wish.site.clone(),
        release: release.clone(),
        left: if is_undone {
            record.candidate.clone()
        } else {
            record.live.clone()
        },
        base: record.live_since,
        cause,
        reason: wish.reason.clone(),
        by: wish.by.clone(),
        since: now,
        until: now + ttl,
    })
}

/// While a share of the visitors gets the candidate, the step before is what the others get: nobody gets the candidate then.
pub(super) fn undone(record: &SiteRecord) -> Option<&ReleaseRef> {
    record.weight?;
    record.candidate.as_ref()?;
    record.live.as_ref()
}

/// The releases before what is served, newest first: a second step goes further back, never forward.
fn before<'a>(
    record: &'a SiteRecord,
    served: Option<&'a ReleaseRef>,
) -> impl Iterator<Item = &'a ReleaseRef> {
    let at = record
        .previous
        .iter()
        .position(|release| Some(release) == served);
    record.previous.iter().skip(at.map_or(0, |at| at + 1))
}

/// What an edge keeps of its overrides, over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// Those that stand, one for each site.
    pub standing: Vec<LocalOverride>,
    /// The last cutover of each site after which the edge took itself back: it does so once.
    pub guarded: BTreeMap<SiteId, Generation>,
}

impl Wire for Overrides {
    const WHAT: &'static str = "list of local overrides";
    const MAX_BYTES: usize = 16 * 1024 * 1024;
}

/// What an edge says of a site that it overrides. Sent when that changes, and again after every new link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalReport {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it.
    pub boot: BootId,
    /// The site.
    pub site: SiteId,
    /// The override that stands; none when it is over.
    pub standing: Option<LocalOverride>,
}

impl Wire for LocalReport {
    const WHAT: &'static str = "local override report";
    const MAX_BYTES: usize = 8 * 1024;
}

/// An override of an edge that is over: ended by whoever made it, replaced by another one or by a later cutover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedOverride {
    /// As it stood.
    pub local: LocalOverride,
    /// Since when it is over.
    pub ended: Timestamp,
}

/// The newest overrides of an edge that are over, over restarts. Origin may hear of one only then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedOverrides {
    /// In the order in which they ended.
    pub overrides: Vec<EndedOverride>,
}

impl EndedOverrides {
    /// The most that are kept: they are made by people, or once in a bake. Of more the newest say where things stand.
    pub const MAX: usize = 32;
    /// For how long they are kept: as long as the longest override may be meant for, origin has been back by then.
    pub const KEPT: Duration = super::LONGEST;

    /// One more is over. What is too old by then, or too much, goes.
    pub fn add(&mut self, over: EndedOverride) {
        let is_same = |held: &EndedOverride| {
            held.local.site == over.local.site && held.local.since == over.local.since
        };
        let is_fresh = |held: &EndedOverride| over.ended.since(held.ended) < Self::KEPT;
        self.overrides
            .retain(|held| !is_same(held) && is_fresh(held));
        self.overrides.push(over);
        let excess = self.overrides.len().saturating_sub(Self::MAX);
        self.overrides.drain(..excess);
    }
}

impl Wire for EndedOverrides {
    const WHAT: &'static str = "list of local overrides that are over";
}

/// What an edge says of overrides that are over. Sent when one more is, after every new link, and again once in a while:
/// origin notes each once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedReport {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// This start of it.
    pub boot: BootId,
    /// Those that it remembers.
    pub ended: EndedOverrides,
}

impl Wire for EndedReport {
    const WHAT: &'static str = "report of local overrides that are over";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    fn release(digit: &str) -> ReleaseRef {
        ReleaseRef {
            release: digit.repeat(20).parse().unwrap(),
            artifact: alloc::format!("sha256:{}", digit.repeat(64))
                .parse()
                .unwrap(),
        }
    }

    fn record() -> SiteRecord {
        let site: SiteId = "shop/production".parse().unwrap();
        let mut record = SiteRecord::blank(site, "fra".parse().unwrap(), Epoch(1));
        record.generation = Generation(9);
        record.live_since = Generation(7);
        record.live = Some(release("c"));
        record.previous = Vec::from([release("b"), release("a")]);
        record
    }

    fn wish(named: Option<&str>, ttl_seconds: u64) -> NewOverride {
        NewOverride {
            site: record().site,
            release: named.map(|digit| release(digit).release),
            reason: "sick".into(),
            by: "ada".into(),
            ttl_seconds,
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1000);

    #[test]
    fn only_what_is_held_and_verified_can_be_chosen() {
        let record = record();
        let id = |digit: &str| release(digit).release;
        let all = ["a", "b", "c"].map(release);
        let without_b = ["a", "c"].map(release);
        let only_live = ["c"].map(release);
        let long = 7 * 86_400 + 1;
        let too_long = Refused::TooLong(Duration::from_secs(long));
        for (ready, served, named, ttl, expected) in [
            (&all[..], "c", None, 60, Ok("b")),
            (&all, "b", None, 60, Ok("a")),
            (&all, "a", None, 60, Err(Refused::NothingHeld)),
            (&without_b, "c", None, 60, Ok("a")),
            (&only_live, "c", None, 60, Err(Refused::NothingHeld)),
            (&all, "c", Some("a"), 60, Ok("a")),
            (
                &without_b,
                "c",
                Some("b"),
                60,
                Err(Refused::NotHeld(id("b"))),
            ),
            (&all, "c", Some("d"), 60, Err(Refused::NotHeld(id("d")))),
            (&all, "c", Some("c"), 60, Err(Refused::Served(id("c")))),
            (&all, "b", Some("c"), 60, Err(Refused::Named(id("c")))),
            (&all, "c", None, 0, Err(Refused::NoTime)),
            (&all, "c", None, long, Err(too_long)),
        ] {
            let served = release(served);
            let held = Held {
                record: &record,
                ready,
                served: Some(&served),
            };
            let decided = decide(Some(held), &wish(named, ttl), Cause::Operator, NOW);
            let expected = expected.map(release);
            let found = decided.clone().map(|local| local.release);
            assert_eq!(found, expected, "{served:?} {named:?} {ttl}");
            if let Ok(local) = decided {
                let place = (local.base, local.left, local.until);
                let until = NOW + Duration::from_secs(60);
                assert_eq!(place, (Generation(7), Some(release("c")), until));
            }
        }
    }

    #[test]
    fn nothing_comes_of_a_site_that_is_unknown_or_gone_or_of_no_reason() {
        let mut record = record();
        let all = ["a", "b", "c"].map(release);
        let decided = |record: Option<&SiteRecord>, wish: &NewOverride| {
            let held = record.map(|record| Held {
                record,
                ready: &all,
                served: record.live.as_ref(),
            });
            decide(held, wish, Cause::Operator, NOW).err()
        };
        let good = wish(None, 60);
        assert_eq!(decided(Some(&record), &good), None);
        assert_eq!(decided(None, &good), Some(Refused::UnknownSite));
        let nameless = NewOverride {
            reason: " ".into(),
            ..good.clone()
        };
        assert_eq!(decided(Some(&record), &nameless), Some(Refused::NoReason));
        record.removed = true;
        assert_eq!(decided(Some(&record), &good), Some(Refused::UnknownSite));
    }

    #[test]
    fn while_some_visitors_get_the_candidate_the_step_before_is_what_the_others_get() {
        let mut record = record();
        record.live = Some(release("b"));
        record.candidate = Some(release("c"));
        record.previous = Vec::from([release("a")]);
        record.weight = Some(10);
        let (ready, live) = (["a", "b", "c"].map(release), release("b"));
        for (weight, named, expected) in [
            (Some(10), None, Ok(("b", "c"))),
            (Some(10), Some("b"), Ok(("b", "c"))),
            (Some(10), Some("a"), Ok(("a", "b"))),
            (None, None, Ok(("a", "b"))),
            (None, Some("b"), Err(Refused::Served(live.release.clone()))),
        ] {
            record.weight = weight;
            let held = Held {
                record: &record,
                ready: &ready,
                served: Some(&live),
            };
            let decided = decide(Some(held), &wish(named, 60), Cause::Operator, NOW);
            let decided = decided.map(|local| (local.release, local.left));
            let expected = expected.map(|(to, left)| (release(to), Some(release(left))));
            assert_eq!(decided, expected, "{weight:?} {named:?}");
        }
    }

    #[test]
    fn a_later_cutover_replaces_an_override_and_other_writes_do_not() {
        let site: SiteId = "shop/production".parse().unwrap();
        let local = LocalOverride {
            site: site.clone(),
            release: release("a"),
            left: Some(release("b")),
            base: Generation(7),
            cause: Cause::Operator,
            reason: "sick".into(),
            by: "ada".into(),
            since: Timestamp::from_millis(0),
            until: Timestamp::from_millis(1000),
        };
        let mut record = SiteRecord::blank(site, "fra".parse().unwrap(), Epoch(1));
        for (generation, live_since, removed, stands) in [
            (7, 7, false, true),
            (9, 7, false, true),
            (9, 5, false, true),
            (8, 8, false, false),
            (9, 7, true, false),
        ] {
            record.generation = Generation(generation);
            record.live_since = Generation(live_since);
            record.removed = removed;
            assert_eq!(
                local.stands(&record),
                stands,
                "{generation} {live_since} {removed}"
            );
        }
        for (now, expired) in [(0, false), (999, false), (1000, true), (5000, true)] {
            assert_eq!(local.is_expired(Timestamp::from_millis(now)), expired);
        }
    }

    #[test]
    fn the_newest_that_are_over_are_kept_for_a_while() {
        let of = |since: u64, ended: Timestamp| EndedOverride {
            local: LocalOverride {
                site: record().site,
                release: release("a"),
                left: None,
                base: Generation(7),
                cause: Cause::Operator,
                reason: "sick".into(),
                by: "ada".into(),
                since: Timestamp::from_millis(since),
                until: Timestamp::from_millis(since + 1),
            },
            ended,
        };
        let begun = |held: &EndedOverrides| -> Vec<u64> {
            let each = held.overrides.iter();
            each.map(|held| held.local.since.as_millis()).collect()
        };
        let mut held = EndedOverrides::default();
        held.add(of(1, Timestamp::from_millis(10)));
        held.add(of(2, Timestamp::from_millis(20)));
        held.add(of(1, Timestamp::from_millis(30)));
        assert_eq!(
            begun(&held),
            [2, 1],
            "one that is over again is the same one"
        );
        let late = Timestamp::from_millis(20) + EndedOverrides::KEPT;
        held.add(of(3, late));
        assert_eq!(begun(&held), [1, 3], "the first is too old");
        for since in 100..200 {
            held.add(of(since, late));
        }
        assert_eq!(
            begun(&held),
            Vec::from_iter(200 - EndedOverrides::MAX as u64..200)
        );
    }
}
