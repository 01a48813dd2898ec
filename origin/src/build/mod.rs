//! Builds: what is to be built, by whom it is, and what came of it.
//!
//! ```text
//!  intake ──one transaction──▶ head, event, build queued
//!                                 │ queue ──▶ JetStream HX_BUILDS, the build's id and nothing else
//!  worker ◀─────────────────────────┘
//!     └─ claim ─▶ job · heartbeat, log ─▶ whether to stop · end ─▶ one transaction: deployment, rollout, build ended
//! ```
//!
//! Invariant: SQL says whose a build is. A message that is lost, repeated or late changes nothing: whoever gets it has to claim the build
//! here, one worker at a time. Of one site, only the newest build is ever open.

use helix_routing::api::{BuildSettings, BuildState, BuildStep, BuildView, Trust};
use helix_routing::id::{BuildId, Commit, Environment, ProjectName, SiteId};
use helix_service::{clock, random};

use self::state::{Lease, State};
use crate::address::Addresses;
use crate::auth::Caller;
use crate::event::{self, Event};
use crate::source::env::EnvError;
use crate::source::feedback;
use crate::source::link::LinkError;
use crate::store::{self, Connection, Statement, StoreError, Tx, count, millis, number, time};

pub mod log;
pub mod queue;
pub mod state;
pub mod sweep;
pub mod work;

/// Builds that one look shows.
const SHOWN: i64 = 50;
/// Builds of one project that are open at a time. Each site has one, so these are as many pull requests.
const MAX_OPEN: i64 = 500;
/// Longest reason, in characters.
const MAX_REASON: usize = 4000;

/// A build cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is none of this id.
    #[error("there is no build {0}")]
    Unknown(BuildId),
    /// It cannot be claimed.
    #[error(transparent)]
    Refused(#[from] state::Refused),
    /// It has nothing to be approved.
    #[error("build {build} is {}, not waiting for an approval", .state.name())]
    NotWaiting {
        /// Which.
        build: BuildId,
        /// What it is.
        state: BuildState,
    },
    /// A worker's name cannot be.
    #[error("a worker's name is 1 to 100 of a-z, A-Z, 0-9, -, _ and .")]
    Worker,
    /// Too many are open.
    #[error("project {0} has {MAX_OPEN} builds that have not ended")]
    TooMany(ProjectName),
    /// Nothing is known that could be built.
    #[error("nothing was pushed to {0} yet")]
    NoCommit(SiteId),
    /// Too many lines at once.
    #[error("a log is sent in parts of at most {0} lines")]
    Lines(usize),
    /// The link cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The variables cannot be read.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for BuildError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// For which site.
    pub site: SiteId,
    /// Which commit.
    pub commit: Commit,
    /// What is fetched from.
    pub url: String,
    /// What git is asked for where the commit alone is not served.
    pub reference: Option<String>,
    /// How far it is trusted.
    pub trust: Trust,
    /// How.
    pub settings: BuildSettings,
    /// Which of the site's pushes.
    pub push_seq: u64,
    /// Whether somebody has to approve it first.
    pub waits: bool,
}

/// A build.
#[derive(Clone, Debug)]
pub struct Build {
    /// Its id.
    pub id: BuildId,
    /// Counts up per project.
    pub number: u64,
    /// What it is of.
    pub wanted: Wanted,
    /// How far it is.
    pub state: State,
    /// How often it was claimed.
    pub attempts: u64,
    /// The revision of the variables that it gets, once it was claimed.
    pub env_revision: Option<u64>,
    row: Row,
}

#[derive(Clone, Debug, sqlx::FromRow)]
struct Row {
    build: String,
    number: i64,
    site: String,
    commit_id: String,
    url: String,
    reference: Option<String>,
    trust: String,
    settings: String,
    env_revision: Option<i64>,
    push_seq: i64,
    state: String,
    step: Option<String>,
    reason: Option<String>,
    worker: Option<String>,
    worker_token: Option<String>,
    until: Option<i64>,
    attempts: i64,
    framework: Option<String>,
    deployment: Option<i64>,
    log_bytes: i64,
    by_whom: String,
    created: i64,
    started: Option<i64>,
    ended: Option<i64>,
}

impl Build {
    /// The project.
    #[must_use]
    pub const fn project(&self) -> &ProjectName {
        &self.wanted.site.project
    }

