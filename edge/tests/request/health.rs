//! Servers that fall ill, flap, die and come back, and what their visitors notice of it.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Edge, PATIENCE};
use crate::upstream::{HOST, Upstream, forward_to_all, ok};

/// Requests in a row that tell where requests go.
const SOME: usize = 30;

/// A server that answers requests, and checks with the status it is told.
struct Patient {
    upstream: Upstream,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Patient {
    fn new(name: &'static str) -> Self {
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let (told, count) = (Arc::clone(&status), Arc::clone(&asked));
        let upstream = Upstream::answering(move |seen| {
            if seen.head.starts_with("GET /well?deep=1 ") {
                assert_eq!(seen.fields("host"), ["api.internal"], "{}", seen.head);
                let status = told.load(Ordering::Acquire);
                // What a check is answered with does not matter, however much it is.
                let body = "x".repeat(100_000);
                return format!(
                    "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .into_bytes();
            }
            count.fetch_add(1, Ordering::AcqRel);
            ok(name)
        });
        Self {
            upstream,
            status,
            asked,
        }
    }

    fn answers_checks_with(&self, status: u16) {
        self.status.store(status, Ordering::Release);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}

fn get(client: &mut Client) -> u16 {
    client.send(format!("GET /api/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    client.response().status
}

/// Asks until `done` says of the requests that one server got of the last few that it is so.
fn until(edge: &Edge, server: &Patient, what: &str, done: impl Fn(usize) -> bool) {
    let until = Instant::now() + PATIENCE;
    let mut client = edge.client();
    loop {
        let before = server.asked();
        for _ in 0..SOME {
            assert_eq!(get(&mut client), 200, "{what}");
        }
        if done(server.asked() - before) {
            return;
        }
        assert!(Instant::now() < until, "it never came about that {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_server_gets_requests_while_its_checks_are_answered_well() {
    let (one, other) = (Patient::new("one"), Patient::new("other"));
    let edge = Edge::start();
    let health = json!({
        "path": "/well?deep=1", "interval": "500ms", "timeout": "500ms", "status": 200,
        "unhealthy_after": 2, "healthy_after": 1,
    });
    let more = json!({ "host": "api.internal", "health": health });
    forward_to_all(&edge, &[one.upstream.addr, other.upstream.addr], &more);
    for status in [500, 302, 204] {
        until(
            &edge,
            &one,
            "a server that is well gets requests",
            |asked| asked > 0,
        );
        one.answers_checks_with(status);
        until(&edge, &one, "a server that is ill gets none", |asked| {
            asked == 0
        });
        one.answers_checks_with(200);
    }
    until(
        &edge,
        &one,
        "a server that is well again gets requests",
        |asked| asked > 0,
    );
    // When both are ill, both get requests: the checks may be what is wrong.
    one.answers_checks_with(500);
    until(&edge, &one, "a server that is ill gets none", |asked| {
        asked == 0
    });
    other.answers_checks_with(500);
    until(
        &edge,
        &one,
        "one of two that are ill gets requests",
        |asked| asked > 0,
    );
}

#[test]
fn a_server_that_dies_and_comes_back_is_found_out_by_its_checks() {
    let other = Patient::new("other");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Nobody listens any more.
    drop(listener);
    let edge = Edge::start();
    let health = json!({
        "path": "/well?deep=1", "interval": "500ms", "timeout": "500ms",
        "unhealthy_after": 1, "healthy_after": 1,
    });
    let more = json!({ "host": "api.internal", "health": health });
    forward_to_all(&edge, &[addr, other.upstream.addr], &more);
    let mut client = edge.client();
    for _ in 0..SOME {
        assert_eq!(get(&mut client), 200);
    }
    let revived = Upstream::answering_at(addr, |_| ok("revived"));
    let until = Instant::now() + PATIENCE;
    while !revived
        .seen()
        .iter()
        .any(|seen| seen.head.starts_with("GET /api/"))
    {
        assert_eq!(get(&mut client), 200);
        assert!(Instant::now() < until, "it gets no requests again");
    }
}

/// A server that takes connections and closes them while it is broken, and counts both kinds.
fn breakable(broken: Arc<AtomicBool>) -> (Upstream, Arc<AtomicUsize>) {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let upstream = Upstream::raw(move |mut link, keep| {
        while let Some(seen) = link.request() {
            if broken.load(Ordering::Acquire) {
                count.fetch_add(1, Ordering::AcqRel);
                return;
            }
            keep(seen);
            link.send(ok("back"));
        }
    });
    (upstream, refused)
}

#[test]
fn one_broken_server_of_three_costs_nobody_an_answer_and_nobody_a_storm() {
    const ASKERS: usize = 8;
    const EACH: usize = 250;
    let broken = Arc::new(AtomicBool::new(true));
    let (ill, refused) = breakable(Arc::clone(&broken));
    let (one, other) = (Patient::new("one"), Patient::new("other"));
    let edge = Edge::start();
    let addrs = [ill.addr, one.upstream.addr, other.upstream.addr];
    forward_to_all(&edge, &addrs, &json!({}));
    let failed: usize = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = edge.client();
                    (0..EACH).filter(|_| get(&mut client) != 200).count()
                })
            })
            .collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).sum()
    });
    assert_eq!(failed, 0, "of {} requests", ASKERS * EACH);
    // What was tried at the broken one was tried once more, and elsewhere.
    assert_eq!(one.asked() + other.asked(), ASKERS * EACH);
    // Five in a row are enough, and those that were on their way at the time.
    let tried = refused.load(Ordering::Acquire);
    assert!((5..=5 + ASKERS).contains(&tried), "{tried} tries");
    // It is asked again after a while, and found well.
    broken.store(false, Ordering::Release);
    let until = Instant::now() + PATIENCE;
    let mut client = edge.client();
    while ill.seen().is_empty() {
        assert_eq!(get(&mut client), 200);
        assert!(Instant::now() < until, "it is never asked again");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn when_most_servers_are_broken_the_others_still_answer() {
    let broken = Arc::new(AtomicBool::new(true));
    let servers: Vec<_> = (0..2).map(|_| breakable(Arc::clone(&broken))).collect();
    let well = Patient::new("well");
    let edge = Edge::start();
    let addrs = [servers[0].0.addr, servers[1].0.addr, well.upstream.addr];
    forward_to_all(&edge, &addrs, &json!({}));
    let mut client = edge.client();
    for _ in 0..200 {
        assert_eq!(get(&mut client), 200);
    }
    assert_eq!(well.asked(), 200);
    // Two of three are never left alone together: the third may not bear what all of them do.
    let before: usize = servers
        .iter()
        .map(|(_, refused)| refused.load(Ordering::Acquire))
        .sum();
    for _ in 0..50 {
        assert_eq!(get(&mut client), 200);
    }
    let after: usize = servers
        .iter()
        .map(|(_, refused)| refused.load(Ordering::Acquire))
        .sum();
    assert!(after > before, "the broken ones are not tried any more");
}
