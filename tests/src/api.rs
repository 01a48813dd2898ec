//! Origin's API, asked directly.

use helix_routing::api::{Problem, ReleaseView, RolloutView, SiteStatus, Status};
use helix_routing::id::RolloutId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Client, Request, Response};

/// Origin with one token.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where it is.
    pub url: String,
    /// What to show it.
    pub token: String,
}

impl Api {
    /// Sends one request.
    ///
    /// # Errors
    /// When origin cannot be reached.
    pub fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        Client::of(&self.url).send(Request {
            method,
            target,
            host: "origin",
            headers: &all,
            body,
        })
    }

    /// Reads one view.
    ///
    /// # Panics
    /// When the answer is anything else.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, target: &str) -> T {
        let response = self
            .send("GET", target, &[], &[])
            .unwrap_or_else(|error| panic!("GET {target}: {error}"));
        assert_eq!(response.status, 200, "GET {target}: {}", response.text());
        serde_json::from_slice(&response.body)
            .unwrap_or_else(|error| panic!("GET {target}: {error}: {}", response.text()))
    }

    /// Sends a JSON body.
    ///
    /// # Panics
    /// When origin cannot be reached.
    #[must_use]
    pub fn post(&self, target: &str, body: &impl Serialize) -> Response {
        let body = serde_json::to_vec(body).unwrap();
        let headers = [("content-type", "application/json")];
        self.send("POST", target, &headers, &body)
            .unwrap_or_else(|error| panic!("POST {target}: {error}"))
    }

    /// Sends a JSON body and reads a view.
    ///
    /// # Panics
    /// When the answer is anything else.
    #[must_use]
    pub fn create<T: DeserializeOwned>(&self, target: &str, body: &impl Serialize) -> T {
        let response = self.post(target, body);
        assert!(
            matches!(response.status, 200..=202),
            "POST {target}: {} {}",
            response.status,
            response.text()
        );
        serde_json::from_slice(&response.body)
            .unwrap_or_else(|error| panic!("POST {target}: {error}: {}", response.text()))
    }

    /// The fleet and every site; none when origin does not answer now.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let response = self.send("GET", "/v1/status", &[], &[]).ok()?;
        serde_json::from_slice(&response.body).ok()
    }

    /// One site.
    ///
    /// # Panics
    /// When origin does not answer.
    #[must_use]
    pub fn site(&self, site: &str) -> Option<SiteStatus> {
        self.get::<Status>("/v1/status")
            .sites
            .into_iter()
            .find(|found| found.site.to_string() == site)
    }

    /// The releases of a project's production.
    #[must_use]
    pub fn releases(&self, project: &str) -> Vec<ReleaseView> {
        self.get(&format!(
            "/v1/projects/{project}/releases?environment=production"
        ))
    }

    /// One rollout.
    #[must_use]
    pub fn rollout(&self, rollout: &RolloutId) -> RolloutView {
        self.get(&format!("/v1/rollouts/{rollout}"))
    }
}

/// The problem that an answer carries, checked for its media type (RFC 9457).
///
/// # Panics
/// When it carries none.
#[must_use]
pub fn problem(response: &Response) -> Problem {
    let kind = response.header("content-type").unwrap_or_default();
    assert!(
        kind.starts_with("application/problem+json"),
        "{} {kind}: {}",
        response.status,
        response.text()
    );
    let problem: Problem = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(
        problem.status,
        response.status,
        "the problem names another status: {}",
        response.text()
    );
    problem
}
