//! Pure. What happened to a rollout between two looks at it.
//!
//! Invariant: nothing is told twice, and a step that was passed between two looks is told all the same.

use helix_routing::api::{PhaseName, RegionView, RolloutView};
use helix_routing::rollout::{Outcome, Waits};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved<'a> {
    /// Its kind, such as `deployment.committed`.
    pub kind: String,
    /// Where; none: to the rollout as a whole.
    pub region: Option<&'a RegionView>,
    /// Whether a region that went back did so by itself.
    pub automatic: Option<bool>,
}

/// What happened, in order: regions first, then the end of the whole.
pub(super) fn between<'a>(before: Option<&RolloutView>, after: &'a RolloutView) -> Vec<Moved<'a>> {
    let noun = noun(&after.kind);
    let mut moved = Vec::new();
    // A deployment's begin is told with its number.
    if before.is_none() && noun != "deployment" {
        moved.push(Moved {
            kind: format!("{noun}.created"),
            region: None,
            automatic: None,
        });
    }
    for region in &after.regions {
        let was = before.and_then(|before| {
            let same = |found: &&RegionView| found.region == region.region;
            before.regions.iter().find(same).map(|found| found.phase)
        });
        let was = was.unwrap_or(PhaseName::Pending);
        for (kind, automatic) in steps(noun, was, region.phase) {
            moved.push(Moved {
                kind,
                region: Some(region),
                automatic,
            });
        }
    }
    if let Some(step) = waiting(before.and_then(waits), waits(after)) {
        moved.push(Moved {
            kind: format!("{noun}.{step}"),
            region: None,
            automatic: None,
        });
    }
    let had_ended = before.is_some_and(|before| before.outcome.is_some());
    if let Some(outcome) = after.outcome.filter(|_| !had_ended) {
        moved.push(Moved {
            kind: format!("{noun}.{}", ended(outcome)),
            region: None,
            automatic: None,
        });
    }
    moved
}

/// What a rollout that runs waits for.
fn waits(view: &RolloutView) -> Option<&Waits> {
    view.plan.as_ref()?.waits.as_ref()
}

/// What people have to know, or did: it waits for approval, it was paused, it goes on.
fn waiting(before: Option<&Waits>, after: Option<&Waits>) -> Option<&'static str> {
    match (before, after) {
        (Some(Waits::Resume { .. }), Some(Waits::Resume { .. })) => None,
        (_, Some(Waits::Resume { .. })) => Some("paused"),
        (before, Some(Waits::Approval { stage })) => {
            let told = matches!(before, Some(Waits::Approval { stage: was }) if was == stage);
            (!told).then_some("awaiting_approval")
        }
        (Some(Waits::Resume { .. }), _) => Some("resumed"),
        _ => None,
    }
}

fn noun(kind: &str) -> &str {
    if kind == "deploy" { "deployment" } else { kind }
}

const fn ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Settled => "settled",
        Outcome::WentBack => "went_back",
        Outcome::Aborted => "aborted",
        Outcome::Superseded => "superseded",
        Outcome::NeedsOperator => "needs_operator",
    }
}

/// How far on the way out a phase is; none where that says nothing.
const fn rank(phase: PhaseName) -> Option<u8> {
    match phase {
        PhaseName::Pending => Some(0),
        PhaseName::Preparing => Some(1),
        // A part of the visitors gets it; it is not live.
        PhaseName::Prepared | PhaseName::Admitting | PhaseName::Canary | PhaseName::Admitted => {
            Some(2)
        }
        PhaseName::Committing => Some(3),
        PhaseName::Baking => Some(4),
        PhaseName::Stable
        | PhaseName::Undecided
        | PhaseName::RollingBack
        | PhaseName::RolledBack
        | PhaseName::RevertBlocked => Some(5),
        PhaseName::Aborted | PhaseName::Superseded => None,
    }
}

/// Whether a phase is only come to once every edge of the region serves the target.
const fn is_live(phase: PhaseName) -> bool {
    matches!(
        phase,
        PhaseName::Baking | PhaseName::Stable | PhaseName::Undecided
    )
}

