//! The same with a real git server and a real worker: what is pushed is fetched by its commit, built in a sandbox, and goes live.

use std::fs;

use super::{LOST_LIMIT, ROLLOUT_LIMIT, Site};
use crate::own_fleet;
use helix_routing::api::{BuildState, BuildView, HookView};
use helix_tests::fleet::{Fleet, Options};
use helix_tests::folder::page;
use helix_tests::repository::{CREDENTIAL, Repository};
use helix_tests::{skipped, wait};
use serde_json::json;

/// With a file `wait` a build takes twelve seconds, in which something can be done to it. What is served is made of the page, and of
/// a variable that builds are told.
const MAKE: &str = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do if test -e wait; then echo waits; sleep 1; fi; done; \
    mkdir -p out && cp page.html out/index.html && printf '%s' \"$GREETING\" > out/greeting.txt";

impl Site<'_> {
    fn request(&self, action: &str, more: serde_json::Value) -> String {
        build_of(&self.merge_request(action, more))
    }

    fn pushed(&self, before: &str, after: &str) -> String {
        let body = json!({ "ref": "refs/heads/main", "before": before, "after": after });
        build_of(&self.hook("Push Hook", body))
    }

    fn ends(&self, build: &str) -> BuildView {
        let mut last = None;
        wait::until_true("the build ends", ROLLOUT_LIMIT + LOST_LIMIT, || {
            let view = self.build(build);
            let ended = view.state.has_ended();
            last = Some(view);
            ended
        });
        last.unwrap()
    }

    fn succeeds(&self, build: &str) {
        let view = self.ends(build);
        let log = self.fleet.helix().run(["logs", "--build", build]);
        assert_eq!(
            view.state,
            BuildState::Succeeded,
            "{view:?}\n{}",
            log.stdout
        );
    }
}

fn build_of(view: &HookView) -> String {
    let build = view.build.as_ref();
    build.unwrap_or_else(|| panic!("{view:?}")).to_string()
}

fn has_bubblewrap() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("bwrap").is_file())
}

#[test]
fn a_worker_builds_what_is_pushed_and_one_that_is_killed_is_followed() {
    if !has_bubblewrap() {
        skipped("bubblewrap, in which builds run, is not installed");
        return;
    }
    let _alone = own_fleet();
    let fleet = Fleet::start(&Options {
        arguments: &["--workers", "1"],
        ..Options::default()
    });
    let repository = Repository::serve("acme/built");
    let credential = fleet.folder().join("credential");
    fs::write(&credential, CREDENTIAL).unwrap();
    let credential = credential.to_str().unwrap();
    let how = ["--install", "", "--build", MAKE, "--output", "out"];
    let how: Vec<&str> = how
        .into_iter()
        .chain(["--credential-file", credential])
        .collect();
    let site = Site::link(&fleet, "built", &repository.url, &how);
    let (host, preview) = (site.host(), site.preview());
    for (greeting, kind) in [("hello", "preview"), ("welcome", "production")] {
        let set = ["env", "set", "GREETING", greeting, "--project", "built"];
        let _ = fleet
            .helix()
            .run(set.iter().chain(&["--env", kind]))
            .with(0);
    }
    let greets = |host: &str, greeting: &str| {
        let (_, edge) = fleet.edges().next().unwrap();
        let response = fleet.ask(edge, host, "/greeting.txt");
        assert_eq!((response.status, response.text().as_str()), (200, greeting));
    };

    // A merge request is a preview of exactly its commit, with the variables of previews.
    let one = repository.push("topic", &[("page.html", &page("one"))]);
    let opened = site.request("open", json!({ "last_commit": { "id": &one } }));
    site.succeeds(&opened);
    site.shows(&preview, 200, "one");
    greets(&preview, "hello");

    // Merged, it is production in both regions, with production's.
    let merged = repository.push("main", &[("page.html", &page("two"))]);
    site.succeeds(&site.pushed(&"0".repeat(40), &merged));
    site.shows(&host, 200, "two");
    greets(&host, "welcome");
    site.shows(&preview, 200, "one");

    // A worker that is killed within a build is followed by the next, which builds the same commit to its end.
    let slow = repository.push("main", &[("page.html", &page("three")), ("wait", "")]);
    let build = site.pushed(&merged, &slow);
    wait::until_true("the build is under way", ROLLOUT_LIMIT, || {
        let log = fleet.helix().run(["logs", "--build", &build]);
        log.stdout.lines().any(|line| line == "waits")
    });
    fleet.kill("build-1");
    site.succeeds(&build);
    assert_eq!(site.build(&build).attempts, 2);
    site.shows(&host, 200, "three");

    // A newer commit ends the build of the one before it.
    let slower = repository.push("main", &[("page.html", &page("four"))]);
    let before = site.pushed(&slow, &slower);
    fs::remove_file(repository.clone_folder().join("wait")).unwrap();
    let quick = repository.push("main", &[("page.html", &page("five"))]);
    site.succeeds(&site.pushed(&slower, &quick));
    assert_eq!(site.ends(&before).state, BuildState::Cancelled);
    site.shows(&host, 200, "five");

    // What fails says where, and changes nothing.
    let bad = repository.push("main", &[("page.html", &page("six")), ("out", "no folder")]);
    let failed = site.pushed(&quick, &bad);
    assert_eq!(site.ends(&failed).state, BuildState::Failed);
    let log = fleet.helix().run(["logs", "--build", &failed, "--follow"]);
    assert_eq!(log.code, Some(1), "{}", log.stderr);
    site.shows(&host, 200, "five");
}
