//! Edges that are killed by the hundred, while deployments go on.

use helix_tests::checker::{Checker, Tolerance};
use helix_tests::fleet::{Fleet, Options};

use crate::{PROJECT, deploy, one_fleet, recovered, report, try_deploy};

fn survives_restarts(times: usize) {
    let _turn = one_fleet();
    let fleet = Fleet::start(&Options::default());
    let mut known = vec![deploy(&fleet, "first")];
    let checker = Checker::start(&fleet, &fleet.host(PROJECT), Tolerance::LostConnections);
    let edges: Vec<String> = fleet
        .edges()
        .map(|(_, edge)| edge.edge.to_string())
        .collect();
    for round in 0..times {
        // A whole region at once, every now and then.
        let killed = if round % 10 == 9 { 2 } else { 1 };
        for number in 0..killed {
            let name = &edges[(round + number) % edges.len()];
            let before = fleet.kill(name);
            fleet.wait_for_successor(name, before);
        }
        if round % 5 == 0 {
            let text = format!("round {round}");
            let (_, said) = try_deploy(&fleet, &text);
            // Where it settled after all, its page may be seen.
            if let Some(release) = release_in(&said) {
                known.push((release, helix_tests::folder::page_digest(&text)));
            }
        }
    }
    let (whole_after, last) = recovered(&fleet, "last");
    known.push(last);
    let summary = checker.finish(&known);
    report::line(&format!("edges killed {times} times"), summary, whole_after);
}

/// The release that a deployment with `--json` named.
pub(crate) fn release_in(said: &str) -> Option<helix_routing::id::ReleaseId> {
    let (_, after) = said.split_once("\"release\":")?;
    let start = after.trim_start().strip_prefix('"')?;
    start.split_once('"')?.0.parse().ok()
}

#[test]
fn edges_are_killed_ten_times() {
    survives_restarts(10);
}

#[test]
#[ignore = "minutes: make torture"]
fn edges_are_killed_by_the_hundred() {
    survives_restarts(200);
}
