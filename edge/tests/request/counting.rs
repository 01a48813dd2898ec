//! Requests are counted under the release that answered them, whatever carried them.

use std::time::{Duration, Instant};

use helix_edge::listener::Lanes;
use http::{HeaderMap, Method};
use serde_json::json;

use crate::http2;
use crate::http3::Served;
use crate::support::{Edge, KEPT, LIVE, PATIENCE, get, serving, site};
use crate::upstream::{HOST, Upstream, forward_to};

/// Waits until so many requests, errors and times were counted of `site`, which are written one after the other. More is wrong.
fn counted(edge: &Edge, name: &str, expected: (u64, u64, u64)) {
    let until = Instant::now() + PATIENCE;
    loop {
        let site = edge.table.site(&name.parse().unwrap()).unwrap();
        let window = site.serving().counted.window();
        let now = (window.requests(), window.errors(), window.latency().total());
        if now == expected {
            return;
        }
        let is_more = now.0 > expected.0 || now.1 > expected.1 || now.2 > expected.2;
        assert!(
            !is_more && Instant::now() < until,
            "{now:?} of {expected:?}"
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_request_counts_once_remembered_or_not() {
    for lanes in [Lanes::All, Lanes::Pingora] {
        let edge = Edge::over(lanes);
        let mut client = edge.client();
        for target in [
            "/a.txt",
            "/a.txt",
            "/a.txt",
            "/a.txt",
            "/missing",
            "/200k.bin",
        ] {
            client.send(get(target));
            let _ = client.response();
        }
        // By its own name the release is looked at, not visited.
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: {LIVE}.preview.shop.helix.localhost\r\n\r\n"
        ));
        assert_eq!(client.response().status, 200);
        client.send(get("/a.txt"));
        let _ = client.response();
        counted(&edge, "shop/production", (7, 0, 7));
    }
}

#[test]
fn what_is_published_next_is_counted_anew() {
    let edge = Edge::start();
    let _ = edge.get("/a.txt");
    counted(&edge, "shop/production", (1, 0, 1));
    edge.table.publish(&site(), serving(9, KEPT, &[LIVE]));
    let _ = edge.get("/a.txt");
    let _ = edge.get("/a.txt");
    counted(&edge, "shop/production", (2, 0, 2));
}

#[test]
fn what_an_upstream_fails_at_is_an_error() {
    let upstream = Upstream::answering(|_| "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".into());
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = edge.client();
    for _ in 0..3 {
        client.send(format!("GET /api/a HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(client.response().status, 503);
    }
    counted(&edge, "calls/production", (3, 3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_http2_and_http3_count() {
    let served = Served::start();
    let mut h2 = http2::Connection::open(&served.edge).await;
    let h3 = served.open().await;
    for target in ["/1k.bin", "/missing"] {
        let url = format!("http://shop.example{target}");
        let _ = h2.ask(Method::GET, &url, HeaderMap::new()).await;
        let url = format!("https://shop.example{target}");
        let _ = h3.ask(Method::GET, &url, HeaderMap::new()).await;
    }
    counted(&served.edge, "shop/production", (4, 0, 4));
}
