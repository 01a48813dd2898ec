//! `helix env`: variables of a project. Values of secrets go in, and never come out.

use std::process::ExitCode;

use helix_routing::api::{EnvKind, EnvView, NewVariable};

use super::link::input;
use super::table::{moment, table};
use crate::arguments::Env;
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(origin: &Origin, arguments: Env, json: bool) -> anyhow::Result<ExitCode> {
    let (Env::Set { which, .. } | Env::Unset { which, .. } | Env::List { which }) = &arguments;
    let (project, kind) = (which.project.project.clone(), EnvKind::from(which.kind));
    let view: EnvView = match arguments {
        Env::Set {
            name,
            value,
            secret,
            ..
        } => {
            let value = match value {
                Some(value) => value,
                None => without_end(input().await?),
            };
            let new = NewVariable {
                kind,
                value,
                secret,
            };
            let path = ["projects", project.as_str(), "env", &name];
            origin.put(&path, &new).await?
        }
        Env::Unset { name, .. } => {
            let path = ["projects", project.as_str(), "env", &name];
            origin.remove_of(&path, &[("kind", kind.name())]).await?
        }
        Env::List { .. } => {
            let path = ["projects", project.as_str(), "env"];
            origin.query(&path, "kind", kind.name()).await?
        }
    };
    if json {
        output::print_json(&view)?;
    } else {
        output::say(&format!(
            "{project}, {}, revision {}",
            kind.name(),
            view.revision
        ));
        output::print(&list(&view));
    }
    Ok(ExitCode::SUCCESS)
}

/// As `echo` and editors write it: one line break at the end is not meant.
fn without_end(text: String) -> String {
    match text.strip_suffix('\n') {
        Some(text) => text.strip_suffix('\r').unwrap_or(text).to_owned(),
        None => text,
    }
}

fn list(view: &EnvView) -> String {
    let rows: Vec<_> = view
        .variables
        .iter()
        .map(|variable| {
            [
                variable.name.clone(),
                variable
                    .value
                    .clone()
                    .unwrap_or_else(|| "(secret)".to_owned()),
                variable.version.to_string(),
                moment(variable.set),
                variable.by.clone(),
            ]
        })
        .collect();
    table(["NAME", "VALUE", "VERSION", "SET (UTC)", "BY"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_not_meant() {
        for (text, value) in [
            ("a", "a"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("", ""),
        ] {
            assert_eq!(without_end(text.to_owned()), value);
        }
    }
}
