//! What providers are told, with doubles of their APIs on this machine.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use helix_origin::source::feedback;
use serde_json::{Value, json};

use crate::forge::{commit, pull_request};
use crate::published::{self, Asked};
use crate::world::{World, files};

/// A provider's API: it remembers what it was asked, and has the comments that it was given.
#[derive(Clone, Default)]
struct Provider {
    asked: Arc<Mutex<Vec<Asked>>>,
    comments: Arc<Mutex<Vec<Value>>>,
    /// Answers 503 to so many requests first.
    away: Arc<Mutex<usize>>,
}

impl Provider {
    async fn start(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn answer(
    State(provider): State<Provider>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(headers["authorization"], "Bearer hidden");
    {
        let mut away = provider.away.lock().unwrap();
        if *away > 0 {
            *away -= 1;
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    }
    let path = uri.path().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    provider
        .asked
        .lock()
        .unwrap()
        .push((method.to_string(), path.clone(), body.clone()));
    let mut comments = provider.comments.lock().unwrap();
    let is_list = path.ends_with("/comments") || path.ends_with("/notes");
    match (method.as_str(), is_list) {
        ("GET", true) if path.contains("pullrequests") => {
            axum::Json(json!({ "values": *comments })).into_response()
        }
        ("GET", true) => axum::Json(json!(*comments)).into_response(),
        ("POST", true) => {
            let mut made = body;
            made["id"] = json!(comments.len() + 7);
            comments.push(made.clone());
            (StatusCode::CREATED, axum::Json(made)).into_response()
        }
        ("GET", false) => axum::Json(json!({ "hash": commit('b') })).into_response(),
        ("PATCH" | "PUT", false) if comments.is_empty() => StatusCode::NOT_FOUND.into_response(),
        _ => axum::Json(json!({})).into_response(),
    }
}

/// Paths below the API's base.
fn below(base: &str, asked: &[Asked]) -> Vec<Asked> {
    let cut = |(method, path, body): &Asked| {
        let path = path.strip_prefix(base).unwrap().to_owned();
        (method.clone(), path, body.clone())
    };
    asked.iter().map(cut).collect()
}

fn places(asked: &[Asked]) -> Vec<String> {
    asked
        .iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect()
}

#[tokio::test]
async fn github_is_told_with_a_status_and_one_comment_in_place() {
    let (world, github) = (World::start().await, Provider::default());
    let api = format!("http://{}/api/v3", github.start().await);
    let secret = world
        .link(json!({ "api": api, "credential": "hidden" }))
        .await;
    let worker = world.token("build").await;
    let build = &world.opened(&secret, &commit('a')).await;
    feedback::tell_due(&world.app).await.unwrap();
    let status = format!("POST /api/v3/repos/acme/shop/statuses/{}", commit('a'));
    let comments = "/api/v3/repos/acme/shop/issues/42/comments";
    let asked = github.asked();
    assert_eq!(
        places(&asked),
        [
            status.clone(),
            format!("GET {comments}"),
            format!("POST {comments}")
        ]
    );
    assert_eq!(asked[0].2["state"], "pending");
    assert_eq!(asked[0].2["context"], "helix/shop/preview");
    published::judge("github", &below("/api/v3", &asked));
    let text = asked[2].2["body"].as_str().unwrap();
    assert!(
        text.contains("<!-- helix:shop -->") && text.contains(&commit('a')),
        "{text}"
    );
    // Nothing changed: nothing is told.
    feedback::tell_due(&world.app).await.unwrap();
    assert!(github.asked().is_empty());
    assert!(world.claim(&worker, build, "w").await.status().is_success());
    assert!(
        world
            .succeed(&worker, build, "w", &files(&[("index.html", "x")]))
            .await
            .status()
            .is_success()
    );
    feedback::tell_due(&world.app).await.unwrap();
    let change = "PATCH /api/v3/repos/acme/shop/issues/comments/7".to_owned();
    let asked = github.asked();
    assert_eq!(places(&asked), [status.clone(), change.clone()]);
    published::judge("github", &below("/api/v3", &asked));
    assert!(asked[1].2["body"].as_str().unwrap().contains("on its way"));
    // Somebody removed the comment: it is written anew.
    github.comments.lock().unwrap().clear();
    let (_, updated) = world
        .hook(
            &secret,
            "pull_request",
            &pull_request("synchronize", &commit('b'), 1),
        )
        .await;
    assert_eq!(updated["accepted"], true);
    feedback::tell_due(&world.app).await.unwrap();
    assert_eq!(
        places(&github.asked()).last(),
        Some(&format!("POST {comments}"))
    );
}

#[tokio::test]
async fn a_provider_that_is_away_holds_up_nothing_and_hears_the_newest() {
    let (world, github) = (World::start().await, Provider::default());
    let api = format!("http://{}", github.start().await);
    let secret = world
        .link(json!({ "api": api, "credential": "hidden" }))
        .await;
    *github.away.lock().unwrap() = 1;
    let build = world.push(&secret, &commit('0'), &commit('a')).await;
    feedback::tell_due(&world.app).await.unwrap();
    assert!(github.asked().is_empty());
    let noted: (i64, String) = sqlx::query_as("SELECT attempts, error FROM feedback")
        .fetch_one(world.app.store.reader())
        .await
        .unwrap();
    assert_eq!(noted.0, 1);
    assert!(
        noted.1.contains("503") && !noted.1.contains("hidden"),
        "{}",
        noted.1
    );
    // Its time has not come yet; but what changes is told at once.
    feedback::tell_due(&world.app).await.unwrap();
    assert!(github.asked().is_empty());
    let cancelled = world
        .post(&format!("/v1/builds/{build}/cancel"), &json!({}))
        .await;
    assert!(cancelled.status().is_success());
    feedback::tell_due(&world.app).await.unwrap();
    let asked = github.asked();
    assert_eq!(asked.len(), 1, "a push has no comment");
    assert_eq!(asked[0].2["state"], "error");
}

#[tokio::test]
async fn gitlab_and_bitbucket_are_told_in_their_own_places() {
    for (provider, status, comments) in [
        (
            "gitlab",
            format!("/projects/acme%2Fshop/statuses/{}", commit('b')),
            "/projects/acme%2Fshop/merge_requests/42/notes",
        ),
        (
            "bitbucket",
            format!(
                "/repositories/acme/shop/commit/{}/statuses/build",
                commit('b')
            ),
            "/repositories/acme/shop/pullrequests/42/comments",
        ),
    ] {
        let (world, double) = (World::start().await, Provider::default());
        let api = format!("http://{}", double.start().await);
        let secret = world.link(json!({ "provider": provider, "api": api, "credential": "hidden", "url": "https://code.example/acme/shop" })).await;
        let (event, body) = match provider {
            "gitlab" => (
                "Merge Request Hook",
                json!({
                    "project": { "path_with_namespace": "acme/shop" },
                    "object_attributes": { "iid": 42, "action": "open", "source_project_id": 1, "target_project_id": 1, "last_commit": { "id": commit('b') } },
                }),
            ),
            // Bitbucket names the first digits only: it is asked for the rest.
            _ => (
                "pullrequest:created",
                json!({
                    "repository": { "full_name": "acme/shop" },
                    "pullrequest": {
                        "id": 42,
                        "source": { "commit": { "hash": &commit('b')[..12] }, "repository": { "uuid": "{1}" }, "branch": { "name": "x" } },
                        "destination": { "repository": { "uuid": "{1}" } },
                    },
                }),
            ),
        };
        let answer = world.provider_hook(provider, &secret, event, &body).await;
        assert_eq!(answer["accepted"], true, "{answer}");
        if provider == "bitbucket" {
            let asked = double.asked();
            assert_eq!(
                places(&asked),
                [format!(
                    "GET /repositories/acme/shop/commit/{}",
                    &commit('b')[..12]
                )]
            );
        }
        feedback::tell_due(&world.app).await.unwrap();
        let asked = double.asked();
        published::judge(provider, &asked);
        assert_eq!(
            places(&asked),
            [
                format!("POST {status}"),
                format!("GET {comments}"),
                format!("POST {comments}")
            ]
        );
    }
}
