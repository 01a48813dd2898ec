//! `helix audit`: the log of acts, page by page, and whether it is what was written.

use std::process::ExitCode;

use helix_routing::operators::{AuditCheck, AuditEntry, AuditPage};
use helix_service::clock;

use super::or_none;
use super::table::{moment, table};
use crate::arguments::{Audit, AuditVerify};
use crate::failure::NEEDS_OPERATOR;
use crate::output;
use helix_client::Origin;

/// Entries that are asked for at once.
const PAGE: u32 = 500;

pub(crate) async fn run(origin: &Origin, arguments: Audit, json: bool) -> anyhow::Result<ExitCode> {
    if let Some(AuditVerify::Verify { head }) = arguments.verify {
        return verify(origin, head, json).await;
    }
    let mut entries: Vec<AuditEntry> = Vec::new();
    let mut before: Option<u64> = None;
    let since = arguments.since.map(|since| since.at(clock::now()));
    loop {
        let missing = arguments
            .limit
            .saturating_sub(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        if missing == 0 {
            break;
        }
        let query = [
            (
                "project",
                arguments.project.as_ref().map(ToString::to_string),
            ),
            ("since", since.map(|at| at.as_millis().to_string())),
            ("by", arguments.by.clone()),
            ("action", arguments.action.clone()),
            ("before", before.map(|number| number.to_string())),
            ("limit", Some(missing.min(PAGE).to_string())),
        ];
        let page: AuditPage = origin.search(&["audit"], &query).await?;
        entries.extend(page.entries);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    if json {
        output::print_json(&entries)?;
    } else {
        output::print(&list(&entries));
        if before.is_some() {
            output::say(&format!(
                "and older ones: `--limit` shows more than {}",
                arguments.limit
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(
    origin: &Origin,
    head: Option<(u64, String)>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (number, hash) = head.unzip();
    let query = [
        ("number", number.map(|number| number.to_string())),
        ("hash", hash),
    ];
    let check: AuditCheck = origin.search(&["audit", "verification"], &query).await?;
    if json {
        output::print_json(&check)?;
    } else {
        if check.unchained > 0 {
            let older = check.unchained;
            output::say(&format!(
                "{older} entries are from before there was a chain"
            ));
        }
        match &check.broken {
            None => output::say(&format!(
                "{} entries are as they were written",
                check.entries
            )),
            Some(broken) => output::say(&format!(
                "the log is NOT as it was written: entry {}: {}",
                broken.number, broken.what
            )),
        }
        output::print(&format!("{}:{}", check.head.number, check.head.hash));
    }
    Ok(ExitCode::from(if check.broken.is_some() {
        NEEDS_OPERATOR
    } else {
        0
    }))
}

fn list(entries: &[AuditEntry]) -> String {
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            [
                entry.number.to_string(),
                moment(entry.at),
                entry.by.clone(),
                entry.action.clone(),
                entry.subject.clone(),
                or_none(entry.reason.as_ref()),
                entry.detail.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let heads = ["#", "WHEN (UTC)", "BY", "ACTION", "ON", "WHY", "DETAIL"];
    table(heads, &rows)
}
