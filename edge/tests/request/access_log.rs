//! The access log over real sockets: one line for each request, with what was really sent.

use std::fs;
use std::time::{Duration, Instant};

use helix_edge::access_log::Format;
use http::{HeaderMap, Method, Request};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::cache::cached;
use crate::http2;
use crate::http3::Served;
use crate::support::{BIG, Edge, LIVE, PATIENCE, get};
use crate::upstream::{HOST, Upstream, forward_to, ok};

const AGENT: &str = "Referer: https://a.example/\"\r\nUser-Agent: tester \u{e9}\r\nCookie: secret=1\r\nAuthorization: Bearer secret\r\n";

fn with(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n")
}

/// Those parts of a line that are named.
fn parts(line: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| line[*name].clone()).collect()
}

#[test]
fn every_answer_has_its_line_remembered_or_not() {
    let edge = Edge::start();
    let mut client = edge.client();
    // The second time it is known to be worth keeping, from the third on it is remembered.
    for _ in 0..5 {
        client.send(with("/1k.bin?a=%22", AGENT));
        assert_eq!(client.response().body.len(), 1024);
    }
    client.send(get("/missing"));
    let missing = client.response().body.len();
    let lines = edge.logged(6);
    for line in &lines[..5] {
        let keys: Vec<_> = line.as_object().unwrap().keys().collect();
        assert!(!keys.contains(&&"error".to_owned()), "{line}");
        assert!(!line.to_string().contains("secret"), "{line}");
        assert_eq!(
            parts(
                line,
                &[
                    "protocol",
                    "method",
                    "host",
                    "target",
                    "status",
                    "bytes",
                    "release",
                    "site",
                    "referer",
                    "user_agent",
                    "edge",
                    "region",
                    "client"
                ]
            ),
            json!([
                "h1",
                "GET",
                "shop.example",
                "/1k.bin?a=%22",
                200,
                1024,
                LIVE,
                "shop/production",
                "https://a.example/\"",
                "tester \u{e9}",
                "fra-1",
                "fra",
                "127.0.0.1"
            ])
        );
        let seconds = line["seconds"].as_f64().unwrap();
        assert!((0.0..PATIENCE.as_secs_f64()).contains(&seconds), "{line}");
        let time = line["time"].as_str().unwrap();
        assert!(
            time.len() == 24 && time.starts_with("20") && time.ends_with('Z'),
            "{time}"
        );
    }
    assert_eq!(
        parts(&lines[5], &["target", "status", "bytes"]),
        json!(["/missing", 404, missing])
    );
}