    /// As it is shown.
    #[must_use]
    pub fn view(&self, addresses: &Addresses) -> BuildView {
        let (reason, step) = match &self.state {
            State::Failed { step, reason } => (Some(reason.clone()), *step),
            State::Cancelled { reason } => (Some(reason.clone()), None),
            State::Waiting | State::Queued | State::Claimed(_) | State::Succeeded { .. } => {
                (None, None)
            }
        };
        let row = &self.row;
        BuildView {
            id: self.id.clone(),
            project: self.project().clone(),
            number: self.number,
            site: self.wanted.site.clone(),
            commit: self.wanted.commit.clone(),
            trust: self.wanted.trust,
            state: self.state.shown(),
            reason,
            step,
            worker: row.worker.clone(),
            attempts: self.attempts,
            env_revision: self.env_revision,
            framework: row.framework.clone(),
            deployment: row.deployment.and_then(|number| u64::try_from(number).ok()),
            url: addresses.site_url(&self.wanted.site),
            by: row.by_whom.clone(),
            created: time(row.created),
            started: row.started.map(time),
            ended: row.ended.map(time),
        }
    }

    fn event(&self, kind: &str) -> Event {
        Event::new(kind, Some(self.project()))
            .on(&self.wanted.site)
            .with("build", Some(self.id.to_string()))
            .with("number", Some(self.number))
            .with("commit", Some(self.wanted.commit.to_string()))
            .with("trust", Some(trust_name(self.wanted.trust)))
            .with("by", Some(self.row.by_whom.clone()))
    }
}

/// One build.
///
/// # Errors
/// When there is none, or the database fails.
pub async fn find(connection: &mut Connection, id: &BuildId) -> Result<Build, BuildError> {
    let asked = columns().text("WHERE build = ").bind(id.as_str());
    let found = select(connection, asked).await?.pop();
    found.ok_or_else(|| BuildError::Unknown(id.clone()))
}

/// The newest builds, of one project or of all.
///
/// # Errors
/// When the database fails.
pub async fn list(
    connection: &mut Connection,
    project: Option<&ProjectName>,
) -> Result<Vec<Build>, StoreError> {
    let asked = match project {
        Some(project) => columns().text("WHERE project = ").bind(project.as_str()),
        None => columns(),
    };
    let asked = asked
        .text(" ORDER BY created DESC, number DESC LIMIT ")
        .bind(SHOWN);
    select(connection, asked).await
}

/// The newest build of a site.
///
/// # Errors
/// When the database fails.
pub async fn newest(
    connection: &mut Connection,
    site: &SiteId,
) -> Result<Option<Build>, StoreError> {
    let asked = columns().text("WHERE site = ").bind(site.to_string());
    let asked = asked.text(" ORDER BY number DESC LIMIT 1");
    Ok(select(connection, asked).await?.pop())
}

async fn open_of(connection: &mut Connection, site: &SiteId) -> Result<Vec<Build>, StoreError> {
    let asked = columns().text("WHERE site = ").bind(site.to_string());
    let asked = asked.text(" AND state IN ('waiting', 'queued', 'claimed') ORDER BY number");
    select(connection, asked).await
}

fn columns() -> Statement {
    Statement::new(
        "SELECT build, number, site, commit_id, url, reference, trust, settings, env_revision, push_seq, state, step, reason, worker, \
         worker_token, until, attempts, framework, deployment, log_bytes, by_whom, created, started, ended FROM builds ",
    )
}

async fn select(connection: &mut Connection, asked: Statement) -> Result<Vec<Build>, StoreError> {
    let rows: Vec<Row> = asked.rows()?.fetch_all(connection).await?;
    rows.into_iter().map(read).collect()
}

