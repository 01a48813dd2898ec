//! A private project's previews are seen by who was let in alone, on every edge of a real fleet.

use std::fs;
use std::time::Duration;

use helix_tests::client::{Client, Request, Response};
use helix_tests::fleet::{EdgeInfo, Fleet, Options, REVIVE_LIMIT, release_of};
use helix_tests::folder::{Folder, page};
use helix_tests::wait;

use crate::own_fleet;

/// What was changed is so on every edge within this, on a loaded machine.
const TOLD_LIMIT: Duration = Duration::from_secs(30);
const FIRST: &str = "correct horse";
const SECOND: &str = "battery staple";

fn ask(edge: &EdgeInfo, host: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::get(host, target);
    request.headers = headers;
    Client::of(&edge.http).send(request).unwrap()
}

fn log_in(edge: &EdgeInfo, host: &str, password: &str) -> Response {
    let form = format!(
        "to=%2Fhooks%2Fa.html&password={}",
        password.replace(' ', "+")
    );
    let request = Request {
        method: "POST",
        target: "/.helix/access",
        host,
        headers: &[("content-type", "application/x-www-form-urlencoded")],
        body: form.as_bytes(),
    };
    Client::of(&edge.http).send(request).unwrap()
}

fn cookie(response: &Response) -> String {
    assert_eq!(response.status, 303, "{}", response.text());
    let field = response.header("set-cookie").expect("a cookie");
    field.split(';').next().unwrap().to_owned()
}

/// A fleet with a private project, and what of it is asked for.
struct Hidden<'f> {
    fleet: &'f Fleet,
    host: String,
    by_release: String,
    alias: String,
}

impl Hidden<'_> {
    fn helix(&self, arguments: &[&str]) -> String {
        let common = ["--project", "hidden"];
        let ended = self
            .fleet
            .helix()
            .run(arguments.iter().chain(&common))
            .with(0);
        ended.stdout.trim().to_owned()
    }

    fn set_password(&self, password: &str) {
        let file = self.fleet.folder().join("password");
        fs::write(&file, format!("{password}\n")).unwrap();
        let shown = self.helix(&["protect", "--password-file", file.to_str().unwrap()]);
        assert!(!shown.contains(password));
    }

    fn first_edge(&self) -> &EdgeInfo {
        self.fleet.edges().next().unwrap().1
    }

    /// Waits until every edge answers so, with what is shown.
    fn all(&self, host: &str, headers: &[(&str, &str)], status: u16) {
        for (_, edge) in self.fleet.edges() {
            wait::until_true(
                &format!("{host} answers {status} on {}", edge.edge),
                TOLD_LIMIT,
                || {
                    let response = ask(edge, host, "/", headers);
                    let is_page = response.text() == page("secret");
                    assert_eq!(is_page, response.status == 200, "{}", response.text());
                    response.status == status
                },
            );
        }
    }
}

#[test]
fn previews_of_a_private_project_are_seen_by_who_was_let_in() {
    let _alone = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let link = [
        "link",
        "https://code.example/acme/hidden",
        "--project",
        "hidden",
        "--provider",
        "gitlab",
        "--private",
    ];
    let _ = fleet.helix().run(link).with(0);
    let folder = Folder::page("secret").with("hooks/a.html", b"hook");
    let release = release_of(
        &fleet
            .deploy_to("hidden", "preview/42", folder.path())
            .with(0),
    );
    let alias = format!("preview.{}", fleet.host("hidden"));
    let hidden = Hidden {
        fleet: &fleet,
        host: format!("pr-42.{alias}"),
        by_release: format!("{release}.{alias}"),
        alias,
    };
    links_let_in(&hidden);
    passwords_let_in(&hidden);
    // What is protected stays so when everything begins anew, without a moment between.
    fleet.kill("fra-1");
    wait::until_true("the edge is back", REVIVE_LIMIT, || {
        let request = Request::get(&hidden.host, "/");
        let answer = Client::of(&hidden.first_edge().http).send(request);
        answer.is_ok_and(|response| {
            assert_ne!(response.status, 200);
            response.status == 401
        })
    });
    let _ = hidden.helix(&["protect", "--off"]);
    hidden.all(&hidden.host, &[], 200);
    hidden.all(&hidden.by_release, &[], 200);
}

fn links_let_in(hidden: &Hidden<'_>) {
    for host in [&hidden.host, &hidden.by_release, &hidden.alias] {
        hidden.all(host, &[], 401);
    }
    let url = hidden.helix(&["share", "--preview", "pr-42", "--ttl", "1h"]);
    let (place, pass) = url.split_once("?_helix_access=").expect("a link");
    assert!(place.contains(&hidden.host), "{url}");
    let target = format!("/?_helix_access={pass}");
    for host in [&hidden.host, &hidden.by_release, &hidden.alias] {
        let entered = ask(hidden.first_edge(), host, &target, &[]);
        assert_eq!(entered.header("location"), Some("/"));
        // Let in by one edge, one is let in by all.
        hidden.all(host, &[("cookie", &cookie(&entered))], 200);
        hidden.all(host, &[("x-helix-access", pass)], 200);
    }
    // Another preview's link opens nothing here.
    let other = hidden.helix(&["share", "--preview", "pr-43"]);
    let (_, other) = other.split_once("?_helix_access=").unwrap();
    hidden.all(&hidden.host, &[("x-helix-access", other)], 401);
}

fn passwords_let_in(hidden: &Hidden<'_>) {
    hidden.set_password(FIRST);
    let _ = hidden.helix(&["protect", "--exempt", "/hooks/*"]);
    let edge = hidden.first_edge();
    wait::until_true("the hook is exempt", TOLD_LIMIT, || {
        ask(edge, &hidden.host, "/hooks/a.html", &[]).status != 401
    });
    hidden.all(&hidden.host, &[], 401);
    let entered = log_in(edge, &hidden.host, FIRST);
    assert_eq!(entered.header("location"), Some("/hooks/a.html"));
    let held = cookie(&entered);
    hidden.all(&hidden.host, &[("cookie", &held)], 200);
    let tried: Vec<u16> = (0..7)
        .map(|_| log_in(edge, &hidden.host, "wrong guess").status)
        .collect();
    assert_eq!((tried[0], tried[6]), (401, 429), "{tried:?}");
    // A new password ends what the one before has let in.
    hidden.set_password(SECOND);
    hidden.all(&hidden.host, &[("cookie", &held)], 401);
    let last = hidden.fleet.edges().last().unwrap().1;
    let held = cookie(&log_in(last, &hidden.host, SECOND));
    hidden.all(&hidden.host, &[("cookie", &held)], 200);
}
