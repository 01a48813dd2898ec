//! What a release's files are answered with: representations, conditions, ranges, rules.

use std::sync::Arc;

use bytes::Bytes;
use helix_edge::release::{MemoryFile, Release};
use helix_edge::table::Serving;
use helix_routing::artifact::ContentEncoding;
use helix_routing::id::{Digest, Generation};
use helix_routing::routes::{HttpsPolicy, Routes, SiteConfig};

use crate::support::{Edge, KEPT, LIVE, Response, site};

const OLDEST: &str = "cccccccccccccccccccc";

const REDIRECTS: &str = "/old/* /new/:splat 301\n/app/* /index.html 200\n/a.txt /gone 302!\n";
const HEADERS: &str = "/*
  X-Frame-Options: DENY
  Access-Control-Allow-Origin: *
  Strict-Transport-Security: max-age=1
/data.txt
  Cache-Control: max-age=5
/raw.txt
  Cache-Control: max-age=5, no-transform
/a.txt
  ! X-Frame-Options
/hinted
  Link: </a.css>; rel=preload; as=style, </next>; rel=next
  Link: <https://cdn.example>; rel=preconnect
/assets/*
  CDN-Cache-Control: max-age=60
";

fn file(path: &'static str, bytes: &'static str) -> MemoryFile<'static> {
    MemoryFile {
        path,
        media_type: "text/plain; charset=utf-8",
        bytes: Bytes::from_static(bytes.as_bytes()),
        modified: Some(784_111_777),
        variants: Vec::new(),
    }
}

fn release(id: &str, files: Vec<MemoryFile<'static>>) -> Arc<Release> {
    let routes = Routes::compile(SiteConfig::default(), Some(REDIRECTS), Some(HEADERS)).unwrap();
    let artifact = Digest::from_hex(&"0".repeat(64)).unwrap();
    let release = Release::from_files(id.parse().unwrap(), artifact, files);
    Arc::new(release.with_routes(routes))
}

fn edge() -> Edge {
    let edge = Edge::start();
    serve_site(&edge);
    edge
}

/// Lets `edge` serve a site that wants TLS.
pub(crate) fn serve_site_over_tls(edge: &Edge) {
    let config = SiteConfig {
        https: HttpsPolicy::Redirect,
        ..SiteConfig::default()
    };
    let artifact = Digest::from_hex(&"0".repeat(64)).unwrap();
    let files = [file("data.txt", "0123456789")];
    let release = Release::from_files(LIVE.parse().unwrap(), artifact, files);
    let routes = Routes::compile(config, None, Some(HEADERS)).unwrap();
    let serving = Serving {
        generation: Generation(2),
        live: Some(Arc::new(release.with_routes(routes))),
        kept: Vec::new(),
        counted: Default::default(),
    };
    edge.table.publish(&site(), serving);
}

/// Lets `edge` serve a site with a file of every kind, and two releases before it.
pub(crate) fn serve_site(edge: &Edge) {
    let mut data = file("data.txt", "0123456789");
    data.variants = vec![(ContentEncoding::Br, Bytes::from_static(b"brotli"))];
    let page = file("hinted.html", "hinted");
    let big_text: &'static str = Box::leak("0123456789".repeat(100).into_boxed_str());
    let mut big = file("big.txt", big_text);
    let encoded: &'static str = Box::leak("brotli".repeat(100).into_boxed_str());
    big.variants = vec![(ContentEncoding::Br, Bytes::from_static(encoded.as_bytes()))];
    let mut raw = file("raw.txt", "0123456789");
    raw.variants.clone_from(&data.variants);
    let long: &'static str = Box::leak("0123456789".repeat(100).into_boxed_str());
    let live = release(
        LIVE,
        vec![
            data,
            raw,
            big,
            page,
            file("long.txt", long),
            file("a.txt", "a"),
            file("index.html", "index"),
            file("about.html", "about"),
            file("404.html", "nothing"),
            file("plain.txt.br", "as it is"),
            file("assets/app-DiwrgTda.js", "new"),
        ],
    );
    let before = release(
        KEPT,
        vec![
            file("assets/app-C0nd_itX.js", "old"),
            file("plain.css", "old css"),
            file("left.html", "old page"),
        ],
    );
    let long_before = release(
        OLDEST,
        vec![
            file("assets/app-Ab12_itX.js", "oldest"),
            file("plain.css", "oldest css"),
        ],
    );
    before.set_live_lately(true);
    long_before.set_live_lately(true);
    let serving = Serving {
        generation: Generation(2),
        live: Some(live),
        kept: vec![before, long_before],
        counted: Default::default(),
    };
    edge.table.publish(&site(), serving);
}

fn ask(edge: &Edge, target: &str, fields: &str) -> Response {
    let mut client = edge.client();
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n"
    ));
    client.response()
}

#[test]
fn a_client_gets_the_representation_it_accepts_and_every_one_says_so() {
    let edge = edge();
    let plain = ask(&edge, "/data.txt", "");
    let brotli = ask(&edge, "/data.txt", "Accept-Encoding: gzip, br\r\n");
    assert_eq!(
        (plain.text(), plain.header("content-encoding")),
        ("0123456789", None)
    );
    assert_eq!(
        (brotli.text(), brotli.header("content-encoding")),
        ("brotli", Some("br"))
    );
    assert_ne!(plain.header("etag"), brotli.header("etag"));
    for response in [&plain, &brotli] {
        assert_eq!(response.header("vary"), Some("accept-encoding"));
        assert_eq!(response.header("accept-ranges"), Some("bytes"));
        assert_eq!(
            response.header("last-modified"),
            Some("Sun, 06 Nov 1994 08:49:37 GMT")
        );
        assert_eq!(response.header("cache-control"), Some("max-age=5"));
        assert_eq!(response.header("x-frame-options"), Some("DENY"));
        assert_eq!(response.header("strict-transport-security"), None);
    }
    let etag = brotli.header("etag").unwrap();
    let fields = format!("Accept-Encoding: br\r\nIf-None-Match: {etag}\r\n");
    let same = ask(&edge, "/data.txt", &fields);
    assert_eq!((same.status, same.header("etag")), (304, Some(etag)));
    assert_eq!(same.header("vary"), Some("accept-encoding"));
    assert_eq!(same.header("x-frame-options"), Some("DENY"));
    // A range is of the bytes that are sent.
    let part = ask(
        &edge,
        "/data.txt",
        "Accept-Encoding: br\r\nRange: bytes=0-1\r\n",
    );
    assert_eq!((part.status, part.text()), (206, "br"));
    assert_eq!(part.header("content-range"), Some("bytes 0-1/6"));
}

#[test]
fn ranges_are_answered_one_several_and_none() {
    let edge = edge();
    let one = ask(&edge, "/long.txt", "Range: bytes=-5\r\n");
    assert_eq!((one.status, one.text()), (206, "56789"));
    assert_eq!(one.header("content-range"), Some("bytes 995-999/1000"));
    let several = ask(&edge, "/long.txt", "Range: bytes=0-1,500-501\r\n");
    assert_eq!(several.status, 206);
    let kind = several.header("content-type").unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let expected: String = ["0-1", "500-501"]
        .iter()
        .enumerate()
        .map(|(at, range)| {
            let before = if at == 0 { "" } else { "\r\n" };
            format!("{before}--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {range}/1000\r\n\r\n01")
        })
        .collect();
    assert_eq!(several.text(), format!("{expected}\r\n--{boundary}--\r\n"));
    assert_eq!(several.header("content-range"), None);
    let none = ask(&edge, "/long.txt", "Range: bytes=1000-\r\n");
    assert_eq!(
        (none.status, none.header("content-range")),
        (416, Some("bytes */1000"))
    );
    for fields in [
        "Range: bytes=x\r\n",
        "Range: lines=0-1\r\n",
        "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n",
        "Range: bytes=0-1\r\nRange: bytes=0-1\r\n",
    ] {
        assert_eq!(ask(&edge, "/long.txt", fields).status, 200, "{fields}");
    }
    let failed = ask(
        &edge,
        "/long.txt",
        "If-Match: \"other\"\r\nRange: bytes=0-1\r\n",
    );
    assert_eq!(failed.status, 412);
    assert!(failed.header("etag").is_some());
}

