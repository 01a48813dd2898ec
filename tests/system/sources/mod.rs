//! From a repository to visitors, over a real fleet: pull requests are previews, merges are production, and nothing is lost when
//! origin, a worker or NATS is killed on the way. The worker is this test; [`built`] has a real one.

mod built;

use std::time::Duration;

use helix_routing::api::{BuildClaim, BuildEnd, BuildJob, BuildOutcome, BuildState, BuildStep};
use helix_routing::api::{BuildView, HookView, NewFile, PACK_UPLOAD_TYPE};
use helix_service::digest::sha256;
use helix_tests::api::Api;
use helix_tests::client::Response;
use helix_tests::fleet::{Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::page;
use helix_tests::wait;
use serde_json::{Value, json};

use crate::own_fleet;

/// A silent worker has lost its build within this: its lease, and until somebody looks.
const LOST_LIMIT: Duration = Duration::from_secs(60);
/// A rollout ends within this, on a loaded machine.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(90);

/// A project at a GitLab of this test, and a worker for it.
struct Site<'f> {
    fleet: &'f Fleet,
    project: &'static str,
    secret: String,
    worker: Api,
}

fn commit(digit: char) -> String {
    digit.to_string().repeat(40)
}

impl<'f> Site<'f> {
    /// Links a project to the repository `acme/<project>` at `url`.
    fn link(fleet: &'f Fleet, project: &'static str, url: &str, how: &[&str]) -> Self {
        let helix = fleet.helix();
        let common = ["link", url, "--project", project, "--provider", "gitlab"];
        let linked = helix.run(common.iter().chain(how)).with(0);
        linked.says(&[&format!("/v1/webhooks/in/gitlab/{project}")]);
        let token = helix
            .run(["token", "create", "worker", "--role", "build"])
            .with(0);
        Self {
            fleet,
            project,
            secret: linked.stdout.trim().to_owned(),
            worker: Api {
                url: fleet.info.api.clone(),
                token: token.stdout.trim().to_owned(),
            },
        }
    }

    /// What GitLab sends, again and again until it is taken, as GitLab does.
    fn hook(&self, event: &str, mut body: Value) -> HookView {
        body["project"] = json!({ "path_with_namespace": format!("acme/{}", self.project) });
        let body = serde_json::to_vec(&body).unwrap();
        let headers = [
            ("x-gitlab-event", event),
            ("x-gitlab-token", self.secret.as_str()),
        ];
        let taken = wait::until("the webhook is taken", REVIVE_LIMIT, || {
            let target = format!("/v1/webhooks/in/gitlab/{}", self.project);
            let answer = self.worker.send("POST", &target, &headers, &body).ok()?;
            (answer.status < 500).then_some(answer)
        });
        assert!(taken.status < 300, "{}", taken.text());
        serde_json::from_slice(&taken.body).unwrap()
    }

    fn merge_request(&self, action: &str, more: Value) -> HookView {
        let mut attributes =
            json!({ "iid": 42, "action": action, "source_project_id": 1, "target_project_id": 1 });
        attributes
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.hook(
            "Merge Request Hook",
            json!({ "object_attributes": attributes }),
        )
    }

    fn push(&self, before: char, after: char) -> String {
        let view = self.hook(
            "Push Hook",
            json!({ "ref": "refs/heads/main", "before": commit(before), "after": commit(after) }),
        );
        view.build.expect("a build").to_string()
    }

    /// Sends a word of a worker until it is heard.
    fn say(&self, target: &str, body: &impl serde::Serialize) -> Response {
        let body = serde_json::to_vec(body).unwrap();
        wait::until(target, REVIVE_LIMIT, || {
            let headers = [("content-type", "application/json")];
            let answer = self.worker.send("POST", target, &headers, &body).ok()?;
            (answer.status < 500).then_some(answer)
        })
    }

    fn claim(&self, build: &str, worker: &str) -> Option<BuildJob> {
        let claim = BuildClaim {
            worker: worker.to_owned(),
        };
        let answer = self.say(&format!("/v1/builds/{build}/claim"), &claim);
        assert!(matches!(answer.status, 200 | 409), "{}", answer.text());
        serde_json::from_slice(&answer.body).ok()
    }

