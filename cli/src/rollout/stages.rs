//! A rollout's stages as text: which one it is at, and what it waits for, with the command to type. *Pure*.

use helix_routing::api::{PlanView, RolloutView, StageView, Waits};
use helix_routing::id::{RegionId, RolloutId};

use crate::command::table::moment;

/// As in `stage 2 of 3: iad, gru`; nothing where there is one stage and no wait, and once it is over.
pub(crate) fn line(view: &RolloutView) -> Option<String> {
    let plan = view.plan.as_ref().filter(|_| view.outcome.is_none())?;
    if plan.stages.len() < 2 && plan.waits.is_none() {
        return None;
    }
    let mut text = place(plan);
    if let Some(waits) = &plan.waits {
        text.push_str("; ");
        text.push_str(&waiting(waits, &view.rollout));
    }
    Some(text)
}

fn place(plan: &PlanView) -> String {
    let stage = usize::from(plan.stage)
        .checked_sub(1)
        .and_then(|index| plan.stages.get(index));
    let what = stage.map(described).unwrap_or_default();
    format!("stage {} of {}: {what}", plan.stage, plan.stages.len())
}

/// As in `5% of fra for 2m`.
pub(crate) fn described(stage: &StageView) -> String {
    let regions: Vec<&str> = stage.regions.iter().map(RegionId::as_str).collect();
    let regions = regions.join(", ");
    match stage.percent {
        100.. => regions,
        percent => format!("{percent}% of {regions} for {}", stage.time),
    }
}

/// What a rollout waits for, and what to type.
pub(crate) fn waiting(waits: &Waits, rollout: &RolloutId) -> String {
    match waits {
        Waits::Resume { by, since, reason } => {
            let reason = reason.as_ref().map(|reason| format!(": {reason}"));
            format!(
                "paused by {by} at {} UTC{}; go on with `helix rollout resume {rollout}`",
                moment(*since),
                reason.unwrap_or_default()
            )
        }
        Waits::Approval { stage } => format!(
            "waits for approval: `helix rollout approve {rollout} --stage {stage}`, or `helix rollout abort {rollout}`"
        ),
        Waits::Time { until } => format!("begins at {} UTC", moment(*until)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(stages: &str, waits: &str) -> RolloutView {
        let json = format!(
            r#"{{"rollout":"00112233445566aa","site":"shop/production","kind":"deploy","by":"ana","revision":3,
                "started":1000,"changed":2000,"outcome":null,"regions":[],
                "plan":{{"stages":[{stages}],"stage":1,"waits":{waits}}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    const FRA: &str = r#"{"wave":1,"regions":["fra"],"percent":5,"time":"2m","approve":false}"#;
    const BOTH: &str =
        r#"{"wave":1,"regions":["fra","iad"],"percent":100,"time":"0ms","approve":false}"#;

    #[test]
    fn a_stage_is_told_with_what_it_waits_for_and_what_to_type() {
        let two = format!("{FRA},{BOTH}");
        for (stages, waits, text) in [
            (BOTH, "null", None),
            (two.as_str(), "null", Some("stage 1 of 2: 5% of fra for 2m")),
            (
                BOTH,
                r#"{"for":"approval","stage":1}"#,
                Some(
                    "stage 1 of 1: fra, iad; waits for approval: `helix rollout approve 00112233445566aa --stage 1`, \
                     or `helix rollout abort 00112233445566aa`",
                ),
            ),
            (
                BOTH,
                r#"{"for":"time","until":0}"#,
                Some("stage 1 of 1: fra, iad; begins at 1970-01-01 00:00:00 UTC"),
            ),
            (
                BOTH,
                r#"{"for":"resume","by":"ben","since":0,"reason":"looks odd"}"#,
                Some(
                    "stage 1 of 1: fra, iad; paused by ben at 1970-01-01 00:00:00 UTC: looks odd; \
                     go on with `helix rollout resume 00112233445566aa`",
                ),
            ),
        ] {
            assert_eq!(line(&view(stages, waits)).as_deref(), text);
        }
        let mut over = view(&two, "null");
        over.outcome = Some(helix_routing::rollout::Outcome::Settled);
        assert_eq!(line(&over), None);
    }
}
