//! Deployments: from a list of files to a running rollout.
//!
//! Invariant: the deployment's row and number, the rollout, its records and the answer under an
//! idempotency key are one transaction. A deployment that was answered exists; one that was not, does not.

use helix_routing::api::{DeploymentView, InFreeze, NewDeployment};
use helix_routing::id::{BuildId, Environment, ProjectName, RegionId, ReleaseId, SiteId};
use helix_routing::provenance::Source;
use helix_routing::provenance::policy::Refused;
use helix_routing::record::ReleaseRef;
use helix_routing::rollout::RolloutPolicy;
use helix_service::clock;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::artifact::read::ReadError;
use crate::artifact::release::MakeError;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::bill::{self, BillError};
use crate::build::state::Asking;
use crate::build::{self, Build, BuildError, work};
use crate::event::{self, Event};
use crate::hold::HoldError;
use crate::idempotency::{KeyError, Repeatable};
use crate::lane::{self, LaneError};
use crate::project::{self, ProjectError};
use crate::provenance::{self, AttestError};
use crate::remote::queue;
use crate::remote::run::{self, NotThere};
use crate::restart;
use crate::rollout::policy::WayOut;
use crate::rollout::{Begun, NewRollout, RolloutError};
use crate::source::{env, link};
use crate::store::{Connection, StoreError, Tx, count, millis, number};

