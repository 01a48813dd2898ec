//! Restarts of sites: from a wish to a running rollout, or to what it would do.
//!
//! Invariant: the rollout, its records, the line in the audit log and the answer under an idempotency key are one transaction.

use helix_routing::api::{DeploymentView, NewRestart, RestartStep, RestartView};
use helix_routing::id::{ProjectName, RolloutId, SiteId};
use helix_routing::routes::Routes;

use crate::app::App;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::bill;
use crate::deployment::{self, ComesFrom, StartError, answered, answered_now};
use crate::event::{self, Event};
use crate::idempotency::Repeatable;
use crate::project;
use crate::promotion;
use crate::provenance;
use crate::rollout::{self, Anew};

/// Begins what is live anew, or says what that would be.
///
/// # Errors
/// As [`StartError`] says; then nothing was changed.
pub async fn restart(
    app: &App,
    caller: &Caller,
    project: &ProjectName,
    new: NewRestart,
    repeatable: Option<Repeatable>,
) -> Result<RestartView, StartError> {
    if let Some(answer) = answered(app, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    let site = SiteId {
        project: project.clone(),
        environment: new.environment,
    };
    if new.plan {
        let steps = app
            .conductor
            .plan_restart(&site, new.regions.as_deref())
            .await?;
        return view(app, None, &steps).await;
    }
    if new.reload_env
        && let Some(view) = reload(app, caller, (&site, &new), repeatable.clone()).await?
    {
        return Ok(view);
    }
    let wanted = rollout::NewRestart {
        site: site.clone(),
        regions: new.regions,
        by: caller.name.clone(),
        reason: new.reason.clone(),
    };
    let (mut begun, steps) = app.conductor.restart(wanted).await?;
    if let Some(answer) = answered_now(&mut begun.tx, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    project::check(&mut begun.tx, project).await?;
    let reason = new.reason.as_deref();
    audit::note(&mut begun.tx, caller, "restart", &site.to_string(), reason).await?;
    let event = requested(&site, &begun.rollout, caller, reason);
    event::emit(&mut begun.tx, event).await?;
    let view = view(app, Some(begun.rollout.clone()), &steps).await?;
    if let Some(repeatable) = &repeatable {
        repeatable.note(&mut begun.tx, &view).await?;
    }
    begun.commit().await?;
    Ok(view)
}

/// What is live, with the newest variables: a deployment of the same files. None when it has them already.
async fn reload(
    app: &App,
    caller: &Caller,
    (site, new): (&SiteId, &NewRestart),
    repeatable: Option<Repeatable>,
) -> Result<Option<RestartView>, StartError> {
    let steps = app.conductor.plan_restart(site, None).await?;
    let Some(live) = steps.first().map(|step| step.release.clone()) else {
        return Ok(None);
    };
    if steps.iter().any(|step| step.release != live) {
        return Err(StartError::Differs(site.clone()));
    }
    let revision = promotion::newest(app, site).await?;
    let from = (site, &live.release);
    let made = app.artifacts.restate(from, site, revision).await?;
    let Some(made) = made.filter(|made| made.release != live.release) else {
        return Ok(None);
    };
    let source = {
        let mut reader = app.store.read().await?;
        provenance::of_release(&mut reader, site, &live.release).await?
    };
    let comes_from = ComesFrom {
        built_of: promotion::of_build(app, site, &live.release).await?,
        source,
        bill: bill::of_release(&app.store, app.artifacts.layout(), site, &live.release).await?,
        is_live: true,
    };
    let detail = format!(
        "release {} with the variables' revision {revision:?}",
        live.release
    );
    let reason = new.reason.as_deref();
    let act = Act::new("restart", site.to_string())
        .reason(reason)
        .detail(Some(detail));
    let planned = view(app, None, &steps).await?;
    let shown = |made: DeploymentView| RestartView {
        rollout: Some(made.rollout),
        ..planned
    };
    let to = (site, made);
    deployment::roll_out(app, caller, to, (act, comes_from), repeatable, shown)
        .await
        .map(Some)
}

/// What others are told of a wish to restart a site.
pub(crate) fn requested(
    site: &SiteId,
    rollout: &RolloutId,
    caller: &Caller,
    reason: Option<&str>,
) -> Event {
    Event::new("deployment.restart.requested", Some(&site.project))
        .on(site)
        .with("rollout", Some(rollout.to_string()))
        .with("by", Some(caller.name.clone()))
        .with("reason", reason.map(str::to_owned))
}

async fn view(
    app: &App,
    rollout: Option<RolloutId>,
    steps: &[Anew],
) -> Result<RestartView, StartError> {
    let mut regions = Vec::with_capacity(steps.len());
    for step in steps {
        let routes = app.artifacts.routes_of(&step.release.artifact).await?;
        regions.push(shown(step, &routes));
    }
    Ok(RestartView { rollout, regions })
}

fn shown(step: &Anew, routes: &Routes) -> RestartStep {
    let upstreams = routes.upstreams.iter().map(|(name, upstream)| {
        let addresses = upstream.addresses.iter().map(ToString::to_string);
        format!("{name} at {}", addresses.collect::<Vec<_>>().join(", "))
    });
    RestartStep {
        region: step.region.clone(),
        release: step.release.release.clone(),
        generation: step.generation,
        upstreams: upstreams.collect(),
        gates: routes.gates.iter().map(|gate| gate.name.clone()).collect(),
        redirects: routes.redirects.len() as u64,
        headers: routes.headers.len() as u64,
    }
}
