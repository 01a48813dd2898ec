//! GitHub's webhooks. Pure.

use serde::Deserialize;

use super::{
    Action, Change, Delivery, Hint, PayloadError, Said, commit, ignored, needed, no_effect, number,
    parsed, push,
};

#[derive(Deserialize)]
struct About {
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: Option<String>,
}

#[derive(Deserialize)]
struct PullRequestEvent {
    action: String,
    number: Option<u64>,
    before: Option<String>,
    pull_request: PullRequest,
}

#[derive(Deserialize)]
struct PullRequest {
    head: Side,
    base: Side,
}

#[derive(Deserialize)]
struct Side {
    sha: String,
    /// None where the repository is gone.
    repo: Option<SideRepository>,
}

#[derive(Deserialize)]
struct SideRepository {
    id: u64,
}

pub(super) fn read(event: &str, body: &[u8]) -> Result<Delivery, PayloadError> {
    let about: About = parsed(event, body)?;
    let repository = about.repository.and_then(|repository| repository.full_name);
    match event {
        "push" => push(event, (repository, "repository"), body),
        "pull_request" => pull_request(event, repository, body),
        "ping" => Ok(ignored(repository, "the webhook is set up")),
        _ => Ok(ignored(repository, no_effect(event))),
    }
}

fn pull_request(
    event: &str,
    repository: Option<String>,
    body: &[u8],
) -> Result<Delivery, PayloadError> {
    let about: PullRequestEvent = parsed(event, body)?;
    let before = about.before.as_deref();
    let before = before.map(|before| commit(event, before, "commit before"));
    let action = match about.action.as_str() {
        "opened" => Action::Opened,
        "reopened" => Action::Reopened,
        "synchronize" => Action::Updated {
            before: before.transpose()?.flatten(),
        },
        "closed" => Action::Closed,
        other => return Ok(ignored(repository, no_effect(&format!("{event} {other}")))),
    };
    let PullRequest { head, base } = about.pull_request;
    let number = number(event, about.number)?;
    let is_fork = match (&head.repo, &base.repo) {
        (Some(head), Some(base)) => head.id != base.id,
        (None, _) | (_, None) => true,
    };
    let change = Change {
        number,
        action,
        head: commit(event, &head.sha, "commit of the pull request")?,
        short: None,
        is_fork,
        elsewhere: None,
        reference: Some(format!("refs/pull/{number}/head")),
    };
    Ok(Delivery {
        repository: Some(needed(event, repository, "repository")?),
        said: Said::Hints(vec![Hint::Change(change)]),
    })
}