    fn end(&self, build: &str, worker: &str, files: &[(&str, &str)]) {
        let mut upload = Vec::new();
        let mut named = Vec::new();
        for (path, content) in files {
            let digest = sha256(content.as_bytes());
            let bytes = (0..32)
                .map(|at| u8::from_str_radix(&digest.hex()[2 * at..2 * at + 2], 16).unwrap());
            upload.extend(bytes);
            upload.push(0);
            upload.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
            upload.extend(content.as_bytes());
            named.push(NewFile {
                path: (*path).to_owned(),
                digest,
                size: content.len() as u64,
            });
        }
        let sent = wait::until("the files are uploaded", REVIVE_LIMIT, || {
            let headers = [("content-type", PACK_UPLOAD_TYPE)];
            let answer = self
                .worker
                .send("POST", "/v1/projects/walk/packs", &headers, &upload)
                .ok()?;
            (answer.status < 500).then_some(answer)
        });
        assert_eq!(sent.status, 204, "{}", sent.text());
        let outcome = BuildOutcome::Succeeded {
            files: named,
            framework: None,
            materials: None,
        };
        let end = BuildEnd {
            worker: worker.to_owned(),
            outcome,
        };
        let ended = self.say(&format!("/v1/builds/{build}/end"), &end);
        assert_eq!(ended.status, 200, "{}", ended.text());
        assert_eq!(self.build(build).state, BuildState::Succeeded);
    }

    fn build(&self, build: &str) -> BuildView {
        self.fleet.api().get(&format!("/v1/builds/{build}"))
    }

    fn host(&self) -> String {
        self.fleet.host(self.project)
    }

    fn preview(&self) -> String {
        format!("pr-42.preview.{}", self.host())
    }

    fn goes_out(&self, build: &str, text: &str) {
        assert!(self.claim(build, "w").is_some());
        self.end(build, "w", &[("index.html", &page(text))]);
    }

    fn shows(&self, host: &str, status: u16, text: &str) {
        for (_, edge) in self.fleet.edges() {
            wait::until_true(
                &format!("{host} shows {text} on {}", edge.edge),
                ROLLOUT_LIMIT,
                || {
                    let response = self.fleet.ask(edge, host, "/");
                    response.status == status && (status != 200 || response.text() == page(text))
                },
            );
        }
    }

    /// Until the newest rollout of production has ended.
    fn settles(&self) {
        let path = format!(
            "/v1/rollouts?project={}&environment=production",
            self.project
        );
        wait::until_true("the rollout ends", ROLLOUT_LIMIT, || {
            let rollouts: Vec<helix_routing::api::RolloutView> = self.fleet.api().get(&path);
            rollouts
                .first()
                .is_some_and(|newest| newest.outcome.is_some())
        });
    }
}

#[test]
fn a_repository_goes_from_pull_request_to_production_whatever_is_killed_on_the_way() {
    let _alone = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let helix = fleet.helix();
    let site = Site::link(&fleet, "walk", "https://code.example/acme/walk", &[]);
    let _ = helix
        .run([
            "env",
            "set",
            "GREETING",
            "hello",
            "--project",
            "walk",
            "--env",
            "preview",
        ])
        .with(0);
    let _ = helix
        .run([
            "env",
            "set",
            "KEY",
            "s3cret",
            "--project",
            "walk",
            "--secret",
        ])
        .with(0);

    becomes_a_preview(&site);
    goes_to_production(&site);
    fails_with_a_log(&site);
    goes_back_and_begins_anew(&site);
    // Closed, it is gone.
    let closed = site.merge_request("merge", json!({ "last_commit": { "id": commit('b') } }));
    assert!(closed.accepted, "{closed:?}");
    site.shows(&site.preview(), 404, "nothing");
    site.shows(&site.host(), 200, "three");
}

fn becomes_a_preview(site: &Site<'_>) {
    // A pull request is a preview of its commit; origin is killed while it is built.
    let opened = site.merge_request("open", json!({ "last_commit": { "id": commit('a') } }));
    let build = opened.build.expect("a build").to_string();
    let job = site.claim(&build, "w").expect("a job");
    assert_eq!(job.env["GREETING"].value, "hello");
    assert!(
        !job.env.contains_key("KEY"),
        "production's are not a preview's"
    );
    site.fleet.kill("origin");
    site.end(&build, "w", &[("index.html", &page("one"))]);
    site.shows(&site.preview(), 200, "one");

    // A second push replaces it, and whoever builds the first is told to stop.
    let updated = site.merge_request(
        "update",
        json!({ "oldrev": commit('a'), "last_commit": { "id": commit('b') } }),
    );
    site.goes_out(updated.build.expect("a build").as_str(), "two");
    site.shows(&site.preview(), 200, "two");
}

