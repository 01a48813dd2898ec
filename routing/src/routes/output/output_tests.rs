use alloc::borrow::{Cow, ToOwned};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::Routes;
use super::super::decide::{Client, Decided, Decision, Rules, Target};
use super::super::html::Files;
use super::super::path::decode;
use super::*;

/// A request, as `METHOD host path?query`, and fields.
struct Visit<'a> {
    method: &'a str,
    host: &'a str,
    fields: &'a [(&'a str, &'a str)],
}

impl Client for Visit<'_> {
    fn host(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.host)
    }
    fn is_secure(&self) -> bool {
        true
    }
    fn accept_language(&self) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|(name, _)| *name == "accept-language");
        found.map(|(_, value)| *value)
    }
    fn has_cookie(&self, name: &str) -> bool {
        self.cookie(name).is_some()
    }
    fn accepts_html(&self) -> bool {
        true
    }
    fn method(&self) -> &str {
        self.method
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let found = self.fields.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| Cow::Borrowed(*value))
    }
    fn cookie(&self, name: &str) -> Option<Cow<'_, str>> {
        let cookies = self.fields.iter().filter(|(known, _)| *known == "cookie");
        let mut pairs = cookies.filter_map(|(_, value)| value.split_once('='));
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, value)| Cow::Borrowed(value))
    }
}

