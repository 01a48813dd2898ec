use std::sync::Arc;

use bytes::Bytes;
use helix_framing::Fields;
use helix_routing::id::{Digest, Generation, SiteId};
use helix_routing::routes::Routes;
use helix_routing::routes::output::{OutputConfig, WrittenRoute};
use http::{HeaderMap, Uri};

use super::*;
use crate::answer::{Answer, Answered, answer};
use crate::release::Release;
use crate::table::{Serving, Table};
use crate::visitor::{Keys, draw};

const FLEET: &str = "the half that all edges of the fleet have";
const OWN: &str = "the half that is in the record";
const HOST: &str = "pr-1.preview.shop.helix.localhost";
const OPEN: &str = "shop.helix.localhost";
const RELEASE: &str = "aaaaaaaaaaaaaaaaaaaa";

fn protection() -> Box<Protection> {
    Box::new(Protection {
        secret: OWN.to_owned(),
        password: None,
        exempt: vec!["/hooks/*".parse().unwrap(), "/dir".parse().unwrap()],
    })
}

fn release() -> Arc<Release> {
    let digest = Digest::from_hex(&"0".repeat(64)).unwrap();
    let files = ["index.html", "a.txt", "hooks/a.txt", "dir/index.html"];
    let files = files.map(|path| (path, "text/html", Bytes::from(path)));
    Arc::new(Release::from_memory(
        RELEASE.parse().unwrap(),
        digest,
        files,
    ))
}

fn table(has_key: bool) -> Table {
    let table = Table::new("helix.localhost".parse().unwrap());
    if has_key {
        table.visitors().sign_with(draw::Key::new(FLEET.as_bytes()));
    }
    for (host, site, protection) in [
        (HOST, "shop/preview/1", Some(protection())),
        (OPEN, "shop/production", None),
    ] {
        let site: SiteId = site.parse().unwrap();
        table.set_host(&host.parse().unwrap(), Some(&site));
        let mut serving = Serving::new(Generation(3), Some(release()), Vec::new());
        serving.protection = protection;
        table.publish(&site, serving);
    }
    table
}

fn now() -> u64 {
    clock::now().as_millis() / 1000
}

fn pass(kind: Kind, site: &str, life: u64) -> String {
    Key::of_secret(FLEET, OWN).write(kind, site, now() + life)
}

fn good(kind: Kind) -> String {
    pass(kind, "shop/preview/1", 600)
}

fn ask_of(
    table: &Table,
    method: Method,
    host: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Answered {
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    let mut fields = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        fields.append(name, HeaderValue::from_str(value).unwrap());
    }
    let head = RequestHead {
        method: &method,
        authority: host,
        path,
        query,
        fields: Fields::Map(&fields),
        secure: false,
    };
    answer(table, &head)
}

fn ask(target: &str, headers: &[(&str, &str)]) -> Answered {
    ask_of(&table(true), Method::GET, HOST, target, headers)
}

fn status(answered: &Answered) -> u16 {
    answered.answer.status().as_u16()
}

