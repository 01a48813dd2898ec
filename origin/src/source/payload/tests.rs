//! Real payloads, those that are derived from them, and everything that can be wrong with one.
#![expect(clippy::panic, reason = "a test may stop here")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const ZEROS: &str = "0000000000000000000000000000000000000000";

fn headers(name: &'static str, event: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, event.parse().unwrap());
    headers
}

fn github(event: &str, body: &Value) -> Result<Delivery, PayloadError> {
    let headers = headers("x-github-event", event);
    read(Provider::Github, &headers, body.to_string().as_bytes())
}

/// The payloads of npm `@octokit/webhooks-examples`, by event, where set-up has installed them.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn examples() -> Option<Vec<(String, Value)>> {
    let package = ".tools/judges/node_modules/@octokit/webhooks-examples";
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = root.join(package).join("api.github.com/index.json");
    let Ok(text) = std::fs::read_to_string(file) else {
        eprintln!("skipped: {package} is not installed, `make test` installs it");
        return None;
    };
    let events: Vec<Value> = serde_json::from_str(&text).unwrap();
    let examples = events.into_iter().flat_map(|event| {
        let name = event["name"].as_str().unwrap().to_owned();
        let examples = event["examples"].as_array().unwrap().clone();
        examples
            .into_iter()
            .map(move |example| (name.clone(), example))
    });
    Some(examples.collect())
}

#[test]
fn every_published_example_is_read_or_ignored_for_a_reason() {
    let Some(examples) = examples() else { return };
    assert_eq!(examples.len(), 329);
    let mut said: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for (event, body) in &examples {
        let delivery =
            github(event, body).unwrap_or_else(|error| panic!("{event}: {error} {body}"));
        let what = match &delivery.said {
            Said::Hints(hints) => {
                assert_eq!(hints.len(), 1, "{event}");
                assert!(delivery.repository.is_some(), "{event}");
                "read"
            }
            Said::Ignored(why) => {
                assert!(!why.is_empty(), "{event}");
                "ignored"
            }
        };
        *said.entry((event.clone(), what)).or_default() += 1;
    }
    let count = |event: &str, what| said.get(&(event.to_owned(), what)).copied().unwrap_or(0);
    let read: usize = said
        .iter()
        .filter(|((_, what), _)| *what == "read")
        .map(|(_, n)| n)
        .sum();
    assert_eq!(read, count("push", "read") + count("pull_request", "read"));
    assert!(
        count("push", "read") >= 2 && count("push", "ignored") >= 2,
        "{said:?}"
    );
    assert!(count("pull_request", "read") >= 5, "{said:?}");
}

#[test]
fn examples_that_are_cut_or_emptied_never_panic() {
    let Some(examples) = examples() else { return };
    for (event, body) in examples
        .iter()
        .filter(|(event, _)| event == "push" || event == "pull_request")
    {
        let text = body.to_string();
        let headers = headers("x-github-event", event);
        for cut in (0..text.len()).step_by(text.len() / 40 + 1) {
            let read = read(Provider::Github, &headers, &text.as_bytes()[..cut]);
            assert!(
                matches!(read, Err(PayloadError::Json { .. })),
                "{event} cut at {cut}"
            );
        }
        for key in body.as_object().unwrap().keys() {
            let mut emptied = body.clone();
            emptied[key] = Value::Null;
            let _ = github(event, &emptied);
        }
    }
}

fn pull_request(action: &str, head: Value, base: Value) -> Value {
    json!({
        "action": action, "number": 42, "repository": { "full_name": "acme/shop" },
        "pull_request": { "head": { "sha": B, "repo": head }, "base": { "sha": A, "repo": base } },
    })
}

fn change(delivery: Delivery) -> Change {
    match delivery.said {
        Said::Hints(mut hints) => match hints.pop() {
            Some(Hint::Change(change)) => change,
            other => panic!("{other:?}"),
        },
        Said::Ignored(why) => panic!("{why}"),
    }
}

