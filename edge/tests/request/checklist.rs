//! What a host of static files is expected to do, row by row, over HTTP/1.1, HTTP/2 and HTTP/3: each row says what
//! matters, and all three give the same fields and as many bytes.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::http2::Connection as Http2;
use crate::http3::{Connection as Http3, Served};
use crate::static_files::serve_site;
use crate::support::{Client, Edge};

/// Fields that differ by time, or that one protocol alone has.
const VARYING: [&str; 4] = ["date", "connection", "alt-svc", "strict-transport-security"];

/// A status, the fields it came with, and how many bytes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    fields: Vec<(String, String)>,
    bytes: usize,
}

impl Seen {
    fn new(status: u16, mut fields: Vec<(String, String)>, bytes: usize) -> Self {
        fields.retain(|(name, _)| !VARYING.contains(&name.as_str()));
        fields.sort_unstable();
        Self {
            status,
            fields,
            bytes,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(other, _)| other == name);
        field.map(|(_, value)| value.as_str())
    }
}

/// One edge, and a connection of each protocol to it.
struct Three {
    http1: Client,
    http2: Http2,
    http3: Http3,
    served: Served,
}

impl Three {
    async fn start() -> Self {
        let served = Served::start();
        serve_site(&served.edge);
        Self {
            http1: served.edge.client(),
            http2: Http2::open(&served.edge).await,
            http3: served.open().await,
            served,
        }
    }

    /// What all three are answered.
    async fn ask(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) -> Seen {
        let http1 = over_http1(&mut self.http1, method, target, fields);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let field = |(name, value): &(&str, &str)| {
            let name = HeaderName::try_from(*name).unwrap();
            (name, HeaderValue::try_from(*value).unwrap())
        };
        let map: HeaderMap = fields.iter().map(field).collect();
        let url = |scheme: &str| format!("{scheme}://shop.example{target}");
        let plain = url("http");
        let http2 = seen(self.http2.ask(method.clone(), &plain, map.clone()).await);
        let http3 = seen(self.http3.ask(method.clone(), &url("https"), map).await);
        assert_eq!(http2, http1, "over HTTP/2: {method} {target} {fields:?}");
        assert_eq!(http3, http1, "over HTTP/3: {method} {target} {fields:?}");
        http1
    }

    async fn get(&mut self, target: &str) -> Seen {
        self.ask("GET", target, &[]).await
    }
}

fn over_http1(client: &mut Client, method: &str, target: &str, fields: &[(&str, &str)]) -> Seen {
    let lines: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n"
    ));
    let response = if method == "HEAD" {
        client.head()
    } else {
        client.response()
    };
    Seen::new(response.status, response.headers, response.body.len())
}

