//! `helix`, the command: deploys folders, takes regions back, shows what is live, and runs a whole
//! fleet on one machine.
//!
//! It talks to origin's HTTP API and to nothing else; `helix dev` also starts processes. What is for a
//! program goes to standard output, what is for a person to standard error, and the exit code says how it ended.

mod access;
mod arguments;
mod command;
mod deploy;
mod dev;
mod failure;
mod moment;
mod output;
mod rollout;
mod when;

use std::process::ExitCode;

use clap::Parser as _;
use helix_client::Origin;

use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    // On the way into a sandbox this program is something else.
    if let Some(code) = helix_build::sandbox::run_if_asked() {
        return code;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::usage(&error),
    };
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(arguments)));
    ended.unwrap_or_else(|error| failure::report(&error))
}

#[expect(
    clippy::cognitive_complexity,
    reason = "a table: one line for each command"
)]
async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments {
        connection,
        json,
        command,
    } = arguments;
    match command {
        Command::Dev(dev) => return Box::pin(dev::run(dev)).await,
        Command::Build(build) => return Box::pin(command::build::run(build, json)).await,
        Command::Login => return command::login::run(&connection).await,
        Command::BreakGlass(glass) => return command::glass::run(glass, json).await,
        _ => {}
    }
    let origin = Origin::new(access::find(&connection)?)?;
    match command {
        Command::Deploy(deploy) => Box::pin(deploy::run(&origin, deploy, json)).await,
        Command::Rollback(rollback) => command::rollback::run(&origin, rollback, json).await,
        Command::Restart(restart) => command::restart::run(&origin, restart, json).await,
        Command::Rollout(rollout) => command::rollout::run(&origin, rollout, json).await,
        Command::Status(status) => command::status::run(&origin, status, json).await,
        Command::Releases(releases) => command::releases::run(&origin, releases, json).await,
        Command::Link(link) => command::link::run(&origin, link, json).await,
        Command::Unlink(unlink) => command::link::end(&origin, unlink).await,
        Command::Protect(protect) => command::protect::run(&origin, protect, json).await,
        Command::Share(share) => command::protect::share(&origin, share, json).await,
        Command::Env(env) => command::env::run(&origin, env, json).await,
        Command::Builds(builds) => command::builds::run(&origin, builds, json).await,
        Command::Logs(logs) => command::builds::logs(&origin, logs, json).await,
        Command::Redeploy(redeploy) => command::builds::redeploy(&origin, redeploy, json).await,
        Command::Promote(promote) => command::promote::run(&origin, promote, json).await,
        Command::Hold(hold) => command::holds::run(&origin, hold, json).await,
        Command::Release(release) => command::quarantines::run(&origin, release, json).await,
        Command::Webhooks(webhooks) => command::webhooks::run(&origin, webhooks, json).await,
        Command::Audit(audit) => command::audit::run(&origin, audit, json).await,
        Command::Gate(gate) => command::gates::run(&origin, gate, json).await,
        Command::Purge(purge) => command::purge::run(&origin, purge, json).await,
        Command::Pin(pin) => command::pins::run(&origin, pin, json).await,
        Command::Domains(domains) => command::domains::run(&origin, domains, json).await,
        Command::Edge(edge) => command::edges::run(&origin, edge, json).await,
        Command::Token(token) => command::tokens::run(&origin, token, json).await,
        Command::Projects(projects) => command::projects::run(&origin, projects, json).await,
        Command::Freeze(freeze) => command::freeze::run(&origin, freeze, json).await,
        Command::Lock(lock) => command::lock::run(&origin, lock, json).await,
        Command::Explain(explain) => command::explain::run(&origin, explain, json).await,
        Command::Build(_) | Command::Dev(_) | Command::Login | Command::BreakGlass(_) => {
            unreachable!("handled above, since they need no origin")
        }
    }
}
