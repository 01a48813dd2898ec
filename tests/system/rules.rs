//! What a release has beside its files, over a real fleet: rules, and files encoded for who accepts it.

use std::time::Duration;

use helix_tests::client::{Client, Request, Response};
use helix_tests::fleet::{Fleet, Options};
use helix_tests::folder::{Folder, page};
use helix_tests::wait;

use crate::own_fleet;

/// Origin and edges look for improvements every few seconds, on a loaded machine.
const IMPROVE_LIMIT: Duration = Duration::from_secs(120);

/// What each edge answers to a request with one more header.
fn ask_with(fleet: &Fleet, host: &str, target: &str, header: (&str, &str)) -> Vec<Response> {
    let headers = [header];
    fleet
        .edges()
        .map(|(_, edge)| {
            let request = Request {
                headers: &headers,
                ..Request::get(host, target)
            };
            Client::of(&edge.http).send(request).unwrap()
        })
        .collect()
}

/// A page of some size that compresses well.
fn long_page() -> Vec<u8> {
    let lines: String = (0..2000)
        .map(|n| format!("<p>paragraph {n} of {}</p>\n", n % 37))
        .collect();
    format!("<!doctype html>{lines}").into_bytes()
}

fn decoded(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding {
        "zstd" => zstd::decode_all(body).unwrap(),
        _ => unreachable!("only zstd is decoded here"),
    }
}

#[test]
fn rules_of_a_folder_are_carried_out_by_every_edge_and_never_served() {
    let fleet = Fleet::shared();
    let folder = Folder::page("ruled")
        .with("_redirects", b"/old/* /new/:splat 301\n")
        .with("_headers", b"/*\n  X-Ruled: yes\n")
        .with("helix.toml", b"[static]\nnot_found_handling = \"none\"\n");
    let _ = fleet.deploy("r-rules", &folder);
    let host = fleet.host("r-rules");
    for (_, edge) in fleet.edges() {
        let moved = fleet.ask(edge, &host, "/old/a/b");
        assert_eq!(moved.status, 301, "{}", edge.edge);
        assert_eq!(moved.header("location"), Some("/new/a/b"));
        let page = fleet.ask(edge, &host, "/");
        assert_eq!((page.status, page.header("x-ruled")), (200, Some("yes")));
    }
    for rules in ["/_redirects", "/_headers", "/helix.toml"] {
        fleet.all_answer(&host, rules, 404, None);
    }
}

#[test]
fn broken_rules_are_named_by_file_and_line_and_nothing_is_uploaded() {
    let fleet = Fleet::shared();
    let folder = Folder::page("broken")
        .with("_redirects", b"/a /b 301\n/c /d 999\n")
        .with("helix.toml", b"[static]\n\nhtml_handlin = \"none\"\n");
    fleet
        .deploy_to("r-broken", "production", folder.path())
        .with(1)
        .says(&["nothing was uploaded", "_redirects:2: ", "helix.toml:3: "]);
    assert!(fleet.api().site("r-broken/production").is_none());
}

#[test]
fn files_are_sent_encoded_to_who_accepts_it() {
    let fleet = Fleet::shared();
    let content = long_page();
    let folder = Folder::empty().with("index.html", &content);
    let _ = fleet.deploy("r-encoded", &folder);
    let host = fleet.host("r-encoded");
    let mut tags = std::collections::BTreeSet::new();
    for coding in ["br", "zstd", "gzip"] {
        for answer in ask_with(&fleet, &host, "/", ("accept-encoding", coding)) {
            assert_eq!(answer.header("content-encoding"), Some(coding));
            assert!(answer.body.len() < content.len() / 2, "{coding}");
            if coding == "zstd" {
                assert!(decoded(coding, &answer.body) == content);
            }
            assert!(
                answer
                    .header("vary")
                    .is_some_and(|vary| { vary.to_ascii_lowercase().contains("accept-encoding") })
            );
        }
        let answers = ask_with(&fleet, &host, "/", ("accept-encoding", coding));
        tags.insert(answers[0].header("etag").unwrap().to_owned());
    }
    fleet.all_answer(&host, "/", 200, Some(&content));
    assert_eq!(tags.len(), 3, "each encoding has its own validator");
    let plain = Folder::page("plain");
    let _ = fleet.deploy("r-plain", &plain);
    fleet.all_answer(
        &fleet.host("r-plain"),
        "/",
        200,
        Some(page("plain").as_bytes()),
    );
}

#[test]
fn smaller_variants_arrive_after_the_cutover_under_the_same_generation() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let content = long_page();
    let folder = Folder::empty().with("index.html", &content);
    let _ = fleet.deploy("r-improved", &folder);
    let host = fleet.host("r-improved");
    let ask = || ask_with(&fleet, &host, "/", ("accept-encoding", "br"));
    let first = ask();
    wait::until_true(
        "every edge sends the smaller variant",
        IMPROVE_LIMIT,
        || {
            ask()
                .iter()
                .zip(&first)
                .all(|(now, first)| now.body.len() < first.body.len())
        },
    );
    for (now, first) in ask().iter().zip(&first) {
        assert_eq!(
            now.header("x-helix-release"),
            first.header("x-helix-release")
        );
        assert_eq!(
            now.header("x-helix-generation"),
            first.header("x-helix-generation")
        );
        assert_ne!(now.header("etag"), first.header("etag"));
    }
    fleet.all_answer(&host, "/", 200, Some(&content));
}
