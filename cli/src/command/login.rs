//! `helix login`: checks an address and a token, and keeps them for later commands.

use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use helix_routing::api::Status;

use crate::access::{self, Access};
use crate::arguments::Connection;
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(connection: &Connection) -> anyhow::Result<ExitCode> {
    let (api, others) = connection
        .api
        .split_first()
        .context("say where origin is: helix login --api URL")?;
    let token = match access::given_token(connection)? {
        Some(token) => token,
        None => typed_token()?,
    };
    let access = Access {
        api: api.clone(),
        others: others.to_vec(),
        token,
        found: "--api".to_owned(),
    };
    let status: Status = Origin::new(access.clone())?.read(&["status"]).await?;
    let path = access::save(&access)?;
    output::say(&format!(
        "logged in to {} ({} edges); kept in {}",
        access.api,
        status.edges.len(),
        path.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// A token on the command line would stay in the shell's history, so it is read from standard input.
fn typed_token() -> anyhow::Result<String> {
    output::say("token:");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(access::checked(&line, "standard input")?)
}
