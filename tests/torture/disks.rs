//! Disks that are full: of an edge, of origin, of NATS.

use std::path::Path;

use helix_tests::checker::{Checker, Tolerance};
use helix_tests::fleet::{Fleet, Options};

use crate::space::{self, sh};
use crate::{PROJECT, deploy, one_fleet, recovered, report, restarts, try_deploy};

/// Of every disk here.
const SIZE: &str = "48m";

/// Moves what a process keeps to a disk of its own.
fn on_small_disk(fleet: &mut Fleet, name: &str) {
    fleet.stop();
    let folder = fleet.folder().join("data").join(name);
    let path = folder.to_str().unwrap();
    sh(&format!(
        "mv {path} {path}.before && mkdir -m 700 {path} && mount -t tmpfs -o size={SIZE},mode=700 none {path} && cp -a {path}.before/. {path}/"
    ));
    fleet.start_again();
    fleet.wait_until_whole();
}

fn fill(folder: &Path) {
    let path = folder.join("ballast");
    // It ends when there is no room, which is what is wanted.
    sh(&format!(
        "dd if=/dev/zero of={} bs=64k 2>/dev/null || true",
        path.display()
    ));
}

fn survives(name: &str) {
    let mut fleet = Fleet::start(&Options::default());
    let mut known = vec![deploy(&fleet, "first")];
    on_small_disk(&mut fleet, name);
    let folder = fleet.folder().join("data").join(name);
    let checker = Checker::start(&fleet, &fleet.host(PROJECT), Tolerance::Nothing);
    fill(&folder);
    let (code, said) = try_deploy(&fleet, "second");
    if let Some(release) = restarts::release_in(&said) {
        known.push((release, helix_tests::folder::page_digest("second")));
    }
    sh(&format!("rm {}", folder.join("ballast").display()));
    let (whole_after, third) = recovered(&fleet, "third");
    known.push(third);
    let summary = checker.finish(&known);
    let end = code.map_or_else(|| "by a signal".to_owned(), |code| code.to_string());
    report::line(
        &format!("disk of {name} full; a deployment meanwhile ended with {end}"),
        summary,
        whole_after,
    );
    fleet.stop();
    sh(&format!("umount {}", folder.display()));
}

#[test]
fn the_disk_of_an_edge_is_full() {
    if space::enter("disks::the_disk_of_an_edge_is_full") {
        let _turn = one_fleet();
        space::prepare();
        survives("fra-1");
    }
}

#[test]
#[ignore = "minutes: make torture"]
fn every_disk_is_full() {
    if !space::enter("disks::every_disk_is_full") {
        return;
    }
    let _turn = one_fleet();
    space::prepare();
    for name in ["fra-1", "origin", "nats"] {
        survives(name);
    }
}
