//! What follows from hints: heads move, events are told, builds are asked for, previews end.
//!
//! Invariant: a hint and everything that follows from it are one transaction, which also remembers the delivery, so that a delivery that
//! comes again has no second effect and one whose transaction failed has had none.

use std::time::Duration;

use helix_routing::api::{BuildState, Forks, HookView, Provider, Trust};
use helix_routing::host::HostPattern;
use helix_routing::id::{BuildId, Commit, Environment, SiteId};
use helix_service::clock;

use super::feedback::forge::{Forge, ForgeError};
use super::link::Link;
use super::order::{self, Known, Order};
use super::payload::{Action, Change, Hint};
use super::seal::SealError;
use crate::app::App;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::build::{self, Build, BuildError, Wanted};
use crate::event::{self, Event};
use crate::feed::records::{self, RecordError};
use crate::lane;
use crate::rollout::{RolloutError, alias};
use crate::store::{self, Store, StoreError, Tx, count, millis, number};

/// How long deliveries are remembered.
const REMEMBERED: Duration = Duration::from_hours(24);
/// How long commits are that were a head once.
const SEEN_KEPT: Duration = Duration::from_hours(90 * 24);

/// A hint cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The build cannot be asked for.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The provider does not say which commit it means.
    #[error(transparent)]
    Forge(#[from] ForgeError),
    /// The credential does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The preview cannot be taken off the edges.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// Its host cannot.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for IntakeError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// What came of a hint.
#[derive(Debug)]
enum Followed {
    /// A build.
    Build(Box<Build>),
    /// A preview ended.
    Ended(SiteId),
    /// Nothing, and why.
    Nothing(String),
}

/// Asks the provider for the whole names of commits of which it said the first digits.
///
/// # Errors
/// When it does not say. Then the delivery is to come again.
pub async fn complete(app: &App, link: &Link, hints: &mut [Hint]) -> Result<(), IntakeError> {
    for hint in hints {
        let Hint::Change(change) = hint else { continue };
        let (None, Some(short)) = (&change.head, &change.short) else {
            continue;
        };
        let credential = link.credential(&app.source.key)?;
        let forge =
            credential.and_then(|credential| Forge::new(link, credential, &app.source.permitted));
        if let Some(forge) = forge {
            change.head = Some(forge.commit(short).await?);
        }
    }
    Ok(())
}

/// Follows hints of one delivery, known by `names`; none for what origin found out itself.
///
/// # Errors
/// When the database fails, or too many builds are open; then nothing was changed, and the delivery is not remembered.
pub async fn follow(
    app: &App,
    link: &Link,
    names: &[String],
    hints: &[Hint],
) -> Result<HookView, IntakeError> {
    let mut tx = app.store.write().await?;
    if came_before(&mut tx, link, names).await? {
        return Ok(nothing("this delivery came before"));
    }
    let mut followed = Vec::with_capacity(hints.len());
    for hint in hints {
        followed.push(match hint {
            Hint::Push {
                branch,
                before,
                after,
            } => push(&mut tx, link, branch, (before.as_ref(), after)).await?,
            Hint::Change(change) => self::change(&mut tx, app, link, change).await?,
        });
    }
    for name in names {
        sqlx::query("INSERT INTO hook_deliveries (project, delivery, at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(link.project.as_str())
            .bind(name)
            .bind(millis(clock::now()))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    app.source.changed();
    for ended in &followed {
        if let Followed::Ended(site) = ended {
            app.conductor.reload(site);
        }
    }
    Ok(told(followed))
}

/// Builds the newest commit of a site once more.
///
/// # Errors
/// When nothing was pushed to it yet, or the database fails.
pub async fn redeploy(
    tx: &mut Tx,
    caller: &Caller,
    link: &Link,
    site: &SiteId,
) -> Result<Build, IntakeError> {
    let nothing = || BuildError::NoCommit(site.clone());
    let before = build::newest(tx, site).await?.ok_or_else(nothing)?;
    let head = Head::read(tx, site).await?;
    let commit = head.commit.clone().filter(|_| head.closed.is_none());
    let commit = commit.ok_or_else(nothing)?;
    // What was approved for this commit counts for it still.
    let was_approved = before.wanted.commit == commit
        && (before.attempts > 0
            || matches!(
                before.state.shown(),
                BuildState::Queued | BuildState::Claimed
            ));
    let wanted = Wanted {
        waits: !was_approved && before.wanted.trust == Trust::Fork && link.forks == Forks::Approve,
        commit: commit.clone(),
        settings: link.settings.clone(),
        push_seq: head.next(tx, site).await?,
        ..before.wanted
    };
    head.write(tx, link, site, Some(&commit), wanted.push_seq)
        .await?;
    event::emit(tx, requested(site, &commit, &caller.name)).await?;
    Ok(build::request(tx, caller, wanted).await?)
}

/// Forgets deliveries and commits that were remembered long enough.
///
/// # Errors
/// When the database fails.
pub async fn forget(store: &Store) -> Result<(), StoreError> {
    let now = clock::now();
    let mut tx = store.write().await?;
    for (statement, kept) in [
        ("DELETE FROM hook_deliveries WHERE at < $1", REMEMBERED),
        ("DELETE FROM head_commits WHERE seen < $1", SEEN_KEPT),
    ] {
        sqlx::query(statement)
            .bind(millis(now - kept))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await
}

async fn came_before(tx: &mut Tx, link: &Link, names: &[String]) -> Result<bool, StoreError> {
    for name in names {
        let found: Option<i64> = sqlx::query_scalar(
            "SELECT at FROM hook_deliveries WHERE project = $1 AND delivery = $2 AND at >= $3",
        )
        .bind(link.project.as_str())
        .bind(name)
        .bind(millis(clock::now() - REMEMBERED))
        .fetch_optional(&mut **tx)
        .await?;
        if found.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn push(
    tx: &mut Tx,
    link: &Link,
    branch: &str,
    (before, after): (Option<&Commit>, &Commit),
) -> Result<Followed, IntakeError> {
    if branch != link.branch {
        let why = format!("only {} is deployed from", link.branch);
        return Ok(Followed::Nothing(why));
    }
    let site = SiteId {
        project: link.project.clone(),
        environment: Environment::Production,
    };
    let wanted = Wanted {
        site,
        commit: after.clone(),
        url: link.url.clone(),
        reference: Some(format!("refs/heads/{branch}")),
        trust: Trust::Default,
        settings: link.settings.clone(),
        push_seq: 0,
        waits: false,
    };
    take(tx, link, before, wanted).await
}

async fn change(
    tx: &mut Tx,
    app: &App,
    link: &Link,
    change: &Change,
) -> Result<Followed, IntakeError> {
    let site = SiteId {
        project: link.project.clone(),
        environment: Environment::Preview(change.number),
    };
    let before = match &change.action {
        Action::Closed => return close(tx, app, link, &site).await,
        Action::Opened => None,
        Action::Updated { before } => before.as_ref(),
        Action::Reopened => {
            reopen(tx, &site).await?;
            None
        }
    };
    let Some(commit) = &change.head else {
        return Ok(Followed::Nothing("it names no commit".to_owned()));
    };
    let trust = match (change.is_fork, link.forks) {
        (true, Forks::Block) => {
            let why = "pull requests of other repositories are not built here";
            return Ok(Followed::Nothing(why.to_owned()));
        }
        (true, Forks::Approve | Forks::Build) => Trust::Fork,
        (false, _) => Trust::Branch,
    };
    let wanted = Wanted {
        site,
        commit: commit.clone(),
        url: change.elsewhere.clone().unwrap_or_else(|| link.url.clone()),
        reference: change.reference.clone(),
        trust,
        settings: link.settings.clone(),
        push_seq: 0,
        waits: trust == Trust::Fork && link.forks == Forks::Approve,
    };
    take(tx, link, before, wanted).await
}

/// Builds a commit if it is the newest of its site.
async fn take(
    tx: &mut Tx,
    link: &Link,
    before: Option<&Commit>,
    mut wanted: Wanted,
) -> Result<Followed, IntakeError> {
    let (site, after) = (wanted.site.clone(), wanted.commit.clone());
    let head = Head::read(tx, &site).await?;
    // A server that is asked says what is, not what was: whatever it has follows on what it had.
    let was = head.commit.clone();
    let before = match link.provider {
        Provider::Git => was.as_ref(),
        Provider::Github | Provider::Gitlab | Provider::Bitbucket => before,
    };
    let known = Known {
        head: head.commit.clone(),
        is_closed: head.closed.is_some(),
        was_seen: was_seen(tx, &site, &after).await?,
    };
    match order::of(&known, before, &after) {
        Order::Take => {}
        Order::Same => return Ok(Followed::Nothing(format!("{after} is known"))),
        Order::Old => {
            return Ok(Followed::Nothing(format!(
                "{after} is older than what is known"
            )));
        }
        Order::Closed => return Ok(Followed::Nothing(format!("{site} was closed"))),
    }
    wanted.push_seq = head.next(tx, &site).await?;
    head.write(tx, link, &site, Some(&after), wanted.push_seq)
        .await?;
    for commit in before.into_iter().chain([&after]) {
        sqlx::query("INSERT INTO head_commits (site, commit_id, seen) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(site.to_string())
            .bind(commit.as_str())
            .bind(millis(clock::now()))
            .execute(&mut **tx)
            .await?;
    }
    let caller = source(link);
    event::emit(tx, requested(&site, &after, &caller.name)).await?;
    let build = build::request(tx, &caller, wanted).await?;
    Ok(Followed::Build(Box::new(build)))
}

async fn reopen(tx: &mut Tx, site: &SiteId) -> Result<(), StoreError> {
    let reopened = sqlx::query(
        "UPDATE heads SET closed = NULL, commit_id = NULL WHERE site = $1 AND closed IS NOT NULL",
    )
    .bind(site.to_string())
    .execute(&mut **tx)
    .await?;
    if reopened.rows_affected() > 0 {
        sqlx::query("DELETE FROM head_commits WHERE site = $1")
            .bind(site.to_string())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Ends a preview: what is built of it is cancelled, its host is gone, and edges drop it.
async fn close(
    tx: &mut Tx,
    app: &App,
    link: &Link,
    site: &SiteId,
) -> Result<Followed, IntakeError> {
    let head = Head::read(tx, site).await?;
    if head.closed.is_some() {
        return Ok(Followed::Nothing(format!("{site} was closed")));
    }
    let now = millis(clock::now());
    head.write(tx, link, site, head.commit.as_ref(), head.push_seq)
        .await?;
    sqlx::query("UPDATE heads SET closed = $1 WHERE site = $2")
        .bind(now)
        .bind(site.to_string())
        .execute(&mut **tx)
        .await?;
    build::cancel_all(tx, site, "the pull request was closed").await?;
    take_down(tx, app, site).await?;
    let caller = source(link);
    let act = Act::new("preview.close", site.to_string()).detail(Some(link.repository.clone()));
    audit::record(tx, &caller, act).await?;
    let event = Event::new("deployment.preview.closed", Some(&site.project)).on(site);
    event::emit(tx, event.with("by", Some(caller.name))).await?;
    Ok(Followed::Ended(site.clone()))
}

/// Takes a preview off the edges: its host is gone, and they drop it.
pub(super) async fn take_down(tx: &mut Tx, app: &App, site: &SiteId) -> Result<(), IntakeError> {
    let closed = sqlx::query("UPDATE sites SET closed = $1 WHERE site = $2 AND closed IS NULL")
        .bind(millis(clock::now()))
        .bind(site.to_string())
        .execute(&mut **tx)
        .await?;
    if closed.rows_affected() > 0 {
        app.conductor.remove_site(tx, site).await?;
        let host = app.addresses.host(site);
        records::put_host(tx, &HostPattern::Exact(host), None).await?;
        alias::refresh(tx, &site.project, app.addresses.base()).await?;
    }
    Ok(())
}

async fn was_seen(tx: &mut Tx, site: &SiteId, commit: &Commit) -> Result<bool, StoreError> {
    let seen: Option<i64> =
        sqlx::query_scalar("SELECT seen FROM head_commits WHERE site = $1 AND commit_id = $2")
            .bind(site.to_string())
            .bind(commit.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    Ok(seen.is_some())
}

/// What the repository last said of a site.
#[derive(Debug, Default)]
struct Head {
    commit: Option<Commit>,
    push_seq: u64,
    closed: Option<i64>,
}

impl Head {
    async fn read(tx: &mut Tx, site: &SiteId) -> Result<Self, StoreError> {
        let row: Option<(Option<String>, i64, Option<i64>)> =
            sqlx::query_as("SELECT commit_id, push_seq, closed FROM heads WHERE site = $1")
                .bind(site.to_string())
                .fetch_optional(&mut **tx)
                .await?;
        let Some((commit, push_seq, closed)) = row else {
            return Ok(Self::default());
        };
        Ok(Self {
            commit: commit.as_deref().map(store::id).transpose()?,
            push_seq: count(push_seq, "heads.push_seq")?,
            closed,
        })
    }

    /// The number of the next push: above all before, also those that were deployed with a number of their own.
    async fn next(&self, tx: &mut Tx, site: &SiteId) -> Result<u64, StoreError> {
        let deployed = lane::newest_push(tx, site).await?.unwrap_or_default();
        Ok(self.push_seq.max(deployed).saturating_add(1))
    }

    async fn write(
        &self,
        tx: &mut Tx,
        link: &Link,
        site: &SiteId,
        commit: Option<&Commit>,
        push_seq: u64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO heads (site, project, commit_id, push_seq, changed) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (site) DO UPDATE \
             SET commit_id = excluded.commit_id, push_seq = excluded.push_seq, changed = excluded.changed",
        )
        .bind(site.to_string())
        .bind(link.project.as_str())
        .bind(commit.map(Commit::as_str))
        .bind(number(push_seq))
        .bind(millis(clock::now()))
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}

/// Who acts when the repository says so.
fn source(link: &Link) -> Caller {
    Caller {
        id: "source".to_owned(),
        name: format!("{} {}", link.provider.name(), link.repository),
        ..Caller::origin()
    }
}

fn requested(site: &SiteId, commit: &Commit, by: &str) -> Event {
    let kind = match site.environment {
        Environment::Production => "deployment.production.requested",
        Environment::Preview(_) => "deployment.preview.requested",
    };
    Event::new(kind, Some(&site.project))
        .on(site)
        .with("commit", Some(commit.to_string()))
        .with("by", Some(by.to_owned()))
}

fn nothing(why: impl Into<String>) -> HookView {
    HookView {
        accepted: false,
        reason: why.into(),
        build: None,
    }
}

fn told(followed: Vec<Followed>) -> HookView {
    let mut why = Vec::new();
    let (mut accepted, mut build): (bool, Option<BuildId>) = (false, None);
    for one in followed {
        match one {
            Followed::Build(asked) => {
                why.push(format!("{} is built", asked.wanted.commit));
                (accepted, build) = (true, Some(asked.id.clone()));
            }
            Followed::Ended(site) => {
                why.push(format!("{site} ends"));
                accepted = true;
            }
            Followed::Nothing(reason) => why.push(reason),
        }
    }
    HookView {
        accepted,
        reason: why.join("; "),
        build,
    }
}
