//! `helix edge`: which edges there are, taking them out for maintenance, putting them back, removing them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use helix_routing::edge::join::{CreatedJoinToken, JoinTokenView, NewJoinToken};
use helix_routing::edge::view::{DrainView, EdgeView, NewDrain, Skew};
use helix_routing::id::EdgeId;
use helix_routing::visitor::VisitorKeyRotation;
use tokio::time::sleep;

use super::table::{moment, table};
use super::{NONE, or_none};
use crate::arguments::{Drain, Edge, JoinToken};
use crate::failure::STILL_RUNNING;
use crate::output;
use helix_client::Origin;

/// Between two looks at how far a drain is.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) async fn run(origin: &Origin, arguments: Edge, json: bool) -> anyhow::Result<ExitCode> {
    match arguments {
        Edge::List { region } => {
            let mut edges: Vec<EdgeView> = origin.read(&["edges"]).await?;
            if let Some(region) = region {
                edges.retain(|edge| edge.region == region);
            }
            if json {
                output::print_json(&edges)?;
            } else {
                output::print(&list(&edges));
                edges
                    .iter()
                    .filter_map(warning)
                    .for_each(|text| output::say(&text));
            }
            Ok(ExitCode::SUCCESS)
        }
        Edge::Token(token) => tokens(origin, token, json).await,
        Edge::Drain(drain) => take_out(origin, drain, json).await,
        Edge::Undrain { edge } => {
            let view: EdgeView = origin.remove(&["edges", edge.as_str(), "drain"]).await?;
            if json {
                output::print_json(&view)?;
            } else {
                output::say(&format!(
                    "{edge} serves again; visitors come as soon as its readyz is seen to pass"
                ));
            }
            Ok(ExitCode::SUCCESS)
        }
        Edge::RotateVisitorKey => rotate(origin, json).await,
        Edge::Remove { edge, yes, force } => {
            confirm(&edge, yes)?;
            let force = if force { "true" } else { "false" };
            origin
                .discard_with(&["edges", edge.as_str()], ("force", force))
                .await?;
            output::say(&format!(
                "{edge} is removed: nothing that it says counts any more. Its process serves what it has until it is ended"
            ));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn rotate(origin: &Origin, json: bool) -> anyhow::Result<ExitCode> {
    let path = ["visitor-key", "rotation"];
    let rotation: VisitorKeyRotation = origin.create(&path, &()).await?;
    if json {
        output::print_json(&rotation)?;
    } else {
        output::say(&format!(
            "edges are told of a new key and sign with it from {}; what the one before has signed is good until {}",
            moment(rotation.signs_from),
            moment(rotation.accepted_until)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn tokens(origin: &Origin, arguments: JoinToken, json: bool) -> anyhow::Result<ExitCode> {
    match arguments {
        JoinToken::Create {
            region,
            name,
            ttl,
            uses,
        } => {
            let new = NewJoinToken {
                region,
                edge: name,
                ttl_seconds: Some(ttl.as_secs()),
                uses: Some(uses),
            };
            let created: CreatedJoinToken = origin.create(&["join-tokens"], &new).await?;
            if json {
                output::print_json(&created)?;
            } else {
                let view = &created.view;
                let edges = match (&view.edge, view.uses) {
                    (Some(edge), _) => edge.to_string(),
                    (None, 1) => "one edge".to_owned(),
                    (None, uses) => format!("{uses} edges"),
                };
                output::say(&format!(
                    "join token {} for {edges} of {}, until {} UTC, shown this once:",
                    view.id,
                    view.region,
                    moment(view.expires)
                ));
                output::print(&created.token);
            }
        }
        JoinToken::List => {
            let tokens: Vec<JoinTokenView> = origin.read(&["join-tokens"]).await?;
            if json {
                output::print_json(&tokens)?;
            } else {
                output::print(&token_list(&tokens));
            }
        }
        JoinToken::Revoke { id } => {
            origin.discard(&["join-tokens", &id]).await?;
            output::say(&format!("join token {id} is revoked"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn token_list(tokens: &[JoinTokenView]) -> String {
    let row = |token: &JoinTokenView| {
        [
            token.id.clone(),
            token.region.to_string(),
            or_none(token.edge.as_ref()),
            format!("{} of {}", token.used, token.uses),
            moment(token.expires),
            token.by.clone(),
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    table(
        ["ID", "REGION", "EDGE", "USED", "EXPIRES (UTC)", "BY"],
        &rows,
    )
}

/// Takes an edge out, and waits until nobody is connected to it, unless told otherwise. Ctrl-C leaves it drained.
async fn take_out(origin: &Origin, arguments: Drain, json: bool) -> anyhow::Result<ExitCode> {
    let Drain {
        edge,
        deadline,
        reason,
        detach,
        force,
    } = arguments;
    let new = NewDrain {
        reason,
        deadline_seconds: deadline.map(|deadline| deadline.as_secs()),
    };
    let force = if force { "true" } else { "false" };
    let path = ["edges", edge.as_str(), "drain"];
    let mut view: EdgeView = origin.set(&path, ("force", force), &new).await?;
    let mut said = String::new();
    let is_over = loop {
        let Some(drain) = &view.drain else {
            bail!("{edge} was put back meanwhile");
        };
        let text = progress(&edge, &view, drain);
        if !json && text != said {
            output::say(&text);
            said = text;
        }
        let is_over = !view.live || drain.confirmed && drain.connections == Some(0);
        if detach || is_over {
            break is_over;
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            _ = tokio::signal::ctrl_c() => {
                output::say(&format!("{edge} stays taken out; `helix edge list` shows it, `helix edge undrain {edge}` puts it back"));
                break false;
            }
        }
        let all: Vec<EdgeView> = origin.read(&["edges"]).await?;
        match all.into_iter().find(|view| view.edge == edge) {
            Some(newer) => view = newer,
            None => bail!("{edge} was removed meanwhile"),
        }
    };
    if json {
        output::print_json(&view)?;
    }
    Ok(if is_over || detach {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(STILL_RUNNING)
    })
}

fn progress(edge: &EdgeId, view: &EdgeView, drain: &DrainView) -> String {
    match drain.connections.filter(|_| drain.confirmed) {
        _ if !view.live => format!("{edge} is not there; it is taken out as soon as it is"),
        Some(0) => format!("{edge} is drained: nobody is connected"),
        Some(1) => format!("{edge} drains: 1 connection is open"),
        Some(count) => format!("{edge} drains: {count} connections are open"),
        None => format!("{edge} is told to drain"),
    }
}

/// Has the name typed: a word that is typed by habit would not stop anyone.
fn confirm(edge: &EdgeId, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    output::say(&format!(
        "{edge} will count no more, at once and for as long as origin's configuration names it.\nType its name to go on:"
    ));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    if line.trim() != edge.as_str() {
        bail!("{edge} was not typed, so nothing was removed; --yes removes without asking");
    }
    Ok(())
}

fn list(edges: &[EdgeView]) -> String {
    let rows: Vec<_> = edges.iter().map(row).collect();
    if rows.is_empty() {
        return "no edges: origin's configuration names them, or they join by a token".to_owned();
    }
    table(
        [
            "REGION",
            "EDGE",
            "STATE",
            "SINCE (UTC)",
            "VERSION",
            "BOOT",
            "BEHIND",
            "URL",
            "NOTE",
        ],
        &rows,
    )
}

fn row(edge: &EdgeView) -> [String; 9] {
    let version = edge.version.as_ref().map_or_else(
        || NONE.to_owned(),
        |version| {
            let skew = edge.skew.map(skew_name);
            skew.map_or_else(|| version.clone(), |skew| format!("{version} ({skew})"))
        },
    );
    [
        edge.region.to_string(),
        edge.edge.to_string(),
        state(edge).to_owned(),
        edge.since.map_or_else(|| NONE.to_owned(), moment),
        version,
        edge.boot
            .as_ref()
            .map_or_else(|| NONE.to_owned(), ToString::to_string),
        edge.behind
            .map_or_else(|| NONE.to_owned(), |behind| behind.to_string()),
        edge.url.clone(),
        edge.note.clone().unwrap_or_default(),
    ]
}

fn state(edge: &EdgeView) -> &'static str {
    let is_left = edge
        .drain
        .as_ref()
        .is_some_and(|drain| drain.confirmed && drain.connections == Some(0));
    match (&edge.drain, edge.live, edge.ready) {
        (_, false, _) => "not live",
        (Some(_), true, _) if is_left => "drained",
        (Some(_), true, _) => "drains",
        (None, true, _) if !edge.stale.is_empty() => "stale",
        (None, true, false) => "not ready",
        (None, true, true) => "ready",
    }
}

const fn skew_name(skew: Skew) -> &'static str {
    match skew {
        Skew::Older => "older",
        Skew::Newer => "newer",
        Skew::Other => "other",
    }
}

/// What to do about a build that is not origin's.
fn warning(edge: &EdgeView) -> Option<String> {
    let version = edge.version.as_ref()?;
    Some(match edge.skew? {
        Skew::Older => format!(
            "warning: {} runs {version}, which is older than origin; bring it up to date",
            edge.edge
        ),
        Skew::Newer => format!(
            "warning: {} runs {version}, which is newer than origin; bring origin up to date first, next time",
            edge.edge
        ),
        Skew::Other => format!(
            "warning: {} runs {version}, which is not origin's build",
            edge.edge
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::edge::record::Drain;
    use helix_routing::edge::view::Admitted;
    use helix_routing::time::Timestamp;

    fn view() -> EdgeView {
        EdgeView {
            edge: "fra-1".parse().unwrap(),
            region: "fra".parse().unwrap(),
            url: "http://10.0.0.1".to_owned(),
            admitted: Admitted::Token,
            joined: Timestamp::default(),
            live: true,
            since: None,
            lease_until: None,
            ready: true,
            boot: None,
            version: Some("0.1.0".to_owned()),
            skew: None,
            seen: None,
            stale: Vec::new(),
            behind: Some(0),
            drain: None,
            certificate_until: None,
            note: None,
        }
    }

    #[test]
    fn the_state_is_the_worst_that_is_true() {
        let mut edge = view();
        assert_eq!(state(&edge), "ready");
        edge.stale = vec!["KV_g".to_owned()];
        assert_eq!(state(&edge), "stale");
        edge.drain = Some(DrainView {
            drain: Drain {
                reason: "disk".to_owned(),
                since: Timestamp::default(),
                until: None,
            },
            confirmed: true,
            connections: Some(2),
        });
        assert_eq!(state(&edge), "drains");
        edge.drain.as_mut().unwrap().connections = Some(0);
        assert_eq!(state(&edge), "drained");
        edge.live = false;
        assert_eq!(state(&edge), "not live");
    }

    #[test]
    fn another_build_is_warned_of() {
        let mut edge = view();
        assert_eq!(warning(&edge), None);
        edge.skew = Some(Skew::Older);
        assert!(warning(&edge).unwrap().contains("older than origin"));
        assert_eq!(row(&edge)[4], "0.1.0 (older)");
    }
}
