//! `helix lock`: keeps others from deploying to a site.

use std::process::ExitCode;

use helix_routing::api::{Held, LockView, NewLock};
use helix_routing::routes::Span;
use helix_routing::time::Timestamp;
use helix_service::clock;

use super::table::moment;
use crate::arguments::Lock;
use crate::output;
use helix_client::Origin;

pub(crate) async fn run(origin: &Origin, arguments: Lock, json: bool) -> anyhow::Result<ExitCode> {
    let (Lock::Acquire { site, .. } | Lock::Release { site, .. } | Lock::Status { site }) =
        &arguments;
    let environment = site.environment;
    let project = site.project.project.clone();
    let path = ["projects", project.as_str(), "lock"];
    let named = environment.to_string();
    let view: LockView = match arguments {
        Lock::Acquire { reason, ttl, .. } => {
            let new = NewLock {
                environment,
                reason,
                ttl,
            };
            origin.create(&path, &new).await?
        }
        Lock::Release { force, .. } => {
            let force = if force { "true" } else { "false" };
            let query = [("environment", named.as_str()), ("force", force)];
            origin.remove_of(&path, &query).await?
        }
        Lock::Status { .. } => origin.query(&path, "environment", &named).await?,
    };
    if json {
        output::print_json(&view)?;
    } else {
        output::print(&described(&view, clock::now()));
    }
    Ok(ExitCode::SUCCESS)
}

fn described(view: &LockView, now: Timestamp) -> String {
    let site = &view.site;
    let Some(Held {
        holder,
        reason,
        since,
        until,
    }) = &view.lock
    else {
        return format!("{site} is not locked");
    };
    let left = match until {
        Some(until) => {
            format!("for {} more", Span::roughly(until.since(now)))
        }
        None => "until it is released".to_owned(),
    };
    let since = moment(*since);
    format!("{site} is locked by {holder} since {since} UTC, {left}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_with_its_holder_reason_and_time() {
        let now = Timestamp::from_millis(60_000);
        let view = |lock: &str| -> LockView {
            let json = format!(r#"{{"site":"shop/production","lock":{lock}}}"#);
            serde_json::from_str(&json).unwrap()
        };
        let free = described(&view("null"), now);
        assert_eq!(free, "shop/production is not locked");
        let held = r#"{"holder":"ana","reason":"migrating","since":0,"until":120000}"#;
        assert_eq!(
            described(&view(held), now),
            "shop/production is locked by ana since 1970-01-01 00:00:00 UTC, for 1m more: migrating"
        );
    }
}
