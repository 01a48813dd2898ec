//! A share of a region's visitors gets the candidate, and who shows a pin gets its release, on a real fleet.

use std::collections::BTreeSet;
use std::time::Duration;

use helix_routing::api::Waits;
use helix_routing::id::{RegionId, ReleaseId, RolloutId};
use helix_tests::client::{Client, Request, Response};
use helix_tests::command::finish;
use helix_tests::fleet::{EdgeInfo, Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::{Folder, page};
use helix_tests::wait;

use crate::own_fleet;

/// A stage begins within this, on a loaded machine.
const STAGE_LIMIT: Duration = Duration::from_secs(60);
const SITE: &str = "shop/production";
/// Of 1,000 visitors 200 are the fifth; so many more or less happen once in a few million times.
const FIFTH: std::ops::RangeInclusive<usize> = 135..=265;

/// What a visitor got, and the cookie they keep.
struct Visitor {
    cookie: String,
    had: ReleaseId,
}

fn release(response: &Response) -> ReleaseId {
    response.header("x-helix-release").unwrap().parse().unwrap()
}

fn ask(client: &mut Client, host: &str, fields: &[(&str, &str)]) -> Response {
    let mut request = Request::get(host, "/");
    request.headers = fields;
    client.send(request).unwrap()
}

fn edges_of<'a>(fleet: &'a Fleet, region: &RegionId) -> Vec<&'a EdgeInfo> {
    let edges = fleet.edges().filter(|(held, _)| *held == region);
    edges.map(|(_, edge)| edge).collect()
}

/// The rollout of the project's production, once it waits for approval of this stage.
fn waits_for(fleet: &Fleet, stage: u16) -> RolloutId {
    wait::until("the rollout waits for approval", STAGE_LIMIT, || {
        let mut sites = fleet.api().status()?.sites.into_iter();
        let site = sites.find(|site| site.site.to_string() == SITE)?;
        let waits = site.waits.as_ref()?;
        (*waits == Waits::Approval { stage }).then_some(site.rollout)?
    })
}

/// One visitor of many, without a cookie: half of them ask each edge of a region.
fn first_visit(client: &mut Client, host: &str) -> Visitor {
    let response = ask(client, host, &[]);
    let field = response.header("set-cookie").unwrap();
    Visitor {
        cookie: field.split(';').next().unwrap().to_owned(),
        had: release(&response),
    }
}

#[test]
fn a_fifth_of_the_visitors_gets_the_candidate_and_keeps_it() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let live = fleet.deploy("shop", &Folder::page("live"));
    let (host, region) = (fleet.host("shop"), fleet.edges().next().unwrap().0.clone());
    let edges = edges_of(&fleet, &region);
    assert!(edges.len() >= 2);
    let folder = Folder::page("candidate");
    let path = folder.path().to_str().unwrap();
    let deploy = [
        "deploy",
        path,
        "--project",
        "shop",
        "--json",
        "--order",
        "together",
    ];
    let steps = [
        "--step",
        "20%:1s",
        "--step",
        "40%:1s",
        "--approve",
        "stages",
    ];
    let running = fleet.helix().start(deploy.iter().chain(&steps));
    let rollout = waits_for(&fleet, 2);

    let mut clients: Vec<_> = edges.iter().map(|edge| Client::of(&edge.http)).collect();
    let count = clients.len();
    let mut visitors: Vec<_> = (0..1000)
        .map(|number| first_visit(&mut clients[number % count], &host))
        .collect();
    let fifth = visitors
        .iter()
        .filter(|visitor| visitor.had != live)
        .count();
    assert!(FIFTH.contains(&fifth), "{fifth} of 1000");
    for (number, visitor) in visitors.iter().enumerate() {
        for at in 0..count {
            let client = &mut clients[(number + at) % count];
            let response = ask(client, &host, &[("cookie", &visitor.cookie)]);
            assert_eq!(release(&response), visitor.had, "through edge {at}");
        }
    }

    let approve = |stage: &str| {
        let arguments = ["rollout", "approve", rollout.as_str(), "--stage", stage];
        let _ = fleet.helix().run(arguments).with(0);
    };
    approve("2");
    let _ = waits_for(&fleet, 3);
    let mut got = 0;
    for (number, visitor) in visitors.iter_mut().enumerate() {
        let client = &mut clients[number % count];
        let now = release(&ask(client, &host, &[("cookie", &visitor.cookie)]));
        assert!(now != live || visitor.had == live, "back to live at 40%");
        got += usize::from(now != live);
        visitor.had = now;
    }
    assert!(got >= 320, "{got} of 1000 at 40%");

    // Aborted: nobody gets it any more, whatever they hold. Some had seen it.
    let abort = ["rollout", "abort", rollout.as_str(), "-m", "enough"];
    let _ = fleet.helix().run(abort).with(2);
    finish(running).with(2).says(&["enough"]);
    for (number, visitor) in visitors.iter().enumerate() {
        let client = &mut clients[number % count];
        let response = ask(client, &host, &[("cookie", &visitor.cookie)]);
        assert_eq!(release(&response), live);
        assert_eq!(response.header("set-cookie"), None);
    }
}

