//! GitLab's webhooks. Pure.

use serde::Deserialize;

use super::{
    Action, Change, Delivery, Hint, PayloadError, Said, commit, ignored, needed, no_effect, number,
    parsed, push,
};

#[derive(Deserialize)]
struct About {
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Project {
    path_with_namespace: Option<String>,
}

#[derive(Deserialize)]
struct MergeRequestEvent {
    object_attributes: MergeRequest,
}

#[derive(Deserialize)]
struct MergeRequest {
    iid: Option<u64>,
    action: Option<String>,
    oldrev: Option<String>,
    source_project_id: Option<u64>,
    target_project_id: Option<u64>,
    last_commit: Option<LastCommit>,
}

#[derive(Deserialize)]
struct LastCommit {
    id: String,
}

pub(super) fn read(event: &str, body: &[u8]) -> Result<Delivery, PayloadError> {
    let about: About = parsed(event, body)?;
    let repository = about
        .project
        .and_then(|project| project.path_with_namespace);
    match event {
        "Push Hook" => push(event, (repository, "project"), body),
        "Merge Request Hook" => merge_request(event, repository, body),
        "Tag Push Hook" => Ok(ignored(repository, "tags are not deployed")),
        _ => Ok(ignored(repository, no_effect(event))),
    }
}

fn merge_request(
    event: &str,
    repository: Option<String>,
    body: &[u8],
) -> Result<Delivery, PayloadError> {
    let request = parsed::<MergeRequestEvent>(event, body)?.object_attributes;
    let before = request.oldrev.as_deref();
    let action = match (request.action.as_deref(), before) {
        (Some("open"), _) => Action::Opened,
        (Some("reopen"), _) => Action::Reopened,
        // Without it only texts and labels changed.
        (Some("update"), Some(before)) => Action::Updated {
            before: commit(event, before, "commit before")?,
        },
        (Some("close" | "merge"), _) => Action::Closed,
        (action, _) => {
            let action = action.unwrap_or("without an action");
            return Ok(ignored(repository, no_effect(&format!("{event} {action}"))));
        }
    };
    let number = number(event, request.iid)?;
    let head = request.last_commit.as_ref();
    let head = head.map(|head| commit(event, &head.id, "commit of the merge request"));
    let is_fork = match (request.source_project_id, request.target_project_id) {
        (Some(source), Some(target)) => source != target,
        (None, _) | (_, None) => true,
    };
    let change = Change {
        number,
        action,
        head: head.transpose()?.flatten(),
        short: None,
        is_fork,
        elsewhere: None,
        reference: Some(format!("refs/merge-requests/{number}/head")),
    };
    Ok(Delivery {
        repository: Some(needed(event, repository, "project")?),
        said: Said::Hints(vec![Hint::Change(change)]),
    })
}
