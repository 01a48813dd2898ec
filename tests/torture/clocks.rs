//! Clocks that are three days off: order is by generation, and leases go by origin's own clock.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use helix_tests::checker::{Checker, Tolerance};
use helix_tests::client::{Client, Request};
use helix_tests::command::program;
use helix_tests::fleet::{Fleet, Options};

use crate::{PROJECT, deploy, one_fleet, recovered, report};

const FAKETIME: &str = "/usr/bin/faketime";

/// Our programs, of which those named start with another clock: `--config …/<process>.toml` tells which one it is.
fn programs(folder: &Path, skewed: &[(&str, &str)]) -> PathBuf {
    let real = program("helix").parent().unwrap().to_owned();
    fs::copy(real.join("helix"), folder.join("helix")).unwrap();
    for name in ["helix-edge", "helix-origin"] {
        let mut script = String::from("#!/bin/sh\ncase \"$*\" in\n");
        for (process, offset) in skewed {
            // The monotonic clock is not a calendar: no machine's jumps by days.
            script += &format!(
                "*/{process}.toml*) export FAKETIME_DONT_FAKE_MONOTONIC=1; exec {FAKETIME} -f '{offset}' {}/{name} \"$@\" ;;\n",
                real.display()
            );
        }
        script += &format!("*) exec {}/{name} \"$@\" ;;\nesac\n", real.display());
        let path = folder.join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    folder.to_owned()
}

#[test]
fn clocks_are_three_days_off() {
    if !Path::new(FAKETIME).exists() {
        eprintln!("skipped: {FAKETIME} is not installed");
        return;
    }
    let _turn = one_fleet();
    for (fault, skewed) in [
        (
            "edges three days ahead and behind",
            vec![("fra-1", "+3d"), ("iad-2", "-3d")],
        ),
        ("origin three days behind", vec![("origin", "-3d")]),
        ("origin three days ahead", vec![("origin", "+3d")]),
    ] {
        let folder = tempfile::tempdir_in(program("helix").parent().unwrap()).unwrap();
        let fleet = Fleet::start(&Options {
            programs: Some(programs(folder.path(), &skewed)),
            ..Options::default()
        });
        assert!(
            days(&fleet).len() > 1,
            "{fault}: every clock shows the same day"
        );
        let mut known = vec![deploy(&fleet, "first")];
        let checker = Checker::start(&fleet, &fleet.host(PROJECT), Tolerance::Nothing);
        known.push(deploy(&fleet, "second"));
        checker.settled_everywhere(&fleet, &known[1].0);
        checker.changing();
        let (whole_after, third) = recovered(&fleet, "third");
        known.push(third);
        let summary = checker.finish(&known);
        report::line(fault, summary, whole_after);
    }
}

/// The days that the fleet's processes take today for.
fn days(fleet: &Fleet) -> BTreeSet<String> {
    let edges = fleet.edges().map(|(_, edge)| edge.http.clone());
    let day = |url: String| {
        let response = Client::of(&url)
            .send(Request::get("nobody.test", "/"))
            .unwrap();
        let date = response.header("date").unwrap();
        // `Sat, 28 Nov 2026` of the whole date.
        date.chars().take(16).collect()
    };
    edges.chain([fleet.info.api.clone()]).map(day).collect()
}
