use super::*;
use crate::routes::SiteConfig;
use alloc::string::ToString;
use proptest::prelude::*;

struct Named(&'static [&'static str]);

impl Files for Named {
    type File = &'static str;

    fn file(&self, path: &str) -> Option<&'static str> {
        self.0.iter().copied().find(|name| *name == path)
    }
}

struct Visitor;

impl Client for Visitor {
    fn host(&self) -> Cow<'_, str> {
        Cow::Borrowed("shop.example")
    }
    fn is_secure(&self) -> bool {
        false
    }
    fn accept_language(&self) -> Option<&str> {
        Some("fr;q=0.3, de-AT, en;q=0.9")
    }
    fn has_cookie(&self, name: &str) -> bool {
        name == "beta"
    }
    fn accepts_html(&self) -> bool {
        true
    }
    fn method(&self) -> &str {
        "GET"
    }
    fn header(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
    fn cookie(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}

const FILES: Named = Named(&[
    "index.html",
    "404.html",
    "about.html",
    "gone.html",
    "app/index.html",
    "real.txt",
]);

fn shown(redirects: &str, url: &str) -> String {
    let routes = Routes::compile(SiteConfig::default(), Some(redirects), None).unwrap();
    shown_by(&routes, url)
}

fn shown_by(routes: &Routes, url: &str) -> String {
    let (raw, query) = url
        .split_once('?')
        .map_or((url, None), |(path, query)| (path, Some(query)));
    let path = decode(raw).unwrap().unwrap();
    let target = Target {
        raw,
        path: &path,
        query,
    };
    match Rules::new(routes)
        .decide(routes, &FILES, target, &Visitor)
        .decision
    {
        Decision::File { file, status } => format!("{status} {file}"),
        Decision::Redirect { status, location } => format!("{status} > {location}"),
        Decision::Forward(at) => format!("forward {at}"),
        Decision::Nothing { status } => status.to_string(),
    }
}

#[test]
fn rules_decide_as_netlify_has_them() {
    for (rules, url, expected) in [
        ("/a /b", "/a", "301 > /b"),
        ("/a /b", "/a/?x=1&y", "301 > /b?x=1&y"),
        ("/a /b?z=1", "/a?x=1", "301 > /b?z=1"),
        ("/a /b#there 302", "/a?x=1", "302 > /b?x=1#there"),
        ("/a /b", "/A", "404 404.html"),
        ("/real.txt /b", "/real.txt", "200 real.txt"),
        ("/real.txt /b 302!", "/real.txt", "302 > /b"),
        // The first rule that fits is the only one, forced or not.
        ("/a /b\n/a /c 302!", "/a", "301 > /b"),
        (
            "/real.txt /b\n/real.txt /c 302!",
            "/real.txt",
            "200 real.txt",
        ),
        (
            "/real.txt /b 302 Cookie=x\n/* /c 302!",
            "/real.txt",
            "302 > /c",
        ),
        ("/a /c 302!\n/a /b", "/a", "302 > /c"),
        ("/* /app/ 200", "/real.txt", "200 real.txt"),
        ("/* /app/ 200", "/deep/link", "200 app/index.html"),
        ("/* /index.html 200", "/deep/link.js", "200 index.html"),
        ("/* /index.html 200", "/_astro/gone.js", "404"),
        ("/* /missing.html 200", "/deep", "404"),
        ("/x /about 200", "/x", "200 about.html"),
        ("/x /gone.html 410", "/x", "410 gone.html"),
        ("/en/* /404.html 404", "/en/x", "404 404.html"),
        ("/b/:y/:s /n/:s/:y", "/b/2024/hi", "301 > /n/hi/2024"),
        ("/old/* /new/:splat", "/old/a/b%20c/", "301 > /new/a/b%20c/"),
        ("/old/* /new/:splat", "/old", "301 > /new/"),
        (
            "/old/* https://new.example/:splat",
            "/old//evil.example",
            "301 > https://new.example/evil.example",
        ),
        ("/go/* /:splat", "/go//evil.example", "301 > /evil.example"),
        (
            "/go/* /:splat",
            "/go/%2F%2Fevil.example",
            "301 > /evil.example",
        ),
        (
            "/go to=:to /:to",
            "/go?to=//evil.example",
            "301 > /%2F%2Fevil.example",
        ),
        (
            "/go to=:to /x/:to",
            "/go?to=a%20b&k=1",
            "301 > /x/a%20b?k=1",
        ),
        ("/go a=1 /one\n/go /two", "/go?b=2&a=1", "301 > /one?b=2"),
        ("/go a=1 /one\n/go /two", "/go?a=2", "301 > /two?a=2"),
        ("/l /de 302 Language=de\n/l /en", "/l", "302 > /de"),
        ("/l /en 302 Language=en\n/l /other", "/l", "301 > /other"),
        ("/l /b 302 Cookie=beta,x", "/l", "302 > /b"),
        ("/l /b 302 Cookie=x", "/l", "404 404.html"),
        ("http://shop.example/h /b\n/h /c", "/h", "301 > /b"),
        ("https://shop.example/h /b\n/h /c", "/h", "301 > /c"),
        ("http://www.example/h /b\n/h /c", "/h", "301 > /c"),
        ("/* /:splat 302 Cookie=beta", "/loop", "404 404.html"),
        ("/x 200", "/x", "404"),
    ] {
        assert_eq!(shown(rules, url), expected, "{rules} on {url}");
    }
}

#[test]
fn without_rules_files_decide_and_the_nearest_page_says_that_there_is_nothing() {
    for (url, expected) in [
        ("/", "200 index.html"),
        ("/index.html?q", "307 > /?q"),
        ("//about", "307 > /about"),
        ("/%61bout", "307 > /about"),
        ("//evil.example/", "404 404.html"),
        ("/app", "307 > /app/"),
        ("/nothing/here", "404 404.html"),
    ] {
        assert_eq!(shown("", url), expected, "{url}");
    }
}

#[test]
fn an_application_page_answers_for_pages_and_never_for_assets() {
    let mut config = SiteConfig::default();
    config.static_files.not_found_handling = NotFoundHandling::SinglePageApplication;
    let routes = Routes::compile(config, None, None).unwrap();
    for (url, expected) in [
        ("/users/7", "200 index.html"),
        ("/users/7.html", "200 index.html"),
        ("/app.js", "404"),
        ("/_astro/x", "404"),
    ] {
        assert_eq!(shown_by(&routes, url), expected, "{url}");
    }
}

#[test]
fn what_a_condition_asked_about_is_told_whatever_it_found() {
    let routes = Routes::compile(
        SiteConfig::default(),
        Some("/l /x 302 Language=xx Cookie=y\n"),
        None,
    )
    .unwrap();
    let path = decode("/l").unwrap().unwrap();
    let target = Target {
        raw: "/l",
        path: &path,
        query: None,
    };
    let decided = Rules::new(&routes).decide(&routes, &FILES, target, &Visitor);
    assert!(decided.by_language && !decided.by_cookie);
    assert_eq!(decided.line, None);
}

#[test]
fn fields_of_all_blocks_are_merged() {
    let text = "/*\n X-A: 1\n Cache-Control: no-store\n/about\n x-a: 2\n cache-control: public\n";
    let routes = Routes::compile(SiteConfig::default(), None, Some(text)).unwrap();
    let rules = Rules::new(&routes);
    let blocks: Vec<_> = rules.headers(&routes, "About").collect();
    assert_eq!(blocks, [0, 1]);
    let mut all = Vec::new();
    for (name, value) in blocks
        .iter()
        .flat_map(|at| routes.headers[*at].fields.clone())
    {
        merge(&mut all, name, value, |a, b| format!("{a}, {b}"));
    }
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        all,
        [field("x-a", "1, 2"), field("cache-control", "public")]
    );
}

proptest! {
    #[test]
    fn no_rule_leads_to_a_host_it_does_not_name(url in "/go(/|%2F|%5C|[a-z.:@%]){0,12}(\\?to=[a-z/%.:]{0,9})?") {
        let routes = Routes::compile(SiteConfig::default(), Some("/go to=:to /:to\n/go/:a/* /:a/:splat\n/go/* /:splat"), None).unwrap();
        let raw = url.split_once('?').map_or(url.as_str(), |(path, _)| path);
        if decode(raw).is_ok() {
            let shown = shown_by(&routes, &url);
            if let Some((_, location)) = shown.split_once(" > ") {
                prop_assert!(location.starts_with('/') && !location.starts_with("//") && !location.contains('\\'), "{}", shown);
            }
        }
    }
}
