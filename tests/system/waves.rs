//! Stages of a rollout: which regions go first, what waits for whom, and what people ask of it meanwhile.

use std::process::Child;
use std::time::{Duration, Instant};

use helix_routing::api::{PhaseName, RolloutView, Waits};
use helix_routing::id::{ReleaseId, RolloutId};
use helix_tests::command::{Ended, finish};
use helix_tests::fleet::{Fleet, Options, release_of};
use helix_tests::folder::{Folder, page};
use helix_tests::wait;

use crate::own_fleet;

/// A stage begins within this once nothing holds it up, on a loaded machine.
const STAGE_LIMIT: Duration = Duration::from_secs(60);

/// A deployment that goes on in the background, and the folder it reads.
struct Going {
    command: Child,
    _folder: Folder,
}

impl Going {
    fn ended(self) -> Ended {
        finish(self.command)
    }
}

fn start(fleet: &Fleet, project: &str, folder: Folder, more: &[&str]) -> Going {
    let path = folder.path().to_str().unwrap();
    let mut arguments = vec!["deploy", path, "--project", project, "--json"];
    arguments.extend_from_slice(more);
    Going {
        command: fleet.helix().start(arguments),
        _folder: folder,
    }
}

/// The rollout of a project's production, once it waits for something like this.
fn waiting(fleet: &Fleet, project: &str, for_it: impl Fn(&Waits) -> bool) -> RolloutId {
    let wanted = format!("{project}/production");
    wait::until("the rollout waits", STAGE_LIMIT, || {
        let mut sites = fleet.api().status()?.sites.into_iter();
        let site = sites.find(|site| site.site.to_string() == wanted)?;
        site.waits.as_ref().filter(|waits| for_it(waits))?;
        site.rollout
    })
}

fn for_approval(stage: u16) -> impl Fn(&Waits) -> bool {
    move |waits| *waits == Waits::Approval { stage }
}

/// Fails unless every edge of a region answers with this page.
#[track_caller]
fn serves(fleet: &Fleet, project: &str, name: &str, text: &str) {
    for (_, edge) in fleet.edges().filter(|(region, _)| region.as_str() == name) {
        let response = fleet.ask(edge, &fleet.host(project), "/");
        assert_eq!(response.text(), page(text), "{} of {name}", edge.edge);
    }
}

fn asked(fleet: &Fleet, arguments: &[&str]) -> Ended {
    fleet.helix().run([&["rollout"], arguments].concat())
}

fn result(ended: &Ended) -> RolloutView {
    serde_json::from_value(ended.json()["result"].clone()).unwrap()
}

const WAVES: [&str; 4] = ["--order", "canary", "--approve", "waves"];

#[test]
fn the_canary_region_goes_first_and_the_rest_waits_for_approval() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("wave-approve", &Folder::page("before"));
    let running = start(&fleet, "wave-approve", Folder::page("after"), &WAVES);
    let rollout = waiting(&fleet, "wave-approve", for_approval(2));
    serves(&fleet, "wave-approve", "fra", "after");
    serves(&fleet, "wave-approve", "iad", "before");

    let command = format!("helix rollout approve {rollout} --stage 2");
    let status = fleet.helix().run(["status", "--project", "wave-approve"]);
    status.with(0).says(&[command.as_str()]);
    let id = rollout.as_str();
    asked(&fleet, &["list", "--project", "wave-approve"])
        .with(0)
        .says(&[id, "stage 2 of 2: iad", "running", "settled"]);

    // A later stage is refused, one that began already is left as it is.
    asked(&fleet, &["approve", id, "--stage", "3"])
        .with(1)
        .says(&["there is no stage 3"]);
    let _ = asked(&fleet, &["approve", id, "--stage", "1"]).with(0);
    serves(&fleet, "wave-approve", "iad", "before");

    let _ = asked(&fleet, &["approve", "wave-approve", "--stage", "2"]).with(0);
    let ended = running.ended().with(0);
    ended.says(&["waits for approval", command.as_str()]);
    serves(&fleet, "wave-approve", "iad", "after");
    asked(&fleet, &["approve", id, "--stage", "2"])
        .with(1)
        .says(&["the rollout is over"]);
}

#[test]
fn an_abort_before_the_commit_changes_nothing_and_after_it_goes_back() {
    let fleet = Fleet::shared();
    let before = fleet.deploy("wave-abort", &Folder::page("before"));
    let all = ["--order", "canary", "--approve", "all"];
    let running = start(&fleet, "wave-abort", Folder::page("after"), &all);
    let rollout = waiting(&fleet, "wave-abort", for_approval(1));
    let reason = ["abort", "wave-abort", "-m", "not today"];
    let _ = asked(&fleet, &reason).with(3);
    let ended = running.ended().with(3);
    ended.says(&["aborted by", "not today"]);
    serves(&fleet, "wave-abort", "fra", "before");
    asked(&fleet, &["abort", rollout.as_str()])
        .with(1)
        .says(&["the rollout is over"]);

    let running = start(&fleet, "wave-abort", Folder::page("after"), &WAVES);
    let _ = waiting(&fleet, "wave-abort", for_approval(2));
    serves(&fleet, "wave-abort", "fra", "after");
    let _ = asked(&fleet, &reason).with(2);
    let view = result(&running.ended().with(2));
    let phases: Vec<PhaseName> = view.regions.iter().map(|region| region.phase).collect();
    assert_eq!(phases, [PhaseName::RolledBack, PhaseName::Aborted]);
    for region in ["fra", "iad"] {
        serves(&fleet, "wave-abort", region, "before");
    }
    // Nobody blames the release: it goes out without a word, and nothing is held.
    let site = fleet.api().site("wave-abort/production").unwrap();
    assert!(site.regions.iter().all(|region| region.hold.is_none()));
    let after = fleet.deploy("wave-abort", &Folder::page("after"));
    assert_ne!(after, before);
}

