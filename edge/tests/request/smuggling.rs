//! What no strict parser would have sent never reaches an upstream.

use serde_json::json;

use crate::support::Edge;
use crate::upstream::{HOST, Upstream, forward_to, ok};

/// A request that a careless parser would find behind another one.
const HIDDEN: &str = "GET /api/hidden HTTP/1.1\r\nHost: api.example\r\n\r\n";

#[test]
fn an_ambiguous_request_never_reaches_the_upstream() {
    let upstream = Upstream::answering(|_| ok(""));
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    for fields in [
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
    ] {
        let mut client = edge.client();
        client.try_send(format!(
            "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n0\r\n\r\n{HIDDEN}"
        ));
        assert_eq!(client.response().status, 400, "{fields:?}");
        assert!(client.is_closed(), "{fields:?}");
    }
    assert_eq!(upstream.seen().len(), 0);
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

#[test]
fn a_malformed_chunk_ends_the_request_at_the_upstream() {
    let upstream = Upstream::answering(|_| ok(""));
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    for chunk in [
        "zz\r\n",
        "5\nhello\r\n",
        "-1\r\n",
        "5\r\nhelloXX",
        "0x5\r\nhello\r\n",
    ] {
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
