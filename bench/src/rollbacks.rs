//! `helix rollback --region fra`, from typed to ended, which is proof on every edge of fra.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::ensure;
use helix_tests::fleet::Fleet;
use helix_tests::folder::{Folder, page_digest};

use crate::figures::Figures;
use crate::watch::{Bodies, Watch};

/// Deploys and takes fra back, `count` times, with a client asking all edges.
pub(crate) fn run(fleet: &Fleet, count: usize) -> anyhow::Result<()> {
    let bodies = Bodies::default();
    let deploy = |text: &str| {
        let release = fleet.deploy("rollbacks", &Folder::page(text));
        bodies
            .lock()
            .unwrap()
            .insert(release.to_string(), page_digest(text));
    };
    deploy("first");
    let watch = Watch::start(fleet, &fleet.host("rollbacks"), &Arc::clone(&bodies));
    let samples = Mutex::new(Vec::new());
    for number in 0..count {
        deploy(&format!("release {number}"));
        let start = Instant::now();
        let ended = fleet
            .helix()
            .run(["rollback", "--project", "rollbacks", "--region", "fra"]);
        samples.lock().unwrap().push(start.elapsed());
        ensure!(
            ended.code == Some(0),
            "rollback ended with {:?}: {}",
            ended.code,
            ended.stderr
        );
    }
    let (requests, _) = watch.finish()?;
    println!(
        "rollback --region fra, typed to ended   {}",
        Figures::of(samples.into_inner()?)
    );
    println!("requests meanwhile                      {requests}, 0 failed, 0 of another release");
    Ok(())
}
