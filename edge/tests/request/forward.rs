//! Requests that are sent on to an upstream, and what comes back.

use std::net::TcpListener;

use serde_json::json;

use crate::support::{Client, Edge, PATIENCE};
use crate::upstream::{HOST, Upstream, forward_to, ok};

const PART: usize = 64 * 1024;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

fn edge(upstream: &Upstream) -> Edge {
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    edge
}

#[test]
fn a_request_below_the_path_is_forwarded_and_others_are_not() {
    let upstream = Upstream::answering(|seen| ok(format!("{} bytes", seen.body.len())));
    let edge = edge(&upstream);
    let mut client = edge.client();
    client.send(get("/api/a%20b?q=%2F"));
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "0 bytes"));
    client.send(get("/"));
    assert_eq!(client.response().text(), "page");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1);
    assert!(
        seen[0]
            .head
            .starts_with("GET /api/a%20b?q=%2F HTTP/1.1\r\n"),
        "{}",
        seen[0].head
    );
    assert_eq!(seen[0].fields("host"), [HOST]);
}

#[test]
fn what_is_about_one_connection_stays_on_it() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-End: 2\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    let edge = edge(&upstream);
    let mut client = edge.client();
    client.send(format!(
        "GET /api/ HTTP/1.1\r\nHost: {HOST}\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: 3\r\nProxy-Connection: close\r\nTE: gzip\r\nUpgrade: h2c\r\nX-Yours: 2\r\n\r\n"
    ));
    let response = client.response();
    assert_eq!(
        (response.header("x-hop"), response.header("x-end")),
        (None, Some("2"))
    );
    assert_eq!(response.header("keep-alive"), None);
    let seen = &upstream.seen()[0];
    for name in [
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "transfer-encoding",
    ] {
        assert!(seen.fields(name).is_empty(), "{name}: {}", seen.head);
    }
    assert_eq!(seen.fields("x-yours"), ["2"]);
}

#[test]
fn bodies_of_every_framing_arrive_whole_and_the_connection_goes_on() {
    let upstream = Upstream::answering(|seen| ok(&seen.body));
    let edge = edge(&upstream);
    let mut client = edge.client();
    for size in [0, 1, 1000, 70_000, 1_000_000] {
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        client.send(format!(
            "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n"
        ));
        client.send(&body);
        assert!(client.response().body == body, "{size} bytes with a length");
        client.send(format!(
            "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        for part in body.chunks(3000) {
            client.send(format!("{:x}\r\n", part.len()));
            client.send(part);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        assert!(client.response().body == body, "{size} bytes in chunks");
    }
    assert_eq!(edge.metrics.connections_accepted.get(), 1);
}

#[test]
fn a_large_body_passes_in_both_directions_at_once() {
    const PARTS: usize = 1600;
    let upstream = Upstream::raw(|mut link, _| {
        let Some(_) = link.head() else { return };
        link.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            PART * PARTS
        ));
        for _ in 0..PARTS {
            let Some(part) = link.take(PART) else { return };
            if !link.send(part) {
                return;
            }
        }
    });
    let edge = edge(&upstream);
    let mut client = edge.client();
    let mut sender = client.sender();
    let sending = std::thread::spawn(move || {
        sender.send(format!(
            "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n",
            PART * PARTS
        ));
        let part = vec![7; PART];
        for _ in 0..PARTS {
            sender.send(&part);
        }
    });
    assert_eq!(client.head().status, 200);
    client.rest_of_body(PART * PARTS);
    sending.join().unwrap();
}

#[test]
fn a_body_that_the_upstream_does_not_take_waits_at_the_client() {
    // More than what the kernel holds of two connections, and far less than the body.
    const MOST: usize = 48 * 1024 * 1024;
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::raw(move |mut link, _| {
        let Some(_) = link.head() else { return };
        // Until the test ends.
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
    });
    let edge = edge(&upstream);
    let mut client = edge.client();
    client.send(format!(
        "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n",
        4 * MOST
    ));
    let taken = client.send_until_stalled(std::time::Duration::from_secs(1), 4 * MOST);
    assert!(taken < MOST, "{taken} bytes were taken");
    drop(go_on);
}