struct Site(Vec<&'static str>);

impl Files for &Site {
    type File = &'static str;

    fn file(&self, path: &str) -> Option<Self::File> {
        self.0.iter().copied().find(|file| *file == path)
    }
}

const FILES: [&str; 9] = [
    "index.html",
    "about/index.html",
    "a.txt",
    "404.html",
    "500.html",
    "blog/[slug]",
    "de/index.html",
    "app/x.js",
    "s p.txt",
];

fn written(json: &str) -> OutputConfig {
    let routes: Vec<WrittenRoute> = serde_json::from_str(json).unwrap();
    OutputConfig {
        routes: routes
            .into_iter()
            .enumerate()
            .map(|(at, route)| (at + 1, route))
            .collect(),
        ..OutputConfig::default()
    }
}

fn routes_of(config: &OutputConfig) -> Routes {
    let (output, upstreams) = config.compile(true).unwrap();
    Routes {
        output: Some(Box::new(output)),
        upstreams,
        ..Routes::default()
    }
}

fn visit_with(routes: &Routes, visit: &Visit<'_>, target: &str) -> Decided<&'static str> {
    let (raw, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    let path = decode(raw).unwrap().unwrap();
    let site = Site(FILES.to_vec());
    Rules::new(routes).decide(
        routes,
        &&site,
        Target {
            raw,
            path: &path,
            query,
        },
        visit,
    )
}

fn shown(decided: &Decided<&'static str>) -> String {
    let mut text = match &decided.decision {
        Decision::File { file, status } => format!("{status} {file}"),
        Decision::Redirect { status, location } => format!("{status} to {location}"),
        Decision::Forward(at) => format!("forward {at}"),
        Decision::Nothing { status } => format!("{status}"),
    };
    if let Some(given) = &decided.given {
        for (name, value) in &given.fields {
            text.push_str(&format!(" {name}={value}"));
        }
        if let Some(target) = &given.upstream_target {
            text.push_str(&format!(" {target}"));
        }
    }
    text
}

fn get(routes: &str, target: &str) -> String {
    get_with(routes, &[], target)
}

fn get_with(routes: &str, fields: &[(&str, &str)], target: &str) -> String {
    let visit = Visit {
        method: "GET",
        host: "shop.example",
        fields,
    };
    shown(&visit_with(&routes_of(&written(routes)), &visit, target))
}

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

/// A condition, a target, and whether it holds.
const CONDITIONS: &[(&str, &str, bool)] = &[
    (r#"has":[{"type":"header","key":"X-A"}"#, "/x", true),
    (r#"has":[{"type":"header","key":"x-b"}"#, "/x", false),
    (r#"missing":[{"type":"header","key":"x-b"}"#, "/x", true),
    (r#"missing":[{"type":"header","key":"x-a"}"#, "/x", false),
    (
        r#"has":[{"type":"header","key":"x-a","value":"v1.*"}"#,
        "/x",
        true,
    ),
    (
        r#"has":[{"type":"header","key":"x-a","value":"v1"}"#,
        "/x",
        false,
    ),
    (
        r#"has":[{"type":"header","key":"x-a","value":"(?!v2).*"}"#,
        "/x",
        true,
    ),
    (
        r#"has":[{"type":"cookie","key":"beta","value":"yes"}"#,
        "/x",
        true,
    ),
    (
        r#"has":[{"type":"cookie","key":"beta","value":{"neq":"yes"}}"#,
        "/x",
        false,
    ),
    (
        r#"has":[{"type":"query","key":"q","value":{"inc":["a b",1]}}"#,
        "/x?q=a+b",
        true,
    ),
    (
        r#"has":[{"type":"query","key":"q","value":{"inc":["a b",1]}}"#,
        "/x?q=1",
        true,
    ),
    (
        r#"has":[{"type":"query","key":"q","value":{"ninc":["a"]}}"#,
        "/x?q=a",
        false,
    ),
    (r#"has":[{"type":"query","key":"q"}"#, "/x?q", true),
    (r#"has":[{"type":"query","key":"q"}"#, "/x", false),
    (
        r#"has":[{"type":"host","value":"shop\\.example"}"#,
        "/x",
        true,
    ),
    (
        r#"has":[{"type":"host","value":{"suf":".other"}}"#,
        "/x",
        false,
    ),
    (
        r#"has":[{"type":"header","key":"x-n","value":{"gt":6,"lte":7}}"#,
        "/x",
        true,
    ),
    (
        r#"has":[{"type":"header","key":"x-n","value":{"gte":8}}"#,
        "/x",
        false,
    ),
    (
        r#"has":[{"type":"header","key":"x-a","value":{"lt":8}}"#,
        "/x",
        false,
    ),
    (
        r#"has":[{"type":"header","key":"x-a","value":{"pre":"v","suf":"2","re":"v.*"}}"#,
        "/x",
        true,
    ),
    (
        r#"has":[{"type":"header","key":"x-a"},{"type":"cookie","key":"none"}"#,
        "/x",
        false,
    ),
];

#[test]
fn conditions_hold_of_hosts_fields_cookies_and_parameters() {
    let when = |condition: &str| format!(r#"[{{"src":"/x","{condition}],"dest":"/a.txt"}}]"#);
    let fields = [("x-a", "v1.2"), ("cookie", "beta=yes"), ("x-n", "7")];
    for (condition, target, holds) in CONDITIONS.iter().copied() {
        let expected = if holds { "200 a.txt" } else { "404" };
        assert_eq!(
            get_with(&when(condition), &fields, target),
            expected,
            "{condition}"
        );
    }
    let visit = Visit {
        method: "GET",
        host: "shop.example",
        fields: &[],
    };
    let routes = routes_of(&written(&when(r#"has":[{"type":"header","key":"X-A"}"#)));
    let given = visit_with(&routes, &visit, "/x").given.unwrap();
    assert_eq!(given.asked, ["x-a"]);
}

#[test]
fn methods_capitals_hosts_and_names_count() {
    let post = Visit {
        method: "POST",
        host: "de.example",
        fields: &[],
    };
    let routes = routes_of(&written(
        r#"[{"src":"/x","methods":["POST"],"status":201}]"#,
    ));
    assert_eq!(shown(&visit_with(&routes, &post, "/x")), "201");
    assert_eq!(
        get(r#"[{"src":"/x","methods":["POST"],"status":201}]"#, "/x"),
        "404"
    );
    assert_eq!(get(r#"[{"src":"/X","dest":"/a.txt"}]"#, "/x"), "200 a.txt");
    assert_eq!(
        get(
            r#"[{"src":"/X","dest":"/a.txt","caseSensitive":true}]"#,
            "/x"
        ),
        "404"
    );
    let mut config = written(r#"[{"src":"/x","dest":"/$wildcard"}]"#);
    config.wildcard = Vec::from([WrittenWildcard {
        domain: "DE.example".to_owned(),
        value: "de".to_owned(),
    }]);
    assert_eq!(
        shown(&visit_with(&routes_of(&config), &post, "/x")),
        "200 de/index.html"
    );
    let host = r#"[{"src":"/x","has":[{"type":"host","value":"(?<sub>[^.]+)\\.example"}],"dest":"/$sub"}]"#;
    assert_eq!(
        shown(&visit_with(&routes_of(&written(host)), &post, "/x")),
        "200 de/index.html"
    );
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
fn functions_answer_as_if_they_were_not_there() {
    let mut config = written(
        r#"[{"handle":"rewrite"},{"src":"/api/.*","dest":"/api"},{"handle":"error"},{"src":"/.*","status":404,"dest":"/404.html"}]"#,
    );
    config.functions = BTreeMap::from([("api".to_owned(), Function::default())]);
    let visit = Visit {
        method: "GET",
        host: "shop.example",
        fields: &[],
    };
    let decided = visit_with(&routes_of(&config), &visit, "/api/x");
    assert_eq!(shown(&decided), "404 404.html");
    assert!(decided.reason.contains("function"));
    let problems = config.compile(false).unwrap_err();
    assert!(
        problems[0].to_string().contains("function `api`"),
        "{problems:?}"
    );
}

#[test]
fn a_pattern_that_goes_back_without_end_lets_nothing_through() {
    let routes = r#"[{"src":"^/(?!x)(?:(?=a)(?:a|aa)(?!x))+b$","status":403}]"#;
    let target = format!("/{}bc", "a".repeat(60));
    assert_eq!(get(routes, &target), "500");
}

/// Routes, and how what they are told begins.
const REFUSED: &[(&str, &str)] = &[
    (
        r#"[{"src":"/a"},{"src":"/("}]"#,
        "routes[1].src: is no pattern",
    ),
    (r#"[{"dest":"/a"}]"#, "routes[0].src: is missing"),
    (r#"[{"handle":"files"}]"#, "routes[0].handle: `files`"),
    (
        r#"[{"handle":"hit","src":"/"}]"#,
        "routes[0].handle: stands alone",
    ),
    (
        r#"[{"handle":"hit"},{"handle":"miss"},{"handle":"hit"}]"#,
        "routes[2].handle: there is another",
    ),
    (
        r#"[{"handle":"hit"},{"src":"/","dest":"/a","continue":true}]"#,
        "routes[1].dest:",
    ),
    (
        r#"[{"handle":"hit"},{"src":"/","status":200,"continue":true}]"#,
        "routes[1].status:",
    ),
    (r#"[{"handle":"hit"},{"src":"/"}]"#, "routes[1].continue:"),
    (
        r#"[{"handle":"miss"},{"src":"/","dest":"/a"}]"#,
        "routes[1].check:",
    ),
    (
        r#"[{"handle":"miss"},{"src":"/","status":404}]"#,
        "routes[1].continue:",
    ),
    (r#"[{"src":"/","status":304}]"#, "routes[0].status: 304"),
    (r#"[{"src":"/","status":308}]"#, "routes[0].status: sends"),
    (
        r#"[{"src":"/","headers":{"location":"/a"}}]"#,
        "routes[0].status: a `Location`",
    ),
    (
        r#"[{"src":"/","headers":{"content-length":"1"},"continue":true}]"#,
        "routes[0].headers: `content-length`",
    ),
    (
        r#"[{"src":"/","dest":"//evil.example"}]"#,
        "routes[0].dest: starts with",
    ),
    (
        r#"[{"src":"/","dest":"https://$1.example/"}]"#,
        "routes[0].dest: leads to a server",
    ),
    (
        r#"[{"src":"/(.*)","status":308,"dest":"https://$1.example/"}]"#,
        "routes[0].dest: `$1` in its host",
    ),
    (
        r#"[{"src":"/","dest":"https://a.example/","continue":true}]"#,
        "routes[0].dest: leads to another server",
    ),
    (r#"[{"src":"/","methods":["get"]}]"#, "routes[0].methods:"),
    (
        r#"[{"src":"/","has":[{"type":"cookie"}]}]"#,
        "routes[0].has[0]: key: is missing",
    ),
    (
        r#"[{"src":"/","has":[{"type":"host"}]}]"#,
        "routes[0].has[0]: value: is missing",
    ),
    (
        r#"[{"src":"/","missing":[{"type":"ip","key":"a"}]}]"#,
        "routes[0].missing[0]: type: `ip`",
    ),
    (
        r#"[{"src":"/","has":[{"type":"query","key":"a","value":"("}]}]"#,
        "routes[0].has[0]: is no pattern",
    ),
    (
        r#"[{"src":"/","locale":{"redirect":{"de":"//x"}}}]"#,
        "routes[0].locale.redirect",
    ),
    (
        r#"[{"src":"/","mitigate":{"action":"challenge"}}]"#,
        "routes[0].mitigate.action",
    ),
    (
        r#"[{"src":"/","transforms":[{"type":"x","op":"set","target":{"key":"a"},"args":"b"}]}]"#,
        "routes[0].transforms[0].type",
    ),
    (
        r#"[{"src":"/","transforms":[{"type":"response.headers","op":"set","target":{"key":{"pre":"a"}},"args":"b"}]}]"#,
        "routes[0].transforms[0].target.key",
    ),
    (
        r#"[{"src":"/","middlewarePath":"_mw","continue":true}]"#,
        "the site needs middleware `_mw`",
    ),
    (
        r#"[{"src":"/","transforms":[{"type":"request.path","op":"set","args":"/a"}]}]"#,
        "the site needs transforms of `request.path`",
    ),
];

#[test]
fn what_no_edge_can_carry_out_is_refused_by_its_number_and_key() {
    for (routes, expected) in REFUSED.iter().copied() {
        let problems = written(routes).compile(false).unwrap_err();
        assert!(
            problems[0].to_string().starts_with(expected),
            "{routes}: {}",
            problems[0]
        );
    }
    assert!(
        written(r#"[{"src":"/","mitigate":{"action":"deny"}}]"#)
            .compile(false)
            .is_ok()
    );
    let many = written(&format!(
        "[{}]",
        [r#"{"src":"/a"}"#; MAX_ROUTES + 1].join(",")
    ));
    assert_eq!(many.compile(false).unwrap_err().len(), 1);
}

#[test]
fn overrides_move_files_and_say_their_type() {
    let moved = |path: &str| FileOverride {
        path: Some(path.to_owned()),
        content_type: Some("text/html".to_owned()),
        mode: None,
    };
    for (to, expected) in [
        ("about", Some("about")),
        ("/about", Some("about")),
        ("about/", None),
        ("", Some("index")),
    ] {
        let given = moved(to);
        if to.is_empty() {
            assert_eq!(
                check_file_override("a.html", Some(&given)).unwrap().0,
                Some("index")
            );
            continue;
        }
        assert_eq!(
            check_file_override("a.html", Some(&given)).unwrap(),
            (expected, Some("text/html"))
        );
    }
    assert!(check_file_override("a.html", Some(&moved("../a"))).is_err());
    assert_eq!(
        check_file_override("a.html", None).unwrap(),
        (Some("a.html"), None)
    );
}
