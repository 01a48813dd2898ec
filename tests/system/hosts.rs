//! Custom domains, wildcards, and what `helix explain` says about a host.

use helix_routing::api::Explanation;
use helix_tests::fleet::{Fleet, REVIVE_LIMIT};
use helix_tests::folder::{Folder, page};
use helix_tests::wait;

/// A host record reaches the edges a moment after the command ended.
fn wait_for(fleet: &Fleet, host: &str, status: u16, body: Option<&str>) {
    for (_, edge) in fleet.edges() {
        wait::until_true(
            &format!("{host} answers {status} on {}", edge.edge),
            REVIVE_LIMIT,
            || {
                let response = fleet.ask(edge, host, "/");
                response.status == status && body.is_none_or(|body| response.text() == page(body))
            },
        );
    }
}

#[test]
fn a_custom_domain_shows_its_site_until_it_is_removed() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("domains", &Folder::page("custom"));
    fleet.all_answer("www.custom.example", "/", 404, None);
    let _ = fleet
        .helix()
        .run([
            "domains",
            "add",
            "WWW.Custom.example",
            "--project",
            "domains",
        ])
        .with(0);
    wait_for(&fleet, "www.custom.example", 200, Some("custom"));
    fleet.all_answer("www.custom.example:8443", "/", 200, None);
    fleet
        .helix()
        .run(["domains", "list", "--project", "domains"])
        .with(0)
        .says(&["www.custom.example"]);
    let _ = fleet
        .helix()
        .run([
            "domains",
            "remove",
            "www.custom.example",
            "--project",
            "domains",
        ])
        .with(0);
    wait_for(&fleet, "www.custom.example", 404, None);
}

#[test]
fn a_wildcard_covers_one_label_and_an_exact_host_wins() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("wild", &Folder::page("wild"));
    let _ = fleet.deploy("tame", &Folder::page("tame"));
    let _ = fleet
        .helix()
        .run(["domains", "add", "*.wild.example", "--project", "wild"])
        .with(0);
    let _ = fleet
        .helix()
        .run(["domains", "add", "exact.wild.example", "--project", "tame"])
        .with(0);
    wait_for(&fleet, "any.wild.example", 200, Some("wild"));
    wait_for(&fleet, "exact.wild.example", 200, Some("tame"));
    for host in ["a.b.wild.example", "wild.example"] {
        fleet.all_answer(host, "/", 404, None);
    }
}

#[test]
fn a_host_belongs_to_one_project() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("owner", &Folder::page("owner"));
    let _ = fleet.deploy("taker", &Folder::page("taker"));
    let _ = fleet
        .helix()
        .run(["domains", "add", "mine.example", "--project", "owner"])
        .with(0);
    let refused = fleet
        .helix()
        .run(["domains", "add", "mine.example", "--project", "taker"])
        .with(1);
    refused.says(&["mine.example"]);
    wait_for(&fleet, "mine.example", 200, Some("owner"));
    let _ = fleet
        .helix()
        .run([
            "domains",
            "add",
            "x.owner.helix.localhost",
            "--project",
            "taker",
        ])
        .with(1);
}

#[test]
fn explain_names_site_release_region_edge_and_file() {
    let fleet = Fleet::shared();
    let release = fleet.deploy(
        "explained",
        &Folder::page("why").with("docs/index.html", b"docs"),
    );
    let host = fleet.host("explained");
    let url = format!("http://{host}/docs/");
    fleet.helix().run(["explain", &url]).with(0).says(&[
        "explained",
        release.as_str(),
        "docs/index.html",
        "fra-1",
        "iad-2",
    ]);
    let view: Explanation = fleet.api().get(&format!("/v1/explain?url={url}"));
    assert_eq!(view.answers.len(), fleet.edges().count());
    for answer in &view.answers {
        assert_eq!(
            (answer.status, answer.file.as_deref()),
            (Some(200), Some("docs/index.html")),
            "{answer:?}"
        );
        assert_eq!(answer.release.as_ref(), Some(&release), "{answer:?}");
    }
    let missing: Explanation = fleet
        .api()
        .get(&format!("/v1/explain?url=http://{host}/nothing"));
    assert!(
        missing
            .answers
            .iter()
            .all(|answer| answer.status == Some(404) && answer.file.is_none())
    );
    let nobody: Explanation = fleet.api().get("/v1/explain?url=http://nobody.example/");
    assert_eq!(nobody.site, None);
}