fn seen((status, headers, bytes): (http::StatusCode, HeaderMap, usize)) -> Seen {
    let fields = headers.iter().map(|(name, value)| {
        let value = value.to_str().unwrap().to_owned();
        (name.as_str().to_owned(), value)
    });
    Seen::new(status.as_u16(), fields.collect(), bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_get_what_files_take_and_head_gets_the_fields_of_get() {
    let mut three = Three::start().await;
    for (method, target, status) in [
        ("POST", "/data.txt", 405),
        ("PUT", "/data.txt", 405),
        ("DELETE", "/data.txt", 405),
        ("PATCH", "/missing", 405),
        ("BREW", "/data.txt", 501),
        ("PROPFIND", "/data.txt", 501),
        ("OPTIONS", "/data.txt", 204),
    ] {
        let seen = three.ask(method, target, &[]).await;
        assert_eq!(seen.status, status, "{method} {target}");
        let allow = (status != 501).then_some("GET, HEAD, OPTIONS");
        assert_eq!(seen.header("allow"), allow, "{method} {target}");
        // What rules say of origins counts before a request is sent, and so for its preflight.
        assert_eq!(seen.header("access-control-allow-origin"), Some("*"));
        if status == 204 {
            assert_eq!((seen.header("content-length"), seen.bytes), (None, 0));
        }
    }
    for target in [
        "/data.txt",
        "/missing",
        "/about.html",
        "/old/x",
        "/",
        "/assets/app-C0nd_itX.js",
    ] {
        for fields in [
            &[][..],
            &[("accept-encoding", "br")],
            &[("range", "bytes=1-2")],
        ] {
            let head = three.ask("HEAD", target, fields).await;
            let get = match fields {
                // A range is only of a GET (RFC 9110 14.2).
                [("range", _)] => three.get(target).await,
                fields => three.ask("GET", target, fields).await,
            };
            assert_eq!(head.bytes, 0);
            assert_eq!(
                (head.status, &head.fields),
                (get.status, &get.fields),
                "{target}"
            );
            assert!(get.header("content-length").is_some(), "{target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_judged_in_order_and_carry_the_fields_they_must() {
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let mut three = Three::start().await;
    let whole = three.get("/data.txt").await;
    let tag = whole.header("etag").unwrap().to_owned();
    let (weak, list) = (format!("W/{tag}"), format!("\"a,b\", W/{tag}, \"c\""));
    for (fields, status) in [
        (&[("if-match", &*tag)][..], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", "\"a\", \"b\"")], 412),
        (&[("if-match", &*weak)], 412),
        (
            &[("if-match", &*tag), ("if-unmodified-since", EARLIER)],
            200,
        ),
        (&[("if-unmodified-since", EARLIER)], 412),
        (&[("if-unmodified-since", THEN)], 200),
        (&[("if-unmodified-since", "yesterday")], 200),
        (
            &[("if-unmodified-since", EARLIER), ("if-none-match", &*tag)],
            412,
        ),
        (&[("if-none-match", &*tag)], 304),
        (&[("if-none-match", &*weak)], 304),
        (&[("if-none-match", &*list)], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"other\"")], 200),
        (
            &[("if-none-match", "\"other\""), ("if-modified-since", THEN)],
            200,
        ),
        (&[("if-modified-since", THEN)], 304),
        (&[("if-modified-since", EARLIER)], 200),
        (&[("if-modified-since", "never")], 200),
        (&[("if-none-match", &*tag), ("range", "bytes=0-1")], 304),
        (&[("if-match", "\"other\""), ("range", "bytes=0-1")], 412),
    ] {
        for method in ["GET", "HEAD"] {
            let seen = three.ask(method, "/data.txt", fields).await;
            assert_eq!(seen.status, status, "{method} {fields:?}");
            if status == 304 {
                assert_eq!((seen.header("content-length"), seen.bytes), (None, 0));
                assert_eq!(seen.header("content-type"), None);
            }
            for name in ["etag", "vary", "x-frame-options", "x-content-type-options"] {
                assert_eq!(
                    seen.header(name),
                    whole.header(name),
                    "{name} of {fields:?}"
                );
            }
            let kept = if status == 412 {
                "no-store"
            } else {
                "max-age=5"
            };
            assert_eq!(seen.header("cache-control"), Some(kept));
        }
    }
    // Where the answer would be none, nothing is asked.
    for target in ["/missing", "/old/x"] {
        let seen = three.ask("GET", target, &[("if-none-match", "*")]).await;
        assert!(matches!(seen.status, 404 | 301), "{}", seen.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn ranges_are_of_the_bytes_that_are_sent() {
    let mut three = Three::start().await;
    let long = three.get("/long.txt").await;
    let tag = long.header("etag").unwrap().to_owned();
    let many = vec!["0-0"; 17].join(",");
    let many = format!("bytes={many}");
    let weak = format!("W/{tag}");
    for (fields, status, range) in [
        (&[("range", "bytes=0-0")][..], 206, Some("bytes 0-0/1000")),
        (&[("range", "bytes=990-")], 206, Some("bytes 990-999/1000")),
        (&[("range", "bytes=-10")], 206, Some("bytes 990-999/1000")),
        (&[("range", "bytes=-5000")], 206, Some("bytes 0-999/1000")),
        (&[("range", "bytes=5-4000")], 206, Some("bytes 5-999/1000")),
        // Two that overlap are one.
        (
            &[("range", "bytes=0-9, 5-19")],
            206,
            Some("bytes 0-19/1000"),
        ),
        (&[("range", "bytes=0-1, 500-501")], 206, None),
        (&[("range", "bytes=1000-")], 416, Some("bytes */1000")),
        (&[("range", "bytes=-0")], 416, Some("bytes */1000")),
        (&[("range", &*many)], 200, None),
        (&[("range", "bytes=5-4")], 200, None),
        (&[("range", "bytes=a-b")], 200, None),
        (&[("range", "lines=0-1")], 200, None),
        (
            &[("range", "bytes=0-1"), ("if-range", &*tag)],
            206,
            Some("bytes 0-1/1000"),
        ),
        (&[("range", "bytes=0-1"), ("if-range", &*weak)], 200, None),
        (
            &[
                ("range", "bytes=0-1"),
                ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ],
            206,
            Some("bytes 0-1/1000"),
        ),
        (
            &[
                ("range", "bytes=0-1"),
                ("if-range", "Sun, 06 Nov 1994 08:49:38 GMT"),
            ],
            200,
            None,
        ),
    ] {
        let seen = three.ask("GET", "/long.txt", fields).await;
        assert_eq!(
            (seen.status, seen.header("content-range")),
            (status, range),
            "{fields:?}"
        );
        assert_eq!(seen.header("accept-ranges"), Some("bytes"), "{fields:?}");
        assert_eq!(
            seen.header("content-length"),
            Some(&*seen.bytes.to_string())
        );
    }
    let encoded = [("accept-encoding", "br"), ("range", "bytes=4-")];
    let part = three.ask("GET", "/data.txt", &encoded).await;
    assert_eq!(
        (part.status, part.header("content-range")),
        (206, Some("bytes 4-5/6"))
    );
    assert_eq!(part.header("content-encoding"), Some("br"));
    // Nobody says whether a coding would be that of several parts or of what holds them.
    let several = [("accept-encoding", "br"), ("range", "bytes=0-0, 200-, 5-5")];
    let whole = three.ask("GET", "/big.txt", &several).await;
    assert_eq!(
        (whole.status, whole.header("content-encoding")),
        (200, Some("br"))
    );
    let several = three
        .ask("GET", "/big.txt", &[("range", "bytes=0-0, 200-")])
        .await;
    assert_eq!(
        (several.status, several.header("content-encoding")),
        (206, None)
    );
    let behind = [("accept-encoding", "br"), ("range", "bytes=6-")];
    let none = three.ask("GET", "/data.txt", &behind).await;
    assert_eq!(
        (none.status, none.header("content-range")),
        (416, Some("bytes */6"))
    );
    assert_eq!(
        (none.header("content-encoding"), none.header("vary")),
        (None, Some("accept-encoding"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn codings_are_chosen_by_weight_and_nobody_is_refused() {
    let mut three = Three::start().await;
    for (accepted, encoding) in [
        ("br", Some("br")),
        ("gzip, br;q=0.1", Some("br")),
        ("*", Some("br")),
        ("identity;q=0.5, br;q=0.4", None),
        ("identity;q=0, br", Some("br")),
        ("br;q=0", None),
        ("*;q=0", None),
        ("identity;q=0", None),
        ("gzip", None),
    ] {
        let seen = three
            .ask("GET", "/data.txt", &[("accept-encoding", accepted)])
            .await;
        assert_eq!(
            (seen.status, seen.header("content-encoding")),
            (200, encoding),
            "{accepted}"
        );
        assert_eq!(seen.header("vary"), Some("accept-encoding"));
    }
    let raw = three
        .ask("GET", "/raw.txt", &[("accept-encoding", "br")])
        .await;
    assert_eq!((raw.header("content-encoding"), raw.bytes), (None, 10));
    // A file that lies beside another is never taken for its encoding.
    let beside = three
        .ask("GET", "/plain.txt.br", &[("accept-encoding", "br")])
        .await;
    assert_eq!(
        (beside.status, beside.header("content-encoding")),
        (200, None)
    );
    let none = three
        .ask("GET", "/plain.txt", &[("accept-encoding", "br")])
        .await;
    assert_eq!(none.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_rules_and_old_files_are_the_same_however_they_are_asked_for() {
    let mut three = Three::start().await;
    const YEAR: &str = "public, max-age=31536000, immutable";
    const ASK: &str = "public, max-age=0, must-revalidate";
    for (target, status, location, kept) in [
        ("/", 200, None, ASK),
        ("/assets/app-DiwrgTda.js", 200, None, YEAR),
        ("/assets/app-C0nd_itX.js", 200, None, YEAR),
        ("/assets/app-Gone_itX.js", 404, None, "no-store"),
        ("/missing", 404, None, ASK),
        ("/about.html?a=b&c", 307, Some("/about?a=b&c"), ASK),
        ("/about/", 307, Some("/about"), ASK),
        ("/index", 307, Some("/"), ASK),
        ("/%61bout?x", 307, Some("/about?x"), ASK),
        ("//about", 307, Some("/about"), ASK),
        ("//evil.example/", 404, None, ASK),
        (
            "/old//evil.example?q=1",
            301,
            Some("/new/evil.example?q=1"),
            ASK,
        ),
        ("/a.txt", 302, Some("/gone"), ASK),
        ("/%2e%2e/a.txt", 400, None, "no-store"),
        ("/%zz", 400, None, "no-store"),
        ("/%00", 400, None, "no-store"),
        ("/a%5Cb", 400, None, "no-store"),
    ] {
        let seen = three.get(target).await;
        assert_eq!(
            (seen.status, seen.header("location")),
            (status, location),
            "{target}"
        );
        assert_eq!(seen.header("cache-control"), Some(kept), "{target}");
        assert_eq!(seen.header("x-content-type-options"), Some("nosniff"));
        // A path that no file can have is for no rule; and one block goes without the field.
        let framed = (status != 400 && target != "/a.txt").then_some("DENY");
        assert_eq!(seen.header("x-frame-options"), framed, "{target}");
    }
    // Strict transport security goes with every answer over TLS, and with none without.
    for target in ["/data.txt", "/old/x", "/missing"] {
        let url = format!("https://shop.example{target}");
        let (_, headers, _) = three.http3.ask(Method::GET, &url, HeaderMap::new()).await;
        assert_eq!(
            headers["strict-transport-security"], "max-age=1",
            "{target}"
        );
        let plain = three.served.edge.get(target);
        assert_eq!(plain.header("strict-transport-security"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_a_page_over_a_newer_protocol_is_told_first_what_it_will_need() {
    let mut three = Three::start().await;
    let opens = |target: &str| (target.to_owned(), "navigate");
    for ((target, mode), hinted) in [
        (opens("/hinted"), true),
        (("/hinted".to_owned(), "cors"), false),
        (opens("/data.txt"), false),
        (opens("/missing"), false),
    ] {
        let mode = HeaderValue::from_static(mode);
        let fields = HeaderMap::from_iter([(HeaderName::from_static("sec-fetch-mode"), mode)]);
        let url = format!("http://shop.example{target}");
        let http2 = three.http2.heads(&url, fields.clone()).await;
        let url = format!("https://shop.example{target}");
        let http3 = three.http3.heads(&url, fields).await;
        for heads in [http2, http3] {
            assert_eq!(heads.len(), if hinted { 2 } else { 1 }, "{target}");
            assert!(!heads.last().unwrap().0.is_informational());
            if hinted {
                let (status, headers) = &heads[0];
                assert_eq!(status.as_u16(), 103);
                let links: Vec<_> = headers.get_all("link").iter().collect();
                assert_eq!(
                    links,
                    [
                        "</a.css>; rel=preload; as=style",
                        "<https://cdn.example>; rel=preconnect"
                    ]
                );
                assert_eq!(headers.len(), 2);
            }
        }
    }
    // Old clients of HTTP/1.1 take a 103 for the response.
    let plain = over_http1(
        &mut three.http1,
        "GET",
        "/hinted",
        &[("sec-fetch-mode", "navigate")],
    );
    assert_eq!(plain.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_wants_tls_sends_everybody_there_but_authorities() {
    let served = Served::start();
    crate::static_files::serve_site_over_tls(&served.edge);
    let port = served.edge.handle.tls_addr().unwrap().port();
    let (mut http1, mut http2) = (served.edge.client(), Http2::open(&served.edge).await);
    for (method, target, status) in [
        ("GET", "/", 308),
        ("GET", "/a%20b/?x=1&y", 308),
        ("GET", "//evil.example", 308),
        ("POST", "/data.txt", 308),
        ("GET", "/.well-known/acme-challenge/token", 404),
    ] {
        let first = over_http1(&mut http1, method, target, &[]);
        let url = format!("http://shop.example{target}");
        let named = Method::from_bytes(method.as_bytes()).unwrap();
        let second = seen(http2.ask(named, &url, HeaderMap::new()).await);
        assert_eq!(second, first, "{target}");
        assert_eq!(first.status, status, "{target}");
        let location = (status == 308).then(|| format!("https://shop.example:{port}{target}"));
        assert_eq!(first.header("location"), location.as_deref());
        assert_eq!(first.header("strict-transport-security"), None);
    }
    assert_eq!(served.open().await.get("/data.txt").await.0.as_u16(), 200);
    // An edge without TLS has nowhere to send anybody.
    let plain = Edge::start();
    crate::static_files::serve_site_over_tls(&plain);
    assert_eq!(plain.get("/data.txt").status, 200);
}
