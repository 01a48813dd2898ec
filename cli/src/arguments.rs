//! What can be typed. Names and ids are parsed here, once; nothing inside checks them again.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use helix_routing::api::Role;
use helix_routing::host::HostPattern;
use helix_routing::id::{EdgeId, Environment, ProjectName, RegionId, ReleaseId, RolloutId};
use helix_routing::rollout::{Approvals, Step, WaveOrder};
use helix_routing::routes::Span;
use url::Url;

use crate::when::When;

use crate::moment::{self, Since};

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
    /// Regions without automatic deployments
    #[command(subcommand)]
    Hold(Hold),
    /// Releases that may not be deployed without the word
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
pub(crate) struct Deploy {
    /// The folder: everything in it, except .git, .helix and .DS_Store
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) site: Site,
    /// Do not wait for the rollout
    #[arg(long)]
    pub(crate) detach: bool,
    /// Deploy although this release is quarantined
    #[arg(long)]
    pub(crate) lift_quarantine: bool,
    /// Leave held regions alone instead of lifting their holds: what a deployment does that nobody asked for by hand
    #[arg(long, conflicts_with = "lift_quarantine")]
    pub(crate) automatic: bool,
    #[command(flatten)]
    pub(crate) way_out: WayOut,
}

/// In which stages a release goes out; what is not said is left to its helix.toml, then to origin's config.
#[derive(Debug, Args)]
#[command(next_help_heading = "Stages")]
pub(crate) struct WayOut {
    /// `together`, `canary`, or waves: regions parted by commas, waves by slashes, `*` for the rest (`fra/iad,gru/*`)
    #[arg(long, value_name = "ORDER")]
    pub(crate) order: Option<WaveOrder>,
    /// Regions of a wave at once; 0 is all
    #[arg(long, value_name = "N")]
    pub(crate) parallel: Option<u16>,
    /// Wait between waves, such as 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) soak: Option<Span>,
    /// What waits for `helix rollout approve`: `none`, `waves`, `stages`, `all`, or numbers of stages (`2,3`)
    #[arg(long, value_name = "WHAT")]
    pub(crate) approve: Option<Approvals>,
    /// So many percent of a region's visitors for so long before all of them, such as 5%:2m; may be given more than once
    #[arg(long = "step", value_name = "PERCENT:TIME")]
    pub(crate) steps: Vec<Step>,
    /// Every region's visitors at once, whatever the release says
    #[arg(long, conflicts_with = "steps")]
    pub(crate) no_steps: bool,
    /// Prepare now, and let nothing go live before this time, such as 2026-11-28T18:00:00Z, or in so long (+2h)
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<When>,
    /// In a freeze prepare, and go live when it is over, instead of being refused
    #[arg(long, conflicts_with = "override_freeze")]
    pub(crate) wait_freeze: bool,
    /// Go live in a freeze, for this reason, which is kept
    #[arg(long, value_name = "REASON")]
    pub(crate) override_freeze: Option<String>,
    /// The number of the push it comes from; one that comes after a higher one is superseded
    #[arg(long, value_name = "N")]
    pub(crate) push_seq: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Freeze {
    /// Let nobody deploy to a project's production for a while; rollbacks are never frozen
    Add {
        #[command(flatten)]
        project: Project,
        /// From then on, such as 2026-12-24T12:00:00Z or +2h; from now on, if left out
        #[arg(long, value_name = "TIME")]
        from: Option<When>,
        /// Until then; +2h is two hours after its start
        #[arg(long, value_name = "TIME")]
        until: When,
        /// Why: whoever is refused reads it
        #[arg(long, short = 'm')]
        reason: String,
    },
    /// List a project's freezes that are not over
    List {
        #[command(flatten)]
        project: Project,
    },
    /// End a freeze, or take back one that was to come
    Remove {
        /// Its id, from `helix freeze list`
        freeze: String,
        #[command(flatten)]
        project: Project,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lock {
    /// Keep others from deploying to a site; whoever holds the lock renews it in the same way
    Acquire {
        #[command(flatten)]
        site: Site,
        /// Why: whoever is refused reads it
        #[arg(long, short = 'm')]
        reason: String,
        /// For how long, such as 2h; until it is released, if left out
        #[arg(long, value_name = "TIME")]
        ttl: Option<Span>,
    },
    /// Give the lock back
    Release {
        #[command(flatten)]
        site: Site,
        /// Also somebody else's, as an operator
        #[arg(long)]
        force: bool,
    },
    /// Say who holds the lock
    Status {
        #[command(flatten)]
        site: Site,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The release to go to; else the newest settled one before what is live, region by region
    pub(crate) release: Option<ReleaseId>,
    #[command(flatten)]
    pub(crate) site: Site,
    /// A region to take back; may be given more than once
    #[arg(long = "region", value_name = "REGION", value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
    /// Take every region back, which is also what happens without --region
    #[arg(long, conflicts_with = "regions")]
    pub(crate) all: bool,
    /// Only show what would change
    #[arg(long)]
    pub(crate) plan: bool,
    /// Why, for the record
    #[arg(long, short = 'm')]
    pub(crate) reason: Option<String>,
}

/// Sites and regions that an operator's word is for.
#[derive(Debug, Args)]
pub(crate) struct HoldScope {
    #[command(flatten)]
    pub(crate) project: Project,
    /// Only this environment, `production` or `preview/N`; else every site that the project has
    #[arg(long = "env", value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<Environment>,
    /// Only this region; may be given more than once
    #[arg(long = "region", value_name = "REGION", value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Hold {
    /// Let automatic deployments leave regions alone
    Set {
        #[command(flatten)]
        scope: HoldScope,
        /// Why
        #[arg(long, short = 'm', value_name = "WHY")]
        reason: String,
        /// For how long, such as 2h or 7d; else until it is lifted
        #[arg(long, value_name = "TIME", value_parser = span)]
        ttl: Option<Duration>,
    },
    /// Lift holds
    Clear {
        #[command(flatten)]
        scope: HoldScope,
        /// Why, for the record
        #[arg(long, short = 'm', value_name = "WHY")]
        reason: Option<String>,
    },
    /// List the holds in force
    List {
        /// Only this project's
        #[arg(long, value_name = "NAME", env = "HELIX_PROJECT")]
        project: Option<ProjectName>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Release {
    /// Let a release be deployed only with the word, and no rollback go to it; what is served stays
    Quarantine(Mark),
    /// Let it be deployed again
    Unquarantine(Mark),
    /// List the releases in quarantine
    Quarantined {
        /// Only this project's
        #[arg(long, value_name = "NAME", env = "HELIX_PROJECT")]
        project: Option<ProjectName>,
    },
}

/// A release, where, and why.
#[derive(Debug, Args)]
pub(crate) struct Mark {
    /// The release
    pub(crate) release: ReleaseId,
    /// Only in this region; may be given more than once
    #[arg(long = "region", value_name = "REGION", value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
    /// Why
    #[arg(long, short = 'm', value_name = "WHY")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) verify: Option<AuditVerify>,
    /// Only acts on this project
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<ProjectName>,
    /// Only from then on: 2h, 7d, 2026-01-31 or 2026-01-31T09:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<Since>,
    /// Only of whom: the name or the id of a token, or `origin` for what no person did
    #[arg(long, value_name = "WHO")]
    pub(crate) by: Option<String>,
    /// Only this action, such as `hold.set`, or all that begin like it, such as `hold`
    #[arg(long, value_name = "ACTION")]
    pub(crate) action: Option<String>,
    /// How many at most, newest first
    #[arg(long, short = 'n', default_value_t = 50)]
    pub(crate) limit: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Webhooks {
    /// Send events to a URL; the secret that signs them is shown this once, on standard output
    Add {
        /// Where to, by POST
        url: String,
        /// Only events of this project
        #[arg(long, value_name = "NAME")]
        project: Option<ProjectName>,
        /// Only this kind, such as hold.set, or this family, such as deployment.*; may be given more than once
        #[arg(long = "event", value_name = "EVENT", value_delimiter = ',')]
        events: Vec<String>,
    },
    /// List webhooks, and how they stand
    List,
    /// End a webhook; what waits for it is not sent
    Remove {
        /// Its id, from `helix webhooks list`
        webhook: String,
    },
    /// Let a webhook that was disabled be sent to again
    Enable {
        /// Its id
        webhook: String,
    },
    /// Send a test, and say what came of it
    Test {
        /// Its id
        webhook: String,
    },
    /// List a webhook's deliveries, newest first
    Deliveries {
        /// Its id
        webhook: String,
        /// Only those that are `pending`, `delivered`, `failed` or `dropped`
        #[arg(long, value_parser = ["pending", "delivered", "failed", "dropped"])]
        state: Option<String>,
        /// How many at most
        #[arg(long, short = 'n', default_value_t = 50)]
        limit: u32,
    },
    /// Send a delivery again, under the id that it had, and say what came of it
    Replay {
        /// Its id, from `helix webhooks deliveries`
        delivery: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerify {
    /// Walk the chain of hashes over the whole log, and print its head
    Verify {
        /// A head that was printed before, as NUMBER:HASH; it has to be in the chain
        #[arg(long, value_name = "NUMBER:HASH", value_parser = head)]
        head: Option<(u64, String)>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    pub(crate) site: Site,
    /// A region to restart in; may be given more than once; else all in which something is live
    #[arg(long = "region", value_name = "REGION", value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
    /// Only show what would begin anew
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do not wait for the rollout
    #[arg(long)]
    pub(crate) detach: bool,
    /// Why, for the record
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["urls", "tags", "release", "everything"]))]
pub(crate) struct Purge {
    #[command(flatten)]
    pub(crate) site: Site,
    /// What answers this URL, over http and https, in all its variants; may be given more than once
    #[arg(long = "url", value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// What carries this tag; may be given more than once, and means what fits any of the URLs and tags
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Only what was fetched under this release
    #[arg(long, value_name = "RELEASE")]
    pub(crate) release: Option<ReleaseId>,
    /// All that is kept for the site
    #[arg(long, conflicts_with_all = ["urls", "tags", "release"])]
    pub(crate) everything: bool,
    /// Only in this region; may be given more than once
    #[arg(long = "region", value_name = "REGION", value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
    /// Keep it, and ask about it before its next use
    #[arg(long)]
    pub(crate) stale: bool,
    /// Do not wait for the edges
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Gate {
    /// Run the gates of a release now, on every edge of a region; nothing that is served depends on it
    Run(RunGates),
}

#[derive(Debug, Args)]
pub(crate) struct RunGates {
    /// The release, whether it is live or not; edges that do not have it fetch it
    pub(crate) release: ReleaseId,
    /// Only in this region; may be given more than once
    #[arg(long = "region", value_name = "REGION", value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
    /// Only this gate; `artifact`, `certificate` and `upstream` are those that every release has
    #[arg(long, value_name = "NAME")]
    pub(crate) gate: Option<String>,
    /// Do not wait for the edges
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only this project's sites
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<ProjectName>,
}

#[derive(Debug, Args)]
pub(crate) struct Releases {
    #[command(flatten)]
    pub(crate) site: Site,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Domains {
    /// Show a site on a host, or on every host one label below a suffix (`*.example.com`)
    Add {
        /// The host
        host: HostPattern,
        #[command(flatten)]
        site: Site,
    },
    /// List a project's hosts
    List {
        #[command(flatten)]
        project: Project,
    },
    /// Take a host from a project
    Remove {
        /// The host
        host: HostPattern,
        #[command(flatten)]
        project: Project,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Edge {
    /// List edges: build, lease, how far each follows, and whether it is taken out
    List {
        /// Only this region's
        #[arg(long, value_name = "REGION")]
        region: Option<RegionId>,
    },
    /// Take an edge out for maintenance: visitors go elsewhere, no rollout waits for it
    Drain(Drain),
    /// Put an edge back
    Undrain {
        /// The edge
        edge: EdgeId,
    },
    /// Remove an edge: its lease ends, and nothing that it says counts for as long as origin's configuration names it
    Remove {
        /// The edge
        edge: EdgeId,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Also the last one that serves its region
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The edge
    pub(crate) edge: EdgeId,
    /// When WebSockets are told to end as well, such as 90s, 10m or 2h; else they last as long as they like
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) deadline: Option<Duration>,
    /// Why, for those who see it
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Do not wait until its connections have ended
    #[arg(long)]
    pub(crate) detach: bool,
    /// Also the last one that serves its region
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; its secret is shown this once, on standard output
    Create {
        /// What it is for
        name: String,
        /// `read`, `deploy` or `operate`, each with all rights of the ones before
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// List tokens
    List,
    /// Make a token invalid
    Revoke {
        /// Its id, from `helix token list`
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Projects {
    /// List projects
    List,
    /// Remove a project's sites from every edge; it can be restored for 7 days
    Delete {
        /// The project
        project: ProjectName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Bring a removed project back
    Restore {
        /// The project
        project: ProjectName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// List rollouts, newest first
    List {
        /// Only of this project
        #[arg(long, value_name = "NAME", env = "HELIX_PROJECT")]
        project: Option<ProjectName>,
        /// `production`, or `preview/N`, with a project
        #[arg(long = "env", value_name = "ENVIRONMENT", default_value = "production")]
        environment: Environment,
    },
    /// Follow a rollout to its end
    Watch(WhichRollout),
    /// Begin no further stage; what has begun goes on, and goes back if it fails
    Pause {
        #[command(flatten)]
        which: WhichRollout,
        /// Why, for the record
        #[arg(long, short = 'm')]
        reason: Option<String>,
    },
    /// Go on with a paused rollout
    Resume(WhichRollout),
    /// Let the stage begin that waits for it
    Approve {
        #[command(flatten)]
        which: WhichRollout,
        /// Its number, as `helix rollout watch` and `helix status` say it
        #[arg(long, value_name = "N")]
        stage: u16,
    },
    /// End a rollout: what is not live stays so, what is goes back to the release that settled before
    Abort {
        #[command(flatten)]
        which: WhichRollout,
        /// Why, for the record
        #[arg(long, short = 'm')]
        reason: Option<String>,
        /// Do not wait until every region is back
        #[arg(long)]
        detach: bool,
    },
}

/// One rollout.
#[derive(Debug, Args)]
pub(crate) struct WhichRollout {
    /// Its id, or a project: then the one that runs there
    #[arg(value_name = "ID|PROJECT")]
    pub(crate) which: Which,
    /// `production`, or `preview/N`, of a project
    #[arg(long = "env", value_name = "ENVIRONMENT", default_value = "production")]
    pub(crate) environment: Environment,
}

/// A rollout by its id, or by its project.
#[derive(Clone, Debug)]
pub(crate) enum Which {
    /// This one.
    Rollout(RolloutId),
    /// The one of this project.
    Project(ProjectName),
}

impl FromStr for Which {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Sixteen hex digits are an id, also where a project is called so.
        match (text.parse(), text.parse()) {
            (Ok(rollout), _) => Ok(Self::Rollout(rollout)),
            (Err(_), Ok(project)) => Ok(Self::Project(project)),
            (Err(_), Err(_)) => Err("is neither a rollout's id nor a project's name"),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The URL
    pub(crate) url: String,
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Folder for keys, configs, data and logs
    #[arg(long, value_name = "DIR", default_value = ".helix")]
    pub(crate) dir: PathBuf,
    /// The regions
    #[arg(long, value_delimiter = ',', default_value = "fra,iad")]
    pub(crate) regions: Vec<RegionId>,
    /// Edges in each region
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) edges: u8,
    /// Keep the records in this PostgreSQL instead of a file
    #[arg(
        long,
        value_name = "postgres://…",
        env = "HELIX_DEV_DATABASE",
        hide_env_values = true
    )]
    pub(crate) database: Option<String>,
    /// Origins that share the database: one leads, the others stand by
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) origins: u8,
    /// The nats-server to run; else $NATS_SERVER, .tools/bin, $PATH
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_server: Option<PathBuf>,
    /// Deploy no example
    #[arg(long, conflicts_with = "example")]
    pub(crate) no_example: bool,
    /// The folder to deploy as project `hello`; else deploy/examples/hello
    #[arg(long, value_name = "DIR")]
    pub(crate) example: Option<PathBuf>,
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

fn since(text: &str) -> Result<Since, String> {
    if let Ok(ago) = span(text) {
        return Ok(Since::Ago(ago));
    }
    let at = moment::read(text).map(Since::At);
    at.ok_or_else(|| {
        "write how long ago, such as 2h or 7d, or when, such as 2026-01-31 or 2026-01-31T09:00:00Z"
            .to_owned()
    })
}

fn head(text: &str) -> Result<(u64, String), String> {
    let parsed = || {
        let (number, hash) = text.split_once(':')?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some((number.parse().ok()?, hash.to_ascii_lowercase()))
    };
    parsed().ok_or_else(|| "a head is NUMBER:HASH, as `helix audit verify` prints it".to_owned())
}

fn role(text: &str) -> Result<Role, &'static str> {
    match text {
        "read" => Ok(Role::Read),
        "deploy" => Ok(Role::Deploy),
        "operate" => Ok(Role::Operate),
        _ => Err("use read, deploy or operate"),
    }
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
