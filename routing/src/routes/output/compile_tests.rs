//! What is refused before anything is live, and what a file is called.

use super::*;

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
