//! A rollout as text: a tree of regions and edges, or a line for each change. *Pure*.

use std::fmt::Write as _;

use helix_routing::api::{BakeView, CheckView, PhaseName, RegionView, RolloutView};
use helix_routing::gate::view::EdgeGates;
use helix_routing::time::Timestamp;

use super::{outcome_name, stages};
use crate::command::flights::draining;

/// The whole rollout, as it is at `now`.
pub(super) fn draw(view: &RolloutView, now: Timestamp) -> String {
    let state = view.outcome.map_or("running", outcome_name);
    let elapsed = now.since(view.started).as_secs_f64();
    let mut text = format!(
        "{} {} by {}: {state} after {elapsed:.1} s",
        view.kind, view.site, view.by
    );
    if let Some(stage) = stages::line(view) {
        write!(text, "\n{stage}").expect("writing to a string cannot fail");
    }
    for (index, region) in view.regions.iter().enumerate() {
        let branch = if index + 1 == view.regions.len() {
            "└─"
        } else {
            "├─"
        };
        write!(text, "\n{branch} {}", line(region)).expect("writing to a string cannot fail");
        let bar = if branch == "├─" { "│" } else { " " };
        for gate in gates(region) {
            write!(text, "\n{bar}    ✘ {gate}").expect("writing to a string cannot fail");
        }
    }
    for drain in drains(view, now) {
        write!(text, "\n{drain}").expect("writing to a string cannot fail");
    }
    text
}

/// What is in flight on releases that are no longer live: it goes on when the rollout has ended.
pub(super) fn drains(view: &RolloutView, now: Timestamp) -> impl Iterator<Item = String> {
    let left = view.in_flight.iter().filter(|flights| flights.draining);
    left.map(move |flights| {
        let (region, release) = (flights.region.as_str(), &flights.release);
        format!(
            "   {region:<8} … draining       {release} {}",
            draining(flights, now)
        )
    })
}

/// A line for each region that differs from the view before.
pub(super) fn changes(before: Option<&RolloutView>, view: &RolloutView) -> Vec<String> {
    // What a bake counts changes every second, and is no news until it decides.
    let quiet = |region: &RegionView| RegionView {
        bake: region.bake.clone().filter(|bake| bake.decided.is_some()),
        ..region.clone()
    };
    // What gates showed has lines of its own, and their passing none.
    let all = |view: &RolloutView| {
        let gates = view.regions.iter().flat_map(gates);
        let gates = gates.map(|gate| format!("         ✘ {gate}"));
        let regions = view.regions.iter().map(|region| line(&quiet(region)));
        let stage = stages::line(view).into_iter();
        stage.chain(regions).chain(gates).collect()
    };
    let known: Vec<String> = before.map(all).unwrap_or_default();
    let mut new: Vec<String> = all(view);
    new.retain(|line| !known.contains(line));
    new
}

/// What gates showed that were not passed, each with the edge.
fn gates(region: &RegionView) -> impl Iterator<Item = String> {
    region.gates.iter().flat_map(|EdgeGates { edge, results }| {
        let failed = results.iter().filter(|result| !result.is_passed());
        let lines = failed.map(move |result| format!("{edge}: {result}"));
        // The reason of the region tells one of them already.
        lines.filter(|line| {
            let reason = region.reason.as_deref().unwrap_or_default();
            !reason.contains(line.as_str())
        })
    })
}

fn line(region: &RegionView) -> String {
    let RegionView {
        region: name,
        release,
        phase,
        generation,
        required,
        done,
        reason,
        gates: _,
        bake,
        weight,
    } = region;
    let mut text = format!(
        "{:<8} {} {:<14} {release} g{generation}",
        name.as_str(),
        mark(*phase),
        phase_name(*phase)
    );
    for edge in required {
        let mark = if done.contains(edge) { "✔" } else { "·" };
        write!(text, "  {edge} {mark}").expect("writing to a string cannot fail");
    }
    if let Some(weight) = weight {
        write!(text, "  {weight}% of visitors").expect("writing to a string cannot fail");
    }
    let baked = bake.as_ref().map(bake_line).unwrap_or_default();
    if !baked.is_empty() {
        write!(text, "  {baked}").expect("writing to a string cannot fail");
    }
    // Of a bake that failed both say the same.
    if let Some(reason) = reason.as_ref().filter(|reason| !baked.contains(*reason)) {
        write!(text, "  {reason}").expect("writing to a string cannot fail");
    }
    text
}

/// As in `pass: 5xx 0.02% (base 0.02%), p99 81ms (base 78ms)`.
fn bake_line(bake: &BakeView) -> String {
    let requests = format!("{} of {} requests", bake.requests, bake.min_requests);
    let is_quiet = bake.requests < u64::from(bake.min_requests);
    let measures = bake.measures.iter().map(ToString::to_string);
    let checks = bake.checks.iter().map(|check| {
        let CheckView {
            name,
            answer,
            error,
            ..
        } = check;
        match (answer, error) {
            (_, Some(error)) => format!("{name}: {error}"),
            (Some(answer), None) => format!("{name} {answer}"),
            (None, None) => format!("{name} -"),
        }
    });
    let shown: Vec<String> = is_quiet
        .then_some(requests)
        .into_iter()
        .chain(measures)
        .chain(checks)
        .collect();
    let verdict = match (bake.verdict, bake.decided) {
        (Some(verdict), _) => format!("{verdict}: "),
        (None, Some(_)) => "ended: ".to_owned(),
        (None, None) => String::new(),
    };
    format!("{verdict}{}", shown.join(", "))
}