fn steps(noun: &str, was: PhaseName, is: PhaseName) -> Vec<(String, Option<bool>)> {
    // What is live and settled already goes nowhere.
    if was == is || (was == PhaseName::Pending && is == PhaseName::Stable) {
        return Vec::new();
    }
    let mut told = Vec::new();
    if let (Some(from), Some(to)) = (rank(was), rank(is)) {
        // That a region is prepared is not saved by itself, so it is told with what follows from it. Who finds its target live already
        // prepares nothing.
        if from > 0 && from < 3 && to >= 3 {
            told.push((format!("{noun}.prepared"), None));
        }
        if from < 3 && to >= 3 {
            told.push((format!("{noun}.committed"), None));
        }
        if from < 4 && is_live(is) {
            told.push((format!("{noun}.live"), None));
        }
    }
    match is {
        PhaseName::Stable if noun == "rollback" => {
            told.push(("deployment.rolled_back".to_owned(), Some(false)));
        }
        PhaseName::Stable => told.push((format!("{noun}.region_settled"), None)),
        PhaseName::Canary => told.push((format!("{noun}.canary"), None)),
        PhaseName::Undecided => told.push((format!("{noun}.undecided"), None)),
        PhaseName::RollingBack => told.push((format!("{noun}.returning"), Some(true))),
        PhaseName::RolledBack => told.push((format!("{noun}.rolled_back"), Some(true))),
        PhaseName::RevertBlocked => told.push((format!("{noun}.revert_blocked"), None)),
        PhaseName::Pending
        | PhaseName::Preparing
        | PhaseName::Prepared
        | PhaseName::Admitting
        | PhaseName::Admitted
        | PhaseName::Committing
        | PhaseName::Baking
        | PhaseName::Aborted
        | PhaseName::Superseded => {}
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::time::Timestamp;

    fn view(kind: &str, phase: &str, outcome: &str) -> RolloutView {
        let json = format!(
            r#"{{"rollout":"00112233445566aa","site":"shop/production","kind":"{kind}","by":"ana","revision":3,
                "started":1000,"changed":2000,"outcome":{outcome},"regions":[{{"region":"fra",
                "release":"00112233445566778899","phase":"{phase}","generation":43,"required":[],"done":[],"reason":null}}]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn told(kind: &str, before: Option<(&str, &str)>, after: (&str, &str)) -> Vec<String> {
        let before = before.map(|(phase, outcome)| view(kind, phase, outcome));
        let after = view(kind, after.0, after.1);
        let moved = between(before.as_ref(), &after);
        moved.into_iter().map(|moved| moved.kind).collect()
    }

    #[test]
    fn waiting_for_a_person_is_told_once_for_each_stage() {
        let nothing: Option<Waits> = None;
        let second = Some(Waits::Approval { stage: 2 });
        let third = Some(Waits::Approval { stage: 3 });
        let until = Timestamp::from_millis(9000);
        let timed = Some(Waits::Time { until });
        let paused = Some(Waits::Resume {
            by: "ana".to_owned(),
            since: until,
            reason: None,
        });
        for (before, after, expected) in [
            (&nothing, &second, Some("awaiting_approval")),
            (&second, &second, None),
            (&second, &third, Some("awaiting_approval")),
            (&second, &nothing, None),
            (&nothing, &timed, None),
            (&timed, &paused, Some("paused")),
            (&paused, &paused, None),
            (&paused, &timed, Some("resumed")),
            (&paused, &second, Some("awaiting_approval")),
        ] {
            let told = waiting(before.as_ref(), after.as_ref());
            assert_eq!(told, expected, "{before:?} {after:?}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn every_step_is_told_once_also_those_that_were_passed() {
        let running = "null";
        for (kind, before, after, expected) in [
            ("deploy", None, ("preparing", running), vec![]),
            (
                "rollback",
                None,
                ("preparing", running),
                vec!["rollback.created"],
            ),
            (
                "deploy",
                Some(("preparing", running)),
                ("committing", running),
                vec!["deployment.prepared", "deployment.committed"],
            ),
            (
                "deploy",
                Some(("prepared", running)),
                ("committing", running),
                vec!["deployment.prepared", "deployment.committed"],
            ),
            (
                "deploy",
                Some(("committing", running)),
                ("baking", running),
                vec!["deployment.live"],
            ),
            (
                "deploy",
                Some(("baking", running)),
                ("stable", "\"settled\""),
                vec!["deployment.region_settled", "deployment.settled"],
            ),
            (
                "deploy",
                Some(("prepared", running)),
                ("stable", "\"settled\""),
                vec![
                    "deployment.prepared",
                    "deployment.committed",
                    "deployment.live",
                    "deployment.region_settled",
                    "deployment.settled",
                ],
            ),
            (
                "deploy",
                Some(("committing", running)),
                ("rolling-back", running),
                vec!["deployment.returning"],
            ),
            (
                "deploy",
                None,
                ("stable", "\"settled\""),
                vec!["deployment.settled"],
            ),
            (
                "rollback",
                Some(("committing", running)),
                ("stable", "\"settled\""),
                vec![
                    "rollback.live",
                    "deployment.rolled_back",
                    "rollback.settled",
                ],
            ),
            (
                "deploy",
                Some(("baking", running)),
                ("rolling-back", running),
                vec!["deployment.returning"],
            ),
            (
                "deploy",
                Some(("rolling-back", running)),
                ("rolled-back", "\"went-back\""),
                vec!["deployment.rolled_back", "deployment.went_back"],
            ),
            (
                "deploy",
                Some(("preparing", running)),
                ("aborted", "\"aborted\""),
                vec!["deployment.aborted"],
            ),
            (
                "deploy",
                Some(("preparing", running)),
                ("superseded", "\"superseded\""),
                vec!["deployment.superseded"],
            ),
            (
                "deploy",
                Some(("baking", running)),
                ("undecided", "\"needs-operator\""),
                vec!["deployment.undecided", "deployment.needs_operator"],
            ),
            (
                "deploy",
                Some(("stable", "\"settled\"")),
                ("stable", "\"settled\""),
                vec![],
            ),
        ] {
            assert_eq!(
                told(kind, before, after),
                expected,
                "{kind} {before:?} {after:?}"
            );
        }
    }
}