/// A deployment or rollback was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Only a person can give the word.
    #[error(
        "an automatic deployment lifts no quarantine: deploy by hand, or lift it with `helix release unquarantine`"
    )]
    AutomaticLift,
    /// Production of a linked project comes from its repository.
    #[error(
        "{0} is linked to a repository: what is merged there goes to production; `helix link --allow-uploads` permits folders, too"
    )]
    Linked(ProjectName),
    /// A preview is promoted without a word.
    #[error(
        "release {0} was not built of the default branch: promote it with --override REASON, which is kept in the audit log"
    )]
    NoOverride(ReleaseId),
    /// Regions have different releases.
    #[error("{0} has different releases in its regions: it gets new variables once they are one")]
    Differs(SiteId),
    /// What is built cannot go there.
    #[error("{0} takes only what was built of the default branch")]
    Untrusted(SiteId),
    /// It comes from somewhere else than the site takes.
    #[error(transparent)]
    Source(#[from] Refused),
    /// Where it comes from cannot be attested.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// What it was made of cannot be kept.
    #[error(transparent)]
    Bill(#[from] BillError),
    /// The build was cancelled, or is another worker's.
    #[error("build {0} is not this worker's any more")]
    NotBuilding(BuildId),
    /// The reason says nothing, or too much.
    #[error(transparent)]
    Reason(HoldError),
    /// The project cannot be deployed to.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The release cannot be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// The release just made cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It may not be deployed now, or by this one.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The rollout cannot start.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// The registry has to have it first.
    #[error(transparent)]
    NotThere(#[from] NotThere),
    /// The idempotency key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where the files of a deployment come from.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// Somebody's folder.
    Upload,
    /// A build.
    Build {
        /// Which.
        build: &'a Build,
        /// Who has it.
        asking: Asking<'a>,
        /// What it was found to be.
        framework: Option<&'a str>,
        /// What it was made of, if the worker says so.
        materials: Option<&'a str>,
    },
}

/// Makes the release of the given files and rolls it out everywhere.
///
/// # Errors
/// As [`StartError`] says; then nothing was changed, though a release may have been made.
pub async fn deploy(
    app: &App,
    caller: &Caller,
    project: &ProjectName,
    new: NewDeployment,
    repeatable: Option<Repeatable>,
) -> Result<DeploymentView, StartError> {
    deploy_of(app, caller, project, new, Cause::Upload, repeatable).await
}

/// The same, of files that come from wherever `cause` says.
///
/// # Errors
/// The same, and when they may not go there from there.
pub async fn deploy_of(
    app: &App,
    caller: &Caller,
    project: &ProjectName,
    new: NewDeployment,
    cause: Cause<'_>,
    repeatable: Option<Repeatable>,
) -> Result<DeploymentView, StartError> {
    if new.automatic && new.lift_quarantine {
        return Err(StartError::AutomaticLift);
    }
    if let Some(answer) = answered(app, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    project::ensure(&app.store, project).await?;
    let site = SiteId {
        project: project.clone(),
        environment: new.environment,
    };
    let revision = {
        let mut reader = app.store.read().await?;
        check_cause(&mut reader, &site, cause).await?;
        revision(&mut reader, &site, cause).await?
    };
    let release = app
        .artifacts
        .make_release(&site, new.files, revision, new.static_only)
        .await?;
    run::wait_for(app, project, &release).await??;
    let source = source_of(app, caller, cause).await?;
    let routes = app.artifacts.routes_of(&release.artifact).await?;
    let wanted = NewRollout {
        bake: app.bakes.plan(&site, &routes)?,
        site: site.clone(),
        release: release.clone(),
        by: caller.name.clone(),
        lift_quarantine: new.lift_quarantine,
        automatic: new.automatic,
        way_out: WayOut {
            typed: new.rollout,
            release: routes.rollout,
            config: (*app.rollouts).clone(),
            order: app.regions.to_vec(),
        },
        not_before: new.at,
        closed: Vec::new(),
        superseded: None,
        requires: None,
    };
    let when = (&new.in_freeze, new.push_seq);
    let mut begun = begin(app, caller, wanted, when, Some(&source)).await?;

    if let Some(answer) = answered_now(&mut begun.tx, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    project::check(&mut begun.tx, project).await?;
    check_cause(&mut begun.tx, &site, cause).await?;
    note_override(&mut begun.tx, caller, &site, &new.in_freeze).await?;
    let origin = (site, new.automatic, new.push_seq);
    let view = record(&mut begun, app, caller, origin, release.clone()).await?;
    note_source(app, &mut begun.tx, (&view, &release), (&source, cause)).await?;
    if let Some(repeatable) = &repeatable {
        repeatable.note(&mut begun.tx, &view).await?;
    }
    begun.commit().await?;
    app.artifacts.export_soon();
    Ok(view)
}

/// What a release was built of, if it was.
#[derive(Clone, Debug, Default)]
pub(crate) struct BuiltOf {
    pub(crate) build: Option<String>,
    pub(crate) commit: Option<String>,
}

/// Where a release comes from that is rolled out again, or elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct ComesFrom {
    pub(crate) built_of: BuiltOf,
    pub(crate) source: Source,
    /// What the files were made of, if their build said so.
    pub(crate) bill: Option<String>,
    /// The same files are live there already, however they came there: they begin anew.
    pub(crate) is_live: bool,
}

/// Rolls out a release that was made of another one's files, and answers with what `shown` makes of it.
///
/// # Errors
/// As [`StartError`] says; then nothing was changed.
pub(crate) async fn roll_out<T: Serialize + DeserializeOwned>(
    app: &App,
    caller: &Caller,
    (site, release): (&SiteId, ReleaseRef),
    (act, from): (Act, ComesFrom),
    repeatable: Option<Repeatable>,
    shown: impl FnOnce(DeploymentView) -> T,
) -> Result<T, StartError> {
    run::wait_for(app, &site.project, &release).await??;
    let routes = app.artifacts.routes_of(&release.artifact).await?;
    let wanted = NewRollout {
        bake: app.bakes.plan(site, &routes)?,
        site: site.clone(),
        release: release.clone(),
        by: caller.name.clone(),
        lift_quarantine: false,
        automatic: false,
        way_out: WayOut {
            typed: RolloutPolicy::default(),
            release: routes.rollout,
            config: (*app.rollouts).clone(),
            order: app.regions.to_vec(),
        },
        not_before: None,
        closed: Vec::new(),
        superseded: None,
        requires: None,
    };
    let source = Some(&from.source).filter(|_| !from.is_live);
    let when = (&InFreeze::Refuse, None);
    let mut begun = begin(app, caller, wanted, when, source).await?;
    if let Some(answer) = answered_now(&mut begun.tx, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    project::check(&mut begun.tx, &site.project).await?;
    let what = (site.clone(), false, None);
    let view = record(&mut begun, app, caller, what, release.clone()).await?;
    app.attestor
        .note(&mut begun.tx, site, &release, &from.source)
        .await?;
    if let Some(bill) = &from.bill {
        let layout = app.artifacts.layout();
        bill::note(&mut begun.tx, layout, (site, &release), bill).await?;
    }
    if from.is_live {
        let asked = restart::requested(site, &view.rollout, caller, act.why());
        event::emit(&mut begun.tx, asked).await?;
    }
    audit::record(&mut begun.tx, caller, act).await?;
    note_built_of(&mut begun.tx, &view, &from.built_of).await?;
    let view = shown(view);
    if let Some(repeatable) = &repeatable {
        repeatable.note(&mut begun.tx, &view).await?;
    }
    begun.commit().await?;
    app.artifacts.export_soon();
    Ok(view)
}

/// Where the files come from, as it is attested.
async fn source_of(app: &App, caller: &Caller, cause: Cause<'_>) -> Result<Source, StartError> {
    match cause {
        Cause::Upload => Ok(Source::Upload {
            by: caller.name.clone(),
        }),
        Cause::Build { build, .. } => {
            let mut reader = app.store.read().await?;
            Ok(provenance::of_build(&mut reader, build).await?)
        }
    }
}

/// Whether the files may go to a site from where they come: asked before they are made a release, and once more when it counts.
async fn check_cause(
    connection: &mut Connection,
    site: &SiteId,
    cause: Cause<'_>,
) -> Result<(), StartError> {
    match cause {
        Cause::Upload if site.environment == Environment::Production => {
            let link = link::find(connection, &site.project).await?;
            if link.is_some_and(|link| !link.allow_uploads) {
                return Err(StartError::Linked(site.project.clone()));
            }
            Ok(())
        }
        Cause::Upload => Ok(()),
        Cause::Build { build, asking, .. } => {
            let now = match build::find(connection, &build.id).await {
                Ok(now) => now,
                Err(BuildError::Store(error)) => return Err(error.into()),
                Err(_) => return Err(StartError::NotBuilding(build.id.clone())),
            };
            if !now.state.is_of(asking) {
                return Err(StartError::NotBuilding(build.id.clone()));
            }
            if build.wanted.site != *site || !build::may_deploy(now.wanted.trust, site.environment)
            {
                return Err(StartError::Untrusted(site.clone()));
            }
            Ok(())
        }
    }
}

/// The revision of the variables that a release has: what its build was told, or the newest. None before the first.
async fn revision(
    connection: &mut Connection,
    site: &SiteId,
    cause: Cause<'_>,
) -> Result<Option<u64>, StoreError> {
    let revision = match cause {
        Cause::Build { build, .. } => build.env_revision.unwrap_or_default(),
        Cause::Upload => env::newest(connection, &site.project, site.environment.into()).await?,
    };
    Ok((revision > 0).then_some(revision))
}

/// Attests where a release comes from, and notes what it was made of and of which build it is.
async fn note_source(
    app: &App,
    tx: &mut Tx,
    (view, release): (&DeploymentView, &ReleaseRef),
    (source, cause): (&Source, Cause<'_>),
) -> Result<(), StartError> {
    app.attestor.note(tx, &view.site, release, source).await?;
    if let Cause::Build {
        materials: Some(materials),
        ..
    } = cause
    {
        let made = (&view.site, release);
        bill::note(tx, app.artifacts.layout(), made, materials).await?;
    }
    Ok(note_cause(tx, view, cause).await?)
}

/// Notes which build a deployment is of; the build has succeeded thereby.
async fn note_cause(
    tx: &mut Tx,
    view: &DeploymentView,
    cause: Cause<'_>,
) -> Result<(), StoreError> {
    let Cause::Build {
        build, framework, ..
    } = cause
    else {
        return Ok(());
    };
    let built_of = BuiltOf {
        build: Some(build.id.to_string()),
        commit: Some(build.wanted.commit.to_string()),
    };
    note_built_of(tx, view, &built_of).await?;
    work::succeeded(tx, build, framework, view.number).await
}

async fn note_built_of(
    tx: &mut Tx,
    view: &DeploymentView,
    built_of: &BuiltOf,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE deployments SET build = $1, commit_id = $2 WHERE project = $3 AND number = $4",
    )
    .bind(built_of.build.as_deref())
    .bind(built_of.commit.as_deref())
    .bind(view.site.project.as_str())
    .bind(number(view.number))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Starts it, if it may be started now, by this one, and of what comes from there.
async fn begin(
    app: &App,
    caller: &Caller,
    mut wanted: NewRollout,
    (in_freeze, push_seq): (&InFreeze, Option<u64>),
    source: Option<&Source>,
) -> Result<Begun, StartError> {
    let mut tx = app.store.write().await?;
    let (site, at) = (&wanted.site, wanted.not_before);
    if let Some(source) = source
        && let Some(requires) = provenance::required(&mut tx, site).await?
    {
        requires.check(source, site)?;
        wanted.requires = Some(requires);
    }
    let site = &wanted.site;
    wanted.closed = lane::check_deploy(&mut tx, caller, site, at, in_freeze).await?;
    if let Some(push_seq) = push_seq
        && let Some(newest) = lane::newest_push(&mut tx, site).await?
        && newest > push_seq
    {
        let because = format!("push {push_seq} came after push {newest}, which is newer");
        wanted.superseded = Some(because);
    }
    Ok(app.conductor.deploy_in(tx, wanted).await?)
}

/// What the request was answered with before.
///
/// # Errors
/// When the key was used for another request, or the database fails.
pub(crate) async fn answered<T: DeserializeOwned>(
    app: &App,
    repeatable: Option<&Repeatable>,
) -> Result<Option<T>, KeyError> {
    match repeatable {
        Some(repeatable) => repeatable.answer(&app.store).await,
        None => Ok(None),
    }
}

/// The same, once it is this request's turn to write.
///
/// # Errors
/// When the key was used for another request, or the database fails.
pub(crate) async fn answered_now<T: DeserializeOwned>(
    tx: &mut Tx,
    repeatable: Option<&Repeatable>,
) -> Result<Option<T>, KeyError> {
    match repeatable {
        Some(repeatable) => repeatable.answer_now(tx).await,
        None => Ok(None),
    }
}

/// Who deploys in a freeze all the same says why, and it is kept.
async fn note_override(
    tx: &mut Tx,
    caller: &Caller,
    site: &SiteId,
    in_freeze: &InFreeze,
) -> Result<(), StoreError> {
    match in_freeze {
        InFreeze::Override(reason) => {
            let site = site.to_string();
            audit::note(tx, caller, "freeze.override", &site, Some(reason)).await
        }
        InFreeze::Refuse | InFreeze::Wait => Ok(()),
    }
}

#[expect(
    clippy::too_many_lines,
    reason = "one row, one entry and one event, each with all that is known"
)]
async fn record(
    begun: &mut Begun,
    app: &App,
    caller: &Caller,
    (site, automatic, push_seq): (SiteId, bool, Option<u64>),
    release: ReleaseRef,
) -> Result<DeploymentView, StoreError> {
    let Begun {
        tx,
        rollout,
        held,
        skipped,
        ..
    } = begun;
    let last: i64 =
        sqlx::query_scalar("SELECT COALESCE(MAX(number), 0) FROM deployments WHERE project = $1")
            .bind(site.project.as_str())
            .fetch_one(&mut **tx)
            .await?;
    let this = count(last, "deployments.number")? + 1;
    let label = match site.environment {
        Environment::Production => format!("main/{this}"),
        Environment::Preview(pull_request) => format!("preview/{pull_request}"),
    };
    let left_out: Vec<&str> = skipped
        .iter()
        .map(|skipped| skipped.region.as_str())
        .collect();
    let left_out = (!left_out.is_empty()).then(|| left_out.join(" "));
    sqlx::query(
        "INSERT INTO deployments (project, number, label, site, release_id, rollout, by_whom, created, automatic, skipped, push_seq)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(site.project.as_str())
    .bind(number(this))
    .bind(&label)
    .bind(site.to_string())
    .bind(release.release.as_str())
    .bind(rollout.as_str())
    .bind(&caller.name)
    .bind(millis(clock::now()))
    .bind(i64::from(automatic))
    .bind(&left_out)
    .bind(push_seq.map(number))
    .execute(&mut **tx)
    .await?;
    let how = if automatic {
        "deploy.automatic"
    } else {
        "deploy"
    };
    let mut detail = format!("{label}: release {}, rollout {rollout}", release.release);
    if !held.is_empty() {
        let lifted: Vec<&str> = held.iter().map(RegionId::as_str).collect();
        detail.push_str(&format!("; lifts the hold on {}", lifted.join(", ")));
    }
    if let Some(left_out) = &left_out {
        detail.push_str(&format!("; leaves out {left_out}, which are held"));
    }
    let act = Act::new(how, site.to_string()).detail(Some(detail));
    audit::record(tx, caller, act).await?;
    // The label is a new tag.
    queue::want(tx, &site.project, &release.artifact).await?;
    let left_out: Vec<String> = skipped
        .iter()
        .map(|skipped| skipped.region.to_string())
        .collect();
    let created = Event::new("deployment.created", Some(&site.project))
        .on(&site)
        .with("rollout", Some(rollout.to_string()))
        .with("kind", Some("deploy"))
        .with("by", Some(caller.name.clone()))
        .with("deployment", Some(this))
        .with("label", Some(label.clone()))
        .with("release", Some(release.release.to_string()))
        .with("url", Some(app.addresses.site_url(&site)))
        .with("automatic", Some(automatic))
        .with("skipped", Some(left_out));
    event::emit(tx, created).await?;
    Ok(DeploymentView {
        number: this,
        label,
        url: app.addresses.site_url(&site),
        release_url: app.addresses.release_url(&site.project, &release.release),
        site,
        release: release.release,
        artifact: release.artifact,
        rollout: rollout.clone(),
        held: held.clone(),
        skipped: skipped.clone(),
    })
}
