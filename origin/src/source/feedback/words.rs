//! What is said to a provider of a build. Pure.
//!
//! Invariant: what a build or its commit says of itself is shown as it is, and cannot end the block that it is in.

use helix_routing::api::BuildView;

/// Longest text of a status, in characters: GitHub takes no more.
const MAX_STATUS: usize = 140;
/// Longest reason in a comment, in characters.
const MAX_REASON: usize = 2000;

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Somebody has to approve it.
    Waits,
    /// It is built, or waits for a worker.
    Building,
    /// It is built, and on its way to the edges.
    RollsOut,
    /// It is live everywhere.
    Live,
    /// It did not pass, and what was before is live.
    WentBack,
    /// It could not be built.
    Failed,
    /// Something newer came.
    Cancelled,
    /// Nobody has pushed to it for long, and it was taken down.
    Expired,
}

/// The status of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Names it: one for each site.
    pub context: String,
    /// In the words of GitHub, GitLab and Bitbucket.
    pub state: [&'static str; 3],
    /// One line.
    pub description: String,
    /// Where it leads.
    pub url: String,
}

/// What a comment begins with, by which it is found again.
pub(super) fn marker(project: &str) -> String {
    format!("<!-- helix:{project} -->")
}

/// The status of a build's commit.
pub(super) fn status(view: &BuildView, fate: Fate) -> Status {
    let kind = if view.site.environment == helix_routing::id::Environment::Production {
        "production"
    } else {
        "preview"
    };
    let text = match (&view.reason, fate) {
        (Some(reason), Fate::Failed | Fate::Cancelled) => format!("{}: {reason}", sentence(fate)),
        _ => sentence(fate).to_owned(),
    };
    let line = text.lines().next().unwrap_or_default();
    Status {
        context: format!("helix/{}/{kind}", view.project),
        state: words(fate),
        description: line.chars().take(MAX_STATUS).collect(),
        url: view.url.clone(),
    }
}

/// The comment of a pull request; of one whose preview is protected, it says how to get in.
pub(super) fn remark(view: &BuildView, fate: Fate, is_protected: bool) -> String {
    let marker = marker(view.project.as_str());
    let took = match (view.started, view.ended) {
        (Some(started), Some(ended)) => format!("{} s", ended.since(started).as_secs()),
        (Some(_) | None, _) => "–".to_owned(),
    };
    let mut text = format!(
        "{marker}\n**{}**: {}\n\n| preview | commit | build | took |\n| --- | --- | --- | --- |\n| {} | `{}` | `{}` | {took} |\n",
        view.project,
        sentence(fate),
        view.url,
        view.commit,
        view.id
    );
    if let (Some(reason), Fate::Failed) = (&view.reason, fate) {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        // Four spaces before each line: no text can end such a block.
        let lines: Vec<String> = reason.lines().map(|line| format!("    {line}")).collect();
        text.push_str(&format!("\n{}\n", lines.join("\n")));
    }
    if is_protected && fate != Fate::Expired {
        let (project, environment) = (&view.project, view.site.environment);
        text.push_str(&format!(
            "\nIt is protected: open it by a link of `helix share --project {project} --env {environment}`, or with the project's \
             password if it has one.\n"
        ));
    }
    if fate == Fate::Waits {
        let id = &view.id;
        text.push_str(&format!("\nIt is of another repository: `helix builds approve {id}` builds this commit, and no other.\n"));
    }
    text
}

const fn sentence(fate: Fate) -> &'static str {
    match fate {
        Fate::Waits => "waits for an approval",
        Fate::Building => "is being built",
        Fate::RollsOut => "is built, and on its way",
        Fate::Live => "is live",
        Fate::WentBack => "did not pass its checks; what was before is live",
        Fate::Failed => "could not be built",
        Fate::Cancelled => "was cancelled",
        Fate::Expired => "was taken down for its age; the next commit brings it back",
    }
}

const fn words(fate: Fate) -> [&'static str; 3] {
    match fate {
        Fate::Waits => ["pending", "pending", "INPROGRESS"],
        Fate::Building | Fate::RollsOut => ["pending", "running", "INPROGRESS"],
        // It has passed, whatever has become of it since.
        Fate::Live | Fate::Expired => ["success", "success", "SUCCESSFUL"],
        Fate::WentBack | Fate::Failed => ["failure", "failed", "FAILED"],
        Fate::Cancelled => ["error", "canceled", "STOPPED"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(reason: &str) -> BuildView {
        let json = serde_json::json!({
            "id": "0011223344556677", "project": "shop", "number": 3, "site": "shop/preview/42", "commit": "a".repeat(40),
            "trust": "fork", "state": "failed", "attempts": 1, "url": "http://pr-42/", "by": "x", "created": 0,
            "started": 1000, "ended": 8000, "reason": reason,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_status_is_one_line_that_fits() {
        let status = status(
            &view(&format!("first {}\nsecond", "x".repeat(500))),
            Fate::Failed,
        );
        assert_eq!(status.description.chars().count(), MAX_STATUS);
        assert!(status.description.starts_with("could not be built: first"));
        assert_eq!(status.context, "helix/shop/preview");
        assert_eq!(status.state, ["failure", "failed", "FAILED"]);
    }

    #[test]
    fn no_reason_ends_the_block_that_it_is_in() {
        let text = remark(
            &view("```\n<script>x</script>\n# title"),
            Fate::Failed,
            false,
        );
        assert!(text.starts_with("<!-- helix:shop -->\n"));
        assert!(text.contains("7 s"), "{text}");
        for line in ["    ```", "    <script>", "    # title"] {
            assert!(text.contains(line), "{text}");
        }
        let waits = remark(&view("x"), Fate::Waits, false);
        assert!(waits.contains("helix builds approve 0011223344556677"));
        assert!(!waits.contains("protected"));
    }

    #[test]
    fn the_comment_of_a_protected_preview_says_how_to_get_in() {
        let text = remark(&view("x"), Fate::Live, true);
        assert!(
            text.contains("helix share --project shop --env preview/42"),
            "{text}"
        );
        assert!(!remark(&view("x"), Fate::Expired, true).contains("helix share"));
    }
}
