//! `helix freeze`: times at which nothing is deployed to a project's production.

use std::process::ExitCode;

use helix_routing::api::{FreezeView, NewFreeze};
use helix_service::clock;

use super::table::{moment, table};
use crate::arguments::Freeze;
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(
    origin: &Origin,
    arguments: Freeze,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match arguments {
        Freeze::Add {
            project,
            from,
            until,
            reason,
        } => {
            let now = clock::now();
            let from = from.map_or(now, |from| from.from(now));
            let new = NewFreeze {
                from,
                until: until.from(from),
                reason,
            };
            let path = ["projects", project.project.as_str(), "freezes"];
            let view: FreezeView = origin.create(&path, &new).await?;
            show(&[view], json)?;
        }
        Freeze::List { project } => {
            let path = ["projects", project.project.as_str(), "freezes"];
            let views: Vec<FreezeView> = origin.read(&path).await?;
            show(&views, json)?;
        }
        Freeze::Remove { freeze, project } => {
            let path = ["projects", project.project.as_str(), "freezes", &freeze];
            origin.discard(&path).await?;
            output::say(&format!("freeze {freeze} is removed"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(views: &[FreezeView], json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json(&views);
    }
    if views.is_empty() {
        output::print("no freezes");
        return Ok(());
    }
    let rows: Vec<_> = views
        .iter()
        .map(|view| {
            [
                view.id.clone(),
                moment(view.from),
                moment(view.until),
                view.by.clone(),
                view.reason.clone(),
            ]
        })
        .collect();
    let head = ["FREEZE", "FROM (UTC)", "UNTIL (UTC)", "BY", "REASON"];
    output::print(&table(head, &rows));
    Ok(())
}
