//! `helix restart`: begins what is live anew, or shows what that would be.

use std::process::ExitCode;
use std::time::Instant;

use helix_routing::api::{NewRestart, RestartStep, RestartView};
use helix_service::random;

use super::joined;
use super::table::table;
use crate::arguments::Restart;
use crate::output;
use crate::rollout;
use helix_client::Origin;
use helix_client::retry::{FIRST_CONTACT, patiently};

pub(crate) async fn run(
    origin: &Origin,
    arguments: Restart,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let Restart {
        site,
        regions,
        plan,
        detach,
        reload_env,
        reason,
    } = arguments;
    let wanted = NewRestart {
        environment: site.environment,
        regions: (!regions.is_empty()).then_some(regions),
        reason,
        plan,
        reload_env,
    };
    let project = site.project.project;
    let (path, key) = (["projects", project.as_str(), "restarts"], random::hex16());
    let view: RestartView = patiently(FIRST_CONTACT, async || {
        origin.create_once(&path, &key, &wanted).await
    })
    .await?;
    output::say(&describe(&view));
    let rollout = match &view.rollout {
        Some(rollout) if !detach => rollout,
        left => {
            if let Some(rollout) = left {
                output::say(&format!("watch it with `helix rollout watch {rollout}`"));
            }
            if json {
                output::print_json(&view)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    let ended = rollout::follow(origin, rollout).await?;
    rollout::finish("restart", &view, &ended, start.elapsed(), json)
}

fn describe(view: &RestartView) -> String {
    let rows: Vec<_> = view.regions.iter().map(row).collect();
    let columns = [
        "REGION",
        "RELEASE",
        "GENERATION",
        "UPSTREAMS",
        "GATES",
        "RULES",
    ];
    table(columns, &rows)
}

fn row(step: &RestartStep) -> [String; 6] {
    let count = |count: u64, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {more}")),
    };
    let rules = [
        count(step.redirects, "redirect", "redirects"),
        count(step.headers, "header block", "header blocks"),
    ];
    let rules: Vec<_> = rules.into_iter().flatten().collect();
    [
        step.region.to_string(),
        step.release.to_string(),
        step.generation.to_string(),
        joined(&step.upstreams),
        joined(&step.gates),
        joined(&rules),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_site_shows_its_rules_and_a_forwarding_one_its_servers() {
        let step = |upstreams: &[&str], redirects, headers| RestartStep {
            region: "fra".parse().unwrap(),
            release: "00112233445566778899".parse().unwrap(),
            generation: helix_routing::id::Generation(7),
            upstreams: upstreams.iter().map(ToString::to_string).collect(),
            gates: Vec::new(),
            redirects,
            headers,
        };
        let view = RestartView {
            rollout: None,
            regions: vec![
                step(&[], 1, 2),
                step(&["api at http://127.0.0.1:9000"], 0, 0),
            ],
        };
        let text = describe(&view);
        assert!(text.contains("1 redirect,2 header blocks"), "{text}");
        assert!(text.contains("api at http://127.0.0.1:9000"), "{text}");
    }
}
