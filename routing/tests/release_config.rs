//! Artifacts outlive binaries: a release's config of each version is read as it always was, and written so.
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use helix_routing::artifact::{OUTPUT_VERSION, ReleaseConfig, belief};
use helix_routing::routes::output::{OutputConfig, WrittenRoute};
use helix_routing::routes::{Routes, SiteConfig};

/// With what folders had before there were Build Outputs.
fn first() -> ReleaseConfig {
    let redirects = "/a/* /b/:splat 302! Language=de\nhttp://shop.example/x q=:q /y/:q\n";
    let headers = "/*\n  X-Frame-Options: DENY\n/e/*\n  ! X-Frame-Options\n";
    config(
        1,
        Routes::compile(SiteConfig::default(), Some(redirects), Some(headers)).unwrap(),
    )
}

/// With every step, destination, condition and phase.
fn second() -> ReleaseConfig {
    let written = r#"[
        {"src":"/","locale":{"redirect":{"de":"/de"},"cookie":"L"},"continue":true},
        {"src":"^/old/(?<rest>.*)$","headers":{"Location":"/new/$rest"},"status":308,"methods":["GET"],"caseSensitive":true},
        {"src":"/(.*)","override":true,"headers":{"X-A":"$1"},"continue":true,
         "has":[{"type":"host","value":"shop\\.example"},{"type":"header","key":"X-B"},{"type":"cookie","key":"c","value":{"eq":"1","neq":2}}],
         "missing":[{"type":"query","key":"q","value":{"inc":["a"],"ninc":["b"],"pre":"c","suf":"d","re":"e","gt":1,"gte":2,"lt":3,"lte":4}}]},
        {"src":"/api/(.*)","dest":"https://api.example/$1"},
        {"handle":"filesystem"},{"src":"/app/.+","status":404},
        {"handle":"rewrite"},{"src":"/b/(.*)","dest":"/b?s=$1","check":true},
        {"handle":"resource"},{"src":"/.*","dest":"/"},
        {"handle":"miss"},{"src":"/m/(.*)","dest":"/$1","check":true},
        {"handle":"hit"},{"src":"/.*","headers":{"x-h":"1"},"continue":true,
         "transforms":[{"type":"response.headers","op":"append","target":{"key":"x-h"},"args":"2"},
                       {"type":"response.headers","op":"set","target":{"key":{"inc":["x-i"]}},"args":["3"]},
                       {"type":"response.headers","op":"delete","target":{"key":{"pre":"x-j"}}},
                       {"type":"response.headers","op":"delete","target":{"key":{"suf":"-k"}},"args":"4"}]},
        {"handle":"error"},{"src":"/.*","status":404,"dest":"/404.html"}
    ]"#;
    let written: Vec<WrittenRoute> = serde_json::from_str(written).unwrap();
    let mut output = OutputConfig {
        routes: written
            .into_iter()
            .enumerate()
            .map(|(at, route)| (at + 1, route))
            .collect(),
        unserved: vec!["images".to_owned()],
        ..OutputConfig::default()
    };
    let function =
        serde_json::from_str(r#"{"runtime":"nodejs22.x","handler":"index.js"}"#).unwrap();
    output.functions.insert("api/a".to_owned(), function);
    output.wildcard = serde_json::from_str(r#"[{"domain":"de.example","value":"de"}]"#).unwrap();
    let (output, upstreams) = output.compile(true).unwrap();
    let routes = Routes {
        output: Some(Box::new(output)),
        upstreams,
        ..Routes::default()
    };
    config(OUTPUT_VERSION, routes)
}

fn config(version: u32, routes: Routes) -> ReleaseConfig {
    ReleaseConfig {
        version,
        project: "shop".parse().unwrap(),
        environment: "production".parse().unwrap(),
        routes,
    }
}

#[test]
fn configs_of_each_version_are_read_and_written_as_they_always_were() {
    for (config, fixture) in [
        (first(), include_str!("fixtures/release-config-1.json")),
        (second(), include_str!("fixtures/release-config-2.json")),
    ] {
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(
            written,
            fixture.trim(),
            "it is written differently: that needs a new version"
        );
        let read: ReleaseConfig = serde_json::from_str(fixture).unwrap();
        assert_eq!(read, config);
        assert!(belief::config(read, &"shop/production".parse().unwrap()).is_ok());
    }
}

#[test]
fn routes_of_an_output_are_not_believed_of_a_version_that_had_none() {
    let site = "shop/production".parse().unwrap();
    let old = ReleaseConfig {
        version: 1,
        ..second()
    };
    assert!(belief::config(old, &site).is_err());
    let newer = ReleaseConfig {
        version: OUTPUT_VERSION + 1,
        ..second()
    };
    assert!(belief::config(newer, &site).is_err());
}
