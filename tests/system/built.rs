//! Build Output folders over a real fleet: what their routes say is carried out by every edge, and what cannot be is refused
//! before anything is live.

use helix_tests::client::{Client, Request};
use helix_tests::fleet::Fleet;
use helix_tests::folder::Folder;

const CONFIG: &str = r#"{
  "version": 3,
  "routes": [
    { "src": "^/old/(.*)$", "headers": { "Location": "/new/$1" }, "status": 308 },
    { "src": "/(.*)", "headers": { "X-Built": "yes" }, "continue": true },
    { "src": "^/((?!public/).*)$", "has": [{ "type": "header", "key": "x-secret" }], "status": 403 },
    { "src": "/hook", "methods": ["POST"], "status": 202 },
    { "handle": "filesystem" },
    { "src": "/immutable/.+", "status": 404 },
    { "handle": "rewrite" },
    { "src": "^/blog/(?<slug>[^/]+?)$", "dest": "/blog/[slug]?slug=$slug" },
    { "src": "/api/.*", "dest": "/api" },
    { "handle": "error" },
    { "src": "/.*", "status": 404, "dest": "/404.html" },
    { "handle": "hit" },
    { "src": "/.*\\.txt", "headers": { "Cache-Control": "public, max-age=60" }, "continue": true }
  ],
  "overrides": { "about.html": { "path": "about", "contentType": "text/html; charset=utf-8" } }
}"#;

fn folder() -> Folder {
    Folder::empty()
        .with("package.json", b"{}")
        .with("src/secret.ts", b"not to be deployed")
        .with(".vercel/output/config.json", CONFIG.as_bytes())
        .with(".vercel/output/static/index.html", b"home")
        .with(".vercel/output/static/about.html", b"about us")
        .with(".vercel/output/static/blog/[slug]", b"a post")
        .with(".vercel/output/static/404.html", b"nothing here")
        .with(".vercel/output/static/a.txt", b"text")
}

#[test]
fn routes_of_a_build_output_are_carried_out_by_every_edge() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("b-built", &folder());
    let host = fleet.host("b-built");
    for (_, edge) in fleet.edges() {
        for (target, status, body) in [
            ("/", 200, "home"),
            ("/about", 200, "about us"),
            ("/about.html", 404, "nothing here"),
            ("/blog/hello", 200, "a post"),
            ("/immutable/x.js", 404, "nothing here"),
            ("/package.json", 404, "nothing here"),
            ("/src/secret.ts", 404, "nothing here"),
            ("/config.json", 404, "nothing here"),
        ] {
            let answer = fleet.ask(edge, &host, target);
            let got = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!((answer.status, got.as_str()), (status, body), "{target}");
            assert_eq!(answer.header("x-built"), Some("yes"), "{target}");
        }
        let about = fleet.ask(edge, &host, "/about");
        assert_eq!(
            about.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        let text = fleet.ask(edge, &host, "/a.txt");
        assert_eq!(text.header("cache-control"), Some("public, max-age=60"));
        let moved = fleet.ask(edge, &host, "/old/a/b?q=1");
        assert_eq!(moved.status, 308);
        assert_eq!(moved.header("location"), Some("/new/a/b?q=1"));
        let mut client = Client::of(&edge.http);
        let secret = [("x-secret", "1")];
        for (target, status) in [("/none", 403), ("/public/none", 404)] {
            let asked = Request {
                headers: &secret,
                ..Request::get(&host, target)
            };
            let answer = client.send(asked).unwrap();
            assert_eq!(answer.status, status, "{target}");
            // Where the field was not asked for, nothing depends on it.
            let varies = answer
                .header("vary")
                .is_some_and(|vary| vary.contains("x-secret"));
            assert_eq!(varies, status == 403, "{target}");
        }
        let posted = Request {
            method: "POST",
            ..Request::get(&host, "/hook")
        };
        assert_eq!(client.send(posted).unwrap().status, 202);
    }
}

#[test]
fn a_broken_config_is_named_by_file_line_and_route_and_nothing_is_uploaded() {
    let fleet = Fleet::shared();
    let broken = "{\"version\": 3, \"routes\": [\n{\"src\": \"/a\"},\n{\"src\": \"/(\"},\n{\"src\": \"/\", \"dst\": \"/b\"}]}";
    let folder = folder().with(".vercel/output/config.json", broken.as_bytes());
    fleet
        .deploy_to("b-broken", "production", folder.path())
        .with(1)
        .says(&[
            "nothing was uploaded",
            ".vercel/output/config.json:4: routes[2]: unknown field `dst`",
        ]);
    let broken = broken.replace("dst", "dest");
    let folder = folder.with(".vercel/output/config.json", broken.as_bytes());
    fleet
        .deploy_to("b-broken", "production", folder.path())
        .with(1)
        .says(&[".vercel/output/config.json:3: routes[1].src: is no pattern"]);
    assert!(fleet.api().site("b-broken/production").is_none());
}

#[test]
fn a_site_that_needs_functions_is_refused_but_for_its_static_part() {
    let fleet = Fleet::shared();
    let folder = folder()
        .with(
            ".vercel/output/functions/api.func/.vc-config.json",
            b"{\"runtime\":\"nodejs22.x\",\"handler\":\"index.js\"}",
        )
        .with(".vercel/output/functions/api.func/index.js", b"code");
    fleet
        .deploy_to("b-static", "production", folder.path())
        .with(1)
        .says(&["function `api`", "--static-only"]);
    assert!(fleet.api().site("b-static/production").is_none());
    let path = folder.path().display().to_string();
    let _ = fleet
        .helix()
        .run(["deploy", &path, "--project", "b-static", "--static-only"])
        .with(0);
    let host = fleet.host("b-static");
    fleet.all_answer(&host, "/", 200, Some(b"home"));
    fleet.all_answer(&host, "/api/x", 404, Some(b"nothing here"));
}
