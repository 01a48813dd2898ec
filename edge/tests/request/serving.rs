//! What is served, and what comes with it.

use helix_routing::id::Generation;

use crate::support::{BIG, Edge, KEPT, LIVE, get, release, serving, site};

#[test]
fn a_page_comes_with_every_header_that_belongs_to_it() {
    let response = Edge::start().get("/");
    assert_eq!(
        (response.status, response.text()),
        (200, &*format!("index of {LIVE}\n"))
    );
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "public, max-age=0, must-revalidate"),
        ("x-content-type-options", "nosniff"),
        ("x-helix-release", LIVE),
        ("x-helix-region", "fra"),
        ("x-helix-edge", "fra-1"),
        ("x-helix-generation", "1"),
        ("connection", "keep-alive"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name}");
    }
    assert!(
        response
            .header("date")
            .is_some_and(|date| date.ends_with(" GMT"))
    );
    assert!(
        response
            .header("etag")
            .is_some_and(|etag| etag.starts_with('"'))
    );
    assert_eq!(response.header("x-robots-tag"), None);
    assert_eq!(response.header("transfer-encoding"), None);
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let edge = Edge::start();
    let mut client = edge.client();
    for target in ["/", "/a.txt", "/missing", "/dir", "/empty", "/big.bin"] {
        client.send(get(target).replacen("GET", "HEAD", 1));
        let head = client.head();
        client.send(get(target));
        let full = client.response();
        assert_eq!(head.status, full.status);
        for name in [
            "content-length",
            "content-type",
            "etag",
            "cache-control",
            "location",
            "x-helix-release",
        ] {
            assert_eq!(head.header(name), full.header(name), "{name} of {target}");
        }
        assert_eq!(
            full.body.len(),
            full.header("content-length")
                .unwrap()
                .parse::<usize>()
                .unwrap()
        );
    }
}

#[test]
fn a_client_with_the_same_bytes_gets_304_and_the_connection_goes_on() {
    let edge = Edge::start();
    let mut client = edge.client();
    client.send(get("/a.txt"));
    let etag = client.response().header("etag").unwrap().to_owned();
    for condition in [
        etag.clone(),
        format!("W/{etag}"),
        format!("\"other\", {etag}"),
        "*".to_owned(),
    ] {
        client.send(format!(
            "GET /a.txt HTTP/1.1\r\nHost: shop.example\r\nIf-None-Match: {condition}\r\n\r\n"
        ));
        let response = client.response();
        assert_eq!(response.status, 304, "{condition}");
        assert_eq!(response.header("etag"), Some(&*etag));
        assert_eq!(
            response.header("cache-control"),
            Some("public, max-age=0, must-revalidate")
        );
        assert_eq!(response.header("content-length"), None);
        assert_eq!(response.header("x-helix-release"), Some(LIVE));
    }
    client.send("GET /a.txt HTTP/1.1\r\nHost: shop.example\r\nIf-None-Match: \"other\"\r\n\r\n");
    assert_eq!(client.response().status, 200);
}

#[test]
fn folders_redirect_and_what_is_missing_shows_the_releases_own_page() {
    let edge = Edge::start();
    let folder = edge.get("/dir?a=1");
    assert_eq!(
        (folder.status, folder.header("location")),
        (307, Some("/dir/?a=1"))
    );
    assert_eq!(edge.get("/dir/").text(), format!("dir of {LIVE}\n"));
    let missing = edge.get("/no/such/file");
    assert_eq!(
        (missing.status, missing.text()),
        (404, &*format!("missing of {LIVE}\n"))
    );
    assert_eq!(missing.header("etag"), None);
    assert_eq!(missing.header("x-helix-release"), Some(LIVE));
    for target in [
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2fetc/passwd",
        "/../etc/passwd",
        "/%00",
        "/%zz",
    ] {
        assert!(matches!(edge.get(target).status, 400 | 404), "{target}");
    }
    for target in ["/dir%2Findex.html", "//dir", "/dir/index.html"] {
        let moved = edge.get(target);
        assert_eq!(
            (moved.status, moved.header("location")),
            (307, Some("/dir/")),
            "{target}"
        );
    }
}