/// Asks for a build. Older ones of the same site are cancelled.
///
/// # Errors
/// When too many are open, or the database fails.
pub async fn request(tx: &mut Tx, caller: &Caller, wanted: Wanted) -> Result<Build, BuildError> {
    let site = wanted.site.clone();
    let because = format!("commit {} is newer", wanted.commit);
    cancel_all(tx, &site, &because).await?;
    let (last, open): (i64, i64) = sqlx::query_as(
        "SELECT COALESCE(MAX(number), 0), COALESCE(SUM(CASE WHEN state IN ('waiting', 'queued', 'claimed') THEN 1 ELSE 0 END), 0) \
         FROM builds WHERE project = $1",
    )
    .bind(site.project.as_str())
    .fetch_one(&mut **tx)
    .await?;
    if open >= MAX_OPEN {
        return Err(BuildError::TooMany(site.project));
    }
    let id = random::hex16();
    let state = if wanted.waits { "waiting" } else { "queued" };
    sqlx::query(
        "INSERT INTO builds (build, project, number, site, commit_id, url, reference, trust, settings, push_seq, state, attempts, log_bytes, \
         log_dropped, by_whom, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, 0, 0, $12, $13)",
    )
    .bind(&id)
    .bind(site.project.as_str())
    .bind(last + 1)
    .bind(site.to_string())
    .bind(wanted.commit.as_str())
    .bind(&wanted.url)
    .bind(&wanted.reference)
    .bind(trust_name(wanted.trust))
    .bind(serde_json::to_string(&wanted.settings).expect("API shapes always encode"))
    .bind(number(wanted.push_seq))
    .bind(state)
    .bind(&caller.name)
    .bind(millis(clock::now()))
    .execute(&mut **tx)
    .await?;
    let build = find(tx, &store::id(&id)?).await?;
    tracing::info!(build = %build.id, %site, commit = %build.wanted.commit, to = state, "build asked for");
    if wanted.waits {
        event::emit(tx, build.event("deployment.build.approval_required")).await?;
    }
    feedback::want(tx, &build).await?;
    Ok(build)
}

/// Cancels what is open of a site.
///
/// # Errors
/// When the database fails.
pub async fn cancel_all(tx: &mut Tx, site: &SiteId, reason: &str) -> Result<(), StoreError> {
    for build in open_of(tx, site).await? {
        if let Some(state) = build.state.cancelled(reason) {
            move_to(tx, &build, state).await?;
        }
    }
    Ok(())
}

/// Cancels what is open of a project.
///
/// # Errors
/// When the database fails.
pub async fn cancel_project(
    tx: &mut Tx,
    project: &ProjectName,
    reason: &str,
) -> Result<(), StoreError> {
    let asked = columns().text("WHERE project = ").bind(project.as_str());
    let asked = asked.text(" AND state IN ('waiting', 'queued', 'claimed') ORDER BY number");
    for build in select(tx, asked).await? {
        if let Some(state) = build.state.cancelled(reason) {
            move_to(tx, &build, state).await?;
        }
    }
    Ok(())
}

/// Cancels a build; one that has ended stays as it is.
///
/// # Errors
/// When there is none, or the database fails.
pub async fn cancel(tx: &mut Tx, id: &BuildId, reason: &str) -> Result<Build, BuildError> {
    let build = find(tx, id).await?;
    if let Some(state) = build.state.cancelled(reason) {
        move_to(tx, &build, state).await?;
    }
    find(tx, id).await
}

/// Lets the commit of a fork be built: this one, and no other.
///
/// # Errors
/// When it does not wait for that, or the database fails.
pub async fn approve(tx: &mut Tx, id: &BuildId) -> Result<Build, BuildError> {
    let build = find(tx, id).await?;
    let Some(state) = build.state.approved() else {
        return Err(BuildError::NotWaiting {
            build: id.clone(),
            state: build.state.shown(),
        });
    };
    move_to(tx, &build, state).await?;
    find(tx, id).await
}

/// Writes where a build is now, and tells of it.
async fn move_to(tx: &mut Tx, build: &Build, state: State) -> Result<(), StoreError> {
    let now = millis(clock::now());
    let (step, reason, lease, deployment) = parts(&state);
    let has_ended = state.shown().has_ended();
    sqlx::query(
        "UPDATE builds SET state = $1, step = $2, reason = $3, worker = COALESCE($4, worker), worker_token = $5, until = $6, \
         deployment = $7, ended = $8, queued = NULL WHERE build = $9",
    )
    .bind(state.shown().name())
    .bind(step.map(step_name))
    .bind(reason.map(short))
    .bind(lease.map(|lease| lease.worker.clone()))
    .bind(lease.map(|lease| lease.token.clone()))
    .bind(lease.map(|lease| millis(lease.until)))
    .bind(deployment.map(number))
    .bind(has_ended.then_some(now))
    .bind(build.id.as_str())
    .execute(&mut **tx)
    .await?;
    let (from, to) = (build.state.shown().name(), state.shown().name());
    tracing::info!(build = %build.id, site = %build.wanted.site, from, to, reason, "build moved");
    let kind = match &state {
        State::Succeeded { .. } => "deployment.build.succeeded",
        State::Failed { .. } => "deployment.build.failed",
        State::Cancelled { .. } => "deployment.build.cancelled",
        State::Claimed(_) => "deployment.build.started",
        // What waits has been asked for, and that was told.
        State::Waiting | State::Queued => return feedback::want(tx, build).await,
    };
    let event = build
        .event(kind)
        .with("worker", lease.map(|lease| lease.worker.clone()))
        .with("step", step.map(step_name))
        .with("reason", reason.map(short))
        .with("deployment", deployment);
    event::emit(tx, event).await?;
    feedback::want(tx, build).await
}

