//! What workers say: they claim builds, say that they go on, send the log, and end.
//!
//! Invariant: whoever is not the one that has the build changes nothing, and is told to stop. A build that succeeds and its deployment
//! are one transaction.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helix_routing::api::{
    BuildClaim, BuildEnd, BuildJob, BuildLimits, BuildOutcome, BuildSettings, BuildStep,
    BuildVariable, BuildWish, HEARTBEAT_SECONDS, InFreeze, NewDeployment, NewFile, Provider,
    Source, Trust,
};
use helix_routing::id::{BuildId, RolloutId};
use helix_routing::rollout::RolloutPolicy;
use helix_service::clock;
use helix_service::error::chain;
use url::Url;

use super::state::{Asking, State};
use super::{Build, BuildError, find, move_to, short};
use crate::app::App;
use crate::artifact::release::MakeError;
use crate::auth::Caller;
use crate::deployment::{self, Cause, StartError};
use crate::rollout::RolloutError;
use crate::source::link::{self, Link};
use crate::source::seal::SealError;
use crate::source::{Source as Sources, env};
use crate::store::{StoreError, Tx, millis, number};

/// Longest name of a worker, in bytes.
const MAX_WORKER: usize = 100;
/// Longest name of a framework that is kept, in characters.
const MAX_FRAMEWORK: usize = 60;

/// A build cannot be ended.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// The build is not there, or the database failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The deployment cannot start, and may later.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Gives a build to a worker.
///
/// # Errors
/// When it is another's, or there is nothing to do, or what it needs does not open.
pub async fn claim(
    app: &App,
    caller: &Caller,
    id: &BuildId,
    asked: &BuildClaim,
) -> Result<BuildJob, BuildError> {
    let asking = asking(caller, &asked.worker)?;
    let mut tx = app.store.write().await?;
    let build = find(&mut tx, id).await?;
    let (state, is_new) = build.state.claim(asking, clock::now())?;
    let link = link::of(&mut tx, build.project()).await?;
    let kind = build.wanted.site.environment.into();
    let revision = match build.env_revision {
        Some(revision) => revision,
        None => env::newest(&mut tx, build.project(), kind).await?,
    };
    if is_new {
        sqlx::query(
            "UPDATE builds SET attempts = attempts + 1, started = $1, env_revision = $2 WHERE build = $3",
        )
        .bind(millis(clock::now()))
        .bind(number(revision))
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?;
        move_to(&mut tx, &build, state).await?;
    } else {
        renew(&mut tx, id, &state).await?;
    }
    let with_secrets = build.wanted.trust != Trust::Fork;
    let of = (build.project(), kind);
    let env = env::told(&mut tx, &app.source.key, of, revision, with_secrets).await?;
    let job = job(&app.source, &link, &build, env).map_err(link::LinkError::from)?;
    tx.commit().await?;
    app.source.changed();
    Ok(job)
}

/// A worker goes on with its build.
///
/// # Errors
/// When there is no such build, or the database fails.
pub async fn heartbeat(
    app: &App,
    caller: &Caller,
    id: &BuildId,
    asked: &BuildClaim,
) -> Result<BuildWish, BuildError> {
    let asking = asking(caller, &asked.worker)?;
    let mut tx = app.store.write().await?;
    let build = find(&mut tx, id).await?;
    if !build.state.is_of(asking) {
        return Ok(stop(&build));
    }
    let (state, _) = build.state.claim(asking, clock::now())?;
    renew(&mut tx, id, &state).await?;
    tx.commit().await?;
    Ok(BuildWish { stop: None })
}

/// A worker is through with its build.
///
/// # Errors
/// When there is no such build, what it made is not uploaded, or the database fails.
pub async fn end(
    app: &App,
    caller: &Caller,
    id: &BuildId,
    ended: BuildEnd,
) -> Result<BuildWish, EndError> {
    let asking = asking(caller, &ended.worker)?;
    let mut reader = app.store.read().await.map_err(BuildError::from)?;
    let build = find(&mut reader, id).await?;
    drop(reader);
    if !build.state.is_of(asking) {
        return Ok(stop(&build));
    }
    let failed = match ended.outcome {
        BuildOutcome::Failed { step, reason } => (step, reason),
        BuildOutcome::Succeeded {
            files,
            framework,
            materials,
        } => {
            let known = (framework.as_deref(), materials.as_deref());
            let deployed = Box::pin(deploy(app, &build, asking, files, known));
            let claim = BuildClaim {
                worker: ended.worker.clone(),
            };
            let deployed = tokio::select! {
                deployed = deployed => deployed,
                never = keep(app, caller, id, &claim) => match never {},
            };
            match deployed {
                Ok(()) => {
                    app.source.changed();
                    return Ok(BuildWish { stop: None });
                }
                Err(StartError::NotBuilding(_)) => {
                    let mut reader = app.store.read().await.map_err(BuildError::from)?;
                    return Ok(stop(&find(&mut reader, id).await?));
                }
                Err(error) if may_pass(&error) => return Err(error.into()),
                Err(error) => (BuildStep::Output, said(&error)),
            }
        }
    };
    fail(app, id, asking, failed).await?;
    app.source.changed();
    Ok(BuildWish { stop: None })
}

