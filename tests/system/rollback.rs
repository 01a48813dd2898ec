//! Going back: which release, in which region, and when there is none.

use helix_routing::id::ReleaseId;
use helix_routing::rollout::Outcome;
use helix_tests::fleet::{Fleet, release_of};
use helix_tests::folder::Folder;

/// What `/` says in each region, by its release header.
fn live(fleet: &Fleet, project: &str) -> Vec<(String, String)> {
    let host = fleet.host(project);
    fleet
        .edges()
        .map(|(region, edge)| {
            let response = fleet.ask(edge, &host, "/");
            (
                region.to_string(),
                response
                    .header("x-helix-release")
                    .unwrap_or_default()
                    .to_owned(),
            )
        })
        .collect()
}

/// Fails unless every edge of `region` (or of all) serves `release`.
#[track_caller]
fn serves(fleet: &Fleet, project: &str, region: Option<&str>, release: &ReleaseId) {
    for (found, serving) in live(fleet, project) {
        if region.is_none_or(|region| region == found) {
            assert_eq!(serving, release.as_str(), "{project} in {found}");
        }
    }
}

fn three_releases(fleet: &Fleet, project: &str) -> [ReleaseId; 3] {
    ["one", "two", "three"]
        .map(|text| fleet.deploy(project, &Folder::page(&format!("{project} {text}"))))
}

#[test]
fn one_region_goes_back_and_the_other_stays() {
    let fleet = Fleet::shared();
    let [_, second, third] = three_releases(&fleet, "back-one");
    let _ = fleet
        .helix()
        .run(["rollback", "--project", "back-one", "--region", "fra"])
        .with(0);
    serves(&fleet, "back-one", Some("fra"), &second);
    serves(&fleet, "back-one", Some("iad"), &third);
    let site = fleet.api().site("back-one/production").unwrap();
    let held: Vec<bool> = site
        .regions
        .iter()
        .map(|region| region.hold.is_some())
        .collect();
    assert_eq!(
        held,
        [true, false],
        "only the region that went back is held"
    );
    let releases = fleet.api().releases("back-one");
    let history = |release: &ReleaseId| {
        let release = releases.iter().find(|view| view.release == *release);
        release.unwrap().rollouts.clone()
    };
    let back = &history(&second)[0];
    assert_eq!(
        (back.kind.as_str(), back.outcome),
        ("rollback", Some(Outcome::Settled))
    );
    assert_eq!(back.regions.len(), 1, "{back:?}");
    assert_eq!(back.regions[0].region.as_str(), "fra");
    assert_eq!(history(&second)[1].kind, "deploy");
    assert_eq!(history(&third)[0].regions.len(), 2);
    let shown = fleet.helix().run(["releases", "--project", "back-one"]);
    assert!(
        shown.with(0).stdout.contains("rollback by "),
        "the last rollout of a release is shown"
    );
}

#[test]
fn a_second_rollback_goes_further_back_and_a_third_finds_nothing_older() {
    let fleet = Fleet::shared();
    let [first, second, _] = three_releases(&fleet, "back-further");
    let back = || {
        fleet
            .helix()
            .run(["rollback", "--project", "back-further", "--all"])
    };
    let _ = back().with(0);
    serves(&fleet, "back-further", None, &second);
    let _ = back().with(0);
    serves(&fleet, "back-further", None, &first);
    let _ = back().with(6);
    serves(&fleet, "back-further", None, &first);
}

#[test]
fn a_named_release_goes_to_every_region() {
    let fleet = Fleet::shared();
    let [first, ..] = three_releases(&fleet, "back-named");
    let _ = fleet
        .helix()
        .run(["rollback", first.as_str(), "--project", "back-named"])
        .with(0);
    serves(&fleet, "back-named", None, &first);
}

#[test]
fn a_plan_changes_nothing() {
    let fleet = Fleet::shared();
    let [_, second, third] = three_releases(&fleet, "back-plan");
    let planned = fleet
        .helix()
        .run(["rollback", "--project", "back-plan", "--plan"])
        .with(0);
    planned.says(&[second.as_str()]);
    serves(&fleet, "back-plan", None, &third);
    assert_eq!(
        fleet.api().site("back-plan/production").unwrap().rollout,
        None
    );
}

#[test]
fn a_release_that_went_back_is_deployed_again_only_with_the_word() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("back-word", &Folder::page("good"));
    let bad = Folder::page("bad");
    let release = fleet.deploy("back-word", &bad);
    let _ = fleet
        .helix()
        .run(["rollback", "--project", "back-word", "--all"])
        .with(0);
    let path = bad.path().to_str().unwrap();
    fleet
        .deploy_to("back-word", "production", bad.path())
        .with(1)
        .says(&["quarantine"]);
    let lifted = fleet
        .helix()
        .run([
            "deploy",
            path,
            "--project",
            "back-word",
            "--lift-quarantine",
            "--json",
        ])
        .with(0);
    assert_eq!(release_of(&lifted), release);
    serves(&fleet, "back-word", None, &release);
}

#[test]
fn rollbacks_to_what_is_not_there_say_so() {
    let fleet = Fleet::shared();
    let helix = fleet.helix();
    let _ = fleet.deploy("back-none", &Folder::page("only"));
    let unknown = "00000000000000000000";
    helix
        .run(["rollback", unknown, "--project", "back-none"])
        .with(1)
        .says(&[unknown]);
    let _ = helix
        .run(["rollback", "not-a-release", "--project", "back-none"])
        .with(1);
    let _ = helix.run(["rollback", "--project", "back-none"]).with(6);
    let _ = helix
        .run(["rollback", "--project", "back-none", "--region", "mars"])
        .with(1);
    let _ = helix
        .run(["rollback", "--project", "no-such-project"])
        .with(1);
}
