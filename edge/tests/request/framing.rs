//! Where messages begin and end on a connection.

use crate::support::{Client, Edge, LIVE, get};

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let edge = Edge::start();
    let mut client = edge.client();
    let targets = ["/", "/a.txt", "/missing", "/dir/", "/empty", "/a.txt"];
    client.send(targets.map(get).concat());
    let bodies: Vec<_> = targets
        .iter()
        .map(|_| String::from_utf8(client.response().body).unwrap())
        .collect();
    let expected = ["index", "text", "missing", "dir", "", "text"];
    for (body, name) in bodies.iter().zip(expected) {
        assert!(
            if name.is_empty() {
                body.is_empty()
            } else {
                *body == format!("{name} of {LIVE}\n")
            },
            "{body}"
        );
    }
    client.send(get("/a.txt"));
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_connection_is_used_again_many_times() {
    let edge = Edge::start();
    let mut client = edge.client();
    for _ in 0..500 {
        client.send(get("/a.txt"));
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(edge.metrics.connections_accepted.get(), 1);
}

#[test]
fn a_head_in_single_bytes_is_the_same_head() {
    let edge = Edge::start();
    let mut client = edge.client();
    for byte in get("/a.txt").as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(client.response().status, 200);
}

#[test]
fn an_empty_line_before_a_request_is_forgiven_once() {
    let edge = Edge::start();
    let mut client = edge.client();
    client.send(format!("\r\n{}", get("/a.txt")));
    assert_eq!(client.response().status, 200);
    client.send(format!("\r\n\r\n{}", get("/a.txt")));
    assert_eq!(client.response().status, 400);
    assert!(client.is_closed());
}

#[test]
fn connections_close_when_the_client_wants_it() {
    let edge = Edge::start();
    for request in [
        "GET /a.txt HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n",
        "GET /a.txt HTTP/1.0\r\nHost: shop.example\r\n\r\n",
    ] {
        let mut client = edge.client();
        client.send(request);
        let response = client.response();
        assert_eq!(
            (response.status, response.header("connection")),
            (200, Some("close"))
        );
        assert!(client.is_closed());
    }
    let mut client = edge.client();
    client.send(
        "GET /a.txt HTTP/1.0\r\nHost: shop.example\r\nConnection: keep-alive\r\n\r\n".repeat(2),
    );
    assert_eq!(client.response().header("connection"), Some("keep-alive"));
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_body_that_nobody_reads_never_becomes_a_request() {
    let edge = Edge::start();
    let hidden = get("/hidden");
    let chunked = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for request in [
        format!(
            "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{hidden}",
            hidden.len()
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
        ),
        format!(
            "GET / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{hidden}",
            hidden.len()
        ),
    ] {
        let mut client = edge.client();
        client.send(&request);
        let response = client.response();
        assert!(matches!(response.status, 200 | 405), "{request}");
        // Either the connection ends, or the next answer is to the next request.
        if response.header("connection") == Some("close") {
            assert!(client.is_closed());
        } else {
            client.send(get("/a.txt"));
            assert_eq!(client.response().text(), format!("text of {LIVE}\n"));
        }
    }
}

/// A request that a careless parser would find in what follows a refused one.
const MARKER: &str = "GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n";

/// Asserts that `request`, with [`MARKER`] behind it, gets one response and the end of the connection.
fn assert_refused(edge: &Edge, request: &str, status: u16) {
    let mut client = edge.client();
    client.try_send(format!("{request}{MARKER}"));
    let response = client.response();
    let shown: String = request.escape_debug().take(200).collect();
    let got = (response.status, response.header("connection"));
    assert_eq!(got, (status, Some("close")), "{shown}");
    assert!(
        client.is_closed(),
        "{shown} was followed by {:?}",
        client.head()
    );
}

#[test]
fn ambiguous_lengths_get_one_refusal_and_the_end_of_the_connection() {
    let edge = Edge::start();
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5 \u{b}\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n0\r\n\r\n");
        assert_refused(&edge, &request, 400);
    }
    let old =
        "POST / HTTP/1.0\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_refused(&edge, old, 400);
}

#[test]
fn malformed_fields_get_one_refusal_and_the_end_of_the_connection() {
    let edge = Edge::start();
    for (fields, status) in [
        ("Content-Length : 5\r\n", 400),
        ("Content_Length: 5\r\n", 400),
        ("Transfer-Encoding : chunked\r\n", 400),
        ("Transfer-Encoding:\r\n chunked\r\n", 400),
        ("X: y\nTransfer-Encoding: chunked\r\n", 400),
        ("X: y\rTransfer-Encoding: chunked\r\n", 400),
        ("X: y\0z\r\n", 400),
        ("X: y\r\n folded\r\n", 400),
        ("Host: shop.example\r\n", 400),
        ("Host: other.example\r\n", 400),
        (&*"X: y\r\n".repeat(100), 431),
        (&*format!("X: {}\r\n", "y".repeat(40_000)), 431),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n");
        assert_refused(&edge, &request, status);
    }
    assert_refused(&edge, "GET / HTTP/1.1\r\n\r\n", 400);
}

#[test]
fn malformed_request_lines_get_one_refusal_and_the_end_of_the_connection() {
    let edge = Edge::start();
    for (line, status) in [
        ("GET http://other.example/ HTTP/1.1", 400),
        ("GET http://u@shop.example/ HTTP/1.1", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET / HTTP/3.0", 505),
        ("CONNECT shop.example HTTP/1.1", 405),
        (&*format!("GET /{} HTTP/1.1", "a".repeat(9000)), 414),
        ("\u{16}\u{3}\u{1} TLS by mistake", 400),
    ] {
        assert_refused(
            &edge,
            &format!("{line}\r\nHost: shop.example\r\n\r\n"),
            status,
        );
    }
    assert_refused(&edge, "GET / HTTP/1.1\nHost: shop.example\n\n", 400);
}

#[test]
fn an_absolute_target_is_the_same_request() {
    let edge = Edge::start();
    let mut client = edge.client();
    client.send("GET http://shop.example/a.txt?x HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.response().text(), format!("text of {LIVE}\n"));
    client.send("OPTIONS * HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.response().status, 204);
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_answer() {
    let edge = Edge::start();
    let mut client = edge.client();
    client.send(get("/big.bin"));
    client.end();
    client.head();
    client.rest_of_big_file();
    assert!(client.is_closed());
}

#[test]
fn clients_that_leave_half_way_leave_nothing_behind() {
    let edge = Edge::start();
    for round in 0..40 {
        let mut client = Client::connect(edge.addr);
        match round % 4 {
            0 => client.send("GET / HT"),
            1 => client.send(get("/big.bin")),
            2 => client
                .send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 100\r\n\r\nhalf"),
            _ => {}
        }
    }
    edge.until_idle();
    assert_eq!(edge.get("/a.txt").status, 200);
}