/// The worker that waits for its answer keeps its build: a release may have to be in the registry first.
async fn keep(app: &App, caller: &Caller, id: &BuildId, claim: &BuildClaim) -> Infallible {
    loop {
        tokio::time::sleep(Duration::from_secs(HEARTBEAT_SECONDS)).await;
        // Whether it is still its build is found out when that counts.
        if let Err(error) = heartbeat(app, caller, id, claim).await {
            tracing::warn!(build = %id, error = %chain(&error), "the lease of a build is not renewed");
        }
    }
}

/// Whether a worker that holds `token` has a build of the project: it may upload then.
///
/// # Errors
/// When the database fails.
pub async fn has_build_of(app: &App, caller: &Caller, project: &str) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM builds WHERE project = $1 AND worker_token = $2 AND state = 'claimed' AND until > $3 LIMIT 1",
    )
    .bind(project)
    .bind(&caller.id)
    .bind(millis(clock::now()))
    .fetch_optional(app.store.reader())
    .await?;
    Ok(found.is_some())
}

/// Notes in the transaction of its deployment that a build has succeeded.
///
/// # Errors
/// When the database fails.
pub async fn succeeded(
    tx: &mut Tx,
    build: &Build,
    framework: Option<&str>,
    deployment: u64,
) -> Result<(), StoreError> {
    let framework: Option<String> =
        framework.map(|name| name.chars().take(MAX_FRAMEWORK).collect());
    sqlx::query("UPDATE builds SET framework = $1 WHERE build = $2")
        .bind(framework.as_deref().map(short))
        .bind(build.id.as_str())
        .execute(&mut **tx)
        .await?;
    move_to(tx, build, State::Succeeded { deployment }).await
}

/// The number of a rollout's build, for whoever wants to say what became of it.
///
/// # Errors
/// When the database fails.
pub async fn of_rollout(tx: &mut Tx, rollout: &RolloutId) -> Result<Option<BuildId>, StoreError> {
    let build: Option<Option<String>> =
        sqlx::query_scalar("SELECT build FROM deployments WHERE rollout = $1")
            .bind(rollout.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    build
        .flatten()
        .map(|build| crate::store::id(&build))
        .transpose()
}

fn asking<'a>(caller: &'a Caller, worker: &'a str) -> Result<Asking<'a>, BuildError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !(1..=MAX_WORKER).contains(&worker.len()) || !worker.bytes().all(legal) {
        return Err(BuildError::Worker);
    }
    Ok(Asking {
        worker,
        token: &caller.id,
    })
}

fn stop(build: &Build) -> BuildWish {
    BuildWish {
        stop: Some(build.state.stop()),
    }
}