#[test]
fn a_rollback_pre_empts_what_waits() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("wave-back", &Folder::page("first"));
    let _ = fleet.deploy("wave-back", &Folder::page("second"));
    let running = start(&fleet, "wave-back", Folder::page("third"), &WAVES);
    let rollout = waiting(&fleet, "wave-back", for_approval(2));
    let _ = asked(&fleet, &["pause", rollout.as_str()]).with(0);
    let back = ["rollback", "--project", "wave-back", "--region", "fra"];
    let _ = fleet.helix().run(back).with(0);
    let _ = running.ended().with(5);
    serves(&fleet, "wave-back", "fra", "second");
    serves(&fleet, "wave-back", "iad", "second");
}

#[test]
fn waves_wait_for_their_soak_and_a_deployment_for_its_time() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("wave-soak", &Folder::page("before"));
    let (begun, soak) = (Instant::now(), ["--order", "iad/fra", "--soak", "2s"]);
    let running = start(&fleet, "wave-soak", Folder::page("soaked"), &soak);
    let _ = waiting(&fleet, "wave-soak", |waits| {
        matches!(waits, Waits::Time { .. })
    });
    serves(&fleet, "wave-soak", "iad", "soaked");
    let ended = running.ended().with(0);
    ended.says(&["stage 2 of 2: fra; begins at"]);
    assert!(begun.elapsed() >= Duration::from_secs(2), "no soak");
    serves(&fleet, "wave-soak", "fra", "soaked");

    let begun = Instant::now();
    let running = start(&fleet, "wave-soak", Folder::page("timed"), &["--at", "+3s"]);
    let _ = waiting(&fleet, "wave-soak", |waits| {
        matches!(waits, Waits::Time { .. })
    });
    serves(&fleet, "wave-soak", "iad", "soaked");
    let _ = running.ended().with(0);
    assert!(begun.elapsed() >= Duration::from_secs(3), "too early");
    serves(&fleet, "wave-soak", "iad", "timed");
}

#[test]
fn a_release_says_how_it_goes_out_and_mistakes_cost_no_upload() {
    let fleet = Fleet::shared();
    let rules = b"[rollout]\norder = [[\"iad\"], [\"*\"]]\napprove = \"waves\"\n";
    let says = |text: &str| Folder::page(text).with("helix.toml", rules);
    // The first release of a site goes everywhere at once, and so does a preview.
    let _ = fleet.deploy("wave-rules", &says("first"));
    let _ = fleet
        .deploy_to("wave-rules", "preview/1", says("preview").path())
        .with(0);
    let running = start(&fleet, "wave-rules", says("second"), &[]);
    let _ = waiting(&fleet, "wave-rules", for_approval(2));
    serves(&fleet, "wave-rules", "iad", "second");
    serves(&fleet, "wave-rules", "fra", "first");
    // What is typed counts more: the newer wins, and goes everywhere.
    let newer = start(
        &fleet,
        "wave-rules",
        says("third"),
        &["--order", "together", "--approve", "none"],
    );
    let _ = newer.ended().with(0);
    let _ = running.ended().with(5);
    serves(&fleet, "wave-rules", "fra", "third");

    for (rules, told) in [
        ("[rollout]\nsteps = [\"0%:1s\"]\n", "helix.toml:2: "),
        ("[rollout]\nwaves = 2\n", "helix.toml:2: "),
        ("[rollout]\norder = [[\"syd\"]]\n", "there is no region syd"),
        (
            "[rollout]\napprove = [7]\n",
            "there is no stage 7; this rollout has 1",
        ),
    ] {
        let wrong = Folder::page("x").with("helix.toml", rules.as_bytes());
        fleet
            .deploy_to("wave-rules", "production", wrong.path())
            .with(1)
            .says(&[told]);
    }
    serves(&fleet, "wave-rules", "fra", "third");
}

#[test]
fn a_pause_outlives_origin_and_so_does_what_it_waits_for() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let _ = fleet.deploy("wave-kill", &Folder::page("before"));
    let running = start(&fleet, "wave-kill", Folder::page("after"), &WAVES);
    let rollout = waiting(&fleet, "wave-kill", for_approval(2));
    let id = rollout.as_str();
    asked(&fleet, &["pause", id, "-m", "looking at it"])
        .with(0)
        .says(&["looking at it", "helix rollout resume"]);

    let pid = fleet.kill("origin");
    fleet.wait_for_successor("origin", pid);
    let _ = waiting(
        &fleet,
        "wave-kill",
        |waits| matches!(waits, Waits::Resume { reason: Some(reason), .. } if reason == "looking at it"),
    );
    let _ = asked(&fleet, &["approve", id, "--stage", "2"]).with(0);
    serves(&fleet, "wave-kill", "fra", "after");
    serves(&fleet, "wave-kill", "iad", "before");
    let pid = fleet.kill("origin");
    fleet.wait_for_successor("origin", pid);
    let _ = asked(&fleet, &["resume", id]).with(0);
    let ended = running.ended().with(0);
    let _: ReleaseId = release_of(&ended);
    serves(&fleet, "wave-kill", "iad", "after");
}
