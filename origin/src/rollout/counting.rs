//! Counts what a step of a rollout came to: its end, and verdicts of bakes.

use helix_routing::api::{BakeView, RegionView};
use helix_routing::rollout::Rollout;
use helix_routing::verdict::Verdict;

use crate::metrics::Ends;

/// Counts what `after` has come to and `before` had not.
pub(super) fn count(ends: &Ends, before: &Rollout, after: &Rollout) {
    if let (None, Some(outcome)) = (before.outcome(), after.outcome()) {
        ends.rollout(after.kind(), outcome).inc();
    }
    for (before, after) in before.regions().iter().zip(after.regions()) {
        if let Some(verdict) = verdict(before, &after) {
            ends.bake(verdict).inc();
        }
    }
}

/// The verdict that a region's bake has come to since. A region bakes again with each share of its visitors.
fn verdict(before: &RegionView, after: &RegionView) -> Option<Verdict> {
    let bake = after.bake.as_ref()?;
    let was_known = |before: &BakeView| before.since == bake.since && before.verdict.is_some();
    bake.verdict
        .filter(|_| !before.bake.as_ref().is_some_and(was_known))
}

#[cfg(test)]
mod tests {
    use helix_routing::api::PhaseName;
    use helix_routing::id::Generation;
    use helix_routing::time::Timestamp;

    use super::*;

    fn region(bake: Option<(u64, Option<Verdict>)>) -> RegionView {
        RegionView {
            region: "fra".parse().unwrap(),
            release: "a".repeat(20).parse().unwrap(),
            phase: PhaseName::Baking,
            generation: Generation(1),
            required: Vec::new(),
            done: Vec::new(),
            reason: None,
            gates: Vec::new(),
            bake: bake.map(|(since, verdict)| BakeView {
                since: Timestamp::from_millis(since),
                until: Timestamp::from_millis(since + 1),
                decided: None,
                verdict,
                requests: 0,
                min_requests: 0,
                baseline_requests: 0,
                measures: Vec::new(),
                checks: Vec::new(),
            }),
            weight: None,
        }
    }

    #[test]
    fn each_verdict_of_a_bake_is_counted_once() {
        let (pass, fail) = (Some(Verdict::Pass), Some(Verdict::Fail));
        for (before, after, expected) in [
            (None, None, None),
            (None, Some((1, None)), None),
            (Some((1, None)), Some((1, pass)), pass),
            (Some((1, pass)), Some((1, pass)), None),
            // The next share of the visitors bakes.
            (Some((1, pass)), Some((2, None)), None),
            (Some((1, pass)), Some((2, fail)), fail),
            // Another region's failure ended it.
            (Some((1, None)), Some((1, None)), None),
        ] {
            let found = verdict(&region(before), &region(after));
            assert_eq!(found, expected, "{before:?} {after:?}");
        }
    }
}
