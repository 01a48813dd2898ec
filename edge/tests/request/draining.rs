//! What becomes of what is in flight when its release is no longer live: it ends by itself, or it is cut at its deadline.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use helix_edge::in_flight::Load;
use helix_edge::limits::Limits;
use helix_edge::table::Serving;
use helix_edge::tally::{REQUEST_CUT, SHUTDOWN_CUT};
use helix_routing::id::SiteId;
use helix_routing::routes::Drain;
use serde_json::json;

use crate::support::{BIG, Client, Edge, PATIENCE, get, site};
use crate::upstream::{HOST, Upstream, forward_to};

/// Long enough that a slow machine is not taken for a deadline.
const GRACE: Duration = Duration::from_millis(600);

pub(crate) fn calls() -> SiteId {
    "calls/production".parse().unwrap()
}

pub(crate) fn drain(requests: &str, websockets: &str) -> Drain {
    Drain {
        requests: requests.parse().unwrap(),
        websockets: websockets.parse().unwrap(),
    }
}

/// As the agent does when another release is live.
pub(crate) fn leave(edge: &Edge, of: &SiteId, drain: &Drain) -> std::sync::Arc<Serving> {
    let serving = edge.table.site(of).unwrap().serving();
    serving.in_flight.leave(drain, tokio::time::Instant::now());
    serving
}

/// Waits until so much is in flight.
#[track_caller]
pub(crate) fn until_flies(serving: &Serving, requests: u64, sockets: u64) {
    let until = Instant::now() + PATIENCE;
    while serving.in_flight.load() != (Load { requests, sockets }) {
        let load = serving.in_flight.load();
        assert!(Instant::now() < until, "{load:?}");
        std::thread::yield_now();
    }
}

/// Sends the parts of its answer when it is told to.
fn slow<const N: usize>(parts: &[&'static str; N]) -> (Upstream, Sender<()>, Receiver<()>) {
    let (go_on, wait) = channel::<()>();
    let (asked, asking) = channel();
    let (wait, parts) = (Mutex::new(wait), *parts);
    let upstream = Upstream::raw(move |mut link, keep| {
        let Some(seen) = link.request() else { return };
        keep(seen);
        asked.send(()).unwrap();
        for part in parts {
            if wait.lock().unwrap().recv_timeout(PATIENCE).is_err() || !link.send(part) {
                return;
            }
        }
        while link.fill() {}
    });
    (upstream, go_on, asking)
}

fn ask(edge: &Edge) -> Client {
    let mut client = edge.client();
    client.send(format!("GET /api/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    client
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";

#[test]
fn a_request_in_flight_ends_whole_within_its_time() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
    let (upstream, go_on, asked) = slow(&[head, "rest"]);
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = ask(&edge);
    asked.recv_timeout(PATIENCE).unwrap();
    let serving = leave(&edge, &calls(), &drain("1h", "1h"));
    until_flies(&serving, 1, 0);
    go_on.send(()).unwrap();
    go_on.send(()).unwrap();
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "halfrest"));
    until_flies(&serving, 0, 0);
    assert_eq!(edge.logged(1)[0]["error"], json!(null));
    assert_eq!(edge.metrics.counted(|core| &core.drained[REQUEST_CUT]), 0);
}

#[test]
fn one_without_an_answer_is_told_so_at_its_deadline_and_not_before() {
    let (upstream, _go_on, asked) = slow(&[HEAD]);
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = ask(&edge);
    asked.recv_timeout(PATIENCE).unwrap();
    let left = Instant::now();
    let serving = leave(&edge, &calls(), &drain("600ms", "1h"));
    let response = client.response();
    assert!(left.elapsed() >= GRACE, "{:?}", left.elapsed());
    assert_eq!(response.status, 504, "{}", response.text());
    until_flies(&serving, 0, 0);
    // The server learns that nobody waits any more.
    upstream.until_ended();
    let line = &edge.logged(1)[0];
    assert_eq!(line["status"], 504);
    assert_eq!(line["error"], "cut at the end of its release's drain");
    assert_eq!(edge.metrics.counted(|core| &core.drained[REQUEST_CUT]), 1);
    let text = String::from_utf8(edge.metrics.text().unwrap()).unwrap();
    let counted = |line: &str| {
        line.starts_with("helix_edge_drained_total{")
            && line.contains(r#"how="request_cut""#)
            && line.ends_with(" 1")
    };
    assert!(text.lines().any(counted), "{text}");
}

#[test]
fn a_stream_is_broken_off_at_its_deadline_and_the_log_says_why() {
    let (upstream, go_on, asked) = slow(&[HEAD]);
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = ask(&edge);
    asked.recv_timeout(PATIENCE).unwrap();
    go_on.send(()).unwrap();
    assert_eq!(client.head().status, 200);
    leave(&edge, &calls(), &drain("600ms", "1h"));
    // One that begins after the end has what is left of the same time.
    let mut late = ask(&edge);
    asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!(late.response().status, 504);
    assert_eq!(client.take(9), b"4\r\nhalf\r\n");
    assert!(client.is_closed(), "there is no last chunk");
    let lines = edge.logged(2);
    let stream = lines.iter().find(|line| line["status"] == 200).unwrap();
    assert_eq!(stream["error"], "cut at the end of its release's drain");
    upstream.until_ended();
}

#[test]
fn a_file_is_sent_to_its_end_however_long_that_takes() {
    let edge = Edge::start();
    let mut client = edge.client();
    client.send(get("/big.bin"));
    assert_eq!(client.head().status, 200);
    let serving = leave(&edge, &site(), &drain("0s", "0s"));
    until_flies(&serving, 1, 0);
    std::thread::park_timeout(GRACE);
    assert_eq!(client.take(BIG).len(), BIG);
    until_flies(&serving, 0, 0);
    assert_eq!(edge.logged(1)[0]["error"], json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_end_of_the_edge_cuts_has_its_line() {
    let limits = Limits {
        drain_deadline: GRACE,
        ..Limits::default()
    };
    let (upstream, go_on, asked) = slow(&[HEAD]);
    let edge = Edge::with(limits);
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = ask(&edge);
    asked.recv_timeout(PATIENCE).unwrap();
    go_on.send(()).unwrap();
    assert_eq!(client.head().status, 200);
    edge.shutdown.request();
    let line = edge.logged(1)[0].clone();
    assert_eq!(line["error"], "cut at the end of the edge's drain");
    assert_eq!(edge.metrics.counted(|core| &core.drained[SHUTDOWN_CUT]), 1);
    let ended = tokio::time::timeout(PATIENCE, edge.handle.join()).await;
    ended.unwrap().unwrap();
}
