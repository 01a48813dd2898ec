//! A protected site, over every protocol and through every lane alike.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use helix_edge::listener::Lanes;
use helix_edge::table::Serving;
use helix_edge::visitor::draw;
use helix_routing::id::Generation;
use helix_routing::protection::Protection;
use helix_service::pass::{Key, Kind};
use helix_service::password;
use http::header::{CACHE_CONTROL, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method};

use crate::cache::cached;
use crate::http2;
use crate::http3::Served;
use crate::support::{Edge, LIVE, Response, serving, site};
use crate::upstream::{HOST, Upstream};

const FLEET: &str = "what all edges of a fleet share";
const PASSWORD: &str = "correct horse";

fn protection(secret: &str) -> Box<Protection> {
    Box::new(Protection {
        secret: secret.to_owned(),
        password: Some(password::keep(PASSWORD)),
        exempt: vec!["/api/hooks/*".parse().unwrap(), "/a.txt".parse().unwrap()],
    })
}

/// Protects `shop.example`.
fn protect(edge: &Edge, secret: &str) {
    edge.table
        .visitors()
        .sign_with(draw::Key::new(FLEET.as_bytes()));
    let mut next = serving(5, LIVE, &[]);
    next.protection = Some(protection(secret));
    edge.table.publish(&site(), next);
}

fn link(secret: &str, site: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let end = now + Duration::from_secs(600);
    Key::of_secret(FLEET, secret).write(Kind::Link, site, end.as_secs())
}

fn asked(edge: &Edge, request: &str) -> Response {
    let mut client = edge.client();
    client.send(request);
    client.response()
}

fn get(edge: &Edge, target: &str, fields: &str) -> Response {
    asked(
        edge,
        &format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n"),
    )
}

fn log_in(edge: &Edge, form: &str) -> Response {
    let length = form.len();
    asked(
        edge,
        &format!(
            "POST /.helix/access HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {length}\r\n\r\n{form}"
        ),
    )
}

fn cookie(response: &Response) -> String {
    let field = response.header("set-cookie").expect("a cookie");
    assert!(field.contains("; HttpOnly; SameSite=Lax"), "{field}");
    field.split(';').next().unwrap().to_owned()
}

