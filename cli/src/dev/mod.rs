//! `helix dev`: a whole fleet on one machine.

#[cfg(test)]
mod nats_attacks;
mod nats_config;
mod programs;

use std::process::ExitCode;
pub(crate) async fn run(_dev: crate::arguments::Dev) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