fn entered(answered: &Answered) -> (String, String) {
    let Answer::Guarded(Guarded::Enter(response)) = &answered.answer else {
        unreachable!("nobody is let in: {:?}", answered.answer);
    };
    let value = |name: HeaderName| {
        let found = response.headers.iter().find(|(held, _)| *held == name);
        found
            .map(|(_, value)| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    (value(LOCATION), value(SET_COOKIE))
}

/// It is, by the site's host and by the release's own.
fn is_refused(method: &Method, target: &str, headers: &[(&str, &str)]) {
    for host in [HOST, "aaaaaaaaaaaaaaaaaaaa.preview.shop.helix.localhost"] {
        let answered = ask_of(&table(true), method.clone(), host, target, headers);
        assert_eq!(status(&answered), 401, "{method} {target} {headers:?}");
        let Answer::Guarded(Guarded::Refuse(response)) = &answered.answer else {
            unreachable!("who is refused gets no {:?}", answered.answer);
        };
        assert!(response.headers.contains(&(CACHE_CONTROL, NO_STORE)));
    }
}

#[test]
fn who_shows_nothing_gets_nothing_of_the_site() {
    for (method, target) in [
        (Method::GET, "/"),
        (Method::GET, "/a.txt"),
        (Method::GET, "/missing"),
        (Method::GET, "/.helix/access"),
        (Method::HEAD, "/"),
        (Method::POST, "/"),
        (Method::OPTIONS, "*"),
        (Method::GET, "/dir/"),
        (Method::GET, "/hooks/../a.txt"),
        (Method::GET, "/hooks/%2e%2e/a.txt"),
        (Method::GET, "/.well-known/acme-challenge/../../a.txt"),
        (Method::GET, "/.well-known/acme-challenge/"),
    ] {
        is_refused(&method, target, &[]);
    }
}

#[test]
fn what_is_shown_has_to_be_good_here_and_now() {
    let (link, session) = (good(Kind::Link), good(Kind::Session));
    let elsewhere = pass(Kind::Session, "shop/preview/11", 600);
    let over = pass(Kind::Session, "shop/preview/1", 0);
    for (name, value) in [
        ("cookie", "__helix_access=".to_owned()),
        ("cookie", format!("__helix_access={link}")),
        ("cookie", format!("__helix_access={elsewhere}")),
        ("cookie", format!("__helix_access={over}")),
        ("cookie", format!("__helix_accesss={session}")),
        ("cookie", format!("__helix_draw={session}")),
        ("x-helix-access", session.clone()),
        ("authorization", format!("Bearer {link}")),
    ] {
        is_refused(&Method::GET, "/", &[(name, &value)]);
    }
    is_refused(&Method::POST, &format!("/?_helix_access={link}"), &[]);
    for query in [
        format!("_helix_access={session}"),
        format!("x_helix_access={link}"),
        format!("_helix_access={}", "x".repeat(5000)),
    ] {
        is_refused(&Method::GET, &format!("/?{query}"), &[]);
    }
}

#[test]
fn passes_are_good_through_a_change_of_the_fleets_key() {
    let other = "f".repeat(64);
    let signed = Key::of_secret(&other, OWN).write(Kind::Link, "shop/preview/1", now() + 600);
    let table = table(true);
    let asked = |table: &Table| {
        let fields = [("x-helix-access", signed.as_str())];
        status(&ask_of(table, Method::GET, HOST, "/a.txt", &fields))
    };
    assert_eq!(asked(&table), 401, "nobody knows it");
    table.visitors().use_keys(Keys {
        signs: draw::Key::new(FLEET.as_bytes()),
        also: vec![draw::Key::new(other.as_bytes())],
    });
    assert_eq!(asked(&table), 200);
}

#[test]
fn passes_and_exempt_paths_are_let_in() {
    let (link, session) = (good(Kind::Link), good(Kind::Session));
    for (target, headers, expected) in [
        ("/a.txt", vec![("x-helix-access", link.clone())], 200),
        (
            "/a.txt",
            vec![("cookie", format!("__helix_access={session}"))],
            200,
        ),
        (
            "/a.txt",
            vec![(
                "cookie",
                format!("a=b; __helix_access=x; __helix_access={session}"),
            )],
            200,
        ),
        ("/missing", vec![("x-helix-access", link)], 404),
        ("/hooks/a.txt", vec![], 200),
        ("/hooks/missing", vec![], 404),
        ("/dir", vec![], 307),
        ("/.well-known/acme-challenge/abc-DEF_1", vec![], 404),
    ] {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(
            status(&ask(target, &headers)),
            expected,
            "{target} {headers:?}"
        );
    }
    let far = "__helix_access=x; ".repeat(MAX_COOKIES);
    let cookie = format!("{far}__helix_access={session}");
    assert_eq!(
        status(&ask("/", &[("cookie", &cookie)])),
        401,
        "so many are not looked at"
    );
    assert_eq!(
        status(&ask_of(&table(true), Method::GET, OPEN, "/a.txt", &[])),
        200
    );
}

/// Routes that write what they find in a request into the target that an upstream gets.
const FINDERS: &str = r#"[
    {"src": "/api/(.*)", "dest": "https://api.example/v1/$1"},
    {"src": "/query", "has": [{"type": "query", "key": "_helix_access", "value": "(?<found>.+)"}], "dest": "https://api.example/$found"},
    {"src": "/cookie", "has": [{"type": "cookie", "key": "__helix_access", "value": "(?<found>.+)"}], "dest": "https://api.example/$found"},
    {"src": "/cookies", "has": [{"type": "header", "key": "cookie", "value": "(?<found>.+)"}], "dest": "https://api.example/$found"},
    {"src": "/header", "has": [{"type": "header", "key": "x-helix-access", "value": "(?<found>.+)"}], "dest": "https://api.example/$found"},
    {"src": "/away", "status": 307, "headers": {"Location": "https://elsewhere.example/"}}
]"#;

/// What a preview with those routes answers.
fn ask_finders(method: Method, target: &str, headers: &[(&str, &str)]) -> Answer {
    let written: Vec<WrittenRoute> = serde_json::from_str(FINDERS).unwrap();
    let config = OutputConfig {
        routes: written.into_iter().enumerate().collect(),
        ..OutputConfig::default()
    };
    let (output, upstreams) = config.compile(true).unwrap();
    let routes = Routes {
        output: Some(Box::new(output)),
        upstreams,
        ..Routes::default()
    };
    let made = Release::from_memory(
        RELEASE.parse().unwrap(),
        Digest::from_hex(&"0".repeat(64)).unwrap(),
        [("a.txt", "text/plain", Bytes::from("a"))],
    );
    let table = table(true);
    let live = Arc::new(made.with_routes(routes));
    let mut serving = Serving::new(Generation(4), Some(live), Vec::new());
    serving.protection = Some(protection());
    table.publish(&"shop/preview/1".parse().unwrap(), serving);
    ask_of(&table, method, HOST, target, headers).answer
}

#[test]
fn what_lets_in_is_seen_by_no_rule_of_the_release() {
    let (link, session) = (good(Kind::Link), good(Kind::Session));
    let cookie = format!("a=b; __helix_access={session}");
    let shown = [("cookie", &*cookie), ("x-helix-access", &*link)];
    for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
        for (target, expected) in [
            ("/api/a", Some("/v1/a")),
            ("/api/a?_helix_access=x", Some("/v1/a")),
            ("/api/a?b=c&_helix_access=x&d", Some("/v1/a?b=c&d")),
            ("/query?_helix_access=x", None),
            ("/cookie", None),
            ("/cookies", Some("/a%3Db")),
            ("/header", None),
        ] {
            // Another site's pass, or one that is over: a good one is taken out of a page's address before.
            let answer = ask_finders(method.clone(), target, &shown);
            let sent = match &answer {
                Answer::Forward(forward) => forward.target.as_deref(),
                _ => None,
            };
            assert_eq!(sent, expected, "{method} {target}: {answer:?}");
        }
        let away = ask_finders(method.clone(), "/away?_helix_access=x", &shown);
        let told = format!("{:?}", away.headers());
        assert!(
            told.contains("elsewhere.example") && !told.contains("_helix_access"),
            "{told}"
        );
    }
}

