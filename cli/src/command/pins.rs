//! `helix pin`: visitors who get a release of their own.

use std::process::ExitCode;

use helix_routing::visitor::{NameAndValue, NewPin, PinView};

use super::NONE;
use super::table::{moment, table};
use crate::arguments::{Pin, Shows, Site};
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(origin: &Origin, arguments: Pin, json: bool) -> anyhow::Result<ExitCode> {
    match arguments {
        Pin::Add {
            label,
            release,
            site,
            header,
            cookie,
            reason,
        } => {
            let new = NewPin {
                environment: site.environment,
                label,
                release,
                header: header.map(shown),
                cookie: cookie.map(shown),
                reason,
            };
            let path = ["projects", site.project.project.as_str(), "pins"];
            let pins: Vec<PinView> = origin.create(&path, &new).await?;
            show(&pins, json)?;
        }
        Pin::List { site } => show(&listed(origin, &site).await?, json)?,
        Pin::Remove { label, site } => {
            let path = [
                "projects",
                site.project.project.as_str(),
                "pins",
                label.as_str(),
            ];
            let environment = site.environment.to_string();
            origin
                .discard_with(&path, ("environment", &environment))
                .await?;
            output::say(&format!("pin {label} is gone"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn listed(origin: &Origin, site: &Site) -> anyhow::Result<Vec<PinView>> {
    let path = ["projects", site.project.project.as_str(), "pins"];
    let environment = site.environment.to_string();
    Ok(origin.query(&path, "environment", &environment).await?)
}

fn shown(shows: Shows) -> NameAndValue {
    NameAndValue {
        name: shows.name,
        value: shows.value,
    }
}

fn show(pins: &[PinView], json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json(&pins);
    }
    if pins.is_empty() {
        output::print("no pins");
        return Ok(());
    }
    let rows: Vec<_> = pins.iter().map(row).collect();
    let heads = [
        "PIN",
        "RELEASE",
        "ALSO BY",
        "BY",
        "SINCE (UTC)",
        "REASON",
        "NOTE",
    ];
    output::print(&table(heads, &rows));
    Ok(())
}

fn row(pin: &PinView) -> [String; 7] {
    let note = if pin.told {
        NONE
    } else {
        "told to edges with the next step of the rollout that runs"
    };
    [
        pin.label.to_string(),
        pin.release.to_string(),
        if pin.by == "label" {
            NONE.to_owned()
        } else {
            pin.by.clone()
        },
        pin.by_whom.clone(),
        moment(pin.since),
        pin.reason.clone().unwrap_or_else(|| NONE.to_owned()),
        note.to_owned(),
    ]
}
