//! A share of the visitors gets the candidate, over every protocol and through every lane alike.

use std::sync::Arc;

use bytes::Bytes;
use helix_edge::listener::Lanes;
use helix_edge::release::Release;
use helix_edge::table::Serving;
use helix_edge::visitor::draw::Key;
use helix_edge::visitor::{Canary, Split};
use helix_routing::id::{Digest, Generation};
use helix_routing::record::{Pin, PinBy, ReleaseRef};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::json;

use crate::http2;
use crate::http3::Served;
use crate::support::{Edge, KEPT, LIVE, Response, release, serving, site};
use crate::upstream::{HOST, Upstream, forward_to};

const CANDIDATE: &str = KEPT;

/// Lets so many percent of `edge`'s visitors have the candidate.
fn weigh(edge: &Edge, weight: u8) {
    edge.table.visitors().sign_with(Key::new(&[7; 32]));
    let candidate = release(CANDIDATE);
    let mut serving = serving(5, LIVE, &[]);
    serving.kept.push(Arc::clone(&candidate));
    serving.split = Some(Box::new(Split {
        canary: Some(Canary {
            candidate,
            weight,
            counted: Arc::default(),
        }),
        pins: Vec::new(),
    }));
    edge.table.publish(&site(), serving);
}

fn asking(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n")
}

/// The cookie of a response, as a browser sends it back.
fn cookie(response: &Response) -> Option<String> {
    let field = response.header("set-cookie")?;
    assert!(
        field.ends_with("; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax"),
        "{field}"
    );
    Some(field.split(';').next().unwrap().to_owned())
}

#[test]
fn a_visitor_stays_on_a_side_through_every_lane_and_across_edges() {
    let edges = [Edge::start(), Edge::over(Lanes::Pingora)];
    for edge in &edges {
        weigh(edge, 50);
    }
    let mut sides = [0, 0];
    for number in 0..60 {
        let mut first = edges[number % 2].client();
        first.send(asking("/", ""));
        let response = first.response();
        let side = response.header("x-helix-release").unwrap().to_owned();
        assert!(response.text().contains(&side), "the page is another's");
        let cookie = cookie(&response).expect("a new visitor gets a cookie");
        sides[usize::from(side == CANDIDATE)] += 1;
        for edge in &edges {
            let mut client = edge.client();
            // Often enough that it would be remembered, were it anybody's.
            for target in ["/", "/a.txt", "/a.txt", "/a.txt", "/dir", "/missing"] {
                client.send(asking(target, &format!("Cookie: a=b; {cookie}\r\n")));
                let response = client.response();
                assert_eq!(response.header("x-helix-release"), Some(&*side), "{target}");
                assert_eq!(response.header("set-cookie"), None, "it has one");
                let cached = response.header("cache-control").unwrap();
                assert!(
                    cached.contains("private") && !cached.contains("public"),
                    "{cached}"
                );
            }
        }
    }
    assert!(sides.iter().all(|side| *side >= 10), "{sides:?}");
}

#[test]
fn what_one_visitor_gets_is_not_remembered_for_another() {
    let edge = Edge::start();
    weigh(&edge, 50);
    let mut client = edge.client();
    let mut sides = [0, 0];
    // One connection, one target: without a cookie each is drawn for.
    client.send(asking("/a.txt", "").repeat(200));
    for _ in 0..200 {
        let response = client.response();
        let side = response.header("x-helix-release").unwrap();
        assert!(response.text().contains(side));
        assert!(cookie(&response).is_some());
        sides[usize::from(side == CANDIDATE)] += 1;
    }
    assert!(sides.iter().all(|side| *side >= 50), "{sides:?}");
    // Nor is what was remembered before there were sides.
    edge.table.publish(&site(), serving(6, LIVE, &[KEPT]));
    client.send(asking("/a.txt", "").repeat(5));
    for _ in 0..5 {
        let response = client.response();
        assert_eq!(response.header("set-cookie"), None);
        assert_eq!(response.header("x-helix-side"), None);
    }
    weigh(&edge, 100);
    client.send(asking("/a.txt", ""));
    let response = client.response();
    assert_eq!(response.header("x-helix-release"), Some(CANDIDATE));
}

#[test]
fn after_the_rollout_cookies_mean_nothing() {
    let edge = Edge::start();
    weigh(&edge, 99);
    let mut client = edge.client();
    client.send(asking("/", ""));
    let cookie = cookie(&client.response()).unwrap();
    for live in [LIVE, CANDIDATE] {
        edge.table.publish(&site(), serving(8, live, &[KEPT]));
        for _ in 0..4 {
            client.send(asking("/", &format!("Cookie: {cookie}\r\n")));
            let response = client.response();
            assert_eq!(response.header("x-helix-release"), Some(live));
            assert_eq!(response.header("set-cookie"), None);
        }
    }
}

