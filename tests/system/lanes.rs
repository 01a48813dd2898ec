//! Who may deploy, and when: freezes, locks, and pushes that come in the wrong order.

use std::time::Duration;

use helix_routing::api::Waits;
use helix_tests::command::{Ended, Helix};
use helix_tests::fleet::Fleet;
use helix_tests::folder::{Folder, page};
use helix_tests::wait;

/// Everything is prepared within this, on a loaded machine.
const STAGE_LIMIT: Duration = Duration::from_secs(60);

fn deploy(helix: &Helix, project: &str, folder: &Folder, more: &[&str]) -> Ended {
    let path = folder.path().to_str().unwrap();
    let mut arguments = vec!["deploy", path, "--project", project, "--json"];
    arguments.extend_from_slice(more);
    helix.run(arguments)
}

/// The command with a new token of a role.
fn with_token(fleet: &Fleet, name: &str, role: &str) -> Helix {
    let made = fleet
        .helix()
        .run(["token", "create", name, "--role", role])
        .with(0);
    Helix {
        token: made.stdout.trim().to_owned(),
        ..fleet.helix()
    }
}

#[track_caller]
fn serves(fleet: &Fleet, project: &str, text: &str) {
    let page = page(text);
    fleet.all_answer(&fleet.host(project), "/", 200, Some(page.as_bytes()));
}

#[test]
fn a_push_that_comes_after_a_newer_one_is_superseded_on_arrival() {
    let fleet = Fleet::shared();
    let helix = fleet.helix();
    let _ = deploy(
        &helix,
        "lane-push",
        &Folder::page("nine"),
        &["--push-seq", "9"],
    )
    .with(0);
    deploy(
        &helix,
        "lane-push",
        &Folder::page("seven"),
        &["--push-seq", "7"],
    )
    .with(5)
    .says(&["push 7 came after push 9"]);
    serves(&fleet, "lane-push", "nine");
    let _ = deploy(
        &helix,
        "lane-push",
        &Folder::page("ten"),
        &["--push-seq", "10"],
    )
    .with(0);
    serves(&fleet, "lane-push", "ten");
    // Without a number it is the newest.
    let _ = deploy(&helix, "lane-push", &Folder::page("by hand"), &[]).with(0);
    serves(&fleet, "lane-push", "by hand");
}

#[test]
fn a_freeze_refuses_deployments_and_no_rollback() {
    let fleet = Fleet::shared();
    let helix = fleet.helix();
    let _ = deploy(&helix, "lane-freeze", &Folder::page("first"), &[]).with(0);
    let _ = deploy(&helix, "lane-freeze", &Folder::page("second"), &[]).with(0);
    let freeze = |more: &[&str]| {
        let named = ["freeze", more[0], "--project", "lane-freeze"];
        helix.run([&named, &more[1..]].concat())
    };
    freeze(&["add", "--until", "2020-01-01T00:00:00Z", "-m", "past"])
        .with(1)
        .says(&["later than now"]);
    let added = freeze(&["add", "--until", "+1h", "-m", "the fair"]).with(0);
    added.says(&["the fair"]);
    freeze(&["list"]).with(0).says(&["the fair"]);

    let third = Folder::page("third");
    deploy(&helix, "lane-freeze", &third, &[]).with(1).says(&[
        "is frozen",
        "the fair",
        "--override-freeze",
    ]);
    serves(&fleet, "lane-freeze", "second");
    let _ = deploy(&helix, "lane-freeze", &third, &["--env", "preview/1"]).with(0);
    let _ = helix.run(["rollback", "--project", "lane-freeze"]).with(0);
    serves(&fleet, "lane-freeze", "first");

    // Who waits is prepared; who has a reason goes on.
    let waits = deploy(
        &helix,
        "lane-freeze",
        &third,
        &["--wait-freeze", "--detach"],
    );
    let _ = waits.with(0);
    wait::until_true("it waits for the freeze to end", STAGE_LIMIT, || {
        let site = fleet.api().site("lane-freeze/production").unwrap();
        matches!(site.waits, Some(Waits::Time { .. }))
    });
    let urgent = ["--override-freeze", "the shop is down"];
    let _ = deploy(&helix, "lane-freeze", &third, &urgent).with(0);
    serves(&fleet, "lane-freeze", "third");

    let id = freeze(&["list", "--json"]).json()[0]["id"].clone();
    let _ = freeze(&["remove", id.as_str().unwrap()]).with(0);
    freeze(&["list"]).with(0).says(&["no freezes"]);
    let _ = deploy(&helix, "lane-freeze", &Folder::page("fourth"), &[]).with(0);
}

#[test]
fn a_lock_names_its_holder_and_holds_up_everybody_else_but_an_operator_who_goes_back() {
    let fleet = Fleet::shared();
    let operator = fleet.helix();
    let _ = deploy(&operator, "lane-lock", &Folder::page("first"), &[]).with(0);
    let _ = deploy(&operator, "lane-lock", &Folder::page("second"), &[]).with(0);
    let ana = with_token(&fleet, "ana", "deploy");
    let ben = with_token(&fleet, "ben", "deploy");
    let lock = |who: &Helix, more: &[&str]| {
        let named = ["lock", more[0], "--project", "lane-lock"];
        who.run([&named, &more[1..]].concat())
    };
    lock(&ben, &["status"]).with(0).says(&["is not locked"]);
    let take = ["acquire", "-m", "migrating carts", "--ttl", "1h"];
    lock(&ana, &take).with(0).says(&["locked by ana"]);
    for told in [
        lock(&ben, &take),
        lock(&ben, &["release"]),
        lock(&ben, &["release", "--force"]),
        deploy(&ben, "lane-lock", &Folder::page("third"), &[]),
        deploy(&operator, "lane-lock", &Folder::page("third"), &[]),
        ben.run(["rollback", "--project", "lane-lock"]),
    ] {
        told.with(1)
            .says(&["locked by ana for", "more: migrating carts"]);
    }
    let _ = operator.run(["rollback", "--project", "lane-lock"]).with(0);
    serves(&fleet, "lane-lock", "first");
    let _ = deploy(&ana, "lane-lock", &Folder::page("third"), &[]).with(0);
    serves(&fleet, "lane-lock", "third");
    lock(&operator, &["release", "--force"])
        .with(0)
        .says(&["is not locked"]);
    let _ = deploy(&ben, "lane-lock", &Folder::page("fourth"), &[]).with(0);
}