const fn mark(phase: PhaseName) -> &'static str {
    match phase {
        PhaseName::Pending => "·",
        PhaseName::Preparing
        | PhaseName::Prepared
        | PhaseName::Committing
        | PhaseName::Admitting
        | PhaseName::Canary
        | PhaseName::Admitted
        | PhaseName::Baking
        | PhaseName::RollingBack => "◌",
        PhaseName::Stable => "✔",
        PhaseName::RolledBack | PhaseName::Superseded => "↩",
        PhaseName::Undecided => "?",
        PhaseName::RevertBlocked | PhaseName::Aborted => "✘",
    }
}

/// A phase as it is written everywhere.
pub(crate) const fn phase_name(phase: PhaseName) -> &'static str {
    match phase {
        PhaseName::Pending => "pending",
        PhaseName::Preparing => "preparing",
        PhaseName::Prepared => "prepared",
        PhaseName::Committing => "committing",
        PhaseName::Admitting => "admitting",
        PhaseName::Canary => "canary",
        PhaseName::Admitted => "admitted",
        PhaseName::Baking => "baking",
        PhaseName::Stable => "stable",
        PhaseName::Undecided => "undecided",
        PhaseName::RollingBack => "rolling-back",
        PhaseName::RolledBack => "rolled-back",
        PhaseName::RevertBlocked => "revert-blocked",
        PhaseName::Aborted => "aborted",
        PhaseName::Superseded => "superseded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(phase: &str, done: &str) -> RolloutView {
        let region = |name: &str, phase: &str, done: &str| {
            format!(
                r#"{{"region":"{name}","release":"00112233445566778899","phase":"{phase}","generation":43,
                    "required":["{name}-1","{name}-2"],"done":[{done}],"reason":null}}"#
            )
        };
        let json = format!(
            r#"{{"rollout":"00112233445566aa","site":"shop/production","kind":"deploy","by":"ana","revision":3,
                "started":1000,"changed":2000,"outcome":null,"regions":[{},{}]}}"#,
            region("fra", phase, done),
            region("iad", "preparing", ""),
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn every_region_and_edge_has_its_place() {
        let text = draw(
            &view("committing", "\"fra-2\""),
            Timestamp::from_millis(2500),
        );
        assert_eq!(
            text,
            "deploy shop/production by ana: running after 1.5 s\n\
             ├─ fra      ◌ committing     00112233445566778899 g43  fra-1 ·  fra-2 ✔\n\
             └─ iad      ◌ preparing      00112233445566778899 g43  iad-1 ·  iad-2 ·"
        );
    }

    fn baking(requests: u64, decided: &str) -> RolloutView {
        let mut view = view("baking", "");
        let bake = format!(
            r#"{{"since":1000,"until":9000,"decided":{decided},"requests":{requests},"min_requests":100,"baseline_requests":500,
                "measures":[{{"name":"5xx","unit":"millionths","value":200,"baseline":100,"limit":10000}},
                            {{"name":"p99","unit":"micros","value":81920,"baseline":null,"limit":null}}],
                "checks":[{{"name":"carts","bounds":"at most 1","answer":"0.5","broken":false,"error":null}}]}}"#
        );
        view.regions[0].bake = Some(serde_json::from_str(&bake).unwrap());
        view
    }

    #[test]
    fn a_bake_shows_what_was_measured_and_is_no_news_until_it_decides() {
        let (early, later) = (
            baking(20, r#"null,"verdict":null"#),
            baking(200, r#"null,"verdict":null"#),
        );
        let decided = baking(200, r#"9000,"verdict":"pass""#);
        let text = draw(&early, Timestamp::from_millis(2500));
        let shown = "20 of 100 requests, 5xx 0.02% (base 0.01%), p99 81ms, carts 0.5";
        assert!(text.contains(shown), "{text}");
        assert!(changes(Some(&early), &later).is_empty());
        let news = changes(Some(&later), &decided);
        assert!(news[0].contains("pass: 5xx 0.02%"), "{news:?}");
    }

    #[test]
    fn only_what_changed_is_a_line() {
        let (first, second) = (view("preparing", ""), view("preparing", "\"fra-1\""));
        assert_eq!(changes(None, &first).len(), 2);
        assert_eq!(changes(Some(&first), &second).len(), 1);
        assert!(changes(Some(&second), &second).is_empty());
    }

    #[test]
    fn a_gate_that_was_not_passed_is_told_with_its_edge_and_evidence() {
        let before = view("preparing", "");
        let mut after = before.clone();
        let results = r#"[
            {"gate":"artifact","kind":"artifact","verdict":"pass","asked":"","status":null,"body":null,"reason":null,
                "probes":0,"elapsed_ms":0,"last_probe":null},
            {"gate":"home","kind":"http","verdict":"fail","asked":"http://shop/","status":404,"body":"gone",
                "reason":"answered 404, wanted 2xx","probes":3,"elapsed_ms":2040,"last_probe":1}]"#;
        after.regions[0].gates.push(EdgeGates {
            edge: "fra-1".parse().unwrap(),
            results: serde_json::from_str(results).unwrap(),
        });
        let told = "fra-1: gate home: fail: http://shop/ answered 404, wanted 2xx (3 probes in 2.0 s): \"gone\"";
        assert_eq!(
            changes(Some(&before), &after),
            [format!("         ✘ {told}")]
        );
        let drawn = draw(&after, Timestamp::from_millis(2500));
        assert!(drawn.contains(&format!("\n│    ✘ {told}\n└─")), "{drawn}");
        after.regions[0].gates[0].results.pop();
        assert!(
            changes(Some(&before), &after).is_empty(),
            "passing is no news"
        );
    }
}
