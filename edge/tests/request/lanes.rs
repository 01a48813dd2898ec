//! Every way from an HTTP/1 request to its response gives the same response.

use helix_edge::listener::Lanes;

use crate::support::{Client, Edge, Response, get, large};

/// Fields that differ by time, or that say how the connection goes on.
const VARYING: [&str; 2] = ["date", "connection"];

fn seen(response: Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut headers = response.headers;
    headers.retain(|(name, _)| !VARYING.contains(&name.as_str()));
    headers.sort_unstable();
    (response.status, headers, response.body)
}

fn ask(client: &mut Client, request: &str) -> Response {
    client.send(request);
    if request.starts_with("HEAD") {
        client.head()
    } else {
        client.response()
    }
}

#[test]
fn responses_are_the_same_through_every_lane_and_when_remembered() {
    let (all, pingora) = (Edge::start(), Edge::over(Lanes::Pingora));
    let etag = all.get("/a.txt").header("etag").unwrap().to_owned();
    let fields = [
        String::new(),
        format!("If-None-Match: {etag}\r\n"),
        format!("If-None-Match: \"other\", W/{etag}\r\n"),
        "Accept-Encoding: br;q=0.5, gzip\r\n".to_owned(),
        "Range: bytes=2-5\r\n".to_owned(),
        "Cookie: a=b\r\nX-Other: c\r\n".to_owned(),
    ];
    let targets = [
        "/", "/a.txt", "/a.txt?x", "/dir", "/dir/", "/empty", "/missing", "/%zz", "//", "*",
    ];
    for method in ["GET", "HEAD", "OPTIONS", "POST", "BREW"] {
        for target in targets
            .into_iter()
            .filter(|target| method == "OPTIONS" || *target != "*")
        {
            for host in ["shop.example", "empty.example", "nobody.example"] {
                let (mut ours, mut theirs) = (all.client(), pingora.client());
                for fields in &fields {
                    let request =
                        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
                    let expected = seen(ask(&mut theirs, &request));
                    // From the second time on it may be remembered; the third time it is.
                    for time in 1..=4 {
                        let got = seen(ask(&mut ours, &request));
                        assert_eq!(got, expected, "{time}: {request}");
                    }
                }
            }
        }
    }
}

#[test]
fn pipelined_requests_for_the_same_thing_are_all_answered() {
    let edge = Edge::start();
    let mut client = edge.client();
    let expected = seen(edge.get("/a.txt"));
    client.send(get("/a.txt").repeat(500));
    for _ in 0..500 {
        assert_eq!(seen(client.response()), expected);
    }
    client.send(format!(
        "{}GET /a.txt HTTP/1.0\r\nHost: shop.example\r\n\r\n{}",
        get("/a.txt").repeat(3),
        get("/a.txt")
    ));
    for last in [false, false, false, true] {
        let response = client.response();
        let expected = if last { "close" } else { "keep-alive" };
        assert_eq!(response.header("connection"), Some(expected));
    }
    assert!(client.is_closed());
}

#[test]
fn a_large_response_is_the_same_when_remembered_and_however_slowly_it_is_taken() {
    let edge = Edge::start();
    let mut client = edge.client();
    // Far more than lies between the two ends: some of it leaves in parts.
    client.send(format!("{}{}", get("/200k.bin"), get("/a.txt")).repeat(60));
    for _ in 0..60 {
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.body == large(), "{} bytes", response.body.len());
        assert_eq!(response.header("content-length"), Some("204800"));
        assert_eq!(client.response().text(), edge.get("/a.txt").text());
    }
}

#[test]
fn a_client_that_waits_for_a_100_and_gets_its_answer_first_is_not_kept() {
    let edge = Edge::start();
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let response = client.response();
    assert_eq!(
        (response.status, response.header("connection")),
        (405, Some("close"))
    );
    client.try_send("hello");
    assert!(client.is_closed());
}
