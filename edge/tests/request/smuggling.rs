//! What no strict parser would have sent never reaches an upstream.

use serde_json::json;

use crate::support::Edge;
use crate::upstream::{HOST, Upstream, forward_to, ok};

/// A request that a careless parser would find behind another one.
const HIDDEN: &str = "GET /api/hidden HTTP/1.1\r\nHost: api.example\r\n\r\n";

/// Fields that one parser would read in one way, and another in another.
const AMBIGUOUS: &[&str] = &[
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: +5\r\n",
    "Content-Length : 5\r\n",
    "Content_Length: 5\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding:\u{b}chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "X: 1\r\n Transfer-Encoding: chunked\r\n",
    "X: 1\rTransfer-Encoding: chunked\r\n",
    "X: 1\nTransfer-Encoding: chunked\r\n",
    "X: \u{0}\r\n",
    "Host: other.example\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length: -5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length: 5\u{b}\r\n",
    "Content-Length: \u{665}\r\n",
    "Content-Length:\r\n",
    "Content-Length:\r\n 5\r\n",
    "Content-Length\r\n: 5\r\n",
    "Content-Length: 99999999999999999999999\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\ncontent-length: 6\r\n",
    "\u{0}Content-Length: 5\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding\t: chunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "\tTransfer-Encoding: chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer-Encoding:\r\n\tchunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: 'chunked'\r\n",
    "Transfer-Encoding: chunked\u{0}\r\n",
    "Transfer-Encoding: \u{0}chunked\r\n",
    "Transfer-Encoding: chunked\u{a0}\r\n",
    "Transfer-Encoding: chun\u{212a}ed\r\n",
    "Transfer-Encoding: ,chunked\r\n",
    "Transfer-Encoding: chunked,\r\n",
    "Transfer-Encoding:\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: x\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
    "Content-Length: 5\nTransfer-Encoding: chunked\r\n",
    "X: 1\r\n\tfolded\r\n",
    "X\r\nTransfer-Encoding: chunked\r\n",
    ": x\r\n",
    "X\u{e4}: x\r\n",
    "X y: z\r\n",
    "X: 1\r\r\n",
    "X: 1\r\n\rTransfer-Encoding: chunked\r\n",
    "Host: api.example\r\n",
    "host : api.example\r\n",
];

#[test]
fn an_ambiguous_request_never_reaches_the_upstream() {
    let upstream = Upstream::answering(|_| ok(""));
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    for fields in AMBIGUOUS {
        let mut client = edge.client();
        client.try_send(format!(
            "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n0\r\n\r\n{HIDDEN}"
        ));
        assert_eq!(client.response().status, 400, "{fields:?}");
        assert!(client.is_closed(), "{fields:?}");
    }
    assert_eq!(upstream.seen().len(), 0);
}

/// First lines of what is no request.
const REQUEST_LINES: &[&str] = &[
    "GET /api/ HTTP/1.1\n",
    "GET /api/ HTTP/1.1\r",
    "GET /api/ HTTP/1.1 \r\n",
    "GET  /api/ HTTP/1.1\r\n",
    "GET\t/api/\tHTTP/1.1\r\n",
    " GET /api/ HTTP/1.1\r\n",
    "GET /api/\r\n",
    "GET /api/ HTTP/0.9\r\n",
    "GET /api/ HTTP/2.0\r\n",
    "GET /api/ HTTP/1.10\r\n",
    "GET /api/ http/1.1\r\n",
    "GET /api/ HTTP /1.1\r\n",
    "GET /api/ x HTTP/1.1\r\n",
    "GET /api/\u{0} HTTP/1.1\r\n",
    "GET /api/\u{b} HTTP/1.1\r\n",
    "GET /api/\u{7f} HTTP/1.1\r\n",
    "GET /api/\\x HTTP/1.1\r\n",
    "GET /api/#x HTTP/1.1\r\n",
    "GET api/ HTTP/1.1\r\n",
    "GET * HTTP/1.1\r\n",
    "GET http:/api/ HTTP/1.1\r\n",
    "GET http://other.example/api/ HTTP/1.1\r\n",
    "GET http://user@api.example/api/ HTTP/1.1\r\n",
    "GET http://api.example:80/api/ HTTP/1.1\r\n",
    "GET ftp://api.example/api/ HTTP/1.1\r\n",
    "G\u{0}T /api/ HTTP/1.1\r\n",
    "G(T /api/ HTTP/1.1\r\n",
    "GET: /api/ HTTP/1.1\r\n",
    "CONNECT api.example:80 HTTP/1.1\r\n",
    "TRACE /api/ HTTP/1.1\r\n",
];

