//! Responses that are kept: one fetch for all, stale while asked about, purged, never of another release.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};

use bytes::Bytes;
use helix_edge::admin::{self, Admin};
use helix_edge::cache::purge::Purge;
use helix_edge::release::Release;
use helix_edge::table::Serving;
use helix_routing::id::{Digest, Generation};
use helix_service::shutdown::{Shutdown, ShutdownHandle};
use serde_json::json;

use crate::support::{Client, Edge, KEPT, LIVE, PATIENCE, Response};
use crate::upstream::{HOST, Upstream};

/// Lets every path of [`HOST`] be forwarded to `addr` and kept, as `release`.
pub(crate) fn cached(edge: &Edge, host: &str, addr: std::net::SocketAddr, release: &str) {
    let routes = json!({
        "upstreams": { "api": { "addresses": [format!("http://{addr}")] } },
        "forwards": [{ "path": "/*", "upstream": "api", "cache": true }],
        "server_timing": true,
    });
    let artifact = Digest::from_hex(&"0".repeat(64)).unwrap();
    let page = ("unused.html", "text/html", Bytes::from_static(b"page"));
    let made = Release::from_memory(release.parse().unwrap(), artifact, [page]);
    let site = "calls/production".parse().unwrap();
    edge.table.set_host(&host.parse().unwrap(), Some(&site));
    let serving = Serving::new(
        Generation(if release == LIVE { 1 } else { 2 }),
        Some(Arc::new(
            made.with_routes(serde_json::from_value(routes).unwrap()),
        )),
        Vec::new(),
    );
    edge.table.publish(&site, serving);
}

pub(crate) fn response(control: &str, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nCache-Control: {control}\r\n{more}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

pub(crate) fn ask(edge: &Edge, method: &str, path: &str, more: &str) -> Response {
    let mut client = edge.client();
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n"
    ));
    if method == "HEAD" {
        client.head()
    } else {
        client.response()
    }
}

/// An upstream that says how often it was asked.
fn counting(control: &'static str, more: &'static str) -> (Edge, Upstream) {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |_| {
        let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
        response(control, more, &format!("answer {number}"))
    });
    let edge = Edge::start();
    cached(&edge, HOST, upstream.addr, LIVE);
    (edge, upstream)
}

#[test]
fn a_response_is_marked_once_wherever_it_comes_from() {
    let (edge, _upstream) = counting("max-age=60", "");
    for _ in 0..2 {
        let marked = ask(&edge, "GET", "/a", "");
        for name in ["server-timing", "x-helix-release", "x-helix-edge"] {
            let fields = marked.headers.iter().filter(|(other, _)| other == name);
            assert_eq!(fields.count(), 1, "{name}");
        }
    }
}

#[test]
fn a_fresh_response_is_used_again_with_its_age_and_where_it_came_from() {
    let (edge, upstream) = counting("max-age=60", "");
    let first = ask(&edge, "GET", "/a", "");
    assert_eq!((first.status, first.text()), (200, "answer 1"));
    assert_eq!(
        first.header("cache-status"),
        Some("helix; fwd=uri-miss; stored")
    );
    let again = ask(&edge, "GET", "/a", "");
    assert_eq!(
        (again.text(), again.header("x-helix-release")),
        ("answer 1", Some(LIVE))
    );
    assert!(
        again
            .header("cache-status")
            .unwrap()
            .starts_with("helix; hit; ttl=")
    );
    assert!(again.header("age").is_some());
    assert_eq!(
        ask(&edge, "HEAD", "/a", "").header("content-length"),
        Some("8")
    );
    assert_eq!(ask(&edge, "GET", "/b", "").text(), "answer 2");
    let part = ask(&edge, "GET", "/a", "Range: bytes=0-1\r\n");
    assert_eq!((part.status, part.text()), (206, "an"));
    assert_eq!(part.header("content-range"), Some("bytes 0-1/8"));
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn a_range_of_what_is_stored_is_read_as_one_of_a_file() {
    let (edge, upstream) = counting("max-age=60", "");
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 1");
    for (ranges, status, text, range) in [
        ("bytes=0-1", 206, "an", Some("bytes 0-1/8")),
        ("Bytes=-1", 206, "1", Some("bytes 7-7/8")),
        (
            "bytes=6-99999999999999999999",
            206,
            " 1",
            Some("bytes 6-7/8"),
        ),
        ("bytes=99999999999999999999-", 416, "", Some("bytes */8")),
        ("bytes=8-", 416, "", Some("bytes */8")),
        ("bytes=2-1", 200, "answer 1", None),
        ("bytes=0-1\r\nRange: bytes=2-3", 200, "answer 1", None),
    ] {
        let answer = ask(&edge, "GET", "/a", &format!("Range: {ranges}\r\n"));
        assert_eq!((answer.status, answer.text()), (status, text), "{ranges}");
        assert_eq!(answer.header("content-range"), range, "{ranges}");
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_hundred_misses_at_once_are_one_request() {
    let gate = Arc::new(Barrier::new(2));
    let (held, asked) = (Arc::clone(&gate), AtomicUsize::new(0));
    let upstream = Upstream::answering(move |_| {
        if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            held.wait();
        }
        response("max-age=60", "", "once")
    });
    let edge = Edge::start();
    cached(&edge, HOST, upstream.addr, LIVE);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| ask(&edge, "GET", "/a", "")))
            .collect();
        // All are connected before the one fetch is answered.
        let until = std::time::Instant::now() + PATIENCE;
        while edge.metrics.connections.get() < 100 && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        gate.wait();
        for client in clients {
            assert_eq!(client.join().unwrap().text(), "once");
        }
    });
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn what_may_not_be_shared_is_not() {
    let (edge, upstream) = counting("private, max-age=60", "");
    for number in 1..=3 {
        assert_eq!(
            ask(&edge, "GET", "/a", "").text(),
            format!("answer {number}")
        );
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn who_asks_for_what_cannot_be_shared_does_not_wait_for_somebody_else() {
    let (arrived, both) = channel();
    let (arrived, both) = (Mutex::new(arrived), Mutex::new(both));
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |_| {
        let body = match asked.fetch_add(1, Ordering::SeqCst) {
            0 => "first",
            1 => match both.lock().unwrap().recv_timeout(PATIENCE / 4) {
                Ok(()) => "together",
                Err(_) => "alone",
            },
            _ => {
                arrived.lock().unwrap().send(()).unwrap();
                "together"
            }
        };
        response("private", "", body)
    });
    let edge = Edge::start();
    cached(&edge, HOST, upstream.addr, LIVE);
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "first");
    std::thread::scope(|scope| {
        let clients = [0, 1].map(|_| scope.spawn(|| ask(&edge, "GET", "/a", "")));
        for client in clients {
            assert_eq!(client.join().unwrap().text(), "together");
        }
    });
}

