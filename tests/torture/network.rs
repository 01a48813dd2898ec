//! A region or origin cut off from the others, one way or both, and links that lose packets.

use std::fs;
use std::time::Duration;

use helix_tests::checker::{Checker, Tolerance};
use helix_tests::fleet::{Fleet, Options};
use helix_tests::wait;

use crate::space::{self, sh};
use crate::{PROJECT, deploy, one_fleet, recovered, report, restarts, try_deploy};

/// What is cut from NATS and from origin's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Region,
    Origin,
}

/// Which way nothing passes, as seen by who is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Both,
    Out,
    In,
    /// Of every twenty packets one is lost, both ways.
    Lossy,
}

/// Longer than a lease.
const CUT: Duration = Duration::from_secs(20);
const GROUP: &str = "helix-cut";

fn port(url: &str) -> u16 {
    url.trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// Puts processes into the group whose packets are told apart, and has them connect anew, since a socket
/// belongs to the group it was made in.
fn gather(fleet: &Fleet, names: &[&str]) {
    fs::create_dir_all(format!("/sys/fs/cgroup/{GROUP}")).unwrap();
    for name in names {
        let pid = fleet.pid(name).to_string();
        fs::write(format!("/sys/fs/cgroup/{GROUP}/cgroup.procs"), pid).unwrap();
    }
    let before = fleet.kill("nats");
    fleet.wait_for_successor("nats", before);
    fleet.wait_until_whole();
}

fn cut(fleet: &Fleet, way: Way) {
    let ports = format!(
        "{{ {}, {} }}",
        port(&fleet.info.nats),
        port(&fleet.info.api)
    );
    let lost = if way == Way::Lossy {
        "numgen random mod 20 < 1 "
    } else {
        ""
    };
    sh("nft add table inet helix");
    for (hook, side, is_cut) in [
        ("output", "dport", way != Way::In),
        ("input", "sport", way != Way::Out),
    ] {
        sh(&format!(
            "nft 'add chain inet helix {hook} {{ type filter hook {hook} priority 0; }}'"
        ));
        if is_cut {
            sh(&format!(
                "nft 'add rule inet helix {hook} socket cgroupv2 level 1 \"{GROUP}\" tcp {side} {ports} {lost}drop'"
            ));
        }
    }
}

fn heal() {
    sh("nft delete table inet helix");
}

fn survives(who: Who, way: Way) {
    let fleet = Fleet::start(&Options::default());
    let mut known = vec![deploy(&fleet, "first")];
    gather(
        &fleet,
        match who {
            Who::Region => &["iad-1", "iad-2"],
            Who::Origin => &["origin"],
        },
    );
    let checker = Checker::start(&fleet, &fleet.host(PROJECT), Tolerance::Nothing);
    cut(&fleet, way);
    wait::pause(CUT);
    let (code, said) = try_deploy(&fleet, "second");
    if let Some(release) = restarts::release_in(&said) {
        known.push((release, helix_tests::folder::page_digest("second")));
    }
    heal();
    let (whole_after, third) = recovered(&fleet, "third");
    known.push(third);
    let summary = checker.finish(&known);
    let end = code.map_or_else(|| "by a signal".to_owned(), |code| code.to_string());
    report::line(
        &format!("{who:?} cut off, {way:?}; a deployment meanwhile ended with {end}"),
        summary,
        whole_after,
    );
}

#[test]
fn a_region_is_cut_off() {
    if space::enter("network::a_region_is_cut_off") {
        let _turn = one_fleet();
        space::prepare();
        survives(Who::Region, Way::Both);
    }
}

#[test]
#[ignore = "minutes: make torture"]
fn every_cut_of_the_network() {
    if !space::enter("network::every_cut_of_the_network") {
        return;
    }
    let _turn = one_fleet();
    space::prepare();
    for who in [Who::Region, Who::Origin] {
        for way in [Way::Both, Way::Out, Way::In, Way::Lossy] {
            survives(who, way);
        }
    }
}
