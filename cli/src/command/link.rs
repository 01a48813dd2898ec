//! `helix link`, `helix unlink`. A webhook secret is printed once, when it is made, and nowhere else.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use helix_routing::api::{BuildSettings, LinkView, LinkedView, NewLink};
use tokio::io::AsyncReadExt as _;

use super::NONE;
use crate::arguments::{Link, Unlink};
use crate::output;
use helix_client::Origin;

/// More than any credential or all variables of a project.
const MAX_INPUT_BYTES: u64 = 256 * 1024;

pub(crate) async fn run(origin: &Origin, arguments: Link, json: bool) -> anyhow::Result<ExitCode> {
    let project = arguments.project.project.clone();
    let path = ["projects", project.as_str(), "link"];
    if arguments.rotate_secret {
        let path = ["projects", project.as_str(), "link", "secret"];
        let linked: LinkedView = origin.create(&path, &()).await?;
        return shown(&linked, json);
    }
    let Some(url) = arguments.repository.clone() else {
        let link: LinkView = origin.read(&path).await?;
        if json {
            output::print_json(&link)?;
        } else {
            output::print(&described(&link));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let linked: LinkedView = origin.put(&path, &wanted(arguments, url).await?).await?;
    shown(&linked, json)
}

pub(crate) async fn end(origin: &Origin, arguments: Unlink) -> anyhow::Result<ExitCode> {
    let project = arguments.project.project;
    origin
        .discard(&["projects", project.as_str(), "link"])
        .await?;
    output::say(&format!(
        "{project} is linked to no repository any more; what is deployed stays"
    ));
    Ok(ExitCode::SUCCESS)
}

async fn wanted(arguments: Link, url: String) -> anyhow::Result<NewLink> {
    let credential = match &arguments.credential_file {
        Some(path) => Some(read(path, "credential").await?),
        None => None,
    };
    Ok(NewLink {
        url,
        provider: arguments.provider.map(Into::into),
        api: arguments.provider_api,
        branch: Some(arguments.branch),
        settings: BuildSettings {
            root: arguments.root,
            framework: arguments.framework,
            install: arguments.install,
            build: arguments.build,
            output: arguments.output,
            start: arguments.start,
        },
        private: arguments.private,
        allow_uploads: arguments.allow_uploads,
        forks: arguments.forks.into(),
        credential,
        preview_days: Some(arguments.preview_days),
    })
}

/// A secret of this kind, without what surrounds it.
pub(super) async fn read(path: &Path, what: &str) -> anyhow::Result<String> {
    let text = if path == Path::new("-") {
        input().await?
    } else {
        let read = tokio::fs::read_to_string(path).await;
        read.with_context(|| format!("read the {what} {}", path.display()))?
    };
    Ok(text.trim().to_owned())
}

/// Standard input to its end.
pub(super) async fn input() -> anyhow::Result<String> {
    let mut text = String::new();
    let mut input = tokio::io::stdin().take(MAX_INPUT_BYTES);
    let read = input.read_to_string(&mut text).await;
    read.context("read standard input")?;
    Ok(text)
}

fn shown(linked: &LinkedView, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::print_json(linked)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::say(&described(&linked.link));
    match (&linked.link.webhook_url, &linked.webhook_secret) {
        (Some(url), Some(secret)) => {
            output::say(&format!(
                "let {} send pushes and pull requests to {url}, as JSON, with this secret, shown this once:",
                linked.link.provider.name()
            ));
            output::print(secret);
        }
        (None, _) => output::say("its server is asked for new commits each minute"),
        (Some(_), None) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn described(link: &LinkView) -> String {
    let settings = &link.settings;
    let or_found = |value: &Option<String>| match value.as_deref() {
        None => "found from the repository".to_owned(),
        Some("") => "nothing".to_owned(),
        Some(value) => value.to_owned(),
    };
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let rows = [
        ("repository", link.url.clone()),
        ("provider", link.provider.name().to_owned()),
        ("branch", link.branch.clone()),
        (
            "root",
            settings.root.clone().unwrap_or_else(|| ".".to_owned()),
        ),
        ("install", or_found(&settings.install)),
        ("build", or_found(&settings.build)),
        ("output", or_found(&settings.output)),
        (
            "start",
            settings.start.clone().unwrap_or_else(|| NONE.to_owned()),
        ),
        ("private", yes(link.private).to_owned()),
        ("credential", yes(link.has_credential).to_owned()),
        ("forks", link.forks.name().to_owned()),
        (
            "previews",
            match link.preview_days {
                0 => "stay until they are closed".to_owned(),
                days => format!("taken down {days} days after their newest deployment"),
            },
        ),
        ("uploads", yes(link.allow_uploads).to_owned()),
        (
            "webhook",
            link.webhook_url.clone().unwrap_or_else(|| NONE.to_owned()),
        ),
    ];
    let lines = rows.map(|(name, value)| format!("{name:<11} {value}"));
    format!("{} is linked\n{}", link.project, lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_told_with_what_is_found_and_what_is_said() {
        let link: LinkView = serde_json::from_str(
            r#"{"project":"shop","url":"https://github.com/acme/shop","repository":"acme/shop","provider":"github",
            "api":"https://api.github.com","branch":"main","settings":{"install":"","build":"make","start":"node ."},"private":false,
            "allow_uploads":false,"forks":"approve","has_credential":true,"webhook_url":"https://o/v1/webhooks/in/github/shop",
            "secret_before_until":null,"by":"ana","created":1}"#,
        )
        .unwrap();
        let text = described(&link);
        for line in [
            "install     nothing",
            "build       make",
            "output      found from",
            "start       node .",
            "credential  yes",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
