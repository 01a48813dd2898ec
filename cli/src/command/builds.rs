//! `helix builds`, `helix logs`, `helix redeploy`.

use std::process::ExitCode;

use helix_routing::api::{BuildState, BuildView, LogLine, NewRedeploy};

use super::or_none;
use super::table::{moment, table};
use crate::arguments::{BuildWord, Builds, Logs, Redeploy};
use crate::failure::{REFUSED, STILL_RUNNING};
use crate::output;
use helix_client::Origin;

/// Digits of a commit that are shown where there is little room.
const SHORT_COMMIT: usize = 12;

pub(crate) async fn run(
    origin: &Origin,
    arguments: Builds,
    json: bool,
) -> anyhow::Result<ExitCode> {
    if let Some(word) = arguments.word {
        return say(origin, &word, json).await;
    }
    let project = arguments.project.map(|project| project.to_string());
    let builds: Vec<BuildView> = origin.search(&["builds"], &[("project", project)]).await?;
    if json {
        output::print_json(&builds)?;
    } else {
        output::print(&rows(&builds));
    }
    Ok(ExitCode::SUCCESS)
}

async fn say(origin: &Origin, word: &BuildWord, json: bool) -> anyhow::Result<ExitCode> {
    let (build, what) = match word {
        BuildWord::Approve { build } => (build, "approve"),
        BuildWord::Cancel { build } => (build, "cancel"),
    };
    let view: BuildView = origin
        .create(&["builds", build.as_str(), what], &())
        .await?;
    if json {
        output::print_json(&view)?;
    } else {
        output::print(&described(&view));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn logs(origin: &Origin, arguments: Logs, json: bool) -> anyhow::Result<ExitCode> {
    let Logs { build, follow } = arguments;
    if !follow {
        let view: BuildView = origin.read(&["builds", build.as_str()]).await?;
        if view.state == BuildState::Waiting || view.state == BuildState::Queued {
            output::say(&described(&view));
            return Ok(ExitCode::from(STILL_RUNNING));
        }
    }
    let print = |line: &LogLine| output::print(&written(line, json));
    let ended = origin.follow_build(&build, follow, print).await?;
    Ok(match ended {
        Some(view) => told(&view),
        None => ExitCode::from(STILL_RUNNING),
    })
}

pub(crate) async fn redeploy(
    origin: &Origin,
    arguments: Redeploy,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let project = arguments.site.project.project;
    let new = NewRedeploy {
        environment: arguments.site.environment,
    };
    let path = ["projects", project.as_str(), "redeploys"];
    let view: BuildView = origin.create(&path, &new).await?;
    output::say(&described(&view));
    if json {
        output::print_json(&view)?;
    }
    if arguments.detach || view.state == BuildState::Waiting {
        output::say(&format!(
            "watch it with `helix logs --follow --build {}`",
            view.id
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let say = |line: &LogLine| output::say(&written(line, false));
    let ended = origin.follow_build(&view.id, true, say).await?;
    Ok(ended.map_or_else(|| ExitCode::from(STILL_RUNNING), |view| told(&view)))
}

fn told(view: &BuildView) -> ExitCode {
    output::say(&described(view));
    match view.state {
        BuildState::Succeeded => ExitCode::SUCCESS,
        BuildState::Failed | BuildState::Cancelled => ExitCode::from(REFUSED),
        BuildState::Waiting | BuildState::Queued | BuildState::Claimed => {
            ExitCode::from(STILL_RUNNING)
        }
    }
}

fn written(line: &LogLine, json: bool) -> String {
    if json {
        return serde_json::to_string(line).unwrap_or_default();
    }
    line.text.clone()
}

fn rows(builds: &[BuildView]) -> String {
    let rows: Vec<_> = builds
        .iter()
        .map(|build| {
            [
                build.id.to_string(),
                build.site.to_string(),
                short(build),
                build.state.name().to_owned(),
                or_none(build.deployment.as_ref()),
                moment(build.created),
                build.by.clone(),
            ]
        })
        .collect();
    let heads = [
        "BUILD",
        "SITE",
        "COMMIT",
        "STATE",
        "DEPLOYMENT",
        "ASKED FOR (UTC)",
        "BY",
    ];
    table(heads, &rows)
}

fn short(build: &BuildView) -> String {
    build.commit.as_str().chars().take(SHORT_COMMIT).collect()
}

fn described(build: &BuildView) -> String {
    let (id, site, commit) = (&build.id, &build.site, short(build));
    let state = match build.state {
        BuildState::Waiting => {
            format!("waits: it is of a fork; let it be built with `helix builds approve {id}`")
        }
        BuildState::Queued => "waits for a worker".to_owned(),
        BuildState::Claimed => format!("is built by {}", or_none(build.worker.as_ref())),
        BuildState::Succeeded => format!(
            "has succeeded: deployment {}, {}",
            or_none(build.deployment.as_ref()),
            build.url
        ),
        BuildState::Failed => format!("has failed: {}", or_none(build.reason.as_ref())),
        BuildState::Cancelled => format!("was cancelled: {}", or_none(build.reason.as_ref())),
    };
    format!("build {id} of {commit} for {site} {state}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: &str) -> BuildView {
        let json = format!(
            r#"{{"id":"0011223344556677","project":"shop","number":3,"site":"shop/preview/42","commit":"{}","trust":"fork",
            "state":"{state}","attempts":0,"url":"http://x/","by":"github acme/shop","created":0,"reason":"it broke"}}"#,
            "a".repeat(40)
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn every_state_says_what_to_do_or_what_came_of_it() {
        for (state, part) in [
            ("waiting", "helix builds approve 0011223344556677"),
            ("queued", "waits for a worker"),
            ("failed", "it broke"),
            ("cancelled", "it broke"),
        ] {
            assert!(described(&view(state)).contains(part), "{state}");
        }
        assert!(rows(&[view("queued")]).contains("aaaaaaaaaaaa  queued"));
    }
}
