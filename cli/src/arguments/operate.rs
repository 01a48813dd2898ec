//! Arguments of what operators say beside rollouts: holds, quarantines, freezes, locks, the audit log, webhooks.

use std::time::Duration;

use clap::{Args, Subcommand};
use helix_routing::id::{Environment, ProjectName, RegionId, ReleaseId};
use helix_routing::routes::Span;

use super::{Project, Site, span};
use crate::moment::{self, Since};
use crate::when::When;

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
    /// Look whether origin and the registry have all of a release; what is lost is fetched, or pushed again
    Verify {
        /// The release
        release: ReleaseId,
        /// Fetch every blob of the registry and hash it, instead of asking for it
        #[arg(long)]
        read: bool,
    },
    /// Print where a release comes from, as origin has signed it: a Sigstore bundle in JSON
    Provenance {
        /// The release
        release: ReleaseId,
    },
    /// Print what a release was made of, as its build says: a bill of materials in CycloneDX
    Materials {
        /// The release
        release: ReleaseId,
    },
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
