//! `helix purge`: lets edges forget responses that they keep, and says which of them have.

use std::process::ExitCode;
use std::time::Duration;

use helix_routing::api::{NewPurge, PurgeView, RegionPurge};
use tokio::time::{Instant, sleep};

use super::joined;
use crate::arguments::Purge;
use crate::failure::STILL_RUNNING;
use crate::output;
use helix_client::Origin;
use helix_client::retry::{FIRST_CONTACT, patiently};

/// How long edges that are there are waited for: they have a purge within a second, and an edge that says nothing for
/// so long has lost its lease.
const CONFIRM_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at who has confirmed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) async fn run(origin: &Origin, arguments: Purge, json: bool) -> anyhow::Result<ExitCode> {
    let Purge {
        site,
        urls,
        tags,
        release,
        everything: _,
        regions,
        stale,
        detach,
    } = arguments;
    let environment = site.environment.to_string();
    let new = NewPurge {
        environment: site.environment,
        urls,
        tags,
        release,
        regions: (!regions.is_empty()).then_some(regions),
        stale,
    };
    let project = site.project.project;
    let path = ["projects", project.as_str(), "purges"];
    // The same purge again does no harm.
    let mut view: PurgeView =
        patiently(FIRST_CONTACT, async || origin.create(&path, &new).await).await?;
    let until = Instant::now() + CONFIRM_LIMIT;
    while !detach && !is_confirmed(&view) && Instant::now() < until {
        sleep(LOOK_INTERVAL).await;
        let newest: PurgeView = origin.query(&path, "environment", &environment).await?;
        look_again(&mut view, newest);
    }
    if json {
        output::print_json(&view)?;
    } else {
        for region in &view.regions {
            output::say(&describe(region));
        }
    }
    if detach || is_confirmed(&view) {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::from(STILL_RUNNING))
    }
}

fn is_confirmed(view: &PurgeView) -> bool {
    view.regions.iter().all(|region| region.waiting.is_empty())
}

/// Takes over what is known by now about the regions that were purged. A later purge that is confirmed confirms ours.
fn look_again(view: &mut PurgeView, newest: PurgeView) {
    for newer in newest.regions {
        let ours = view
            .regions
            .iter_mut()
            .find(|ours| ours.region == newer.region);
        if let Some(ours) = ours {
            *ours = newer;
        }
    }
}

fn describe(purge: &RegionPurge) -> String {
    let edges = purge.confirmed.len() + purge.waiting.len() + purge.absent.len();
    let mut text = format!(
        "{}: {} of {edges} edges have forgotten",
        purge.region,
        purge.confirmed.len(),
    );
    if !purge.waiting.is_empty() {
        text.push_str(&format!("; not yet: {}", joined(&purge.waiting)));
    }
    if !purge.absent.is_empty() {
        text.push_str(&format!(
            "; not there, and will when they are: {}",
            joined(&purge.absent)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(waiting: &[&str], absent: &[&str]) -> RegionPurge {
        let edges = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        RegionPurge {
            region: "fra".parse().unwrap(),
            purge: helix_routing::id::Generation(3),
            confirmed: edges(&["fra-1"]),
            waiting: edges(waiting),
            absent: edges(absent),
        }
    }

    #[test]
    fn edges_that_have_not_confirmed_are_named() {
        assert_eq!(
            describe(&region(&[], &[])),
            "fra: 1 of 1 edges have forgotten"
        );
        assert_eq!(
            describe(&region(&["fra-2"], &["fra-3"])),
            "fra: 1 of 3 edges have forgotten; not yet: fra-2; not there, and will when they are: fra-3"
        );
    }

    #[test]
    fn only_the_regions_that_were_purged_are_waited_for() {
        let site = || "shop/production".parse().unwrap();
        let mut view = PurgeView {
            site: site(),
            regions: vec![region(&["fra-2"], &[])],
        };
        assert!(!is_confirmed(&view));
        let mut elsewhere = region(&["iad-1"], &[]);
        elsewhere.region = "iad".parse().unwrap();
        look_again(
            &mut view,
            PurgeView {
                site: site(),
                regions: vec![elsewhere, region(&[], &["fra-2"])],
            },
        );
        assert!(is_confirmed(&view), "who is not there is not waited for");
        assert_eq!(view.regions.len(), 1);
    }
}
