//! Servers that are wrong, slow or gone, and what comes of it: the same by every lane.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use helix_edge::listener::Lanes;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::support::{Client, Edge, PATIENCE};
use crate::upstream::{HOST, Link, Upstream, forward_to, forward_to_all, ok};

/// More than sockets hold between them, in steps of less than TLS does.
const MOST_UPLOADED: usize = 8 * 1024 * 1024;
const UPLOAD_STEP: usize = 48 * 1024;
/// The last byte of a body.
const LAST: u8 = 0;
const LANES: [Lanes; 2] = [Lanes::All, Lanes::Pingora];

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// An upstream that answers every request with these bytes and closes.
fn saying(bytes: &'static [u8]) -> Upstream {
    Upstream::raw(move |mut link, keep| {
        let Some(seen) = link.request() else { return };
        keep(seen);
        link.send(bytes);
    })
}

/// Bytes of a response, and what the client gets of it: a status and, but for our own errors, a body.
const RESPONSES: [(&str, &[u8], u16, &[u8]); 13] = [
    (
        "a length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
    (
        "no reason",
        b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
    (
        "an old version",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
    (
        "a status of its own",
        b"HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok",
        599,
        b"ok",
    ),
    (
        "nothing",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        200,
        b"",
    ),
    ("no content", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    (
        "not modified",
        b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
        304,
        b"",
    ),
    (
        "a 100",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
    (
        "two lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        502,
        b"",
    ),
    ("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n", 502, b""),
    ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le", 502, b""),
    (
        "no number",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        502,
        b"",
    ),
    (
        "a switch that nobody asked for",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        502,
        b"",
    ),
];

#[test]
fn a_response_is_read_the_same_by_every_lane() {
    for lanes in LANES {
        for (what, bytes, status, body) in RESPONSES {
            let upstream = saying(bytes);
            let edge = Edge::over(lanes);
            forward_to(&edge, upstream.addr, &json!({}));
            let mut client = edge.client();
            client.send(get("/api/"));
            let response = client.response();
            assert_eq!(response.status, status, "{what} by {lanes:?}");
            if status != 502 {
                assert_eq!(response.body, body, "{what} by {lanes:?}");
            }
        }
    }
}

#[test]
fn what_two_parsers_could_read_in_two_ways_is_no_response() {
    for (what, bytes) in [
        (
            "a length and chunks",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .as_slice(),
        ),
        (
            "a bare line end",
            b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        ),
        (
            "a space before a colon",
            b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        ),
        (
            "a folded line",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "a coding twice",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "a NUL",
            b"HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 2\r\n\r\nok",
        ),
    ] {
        let upstream = saying(bytes);
        let edge = Edge::start();
        forward_to(&edge, upstream.addr, &json!({}));
        let mut client = edge.client();
        client.send(get("/api/"));
        assert_eq!(client.response().status, 502, "{what}");
    }
}

#[test]
fn a_body_that_turns_out_malformed_breaks_the_response_off() {
    for bytes in [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nxyz\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
    ] {
        let upstream = saying(bytes);
        let edge = Edge::start();
        forward_to(&edge, upstream.addr, &json!({}));
        let mut client = edge.client();
        client.send(get("/api/"));
        let came = client.until_the_end();
        assert!(!came.contains("0\r\n\r\n"), "{came}");
        edge.until_idle();
    }
}

#[test]
fn what_follows_a_response_is_nobodys() {
    for lanes in LANES {
        let upstream = Upstream::raw(|mut link, keep| {
            while let Some(seen) = link.request() {
                keep(seen);
                let poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
                if !link.send([&ok("own"), &poison[..]].concat()) {
                    return;
                }
            }
        });
        let edge = Edge::over(lanes);
        forward_to(&edge, upstream.addr, &json!({}));
        for _ in 0..20 {
            let mut client = edge.client();
            for _ in 0..3 {
                client.send(get("/api/"));
                assert_eq!(client.response().text(), "own", "{lanes:?}");
            }
        }
    }
}

#[test]
fn hints_reach_the_client_before_the_response() {
    let upstream = saying(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nx-helix-edge: x\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = edge.client();
    client.send(get("/api/"));
    let hints = client.head();
    assert_eq!(
        (hints.status, hints.header("link")),
        (103, Some("</a.css>; rel=preload"))
    );
    assert_eq!(hints.header("x-helix-edge"), None);
    assert_eq!(client.response().text(), "ok");
}

#[test]
fn a_head_that_never_ends_is_cut() {
    type Drip = fn(&mut Link) -> bool;
    let cases: [(&str, Drip, u16); 3] = [
        (
            "drips",
            |link| {
                thread::park_timeout(Duration::from_millis(20));
                link.send("a")
            },
            504,
        ),
        ("is endless", |link| link.send("a: b\r\n".repeat(1000)), 502),
        (
            "is always another one",
            |link| link.send("HTTP/1.1 103 Early Hints\r\n\r\n"),
            502,
        ),
    ];
    for (what, drip, status) in cases {
        let upstream = Upstream::raw(move |mut link, _| {
            let Some(_) = link.request() else { return };
            if status == 504 || what == "is endless" {
                link.send("HTTP/1.1 200 OK\r\n");
            }
            while drip(&mut link) {}
        });
        let edge = Edge::start();
        forward_to(
            &edge,
            upstream.addr,
            &json!({ "timeouts": { "response": "400ms" } }),
        );
        let mut client = edge.client();
        client.send(get("/api/"));
        let mut response = client.head();
        while response.status == 103 {
            response = client.head();
        }
        assert_eq!(response.status, status, "a head that {what}");
        upstream.until_ended();
    }
}

#[test]
fn a_server_that_is_gone_is_not_noticed_while_another_is_there() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for lanes in LANES {
        let upstream = Upstream::answering(|seen| ok(&seen.body));
        let edge = Edge::over(lanes);
        forward_to_all(&edge, &[gone, upstream.addr], &json!({}));
        for method in ["GET", "POST"] {
            for _ in 0..20 {
                let mut client = edge.client();
                let (length, body) = match method {
                    "POST" => ("Content-Length: 4\r\n", "body"),
                    _ => ("", ""),
                };
                client.send(format!(
                    "{method} /api/ HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n{body}"
                ));
                let response = client.response();
                // pingora has taken a part of the body when it finds out.
                if lanes == Lanes::All || body.is_empty() {
                    assert_eq!(
                        (response.status, response.text()),
                        (200, body),
                        "{method} {lanes:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_request_that_a_server_took_goes_to_another_only_if_that_does_no_harm() {
    let broken = Upstream::raw(|mut link, keep| {
        if let Some(seen) = link.request() {
            keep(seen);
        }
    });
    let well = Upstream::answering(|seen| ok(&seen.body));
    for (method, harmless) in [("PUT", true), ("POST", false)] {
        let edge = Edge::start();
        forward_to_all(&edge, &[broken.addr, well.addr], &json!({}));
        let before = broken.seen().len();
        let mut statuses = Vec::new();
        for _ in 0..12 {
            let mut client = edge.client();
            client.send(format!(
                "{method} /api/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nbody"
            ));
            let response = client.response();
            assert!(
                response.status == 502 || response.text() == "body",
                "{method}"
            );
            statuses.push(response.status);
        }
        let failed = statuses.iter().filter(|status| **status == 502).count();
        let taken = broken.seen().len() - before;
        assert!(taken > 0, "chance never chose the broken one");
        assert_eq!(
            failed,
            if harmless { 0 } else { taken },
            "{method}: {statuses:?}"
        );
    }
}

#[test]
fn trailers_pass_in_both_directions() {
    let upstream = Upstream::raw(|mut link, keep| {
        let Some(head) = link.head() else { return };
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n\r\n") {
            let Some(byte) = link.take(1) else { return };
            rest.extend(byte);
        }
        keep(crate::upstream::Seen { head, body: rest });
        link.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
            2\r\nok\r\n0\r\nX-Sum: 7\r\nX-Helix-Edge: x\r\nContent-Length: 9\r\n\r\n",
        );
    });
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = edge.client();
    client.send(format!(
        "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\nX-Check: 5\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n"
    ));
    assert_eq!(client.head().status, 200);
    assert_eq!(client.take(2 + 5), b"2\r\nok\r\n");
    assert_eq!(client.take(3 + 10 + 2), b"0\r\nx-sum: 7\r\n\r\n");
    let body = String::from_utf8(upstream.seen().remove(0).body).unwrap();
    assert_eq!(body, "3\r\nabc\r\n0\r\nx-check: 5\r\n\r\n");
}

#[test]
fn an_unused_connection_is_closed_in_time() {
    let upstream = Upstream::answering(|_| ok("a"));
    let edge = Edge::start();
    forward_to(
        &edge,
        upstream.addr,
        &json!({ "timeouts": { "idle": "300ms" } }),
    );
    let mut client = edge.client();
    client.send(get("/api/"));
    assert_eq!(client.response().text(), "a");
    // The client's own stays open all the while.
    upstream.until_ended();
    client.send(get("/api/"));
    assert_eq!(client.response().text(), "a");
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_not_used_again() {
    // Closes behind every response, without having said so.
    let upstream = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = edge.client();
    for _ in 0..20 {
        client.send(format!(
            "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\n\r\nx"
        ));
        assert_eq!(client.response().status, 200);
        upstream.until_ended();
    }
    assert_eq!(upstream.seen().len(), 20);
}

type SecureStream = StreamOwned<ServerConnection, TcpStream>;

/// A server behind TLS, whose certificate is for `name`. Its address, and what to trust.
fn secure(name: &str, serve: fn(SecureStream)) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let stream = StreamOwned::new(session, socket);
            thread::spawn(move || serve(stream));
        }
    });
    (addr, made.cert.pem())
}

fn tell_a_secret(mut stream: SecureStream) {
    let mut seen = Vec::new();
    let mut part = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        seen.extend_from_slice(&part[..read]);
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            if stream.write_all(&ok("secret")).is_err() {
                return;
            }
        }
    }
}

/// Takes its time before it reads, so that every buffer on the way is full.
fn take_late(mut stream: SecureStream) {
    let mut part = vec![0; 64 * 1024];
    loop {
        thread::park_timeout(Duration::from_millis(100));
        loop {
            match stream.read(&mut part) {
                Ok(read @ 1..) if part[read - 1] == LAST => break,
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
        if stream.write_all(&ok("all of it")).is_err() {
            return;
        }
    }
}

#[test]
fn a_large_body_reaches_a_server_behind_tls_to_its_last_byte() {
    let (addr, trusted) = secure("api.internal", take_late);
    let edge = Edge::start();
    let more = json!({
        "addresses": [format!("https://{addr}")], "host": "api.internal", "tls": { "ca": trusted },
    });
    forward_to(&edge, addr, &more);
    let upload = |length: usize| {
        let mut client = edge.client();
        client.send(format!(
            "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n"
        ));
        let mut body = vec![b'a'; length - 1];
        body.push(LAST);
        client.send(body);
        assert_eq!(client.response().text(), "all of it", "{length} bytes");
    };
    // Among these are some whose end TLS holds while the socket is full.
    let lengths: Vec<_> = (1..=MOST_UPLOADED / UPLOAD_STEP).collect();
    thread::scope(|scope| {
        for part in lengths.chunks(lengths.len() / 16) {
            scope.spawn(|| part.iter().for_each(|steps| upload(steps * UPLOAD_STEP)));
        }
    });
}

#[test]
fn only_a_server_with_a_certificate_that_is_trusted_is_sent_anything() {
    let (addr, trusted) = secure("api.internal", tell_a_secret);
    let (_, other) = secure("api.internal", tell_a_secret);
    for lanes in LANES {
        for (host, ca, status) in [
            ("api.internal", Some(&trusted), 200),
            ("other.internal", Some(&trusted), 502),
            ("api.internal", Some(&other), 502),
            ("api.internal", None, 502),
        ] {
            let edge = Edge::over(lanes);
            let more = json!({ "addresses": [format!("https://{addr}")], "host": host, "tls": { "ca": ca } });
            forward_to(&edge, addr, &more);
            let mut client = Client::connect(edge.addr);
            for _ in 0..2 {
                client.send(get("/api/"));
                let response = client.response();
                assert_eq!(
                    response.status,
                    status,
                    "{host} {} by {lanes:?}",
                    ca.is_some()
                );
                if status == 200 {
                    assert_eq!(response.text(), "secret");
                }
            }
        }
    }
}

#[test]
fn what_a_slow_client_takes_its_time_for_is_not_the_servers_fault() {
    let body = vec![b'a'; 4 * 1024 * 1024];
    let upstream = Upstream::answering(move |_| ok(&body));
    let edge = Edge::start();
    forward_to(
        &edge,
        upstream.addr,
        &json!({ "timeouts": { "stall": "200ms" } }),
    );
    let mut client = edge.client();
    client.send(get("/api/"));
    assert_eq!(client.head().status, 200);
    let mut taken = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(600) {
        thread::park_timeout(Duration::from_millis(50));
        taken += client.take(1000).len();
    }
    client.rest_of_body(4 * 1024 * 1024 - taken);
}
