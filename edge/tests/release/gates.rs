//! Gates in the release story: what keeps a candidate from being prepared, and runs that are asked for by hand.

use helix_routing::gate::record::GateRecord;
use helix_routing::gate::result::GateResult;
use helix_routing::id::{Epoch, Generation};
use helix_routing::record::ReleaseRef;
use helix_routing::report::CandidateState;
use helix_routing::routes::{Routes, SiteConfig};
use helix_routing::time::Timestamp;
use helix_routing::verdict::Verdict;
use helix_service::clock;

use crate::settle;
use crate::world::*;

fn routes(body: &str) -> Routes {
    let gate = format!(
        r#"{{"gates":[{{"name":"home","kind":"http","body":"{body}","interval":"100ms"}}]}}"#
    );
    let config: SiteConfig = serde_json::from_str(&gate).unwrap();
    Routes::compile(config, None, None).unwrap()
}

fn run(generation: u64, release: &ReleaseRef, at: Timestamp) -> GateRecord {
    GateRecord {
        site: SITE.parse().unwrap(),
        region: "fra".parse().unwrap(),
        epoch: Epoch(1),
        generation: Generation(generation),
        at,
        release: release.clone(),
        gate: None,
    }
}

impl World {
    /// What the newest report about gates of `release` in this run says.
    fn gated(&self, release: &ReleaseRef, run: Option<u64>) -> Option<Vec<GateResult>> {
        let gates = self.gates.lock().unwrap();
        let of = |report: &&helix_routing::gate::report::GatesReport| {
            report.release == release.release && report.run == run.map(Generation)
        };
        gates
            .iter()
            .rev()
            .find(of)
            .map(|report| report.results.clone())
    }
}

#[tokio::test]
async fn a_candidate_is_prepared_when_its_gates_are_passed_and_not_before() {
    in_world!(world, {
        let edge = world.edge().await;
        let one = settle(&mut world, "one").await;
        let bad = world.ruled_release(SITE, &[("index.html", b"two")], routes("three"));
        world.site(&record(3, Some(&one), Some(&bad), &[])).await;
        let failed = |state: Option<CandidateState>| match state {
            Some(CandidateState::Failed(reason)) => Some(reason),
            Some(CandidateState::Preparing | CandidateState::Prepared) | None => None,
        };
        world
            .until(|| failed(world.candidate_state()).is_some())
            .await;
        let reason = failed(world.candidate_state()).unwrap();
        assert!(reason.starts_with("gate home: fail: "), "{reason}");
        assert!(reason.contains("does not hold \"three\""), "{reason}");
        let results = world.gated(&bad, None).expect("gates are reported first");
        assert_eq!(results[0].gate, "artifact");
        assert_eq!((results[1].verdict, results[1].probes), (Verdict::Fail, 3));
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one");

        let good = world.ruled_release(SITE, &[("index.html", b"three")], routes("three"));
        world.site(&record(4, Some(&one), Some(&good), &[])).await;
        world
            .until(|| world.candidate_state() == Some(CandidateState::Prepared))
            .await;
        let results = world.gated(&good, None).expect("gates are reported first");
        assert!(results.iter().all(GateResult::is_passed), "{results:?}");
        // What cannot be had is told as the artifact's own gate.
        let stolen = world.release("shoe/production", &[("index.html", b"stolen")]);
        world.site(&record(5, Some(&one), Some(&stolen), &[])).await;
        world.until(|| world.gated(&stolen, None).is_some()).await;
        let results = world.gated(&stolen, None).unwrap();
        assert_eq!(
            (results[0].gate.as_str(), results[0].verdict),
            ("artifact", Verdict::Fail)
        );
        edge.stop().await;
    });
}

#[tokio::test]
async fn a_run_by_hand_is_carried_out_once_and_changes_nothing() {
    in_world!(world, {
        let edge = world.edge().await;
        settle(&mut world, "one").await;
        let elsewhere = world.ruled_release(SITE, &[("index.html", b"two")], routes("two"));
        let long_ago = Timestamp::from_millis(0);
        world.gate(&run(1, &elsewhere, long_ago)).await;
        world.gate(&run(2, &elsewhere, clock::now())).await;
        world
            .until(|| world.gated(&elsewhere, Some(2)).is_some())
            .await;
        assert_eq!(
            world.gated(&elsewhere, Some(1)),
            None,
            "nobody waits for it any more"
        );
        let results = world.gated(&elsewhere, Some(2)).unwrap();
        let verdicts: Vec<_> = results
            .iter()
            .map(|one| (one.gate.as_str(), one.verdict))
            .collect();
        assert_eq!(
            verdicts,
            [("artifact", Verdict::Pass), ("home", Verdict::Pass)]
        );
        let home = GateRecord {
            gate: Some("home".to_owned()),
            ..run(3, &elsewhere, clock::now())
        };
        world.gate(&home).await;
        world
            .until(|| world.gated(&elsewhere, Some(3)).is_some())
            .await;
        assert_eq!(world.gated(&elsewhere, Some(3)).unwrap().len(), 1);
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one");
        assert!(world.refusals.lock().unwrap().is_empty());
        let packs = world.folder.path().join("edge/store/packs");
        world
            .until(|| std::fs::read_dir(&packs).unwrap().count() == 1)
            .await;
        edge.stop().await;
    });
}