#[test]
fn requests_that_are_answered_with_one_write_have_a_line_each() {
    let edge = Edge::start();
    let mut client = edge.client();
    for _ in 0..3 {
        client.send(get("/a.txt"));
        client.response();
    }
    client.send(get("/a.txt").repeat(10));
    let length = (0..10).map(|_| client.response().body.len()).max();
    for line in edge.logged(13) {
        assert_eq!(
            parts(&line, &["target", "status", "bytes"]),
            json!(["/a.txt", 200, length])
        );
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_is_logged_with_what_it_was_sent() {
    for remembered in [false, true] {
        let edge = Edge::start();
        let file = if remembered {
            "/big.bin?kept"
        } else {
            "/big.bin"
        };
        let mut client = edge.client();
        client.send(get(file));
        assert_eq!(client.head().status, 200);
        // Some of it has come, and there is far more than buffers hold.
        client.take(1000);
        drop(client);
        let line = &edge.logged(1)[0];
        assert_eq!(parts(line, &["target", "status"]), json!([file, 200]));
        let sent = line["bytes"].as_u64().unwrap();
        assert!((1000..BIG as u64).contains(&sent), "{line}");
        assert!(!line["error"].as_str().unwrap().is_empty(), "{line}");
    }
}

#[test]
fn a_refused_head_has_a_line_without_what_it_asked_for() {
    let edge = Edge::start();
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\nX_Y: secret\r\n\r\n");
    let refused = client.response();
    assert_eq!(refused.status, 400);
    let line = &edge.logged(1)[0];
    assert_eq!(
        parts(line, &["method", "target", "status", "bytes", "error"]),
        json!([
            "",
            "",
            400,
            refused.body.len(),
            "a header field name is malformed"
        ])
    );
    assert!(!line.to_string().contains("secret"), "{line}");
}

#[test]
fn a_forwarded_request_has_its_line() {
    let upstream = Upstream::answering(|_| ok("0123456789"));
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = edge.client();
    client.send(format!("GET /api/a HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(client.response().status, 200);
    let line = &edge.logged(1)[0];
    assert_eq!(
        parts(
            line,
            &["host", "target", "status", "bytes", "site", "upstream"]
        ),
        json!([
            HOST,
            "/api/a",
            200,
            10,
            "calls/production",
            upstream.addr.to_string()
        ])
    );
}

#[test]
fn why_a_server_gave_no_answer_is_told_to_the_log_alone() {
    // Nobody listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = gone.local_addr().unwrap();
    drop(gone);
    let edge = Edge::start();
    for cache in [None, Some("miss")] {
        match cache {
            None => forward_to(&edge, addr, &json!({})),
            Some(_) => cached(&edge, HOST, addr, LIVE),
        }
        let mut client = edge.client();
        client.send(format!("GET /api/a HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 502);
        assert!(!response.text().contains("connect"), "{}", response.text());
        let line = edge
            .logged(if cache.is_some() { 2 } else { 1 })
            .pop()
            .unwrap();
        assert_eq!(
            parts(&line, &["status", "cache", "upstream"]),
            json!([502, cache, addr.to_string()])
        );
        assert!(
            line["error"].as_str().unwrap().starts_with("connect: "),
            "{line}"
        );
    }
    assert_eq!(edge.metrics.counted(|core| &core.forwards[3]), 2);
}

#[test]
fn what_the_cache_said_is_in_the_line() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nkept".to_vec()
    });
    let edge = Edge::start();
    cached(&edge, HOST, upstream.addr, LIVE);
    // One connection: each core has lines of its own.
    let mut client = edge.client();
    for method in ["GET", "GET", "POST"] {
        client.send(format!(
            "{method} /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(client.response().text(), "kept");
    }
    let lines = edge.logged(3);
    for (line, outcome) in lines.iter().zip(["miss", "hit", "bypass"]) {
        assert_eq!(
            parts(line, &["status", "bytes", "cache"]),
            json!([200, 4, outcome])
        );
    }
    assert_eq!(lines[1].get("upstream"), None);
    let text = String::from_utf8(edge.metrics.text().unwrap()).unwrap();
    for (name, label, value) in [
        ("helix_edge_cache_requests_total", r#"outcome="hit""#, 1),
        (
            "helix_edge_cache_requests_total",
            r#"outcome="collapsed""#,
            0,
        ),
        ("helix_edge_forwards_total", r#"outcome="answered""#, 2),
        ("helix_edge_upstream_tries_total", "", 2),
        ("helix_edge_upstream_retries_total", "", 0),
        ("helix_edge_upstream_servers", r#"state="well""#, 1),
        ("helix_edge_upstream_servers", r#"state="out""#, 0),
    ] {
        let end = format!(" {value}");
        let said =
            |line: &str| line.starts_with(name) && line.contains(label) && line.ends_with(&end);
        assert!(text.lines().any(said), "{name} {label} {value} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_http2_and_http3_have_their_lines() {
    let served = Served::start();
    let mut h2 = http2::Connection::open(&served.edge).await;
    let h3 = served.open().await;
    let (mut expected, fields) = (Vec::new(), HeaderMap::new());
    for (target, status) in [("/1k.bin", 200), ("/big.bin", 200), ("/missing", 404)] {
        let (url, method) = (format!("http://shop.example{target}"), Method::GET);
        let (_, _, length) = h2.ask(method.clone(), &url, fields.clone()).await;
        expected.push(json!([
            "h2",
            "GET",
            "shop.example",
            target,
            status,
            length,
            "shop/production"
        ]));
        let url = format!("https://shop.example{target}");
        let (_, _, length) = h3.ask(method, &url, fields.clone()).await;
        expected.push(json!([
            "h3",
            "GET",
            "shop.example",
            target,
            status,
            length,
            "shop/production"
        ]));
    }
    let names = [
        "protocol", "method", "host", "target", "status", "bytes", "site",
    ];
    let mut lines: Vec<_> = served
        .edge
        .logged(6)
        .iter()
        .map(|line| parts(line, &names))
        .collect();
    // Two cores hand over their pages in any order.
    let order = |line: &Value| line.to_string();
    lines.sort_by_key(order);
    expected.sort_by_key(order);
    assert_eq!(lines, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http2_or_http3_that_leaves_in_the_middle_is_logged_with_what_it_was_sent() {
    let served = Served::start();
    let h2 = http2::Connection::open(&served.edge).await;
    let request = Request::get("http://shop.example/big.bin")
        .body(())
        .unwrap();
    let (response, _) = h2.requests.clone().send_request(request, true).unwrap();
    let mut body = timeout(PATIENCE, response)
        .await
        .unwrap()
        .unwrap()
        .into_body();
    assert!(timeout(PATIENCE, body.data()).await.unwrap().is_some());
    h2.driver.abort();
    drop((body, h2));
    let h3 = served.open().await;
    let request = Request::get("https://shop.example/big.bin")
        .body(())
        .unwrap();
    let mut stream = h3.requests.clone().send_request(request).await.unwrap();
    stream.finish().await.unwrap();
    stream.recv_response().await.unwrap();
    assert!(stream.recv_data().await.unwrap().is_some());
    h3.endpoint.close(0u32.into(), b"");
    let mut lines = served.edge.logged(2);
    lines.sort_by_key(|line| line["protocol"].to_string());
    for (line, protocol) in lines.iter().zip(["h2", "h3"]) {
        assert_eq!(parts(line, &["protocol", "status"]), json!([protocol, 200]));
        let sent = line["bytes"].as_u64().unwrap();
        assert!((1..BIG as u64).contains(&sent), "{line}");
        assert!(!line["error"].as_str().unwrap().is_empty(), "{line}");
    }
}

#[test]
fn a_combined_line_reads_as_nginx_would_have_written_it() {
    let edge = Edge::logging(Format::Combined, |_| {});
    let mut client = edge.client();
    for _ in 0..4 {
        client.send(with("/1k.bin", AGENT));
        client.response();
    }
    client.send("GET /1k.bin HTTP/1.0\r\nHost: shop.example\r\n\r\n");
    client.response();
    let lines = edge.log_lines(5);
    for line in &lines[..4] {
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        let end =
            r#" +0000] "GET /1k.bin HTTP/1.1" 200 1024 "https://a.example/\x22" "tester \xC3\xA9""#;
        assert!(line.ends_with(end), "{line}");
    }
    let end = r#""GET /1k.bin HTTP/1.0" 200 1024 "-" "-""#;
    assert!(lines[4].ends_with(end), "{}", lines[4]);
}

#[test]
fn a_file_that_was_renamed_or_removed_is_made_again() {
    let edge = Edge::start();
    edge.get("/a.txt");
    edge.logged(1);
    let renamed = edge.log.with_extension("1");
    fs::rename(&edge.log, &renamed).unwrap();
    until("the file is made again", || edge.log.exists());
    edge.get("/1k.bin");
    assert_eq!(edge.logged(1)[0]["target"], "/1k.bin");
    assert_eq!(fs::read_to_string(&renamed).unwrap().lines().count(), 1);
    fs::remove_file(&edge.log).unwrap();
    until("the file is made again", || edge.log.exists());
    edge.get("/");
    assert_eq!(edge.logged(1)[0]["target"], "/");
}

#[test]
fn what_is_in_memory_is_written_when_an_edge_ends() {
    let edge = Edge::start();
    let mut client = edge.client();
    client.send(get("/a.txt").repeat(20));
    (0..20).for_each(|_| drop(client.response()));
    edge.shutdown.request();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(edge.handle.join()).unwrap();
    assert_eq!(fs::read_to_string(&edge.log).unwrap().lines().count(), 20);
}

#[test]
fn lines_that_a_pipe_does_not_take_are_lost_and_counted_and_nobody_waits() {
    let edge = Edge::logging(Format::Json, |folder| {
        let mode = nix::sys::stat::Mode::S_IRWXU;
        nix::unistd::mkfifo(&folder.join("access.log"), mode).unwrap();
    });
    for _ in 0..10 {
        assert_eq!(edge.get("/a.txt").status, 200);
    }
    until("lines are counted as lost", || {
        edge.metrics.access_log_lost.get() == 10
    });
    // Somebody opens it and reads nothing: it takes 64 KiB, and then no more.
    let _reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&edge.log)
        .unwrap();
    let lost = || edge.metrics.access_log_lost.get();
    let until = Instant::now() + PATIENCE;
    let many = get("/a.txt").repeat(1000);
    while lost() == 10 {
        assert!(Instant::now() < until, "nothing more was lost");
        let mut client = edge.client();
        client.send(&many);
        (0..1000).for_each(|_| assert_eq!(client.response().status, 200));
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn an_access_log_that_cannot_be_opened_stops_the_start_and_says_where() {
    use helix_edge::access_log::{AccessLog, AccessLogConfig};
    let config = AccessLogConfig {
        format: Format::Json,
        path: Some("/proc/no/such/folder".into()),
    };
    let who = (&"fra-1".parse().unwrap(), &"fra".parse().unwrap());
    let lost = prometheus::IntCounter::new("lost", "lost").unwrap();
    let error = AccessLog::open(&config, who, lost).unwrap_err();
    assert_eq!(
        error.to_string(),
        "open the access log /proc/no/such/folder"
    );
}
