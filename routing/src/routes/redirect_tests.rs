use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Vec<Redirect>, Vec<RouteError>> {
    super::parse(text, &WrittenLines::default())
}

fn one(line: &str) -> Redirect {
    let mut rules = parse(line).unwrap();
    assert_eq!(rules.len(), 1, "{line}");
    rules.remove(0)
}

#[test]
fn lines_are_read_as_netlify_reads_them() {
    for (line, to, status, force) in [
        ("/a /b", "/b", 301, false),
        ("/a /b 302", "/b", 302, false),
        ("/a\t/b   200!  # why", "/b", 200, true),
        ("/* /index.html 200", "/index.html", 200, false),
        (
            "/a https://example.com/x?y=1#z 308",
            "https://example.com/x?y=1#z",
            308,
            false,
        ),
        ("/en/* /en/404.html 404", "/en/404.html", 404, false),
        ("/gone /gone.html 410", "/gone.html", 410, false),
        ("/x/* 200", "/x/:splat", 200, false),
        ("/a/:b/* /c/:b/:splat 303", "/c/:b/:splat", 303, false),
        ("/a /b#frag 307", "/b#frag", 307, false),
        ("/a id=:id x=1 /b/:id", "/b/:id", 301, false),
    ] {
        let rule = one(line);
        assert_eq!(
            (rule.to.as_str(), rule.status, rule.force),
            (to, status, force),
            "{line}"
        );
    }
    assert_eq!(parse("\n# comment\n   \n").unwrap(), []);
    let rule = one("/a id=:id /b/:id 302! Language=en,de-AT Cookie=beta");
    assert_eq!(rule.query[0].value, ":id");
    assert_eq!(
        rule.conditions,
        [
            Condition::Language(["en", "de"].map(ToOwned::to_owned).to_vec()),
            Condition::Cookie(["beta".to_owned()].to_vec()),
        ]
    );
    let rule = one("http://Old.example/* https://new.example/:splat");
    assert_eq!(rule.host.as_deref(), Some("old.example"));
    assert_eq!(rule.scheme.as_deref(), Some("http"));
    assert_eq!(rule.from.as_str(), "/*");
}

#[test]
fn what_cannot_be_executed_is_refused_with_its_line() {
    let lines = [
        "a /b",
        "/a",
        "/a 301",
        "/a /b 418",
        "/a /b 302 Country=de",
        "/a /b 302 Role=admin",
        "/a /b 302 Moon=full",
        "/a /b 302 Language=",
        "/a //evil.example",
        "/a https://:splat/ 301",
        "/:a https://:a.example/ 301",
        "/a https://user@example.com/ 301",
        "/api/* https://api.example/:splat 200",
        "/a /:missing",
        "/a/*/* /b",
        "/a*b /c",
        "/a /b\\c",
        "/a /b?x=1 200",
        "/a /a/",
        "/* /:splat",
        "/a x /b",
        "ftp://a.example/ /b",
        "/.. /b",
    ];
    let errors = parse(&lines.join("\n")).unwrap_err();
    let named: Vec<_> = errors.iter().map(|error| error.line).collect();
    let all: Vec<_> = (1..=lines.len()).collect();
    assert_eq!(named, all, "{errors:#?}");
    assert!(
        errors[12].to_string().contains("helix.toml"),
        "{}",
        errors[12]
    );
    assert_eq!(errors[4].file, "_redirects");
}

#[test]
fn counts_and_lengths_are_bounded() {
    assert!(parse(&"/a /b\n".repeat(MAX_EXACT_REDIRECTS)).is_ok());
    assert_eq!(
        parse(&"/a /b\n".repeat(MAX_EXACT_REDIRECTS + 9))
            .unwrap_err()
            .len(),
        1
    );
    assert_eq!(
        parse(&"/a/* /b\n".repeat(MAX_WILD_REDIRECTS + 9))
            .unwrap_err()
            .len(),
        1
    );
    assert!(parse(&format!("/a /{}", "b".repeat(MAX_LINE_BYTES))).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(/[a*:]{0,4}|https?://[a:]{0,4}/| |[a-z]=:?[a-z]?|[0-9]{3}!?|\\PC{0,6}|\n){0,20}") {
        let _ = parse(&text);
    }

    #[test]
    fn what_is_read_survives_the_release_config(from in "/[a-z:]{1,4}(/\\*)?", status in proptest::sample::select(&[200_u16, 301, 410])) {
        if let Ok(rules) = parse(&format!("{from} /to {status}")) {
            let text = serde_json::to_string(&rules).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<Redirect>>(&text).unwrap(), rules);
        }
    }
}
