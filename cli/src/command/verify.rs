//! `helix release verify`: whether origin's own store and the registry have all of a release.

use std::process::ExitCode;

use helix_routing::api::{NewReleaseCheck, RegistryCheck, ReleaseCheck};
use helix_routing::id::{Digest, ReleaseId};

use crate::output;
use helix_client::Origin;

pub(crate) async fn run(
    origin: &Origin,
    release: &ReleaseId,
    read: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let path = ["releases", release.as_str(), "verify"];
    let found: ReleaseCheck = origin.create(&path, &NewReleaseCheck { read }).await?;
    if json {
        output::print_json(&found)?;
    } else {
        output::print(&said(&found).join("\n"));
    }
    Ok(if is_whole(&found) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What was lost here and came back is there.
fn is_whole(found: &ReleaseCheck) -> bool {
    let registry = found.registry.as_ref();
    found.lost.is_empty()
        && registry.is_none_or(|there| {
            there.lost.is_empty() && there.tags_lost.is_empty() && there.problem.is_none()
        })
}

fn said(found: &ReleaseCheck) -> Vec<String> {
    let mut lines = vec![format!(
        "{}, release {}: {} manifests and blobs",
        found.site, found.release, found.blobs
    )];
    lines.push(match (found.mended.len(), found.lost.len()) {
        (0, 0) => "origin has all of it".to_owned(),
        (mended, 0) => format!("origin had lost {mended}, and fetched them from the registry"),
        (_, lost) => format!(
            "origin has lost {lost}, and they are nowhere to be had: deploy the same files again\n{}",
            listed(&found.lost)
        ),
    });
    lines.extend(found.registry.as_ref().map(there));
    lines
}

fn there(found: &RegistryCheck) -> String {
    let registry = &found.registry;
    if let Some(problem) = &found.problem {
        return format!("{registry} could not be asked for all of it: {problem}");
    }
    if found.lost.is_empty() && found.tags_lost.is_empty() {
        return format!("{registry} has all of it");
    }
    let mut text = format!(
        "{registry} lacks {} manifests or blobs and {} tags, which are pushed again",
        found.lost.len(),
        found.tags_lost.len()
    );
    if !found.lost.is_empty() {
        text.push('\n');
        text.push_str(&listed(&found.lost));
    }
    for tag in &found.tags_lost {
        text.push_str(&format!("\n  {tag}"));
    }
    text
}

fn listed(digests: &[Digest]) -> String {
    let lines: Vec<String> = digests.iter().map(|digest| format!("  {digest}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> ReleaseCheck {
        ReleaseCheck {
            release: "0123456789abcdef0123".parse().unwrap(),
            site: "shop/production".parse().unwrap(),
            artifact: digest(),
            blobs: 4,
            mended: Vec::new(),
            lost: Vec::new(),
            registry: Some(RegistryCheck {
                registry: "https://r.example/team".to_owned(),
                lost: Vec::new(),
                tags_lost: Vec::new(),
                problem: None,
            }),
        }
    }

    fn digest() -> Digest {
        format!("sha256:{}", "0".repeat(64)).parse().unwrap()
    }

    #[test]
    fn what_is_lost_is_said_and_is_a_failure_unless_it_came_back() {
        let mut now = found();
        assert!(is_whole(&now));
        assert!(
            said(&now)
                .join(" ")
                .contains("https://r.example/team has all of it")
        );
        now.mended.push(digest());
        assert!(is_whole(&now));
        assert!(said(&now).join(" ").contains("had lost 1, and fetched"));
        now.lost.push(digest());
        assert!(!is_whole(&now));
        let mut now = found();
        now.registry
            .as_mut()
            .unwrap()
            .tags_lost
            .push("main-1".to_owned());
        assert!(!is_whole(&now));
        assert!(
            said(&now)
                .join(" ")
                .contains("1 tags, which are pushed again")
        );
        now.registry.as_mut().unwrap().problem = Some("answered 503".to_owned());
        assert!(said(&now).join(" ").contains("answered 503"));
    }
}
