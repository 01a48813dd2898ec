//! `helix gate run`: lets edges run the gates of a release, and shows what each of them found.

use std::process::ExitCode;
use std::time::Duration;

use helix_routing::gate::result::GateResult;
use helix_routing::gate::view::{EdgeGates, GateRunView, NewGateRun, RegionGates};
use helix_routing::id::EdgeId;
use helix_routing::rollout::Outcome;
use tokio::time::{Instant, sleep};

use super::joined;
use super::table::table;
use crate::arguments::{Gate, RunGates};
use crate::failure::STILL_RUNNING;
use crate::output;
use helix_client::Origin;
use helix_client::retry::{FIRST_CONTACT, patiently};

/// What edges get beyond the time that the gates may take: to hear of it, and to fetch the release if they do not have it.
const FETCH_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at what was found.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) async fn run(origin: &Origin, arguments: Gate, json: bool) -> anyhow::Result<ExitCode> {
    let Gate::Run(RunGates {
        release,
        regions,
        gate,
        detach,
    }) = arguments;
    let new = NewGateRun {
        regions: (!regions.is_empty()).then_some(regions),
        gate,
    };
    let path = ["releases", release.as_str(), "gates"];
    // The same again is one more run, which takes the place of the one before.
    let mut view: GateRunView =
        patiently(FIRST_CONTACT, async || origin.create(&path, &new).await).await?;
    let until = Instant::now() + Duration::from_millis(view.patience_ms) + FETCH_LIMIT;
    while !detach && is_waiting(&view) && Instant::now() < until {
        sleep(LOOK_INTERVAL).await;
        look_again(&mut view, origin.read(&path).await?);
    }
    if json {
        output::print_json(&view)?;
    } else {
        show(&view);
    }
    Ok(ExitCode::from(exit_code(&view, detach)))
}

fn is_waiting(view: &GateRunView) -> bool {
    view.regions.iter().any(|region| !region.waiting.is_empty())
}

/// Takes over what is known by now about the regions that were asked. What a later run finds is as good.
fn look_again(view: &mut GateRunView, newest: GateRunView) {
    for newer in newest.regions {
        let ours = view
            .regions
            .iter_mut()
            .find(|ours| ours.region == newer.region && ours.run <= newer.run);
        if let Some(ours) = ours {
            *ours = newer;
        }
    }
}

/// A gate that was not passed is what would have ended a rollout before traffic.
fn exit_code(view: &GateRunView, detach: bool) -> u8 {
    let is_failed = results(view).any(|(_, result)| !result.is_passed());
    let is_heard = view.regions.iter().all(|region| !region.done.is_empty());
    if is_failed {
        Outcome::Aborted.exit_code()
    } else if detach || (is_heard && !is_waiting(view)) {
        Outcome::Settled.exit_code()
    } else {
        STILL_RUNNING
    }
}

fn results(view: &GateRunView) -> impl Iterator<Item = (&EdgeId, &GateResult)> {
    let edges = view.regions.iter().flat_map(|region| &region.done);
    edges.flat_map(|EdgeGates { edge, results }| results.iter().map(move |result| (edge, result)))
}

fn show(view: &GateRunView) {
    let rows: Vec<_> = results(view)
        .map(|(edge, result)| row(edge, result))
        .collect();
    if !rows.is_empty() {
        let heads = [
            "EDGE", "GATE", "KIND", "VERDICT", "PROBES", "TOOK", "EVIDENCE",
        ];
        output::print(&table(heads, &rows));
    }
    for region in &view.regions {
        for line in left(region) {
            output::say(&line);
        }
    }
}

fn row(edge: &EdgeId, result: &GateResult) -> [String; 7] {
    [
        edge.to_string(),
        result.gate.clone(),
        result.kind.to_string(),
        result.verdict.to_string(),
        result.probes.to_string(),
        format!(
            "{}.{:03} s",
            result.elapsed_ms / 1000,
            result.elapsed_ms % 1000
        ),
        evidence(result),
    ]
}

/// What was asked and what came of it; of a gate that was passed only what is worth knowing.
fn evidence(result: &GateResult) -> String {
    let status = result.status.map(|status| status.to_string());
    let parts = [
        Some(result.asked.clone()),
        result.reason.clone().or(status),
        result
            .body
            .as_ref()
            .filter(|body| !result.is_passed() && !body.is_empty())
            .map(|body| format!("{body:?}")),
    ];
    let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

/// The edges of a region that have found nothing yet.
fn left(region: &RegionGates) -> Vec<String> {
    let name = &region.region;
    let mut lines = Vec::new();
    if !region.waiting.is_empty() {
        lines.push(format!("{name}: not yet: {}", joined(&region.waiting)));
    }
    if !region.absent.is_empty() {
        lines.push(format!("{name}: not there: {}", joined(&region.absent)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(verdict: &str, waiting: &str, absent: &str) -> GateRunView {
        let json = format!(
            r#"{{"site":"shop/production","release":"00112233445566778899","patience_ms":20000,"regions":[{{"region":"fra","run":3,
                "done":[{{"edge":"fra-1","results":[{{"gate":"home","kind":"http","verdict":"{verdict}","asked":"http://shop/",
                    "status":404,"body":"gone","reason":null,"probes":3,"elapsed_ms":2040,"last_probe":1}}]}}],
                "waiting":[{waiting}],"absent":[{absent}]}}]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn the_exit_code_says_whether_every_gate_was_passed() {
        for (verdict, waiting, absent, code) in [
            ("pass", "", "", 0),
            ("pass", "", "\"fra-2\"", 0),
            ("pass", "\"fra-2\"", "", 4),
            ("fail", "", "", 3),
            ("error", "\"fra-2\"", "", 3),
            ("inconclusive", "", "", 3),
        ] {
            assert_eq!(exit_code(&view(verdict, waiting, absent), false), code);
        }
        let mut nobody = view("pass", "", "\"fra-1\"");
        nobody.regions[0].done.clear();
        assert_eq!(exit_code(&nobody, false), 4, "nobody has run them");
        assert_eq!(exit_code(&nobody, true), 0);
    }

    #[test]
    fn a_row_holds_what_was_seen() {
        let failed = view("fail", "", "");
        let (edge, result) = results(&failed).next().unwrap();
        assert_eq!(
            row(edge, result),
            [
                "fra-1",
                "home",
                "http",
                "fail",
                "3",
                "2.040 s",
                "http://shop/ 404 \"gone\""
            ]
        );
        let passed = view("pass", "", "");
        let (_, result) = results(&passed).next().unwrap();
        assert_eq!(evidence(result), "http://shop/ 404");
    }

    #[test]
    fn an_older_run_does_not_take_the_place_of_ours() {
        let mut ours = view("pass", "\"fra-2\"", "");
        let mut older = view("fail", "", "");
        older.regions[0].run = helix_routing::id::Generation(2);
        look_again(&mut ours, older);
        assert!(is_waiting(&ours));
        look_again(&mut ours, view("pass", "", ""));
        assert!(!is_waiting(&ours));
    }
}
