//! Rollouts that meet each other, and what is said about them.

use helix_routing::rollout::Outcome;
use helix_tests::command::finish;
use helix_tests::fleet::{Fleet, REVIVE_LIMIT};
use helix_tests::folder::{Folder, noise, page};
use helix_tests::wait;

#[test]
fn the_newer_of_two_deployments_wins() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("race", &Folder::page("before"));
    let slow = Folder::page("older").with("big.bin", &noise(7, 60_000_000));
    let older = fleet
        .helix()
        .start(["deploy", slow.path().to_str().unwrap(), "--project", "race"]);
    wait::until_true("the older rollout runs", REVIVE_LIMIT, || {
        fleet
            .api()
            .site("race/production")
            .is_some_and(|site| site.rollout.is_some())
    });
    let newer = fleet.deploy_to("race", "production", Folder::page("newer").path());
    let older = finish(older);
    let _ = newer.with(0);
    let _ = older.with(5);
    fleet.all_answer(
        &fleet.host("race"),
        "/",
        200,
        Some(page("newer").as_bytes()),
    );
}

#[test]
fn a_rollout_can_be_watched_after_it_ended() {
    let fleet = Fleet::shared();
    let folder = Folder::page("watched");
    let ended = fleet
        .deploy_to("watched", "production", folder.path())
        .with(0);
    let json = ended.json();
    let rollout = json.get("rollout").and_then(|rollout| {
        rollout
            .as_str()
            .or_else(|| rollout.get("rollout")?.as_str())
    });
    let rollout = rollout.unwrap_or_else(|| panic!("no rollout in {json}"));
    let _ = fleet.helix().run(["rollout", "watch", rollout]).with(0);
    let view = fleet.api().rollout(&rollout.parse().unwrap());
    assert_eq!(view.outcome, Some(Outcome::Settled));
    assert_eq!(view.regions.len(), fleet.info.regions.len());
}

#[test]
fn stdout_of_deploy_is_the_address_and_nothing_else() {
    let fleet = Fleet::shared();
    let folder = Folder::page("address");
    let ended = fleet
        .helix()
        .run([
            "deploy",
            folder.path().to_str().unwrap(),
            "--project",
            "address",
        ])
        .with(0);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("http://address.helix.localhost"),
        "{lines:?}"
    );
}

#[test]
fn the_openapi_document_lists_every_path() {
    let fleet = Fleet::shared();
    let document: serde_json::Value = fleet.api().get("/openapi.json");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/v1/status",
        "/v1/projects/{project}/deployments",
        "/v1/rollouts/{rollout}/events",
    ] {
        assert!(document["paths"].get(path).is_some(), "{path} is missing");
    }
}