#[test]
fn a_malformed_request_line_never_reaches_the_upstream() {
    let upstream = Upstream::answering(|_| ok(""));
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    for line in REQUEST_LINES {
        let mut client = edge.client();
        client.try_send(format!("{line}Host: {HOST}\r\n\r\n"));
        let status = client.response().status;
        assert!(matches!(status, 400 | 405 | 505), "{line:?}: {status}");
    }
    assert_eq!(upstream.seen().len(), 0);
}

/// Each protocol's way to send bytes ahead: they are a request of their own, or nothing.
#[test]
fn what_follows_a_request_is_the_next_one_and_never_part_of_it() {
    let upstream = Upstream::answering(|seen| ok(&seen.body));
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = edge.client();
    let first = format!("POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nabc");
    client.send(format!("{first}{HIDDEN}GET / HTTP/1.1\r\n broken\r\n\r\n"));
    assert_eq!(client.response().text(), "abc");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 400);
    assert!(client.is_closed());
    let heads: Vec<_> = upstream
        .seen()
        .iter()
        .map(|seen| seen.head.lines().next().unwrap().to_owned())
        .collect();
    assert_eq!(heads, ["POST /api/ HTTP/1.1", "GET /api/hidden HTTP/1.1"]);
}

#[test]
fn what_lies_in_a_body_stays_in_it() {
    let upstream = Upstream::answering(|seen| ok(&seen.body));
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = edge.client();
    for framed in [
        format!("Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len()),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n",
            HIDDEN.len()
        ),
    ] {
        client.send(format!("POST /api/ HTTP/1.1\r\nHost: {HOST}\r\n{framed}"));
        assert_eq!(client.response().text(), HIDDEN);
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.head.starts_with("POST /api/ ")));
}

/// What may not follow a chunk.
const CHUNKS: &[&str] = &[
    "zz\r\n",
    "5\nhello\r\n",
    "-1\r\n",
    "5\r\nhelloXX",
    "0x5\r\nhello\r\n",
    "\r\nhello\r\n",
    "+5\r\nhello\r\n",
    " 5\r\nhello\r\n",
    "5 \nhello\r\n",
    "5\rhello\r\n",
    "5\r\nhello\n",
    "5\r\nhello\r",
    "5\r\nhell\r\n",
    "5;a\nb\r\nhello\r\n",
    "5;a\u{0}\r\nhello\r\n",
    "5_0\r\nhello\r\n",
    "fffffffffffffffff\r\nhello\r\n",
    "10000000000000005\r\nhello\r\n",
    "0\n\n",
    "0\r\n\n",
    "0\r\n\rX",
    "0\r\nX\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "0\r\nX: y\r\n z\r\n\r\n",
    "0\r\nX: y\nZ: z\r\n\r\n",
    "0\r\nX: \u{0}\r\n\r\n",
];

#[test]
fn a_malformed_chunk_ends_the_request_at_the_upstream() {
    let upstream = Upstream::answering(|_| ok(""));
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    for chunk in CHUNKS {
        let mut client = edge.client();
        client.try_send(format!(
            "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n{chunk}{HIDDEN}"
        ));
        // A refusal or nothing, and then the end.
        let came = client.until_the_end();
        assert!(!came.contains(" 200 "), "{chunk:?}: {came}");
    }
    assert_eq!(upstream.seen().len(), 0);
}
