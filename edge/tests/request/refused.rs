//! Heads that are refused have their line and are counted, whoever refuses them.

use std::net::TcpStream;

use quinn::TransportConfig;
use serde_json::{Value, json};

use crate::http3::Served;
use crate::raw::{Field, http3_frame, over_http2, over_http3, request};
use crate::support::{Edge, PATIENCE};

/// Of one line: status, bytes and why.
fn told(line: &Value) -> Value {
    json!([line["status"], line["bytes"], line["error"]])
}

fn clear(edge: &Edge) -> TcpStream {
    let stream = TcpStream::connect(edge.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn with<'a>(fields: &[Field<'a>]) -> Vec<Field<'a>> {
    request("GET", "shop.example", "/", fields)
}

/// How often heads were refused for this reason, as metrics have it.
fn counted(edge: &Edge, reason: &str) -> u64 {
    let refused = &edge.metrics.heads_refused;
    refused.with_label_values(&[reason]).get()
}

#[test]
fn a_head_that_is_refused_over_http2_has_its_line() {
    let large = vec![b'a'; 33 * 1024];
    let huge = vec![b'a'; 600 * 1024];
    let name = "a header field name is malformed";
    let malformed = "the request head is malformed";
    let too_large = "the request head is too large";
    for (what, fields, expected, reason) in [
        (
            "a name that HTTP/1 would not take",
            with(&[(b"x_y", b"1")]),
            json!([400, name.len() + 1]),
            "field_name",
        ),
        (
            "a field of one connection",
            with(&[(b"connection", b"close")]),
            json!([0, 0, malformed]),
            "malformed",
        ),
        (
            "a pseudo-field that is missing",
            with(&[])[1..].to_vec(),
            json!([0, 0, malformed]),
            "malformed",
        ),
        (
            "a large head",
            with(&[(b"x", &large)]),
            json!([431, 0, too_large]),
            "head_too_large",
        ),
        (
            "a head that ends the connection",
            with(&[(b"x", &huge)]),
            json!([0, 0, malformed]),
            "malformed",
        ),
    ] {
        let edge = Edge::start();
        let answer = over_http2(clear(&edge), &fields, &[]);
        let line = &edge.logged(1)[0];
        assert_eq!(line["protocol"], "h2", "{what}");
        if expected[0] == 400 {
            // It was read before it was refused, so its line says what was asked for.
            assert_eq!(line["target"], "/", "{what}");
            assert_eq!(
                (&line["status"], &line["bytes"]),
                (&expected[0], &expected[1])
            );
        } else {
            assert_eq!(told(line), expected, "{what}");
        }
        // Who is sent none has none in its line.
        assert_eq!(json!(answer.status.unwrap_or(0)), expected[0], "{what}");
        assert_eq!(counted(&edge, reason), 1, "{what}");
    }
}

#[test]
fn what_is_answered_is_no_refused_head() {
    let edge = Edge::start();
    for _ in 0..2 {
        let answer = over_http2(clear(&edge), &with(&[]), &[]);
        assert_eq!(answer.status, Some(200));
    }
    for line in edge.logged(2) {
        assert_eq!(line["status"], 200);
    }
    assert_eq!(counted(&edge, "malformed"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_refused_over_http3_has_its_line() {
    let served = Served::start();
    let large = vec![b'a'; 33 * 1024];
    let transport = TransportConfig::default();
    let (_endpoint, connection) = served.connect("shop.example", transport).await.unwrap();
    for fields in [
        with(&[(b"x_y", b"1")]),
        with(&[(b"x", &large)]),
        request("GET", "other.example", "/", &[]),
    ] {
        over_http3(&connection, &fields, &[]).await;
    }
    // What is no field section at all ends the connection.
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&http3_frame(1, &[0xff; 4])).await.unwrap();
    let mut lines: Vec<Value> = served.edge.logged(4).iter().map(told).collect();
    lines.sort_by_key(Value::to_string);
    let told = |status: u16, error: &str| json!([status, error.len() + 1, error]);
    assert_eq!(
        lines,
        [
            json!([0, 0, "the request head is malformed"]),
            told(400, "a header field name is malformed"),
            told(421, "this connection is for other hosts"),
            told(431, "the request head is too large"),
        ]
    );
    assert_eq!(counted(&served.edge, "malformed"), 1);
}