#[test]
fn a_link_becomes_a_session_that_ends_no_later_than_it() {
    let link = good(Kind::Link);
    for (target, expected) in [
        (format!("/?_helix_access={link}"), "/"),
        (format!("/a.txt?b=c&_helix_access={link}&d"), "/a.txt?b=c&d"),
        (format!("/a?_helix_access={link}&_helix_access=x"), "/a"),
        (format!("/.helix/access?_helix_access={link}"), "/"),
        (format!("//evil.example/?_helix_access={link}"), "/"),
        (format!("/\\evil.example/?_helix_access={link}"), "/"),
    ] {
        let (location, cookie) = entered(&ask(&target, &[]));
        assert_eq!(location, expected, "{target}");
        let life = cookie
            .split("Max-Age=")
            .nth(1)
            .and_then(|rest| rest.split(';').next());
        assert!(life.unwrap().parse::<u64>().unwrap() <= 600, "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        assert_eq!(status(&ask("/", &[("cookie", pair)])), 200);
    }
    let year = pass(Kind::Link, "shop/preview/1", 365 * 24 * 3600);
    let (_, cookie) = entered(&ask(&format!("/?_helix_access={year}"), &[]));
    assert!(
        cookie.ends_with("; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
}

#[test]
fn an_edge_without_the_fleets_key_lets_nobody_in() {
    let link = good(Kind::Link);
    let answered = ask_of(
        &table(false),
        Method::GET,
        HOST,
        "/",
        &[("x-helix-access", &link)],
    );
    assert_eq!(status(&answered), 503);
    let open = ask_of(&table(false), Method::GET, HOST, "/hooks/a.txt", &[]);
    assert_eq!(status(&open), 200);
}

#[test]
fn the_page_keeps_where_one_wanted_to_go_and_nothing_of_it_is_code() {
    let html = [("accept", "text/html,*/*")];
    let body = |target: &str| {
        let mut with_password = protection();
        with_password.password = Some(helix_service::password::keep("x"));
        let table = table(true);
        let mut serving = Serving::new(Generation(4), Some(release()), Vec::new());
        serving.protection = Some(with_password);
        table.publish(&"shop/preview/1".parse().unwrap(), serving);
        let answered = ask_of(&table, Method::GET, HOST, target, &html);
        let Answer::Guarded(Guarded::Refuse(response)) = answered.answer else {
            unreachable!("{target} is let in");
        };
        response.body.unwrap().into_owned()
    };
    assert!(body("/a?b=c&_helix_access=x").contains("name=\"to\" value=\"/a?b=c\""));
    assert!(body("/\"><script>").contains("value=\"/&#34;&#62;&#60;script&#62;\""));
    assert!(body("//evil.example").contains("name=\"to\" value=\"/\""));
    let link_only = ask("/", &html);
    let Answer::Guarded(Guarded::Refuse(response)) = link_only.answer else {
        unreachable!("it is let in");
    };
    assert!(
        !response.body.unwrap().contains("<form"),
        "there is no password"
    );
}

#[test]
fn what_lets_in_is_seen_by_no_upstream_and_no_log() {
    let request = |target: &str, cookies: &[&str]| {
        let mut head = http::Request::new(()).into_parts().0;
        head.uri = target.parse::<Uri>().unwrap();
        for cookie in cookies {
            head.headers
                .append(COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        Request {
            head,
            peer: ([192, 0, 2, 7], 1).into(),
            secure: true,
        }
    };
    for (cookies, expected) in [
        (&["a=b; __helix_access=x; c=d"][..], &["a=b; c=d"][..]),
        (&["__helix_access=x"], &[]),
        (&["__helix_access=x;__helix_access=y", "e=f"], &["e=f"]),
        (&["__helix_accessible=x; a"], &["__helix_accessible=x; a"]),
        (&["__helix_access"], &[]),
    ] {
        let stripped = link::stripped(&request("/a", cookies));
        let left: Vec<_> = stripped.head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(left, expected, "{cookies:?}");
    }
    for (target, expected, line) in [
        ("/a?b=c&_helix_access=x", "/a?b=c", "/a?b=c&_helix_access=-"),
        (
            "https://h.example/a?_helix_access=x",
            "https://h.example/a",
            "https://h.example/a?_helix_access=-",
        ),
        ("/a?b", "/a?b", "/a?b"),
        ("/a", "/a", "/a"),
    ] {
        let stripped = link::stripped(&request(target, &[]));
        assert_eq!(stripped.head.uri.to_string(), expected);
        assert_eq!(logged(target), line);
    }
}

#[test]
fn only_places_of_the_same_host_are_gone_back_to() {
    for (target, expected) in [
        ("/", true),
        ("/a?b=//c", true),
        ("/a//b", true),
        ("", false),
        ("a", false),
        ("//evil.example", false),
        ("/\\evil.example", false),
        ("/a\\b", false),
        ("/\t/evil.example", false),
        ("/\n/evil.example", false),
        ("/a b", false),
        ("/\u{e9}", false),
        ("https://evil.example", false),
        ("javascript:x", false),
        (&format!("/{}", "x".repeat(5000)), false),
    ] {
        assert_eq!(link::is_local(target), expected, "{target:?}");
    }
}
