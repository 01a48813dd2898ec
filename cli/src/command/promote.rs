//! `helix promote`: a preview's release goes to production as it is.

use std::process::ExitCode;
use std::time::Instant;

use helix_routing::api::{DeploymentView, NewPromotion};
use helix_service::random;

use crate::arguments::Promote;
use crate::output;
use crate::rollout;
use helix_client::Origin;
use helix_client::retry::{FIRST_CONTACT, patiently};

pub(crate) async fn run(
    origin: &Origin,
    arguments: Promote,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let Promote {
        release,
        project,
        override_reason,
        detach,
        ..
    } = arguments;
    let wanted = NewPromotion {
        release,
        override_reason,
    };
    let project = project.project;
    let (path, key) = (
        ["projects", project.as_str(), "promotions"],
        random::hex16(),
    );
    let view: DeploymentView = patiently(FIRST_CONTACT, async || {
        origin.create_once(&path, &key, &wanted).await
    })
    .await?;
    output::say(&format!(
        "{}: release {} goes to {}",
        view.label, view.release, view.site
    ));
    if detach {
        output::say(&format!(
            "watch it with `helix rollout watch {}`",
            view.rollout
        ));
        if json {
            output::print_json(&view)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let ended = rollout::follow(origin, &view.rollout).await?;
    rollout::finish("promote", &view, &ended, start.elapsed(), json)
}
