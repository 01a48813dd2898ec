//! `helix explain`: which site, release and file answer a URL on every edge, and why.

use std::process::ExitCode;

use helix_routing::api::Explanation;

use super::or_none;
use super::table::table;
use crate::arguments::Explain;
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(
    origin: &Origin,
    arguments: Explain,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let explanation: Explanation = origin.query(&["explain"], "url", &arguments.url).await?;
    if json {
        output::print_json(&explanation)?;
    } else {
        output::print(&describe(&explanation));
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(explanation: &Explanation) -> String {
    let site = explanation
        .site
        .as_ref()
        .map_or_else(|| "no site".to_owned(), ToString::to_string);
    let rows: Vec<_> = explanation
        .answers
        .iter()
        .map(|answer| {
            [
                answer.region.to_string(),
                answer.edge.to_string(),
                or_none(answer.status.as_ref()),
                or_none(answer.release.as_ref()),
                or_none(answer.generation.as_ref()),
                or_none(answer.file.as_ref()),
                answer.reason.clone(),
            ]
        })
        .collect();
    let answers = table(
        [
            "REGION",
            "EDGE",
            "STATUS",
            "RELEASE",
            "GENERATION",
            "FILE",
            "WHY",
        ],
        &rows,
    );
    format!(
        "{}\nhost {} is {site}: {}\n\n{answers}",
        explanation.url, explanation.host, explanation.host_rule
    )
}
