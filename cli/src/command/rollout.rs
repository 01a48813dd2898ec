//! `helix rollout watch`.

use std::process::ExitCode;

use crate::arguments::Rollout;
use crate::origin::Origin;
use crate::output;
use crate::rollout;

pub(crate) async fn run(
    origin: &Origin,
    arguments: Rollout,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let Rollout::Watch { rollout } = arguments;
    let ended = rollout::follow(origin, &rollout).await?;
    if json {
        output::print_json(&ended.view())?;
    } else {
        output::say(&format!("rollout {rollout} {}", ended.name()));
    }
    Ok(ExitCode::from(ended.exit_code()))
}
