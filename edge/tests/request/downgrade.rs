//! What HTTP/2 and HTTP/3 can spell and HTTP/1 cannot never reaches an upstream over HTTP/1.
//!
//! The upstream keeps every head it is sent, whole or not, so nothing that leaves the edge goes unseen.

use std::net::TcpStream;

use helix_edge::limits::Limits;
use quinn::TransportConfig;
use serde_json::json;

use crate::http3::Served;
use crate::raw::{Field, Told, over_http2, over_http3, request};
use crate::support::PATIENCE;
use crate::upstream::{HOST, Seen, Upstream, forward_to, ok};

/// A request that a careless parser would find behind another one.
const HIDDEN: &[u8] = b"GET /api/hidden HTTP/1.1\r\nHost: api.example\r\n\r\n";

/// An edge over every protocol that forwards to an upstream that keeps every head.
struct Downgraded {
    served: Served,
    upstream: Upstream,
}

impl Downgraded {
    fn start(upstream: Upstream) -> Self {
        let served = Served::named(Limits::default(), &[&[HOST, "shop.example"]]);
        forward_to(&served.edge, upstream.addr, &json!({}));
        Self { served, upstream }
    }

    /// One that answers as soon as it has read a head.
    fn recording() -> Self {
        Self::start(Upstream::raw(|mut link, keep| {
            let Some(head) = link.head() else { return };
            let body = Vec::new();
            keep(Seen { head, body });
            link.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            while link.fill() {}
        }))
    }

    /// The same request over HTTP/2 in the clear, HTTP/2 over TLS, and HTTP/3.
    async fn ask(&self, fields: &[Field<'_>], body: &[&[u8]]) -> [(&'static str, Told); 3] {
        let clear = TcpStream::connect(self.served.edge.addr).unwrap();
        clear.set_read_timeout(Some(PATIENCE)).unwrap();
        let clear = over_http2(clear, fields, body);
        let secure = over_http2(self.served.connect_tls(HOST, b"h2"), fields, body);
        let transport = TransportConfig::default();
        let (_endpoint, quic) = self.served.connect(HOST, transport).await.unwrap();
        let quic = over_http3(&quic, fields, body).await;
        [("h2c", clear), ("h2", secure), ("h3", quic)]
    }

    async fn assert_refused(&self, what: &str, fields: &[Field<'_>], body: &[&[u8]]) {
        for (protocol, told) in self.ask(fields, body).await {
            assert!(told.is_refused(), "{what} over {protocol}: {told:?}");
        }
        let seen = self.upstream.seen();
        assert!(seen.is_empty(), "{what}: {seen:?}");
    }
}

/// The request as it should be, with the value of one pseudo-field replaced.
fn with_pseudo<'a>(name: &[u8], value: &'a [u8]) -> Vec<Field<'a>> {
    let mut fields = request("POST", HOST, "/api/", &[]);
    for field in &mut fields {
        if field.0 == name {
            field.1 = value;
        }
    }
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_as_it_should_be_arrives_once_by_each_protocol() {
    let edge = Downgraded::recording();
    let fields = request("POST", HOST, "/api/x?y", &[(b"content-length", b"3")]);
    for (protocol, told) in edge.ask(&fields, &[b"abc"]).await {
        assert_eq!(told.status, Some(200), "{protocol}");
    }
    let seen = edge.upstream.seen();
    assert_eq!(seen.len(), 3);
    for seen in seen {
        assert!(seen.head.starts_with("POST /api/x?y HTTP/1.1\r\n"));
        assert_eq!(seen.fields("host"), [HOST]);
        assert_eq!(seen.fields("content-length"), ["3"]);
    }
}

