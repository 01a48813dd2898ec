//! What is kept, what goes, and what a full disk does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use helix_tests::checker::{Checker, Tolerance};
use helix_tests::fleet::{Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::{Folder, noise, page, page_digest};
use helix_tests::{skipped, wait};

use crate::own_fleet;

#[test]
fn a_deleted_project_answers_404_and_can_be_restored() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("gone", &Folder::page("gone"));
    let host = fleet.host("gone");
    let refused = fleet.helix().run(["projects", "delete", "gone"]);
    assert_ne!(
        refused.code,
        Some(0),
        "it was deleted without being asked for twice"
    );
    fleet.all_answer(&host, "/", 200, None);

    fleet
        .helix()
        .run(["projects", "delete", "gone", "--yes"])
        .with(0)
        .says(&["7 days"]);
    for (_, edge) in fleet.edges() {
        wait::until_true("the project's host answers 404", REVIVE_LIMIT, || {
            fleet.ask(edge, &host, "/").status == 404
        });
    }
    let _ = fleet.helix().run(["projects", "restore", "gone"]).with(0);
    for (_, edge) in fleet.edges() {
        wait::until_true("the project is back", REVIVE_LIMIT, || {
            let response = fleet.ask(edge, &host, "/");
            response.status == 200 && response.text() == page("gone")
        });
    }
}

#[test]
fn releases_that_can_be_gone_back_to_are_kept() {
    let fleet = Fleet::shared();
    let first = fleet.deploy("keeps", &Folder::page("keeps 0"));
    for index in 1..=4 {
        let _ = fleet.deploy("keeps", &Folder::page(&format!("keeps {index}")));
    }
    let _ = fleet
        .helix()
        .run(["rollback", first.as_str(), "--project", "keeps"])
        .with(0);
    fleet.all_answer(
        &fleet.host("keeps"),
        "/",
        200,
        Some(page("keeps 0").as_bytes()),
    );
    for release in fleet.api().releases("keeps") {
        let host = format!("{}.preview.{}", release.release, fleet.host("keeps"));
        fleet.all_answer(&host, "/", 200, None);
    }
}

/// Releases a record keeps to go back to, and three more.
const MORE_THAN_KEPT: usize = 24;

#[test]
fn what_nothing_references_goes_and_what_is_referenced_stays() {
    let _turn = own_fleet();
    let settings = &[
        ("HELIX_ORIGIN_KEEP__RELEASES", "1"),
        ("HELIX_ORIGIN_KEEP__DAYS", "0"),
    ];
    let fleet = Fleet::start(&Options {
        settings,
        ..Options::default()
    });
    let helix = fleet.helix();
    let made: Vec<_> = (0..MORE_THAN_KEPT)
        .map(|index| fleet.deploy("many", &Folder::page(&format!("many {index}"))))
        .collect();
    wait::until_true("the oldest release is collected", REVIVE_LIMIT, || {
        fleet
            .api()
            .releases("many")
            .iter()
            .all(|view| view.release != made[0])
    });
    helix
        .run(["rollback", made[0].as_str(), "--project", "many"])
        .with(1)
        .says(&["collected"]);
    let kept = fleet.api().releases("many");
    assert!(kept.len() > 20, "{} releases are left", kept.len());
    let oldest = kept
        .iter()
        .map(|view| &view.release)
        .min_by_key(|kept| made.iter().position(|made| made == *kept));
    let oldest = oldest.unwrap();
    let index = made.iter().position(|made| made == oldest).unwrap();
    let _ = helix
        .run(["rollback", oldest.as_str(), "--project", "many"])
        .with(0);
    fleet.all_answer(
        &fleet.host("many"),
        "/",
        200,
        Some(page(&format!("many {index}")).as_bytes()),
    );
}

/// A small file system mounted over a folder; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Puts one over `folder` and copies what was there into it; none where this user may not mount.
    fn over(folder: &Path, size: &str) -> Option<Self> {
        let aside = folder.with_extension("aside");
        fs::rename(folder, &aside).unwrap();
        fs::create_dir(folder).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            fs::remove_dir(folder).unwrap();
            fs::rename(&aside, folder).unwrap();
            return None;
        }
        let disk = Self(folder.to_path_buf());
        let from = aside.join(".");
        assert!(
            Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(folder)
                .status()
                .unwrap()
                .success()
        );
        Some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the edge may still have files open. A mount that stays is the machine's to clean up.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_on_one_edge_stops_the_rollout_and_nothing_else() {
    let _turn = own_fleet();
    let mut fleet = Fleet::start(&Options::default());
    let first = fleet.deploy("full", &Folder::page("first"));
    let data = PathBuf::from(fleet.config("iad-1")["data_dir"].as_str().unwrap());
    fleet.stop();
    let Some(disk) = SmallDisk::over(&data, "24m") else {
        skipped("this user may not mount a small disk");
        return;
    };
    fleet.start_again();
    let host = fleet.host("full");
    fleet.wait_until_whole();
    let checker = Checker::start(&fleet, &host, Tolerance::Nothing);
    checker.settled_everywhere(&fleet, &first);
    let big = Folder::page("too much").with("big.bin", &noise(5, 60_000_000));
    fleet
        .deploy_to("full", "production", big.path())
        .with(3)
        .says(&["iad-1"]);
    fleet.all_answer(&host, "/", 200, Some(page("first").as_bytes()));
    let site = fleet.api().site("full/production").unwrap();
    assert!(
        site.regions.iter().any(|region| region.note.is_some()),
        "nothing says why: {site:?}"
    );

    checker.changing();
    let small = fleet.deploy("full", &Folder::page("fits"));
    checker.settled_everywhere(&fleet, &small);
    let _ = checker.finish(&[(first, page_digest("first")), (small, page_digest("fits"))]);
    fleet.stop();
    drop(disk);
}
