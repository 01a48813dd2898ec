//! What can be typed. Names and ids are parsed here, once; nothing inside checks them again.

mod build;
mod fleet;
mod glass;
mod operate;
mod rollout;
mod site;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use helix_routing::id::{Environment, ProjectName};
use helix_routing::routes::Span;
use url::Url;

pub(crate) use build::{Build, Settings};
pub(crate) use fleet::{Dev, Drain, Edge, JoinToken, Token};
pub(crate) use glass::{BreakGlass, GlassEnd, GlassRollback, Socket, Terms};
pub(crate) use operate::{Audit, AuditVerify, Freeze, Hold, Lock, Mark, Release, Webhooks};
pub(crate) use rollout::{
    Deploy, Gate, Restart, Rollback, Rollout, RunGates, WayOut, Which, WhichRollout,
};
pub(crate) use site::{Domains, Pin, Projects, Purge, Releases, Shows};
pub(crate) use source::{
    BuildWord, Builds, Env, Link, Logs, Promote, Protect, Redeploy, Share, Unlink,
};

const EXIT_CODES: &str = "Exit codes: 0 settled, 1 usage or refused, 2 went back, 3 aborted before traffic, \
                          4 still running, 5 superseded, 6 needs an operator.";

/// Deploys static sites to every region, and takes regions back.
#[derive(Debug, Parser)]
#[command(name = "helix", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Print one JSON value on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where origin is, and as whom to talk to it.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Address of origin, or of several origins of one fleet; else the nearest .helix/dev.json, else that of `helix login`
    #[arg(
        long,
        global = true,
        value_name = "URL[,URL]",
        env = "HELIX_API",
        value_delimiter = ','
    )]
    pub(crate) api: Vec<Url>,
    /// File with the token; else HELIX_TOKEN, else the one that belongs to the address
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a project as a worker would, here and in place
    Build(Build),
    /// Deploy a folder
    Deploy(Deploy),
    /// Take regions back to an earlier release
    Rollback(Rollback),
    /// Begin what is live anew, region by region: gates, connections to servers, and what is in flight
    Restart(Restart),
    /// Show edges and sites
    Status(Status),
    /// List the releases of a site
    Releases(Releases),
    /// Link a project to a repository: pushes go to production, pull requests are previews
    Link(Link),
    /// End a project's link
    Unlink(Unlink),
    /// Show or change who may see a project's previews, or its production
    Protect(Protect),
    /// Make a link that lets somebody in to a protected site
    Share(Share),
    /// Variables that builds are told
    #[command(subcommand)]
    Env(Env),
    /// List builds, approve one of a fork, cancel one
    Builds(Builds),
    /// Print the log of a build
    Logs(Logs),
    /// Build a site's newest commit once more
    Redeploy(Redeploy),
    /// Roll a preview's release out to production, as it is
    Promote(Promote),
    /// Regions without automatic deployments
    #[command(subcommand)]
    Hold(Hold),
    /// Releases that may not be deployed without the word; whether all of one is there
    #[command(subcommand)]
    Release(Release),
    /// Who did what, when, on what, and why
    Audit(Audit),
    /// Who is told of events
    #[command(subcommand)]
    Webhooks(Webhooks),
    /// What a release has to show before it goes live
    #[command(subcommand)]
    Gate(Gate),
    /// Let edges forget responses that they keep
    Purge(Purge),
    /// Visitors who show something get a release of their own
    #[command(subcommand)]
    Pin(Pin),
    /// Hosts that show a site
    #[command(subcommand)]
    Domains(Domains),
    /// Edges: which there are, taking them out, removing them
    #[command(subcommand)]
    Edge(Edge),
    /// Tokens for the API
    #[command(subcommand)]
    Token(Token),
    /// Projects
    #[command(subcommand)]
    Projects(Projects),
    /// Rollouts: how far they are, and what people ask of them
    #[command(subcommand)]
    Rollout(Rollout),
    /// Times at which nothing is deployed
    #[command(subcommand)]
    Freeze(Freeze),
    /// A lock that keeps others from deploying
    #[command(subcommand)]
    Lock(Lock),
    /// Say which site, release and file answer a URL on every edge, and why
    Explain(Explain),
    /// Change what is served when origin or NATS cannot be asked
    #[command(subcommand, name = "break-glass")]
    BreakGlass(BreakGlass),
    /// Save address and token for later commands
    Login,
    /// Run a whole fleet on this machine
    Dev(Dev),
}

/// A project.
#[derive(Debug, Args)]
pub(crate) struct Project {
    /// The project
    #[arg(long, value_name = "NAME", env = "HELIX_PROJECT")]
    pub(crate) project: ProjectName,
}

/// A project in an environment.
#[derive(Debug, Args)]
pub(crate) struct Site {
    #[command(flatten)]
    pub(crate) project: Project,
    /// `production`, or `preview/N`
    #[arg(long = "env", value_name = "ENVIRONMENT", default_value = "production")]
    pub(crate) environment: Environment,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only this project's sites
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<ProjectName>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The URL
    pub(crate) url: String,
}

/// A length of time: as in a configuration, and days.
fn span(text: &str) -> Result<Duration, String> {
    let hours = text
        .strip_suffix('d')
        .and_then(|days| days.trim().parse::<u64>().ok())
        .and_then(|days| days.checked_mul(24));
    let span = match hours {
        Some(hours) => format!("{hours}h").parse::<Span>(),
        None => text.parse::<Span>(),
    };
    let advice = "write a whole number and s, m, h or d, such as 90m or 7d";
    span.map(Span::duration).map_err(|_| advice.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn spans_are_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "10",
            "-1s",
            "1w",
            "1.5h",
            "\u{e9}",
            "99999999999999999999d",
        ] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn illegal_names_are_refused_with_the_rule() {
        for (arguments, rule) in [
            (
                ["deploy", "x", "--project", "No"].as_slice(),
                "use 1 to 40 of a-z",
            ),
            (
                &["deploy", "x", "--project", "shop", "--env", "staging"],
                "use `production` or `preview/N`",
            ),
            (
                &["rollback", "abc", "--project", "shop"],
                "a release id is 20",
            ),
            (&["purge", "--project", "shop"], "--everything"),
            (
                &["purge", "--project", "shop", "--everything", "--tag", "x"],
                "cannot be used with",
            ),
            (&["gate", "run", "main/1"], "a release id is 20"),
            (&["hold", "set", "--project", "shop"], "--reason"),
            (
                &[
                    "hold",
                    "set",
                    "--project",
                    "shop",
                    "-m",
                    "x",
                    "--ttl",
                    "soon",
                ],
                "such as 90m",
            ),
            (
                &["protect", "--project", "shop", "--on", "--off"],
                "cannot be used with",
            ),
            (
                &["protect", "--project", "shop", "--exempt", "/*"],
                "exempts no paths",
            ),
            (&["share", "--project", "shop"], "--env"),
            (
                &["share", "--project", "shop", "--preview", "main"],
                "such as pr-12",
            ),
            (&["audit", "--since", "yesterday"], "such as 2h"),
            (&["audit", "verify", "--head", "7"], "NUMBER:HASH"),
            (
                &[
                    "deploy",
                    "x",
                    "--project",
                    "a",
                    "--automatic",
                    "--lift-quarantine",
                ],
                "cannot be used with",
            ),
            (
                &["domains", "add", "*.com", "--project", "shop"],
                "at least two labels",
            ),
        ] {
            let error = Arguments::try_parse_from(["helix"].iter().chain(arguments)).unwrap_err();
            assert!(error.to_string().contains(rule), "{error}");
        }
    }
}