/// Values that no pseudo-field may have.
const PSEUDO_FIELDS: &[(&str, &[u8])] = &[
    (":method", b"POST /api/ HTTP/1.1\r\nx: y\r\n\r\nGET"),
    (":method", b"PO ST"),
    (":method", b"POST\r\n"),
    (":method", b"POST\0"),
    (":method", b""),
    (":method", b"CONNECT"),
    (":path", b""),
    (":path", b"api/"),
    (":path", b"*"),
    (":path", b"/api/ HTTP/1.1\r\nx: y\r\n\r\nGET /"),
    (":path", b"/api/ HTTP/1.1"),
    (":path", b"/api/\r\nx: y"),
    (":path", b"/api/\nx: y"),
    (":path", b"/api/\rx: y"),
    (":path", b"/api/\0"),
    (":path", b"/api/\t"),
    (":path", b"/api/\x7f"),
    (":path", b"/api/\\x"),
    (":path", b"http://other.example/api/"),
    (":path", b"@other.example/api/"),
    (":authority", b""),
    (":authority", b"api.example\r\nx: y"),
    (":authority", b"api.example\0"),
    (":authority", b"api.example x"),
    (":authority", b"api.example/api"),
    (":authority", b"api.example?x"),
    (":authority", b"api.example#x"),
    (":authority", b"user@api.example"),
    (":authority", b"api.example@other.example"),
    (":authority", b"api.example, other.example"),
    (":scheme", b"https\r\nx: y"),
    (":scheme", b"https://other.example/?"),
    (":scheme", b"ftp"),
    (":scheme", b""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pseudo_fields_that_would_end_a_line_or_change_the_target_reach_no_upstream() {
    let edge = Downgraded::recording();
    for (name, value) in PSEUDO_FIELDS.iter().copied() {
        let fields = with_pseudo(name.as_bytes(), value);
        let what = format!("{name} {:?}", value.escape_ascii().to_string());
        edge.assert_refused(&what, &fields, &[HIDDEN]).await;
    }
    let long = [b"/api/".as_slice(), &[b'a'; 9000]].concat();
    let fields = with_pseudo(b":path", &long);
    edge.assert_refused("a long path", &fields, &[HIDDEN]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pseudo_fields_that_are_missing_repeated_late_or_unknown_reach_no_upstream() {
    let edge = Downgraded::recording();
    let good = request("POST", HOST, "/api/", &[]);
    for (number, (name, value)) in good.iter().enumerate() {
        let name = String::from_utf8_lossy(name);
        if name != ":authority" {
            let mut missing = good.clone();
            missing.remove(number);
            edge.assert_refused(&format!("no {name}"), &missing, &[b"x"])
                .await;
        }
        let mut twice = good.clone();
        twice.insert(number, (name.as_bytes(), value));
        edge.assert_refused(&format!("two {name}"), &twice, &[b"x"])
            .await;
        let mut late = good.clone();
        late.remove(number);
        late.extend([(&b"x-a"[..], &b"b"[..]), (name.as_bytes(), *value)]);
        edge.assert_refused(&format!("late {name}"), &late, &[b"x"])
            .await;
    }
    for name in [":status", ":x", ":", ":Path"] {
        let mut unknown = good.clone();
        unknown.push((name.as_bytes(), b"/api/"));
        edge.assert_refused(name, &unknown, &[b"x"]).await;
    }
    let nobody: Vec<_> = good
        .iter()
        .copied()
        .filter(|(name, _)| *name != b":authority")
        .collect();
    edge.assert_refused("no authority and no host", &nobody, &[b"x"])
        .await;
}

/// Fields that no request may have, or not with this value.
const FIELDS: &[Field<'_>] = &[
    (b"transfer-encoding", b"chunked"),
    (b"transfer-encoding", b"identity"),
    (b"connection", b"close"),
    (b"connection", b"transfer-encoding"),
    (b"keep-alive", b"timeout=5"),
    (b"proxy-connection", b"close"),
    (b"upgrade", b"websocket"),
    (b"te", b"gzip"),
    (b"te", b"trailers, gzip"),
    (b"X-Upper", b"x"),
    (b"Content-Length", b"0"),
    (b"", b"x"),
    (b" x", b"y"),
    (b"x ", b"y"),
    (b"x:", b"y"),
    (b"x: y\r\ntransfer-encoding", b"chunked"),
    (b"x\r\nx", b"y"),
    (b"x\nx", b"y"),
    (b"x\0", b"y"),
    (b"x\x7f", b"y"),
    (b"x\xc3\xa4", b"y"),
    (b"content_length", b"5"),
    (b"transfer_encoding", b"chunked"),
    (b"x", b"y\r\ntransfer-encoding: chunked"),
    (b"x", b"y\ntransfer-encoding: chunked"),
    (b"x", b"y\rz"),
    (b"x", b"y\0z"),
    (b"x", b" y"),
    (b"x", b"y\t"),
    (b"host", b"other.example"),
    (b"host", b""),
    (b"host", b"api.example\r\nx: y"),
    (b"host", b"user@api.example"),
    (b"content-length", b"-1"),
    (b"content-length", b"+1"),
    (b"content-length", b"0x1"),
    (b"content-length", b"1, 1"),
    (b"content-length", b"1 1"),
    (b"content-length", b""),
    (b"content-length", b"99999999999999999999999"),
    (b"content-length", b"1\r\nx: y"),
    (b"cookie", b"a=b\r\nx: y"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_http1_would_read_otherwise_reach_no_upstream() {
    let edge = Downgraded::recording();
    for (name, value) in FIELDS.iter().copied() {
        let fields = request("POST", HOST, "/api/", &[(name, value)]);
        let what = format!("{}: {}", name.escape_ascii(), value.escape_ascii());
        edge.assert_refused(&what, &fields, &[HIDDEN]).await;
    }
    for [one, other] in [["4", "4"], ["4", "5"]] {
        let lengths = [one, other].map(|length| (&b"content-length"[..], length.as_bytes()));
        let fields = request("POST", HOST, "/api/", &lengths);
        edge.assert_refused("two lengths", &fields, &[b"abcd"])
            .await;
    }
    let hosts = [(&b"host"[..], HOST.as_bytes()); 2];
    let fields = request("POST", HOST, "/api/", &hosts);
    edge.assert_refused("two hosts", &fields, &[b"x"]).await;
}

/// A body that is not as long as it says never becomes a whole request, and what is beyond it goes nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_another_length_than_it_says_is_no_request_upstream() {
    let edge = Downgraded::start(Upstream::answering(|_| ok("")));
    for (length, body) in [
        ("100", vec![HIDDEN]),
        ("0", vec![HIDDEN]),
        ("5", vec![HIDDEN]),
        ("10", vec![b"abc", b"def"]),
        ("4", vec![b"abc", HIDDEN]),
        ("3", vec![b"abc", HIDDEN]),
        ("3", Vec::new()),
    ] {
        let fields = request(
            "POST",
            HOST,
            "/api/",
            &[(b"content-length", length.as_bytes())],
        );
        for (protocol, told) in edge.ask(&fields, &body).await {
            assert!(
                told.status != Some(200),
                "{length} over {protocol}: {told:?}"
            );
        }
    }
    let seen = edge.upstream.seen();
    assert!(seen.is_empty(), "{seen:?}");
}

/// h2 takes a fragment off before anybody sees it: what is sent on has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fragment_reaches_no_upstream() {
    let edge = Downgraded::recording();
    let fields = request("POST", HOST, "/api/#/../x", &[]);
    for (protocol, told) in edge.ask(&fields, &[b"x"]).await {
        assert_eq!(told.is_refused(), protocol == "h3", "{protocol}: {told:?}");
    }
    for seen in edge.upstream.seen() {
        assert!(
            seen.head.starts_with("POST /api/ HTTP/1.1\r\n"),
            "{}",
            seen.head
        );
    }
}

/// Whole requests in bodies, with and without a length, stay what they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_in_a_body_stays_in_it() {
    let edge = Downgraded::start(Upstream::answering(|seen| ok(&seen.body)));
    let length = HIDDEN.len().to_string();
    for fields in [&[(&b"content-length"[..], length.as_bytes())][..], &[]] {
        let fields = request("POST", HOST, "/api/", fields);
        for (protocol, told) in edge.ask(&fields, &[HIDDEN]).await {
            assert_eq!(told.body, HIDDEN, "over {protocol}");
        }
    }
    let seen = edge.upstream.seen();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().all(|seen| seen.head.starts_with("POST /api/ ")));
}