fn goes_to_production(site: &Site<'_>) {
    // A merge is production. Its first worker dies with it.
    let build = site.push('0', 'c');
    assert!(site.claim(&build, "lost").is_some());
    wait::until_true("another worker gets the build", LOST_LIMIT, || {
        site.claim(&build, "w").is_some()
    });
    site.end(&build, "w", &[("index.html", &page("three"))]);
    site.shows(&site.host(), 200, "three");
    site.settles();
    assert_eq!(site.build(&build).attempts, 2);

    // A merge that does not pass its gate changes nothing; NATS is killed before it.
    site.fleet.kill("nats");
    let build = site.push('c', 'd');
    let gate = "[[gates]]\nname = \"home\"\nkind = \"http\"\nbody = \"well done\"\n";
    assert!(site.claim(&build, "w").is_some());
    site.end(
        &build,
        "w",
        &[("index.html", &page("bad")), ("helix.toml", gate)],
    );
    site.settles();
    site.shows(&site.host(), 200, "three");
}

fn fails_with_a_log(site: &Site<'_>) {
    // One that fails in its build says where, and its log is kept.
    let build = site.push('d', 'e');
    assert!(site.claim(&build, "w").is_some());
    let line = json!({ "seq": 1, "at": 1, "step": "install", "text": "no such package" });
    let sent = site.say(
        &format!("/v1/builds/{build}/log"),
        &json!({ "worker": "w", "lines": [line] }),
    );
    assert_eq!(sent.status, 200, "{}", sent.text());
    let outcome = BuildOutcome::Failed {
        step: BuildStep::Install,
        reason: "npm ended with 1".to_owned(),
    };
    let ended = site.say(
        &format!("/v1/builds/{build}/end"),
        &BuildEnd {
            worker: "w".to_owned(),
            outcome,
        },
    );
    assert_eq!(ended.status, 200);
    let log = site
        .fleet
        .helix()
        .run(["logs", "--build", &build, "--follow"])
        .with(1);
    assert_eq!(log.stdout, "no such package\n");
    log.says(&["npm ended with 1"]);
    site.fleet
        .helix()
        .run(["builds", "--project", "walk"])
        .with(0)
        .says(&["failed", "succeeded", "walk/production"]);
}

fn goes_back_and_begins_anew(site: &Site<'_>) {
    // The next one is good, and goes back without a build.
    site.goes_out(&site.push('e', 'f'), "five");
    site.shows(&site.host(), 200, "five");
    site.settles();
    let _ = site
        .fleet
        .helix()
        .run(["rollback", "--project", "walk"])
        .with(0);
    site.shows(&site.host(), 200, "three");

    // New variables come with a restart that asks for them: the same files, another release.
    let before = site.fleet.api().site("walk/production").unwrap().regions[0]
        .live
        .clone();
    let _ = site
        .fleet
        .helix()
        .run([
            "env",
            "set",
            "KEY",
            "newer",
            "--project",
            "walk",
            "--secret",
        ])
        .with(0);
    // Nobody takes what is sent there, and what was to be sent is listed.
    let helix = site.fleet.helix();
    let hook = "http://127.0.0.1:9/";
    let added = ["webhooks", "add", hook, "--project", "walk", "--event"];
    let asked = "deployment.restart.requested";
    let _ = helix.run(added.iter().chain(&[asked])).with(0);
    let hooks: Value = site.fleet.api().get("/v1/webhooks");
    let path = format!(
        "/v1/webhooks/{}/deliveries",
        hooks[0]["webhook"].as_str().unwrap()
    );
    let anew = ["restart", "--project", "walk", "--reload-env"];
    let _ = helix
        .run(anew.iter().chain(&["--reason", "a new key"]))
        .with(0);
    let told: Value = site.fleet.api().get(&path);
    assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told[0]["kind"], asked, "{told}");
    let audit: Value = site.fleet.api().get("/v1/audit?action=restart");
    assert_eq!(audit["entries"][0]["reason"], "a new key", "{audit}");
    site.shows(&site.host(), 200, "three");
    assert_ne!(
        site.fleet.api().site("walk/production").unwrap().regions[0].live,
        before
    );
}
