//! A provider and a worker, as far as tests need them: deliveries that are signed, and builds that are claimed and ended.

use aws_lc_rs::hmac;
use helix_service::digest::sha256;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::world::{World, frame};

/// A commit whose name is one digit, over and over.
pub(crate) fn commit(digit: char) -> String {
    digit.to_string().repeat(40)
}

impl World {
    /// Links `shop` to a repository at GitHub, and returns its webhook secret.
    pub(crate) async fn link(&self, more: Value) -> String {
        let mut link = json!({ "url": "https://github.com/acme/shop" });
        link.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let linked = self
            .request(Method::PUT, "/v1/projects/shop/link")
            .json(&link)
            .send()
            .await
            .unwrap();
        let status = linked.status();
        let linked: Value = linked.json().await.unwrap();
        assert_eq!(status, 200, "{linked}");
        linked["webhook_secret"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Sends what GitHub would.
    pub(crate) async fn hook(&self, secret: &str, event: &str, body: &Value) -> (u16, Value) {
        let id = format!("{:032x}", rand::random::<u128>());
        let answer = self.hook_as(secret, (event, &id), body.to_string()).await;
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) async fn hook_as(
        &self,
        secret: &str,
        (event, id): (&str, &str),
        body: String,
    ) -> Response {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, body.as_bytes());
        self.client
            .post(format!(
                "http://{}/v1/webhooks/in/github/shop",
                self.address
            ))
            .header("x-github-event", event)
            .header("x-github-delivery", id)
            .header(
                "x-hub-signature-256",
                format!("sha256={}", hex::encode(tag.as_ref())),
            )
            .body(body)
            .send()
            .await
            .unwrap()
    }

    /// Opens pull request 42 at GitHub, of the repository's own branch; the build.
    pub(crate) async fn opened(&self, secret: &str, head: &str) -> String {
        let body = pull_request("opened", head, 1);
        let (_, opened) = self.hook(secret, "pull_request", &body).await;
        opened["build"].as_str().unwrap().to_owned()
    }

    /// Sends what GitLab or Bitbucket would.
    pub(crate) async fn provider_hook(
        &self,
        provider: &str,
        secret: &str,
        event: &str,
        body: &Value,
    ) -> Value {
        let body = body.to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hex::encode(hmac::sign(&key, body.as_bytes()).as_ref());
        let request = self.client.post(format!(
            "http://{}/v1/webhooks/in/{provider}/shop",
            self.address
        ));
        let request = match provider {
            "gitlab" => request
                .header("x-gitlab-event", event)
                .header("x-gitlab-token", secret),
            _ => request
                .header("x-event-key", event)
                .header("x-hub-signature", format!("sha256={tag}")),
        };
        request
            .body(body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// A push to a branch, and the id of the build that follows.
    pub(crate) async fn push(&self, secret: &str, before: &str, after: &str) -> String {
        let (status, view) = self
            .hook(secret, "push", &push("main", before, after))
            .await;
        assert_eq!((status, &view["accepted"]), (200, &json!(true)), "{view}");
        view["build"].as_str().unwrap().to_owned()
    }

    /// A word of a worker.
    pub(crate) async fn worker(
        &self,
        token: &str,
        build: &str,
        what: &str,
        body: &Value,
    ) -> Response {
        self.client
            .post(format!("http://{}/v1/builds/{build}/{what}", self.address))
            .bearer_auth(token)
            .json(body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn claim(&self, token: &str, build: &str, worker: &str) -> Response {
        self.worker(token, build, "claim", &json!({ "worker": worker }))
            .await
    }

    /// Uploads files as a worker, and ends the build with them.
    pub(crate) async fn succeed(
        &self,
        token: &str,
        build: &str,
        worker: &str,
        files: &[(String, Vec<u8>)],
    ) -> Response {
        self.succeed_with(token, build, worker, files, &Value::Null)
            .await
    }

    /// The same with a bill of materials.
    pub(crate) async fn succeed_with(
        &self,
        token: &str,
        build: &str,
        worker: &str,
        files: &[(String, Vec<u8>)],
        materials: &Value,
    ) -> Response {
        let upload: Vec<u8> = files
            .iter()
            .flat_map(|(_, content)| frame(content, &sha256(content)))
            .collect();
        let sent = self
            .client
            .post(format!("http://{}/v1/projects/shop/packs", self.address))
            .bearer_auth(token)
            .header("content-type", helix_routing::api::PACK_UPLOAD_TYPE)
            .body(upload)
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), 204);
        let files: Vec<Value> = files
            .iter()
            .map(|(path, content)| json!({ "path": path, "digest": sha256(content), "size": content.len() }))
            .collect();
        let outcome =
            json!({ "succeeded": { "files": files, "framework": "vite", "materials": materials } });
        self.worker(
            token,
            build,
            "end",
            &json!({ "worker": worker, "outcome": outcome }),
        )
        .await
    }

    pub(crate) async fn build(&self, build: &str) -> Value {
        self.get(&format!("/v1/builds/{build}"))
            .await
            .json()
            .await
            .unwrap()
    }

    /// The kinds of events so far, in their order.
    pub(crate) async fn events(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT kind FROM events ORDER BY number")
            .fetch_all(self.app.store.reader())
            .await
            .unwrap()
    }
}

pub(crate) fn push(branch: &str, before: &str, after: &str) -> Value {
    json!({
        "ref": format!("refs/heads/{branch}"), "before": before, "after": after,
        "repository": { "full_name": "Acme/Shop" },
    })
}

pub(crate) fn pull_request(action: &str, head: &str, from: u64) -> Value {
    json!({
        "action": action, "number": 42, "repository": { "full_name": "acme/shop" },
        "pull_request": {
            "head": { "sha": head, "repo": { "id": from } },
            "base": { "sha": commit('0'), "repo": { "id": 1 } },
        },
    })
}

/// What was asked for.
pub(crate) async fn json_of(answer: Response) -> Value {
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert!(status.is_success(), "{status} {body}");
    body
}
