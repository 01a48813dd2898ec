//! Bitbucket's webhooks. Pure.

use helix_routing::id::Commit;
use serde::Deserialize;

use super::{
    Action, Change, Delivery, Hint, MAX_HINTS, PayloadError, Said, ignored, needed, no_effect,
    number, parsed,
};

#[derive(Deserialize)]
struct About {
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: Option<String>,
    uuid: Option<String>,
}

#[derive(Deserialize)]
struct PushEvent {
    push: Push,
}

#[derive(Deserialize)]
struct Push {
    changes: Vec<Changed>,
}

#[derive(Deserialize)]
struct Changed {
    old: Option<Tip>,
    new: Option<Tip>,
}

#[derive(Deserialize)]
struct Tip {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    hash: String,
}

#[derive(Deserialize)]
struct PullRequestEvent {
    pullrequest: PullRequest,
}

#[derive(Deserialize)]
struct PullRequest {
    id: Option<u64>,
    source: Side,
    destination: Side,
}

#[derive(Deserialize)]
struct Side {
    commit: Option<Target>,
    repository: Option<Repository>,
    branch: Option<Branch>,
}

#[derive(Deserialize)]
struct Branch {
    name: Option<String>,
}

pub(super) fn read(event: &str, body: &[u8]) -> Result<Delivery, PayloadError> {
    let about: About = parsed(event, body)?;
    let repository = about.repository.and_then(|repository| repository.full_name);
    let action = match event {
        "repo:push" => return push(event, repository, body),
        "pullrequest:created" => Action::Opened,
        // Said of texts as well; the commit tells.
        "pullrequest:updated" => Action::Updated { before: None },
        "pullrequest:fulfilled" | "pullrequest:rejected" => Action::Closed,
        _ => return Ok(ignored(repository, no_effect(event))),
    };
    pull_request(event, repository, action, body)
}

fn push(event: &str, repository: Option<String>, body: &[u8]) -> Result<Delivery, PayloadError> {
    let push: PushEvent = parsed(event, body)?;
    let mut hints = Vec::new();
    for changed in push.push.changes.into_iter().take(MAX_HINTS) {
        let Some(new) = changed
            .new
            .filter(|new| new.kind.as_deref() == Some("branch"))
        else {
            continue;
        };
        let before = changed.old.and_then(|old| old.target);
        hints.push(Hint::Push {
            branch: needed(event, new.name, "name of a branch")?,
            before: before.and_then(|before| full(&before.hash)),
            after: needed(
                event,
                new.target.and_then(|target| full(&target.hash)),
                "commit after",
            )?,
        });
    }
    if hints.is_empty() {
        return Ok(ignored(repository, "no branch has a new commit"));
    }
    Ok(Delivery {
        repository: Some(needed(event, repository, "repository")?),
        said: Said::Hints(hints),
    })
}

fn pull_request(
    event: &str,
    repository: Option<String>,
    action: Action,
    body: &[u8],
) -> Result<Delivery, PayloadError> {
    let PullRequest {
        id,
        source,
        destination,
    } = parsed::<PullRequestEvent>(event, body)?.pullrequest;
    let uuid = |side: &Side| {
        side.repository
            .as_ref()
            .and_then(|found| found.uuid.clone())
    };
    let is_fork = match (uuid(&source), uuid(&destination)) {
        (Some(source), Some(destination)) => source != destination,
        (None, _) | (_, None) => true,
    };
    let there = source.repository.and_then(|found| found.full_name);
    // There is nothing like `refs/pull/N/head`: what is of a fork is fetched from it.
    let elsewhere = there
        .filter(|there| is_fork && is_path(there))
        .map(|there| format!("https://bitbucket.org/{there}"));
    let hash = source.commit.map(|commit| commit.hash);
    let branch = source.branch.and_then(|branch| branch.name);
    let change = Change {
        number: number(event, id)?,
        action,
        head: hash.as_deref().and_then(full),
        short: hash.filter(|hash| is_short(hash)),
        is_fork,
        elsewhere,
        reference: branch
            .filter(|name| super::super::repository::check_branch(name).is_ok())
            .map(|name| format!("refs/heads/{name}")),
    };
    Ok(Delivery {
        repository: Some(needed(event, repository, "repository")?),
        said: Said::Hints(vec![Hint::Change(change)]),
    })
}

fn full(hash: &str) -> Option<Commit> {
    hash.parse().ok()
}

/// The first digits of a commit.
fn is_short(hash: &str) -> bool {
    (7..40).contains(&hash.len()) && hash.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_path(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._/{}".contains(c);
    !text.is_empty() && text.chars().all(legal) && !text.contains("..")
}