#[test]
fn a_head_of_another_repository_or_of_none_is_a_fork() {
    let (own, other) = (json!({ "id": 1 }), json!({ "id": 2 }));
    for (head, base, is_fork) in [
        (&own, &own, false),
        (&other, &own, true),
        (&Value::Null, &own, true),
        (&own, &Value::Null, true),
        (&Value::Null, &Value::Null, true),
    ] {
        let body = pull_request("opened", head.clone(), base.clone());
        let change = change(github("pull_request", &body).unwrap());
        assert_eq!(change.is_fork, is_fork, "{head} {base}");
        assert_eq!(change.reference.as_deref(), Some("refs/pull/42/head"));
        assert_eq!(change.head.unwrap().as_str(), B);
    }
}

#[test]
fn every_action_of_githubs_pull_requests_is_known() {
    let own = json!({ "id": 1 });
    let mut body = pull_request("synchronize", own.clone(), own.clone());
    body["before"] = json!(A);
    let updated = change(github("pull_request", &body).unwrap());
    assert_eq!(
        updated.action,
        Action::Updated {
            before: Some(A.parse().unwrap())
        }
    );
    for (action, expected) in [
        ("opened", Action::Opened),
        ("reopened", Action::Reopened),
        ("closed", Action::Closed),
    ] {
        let body = pull_request(action, own.clone(), own.clone());
        assert_eq!(
            change(github("pull_request", &body).unwrap()).action,
            expected
        );
    }
    for action in ["labeled", "edited", "ready_for_review", "x"] {
        let body = pull_request(action, own.clone(), own.clone());
        let delivery = github("pull_request", &body).unwrap();
        assert!(
            matches!(&delivery.said, Said::Ignored(why) if why.contains(action)),
            "{delivery:?}"
        );
    }
}

#[test]
fn pushes_of_branches_count_and_others_do_not() {
    let push = |reference: &str, before: &str, after: &str| {
        github(
            "push",
            &json!({
                "ref": reference, "before": before, "after": after, "repository": { "full_name": "acme/shop" },
            }),
        )
    };
    let hint = |before: Option<&str>| Hint::Push {
        branch: "feature/x".to_owned(),
        before: before.map(|before| before.parse().unwrap()),
        after: B.parse().unwrap(),
    };
    for (before, expected) in [(A, hint(Some(A))), (ZEROS, hint(None))] {
        let said = push("refs/heads/feature/x", before, B).unwrap().said;
        assert_eq!(said, Said::Hints(vec![expected]));
    }
    for (reference, after) in [("refs/tags/v1", B), ("refs/heads/main", ZEROS), ("main", B)] {
        assert!(
            matches!(push(reference, A, after).unwrap().said, Said::Ignored(_)),
            "{reference}"
        );
    }
    for after in ["main", "--upload-pack=x", "", "bb", &B.to_uppercase()] {
        assert!(push("refs/heads/main", A, after).is_err(), "{after}");
    }
}

#[test]
fn gitlab_says_the_same_in_its_own_words() {
    let read = |event: &str, body: Value| {
        let headers = headers("x-gitlab-event", event);
        read(Provider::Gitlab, &headers, body.to_string().as_bytes())
    };
    let project = json!({ "path_with_namespace": "acme/web/shop" });
    let push = read(
        "Push Hook",
        json!({ "ref": "refs/heads/main", "before": A, "after": B, "project": project }),
    )
    .unwrap();
    assert_eq!(push.repository.as_deref(), Some("acme/web/shop"));
    assert!(matches!(push.said, Said::Hints(_)));
    let request = |attributes: Value| {
        let mut whole = json!({ "iid": 7, "source_project_id": 1, "target_project_id": 1, "last_commit": { "id": B } });
        whole
            .as_object_mut()
            .unwrap()
            .extend(attributes.as_object().unwrap().clone());
        read(
            "Merge Request Hook",
            json!({ "object_attributes": whole, "project": project }),
        )
    };
    for (attributes, action) in [
        (json!({ "action": "open" }), Action::Opened),
        (json!({ "action": "reopen" }), Action::Reopened),
        (
            json!({ "action": "update", "oldrev": A }),
            Action::Updated {
                before: Some(A.parse().unwrap()),
            },
        ),
        (json!({ "action": "close" }), Action::Closed),
        (json!({ "action": "merge" }), Action::Closed),
    ] {
        let change = change(request(attributes).unwrap());
        assert_eq!(
            (change.action, change.number, change.is_fork),
            (action, 7, false)
        );
        assert_eq!(
            change.reference.as_deref(),
            Some("refs/merge-requests/7/head")
        );
    }
    assert!(change(request(json!({ "action": "open", "source_project_id": 2 })).unwrap()).is_fork);
    assert!(
        change(request(json!({ "action": "open", "source_project_id": null })).unwrap()).is_fork
    );
    for attributes in [
        json!({ "action": "update" }),
        json!({ "action": "approved" }),
        json!({}),
    ] {
        assert!(matches!(
            request(attributes).unwrap().said,
            Said::Ignored(_)
        ));
    }
    assert!(request(json!({ "action": "open", "iid": 0 })).is_err());
    for event in ["Tag Push Hook", "Pipeline Hook", "Note Hook"] {
        assert!(
            matches!(read(event, json!({})).unwrap().said, Said::Ignored(_)),
            "{event}"
        );
    }
}

