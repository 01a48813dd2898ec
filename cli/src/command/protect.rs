//! `helix protect`, `helix share`: who may see a project's sites. A password comes from a file or standard input, and is printed
//! nowhere; a link goes to standard output.

use std::process::ExitCode;

use helix_routing::api::{EnvKind, NewProtection, NewShare, Password, ProtectionView, ShareView};

use super::link;
use super::table::moment;
use super::{NONE, joined, or_none};
use crate::arguments::{Protect, Share};
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(
    origin: &Origin,
    arguments: Protect,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let project = arguments.project.project.clone();
    let path = ["projects", project.as_str(), "protection"];
    let kind = EnvKind::from(arguments.kind);
    let new = wanted(arguments, kind).await?;
    let view: ProtectionView = match new {
        Some(new) => origin.put(&path, &new).await?,
        None => origin.query(&path, "kind", kind.name()).await?,
    };
    if json {
        output::print_json(&view)?;
    } else {
        output::print(&described(&view));
    }
    for note in notes(&view) {
        output::say(&note);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn share(
    origin: &Origin,
    arguments: Share,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let project = arguments.project.project;
    let environment = arguments.environment.or(arguments.preview);
    let new = NewShare {
        environment: environment.expect("one of both is required"),
        ttl_seconds: arguments.ttl.as_secs(),
    };
    let path = ["projects", project.as_str(), "shares"];
    let view: ShareView = origin.create(&path, &new).await?;
    if json {
        output::print_json(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::say(&format!(
        "whoever opens this link sees {} until {} (UTC); `helix protect --revoke` ends it sooner",
        view.site,
        moment(view.until)
    ));
    output::print(&view.url);
    Ok(ExitCode::SUCCESS)
}

/// What is to be changed, if anything is.
async fn wanted(arguments: Protect, kind: EnvKind) -> anyhow::Result<Option<NewProtection>> {
    let password = match &arguments.password_file {
        Some(path) => Some(Password(link::read(path, "password").await?)),
        None => None,
    };
    let exempt = if arguments.no_exempt {
        Some(Vec::new())
    } else {
        Some(arguments.exempt).filter(|rules| !rules.is_empty())
    };
    let on = match (arguments.on, arguments.off) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        // Who sets a password wants to be asked for it.
        _ => password.as_ref().map(|_| true),
    };
    let (no_password, revoke) = (arguments.no_password, arguments.revoke);
    let changes = on.is_some() || no_password || revoke || exempt.is_some();
    Ok(changes.then_some(NewProtection {
        kind,
        on,
        password,
        no_password,
        exempt,
        revoke,
    }))
}

fn described(view: &ProtectionView) -> String {
    let rules: Vec<&str> = view.exempt.iter().map(|rule| rule.as_str()).collect();
    let rows = [
        (
            "seen by",
            if view.on {
                "who was let in".to_owned()
            } else {
                "everybody".to_owned()
            },
        ),
        (
            "password",
            if view.has_password { "yes" } else { "no" }.to_owned(),
        ),
        ("exempt", joined(&rules)),
        (
            "changed",
            view.changed.map_or_else(|| NONE.to_owned(), moment),
        ),
        ("by", or_none(view.by.as_ref())),
    ];
    let lines = rows.map(|(name, value)| format!("{name:<9} {value}"));
    format!(
        "{} of {}\n{}",
        view.kind.name(),
        view.project,
        lines.join("\n")
    )
}

/// What whoever changed it should know.
fn notes(view: &ProtectionView) -> Vec<String> {
    let mut notes = Vec::new();
    if !view.untold.is_empty() {
        notes.push(format!(
            "edges are told of {} with the next step of the rollout that runs",
            joined(&view.untold)
        ));
    }
    if !view.unread_in.is_empty() {
        notes.push(format!(
            "region {} has an edge that is too old to read it: it keeps what it has, and serves nothing new of these sites, until it is \
             upgraded",
            joined(&view.unread_in)
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(json: &str) -> ProtectionView {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn who_sees_it_is_told_with_what_is_not_so_yet() {
        let protected = view(
            r#"{"project":"shop","kind":"preview","on":true,"has_password":true,"exempt":["/api/webhooks/*"],"revision":3,
            "by":"ana","changed":1,"untold":["shop/preview/7"],"unread_in":["iad"]}"#,
        );
        let text = described(&protected);
        for line in [
            "preview of shop",
            "seen by   who was let in",
            "password  yes",
            "exempt    /api/webhooks/*",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let notes = notes(&protected).join("\n");
        assert!(
            notes.contains("shop/preview/7") && notes.contains("iad"),
            "{notes}"
        );
        let open = view(
            r#"{"project":"shop","kind":"preview","on":false,"has_password":false,"exempt":[],"revision":0,"by":null,
            "changed":null,"untold":[],"unread_in":[]}"#,
        );
        assert!(described(&open).contains("everybody"));
        assert!(super::notes(&open).is_empty());
    }
}