#[test]
fn an_unsafe_request_forgets_the_groups_that_its_response_names() {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |seen| {
        let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
        let more = if seen.head.starts_with("POST") {
            "Cache-Group-Invalidation: \"one, with a comma\", other\r\n"
        } else if seen.head.starts_with("GET /a ") {
            "Cache-Groups: \"x\", \"one, with a comma\";p=1\r\n"
        } else {
            "Cache-Groups: \"one\", \"other\"\r\n"
        };
        response("max-age=60", more, &format!("answer {number}"))
    });
    let edge = Edge::start();
    cached(&edge, HOST, upstream.addr, LIVE);
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 1");
    assert_eq!(ask(&edge, "GET", "/b", "").text(), "answer 2");
    let changed = ask(&edge, "POST", "/c", "Content-Length: 0\r\n");
    assert_eq!(changed.text(), "answer 3");
    assert_eq!(
        ask(&edge, "GET", "/b", "").text(),
        "answer 2",
        "a token is no group"
    );
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 4");
}

#[test]
fn no_field_that_the_key_does_not_know_changes_what_others_get() {
    let upstream = Upstream::answering(|seen| {
        let odd = seen.head.lines().filter(|line| line.contains("evil"));
        response("max-age=60", "", &odd.collect::<String>())
    });
    let edge = Edge::start();
    cached(&edge, HOST, upstream.addr, LIVE);
    let fields = [
        "X-Forwarded-Host",
        "X-Forwarded-Scheme",
        "X-Forwarded-Server",
        "X-Forwarded-Prefix",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-Host",
        "Forwarded",
        "Range",
        "If-None-Match",
    ];
    for (number, field) in fields.into_iter().enumerate() {
        let path = format!("/{number}");
        let _ = ask(&edge, "GET", &path, &format!("{field}: evil\r\n"));
        assert_eq!(ask(&edge, "GET", &path, "").text(), "", "{field}");
    }
}

#[test]
fn a_cutover_never_serves_what_the_old_release_kept() {
    let (edge, upstream) = counting("max-age=60", "");
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 1");
    cached(&edge, HOST, upstream.addr, KEPT);
    let after = ask(&edge, "GET", "/a", "");
    assert_eq!(
        (after.text(), after.header("x-helix-release")),
        ("answer 2", Some(KEPT))
    );
    cached(&edge, HOST, upstream.addr, LIVE);
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 1");
}

#[test]
fn a_purge_by_tag_forgets_and_an_unsafe_request_does_too() {
    let (edge, _upstream) = counting("max-age=60", "Cache-Tag: news, page\r\n");
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 1");
    let tagged = |tag: &str| Purge {
        tag: Some(tag.to_owned()),
        ..Purge::default()
    };
    let store = &edge.table.cache().store;
    assert_eq!(store.purge(&tagged("other")), 0);
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 1");
    assert_eq!(store.purge(&tagged("news")), 1);
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 2");
    assert_eq!(
        ask(&edge, "POST", "/a", "Content-Length: 0\r\n").text(),
        "answer 3"
    );
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 4");
}

