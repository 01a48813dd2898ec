//! The hosts below `preview.<project>.<base>`.

use helix_tests::fleet::{Fleet, REVIVE_LIMIT, release_of};
use helix_tests::folder::{Folder, page};
use helix_tests::wait;

fn waits_for(fleet: &Fleet, host: &str, text: &str) {
    for (_, edge) in fleet.edges() {
        wait::until_true(
            &format!("{host} shows {text} on {}", edge.edge),
            REVIVE_LIMIT,
            || {
                let response = fleet.ask(edge, host, "/");
                response.status == 200 && response.text() == page(text)
            },
        );
    }
}

#[test]
fn the_alias_follows_the_newest_settled_preview() {
    let fleet = Fleet::shared();
    let alias = format!("preview.{}", fleet.host("look"));
    let _ = fleet.deploy("look", &Folder::page("main"));
    fleet.all_answer(&alias, "/", 404, None);
    for (environment, text) in [
        ("preview/7", "seven"),
        ("preview/8", "eight"),
        ("preview/7", "seven again"),
    ] {
        let folder = Folder::page(text);
        let _ = fleet.deploy_to("look", environment, folder.path()).with(0);
        let number = environment.trim_start_matches("preview/");
        waits_for(&fleet, &format!("pr-{number}.{alias}"), text);
        waits_for(&fleet, &alias, text);
    }
    waits_for(&fleet, &format!("pr-8.{alias}"), "eight");
    fleet.all_answer(&fleet.host("look"), "/", 200, Some(page("main").as_bytes()));
}

#[test]
fn a_release_keeps_its_own_name_after_the_next_one() {
    let fleet = Fleet::shared();
    let folder = Folder::page("lasting");
    let first = release_of(
        &fleet
            .deploy_to("lasting", "production", folder.path())
            .with(0),
    );
    let second = fleet.deploy("lasting", &Folder::page("newer"));
    let below = |release: &str| format!("{release}.preview.{}", fleet.host("lasting"));
    fleet.all_answer(
        &below(first.as_str()),
        "/",
        200,
        Some(page("lasting").as_bytes()),
    );
    fleet.all_answer(
        &below(second.as_str()),
        "/",
        200,
        Some(page("newer").as_bytes()),
    );
    fleet.all_answer(&below("00000000000000000000"), "/", 404, None);
    for (_, edge) in fleet.edges() {
        let response = fleet.ask(edge, &below(first.as_str()), "/");
        assert_eq!(response.header("x-helix-release"), Some(first.as_str()));
        assert_eq!(response.header("x-robots-tag"), Some("noindex"));
    }
}