#[test]
fn a_response_without_a_length_arrives_whole() {
    for framing in ["Transfer-Encoding: chunked\r\n", "Connection: close\r\n"] {
        let upstream = Upstream::raw(move |mut link, _| {
            let Some(_) = link.request() else { return };
            link.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n"));
            for part in ["hel", "lo"] {
                if framing.starts_with('T') {
                    link.send(format!("{:x}\r\n{part}\r\n", part.len()));
                } else {
                    link.send(part);
                }
            }
            if framing.starts_with('T') {
                link.send("0\r\n\r\n");
            }
        });
        let edge = edge(&upstream);
        let mut client = edge.client();
        client.send(get("/api/"));
        let head = client.head();
        assert_eq!(
            head.header("transfer-encoding"),
            Some("chunked"),
            "{head:?}"
        );
        assert_eq!(client.chunked_body(), b"hello");
    }
}

#[test]
fn an_upstream_that_fails_gets_the_client_a_status_that_says_so() {
    type Serve = fn(crate::upstream::Link);
    let cases: [(&str, Serve, u16); 5] = [
        ("closes at once", |_| {}, 502),
        (
            "speaks something else",
            |mut link| {
                link.request();
                link.send("SSH-2.0-OpenSSH\r\n\r\n");
            },
            502,
        ),
        (
            "ends within its head",
            |mut link| {
                link.request();
                link.send("HTTP/1.1 200 OK\r\nContent-Le");
            },
            502,
        ),
        (
            "has two lengths",
            |mut link| {
                link.request();
                link.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab");
            },
            502,
        ),
        (
            "says nothing",
            |mut link| {
                link.request();
                link.fill();
            },
            504,
        ),
    ];
    for (what, serve, status) in cases {
        let upstream = Upstream::raw(move |link, _| serve(link));
        let edge = Edge::start();
        forward_to(
            &edge,
            upstream.addr,
            &json!({ "timeouts": { "response": "300ms" } }),
        );
        let mut client = edge.client();
        client.send(get("/api/"));
        let response = client.response();
        assert_eq!(response.status, status, "an upstream that {what}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert!(
            !response.text().contains("127.0.0.1"),
            "{}",
            response.text()
        );
    }
}

#[test]
fn an_upstream_that_is_not_there_is_a_bad_gateway() {
    let addr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let edge = Edge::start();
    forward_to(&edge, addr, &json!({}));
    let mut client = edge.client();
    client.send(get("/api/"));
    assert_eq!(client.response().status, 502);
}

#[test]
fn a_response_that_breaks_off_is_seen_to_break_off() {
    let upstream = Upstream::raw(|mut link, _| {
        link.request();
        link.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let edge = edge(&upstream);
    let mut client = edge.client();
    client.send(get("/api/"));
    // The part that came may reach the client or not; a whole response must not.
    let came = client.until_the_end();
    let body = came.split("\r\n\r\n").nth(1).unwrap_or_default();
    assert!(body.len() < 100 && !came.contains("502"), "{came}");
}

#[test]
fn an_upstream_stops_working_for_a_client_that_has_left() {
    let upstream = Upstream::raw(|mut link, _| {
        let Some(_) = link.request() else { return };
        link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
        // Until the edge closes.
        while link.fill() {}
    });
    let edge = edge(&upstream);
    let mut client = edge.client();
    client.send(get("/api/"));
    client.head();
    drop(client);
    upstream.until_ended();
    edge.until_idle();
}

#[test]
fn only_a_request_that_may_be_repeated_is_repeated() {
    // The first connection answers once, and closes when it is used again.
    let upstream = Upstream::raw(|mut link, keep| {
        let Some(seen) = link.request() else { return };
        keep(seen);
        link.send(ok("once"));
        if let Some(again) = link.request() {
            keep(again);
        }
    });
    for (method, statuses, sent) in [("GET", [200, 200], 3), ("POST", [200, 502], 2)] {
        let edge = edge(&upstream);
        let before = upstream.seen().len();
        let mut client = edge.client();
        for status in statuses {
            client.send(format!(
                "{method} /api/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\n\r\nx"
            ));
            assert_eq!(client.response().status, status, "{method}");
        }
        assert_eq!(upstream.seen().len() - before, sent, "{method}");
    }
}

#[test]
fn an_answer_before_the_body_has_ended_reaches_the_client() {
    let upstream = Upstream::raw(|mut link, _| {
        let Some(_) = link.head() else { return };
        link.send("HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch");
        while link.fill() {}
    });
    let edge = edge(&upstream);
    let mut client = Client::connect(edge.addr);
    client.send(format!(
        "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\nfirst"
    ));
    let response = client.response();
    assert_eq!((response.status, response.text()), (413, "much"));
}