async fn renew(tx: &mut Tx, id: &BuildId, state: &State) -> Result<(), StoreError> {
    if let State::Claimed(lease) = state {
        sqlx::query("UPDATE builds SET until = $1 WHERE build = $2")
            .bind(millis(lease.until))
            .bind(id.as_str())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn fail(
    app: &App,
    id: &BuildId,
    asking: Asking<'_>,
    (step, reason): (BuildStep, String),
) -> Result<(), BuildError> {
    let mut tx = app.store.write().await?;
    let build = find(&mut tx, id).await?;
    if build.state.is_of(asking) {
        let step = Some(step);
        move_to(&mut tx, &build, State::Failed { step, reason }).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn deploy(
    app: &App,
    build: &Build,
    asking: Asking<'_>,
    files: Vec<NewFile>,
    (framework, materials): (Option<&str>, Option<&str>),
) -> Result<(), StartError> {
    let new = NewDeployment {
        environment: build.wanted.site.environment,
        files,
        lift_quarantine: false,
        automatic: true,
        rollout: RolloutPolicy::default(),
        at: None,
        in_freeze: InFreeze::Wait,
        push_seq: Some(build.wanted.push_seq),
        static_only: false,
    };
    let cause = Cause::Build {
        build,
        asking,
        framework,
        materials,
    };
    let caller = Caller {
        id: format!("build {}", build.id),
        name: build.row.by_whom.clone(),
        ..Caller::origin()
    };
    // A lock keeps builds out like everybody else: what it is for is that nothing changes.
    let caller = Caller {
        role: helix_routing::api::Role::Build,
        ..caller
    };
    deployment::deploy_of(app, &caller, build.project(), new, cause, None).await?;
    Ok(())
}

/// Whether the same may go well a moment later, so that the worker is to say it again.
fn may_pass(error: &StartError) -> bool {
    match error {
        StartError::Store(_)
        | StartError::Make(MakeError::Missing { .. } | MakeError::Store(_))
        | StartError::Rollout(RolloutError::Store(_)) => true,
        StartError::Make(_)
        | StartError::Rollout(_)
        | StartError::AutomaticLift
        | StartError::Linked(_)
        | StartError::Source(_)
        | StartError::Attest(_)
        | StartError::Bill(_)
        | StartError::Untrusted(_)
        | StartError::NoOverride(_)
        | StartError::Differs(_)
        | StartError::NotBuilding(_)
        | StartError::Reason(_)
        | StartError::Project(_)
        | StartError::Read(_)
        | StartError::Lane(_)
        | StartError::NotThere(_)
        | StartError::Key(_) => false,
    }
}

/// What a person is told who reads why the build failed.
fn said(error: &StartError) -> String {
    match error {
        StartError::Make(MakeError::Rules { errors }) => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            format!("{error}:\n{}", lines.join("\n"))
        }
        error => error.to_string(),
    }
}

fn job(
    source: &Sources,
    link: &Link,
    build: &Build,
    env: BTreeMap<String, BuildVariable>,
) -> Result<BuildJob, SealError> {
    let wanted = &build.wanted;
    let credential = link.credential(&source.key)?;
    let authorization = credential
        .filter(|_| is_same_server(&wanted.url, &link.url))
        .map(|credential| authorization(link.provider, &credential));
    Ok(BuildJob {
        id: build.id.clone(),
        project: build.project().clone(),
        environment: wanted.site.environment,
        source: Source {
            url: wanted.url.clone(),
            reference: wanted.reference.clone(),
            commit: wanted.commit.clone(),
            authorization,
        },
        settings: BuildSettings {
            // No worker runs it, and those from before know no such field.
            start: None,
            ..wanted.settings.clone()
        },
        trust: wanted.trust,
        env,
        hosts: source.hosts.to_vec(),
        limits: BuildLimits::default(),
    })
}

/// A credential is shown to the server that it was given for, and to no other.
fn is_same_server(one: &str, other: &str) -> bool {
    match (Url::parse(one), Url::parse(other)) {
        (Ok(one), Ok(other)) => one.origin().is_tuple() && one.origin() == other.origin(),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// What git shows: a user and a password, or a token in the way of its provider.
#[must_use]
pub fn authorization(provider: Provider, credential: &str) -> String {
    let user = match provider {
        Provider::Github => "x-access-token",
        Provider::Gitlab => "oauth2",
        Provider::Bitbucket => "x-token-auth",
        Provider::Git => "git",
    };
    let pair = if credential.contains(':') {
        credential.to_owned()
    } else {
        format!("{user}:{credential}")
    };
    format!("Basic {}", STANDARD.encode(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_goes_to_its_own_server_only() {
        for (one, other, same) in [
            ("https://github.com/a/b", "https://github.com/c/d", true),
            ("https://github.com/a/b", "http://github.com/a/b", false),
            (
                "https://github.com/a/b",
                "https://github.com.evil.example/a/b",
                false,
            ),
            (
                "https://github.com:444/a/b",
                "https://github.com/a/b",
                false,
            ),
            ("file:///srv/a", "file:///srv/a", false),
            ("nonsense", "nonsense", false),
        ] {
            assert_eq!(is_same_server(one, other), same, "{one} {other}");
        }
    }

    #[test]
    fn a_token_is_shown_as_its_provider_wants_it() {
        let shown = |provider, credential| {
            let header = authorization(provider, credential);
            let encoded = header.strip_prefix("Basic ").unwrap();
            String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
        };
        assert_eq!(shown(Provider::Github, "ghs_1"), "x-access-token:ghs_1");
        assert_eq!(shown(Provider::Gitlab, "glpat"), "oauth2:glpat");
        assert_eq!(shown(Provider::Git, "me:pw"), "me:pw");
    }
}