#[test]
fn methods_that_files_do_not_take_say_which_they_do() {
    let edge = Edge::start();
    let mut client = edge.client();
    for (method, status) in [
        ("OPTIONS", 204),
        ("PUT", 405),
        ("DELETE", 405),
        ("TRACE", 405),
        ("BREW", 501),
    ] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, status, "{method}");
        if status != 501 {
            assert_eq!(response.header("allow"), Some("GET, HEAD, OPTIONS"));
        }
    }
}

#[test]
fn hosts_without_anything_live_say_so() {
    let edge = Edge::start();
    let ask = |host: &str| {
        let mut client = edge.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response()
    };
    let nobody = ask("nobody.example");
    assert_eq!((nobody.status, nobody.header("x-helix-edge")), (404, None));
    let empty = ask("empty.example");
    assert_eq!(
        (empty.status, empty.text()),
        (404, "nothing is live here\n")
    );
    assert_eq!(empty.header("x-helix-generation"), Some("0"));
    assert_eq!(empty.header("x-helix-release"), None);
}

#[test]
fn every_kept_release_answers_under_its_own_name_and_is_unlisted() {
    let edge = Edge::start();
    for id in [LIVE, KEPT] {
        let mut client = edge.client();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: {id}.preview.shop.helix.localhost:8080\r\n\r\n"
        ));
        let response = client.response();
        assert_eq!(
            (response.status, response.text()),
            (200, &*format!("index of {id}\n"))
        );
        assert_eq!(response.header("x-helix-release"), Some(id));
        assert_eq!(response.header("x-robots-tag"), Some("noindex"));
    }
}

#[test]
fn headers_of_ours_that_a_client_sends_change_nothing() {
    let edge = Edge::start();
    let mut client = edge.client();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: shop.example\r\nX-Helix-Explain: 1\r\nX-Helix-Release: {KEPT}\r\nX-Forwarded-Host: nobody.example\r\n\r\n"
    ));
    let response = client.response();
    assert_eq!(
        (response.status, response.header("x-helix-release")),
        (200, Some(LIVE))
    );
}

#[test]
fn a_request_keeps_its_release_while_the_site_moves_on() {
    let edge = Edge::start();
    let mut slow = edge.client();
    slow.send(get("/big.bin"));
    let head = slow.head();
    assert_eq!(head.header("x-helix-release"), Some(LIVE));
    let next = "cccccccccccccccccccc";
    edge.table.publish(&site(), serving(2, next, &[]));
    assert_eq!(edge.get("/").header("x-helix-release"), Some(next));
    assert_eq!(edge.get("/").header("x-helix-generation"), Some("2"));
    slow.rest_of_big_file();
    // The same connection gets the new release with its next request.
    slow.send(get("/"));
    assert_eq!(slow.response().text(), format!("index of {next}\n"));
    assert_eq!(
        edge.table.site(&site()).unwrap().serving().generation,
        Generation(2)
    );
}

#[test]
fn a_large_file_arrives_whole() {
    let edge = Edge::start();
    let response = edge.get("/big.bin");
    assert_eq!(response.body.len(), BIG);
    assert!(
        response
            .body
            .iter()
            .enumerate()
            .all(|(at, byte)| *byte == (at % 251) as u8)
    );
}

#[test]
fn ten_thousand_swaps_never_mix_two_releases() {
    let edge = Edge::start();
    let releases = [release(LIVE), release(KEPT)];
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = edge.client();
                    for _ in 0..2000 {
                        client.send(get("/a.txt"));
                        let response = client.response();
                        assert_eq!(
                            response.text(),
                            format!("text of {}\n", response.header("x-helix-release").unwrap())
                        );
                    }
                })
            })
            .collect();
        let mut generation = 1;
        while !clients
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            generation += 1;
            let live = Some(releases[usize::from(generation % 2 == 0)].clone());
            let next = helix_edge::table::Serving {
                generation: Generation(generation),
                live,
                kept: Vec::new(),
                counted: Default::default(),
            };
            edge.table.publish(&site(), next);
            std::thread::yield_now();
        }
    });
}
