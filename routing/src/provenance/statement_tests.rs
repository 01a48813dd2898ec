//! What is written is read again, and what a stranger could write is not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ARTIFACT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn checkout() -> Checkout {
    Checkout {
        repository: "https://github.com/acme/shop".to_owned(),
        reference: "refs/heads/main".to_owned(),
        commit: "c".repeat(40).parse().unwrap(),
    }
}

fn provenance(source: Source) -> Provenance {
    Provenance {
        site: "shop/production".parse().unwrap(),
        artifact: Digest::from_hex(ARTIFACT).unwrap(),
        source,
    }
}

pub(crate) fn build() -> Provenance {
    provenance(Source::Build(Built {
        of: checkout(),
        trust: Trust::Default,
        root: Some("web".to_owned()),
        command: Some("npm run build".to_owned()),
        build: "0123456789abcdef".parse().unwrap(),
        log: Some(LogDigest {
            digest: Digest::from_hex(&"b".repeat(64)).unwrap(),
            lines: 12,
        }),
    }))
}

pub(crate) fn upload() -> Provenance {
    provenance(Source::Upload {
        by: "laptop".to_owned(),
    })
}

pub(crate) fn promotion() -> Provenance {
    provenance(Source::Promotion(Promoted {
        by: "operator".to_owned(),
        reason: "the release is late".to_owned(),
        from: "shop/preview/42".parse().unwrap(),
        release: "d".repeat(20).parse().unwrap(),
        artifact: Digest::from_hex(&"e".repeat(64)).unwrap(),
        built_of: Some(checkout()),
    }))
}

fn json_of(provenance: &Provenance) -> Value {
    serde_json::to_value(Statement::of(provenance)).unwrap()
}

fn read(json: &Value) -> Result<Provenance, String> {
    let statement: Statement =
        serde_json::from_value(json.clone()).map_err(|error| error.to_string())?;
    statement.read().map_err(|error| error.to_string())
}

#[test]
fn a_build_is_written_as_slsa_names_its_parts() {
    assert_eq!(
        json_of(&build()),
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": "shop/production", "digest": { "sha256": ARTIFACT } }],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": "https://helixstack.dev/provenance/build/v1",
                    "externalParameters": {
                        "project": "shop", "environment": "production",
                        "repository": "https://github.com/acme/shop", "ref": "refs/heads/main",
                        "commit": "c".repeat(40), "root": "web", "buildCommand": "npm run build",
                    },
                    "internalParameters": { "trust": "default" },
                    "resolvedDependencies": [{
                        "uri": "git+https://github.com/acme/shop@refs/heads/main",
                        "digest": { "gitCommit": "c".repeat(40) },
                    }],
                },
                "runDetails": {
                    "builder": { "id": "https://helixstack.dev/builder/worker/v1" },
                    "metadata": { "invocationId": "0123456789abcdef" },
                    "byproducts": [{
                        "name": "log", "digest": { "sha256": "b".repeat(64) }, "annotations": { "lines": "12" },
                    }],
                },
            },
        })
    );
}

#[test]
fn what_is_written_is_read_again_and_the_same_is_written_the_same() {
    let mut bare = promotion();
    if let Source::Promotion(promoted) = &mut bare.source {
        promoted.built_of = None;
    }
    for provenance in [build(), upload(), promotion(), bare] {
        let written = json_of(&provenance);
        assert_eq!(read(&written).as_ref(), Ok(&provenance));
        let text = |of: &Provenance| serde_json::to_string(&Statement::of(of)).unwrap();
        assert_eq!(text(&provenance), text(&provenance.clone()));
    }
}

#[test]
fn fields_that_are_not_known_are_passed_over() {
    let mut written = json_of(&build());
    written["more"] = json!(1);
    written["predicate"]["runDetails"]["builder"]["version"] = json!({ "x": "1" });
    written["predicate"]["buildDefinition"]["externalParameters"]["more"] = json!([]);
    assert_eq!(read(&written), Ok(build()));
}

/// Where most of it is.
const DEFINITION: &str = "/predicate/buildDefinition";

/// What is said of a build's statement in which one value is another.
fn refused(pointer: &str, value: Value) -> String {
    let mut written = json_of(&build());
    *written.pointer_mut(pointer).unwrap() = value;
    read(&written).unwrap_err()
}

#[test]
fn a_statement_of_another_kind_or_subject_says_what_is_wrong() {
    let subject = json_of(&build())["subject"][0].clone();
    for (pointer, value, needle) in [
        ("/_type", json!("https://in-toto.io/Statement/v0.1"), "v0.1"),
        ("/predicateType", json!("https://slsa.dev/x"), "slsa.dev/x"),
        ("/subject", json!([]), "one subject"),
        ("/subject", json!([subject, subject]), "one subject"),
        (
            "/subject/0/digest",
            json!({ "sha512": "00" }),
            "one subject",
        ),
        ("/subject/0/digest/sha256", json!("AA"), "one subject"),
        ("/predicate", json!(null), "null"),
    ] {
        let refused = refused(pointer, value);
        assert!(refused.contains(needle), "{pointer}: {refused}");
    }
}

#[test]
fn a_build_that_does_not_fit_says_what_is_wrong() {
    for (pointer, value, needle) in [
        ("/buildType", json!("x"), "build type"),
        ("/buildType", json!(UPLOAD_TYPE), "upload is not done by"),
        ("/internalParameters", json!({}), "trust"),
        ("/internalParameters/trust", json!("all"), "all"),
        (
            "/externalParameters/commit",
            json!("1".repeat(40)),
            "another",
        ),
        ("/externalParameters/project", json!("../x"), "project"),
        ("/resolvedDependencies", json!([]), "another"),
    ] {
        let refused = refused(&format!("{DEFINITION}{pointer}"), value);
        assert!(refused.contains(needle), "{pointer}: {refused}");
    }
    let details = "/predicate/runDetails";
    let other = refused(&format!("{details}/builder/id"), json!("me"));
    assert!(other.contains("build is not done by"), "{other}");
    let nameless = refused(&format!("{details}/metadata"), json!({}));
    assert!(nameless.contains("invocation id"), "{nameless}");
}

#[test]
fn a_promotion_names_who_and_why_and_which_preview() {
    for field in ["by", "reason", "from"] {
        let mut written = json_of(&promotion());
        let parameters = &mut written["predicate"]["buildDefinition"]["externalParameters"];
        parameters.as_object_mut().unwrap().remove(field);
        assert!(read(&written).is_err(), "{field}");
    }
}

#[test]
fn a_source_is_shown_in_a_line() {
    assert_eq!(upload().source.to_string(), "upload by laptop");
    assert!(
        build()
            .source
            .to_string()
            .starts_with("build 0123456789abcdef of cccc")
    );
    assert!(
        promotion()
            .source
            .to_string()
            .contains("of shop/preview/42 by operator")
    );
}

proptest! {
    #[test]
    fn no_text_makes_a_reader_panic_or_an_error_grow(text in any::<String>()) {
        let mut written = json_of(&build());
        written["predicate"]["buildDefinition"]["buildType"] = json!(text.repeat(50));
        let refused = read(&written).unwrap_err();
        prop_assert!(refused.len() < 2000);
    }
}
