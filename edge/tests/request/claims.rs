//! What a client claims about itself, over every protocol: none of it reaches a server.

use bytes::Bytes;
use h2::client;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http3::Served;
use crate::support::{Edge, PATIENCE};
use crate::upstream::{HOST, Seen, Upstream, forward_to, ok};

/// What every claim says. Nothing that the edge sends holds it.
const SPOOFED: &str = "spoofed.invalid";

/// Fields that a client may not tell a server.
const CLAIMS: [&str; 32] = [
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Server",
    "X-Forwarded-Prefix",
    "X-Forwarded",
    "Forwarded",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Remote-IP",
    "X-Remote-Addr",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Original-URL",
    "X-Original-Host",
    "X-Rewrite-URL",
    "X-Helix-Edge",
    "X-Helix-Region",
    "X-Helix-Release",
    "X-Helix-Anything",
    "X-Middleware-Subrequest",
    "X-Middleware-Rewrite",
    "X-Envoy-Original-Path",
    "X-Envoy-External-Address",
    "Proxy",
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "Keep-Alive",
    "HTTP2-Settings",
    "Traceparent",
];

/// Those that belong to a connection, and so may not be in a message of HTTP/2 or HTTP/3 at all.
const HTTP1_ONLY: [&str; 1] = ["Keep-Alive"];

/// What the edge says of a client, once each, whatever the client said.
fn assert_introduced(seen: &Seen, what: &str, via: &str, secure: bool) {
    let proto = if secure { "https" } else { "http" };
    let forwarded = format!("for=127.0.0.1;host=\"{HOST}\";proto={proto}");
    for (name, value) in [
        ("host", HOST),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", HOST),
        ("x-forwarded-proto", proto),
        ("forwarded", forwarded.as_str()),
    ] {
        assert_eq!(seen.fields(name), [value], "{what}: {}", seen.head);
    }
    assert_eq!(
        seen.fields("via").last(),
        Some(&via),
        "{what}: {}",
        seen.head
    );
    assert_eq!(
        seen.fields("cdn-loop").last(),
        Some(&"helixstack"),
        "{what}: {}",
        seen.head
    );
    assert_eq!(seen.fields("traceparent").len(), 1, "{what}: {}", seen.head);
    assert!(!seen.head.contains(SPOOFED), "{what}: {}", seen.head);
    assert!(
        !seen.head.to_ascii_lowercase().contains("x-helix-"),
        "{what}: {}",
        seen.head
    );
}

fn upstream() -> Upstream {
    Upstream::answering(|_| ok("a"))
}

fn fields(names: &[&str]) -> HeaderMap {
    let field = |name: &&str| {
        (
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_static(SPOOFED),
        )
    };
    names.iter().map(field).collect()
}

#[test]
fn nothing_that_a_client_of_http1_claims_reaches_a_server() {
    let upstream = upstream();
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let mut client = edge.client();
    let mut ask = |lines: &str| {
        client.send(format!("GET /api/ HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n"));
        assert_eq!(client.response().status, 200, "{lines}");
        upstream.seen().pop().unwrap()
    };
    for name in CLAIMS {
        for name in [
            name.to_owned(),
            name.to_ascii_lowercase(),
            name.to_ascii_uppercase(),
        ] {
            let once = format!("{name}: {SPOOFED}\r\n");
            let seen = ask(&once);
            assert_introduced(&seen, &name, "1.1 helixstack", false);
            // Twice, and named in Connection, which must not take away what the edge says.
            let named = format!("{once}{once}Connection: {name}, keep-alive\r\n");
            assert_introduced(&ask(&named), &name, "1.1 helixstack", false);
        }
    }
    for own in [
        "Host",
        "X-Forwarded-For",
        "Forwarded",
        "CDN-Loop",
        "Via",
        "TE",
        "x-helix-edge",
    ] {
        let seen = ask(&format!("Connection: {own}\r\n"));
        assert_introduced(&seen, own, "1.1 helixstack", false);
    }
    // A trace that is one goes on, and so do the proxies before this one.
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let seen = ask(&format!(
        "traceparent: {trace}\r\nVia: 1.0 before\r\nCDN-Loop: other\r\n"
    ));
    assert_introduced(&seen, "a trace", "1.1 helixstack", false);
    assert_eq!(seen.fields("traceparent"), [trace]);
    assert_eq!(
        (seen.fields("via").len(), seen.fields("cdn-loop").len()),
        (2, 2)
    );
}

#[tokio::test]
async fn nothing_that_a_client_of_http2_claims_reaches_a_server() {
    let upstream = upstream();
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    let socket = TcpStream::connect(edge.addr).await.unwrap();
    let (mut requests, connection) = client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    for name in CLAIMS.iter().filter(|name| !HTTP1_ONLY.contains(name)) {
        let mut request = Request::get(format!("http://{HOST}/api/"))
            .body(())
            .unwrap();
        *request.headers_mut() = fields(&[name, name]);
        requests = requests.ready().await.unwrap();
        let (response, _): (_, h2::SendStream<Bytes>) =
            requests.send_request(request, true).unwrap();
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        assert_eq!(response.status(), 200, "{name}");
        let seen = upstream.seen().pop().unwrap();
        assert_introduced(&seen, name, "2 helixstack", false);
    }
}

#[tokio::test]
async fn nothing_that_a_client_of_http3_claims_reaches_a_server() {
    let upstream = upstream();
    let served = Served::start();
    forward_to(&served.edge, upstream.addr, &json!({}));
    let connection = served.open_for(HOST).await;
    let url = format!("https://{HOST}/api/");
    for name in CLAIMS.iter().filter(|name| !HTTP1_ONLY.contains(name)) {
        let (status, _, _) = connection.ask(Method::GET, &url, fields(&[name])).await;
        assert_eq!(status, 200, "{name}");
        let seen = upstream.seen().pop().unwrap();
        assert_introduced(&seen, name, "3 helixstack", true);
    }
}

#[test]
fn a_request_that_was_here_before_is_refused() {
    let upstream = upstream();
    let edge = Edge::start();
    forward_to(&edge, upstream.addr, &json!({}));
    for been in [
        "helixstack",
        "other, HelixStack;v=1",
        "a\r\nCDN-Loop: helixstack",
    ] {
        let mut client = edge.client();
        client.send(format!(
            "GET /api/ HTTP/1.1\r\nHost: {HOST}\r\nCDN-Loop: {been}\r\n\r\n"
        ));
        assert_eq!(client.response().status, 508, "{been}");
    }
    assert!(upstream.seen().is_empty());
}
