//! `helix token`. A secret is printed once, when it is made, and nowhere else.

use std::process::ExitCode;

use helix_routing::api::{CreatedToken, NewToken, TokenView};

use super::NONE;
use super::table::{moment, table};
use crate::arguments::Token;
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(origin: &Origin, arguments: Token, json: bool) -> anyhow::Result<ExitCode> {
    match arguments {
        Token::Create { name, role } => {
            let created: CreatedToken =
                origin.create(&["tokens"], &NewToken { name, role }).await?;
            if json {
                output::print_json(&created)?;
            } else {
                output::say(&format!(
                    "token {} for {}, shown this once:",
                    created.view.id, created.view.name
                ));
                output::print(&created.token);
            }
        }
        Token::List => {
            let tokens: Vec<TokenView> = origin.read(&["tokens"]).await?;
            if json {
                output::print_json(&tokens)?;
            } else {
                output::print(&list(&tokens));
            }
        }
        Token::Revoke { id } => {
            origin.discard(&["tokens", &id]).await?;
            output::say(&format!("token {id} is revoked"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(tokens: &[TokenView]) -> String {
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            [
                token.id.clone(),
                token.name.clone(),
                token.role.as_str().to_owned(),
                moment(token.created),
                token.used.map_or_else(|| NONE.to_owned(), moment),
            ]
        })
        .collect();
    table(["ID", "NAME", "ROLE", "CREATED (UTC)", "USED (UTC)"], &rows)
}
