//! The few calls of three providers' APIs that are needed: a status, a comment, and a commit's whole name.
//!
//! Invariant: the address that is connected to was looked up and permitted a moment before; no redirect is followed, so that the credential
//! goes where it was given for. No error has a byte of it.

use std::time::Duration;

use helix_routing::api::Provider;
use helix_routing::id::Commit;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::words::{Status, marker};
use crate::source::link::Link;
use crate::webhook::send::{Permitted, causes, check, client, shown};

/// How long a call may take.
const WAIT: Duration = Duration::from_secs(15);
/// Largest answer: a page of a hundred long comments.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// Pages of comments that are searched for ours.
const MAX_PAGES: usize = 10;
const PER_PAGE: usize = 100;

/// A provider did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// It cannot be reached, or must not be.
    #[error("{attempted} at the provider: {why}")]
    Unreachable {
        /// What was attempted.
        attempted: &'static str,
        /// Why not.
        why: String,
    },
    /// It refused.
    #[error("{attempted} at the provider: it answered {status}: {said}")]
    Refused {
        /// What was attempted.
        attempted: &'static str,
        /// With what.
        status: StatusCode,
        /// Its words.
        said: String,
    },
    /// It answered what its API never answers.
    #[error("{attempted} at the provider: it answered without {what}")]
    Odd {
        /// What was attempted.
        attempted: &'static str,
        /// What was missing.
        what: &'static str,
    },
}

/// A repository at its provider.
#[derive(Debug)]
pub struct Forge<'a> {
    provider: Provider,
    api: Url,
    repository: String,
    project: String,
    authorization: String,
    permitted: &'a Permitted,
}

impl<'a> Forge<'a> {
    /// The repository of a link, with its credential. None where there is no API.
    #[must_use]
    pub fn new(link: &Link, credential: String, permitted: &'a Permitted) -> Option<Self> {
        let authorization = if credential.contains(':') {
            crate::build::work::authorization(link.provider, &credential)
        } else {
            format!("Bearer {credential}")
        };
        Some(Self {
            provider: link.provider,
            api: Url::parse(link.api.as_deref()?).ok()?,
            repository: link.repository.clone(),
            project: link.project.to_string(),
            authorization,
            permitted,
        })
    }

    /// Says how a commit is.
    ///
    /// # Errors
    /// When the provider cannot be reached, or refuses.
    pub async fn status(&self, commit: &Commit, status: &Status) -> Result<(), ForgeError> {
        let [github, gitlab, bitbucket] = status.state;
        let commit = commit.as_str();
        let (path, body) = match self.provider {
            Provider::Github => (
                self.path(&["statuses", commit]),
                json!({ "state": github, "context": status.context, "description": status.description, "target_url": status.url }),
            ),
            Provider::Gitlab => (
                self.path(&["statuses", commit]),
                json!({ "state": gitlab, "name": status.context, "description": status.description, "target_url": status.url }),
            ),
            Provider::Bitbucket => (
                self.path(&["commit", commit, "statuses", "build"]),
                json!({ "state": bitbucket, "key": status.context, "name": status.context, "description": status.description, "url": status.url }),
            ),
            Provider::Git => return Ok(()),
        };
        let attempted = "set the status of a commit";
        let told = self
            .call(attempted, (Method::POST, path), Some(&body))
            .await;
        match told {
            // GitLab refuses to set what it has.
            Err(ForgeError::Refused { status, said, .. })
                if self.provider == Provider::Gitlab
                    && status == StatusCode::BAD_REQUEST
                    && said.contains("Cannot transition status") =>
            {
                Ok(())
            }
            told => told.map(drop),
        }
    }

