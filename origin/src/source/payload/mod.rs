//! What providers' webhooks say, as hints of one shape. Pure.
//!
//! Invariant: whatever bytes come, they are read, ignored for a reason that is said, or refused; nothing is believed that is not a
//! legal commit, branch or number.

use std::borrow::Cow;

use helix_routing::api::Provider;
use helix_routing::id::Commit;
use http::HeaderMap;
use serde::Deserialize;

mod bitbucket;
mod github;
mod gitlab;

/// Hints that one delivery may hold. A provider names no more changes in one.
const MAX_HINTS: usize = 100;

/// What a delivery says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The path of the repository it is about, if it is about one.
    pub repository: Option<String>,
    /// What may follow from it.
    pub said: Said,
}

/// What may follow from a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Something changed. A hint, since deliveries come late, twice, and in any order.
    Hints(Vec<Hint>),
    /// Nothing that matters here, and why.
    Ignored(Cow<'static, str>),
}

/// Something changed in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A branch has a new commit.
    Push {
        /// Its name.
        branch: String,
        /// What it had before; none if it is new.
        before: Option<Commit>,
        /// What it has now.
        after: Commit,
    },
    /// A pull request changed.
    Change(Change),
}

/// What became of a pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub number: u32,
    /// What happened.
    pub action: Action,
    /// Its newest commit; none where the provider leaves it out.
    pub head: Option<Commit>,
    /// The first digits of it, where the provider says no more: it has to be asked for the rest.
    pub short: Option<String>,
    /// Whether the commit is of another repository, or that is not known.
    pub is_fork: bool,
    /// Where the commit can be fetched from, if not from the repository itself.
    pub elsewhere: Option<String>,
    /// What git is asked for.
    pub reference: Option<String>,
}

/// What happened to a pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Opened,
    /// It was closed, and is not any more.
    Reopened,
    /// It has a new commit.
    Updated {
        /// The one before, if it is said.
        before: Option<Commit>,
    },
    /// It is over.
    Closed,
}

/// A delivery cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// It does not say what it is about.
    #[error("the delivery has no header {0}")]
    Event(&'static str),
    /// It is not what the provider sends for this event.
    #[error("read the delivery {event}")]
    Json {
        /// The event.
        event: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It is JSON, and says what cannot be.
    #[error("the delivery {event} has no {what}")]
    Missing {
        /// The event.
        event: String,
        /// What is not there, or is not legal.
        what: &'static str,
    },
}

/// Reads a delivery whose signature was verified.
///
/// # Errors
/// When it is not what the provider sends.
pub fn read(
    provider: Provider,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Delivery, PayloadError> {
    let name = match provider {
        Provider::Github => "x-github-event",
        Provider::Gitlab => "x-gitlab-event",
        Provider::Bitbucket => "x-event-key",
        Provider::Git => return Ok(ignored(None, "plain git servers send no webhooks")),
    };
    let event = super::signature::one(headers, name).ok_or(PayloadError::Event(name))?;
    match provider {
        Provider::Github => github::read(event, body),
        Provider::Gitlab => gitlab::read(event, body),
        Provider::Bitbucket => bitbucket::read(event, body),
        Provider::Git => Ok(ignored(None, "plain git servers send no webhooks")),
    }
}

fn ignored(repository: Option<String>, why: impl Into<Cow<'static, str>>) -> Delivery {
    Delivery {
        repository,
        said: Said::Ignored(why.into()),
    }
}

/// As it is said of an event that has no effect here.
fn no_effect(event: &str) -> String {
    let event: String = event.chars().take(80).collect();
    format!("{event} has no effect here")
}

fn parsed<'a, T: Deserialize<'a>>(event: &str, body: &'a [u8]) -> Result<T, PayloadError> {
    serde_json::from_slice(body).map_err(|source| PayloadError::Json {
        event: event.chars().take(80).collect(),
        source,
    })
}

/// Takes what has to be there.
fn needed<T>(event: &str, value: Option<T>, what: &'static str) -> Result<T, PayloadError> {
    value.ok_or_else(|| PayloadError::Missing {
        event: event.chars().take(80).collect(),
        what,
    })
}

/// A commit; none for the zeros that stand for none.
fn commit(event: &str, digits: &str, what: &'static str) -> Result<Option<Commit>, PayloadError> {
    if !digits.is_empty() && digits.bytes().all(|digit| digit == b'0') {
        return Ok(None);
    }
    needed(event, digits.parse().ok(), what).map(Some)
}

/// The branch of `refs/heads/main`.
fn branch(reference: &str) -> Option<&str> {
    reference.strip_prefix("refs/heads/")
}

/// A push, as GitHub and GitLab both describe it.
#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    before: String,
    after: String,
    /// Said by GitHub beside the zeros.
    #[serde(default)]
    deleted: bool,
}

/// Reads a push to the repository, which is named in the part of the payload called so.
fn push(
    event: &str,
    (repository, part): (Option<String>, &'static str),
    body: &[u8],
) -> Result<Delivery, PayloadError> {
    let push: Push = parsed(event, body)?;
    let Some(branch) = branch(&push.reference) else {
        return Ok(ignored(repository, "tags are not deployed"));
    };
    let after = commit(event, &push.after, "commit after")?;
    let Some(after) = after.filter(|_| !push.deleted) else {
        return Ok(ignored(repository, "the branch was removed"));
    };
    let hint = Hint::Push {
        branch: branch.to_owned(),
        before: commit(event, &push.before, "commit before")?,
        after,
    };
    Ok(Delivery {
        repository: Some(needed(event, repository, part)?),
        said: Said::Hints(vec![hint]),
    })
}

/// A number of a pull request, as previews are named by it.
fn number(event: &str, number: Option<u64>) -> Result<u32, PayloadError> {
    let number = number.and_then(|number| u32::try_from(number).ok());
    needed(
        event,
        number.filter(|number| *number > 0),
        "number of a pull request",
    )
}

#[cfg(test)]
mod tests;
