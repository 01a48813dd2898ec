//! An edge is replaced by another process of itself under load.

use std::process::{Command, Stdio};

use helix_tests::checker::{Checker, Tolerance};
use helix_tests::command::program;
use helix_tests::fleet::{Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::{Folder, page_digest};
use helix_tests::wait;

use crate::own_fleet;

#[test]
fn a_successor_takes_the_sockets_and_no_request_fails() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let host = fleet.host("heir");
    let first = fleet.deploy("heir", &Folder::page("first"));
    let checker = Checker::start(&fleet, &host, Tolerance::Nothing);
    checker.settled_everywhere(&fleet, &first);

    let before = fleet.pid("fra-1");
    let mut successor = Command::new(program("helix-edge"))
        .arg("--config")
        .arg(fleet.config_file("fra-1"))
        // It ends with its standard input, as its config says.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // `helix dev` starts an edge in place of the one that ended, which takes over in its turn.
    fleet.wait_for_successor("fra-1", before);
    wait::until_true("the first successor drains and ends", REVIVE_LIMIT, || {
        successor
            .try_wait()
            .unwrap()
            .is_some_and(|status| status.success())
    });
    fleet.wait_until_whole();

    checker.changing();
    let second = fleet.deploy("heir", &Folder::page("second"));
    checker.settled_everywhere(&fleet, &second);
    let _ = checker.finish(&[
        (first, page_digest("first")),
        (second, page_digest("second")),
    ]);
}