#[test]
fn rules_redirect_rewrite_and_yield_to_files() {
    let edge = edge();
    for (target, status, location, body) in [
        ("/old/x%20y?q=1", 301, Some("/new/x%20y?q=1"), ""),
        ("/old//evil.example", 301, Some("/new/evil.example"), ""),
        ("/a.txt", 302, Some("/gone"), ""),
        ("/app/deep", 200, None, "index"),
        ("/about", 200, None, "about"),
        ("/about.html?x", 307, Some("/about?x"), ""),
        (
            "//evil.example/%2e%2e",
            400,
            None,
            "the path has a dot segment\n",
        ),
    ] {
        let response = ask(&edge, target, "");
        assert_eq!(
            (
                response.status,
                response.header("location"),
                response.text()
            ),
            (status, location, body),
            "{target}"
        );
    }
}

#[test]
fn assets_of_the_release_before_answer_as_its_own_and_never_its_pages() {
    let edge = edge();
    let old = ask(&edge, "/assets/app-C0nd_itX.js", "");
    assert_eq!((old.status, old.text()), (200, "old"));
    assert_eq!(old.header("x-helix-release"), Some(KEPT));
    assert_eq!(
        old.header("cache-control"),
        Some("public, max-age=31536000, immutable")
    );
    assert_eq!(ask(&edge, "/plain.css", "").text(), "old css");
    assert_eq!(ask(&edge, "/left", "").status, 404);
    assert_eq!(ask(&edge, "/left.html", "").status, 404);
    let nowhere = ask(&edge, "/assets/app-Zzzz_itX.js", "");
    assert_eq!(
        (nowhere.status, nowhere.header("cache-control")),
        (404, Some("no-store"))
    );
    assert_eq!(nowhere.header("cdn-cache-control"), None);
    // Of two releases before, each has what the one after it lacks; what both have is the newer one's.
    let oldest = ask(&edge, "/assets/app-Ab12_itX.js", "");
    assert_eq!((oldest.status, oldest.text()), (200, "oldest"));
    assert_eq!(oldest.header("x-helix-release"), Some(OLDEST));
    let kept = Arc::clone(&edge.table.site(&site()).unwrap().serving().kept[0]);
    kept.set_live_lately(false);
    assert_eq!(ask(&edge, "/assets/app-C0nd_itX.js", "").status, 404);
    assert_eq!(ask(&edge, "/plain.css", "").text(), "oldest css");
}
