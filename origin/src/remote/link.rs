//! One request to the registry: authorised, bounded in time and size, and what an answer says when it is not the wanted one.
//!
//! Invariant: what is shown to the registry is shown to no other host, whatever it redirects to or names as a place to upload. Nothing
//! it answers is believed: sizes are limited here, digests are compared by whoever asks.

use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Request, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use super::access::Access;
use super::config::{Address, RemoteConfig};
use super::{Attempted, OpenError, RemoteError};

/// How long a server may take to take a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Redirects of one request: storage behind a registry is one.
const MAX_REDIRECTS: usize = 3;
/// What carries bytes may be as slow as this, in bytes per second.
const SLOWEST: u64 = 128 * 1024;
/// How much of a refusal is read, in bytes, and shown, in characters.
const MAX_REFUSAL: usize = 16 * 1024;
const MAX_SHOWN: usize = 200;
/// No wish of a registry to be left alone is heeded for longer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// The registry, as far as one request needs it.
#[derive(Debug)]
pub(super) struct Link {
    http: reqwest::Client,
    pub(super) address: Address,
    access: Access,
    patience: Duration,
}

impl Link {
    pub(super) fn open(config: &RemoteConfig, address: Address) -> Result<Self, OpenError> {
        let access = Access::open(config.credentials.clone(), address.base.clone())?;
        let mut http = reqwest::Client::builder()
            .redirect(redirects(&address.base))
            .connect_timeout(CONNECT_WAIT)
            .timeout(config.answer_within.duration())
            .user_agent(concat!("HelixStack/", env!("CARGO_PKG_VERSION")));
        if address.is_loopback() {
            http = http.no_proxy();
        }
        Ok(Self {
            http: http.build().map_err(OpenError::Client)?,
            address,
            access,
            patience: config.answer_within.duration(),
        })
    }

    /// A place in a repository.
    pub(super) fn url(&self, repository: &str, below: &[&str]) -> Url {
        let mut url = self.address.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .push("v2")
                .extend(repository.split('/'))
                .extend(below);
        }
        url
    }

    /// The place that a header `Location` names: below the registry, or elsewhere with TLS.
    pub(super) fn place(
        &self,
        attempted: &Attempted,
        asked: &Url,
        headers: &HeaderMap,
    ) -> Result<Url, RemoteError> {
        let location = headers.get(reqwest::header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let url = location.and_then(|location| asked.join(location).ok());
        let url = url.filter(|url| self.is_own(url) || url.scheme() == "https");
        url.ok_or_else(|| RemoteError::odd(attempted, "no place that origin would send bytes to"))
    }

    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.address.base.origin()
    }

    /// How long a request that carries so many bytes may take.
    pub(super) fn patience(&self, bytes: u64) -> Duration {
        self.patience
            .saturating_add(Duration::from_secs(bytes / SLOWEST))
    }

    /// Sends what `build` makes, once more when the registry first wants to know who asks.
    pub(super) async fn send(
        &self,
        attempted: &Attempted,
        repository: &str,
        build: impl Fn(&reqwest::Client) -> Result<RequestBuilder, RemoteError>,
    ) -> Result<Response, RemoteError> {
        let unreachable = |source: reqwest::Error| RemoteError::Unreachable {
            attempted: attempted.clone(),
            source: source.without_url(),
        };
        let mut shown = self.access.shown(repository);
        let mut is_answered = false;
        loop {
            let mut request: Request = build(&self.http)?.build().map_err(unreachable)?;
            let is_own = self.is_own(request.url());
            if let Some(shown) = shown.clone().filter(|_| is_own) {
                request.headers_mut().insert(AUTHORIZATION, shown);
            }
            let response = self.http.execute(request).await.map_err(unreachable)?;
            if response.status() != StatusCode::UNAUTHORIZED || is_answered || !is_own {
                return Ok(response);
            }
            is_answered = true;
            let answer = self
                .access
                .answer(&self.http, attempted, repository, response.headers())
                .await?;
            shown = Some(answer);
        }
    }
}

/// Storage may be elsewhere, with TLS; without it only where the registry is.
fn redirects(base: &Url) -> Policy {
    let plain = (base.scheme() == "http").then(|| base.origin());
    Policy::custom(move |attempt| {
        let is_plain = plain.as_ref() == Some(&attempt.url().origin());
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if attempt.url().scheme() == "https" || is_plain {
            attempt.follow()
        } else {
            attempt.error("a redirect to where there is no TLS")
        }
    })
}

/// A body of `limit` bytes at most.
pub(super) async fn limited(
    mut response: Response,
    limit: usize,
    attempted: &Attempted,
) -> Result<Vec<u8>, RemoteError> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await;
        let chunk = chunk.map_err(|source| RemoteError::Unreachable {
            attempted: attempted.clone(),
            source: source.without_url(),
        })?;
        let Some(chunk) = chunk else {
            return Ok(body);
        };
        if body.len() + chunk.len() > limit {
            return Err(RemoteError::odd(
                attempted,
                "more than any legal answer has",
            ));
        }
        body.extend_from_slice(&chunk);
    }
}

/// An error as registries say it (OCI distribution-spec, error codes).
#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    code: String,
    #[serde(default)]
    message: String,
}

/// What a refusal says, for a person: without what could drive a terminal.
pub(super) async fn said(mut response: Response) -> Said {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_REFUSAL {
            break;
        }
    }
    let (code, text) = match serde_json::from_slice::<Errors>(&body) {
        Ok(Errors { errors }) => match errors.into_iter().next() {
            Some(OneError { code, message }) => (code.clone(), format!("{code}: {message}")),
            None => Default::default(),
        },
        Err(_) => (String::new(), String::from_utf8_lossy(&body).into_owned()),
    };
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let text: String = plain.take(MAX_SHOWN).collect();
    Said {
        code,
        text: text.trim().to_owned(),
    }
}

/// Why a registry refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The error code, if there is one.
    pub(super) code: String,
    text: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The refusal that a response is.
pub(super) async fn refusal(attempted: &Attempted, response: Response) -> RemoteError {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
    RemoteError::Refused {
        attempted: attempted.clone(),
        status,
        said: said(response).await,
        retry_after,
    }
}
