//! Promotions: a preview's release goes to production as it is, on the word of an operator.
//!
//! Invariant: production of a linked project gets what was built of its default branch. Whoever promotes a preview overrides that, says
//! why, and is in the audit log with it.

use helix_routing::api::{DeploymentView, NewPromotion};
use helix_routing::id::{Environment, ProjectName, ReleaseId, SiteId};

use crate::app::App;
use crate::audit::Act;
use crate::auth::Caller;
use crate::bill;
use crate::deployment::{self, BuiltOf, ComesFrom, StartError, answered};
use crate::idempotency::Repeatable;
use crate::provenance;
use crate::rollout::RolloutError;
use crate::source::env;
use crate::store::{self, StoreError};

/// Rolls the files of a preview's release out to production.
///
/// # Errors
/// When there is no such release, no reason, or the rollout cannot start; then nothing was changed.
pub async fn promote(
    app: &App,
    caller: &Caller,
    project: &ProjectName,
    new: NewPromotion,
    repeatable: Option<Repeatable>,
) -> Result<DeploymentView, StartError> {
    if let Some(answer) = answered(app, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    let Some(reason) = new.override_reason.as_deref() else {
        return Err(StartError::NoOverride(new.release));
    };
    crate::hold::check_reason(reason).map_err(StartError::Reason)?;
    let to = SiteId {
        project: project.clone(),
        environment: Environment::Production,
    };
    let from = site_of(app, project, &new.release).await?;
    let unknown = || RolloutError::UnknownRelease {
        site: to.clone(),
        release: new.release.clone(),
    };
    let from = from.ok_or_else(unknown)?;
    let revision = newest(app, &to).await?;
    let made = app
        .artifacts
        .restate((&from, &new.release), &to, revision)
        .await?;
    let made = made.ok_or_else(unknown)?;
    let source = {
        let mut reader = app.store.read().await?;
        let word = (caller.name.as_str(), reason);
        provenance::promoted(&mut reader, (&from, &new.release), word).await?
    };
    let comes_from = ComesFrom {
        built_of: of_build(app, &from, &new.release).await?,
        source: source.ok_or_else(unknown)?,
        bill: bill::of_release(&app.store, app.artifacts.layout(), &from, &new.release).await?,
        is_live: false,
    };
    let detail = provenance::promotion_detail(&from, &new.release, &made.release);
    let act = Act::new("promote", to.to_string())
        .reason(Some(reason))
        .detail(Some(detail));
    deployment::roll_out(
        app,
        caller,
        (&to, made),
        (act, comes_from),
        repeatable,
        |view| view,
    )
    .await
}

/// The newest revision of a site's variables; none before the first.
pub(crate) async fn newest(app: &App, site: &SiteId) -> Result<Option<u64>, StoreError> {
    let mut reader = app.store.read().await?;
    let revision = env::newest(&mut reader, &site.project, site.environment.into()).await?;
    Ok((revision > 0).then_some(revision))
}

/// What a release was built of, if it was.
pub(crate) async fn of_build(
    app: &App,
    site: &SiteId,
    release: &ReleaseId,
) -> Result<BuiltOf, StoreError> {
    let found: Option<(Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT build, commit_id FROM deployments WHERE site = $1 AND release_id = $2 ORDER BY number DESC LIMIT 1",
    )
    .bind(site.to_string())
    .bind(release.as_str())
    .fetch_optional(app.store.reader())
    .await?;
    let (build, commit) = found.unwrap_or_default();
    Ok(BuiltOf { build, commit })
}

/// The preview that a release is of.
async fn site_of(
    app: &App,
    project: &ProjectName,
    release: &ReleaseId,
) -> Result<Option<SiteId>, StoreError> {
    let site: Option<String> = sqlx::query_scalar(
        "SELECT r.site FROM releases r JOIN sites s ON s.site = r.site WHERE s.project = $1 AND r.release_id = $2",
    )
    .bind(project.as_str())
    .bind(release.as_str())
    .fetch_optional(app.store.reader())
    .await?;
    site.as_deref().map(store::id).transpose()
}
