//! Traces (W3C Trace Context) over every protocol: what an upstream is sent, and what the access log says of it.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::cache::cached;
use crate::http2;
use crate::http3::Served;
use crate::support::{Edge, LIVE, get};
use crate::upstream::{Upstream, ok};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-01";

/// What a client sends as `traceparent`, and whether an upstream is to get it.
const SENT: [(&[&str], bool); 5] = [
    (&[TRACE], true),
    (
        &["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"],
        true,
    ),
    (&[], false),
    (
        &["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"],
        false,
    ),
    (&[TRACE, OTHER], false),
];

fn fields(parents: &[&str]) -> HeaderMap {
    let parents = parents.iter().map(|parent| ("traceparent", *parent));
    parents
        .chain([("tracestate", "a=b")])
        .map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_and_the_log_are_told_the_same_trace_over_every_protocol() {
    let upstream = Upstream::answering(|_| ok("answer"));
    let served = Served::start();
    cached(&served.edge, "shop.example", upstream.addr, LIVE);
    let mut h2 = http2::Connection::open(&served.edge).await;
    let h3 = served.open().await;
    for (parents, _) in SENT {
        let lines = fields(parents);
        let text: String = lines
            .iter()
            .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
            .collect();
        let mut client = served.edge.client();
        client.send(format!(
            "GET /h1 HTTP/1.1\r\nHost: shop.example\r\n{text}\r\n"
        ));
        assert_eq!(client.response().status, 200);
        let url = "http://shop.example/h2";
        assert_eq!(h2.ask(Method::GET, url, lines.clone()).await.0, 200);
        let url = "https://shop.example/h3";
        assert_eq!(h3.ask(Method::GET, url, lines).await.0, 200);
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 3 * SENT.len());
    let mut told = Vec::new();
    for (number, seen) in seen.iter().enumerate() {
        let (parents, passes) = SENT[number / 3];
        let parent = seen.fields("traceparent");
        assert_eq!(parent.len(), 1, "{}", seen.head);
        let expected = if passes { &["a=b"][..] } else { &[] };
        assert_eq!(seen.fields("tracestate"), expected, "{}", seen.head);
        if passes {
            assert_eq!(parent, parents);
        } else {
            assert!(!parents.contains(&parent[0]), "{}", seen.head);
        }
        let id = parent[0].get(3..35).unwrap();
        assert!(id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
        told.push(id.to_owned());
    }
    let lines = served.edge.logged(told.len());
    let mut logged: Vec<_> = lines
        .iter()
        .map(|line| line["trace_id"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    logged.sort();
    assert_eq!(told, logged);
}

#[test]
fn an_answer_of_the_edge_names_the_trace_it_was_asked_in() {
    let edge = Edge::start();
    let mut client = edge.client();
    let host = "Host: shop.example\r\n";
    for parents in [
        String::new(),
        format!("Traceparent: {TRACE}\r\n"),
        "traceparent: 00-1-2-3\r\n".to_owned(),
        format!("traceparent: {TRACE}\r\ntraceparent: {OTHER}\r\n"),
    ] {
        // Until it is remembered, and once more.
        for _ in 0..3 {
            client.send(get("/a.txt").replace(host, &format!("{host}{parents}")));
            assert_eq!(client.response().status, 200);
        }
    }
    let lines = edge.logged(12);
    for (number, line) in lines.iter().enumerate() {
        let id = line.get("trace_id").and_then(|id| id.as_str());
        let expected = (number / 3 == 1).then_some("0af7651916cd43dd8448eb211c80319c");
        assert_eq!(id, expected, "{number}: {line}");
    }
}