#[test]
fn bitbucket_says_the_same_in_its_own_words() {
    let read = |event: &str, body: Value| {
        let headers = headers("x-event-key", event);
        read(Provider::Bitbucket, &headers, body.to_string().as_bytes())
    };
    let tip = |kind: &str, hash: &str| json!({ "type": kind, "name": "main", "target": { "hash": hash } });
    let push = |changes: Value| {
        read(
            "repo:push",
            json!({ "push": { "changes": changes }, "repository": { "full_name": "acme/shop" } }),
        )
    };
    let said = push(json!([{ "old": tip("branch", A), "new": tip("branch", B) }, { "old": null, "new": tip("branch", A) }])).unwrap().said;
    assert!(matches!(said, Said::Hints(hints) if hints.len() == 2));
    for changes in [
        json!([]),
        json!([{ "old": tip("branch", A), "new": null }]),
        json!([{ "new": tip("tag", A) }]),
    ] {
        assert!(matches!(push(changes).unwrap().said, Said::Ignored(_)));
    }
    let side = |uuid: &str, hash: &str| {
        json!({
            "commit": { "hash": hash }, "branch": { "name": "x" }, "repository": { "full_name": "eve/shop", "uuid": uuid },
        })
    };
    let request = |event: &str, source: Value| {
        let body = json!({ "pullrequest": { "id": 3, "source": source, "destination": side("{1}", A) }, "repository": { "full_name": "acme/shop" } });
        change(read(event, body).unwrap())
    };
    let own = request("pullrequest:created", side("{1}", B));
    assert_eq!((own.is_fork, own.elsewhere), (false, None));
    let fork = request("pullrequest:updated", side("{2}", &B[..12]));
    assert_eq!(
        fork.elsewhere.as_deref(),
        Some("https://bitbucket.org/eve/shop")
    );
    assert_eq!((fork.head, fork.short.as_deref()), (None, Some(&B[..12])));
    assert!(
        request(
            "pullrequest:created",
            json!({ "commit": { "hash": B }, "repository": null, "branch": null })
        )
        .is_fork
    );
    assert_eq!(
        request("pullrequest:fulfilled", side("{1}", B)).action,
        Action::Closed
    );
    assert!(matches!(
        read("pullrequest:comment_created", json!({})).unwrap().said,
        Said::Ignored(_)
    ));
}

#[test]
fn a_delivery_without_its_event_or_with_another_ones_body_is_refused() {
    let empty = HeaderMap::new();
    for provider in [Provider::Github, Provider::Gitlab, Provider::Bitbucket] {
        assert!(matches!(
            read(provider, &empty, b"{}"),
            Err(PayloadError::Event(_))
        ));
    }
    for body in [
        "",
        "[]",
        "null",
        "{\"repository\":1}",
        "payload=%7B%7D",
        "\u{0}",
    ] {
        let headers = headers("x-github-event", "push");
        assert!(
            read(Provider::Github, &headers, body.as_bytes()).is_err(),
            "{body}"
        );
    }
    assert!(
        github(
            "push",
            &json!({ "ref": "refs/heads/main", "before": A, "after": B })
        )
        .is_err(),
        "of no repository"
    );
}
