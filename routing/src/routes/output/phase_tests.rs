//! What routes of each phase do, one after the other.

use super::*;

#[test]
fn files_are_found_by_path_index_page_and_index() {
    for (target, expected) in [
        ("/", "200 index.html"),
        ("/about", "200 about/index.html"),
        ("/about/", "200 about/index.html"),
        ("/about/index.html", "200 about/index.html"),
        ("/a.txt?x=1", "200 a.txt"),
        ("/a.txt/", "200 a.txt"),
        ("/A.txt", "404"),
        ("/none", "404"),
        ("/s%20p.txt", "200 s p.txt"),
        ("/%61.txt?q", "307 to /a.txt?q"),
        ("//a.txt", "307 to /a.txt"),
    ] {
        assert_eq!(get("[]", target), expected, "{target}");
    }
}

/// Routes, a target, and what it gets.
const PHASED: &[(&str, &str, &str)] = &[
    // Before files.
    (
        r#"[{"src":"/a.txt","dest":"/about"}]"#,
        "/a.txt",
        "200 about/index.html",
    ),
    (r#"[{"src":"/a.txt","status":403}]"#, "/a.txt", "403 a.txt"),
    (r#"[{"src":"/none","status":403}]"#, "/none", "403"),
    (r#"[{"src":"/none","status":204}]"#, "/none", "204"),
    // After the first look.
    (
        r#"[{"handle":"filesystem"},{"src":"/a.txt","dest":"/about"}]"#,
        "/a.txt",
        "200 a.txt",
    ),
    (
        r#"[{"handle":"filesystem"},{"src":"/b","dest":"/about"}]"#,
        "/b",
        "200 about/index.html",
    ),
    (
        r#"[{"handle":"filesystem"},{"src":"/app/.+","status":404},{"src":"/.*","dest":"/"}]"#,
        "/app/y.js",
        "404",
    ),
    (
        r#"[{"handle":"filesystem"},{"src":"/app/.+","status":404},{"src":"/.*","dest":"/"}]"#,
        "/other",
        "200 index.html",
    ),
    // In the order of phases, wherever they are written.
    (
        r#"[{"handle":"resource"},{"src":"/b","dest":"/a.txt"},{"handle":"rewrite"},{"src":"/b","dest":"/about"}]"#,
        "/b",
        "200 about/index.html",
    ),
    (
        r#"[{"handle":"resource"},{"src":"/b","dest":"/a.txt"},{"handle":"filesystem"},{"src":"/b","dest":"/c"}]"#,
        "/b",
        "404",
    ),
    (
        r#"[{"handle":"resource"},{"src":"/c","dest":"/a.txt"},{"handle":"filesystem"},{"src":"/b","dest":"/c"}]"#,
        "/b",
        "200 a.txt",
    ),
    (
        r#"[{"handle":"rewrite"},{"src":"^/blog/(?<slug>[^/]+?)$","dest":"/blog/[slug]?slug=$slug"}]"#,
        "/blog/hi",
        "200 blog/[slug]",
    ),
    // After each look that found nothing, before dynamic routes.
    (
        r#"[{"handle":"rewrite"},{"src":"/x","dest":"/a.txt"},{"handle":"miss"},{"src":"/x","dest":"/about","check":true}]"#,
        "/x",
        "200 about/index.html",
    ),
    (
        r#"[{"handle":"miss"},{"src":"/x","dest":"/nope","check":true}]"#,
        "/x",
        "404",
    ),
    (
        r#"[{"handle":"miss"},{"src":"/x","dest":"/a.txt","check":true,"status":404}]"#,
        "/x",
        "404 a.txt",
    ),
    (
        r#"[{"handle":"miss"},{"src":"/x","headers":{"x-m":"1"},"continue":true},{"handle":"rewrite"},{"src":"/x","dest":"/a.txt"}]"#,
        "/x",
        "200 a.txt x-m=1",
    ),
    // When all else failed.
    (
        r#"[{"handle":"error"},{"src":"/.*","status":500,"dest":"/500.html"},{"src":"/.*","status":404,"dest":"/404.html"}]"#,
        "/x",
        "404 404.html",
    ),
    (
        r#"[{"src":"/x","status":500},{"handle":"error"},{"src":"/.*","status":404,"dest":"/404.html"},{"src":"/.*","dest":"/500.html"}]"#,
        "/x",
        "500 500.html",
    ),
    (
        r#"[{"handle":"error"},{"src":"/de/.*","status":404,"dest":"/nope"}]"#,
        "/de/x",
        "404",
    ),
    // Fields of files.
    (
        r#"[{"handle":"hit"},{"src":"/a.*","headers":{"x-h":"1"},"continue":true}]"#,
        "/a.txt",
        "200 a.txt x-h=1",
    ),
    (
        r#"[{"handle":"hit"},{"src":"/a.*","headers":{"x-h":"1"},"continue":true}]"#,
        "/x",
        "404",
    ),
    (
        r#"[{"handle":"error"},{"src":"/.*","status":404,"dest":"/404.html"},{"handle":"hit"},{"src":"/404.html","headers":{"x-h":"1"},"continue":true}]"#,
        "/x",
        "404 404.html x-h=1",
    ),
];

#[test]
fn each_phase_has_its_turn() {
    for (routes, target, expected) in PHASED.iter().copied() {
        assert_eq!(get(routes, target), expected, "{routes} {target}");
    }
}

#[test]
fn a_route_continues_checks_or_stops() {
    for (routes, target, expected) in [
        (
            r#"[{"src":"/x","dest":"/y","continue":true},{"src":"/y","dest":"/a.txt"}]"#,
            "/x",
            "200 a.txt",
        ),
        (
            r#"[{"src":"/x","dest":"/y"},{"src":"/y","dest":"/a.txt"}]"#,
            "/x",
            "404",
        ),
        (
            r#"[{"src":"/x","dest":"/a.txt","check":true},{"src":"/.*","dest":"/about"}]"#,
            "/x",
            "200 a.txt",
        ),
        (
            r#"[{"src":"/x","dest":"/y","check":true},{"src":"/y","dest":"/about"}]"#,
            "/x",
            "200 about/index.html",
        ),
        (
            r#"[{"src":"/x","dest":"/y","check":true,"status":403},{"src":"/y","dest":"/about"}]"#,
            "/x",
            "403",
        ),
        (
            r#"[{"src":"/x","dest":"/a.txt","check":true,"status":425}]"#,
            "/x",
            "425 a.txt",
        ),
        (
            r#"[{"src":"/x","dest":"/y","check":true},{"handle":"rewrite"},{"src":"/y","dest":"/a.txt"}]"#,
            "/x",
            "200 a.txt",
        ),
        (
            r#"[{"src":"/x","headers":{"x-c":"1"},"dest":"/y","check":true},{"handle":"rewrite"},{"src":"/y","dest":"/a.txt"}]"#,
            "/x",
            "200 a.txt x-c=1",
        ),
        (
            r#"[{"src":"/x","dest":"/y","check":true},{"handle":"miss"},{"src":"/y","dest":"/a.txt","check":true}]"#,
            "/x",
            "200 a.txt",
        ),
        // A route before the one that moved the path is not asked again.
        (
            r#"[{"src":"/y","dest":"/a.txt"},{"src":"/x","dest":"/y","continue":true}]"#,
            "/x",
            "404",
        ),
        // Without end.
        (
            r#"[{"handle":"rewrite"},{"src":"/x(.*)","dest":"/x$1y","check":true}]"#,
            "/x",
            "500",
        ),
        (
            r#"[{"handle":"miss"},{"src":"/x(.*)","dest":"/x$1y","check":true},{"handle":"error"},{"src":"/.*","status":500,"dest":"/500.html"}]"#,
            "/x",
            "500 500.html",
        ),
    ] {
        assert_eq!(get(routes, target), expected, "{routes} {target}");
    }
}

#[test]
fn clients_are_sent_elsewhere() {
    for (routes, target, expected) in [
        (
            r#"[{"src":"/old","status":308,"headers":{"Location":"/new"}}]"#,
            "/old",
            "308 to /new",
        ),
        (
            r#"[{"src":"/old","status":308,"headers":{"Location":"/new"},"continue":true}]"#,
            "/old?a=b",
            "308 to /new?a=b",
        ),
        (
            r#"[{"src":"/old","status":301,"dest":"/new?x=1&a=2#f"}]"#,
            "/old?a=b",
            "301 to /new?x=1&a=b#f",
        ),
        (
            r#"[{"src":"^/(?:(.*))/$","status":308,"headers":{"Location":"/$1"}}]"#,
            "/a/b/",
            "308 to /a/b",
        ),
        (
            r#"[{"src":"/to/(.*)","status":307,"headers":{"Location":"https://other.example/$1"}}]"#,
            "/to/a",
            "307 to https://other.example/a",
        ),
        (
            r#"[{"src":"/s/(.*)","status":307,"headers":{"Location":"/$1"},"has":[{"type":"query","key":"to","value":"(?<to>.*)"}]},{"src":"/q","status":307,"headers":{"Location":"/$to"},"has":[{"type":"query","key":"to","value":"(?<to>.*)"}]}]"#,
            "/q?to=/evil.example",
            "307 to /evil.example?to=/evil.example",
        ),
        // To where it is: the route is skipped.
        (
            r#"[{"src":"/a.txt","status":307,"headers":{"Location":"/a.txt"}}]"#,
            "/a.txt",
            "200 a.txt",
        ),
        (
            r#"[{"src":"/old","status":302,"headers":{"Location":"/n","X-A":"1"}}]"#,
            "/old",
            "302 to /n x-a=1",
        ),
    ] {
        assert_eq!(get(routes, target), expected, "{routes} {target}");
    }
}

#[test]
fn languages_lead_to_their_pages() {
    let routes = r#"[{"src":"/","locale":{"redirect":{"de":"/de","en":"/"},"cookie":"LANG"},"continue":true}]"#;
    for (fields, expected) in [
        (&[][..], "200 index.html"),
        (&[("accept-language", "de")], "307 to /de"),
        (&[("accept-language", "fr, DE;q=0.5")], "307 to /de"),
        (&[("accept-language", "en, de;q=0.5")], "200 index.html"),
        (
            &[("accept-language", "en"), ("cookie", "LANG=de")],
            "307 to /de",
        ),
    ] {
        assert_eq!(get_with(routes, fields, "/"), expected, "{fields:?}");
    }
    let visit = Visit {
        method: "GET",
        host: "shop.example",
        fields: &[],
    };
    let decided = visit_with(&routes_of(&written(routes)), &visit, "/");
    assert!(decided.by_language && decided.by_cookie);
}

#[test]
fn fields_are_given_kept_and_forgotten() {
    for (routes, expected) in [
        (
            r#"[{"src":"/a.txt","headers":{"X-A":"1"},"continue":true},{"src":"/(.*)\\.txt","headers":{"x-a":"$1","x-b":"2"},"continue":true}]"#,
            "200 a.txt x-a=a x-b=2",
        ),
        (
            r#"[{"src":"/a.txt","headers":{"x-a":"1"},"status":404,"continue":true},{"src":"/a.txt","headers":{"x-b":"2"},"override":true,"continue":true}]"#,
            "200 a.txt x-b=2",
        ),
        (
            r#"[{"src":"/a.txt","headers":{"x-a":"1"},"continue":true},{"handle":"hit"},{"src":"/.*","headers":{"x-a":"2","x-b":"2"},"continue":true},{"src":"/.*","headers":{"x-b":"3"},"continue":true}]"#,
            "200 a.txt x-a=1 x-b=3",
        ),
        (
            r#"[{"src":"/a.txt","headers":{"x-a":"1"},"important":true,"continue":true,"transforms":[{"type":"response.headers","op":"set","target":{"key":"X-T"},"args":"t"},{"type":"response.headers","op":"delete","target":{"key":{"pre":"x-a"}}},{"type":"response.headers","op":"append","target":{"key":{"inc":["x-t"]}},"args":["$0","v"]}]}]"#,
            "200 a.txt x-t=t, /a.txt, v",
        ),
    ] {
        assert_eq!(get(routes, "/a.txt"), expected, "{routes}");
    }
}

#[test]
fn other_servers_are_forwarded_to() {
    let config = r#"[{"src":"/api/(.*)","dest":"https://api.example:8443/v1/$1?k=1"},{"src":"/b","dest":"https://api.example:8443"}]"#;
    assert_eq!(get(config, "/api/a?x=2"), "forward 0 /v1/a?k=1&x=2");
    assert_eq!(get(config, "/b"), "forward 0 /");
    let routes = routes_of(&written(config));
    assert_eq!((routes.forward_count(), routes.upstreams.len()), (1, 1));
    let (_, upstream) = routes.forward(0).unwrap();
    assert_eq!(upstream.addresses[0].port, 8443);
}

#[test]
fn a_pattern_that_goes_back_without_end_lets_nothing_through() {
    let routes = r#"[{"src":"^/(?!x)(?:(?=a)(?:a|aa)(?!x))+b$","status":403}]"#;
    let target = format!("/{}bc", "a".repeat(60));
    assert_eq!(get(routes, &target), "500");
}
