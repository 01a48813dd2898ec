//! The seam to what runs commands beside a release.
//!
//! Which process, container or machine that is, is the runtime's matter. An edge without one says so: its verdict about a
//! command is an error, never a pass.

use std::fmt;

use futures_util::future::BoxFuture;
use helix_routing::routes::Span;

use super::drive::{Probed, within};

/// Runs commands in the surroundings of a release.
pub trait Runtime: fmt::Debug + Send + Sync {
    /// Runs `command`, a program and its arguments, to its end. Dropping what is returned ends it.
    fn run<'a>(&'a self, command: &'a [String]) -> BoxFuture<'a, Result<Ran, CannotRun>>;
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code.
    pub code: u8,
    /// The start of what it wrote.
    pub output: Vec<u8>,
}

/// A command could not be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotRun {
    /// Nothing here runs commands, now or later.
    #[error("no runtime is configured on this edge, so that no command can be run")]
    NoRuntime,
    /// It could not be started this time.
    #[error("cannot be started: {0}")]
    Start(String),
}

/// An edge that runs no commands.
#[derive(Clone, Copy, Debug)]
pub struct NoRuntime;

impl Runtime for NoRuntime {
    fn run<'a>(&'a self, _: &'a [String]) -> BoxFuture<'a, Result<Ran, CannotRun>> {
        Box::pin(std::future::ready(Err(CannotRun::NoRuntime)))
    }
}

/// Runs a gate's command once.
pub(super) async fn ask(runtime: &dyn Runtime, command: &[String], limit: Span) -> Probed {
    let asked = command.join(" ");
    within(limit, &asked, async {
        match runtime.run(command).await {
            Ok(Ran { code: 0, output }) => Probed::good(&asked).with(0, Some(&output)),
            Ok(Ran { code, output }) => {
                let problem = format!("ended with {code}");
                Probed::bad(&asked, &problem).with(code.into(), Some(&output))
            }
            Err(error @ CannotRun::NoRuntime) => Probed::impossible(&asked, &error.to_string()),
            Err(error @ CannotRun::Start(_)) => Probed::error(&asked, &error.to_string()),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::gate::watch::Outcome;

    #[derive(Debug)]
    struct Fake(Result<Ran, CannotRun>);

    impl Runtime for Fake {
        fn run<'a>(&'a self, _: &'a [String]) -> BoxFuture<'a, Result<Ran, CannotRun>> {
            Box::pin(std::future::ready(self.0.clone()))
        }
    }

    #[tokio::test]
    async fn a_command_is_judged_by_its_end() {
        let ran = |code| {
            Ok(Ran {
                code,
                output: b"3 migrations are missing".to_vec(),
            })
        };
        let command = ["migrate".to_owned(), "--check".to_owned()];
        for (end, outcome, words) in [
            (ran(0), Outcome::Good, ""),
            (ran(3), Outcome::Bad, "ended with 3"),
            (
                Err(CannotRun::Start("no room".to_owned())),
                Outcome::Error,
                "no room",
            ),
            (
                Err(CannotRun::NoRuntime),
                Outcome::Impossible,
                "no runtime is configured",
            ),
        ] {
            let probed = ask(&Fake(end), &command, Span::from_secs(1)).await;
            assert_eq!(probed.outcome, outcome);
            assert_eq!(probed.asked, "migrate --check");
            assert!(probed.reason.unwrap_or_default().contains(words));
        }
        let probed = ask(&NoRuntime, &command, Span::from_secs(1)).await;
        assert_eq!(probed.outcome, Outcome::Impossible);
    }
}
