//! Pure. What is said of a release in annotations, for people and for tools made for images.
//!
//! Project and environment are part of an artifact. Label and commit differ from one deployment of the same files to the next:
//! they are said where an artifact is listed, and no digest of one covers them.

use std::collections::BTreeMap;

use helix_routing::id::{Environment, SiteId};

pub(crate) const PROJECT: &str = "dev.helixstack.project";
pub(crate) const ENVIRONMENT: &str = "dev.helixstack.environment";
pub(crate) const LABEL: &str = "dev.helixstack.label";
pub(crate) const COMMIT: &str = "dev.helixstack.commit";

/// Of which site it is.
pub(crate) fn of_site(site: &SiteId) -> BTreeMap<String, String> {
    BTreeMap::from([
        (PROJECT.to_owned(), site.project.to_string()),
        (ENVIRONMENT.to_owned(), site.environment.to_string()),
    ])
}

/// A label as a tag, which cannot have a `/` (OCI distribution-spec, 2.2).
pub(crate) fn tag_of_label(label: &str) -> String {
    label.replace('/', "-")
}

/// The tag of the newest deployment of a commit in an environment.
pub(crate) fn tag_of_commit(commit: &str, environment: Environment) -> String {
    format!("git-{commit}-{}", tag_of_label(&environment.to_string()))
}

/// Commit and environment of such a tag.
pub(crate) fn commit_of_tag(tag: &str) -> Option<(&str, Environment)> {
    let (commit, environment) = tag.strip_prefix("git-")?.split_once('-')?;
    let environment = environment.replacen('-', "/", 1).parse().ok()?;
    Some((commit, environment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_and_its_environment_are_a_legal_tag_and_read_again() {
        let commit = "c".repeat(64);
        for (environment, tag) in [
            (Environment::Production, format!("git-{commit}-production")),
            (
                Environment::Preview(u32::MAX),
                format!("git-{commit}-preview-4294967295"),
            ),
        ] {
            assert_eq!(tag_of_commit(&commit, environment), tag);
            assert_eq!(commit_of_tag(&tag), Some((commit.as_str(), environment)));
            assert!(tag.len() <= 128);
        }
        for other in [
            "git-",
            "git-c",
            "git-c-staging",
            "main-3",
            "git-c-preview-0",
        ] {
            assert_eq!(commit_of_tag(other), None, "{other}");
        }
    }
}
