//! A new machine from a backup that is older than the fleet, with a new NATS: nothing that is served changes, nothing goes down.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use helix_routing::id::Generation;
use helix_tests::command::{Ended, program};
use helix_tests::fleet::{Fleet, Options};
use helix_tests::folder::{Folder, page};
use helix_tests::wait;

use crate::own_fleet;

/// A cutover and its proof, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(40);

fn origin(arguments: &[&str]) -> Ended {
    let output = Command::new(program("helix-origin"))
        .args(arguments)
        .output()
        .unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have UTF-8 names")
}

/// The generation of every site in every region.
fn generations(fleet: &Fleet) -> BTreeMap<(String, String), Generation> {
    let status = fleet.api().status().unwrap();
    let sites = status.sites.iter().flat_map(|site| {
        site.regions.iter().map(move |region| {
            let place = (site.site.to_string(), region.region.to_string());
            (place, region.generation)
        })
    });
    sites.collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(copied.success(), "{} to {}", from.display(), to.display());
}

/// What is not origin's: the edges' disks, and the accounts of NATS.
fn copy_what_is_elsewhere(from: &Path, to: &Path, edges: &[String]) {
    for edge in edges {
        copy(&from.join("data").join(edge), &to.join("data").join(edge));
        let seed = format!("{edge}.nk");
        copy(&from.join("keys").join(&seed), &to.join("keys").join(&seed));
    }
}

#[test]
fn a_fleet_follows_an_origin_that_was_restored_from_an_older_backup() {
    let _turn = own_fleet();
    let mut old = Fleet::start(&Options::default());
    let _ = old.deploy("known", &Folder::page("known one"));
    let keys = tempfile::tempdir().unwrap();
    let (key, file) = (
        keys.path().join("backup.key"),
        keys.path().join("origin.helix"),
    );
    let made = origin(&["backup-key", "--to", text(&key)]).with(0);
    let config = old.config_file("origin");
    let backup = [
        "--config",
        text(&config),
        "backup",
        "--to",
        text(&file),
        "--recipient",
    ];
    origin(&[&backup[..], &[made.stdout.trim()]].concat())
        .with(0)
        .says(&["rows"]);

    go_on(&old);
    let (before, epoch) = (generations(&old), old.api().status().unwrap().epoch);
    let edges: Vec<String> = old.edges().map(|(_, edge)| edge.edge.to_string()).collect();
    old.stop();

    let folder = Fleet::new_folder();
    copy_what_is_elsewhere(old.folder(), folder.path(), &edges);
    let new_config = keys.path().join("origin.toml");
    let moved = fs::read_to_string(&config)
        .unwrap()
        .replace(text(old.folder()), text(folder.path()));
    fs::write(&new_config, moved).unwrap();
    let restore = [
        "--config",
        text(&new_config),
        "restore",
        "--identity",
        text(&key),
        "--from",
    ];
    refusals(&restore, &file, keys.path());
    origin(&[&restore[..], &[text(&file)]].concat())
        .with(0)
        .says(&["0 of"]);
    origin(&[&restore[..], &[text(&file)]].concat())
        .with(1)
        .says(&["there is a database already"]);
    drop(old);

    let new = Fleet::start_in(folder, &Options::default());
    new.wait_until_whole();
    let status = new.api().status().unwrap();
    assert!(status.epoch > epoch, "{} after {epoch}", status.epoch);
    let after = generations(&new);
    for (place, generation) in &before {
        assert!(
            after.get(place) >= Some(generation),
            "{place:?}: {after:?} after {before:?}"
        );
    }
    for edge in status.edges {
        assert_eq!(edge.note, None, "{} refuses nothing", edge.edge);
    }
    follows(&new);
    let last = generations(&new);
    for (place, generation) in last
        .iter()
        .filter(|((site, _), _)| site == "known/production")
    {
        assert!(Some(generation) > before.get(place), "{place:?}");
    }
}

/// What the backup does not know of.
fn go_on(fleet: &Fleet) {
    for text in ["known two", "known three"] {
        let _ = fleet.deploy("known", &Folder::page(text));
    }
    let _ = fleet.deploy("later", &Folder::page("later one"));
    let helix = fleet.helix();
    let _ = helix
        .run(["domains", "add", "www.later.example", "--project", "later"])
        .with(0);
    wait::until_true("the domain leads to its site", LIMIT, || {
        fleet
            .edges()
            .all(|(_, edge)| fleet.ask(edge, "www.later.example", "/").status == 200)
    });
}

/// What was served is, and what is deployed now goes everywhere.
fn follows(fleet: &Fleet) {
    fleet.all_answer(
        &fleet.host("known"),
        "/",
        200,
        Some(page("known three").as_bytes()),
    );
    fleet.all_answer(
        "www.later.example",
        "/",
        200,
        Some(page("later one").as_bytes()),
    );
    let shown = fleet.helix().run(["status"]).with(0);
    shown.says(&["restored from a backup", "later/production"]);

    // The fleet follows: what is deployed now goes everywhere, with generations above all before.
    let _ = fleet.deploy("known", &Folder::page("known four"));
    wait::until_true(
        "every edge serves what was deployed after the restore",
        LIMIT,
        || {
            fleet.edges().all(|(_, edge)| {
                fleet
                    .ask(edge, &fleet.host("known"), "/")
                    .text()
                    .contains("known four")
            })
        },
    );
}

/// Files that are no whole backup for this key are refused by name, and leave nothing behind.
fn refusals(restore: &[&str], file: &Path, folder: &Path) {
    let whole = fs::read(file).unwrap();
    let other = folder.join("other.key");
    let _ = origin(&["backup-key", "--to", text(&other)]).with(0);
    let mut newer = whole.clone();
    newer[12] = 9;
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for (name, bytes, says) in [
        (
            "foreign",
            b"SQLite format 3\0".to_vec(),
            "no backup of helix-origin",
        ),
        ("empty", Vec::new(), "no backup of helix-origin"),
        ("cut", whole[..whole.len() - 1].to_vec(), "damaged"),
        ("changed", changed, "damaged"),
        ("newer", newer, "version 9"),
    ] {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        origin(&[restore, &[text(&path)]].concat())
            .with(1)
            .says(&[says]);
    }
    let with_other: Vec<&str> = restore
        .iter()
        .map(|part| {
            if part.ends_with("backup.key") {
                text(&other)
            } else {
                part
            }
        })
        .collect();
    origin(&[&with_other[..], &[text(file)]].concat())
        .with(1)
        .says(&["another key"]);
}
