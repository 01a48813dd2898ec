//! Whom a route is for.

use super::*;

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
