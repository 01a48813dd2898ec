//! Pure. A region's override: a site record that an operator's key has signed.
//!
//! Such a record says what the one before it said, but for what is live, and why. So whoever holds the key can move a region to
//! a release that its edges hold, in a term above origin's, and do nothing else.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::local::undone;
use super::{Refused, check_terms, ttl};
use crate::id::{Epoch, ReleaseId};
use crate::record::{Override, ReleaseRef, SiteRecord};
use crate::rollout::KEEP_PREVIOUS;
use crate::time::Timestamp;

/// How far the clocks of an edge and of whoever signs may lie apart.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// The record that moves `held` to `release`, or to the newest before what is live.
///
/// # Errors
/// Says why there is none.
pub fn overridden(
    held: &SiteRecord,
    release: Option<&ReleaseId>,
    terms: Override,
    epoch: Epoch,
) -> Result<SiteRecord, Refused> {
    check_terms(&terms.reason, &terms.by, ttl(terms.since, terms.until))?;
    if held.removed || held.live.is_none() {
        return Err(Refused::UnknownSite);
    }
    let to = match release {
        Some(named) => held
            .releases()
            .find(|held| held.release == *named)
            .ok_or_else(|| Refused::NotHeld(named.clone()))?,
        None => undone(held)
            .or_else(|| held.previous.first())
            .ok_or(Refused::NothingHeld)?,
    };
    if held.live.as_ref() == Some(to) && undone(held).is_none() {
        return Err(Refused::Served(to.release.clone()));
    }
    let mut record = held.clone();
    record.serve(to.clone(), KEEP_PREVIOUS);
    record.generation = held.generation.next();
    record.epoch = epoch;
    record.weight = None;
    record.pins = Vec::new();
    record.bake_until = None;
    record.guard = None;
    record.overridden = Some(Box::new(terms));
    Ok(record)
}

/// Checks what an edge can of a record that an operator has signed, and that is newer than the one held. `ready` are the
/// releases of its site that are held and verified; `known` is the highest term seen.
///
/// # Errors
/// Says why it is refused.
pub fn check(
    record: &SiteRecord,
    ready: &[ReleaseId],
    known: Epoch,
    now: Timestamp,
) -> Result<(), Refused> {
    let Some(terms) = &record.overridden else {
        return Err(Refused::NoOverride("it has none"));
    };
    check_terms(&terms.reason, &terms.by, ttl(terms.since, terms.until))?;
    if now >= terms.until {
        return Err(Refused::Expired {
            until: terms.until,
            now,
        });
    }
    if terms.since > now + CLOCK_SKEW {
        return Err(Refused::NoOverride("it begins in the future"));
    }
    let more = [
        (record.removed, "it removes the site"),
        (record.candidate.is_some(), "it has a candidate"),
        (record.weight.is_some(), "it has a weight"),
        (!record.pins.is_empty(), "it has pins"),
        (record.bake_until.is_some(), "it bakes"),
        (record.guard.is_some(), "it has a guard"),
        (record.live_since != record.generation, "it is no cutover"),
        (record.previous.len() > KEEP_PREVIOUS, "it keeps too much"),
    ];
    if let Some((_, what)) = more.into_iter().find(|(is_more, _)| *is_more) {
        return Err(Refused::NoOverride(what));
    }
    if record.epoch <= known {
        return Err(Refused::SameTerm {
            found: record.epoch,
            known,
        });
    }
    match &record.live {
        None => Err(Refused::NoOverride("nothing would be live")),
        Some(_) if ready.is_empty() => Err(Refused::UnknownSite),
        Some(live) if !ready.contains(&live.release) => Err(Refused::NotHeld(live.release.clone())),
        Some(_) => Ok(()),
    }
}

