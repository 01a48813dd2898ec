//! `helix projects`.

use std::io;
use std::process::ExitCode;

use anyhow::bail;
use helix_routing::api::ProjectView;
use helix_routing::id::ProjectName;

use super::table::{moment, table};
use super::{NONE, joined};
use crate::arguments::Projects;
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(
    origin: &Origin,
    arguments: Projects,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let projects: Vec<ProjectView> = match arguments {
        Projects::List => origin.read(&["projects"]).await?,
        Projects::Delete { project, yes } => {
            if !yes {
                confirm(&project)?;
            }
            let removed: ProjectView = origin.remove(&["projects", project.as_str()]).await?;
            output::say(&format!(
                "{project} is gone from every edge; kept for 7 days, `helix projects restore {project}` brings it back"
            ));
            vec![removed]
        }
        Projects::Restore { project } => {
            vec![
                origin
                    .create(
                        &["projects", project.as_str(), "restore"],
                        &serde_json::Map::new(),
                    )
                    .await?,
            ]
        }
    };
    if json {
        output::print_json(&projects)?;
    } else {
        output::print(&list(&projects));
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the name typed: a word that is typed by habit would not stop anyone.
fn confirm(project: &ProjectName) -> anyhow::Result<()> {
    output::say(&format!(
        "{project} will answer 404 on every host, in every region, at once. It is kept for 7 days.\n\
         Type its name to go on:"
    ));
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    if line.trim() != project.as_str() {
        bail!("{project} was not typed, so nothing was deleted; --yes deletes without asking");
    }
    Ok(())
}

fn list(projects: &[ProjectView]) -> String {
    let rows: Vec<_> = projects
        .iter()
        .map(|project| {
            [
                project.project.to_string(),
                moment(project.created),
                joined(&project.sites),
                project.purge_at.map_or_else(|| NONE.to_owned(), moment),
            ]
        })
        .collect();
    table(
        ["PROJECT", "CREATED (UTC)", "SITES", "GONE FOR GOOD (UTC)"],
        &rows,
    )
}