fn is_refused(edge: &Edge) {
    let refused = get(edge, "/", "Accept: text/html\r\n");
    assert_eq!(refused.status, 401);
    assert!(refused.text().contains("<form") && !refused.text().contains(LIVE));
    for (name, value) in [
        ("cache-control", "private, no-store"),
        ("x-robots-tag", "noindex"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(refused.header(name), Some(value));
    }
    let plain = get(edge, "/missing", "");
    let kind = plain.header("content-type");
    assert_eq!(
        (plain.status, kind),
        (401, Some("text/plain; charset=utf-8"))
    );
}

fn is_let_in(edge: &Edge, cookie: &str, pass: &str) {
    let let_in = get(edge, "/", &format!("Cookie: a=b; {cookie}\r\n"));
    assert_eq!(let_in.status, 200);
    let cached = let_in.header("cache-control").unwrap();
    assert!(
        cached.contains("private") && !cached.contains("public"),
        "{cached}"
    );
    assert_eq!(get(edge, "/", "").status, 401, "another visitor");
    assert_eq!(get(edge, "/a.txt", "").status, 200, "exempt");
    let by_header = get(edge, "/dir/", &format!("X-Helix-Access: {pass}\r\n"));
    assert_eq!(by_header.status, 200);
}

#[test]
fn nothing_is_seen_before_one_is_let_in_and_nothing_is_kept_for_who_is_not() {
    for lanes in [Lanes::All, Lanes::Pingora] {
        let edge = Edge::over(lanes);
        // Often enough that it is remembered, while it is open.
        for _ in 0..4 {
            assert_eq!(get(&edge, "/", "").status, 200);
        }
        protect(&edge, "one");
        for _ in 0..4 {
            is_refused(&edge);
        }
        let pass = link("one", "shop/production");
        let entered = get(&edge, &format!("/dir/?a=b&_helix_access={pass}"), "");
        let location = entered.header("location");
        assert_eq!((entered.status, location), (303, Some("/dir/?a=b")));
        let cookie = cookie(&entered);
        for _ in 0..4 {
            is_let_in(&edge, &cookie, &pass);
        }
        protect(&edge, "two");
        for fields in [
            format!("Cookie: {cookie}\r\n"),
            format!("X-Helix-Access: {pass}\r\n"),
        ] {
            assert_eq!(get(&edge, "/", &fields).status, 401, "it was changed");
        }
        edge.table.publish(&site(), serving(9, LIVE, &[]));
        assert_eq!(get(&edge, "/", "").status, 200, "it is open again");
        let log = std::fs::read_to_string(&edge.log).unwrap_or_default();
        assert!(!log.contains(&pass), "a pass is in the log");
    }
}

#[test]
fn a_password_lets_in_and_a_wrong_one_a_few_times_only() {
    let edge = Edge::start();
    protect(&edge, "one");
    let right = log_in(&edge, "to=%2Fdir%2F%3Fa%3Db&password=correct+horse");
    assert_eq!(
        (right.status, right.header("location")),
        (303, Some("/dir/?a=b"))
    );
    let held = cookie(&right);
    assert_eq!(get(&edge, "/", &format!("Cookie: {held}\r\n")).status, 200);
    let elsewhere = log_in(&edge, "to=%2F%2Fevil.example&password=correct%20horse");
    assert_eq!(
        (elsewhere.status, elsewhere.header("location")),
        (303, Some("/"))
    );
    for (form, status) in [
        ("password=wrong", 401),
        ("password=", 401),
        ("to=/", 400),
        (&*format!("password={}", "x".repeat(9000)), 413),
        ("password=wrong", 401),
        ("password=wrong", 401),
        ("password=correct+horse", 429),
    ] {
        let refused = log_in(&edge, form);
        assert_eq!(refused.status, status, "{form:.40}");
        assert_eq!(refused.header("set-cookie"), None);
        if status == 429 {
            assert!(refused.header("retry-after").is_some());
        }
    }
    // Who is in already stays in.
    assert_eq!(get(&edge, "/", &format!("Cookie: {held}\r\n")).status, 200);
    let metrics = String::from_utf8(edge.metrics.text().unwrap()).unwrap();
    for (outcome, count) in [("password", 2), ("wrong", 4), ("limited", 1)] {
        let line = metrics.lines().find(|line| {
            line.starts_with("helix_edge_protected_total")
                && line.contains(&format!("outcome=\"{outcome}\""))
        });
        let line = line.unwrap_or_default();
        assert!(line.ends_with(&format!(" {count}")), "{outcome}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_over_http2_and_http3() {
    let served = Served::start();
    protect(&served.edge, "one");
    let mut h2 = http2::Connection::open(&served.edge).await;
    let h3 = served.open().await;
    let pass = link("one", "shop/production");
    let none = HeaderMap::new;
    for (target, status) in [
        ("/".to_owned(), 401),
        ("/a.txt".to_owned(), 200),
        ("/.helix/access".to_owned(), 401),
        (format!("/?_helix_access={pass}"), 303),
    ] {
        let (plain, secure) = (
            format!("http://shop.example{target}"),
            format!("https://shop.example{target}"),
        );
        let two = h2.ask(Method::GET, &plain, none()).await;
        let three = h3.ask(Method::GET, &secure, none()).await;
        for (got, head, _) in [two, three] {
            assert_eq!(got.as_u16(), status, "{target}");
            if status == 401 {
                assert_eq!(head[CACHE_CONTROL], "private, no-store");
            }
            if status == 303 {
                assert_eq!(head[LOCATION], "/");
                let field = head[SET_COOKIE].to_str().unwrap().to_owned();
                let pair = HeaderValue::from_str(field.split(';').next().unwrap()).unwrap();
                let held = HeaderMap::from_iter([(COOKIE, pair)]);
                let (got, _, _) = h2
                    .ask(Method::GET, "http://shop.example/", held.clone())
                    .await;
                assert_eq!(got.as_u16(), 200);
                let (got, _, _) = h3.ask(Method::GET, "https://shop.example/", held).await;
                assert_eq!(got.as_u16(), 200);
            }
        }
    }
}

#[test]
fn an_upstream_sees_who_was_let_in_and_nothing_that_lets_in() {
    let upstream = Upstream::answering(|_| {
        "HTTP/1.1 200 OK\r\nCache-Control: public, s-maxage=60\r\nContent-Length: 2\r\n\r\nok"
            .into()
    });
    for lanes in [Lanes::All, Lanes::Pingora] {
        let edge = Edge::over(lanes);
        cached(&edge, HOST, upstream.addr, LIVE);
        edge.table
            .visitors()
            .sign_with(draw::Key::new(FLEET.as_bytes()));
        let calls = "calls/production".parse().unwrap();
        let live = edge.table.site(&calls).unwrap().serving().live.clone();
        let mut next = Serving::new(Generation(2), live, Vec::new());
        next.protection = Some(protection("one"));
        edge.table.publish(&calls, next);
        let before = upstream.seen().len();
        let ask = |target: &str, fields: &str| {
            asked(
                &edge,
                &format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n"),
            )
        };
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert_eq!(ask("/api/a", "").status, 401);
        assert_eq!(ask("/api/a", upgrade).status, 401, "a WebSocket");
        assert_eq!(ask("/api/hooks/../a", "").status, 401);
        assert_eq!(upstream.seen().len(), before, "nothing was sent on");
        assert_eq!(ask("/api/hooks/stripe", "").status, 200);
        let pass = link("one", "calls/production");
        let session = cookie(&ask(&format!("/api/a?_helix_access={pass}"), ""));
        assert_eq!(upstream.seen().len(), before + 1);
        let in_by = |fields: &str| ask("/api/a?b=c&_helix_access=old", fields);
        let let_in = in_by(&format!(
            "Cookie: a=b; {session}; c=d\r\nX-Helix-Access: {pass}\r\n"
        ));
        assert_eq!((let_in.status, let_in.text()), (200, "ok"));
        let cached = let_in.header("cache-control").unwrap();
        assert!(cached.contains("private"), "{cached}");
        // It may be kept here, for who is let in.
        assert_eq!(ask("/api/a?b=c", "").status, 401);
        let seen = upstream.seen();
        let last = seen.last().unwrap();
        assert_eq!(last.fields("cookie"), ["a=b; c=d"]);
        let all = format!("{seen:?}");
        assert!(
            !all.contains(&pass) && !all.contains("_helix_access"),
            "{all}"
        );
    }
}