#[test]
fn a_stale_response_is_used_while_it_is_asked_about() {
    let (edge, upstream) = counting("max-age=0, stale-while-revalidate=60", "");
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 1");
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "answer 1");
    let until = std::time::Instant::now() + PATIENCE;
    while upstream.seen().len() < 2 {
        assert!(
            std::time::Instant::now() < until,
            "it was never asked about"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_stale_response_covers_an_error_where_it_says_so() {
    let (fails, told) = channel();
    let told = Mutex::new(told);
    let upstream = Upstream::answering(move |_| {
        if told.lock().unwrap().try_recv().is_ok() {
            return b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec();
        }
        response("max-age=0, stale-if-error=60", "ETag: \"a\"\r\n", "good")
    });
    let edge = Edge::start();
    cached(&edge, HOST, upstream.addr, LIVE);
    assert_eq!(ask(&edge, "GET", "/a", "").text(), "good");
    fails.send(()).unwrap();
    let covered = ask(&edge, "GET", "/a", "");
    assert_eq!((covered.status, covered.text()), (200, "good"));
    assert_eq!(upstream.seen()[1].fields("if-none-match"), ["\"a\""]);
}

#[tokio::test]
async fn an_operator_purges_by_url_tag_and_release_through_the_admin_address() {
    let (edge, upstream) = tokio::task::spawn_blocking(|| {
        counting("max-age=60", "ETag: \"a\"\r\nCache-Tag: news\r\n")
    })
    .await
    .unwrap();
    let (addr, shutdown, serving) = administered(&edge).await;
    tokio::task::spawn_blocking(move || {
        let url = format!("http://{HOST}/a?b");
        let orders = [
            (json!({ "site": "calls/production", "url": url }), 1),
            (
                json!({ "site": "calls/production", "url": url, "mode": "stale" }),
                1,
            ),
            (json!({ "site": "calls/production", "tag": "news" }), 1),
            (
                json!({ "site": "calls/production", "release": LIVE, "mode": "delete" }),
                1,
            ),
            (json!({ "site": "calls/production" }), 1),
        ];
        for (number, (order, purged)) in orders.into_iter().enumerate() {
            for _ in 0..2 {
                let answer = format!("answer {}", number + 1);
                assert_eq!(
                    ask(&edge, "GET", "/a?b", "").text(),
                    answer,
                    "before {order}"
                );
            }
            let told = order_purge(addr, &order.to_string());
            assert_eq!(
                (told.status, told.text()),
                (200, &*format!(r#"{{"purged":{purged}}}"#))
            );
        }
        ask(&edge, "GET", "/a?b", "");
        for other in [
            json!({ "site": "shop/production" }),
            json!({ "site": "calls/production", "release": KEPT }),
            json!({ "site": "calls/production", "tag": "other" }),
            json!({ "site": "calls/production", "url": format!("http://{HOST}/a") }),
        ] {
            assert_eq!(
                order_purge(addr, &other.to_string()).text(),
                r#"{"purged":0}"#
            );
        }
        for refused in [
            r#"{"url":"http://shop.example/a"}"#,
            r#"{"site":"calls/production","url":"/a"}"#,
            r#"{"site":"calls/production","path":"/a"}"#,
            r#"{"site":"calls/production","mode":"burn"}"#,
        ] {
            assert_eq!(order_purge(addr, refused).status, 422, "{refused}");
        }
        assert_eq!(ask(&edge, "GET", "/a?b", "").text(), "answer 6");
        assert_eq!(upstream.seen().len(), 6);
    })
    .await
    .unwrap();
    shutdown.request();
    serving.await.unwrap().unwrap();
}

async fn administered(
    edge: &Edge,
) -> (
    std::net::SocketAddr,
    ShutdownHandle,
    tokio::task::JoinHandle<std::io::Result<()>>,
) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shown = Admin {
        table: Arc::clone(&edge.table),
        metrics: Arc::clone(&edge.metrics),
        ready: Arc::default(),
        maintenance: helix_edge::maintenance::Maintenance::default(),
        desk: Arc::default(),
    };
    let (shutdown, asked) = Shutdown::manual();
    (
        addr,
        asked,
        tokio::spawn(admin::serve(listener, shown, shutdown)),
    )
}

fn order_purge(addr: std::net::SocketAddr, order: &str) -> Response {
    let mut client = Client::connect(addr);
    let length = order.len();
    client.send(format!(
        "POST /purge HTTP/1.1\r\nHost: admin\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{order}"
    ));
    client.response()
}