type Parts<'a> = (
    Option<BuildStep>,
    Option<&'a str>,
    Option<&'a Lease>,
    Option<u64>,
);

fn parts(state: &State) -> Parts<'_> {
    match state {
        State::Waiting | State::Queued => (None, None, None, None),
        State::Claimed(lease) => (None, None, Some(lease), None),
        State::Succeeded { deployment } => (None, None, None, Some(*deployment)),
        State::Failed { step, reason } => (*step, Some(reason), None, None),
        State::Cancelled { reason } => (None, Some(reason), None, None),
    }
}

fn read(row: Row) -> Result<Build, StoreError> {
    let corrupt = |what| StoreError::Corrupt { what };
    let reason = row.reason.clone().unwrap_or_default();
    let state = match row.state.as_str() {
        "waiting" => State::Waiting,
        "queued" => State::Queued,
        "claimed" => State::Claimed(Lease {
            worker: row.worker.clone().unwrap_or_default(),
            token: row.worker_token.clone().unwrap_or_default(),
            until: time(row.until.unwrap_or_default()),
        }),
        "succeeded" => State::Succeeded {
            deployment: count(row.deployment.unwrap_or_default(), "builds.deployment")?,
        },
        "failed" => State::Failed {
            step: row.step.as_deref().map(step_of).transpose()?,
            reason,
        },
        "cancelled" => State::Cancelled { reason },
        _ => return Err(corrupt("builds.state")),
    };
    let env_revision = row
        .env_revision
        .map(|revision| count(revision, "builds.env_revision"));
    Ok(Build {
        id: store::id(&row.build)?,
        number: count(row.number, "builds.number")?,
        wanted: Wanted {
            site: store::id(&row.site)?,
            commit: store::id(&row.commit_id)?,
            url: row.url.clone(),
            reference: row.reference.clone(),
            trust: trust_of(&row.trust)?,
            settings: serde_json::from_str(&row.settings)
                .map_err(|_| corrupt("builds.settings"))?,
            push_seq: count(row.push_seq, "builds.push_seq")?,
            waits: matches!(state, State::Waiting),
        },
        state,
        attempts: count(row.attempts, "builds.attempts")?,
        env_revision: env_revision.transpose()?,
        row,
    })
}

/// Whether a deployment to an environment may come from what is so far trusted.
#[must_use]
pub const fn may_deploy(trust: Trust, environment: Environment) -> bool {
    match (environment, trust) {
        (Environment::Production, Trust::Default) | (Environment::Preview(_), _) => true,
        (Environment::Production, Trust::Branch | Trust::Fork) => false,
    }
}

const fn trust_name(trust: Trust) -> &'static str {
    match trust {
        Trust::Fork => "fork",
        Trust::Branch => "branch",
        Trust::Default => "default",
    }
}

fn trust_of(name: &str) -> Result<Trust, StoreError> {
    [Trust::Fork, Trust::Branch, Trust::Default]
        .into_iter()
        .find(|trust| trust_name(*trust) == name)
        .ok_or(StoreError::Corrupt {
            what: "builds.trust",
        })
}

const STEPS: [BuildStep; 7] = [
    BuildStep::Fetch,
    BuildStep::Detect,
    BuildStep::Toolchain,
    BuildStep::Install,
    BuildStep::Build,
    BuildStep::Output,
    BuildStep::Upload,
];

const fn step_name(step: BuildStep) -> &'static str {
    match step {
        BuildStep::Fetch => "fetch",
        BuildStep::Detect => "detect",
        BuildStep::Toolchain => "toolchain",
        BuildStep::Install => "install",
        BuildStep::Build => "build",
        BuildStep::Output => "output",
        BuildStep::Upload => "upload",
    }
}

fn step_of(name: &str) -> Result<BuildStep, StoreError> {
    STEPS
        .into_iter()
        .find(|step| step_name(*step) == name)
        .ok_or(StoreError::Corrupt {
            what: "builds.step",
        })
}

fn short(reason: &str) -> String {
    store::text(&reason.chars().take(MAX_REASON).collect::<String>())
}
