//! `helix domains`: hosts that show a site.

use std::process::ExitCode;

use helix_routing::api::{DomainView, NewDomain};

use super::table::{moment, table};
use crate::arguments::Domains;
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(
    origin: &Origin,
    arguments: Domains,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match arguments {
        Domains::Add { host, site } => {
            let path = ["projects", site.project.project.as_str(), "domains"];
            let domain = NewDomain {
                host,
                environment: site.environment,
            };
            let added: DomainView = origin.create(&path, &domain).await?;
            show(&[added], json)?;
        }
        Domains::List { project } => {
            let domains: Vec<DomainView> = origin
                .read(&["projects", project.project.as_str(), "domains"])
                .await?;
            show(&domains, json)?;
        }
        Domains::Remove { host, project } => {
            origin
                .discard(&[
                    "projects",
                    project.project.as_str(),
                    "domains",
                    &host.to_string(),
                ])
                .await?;
            output::say(&format!(
                "{host} shows nothing of {} any more",
                project.project
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(domains: &[DomainView], json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json(&domains);
    }
    let rows: Vec<_> = domains
        .iter()
        .map(|domain| {
            [
                domain.host.to_string(),
                domain.site.to_string(),
                moment(domain.added),
            ]
        })
        .collect();
    output::print(&table(["HOST", "SITE", "ADDED (UTC)"], &rows));
    Ok(())
}