#[test]
fn who_shows_a_pin_gets_its_release_and_is_no_measure_of_it() {
    let edge = Edge::start();
    let pinned = release(KEPT);
    let named = ReleaseRef {
        release: pinned.id.clone(),
        artifact: Digest::from_hex(&"0".repeat(64)).unwrap(),
    };
    let pin = Pin {
        label: "beta".parse().unwrap(),
        by: PinBy::header("x-team", "internal").unwrap(),
        release: named,
    };
    let mut next = serving(5, LIVE, &[]);
    next.kept.push(Arc::clone(&pinned));
    next.split = Some(Box::new(Split {
        canary: None,
        pins: vec![(pin, pinned)],
    }));
    edge.table.publish(&site(), next);
    let mut client = edge.client();
    for (fields, expected) in [
        ("", LIVE),
        ("X-Helix-Pin: beta\r\n", KEPT),
        ("X-Helix-Pin: other\r\n", LIVE),
        ("X-Team: internal\r\n", KEPT),
        ("Cookie: a=b; __helix_pin=beta\r\n", KEPT),
        ("", LIVE),
    ] {
        for _ in 0..3 {
            client.send(asking("/a.txt", fields));
            let response = client.response();
            assert_eq!(
                response.header("x-helix-release"),
                Some(expected),
                "{fields}"
            );
            assert_eq!(response.header("set-cookie"), None);
        }
    }
    drop(client);
    edge.until_idle();
    let serving = edge.table.site(&site()).unwrap().serving();
    assert_eq!(serving.counted.window().requests(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_over_http2_and_http3() {
    let served = Served::start();
    weigh(&served.edge, 50);
    let mut h2 = http2::Connection::open(&served.edge).await;
    let h3 = served.open().await;
    let url = |scheme: &str, path: &str| format!("{scheme}://shop.example{path}");
    let mut sides = [0, 0];
    for number in 0..40 {
        let none = HeaderMap::new();
        let (_, head, _) = if number % 2 == 0 {
            h2.ask(Method::GET, &url("http", "/"), none).await
        } else {
            h3.ask(Method::GET, &url("https", "/"), none).await
        };
        let side = head["x-helix-release"].clone();
        let field = head[SET_COOKIE].to_str().unwrap();
        assert_eq!(field.ends_with("; Secure"), number % 2 == 1, "{field}");
        let pair = field.split(';').next().unwrap();
        sides[usize::from(side == CANDIDATE)] += 1;
        // A browser may send its cookies in several fields (RFC 9113 8.2.3).
        let mut cookies = HeaderMap::new();
        cookies.append(COOKIE, HeaderValue::from_static("a=b"));
        cookies.append(COOKIE, HeaderValue::from_str(pair).unwrap());
        for path in ["/", "/a.txt"] {
            let (plain, secure) = (url("http", path), url("https", path));
            let (_, two, _) = h2.ask(Method::GET, &plain, cookies.clone()).await;
            let (_, three, _) = h3.ask(Method::GET, &secure, cookies.clone()).await;
            for head in [two, three] {
                assert_eq!(head["x-helix-release"], side);
                assert!(!head.contains_key(SET_COOKIE));
            }
        }
    }
    assert!(sides.iter().all(|side| *side >= 5), "{sides:?}");
}

#[test]
fn what_an_upstream_says_to_shared_caches_is_not_passed_on() {
    let upstream = Upstream::answering(|_| {
        "HTTP/1.1 200 OK\r\nCache-Control: public, s-maxage=60, max-age=5\r\nCDN-Cache-Control: max-age=60\r\n\
         Set-Cookie: own=1\r\nContent-Length: 2\r\n\r\nok"
            .into()
    });
    for lanes in [Lanes::All, Lanes::Pingora] {
        let edge = Edge::over(lanes);
        forward_to(&edge, upstream.addr, &json!({}));
        edge.table.visitors().sign_with(Key::new(&[7; 32]));
        let calls = "calls/production".parse().unwrap();
        let live = edge.table.site(&calls).unwrap().serving().live.clone();
        let split = Split {
            canary: Some(Canary {
                candidate: live.clone().unwrap(),
                weight: 50,
                counted: Arc::default(),
            }),
            pins: Vec::new(),
        };
        let mut next = Serving::new(Generation(2), live, Vec::new());
        next.split = Some(Box::new(split));
        edge.table.publish(&calls, next);
        let mut client = edge.client();
        client.send(format!("GET /api/a HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let response = client.response();
        let all = |name: &str| {
            let fields = response.headers.iter();
            let fields = fields.filter(|(held, _)| held == name);
            fields.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(all("cache-control"), ["private, max-age=5"]);
        assert_eq!(all("cdn-cache-control"), ["no-store"]);
        let cookies = all("set-cookie");
        assert_eq!(cookies.len(), 2, "{cookies:?}");
        assert!(cookies.contains(&"own=1".to_owned()));
    }
}

#[test]
fn a_page_of_one_side_finds_its_assets_whoever_asks_for_them() {
    let edge = Edge::start();
    let of = |id: &str, asset: &'static str| {
        let files = [
            ("index.html", "text/html", Bytes::from(id.to_owned())),
            (asset, "text/javascript", Bytes::from(id.to_owned())),
        ];
        let artifact = Digest::from_hex(&"0".repeat(64)).unwrap();
        Arc::new(Release::from_memory(id.parse().unwrap(), artifact, files))
    };
    let (live, candidate) = (of(LIVE, "assets/old.js"), of(CANDIDATE, "assets/new.js"));
    edge.table.visitors().sign_with(Key::new(&[7; 32]));
    for weight in [1, 99] {
        let kept = vec![Arc::clone(&candidate)];
        let mut next = Serving::new(Generation(5), Some(Arc::clone(&live)), kept);
        next.split = Some(Box::new(Split {
            canary: Some(Canary {
                candidate: Arc::clone(&candidate),
                weight,
                counted: Arc::default(),
            }),
            pins: Vec::new(),
        }));
        edge.table.publish(&site(), next);
        for _ in 0..10 {
            for (target, owner) in [("/assets/old.js", LIVE), ("/assets/new.js", CANDIDATE)] {
                let response = edge.get(target);
                assert_eq!((response.status, response.text()), (200, owner), "{target}");
                assert_eq!(response.header("x-helix-release"), Some(owner));
            }
            assert_eq!(edge.get("/assets/none.js").status, 404);
        }
    }
}
