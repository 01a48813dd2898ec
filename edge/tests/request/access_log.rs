//! The access log over real sockets: one line for each request, with what was really sent.

use std::fs;
use std::time::{Duration, Instant};

use helix_edge::access_log::Format;
use serde_json::{Value, json};

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
        parts(line, &["host", "target", "status", "bytes", "site"]),
        json!([HOST, "/api/a", 200, 10, "calls/production"])
    );
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
        std::thread::sleep(Duration::from_millis(20));
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
