//! An edge is replaced by another process of itself under load.

use std::process::{Child, Command, Stdio};

use helix_tests::checker::{Checker, Tolerance};
use helix_tests::command::program;
use helix_tests::fleet::{Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::{Folder, noise, page_digest};
use helix_tests::http3::{self, Http3, Load};
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
    let mut successor = succeed(&fleet);
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

/// Another process of the first edge, which takes over from the one that runs.
fn succeed(fleet: &Fleet) -> Child {
    Command::new(program("helix-edge"))
        .arg("--config")
        .arg(fleet.config_file("fra-1"))
        // It ends with its standard input, as its config says.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// More than both ends of a connection hold between them, so that the rest is sent after a handover.
const LONG: usize = 12 * 1024 * 1024;

#[test]
fn two_handovers_under_http3_cost_no_request_and_break_no_response_off() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let content = noise(7, LONG);
    let folder = Folder::page("quic").with("long.bin", &content);
    let _ = fleet.deploy("quic", &folder);
    let client = Http3::of(&fleet, "fra-1", &fleet.host("quic"));
    let load = Load::start(&client);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let begin = || runtime.block_on(begin(&client));
    let end = |(connection, stream): (http3::Connection, http3::Stream)| {
        let body = runtime.block_on(end(connection, stream));
        assert!(body == content, "{} bytes came", body.len());
    };
    let all_moved = |times: u64| {
        let what = "every client that keeps its connection is told to come anew";
        wait::until_true(what, REVIVE_LIMIT, || {
            load.moved() >= times * load.faithful()
        });
    };

    let before = fleet.pid("fra-1");
    let first = begin();
    let mut successor = succeed(&fleet);
    all_moved(1);
    let second = begin();
    // The rest of it comes from the process before, through the one that has the socket now.
    end(first);
    // That ends then; `helix dev` starts another in its place, which takes over in its turn.
    fleet.wait_for_successor("fra-1", before);
    all_moved(2);
    end(second);
    wait::until_true("the first successor drains and ends", REVIVE_LIMIT, || {
        let ended = successor.try_wait().unwrap();
        ended.is_some_and(|status| status.success())
    });
    let answers = load.answers();
    wait::until_true("the second successor answers", REVIVE_LIMIT, || {
        load.answers() > answers + 100
    });
    load.finish();
}

/// Asks for the long file, and takes no more than its head.
async fn begin(client: &Http3) -> (http3::Connection, http3::Stream) {
    let request = http::Request::get(client.url("/long.bin"));
    let mut connection = client.open().await.unwrap();
    let mut stream = connection.send(request.body(()).unwrap()).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    (connection, stream)
}

async fn end(connection: http3::Connection, mut stream: http3::Stream) -> Vec<u8> {
    let body = http3::rest(&mut stream).await.unwrap();
    drop(stream);
    let ended = connection.driver.await.unwrap();
    assert!(ended.is_h3_no_error(), "{ended}");
    body
}