/// What `over` leaves of what `held` had visitors get: the release that was live, or the candidate that a share of them got.
#[must_use]
pub fn left<'a>(held: &'a SiteRecord, over: &ReleaseRef) -> Option<&'a ReleaseRef> {
    let live = held.live.as_ref().filter(|live| *live != over);
    live.or_else(|| undone(held).and(held.candidate.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Generation;
    use crate::record::Hold;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn release(digit: &str) -> ReleaseRef {
        ReleaseRef {
            release: digit.repeat(20).parse().unwrap(),
            artifact: alloc::format!("sha256:{}", digit.repeat(64))
                .parse()
                .unwrap(),
        }
    }

    fn held() -> SiteRecord {
        let site = "shop/production".parse().unwrap();
        let mut record = SiteRecord::blank(site, "fra".parse().unwrap(), Epoch(4));
        record.generation = Generation(9);
        record.live_since = Generation(7);
        record.live = Some(release("c"));
        record.candidate = Some(release("d"));
        record.previous = Vec::from([release("b"), release("a")]);
        record.bake_until = Some(NOW + HOUR);
        record
    }

    fn terms() -> Override {
        Override {
            reason: "sick".into(),
            by: "ada".into(),
            since: NOW,
            until: NOW + HOUR,
        }
    }

    fn signed() -> SiteRecord {
        overridden(&held(), None, terms(), Epoch(5)).unwrap()
    }

    fn ids(digits: &[&str]) -> Vec<ReleaseId> {
        digits.iter().map(|digit| release(digit).release).collect()
    }

    #[test]
    fn an_override_changes_what_is_live_and_nothing_else() {
        let record = signed();
        assert_eq!(record.live, Some(release("b")));
        assert_eq!(record.previous, [release("c"), release("a")]);
        assert_eq!(left(&held(), &release("b")), Some(&release("c")));
        assert_eq!(left(&held(), &release("c")), None);
        assert_eq!(
            (record.generation, record.live_since, record.epoch),
            (Generation(10), Generation(10), Epoch(5))
        );
        assert_eq!((record.candidate, record.bake_until), (None, None));
        let by_name =
            |digit: &str| overridden(&held(), Some(&release(digit).release), terms(), Epoch(5));
        assert_eq!(by_name("a").unwrap().live, Some(release("a")));
        assert_eq!(by_name("c"), Err(Refused::Served(release("c").release)));
        assert_eq!(by_name("e"), Err(Refused::NotHeld(release("e").release)));
        // A share of the visitors gets the candidate: from now on nobody does.
        let mut parted = held();
        parted.weight = Some(10);
        let record = overridden(&parted, None, terms(), Epoch(5)).unwrap();
        assert_eq!((record.live, record.candidate), (parted.live.clone(), None));
        assert_eq!(record.previous, parted.previous);
        assert_eq!(left(&parted, &release("c")), Some(&release("d")));
        let mut first = held();
        first.previous.clear();
        let nowhere = overridden(&first, None, terms(), Epoch(5));
        assert_eq!(nowhere, Err(Refused::NothingHeld));
        first.live = None;
        let nothing = overridden(&first, None, terms(), Epoch(5));
        assert_eq!(nothing, Err(Refused::UnknownSite));
        let nameless = Override {
            reason: " ".into(),
            ..terms()
        };
        assert_eq!(
            overridden(&held(), None, nameless, Epoch(5)),
            Err(Refused::NoReason)
        );
    }

    type Case = (&'static str, fn(&mut SiteRecord), Option<Refused>);

    fn no(what: &'static str) -> Option<Refused> {
        Some(Refused::NoOverride(what))
    }

    fn cases() -> [Case; 13] {
        [
            (
                "no override",
                |record| record.overridden = None,
                no("it has none"),
            ),
            (
                "a candidate",
                |record| record.candidate = Some(release("a")),
                no("it has a candidate"),
            ),
            (
                "a weight",
                |record| record.weight = Some(5),
                no("it has a weight"),
            ),
            (
                "a bake",
                |record| record.bake_until = Some(NOW),
                no("it bakes"),
            ),
            (
                "removal",
                |record| record.removed = true,
                no("it removes the site"),
            ),
            (
                "no cutover",
                |record| record.live_since = Generation(7),
                no("it is no cutover"),
            ),
            (
                "nothing live",
                |record| record.live = None,
                no("nothing would be live"),
            ),
            (
                "a release from elsewhere",
                |record| record.live = Some(release("e")),
                Some(Refused::NotHeld(release("e").release)),
            ),
            (
                "no reason",
                |record| change(record, |terms| terms.reason.clear()),
                Some(Refused::NoReason),
            ),
            (
                "no time",
                |record| change(record, |terms| terms.until = terms.since),
                Some(Refused::NoTime),
            ),
            (
                "too long",
                |record| change(record, |terms| terms.until = terms.since + HOUR * 169),
                Some(Refused::TooLong(HOUR * 169)),
            ),
            (
                "the future",
                |record| change(record, |terms| terms.since = NOW + HOUR / 2),
                no("it begins in the future"),
            ),
            (
                "the same term",
                |record| record.epoch = Epoch(4),
                Some(Refused::SameTerm {
                    found: Epoch(4),
                    known: Epoch(4),
                }),
            ),
        ]
    }

    #[test]
    fn an_edge_takes_an_override_and_nothing_else_from_an_operator() {
        let as_it_is: Case = ("as it is", |_| {}, None);
        for (what, make, expected) in core::iter::once(as_it_is).chain(cases()) {
            let mut record = signed();
            record.hold = Some(Hold {
                reason: "kept".into(),
                since: NOW,
            });
            make(&mut record);
            let checked = check(&record, &ids(&["a", "b", "c"]), Epoch(4), NOW);
            assert_eq!(checked.err(), expected, "{what}");
        }
    }

    #[test]
    fn an_edge_takes_no_override_that_is_over_or_of_a_site_it_does_not_serve() {
        let late = check(&signed(), &ids(&["b"]), Epoch(4), NOW + HOUR);
        assert!(matches!(late, Err(Refused::Expired { .. })));
        let unknown = check(&signed(), &[], Epoch(4), NOW);
        assert_eq!(unknown, Err(Refused::UnknownSite));
    }

    fn change(record: &mut SiteRecord, make: impl FnOnce(&mut Override)) {
        if let Some(terms) = &mut record.overridden {
            make(terms);
        }
    }
}