    /// Writes the one comment of a pull request, in place if it is there. Returns its id.
    ///
    /// # Errors
    /// When the provider cannot be reached, or refuses.
    pub async fn remark(
        &self,
        number: u32,
        known: Option<&str>,
        text: &str,
    ) -> Result<String, ForgeError> {
        let body = match self.provider {
            Provider::Bitbucket => json!({ "content": { "raw": text } }),
            Provider::Github | Provider::Gitlab | Provider::Git => json!({ "body": text }),
        };
        let method = match self.provider {
            Provider::Github => Method::PATCH,
            Provider::Gitlab | Provider::Bitbucket | Provider::Git => Method::PUT,
        };
        let found = match known {
            Some(known) => Some(known.to_owned()),
            None => self.find(number).await?,
        };
        if let Some(id) = found.filter(|id| id.bytes().all(|byte| byte.is_ascii_digit())) {
            let place = (method, self.comment(number, &id));
            match self.call("change the comment", place, Some(&body)).await {
                // Somebody removed it.
                Err(ForgeError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => {}
                changed => return changed.map(|_| id),
            }
        }
        let attempted = "write the comment";
        let place = (Method::POST, self.comments(number));
        let made = self.call(attempted, place, Some(&body)).await?;
        let id = made["id"].as_u64().map(|id| id.to_string());
        let what = "the comment's id";
        id.ok_or(ForgeError::Odd { attempted, what })
    }

    /// The whole name of a commit of which the provider said the first digits.
    ///
    /// # Errors
    /// When the provider cannot be reached, or there is no such commit.
    pub async fn commit(&self, short: &str) -> Result<Commit, ForgeError> {
        let attempted = "ask for a commit";
        let place = (Method::GET, self.path(&["commit", short]));
        let found = self.call(attempted, place, None).await?;
        let commit = found["hash"]
            .as_str()
            .filter(|hash| hash.starts_with(short));
        let commit = commit.and_then(|hash| hash.parse().ok());
        let what = "the commit's name";
        commit.ok_or(ForgeError::Odd { attempted, what })
    }

    /// Our comment, if there is one that we do not remember: the answer to its making was lost.
    async fn find(&self, number: u32) -> Result<Option<String>, ForgeError> {
        let marker = marker(&self.project);
        for page in 1..=MAX_PAGES {
            let mut place = self.comments(number);
            let size = if self.provider == Provider::Bitbucket {
                "pagelen"
            } else {
                "per_page"
            };
            place
                .query_pairs_mut()
                .append_pair(size, &PER_PAGE.to_string())
                .append_pair("page", &page.to_string());
            let found = self
                .call("list comments", (Method::GET, place), None)
                .await?;
            let list = found.as_array().or_else(|| found["values"].as_array());
            let Some(list) = list else { return Ok(None) };
            let ours = list.iter().find(|comment| {
                let text = comment["body"]
                    .as_str()
                    .or_else(|| comment["content"]["raw"].as_str());
                text.is_some_and(|text| text.starts_with(&marker))
            });
            if let Some(id) = ours.and_then(|comment| comment["id"].as_u64()) {
                return Ok(Some(id.to_string()));
            }
            if list.len() < PER_PAGE {
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn comments(&self, number: u32) -> Url {
        let number = number.to_string();
        match self.provider {
            Provider::Github | Provider::Git => self.path(&["issues", &number, "comments"]),
            Provider::Gitlab => self.path(&["merge_requests", &number, "notes"]),
            Provider::Bitbucket => self.path(&["pullrequests", &number, "comments"]),
        }
    }

    fn comment(&self, number: u32, id: &str) -> Url {
        match self.provider {
            Provider::Github => self.path(&["issues", "comments", id]),
            Provider::Gitlab | Provider::Bitbucket | Provider::Git => {
                let mut place = self.comments(number);
                if let Ok(mut segments) = place.path_segments_mut() {
                    segments.push(id);
                }
                place
            }
        }
    }

    /// A place below the repository. GitLab has its whole path in one segment.
    fn path(&self, below: &[&str]) -> Url {
        let mut url = self.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            match self.provider {
                Provider::Github | Provider::Git => {
                    segments.push("repos").extend(self.repository.split('/'))
                }
                Provider::Gitlab => segments.push("projects").push(&self.repository),
                Provider::Bitbucket => segments
                    .push("repositories")
                    .extend(self.repository.split('/')),
            }
            .extend(below);
        }
        url
    }

    async fn call(
        &self,
        attempted: &'static str,
        (method, place): (Method, Url),
        body: Option<&Value>,
    ) -> Result<Value, ForgeError> {
        let unreachable = |why| ForgeError::Unreachable { attempted, why };
        check(place.as_str(), self.permitted).map_err(|error| unreachable(error.to_string()))?;
        let client = client(&place, self.permitted).await.map_err(unreachable)?;
        let mut request = client
            .request(method, place)
            .timeout(WAIT)
            .header("accept", "application/json")
            .header("authorization", &self.authorization);
        if let Some(body) = body {
            request = request.json(body);
        }
        let failed = |error: reqwest::Error| unreachable(causes(&error.without_url()));
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            let said = shown(response).await;
            return Err(ForgeError::Refused {
                attempted,
                status,
                said,
            });
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if answer.len() + chunk.len() > MAX_ANSWER {
                return Err(unreachable("its answer is too large".to_owned()));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }
}