#[test]
fn who_shows_a_pin_gets_its_release_in_every_region() {
    let fleet = Fleet::shared();
    let first = fleet.deploy("pins", &Folder::page("first"));
    let second = fleet.deploy("pins", &Folder::page("second"));
    let host = fleet.host("pins");
    let helix = fleet.helix();
    let first_text = first.to_string();
    let arguments = ["pin", "add", "beta", &first_text, "--project", "pins"];
    let also = ["--header", "X-Team=internal", "-m", "testers"];
    let added = helix.run(arguments.iter().chain(&also)).with(0);
    added.says(&["beta", &first_text, "header x-team: internal", "testers"]);

    let shows = |fields: &[(&str, &str)]| {
        let got = fleet.edges().map(|(_, edge)| {
            let response = ask(&mut Client::of(&edge.http), &host, fields);
            (release(&response), response.text())
        });
        got.collect::<BTreeSet<_>>()
    };
    let only = |id: &ReleaseId, text: &str| BTreeSet::from([(id.clone(), page(text))]);
    let pinned = only(&first, "first");
    wait::until_true("every edge knows the pin", REVIVE_LIMIT, || {
        shows(&[("x-helix-pin", "beta")]) == pinned
    });
    assert_eq!(shows(&[("x-team", "internal")]), pinned);
    assert_eq!(shows(&[("cookie", "a=b; __helix_pin=beta")]), pinned);
    assert_eq!(shows(&[("x-helix-pin", "other")]), only(&second, "second"));
    assert_eq!(shows(&[]), only(&second, "second"));

    // It stays through a deployment, whose records carry it along.
    let third = fleet.deploy("pins", &Folder::page("third"));
    assert_eq!(shows(&[("x-helix-pin", "beta")]), pinned);
    assert_eq!(shows(&[]), only(&third, "third"));

    let refused = helix.run(["pin", "add", "live", &first_text, "--project", "pins"]);
    refused.with(1).says(&["reserved"]);
    let unknown = "f".repeat(20);
    let refused = helix.run(["pin", "add", "x", &unknown, "--project", "pins"]);
    refused.with(1).says(&["has no release"]);
    let listed = helix.run(["pin", "list", "--project", "pins", "--json"]);
    let listed = listed.with(0).json();
    assert_eq!(listed[0]["label"], "beta");
    assert_eq!(listed[0]["told"], true);
    let removed = helix.run(["pin", "remove", "beta", "--project", "pins"]);
    let _ = removed.with(0);
    wait::until_true("no edge knows the pin", REVIVE_LIMIT, || {
        shows(&[("x-helix-pin", "beta")]) == only(&third, "third")
    });
    let gone = helix.run(["pin", "remove", "beta", "--project", "pins"]);
    gone.with(1).says(&["has no pin beta"]);
}
