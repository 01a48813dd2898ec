//! Rollbacks: from a wish to go back to a running rollout, or to a plan of what that would change.
//!
//! Invariant: a plan changes nothing, and names all that a rollback at this moment would: what is decided in a plan is decided by the
//! same code. What edges hold is asked for a plan only; nothing that waits for an edge delays a rollback.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use helix_routing::api::{EdgeStatus, NewRollback, RollbackStep, RollbackView};
use helix_routing::id::{EdgeId, ProjectName, ReleaseId, RolloutId, SiteId};
use helix_routing::operators::{PreemptedRegion, PreemptedRollout};

use crate::app::App;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::deployment::{StartError, answered, answered_now};
use crate::hold;
use crate::idempotency::Repeatable;
use crate::lane;
use crate::project;
use crate::rollout::{self, Preempted, Step};

/// An edge answers from memory; one that takes longer is not counted on.
const EDGE_TIMEOUT: Duration = Duration::from_secs(1);
/// Edges that are asked at once.
const ASKED_AT_ONCE: usize = 64;

/// Takes regions back, or says what that would change.
///
/// # Errors
/// As [`StartError`] says; then nothing was changed.
pub async fn roll_back(
    app: &App,
    caller: &Caller,
    project: &ProjectName,
    new: NewRollback,
    repeatable: Option<Repeatable>,
) -> Result<RollbackView, StartError> {
    if let Some(answer) = answered(app, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    if let Some(reason) = &new.reason {
        hold::check_reason(reason).map_err(StartError::Reason)?;
    }
    let is_plan = new.plan;
    let wanted = rollout::NewRollback {
        site: SiteId {
            project: project.clone(),
            environment: new.environment,
        },
        release: new.release,
        regions: new.regions,
        by: caller.name.clone(),
        reason: new.reason,
    };
    if is_plan {
        let (steps, preempted) = app.conductor.plan_rollback(&wanted).await?;
        let mut view = view(app, &wanted, None, &steps, preempted.as_ref()).await?;
        find_resident(app, project, &mut view).await;
        return Ok(view);
    }
    start(app, caller, wanted, repeatable).await
}

async fn start(
    app: &App,
    caller: &Caller,
    wanted: rollout::NewRollback,
    repeatable: Option<Repeatable>,
) -> Result<RollbackView, StartError> {
    let mut begun = app.conductor.rollback(wanted.clone()).await?;
    lane::check_rollback(&mut begun.tx, caller, &wanted.site).await?;
    if let Some(answer) = answered_now(&mut begun.tx, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    project::check(&mut begun.tx, &wanted.site.project).await?;
    let preempted = begun.preempted.as_ref();
    let rollout = Some(begun.rollout.clone());
    let view = view(app, &wanted, rollout, &begun.steps, preempted).await?;
    let act = Act::new("rollback", wanted.site.to_string())
        .reason(wanted.reason.as_deref())
        .detail(Some(in_a_line(&view)));
    audit::record(&mut begun.tx, caller, act).await?;
    if let Some(repeatable) = &repeatable {
        repeatable.note(&mut begun.tx, &view).await?;
    }
    begun.commit().await?;
    Ok(view)
}

/// As in `rollout 0a…: fra from 1b… to 2c…; ends deploy 3d…`.
fn in_a_line(view: &RollbackView) -> String {
    let mut parts: Vec<String> = view
        .regions
        .iter()
        .map(|step| {
            let from = step.from.as_ref().map_or("nothing", ReleaseId::as_str);
            format!("{} from {from} to {}", step.region, step.to)
        })
        .collect();
    if let Some(ended) = &view.preempts {
        parts.push(format!("ends {} {}", ended.kind, ended.rollout));
    }
    let rollout = view.rollout.as_ref().map_or("", RolloutId::as_str);
    format!("rollout {rollout}: {}", parts.join("; "))
}

async fn view(
    app: &App,
    wanted: &rollout::NewRollback,
    rollout: Option<RolloutId>,
    steps: &[Step],
    preempted: Option<&Preempted>,
) -> Result<RollbackView, StartError> {
    let mut regions: Vec<RollbackStep> = Vec::with_capacity(steps.len());
    // Regions mostly go the same way, and comparing two releases reads both their indexes.
    let mut compared = BTreeMap::new();
    for step in steps {
        let (from, to) = (&step.from, &step.to);
        let files_changed = match compared.get(&(from, to)) {
            Some(files_changed) => *files_changed,
            None => app.artifacts.files_changed(from.as_ref(), to).await,
        };
        compared.insert((from, to), files_changed);
        regions.push(RollbackStep {
            region: step.region.clone(),
            from: from.as_ref().map(|from| from.release.clone()),
            to: to.release.clone(),
            files_changed,
            generation: step.generation,
            resident: Vec::new(),
            absent: Vec::new(),
            hold: wanted.hold_reason(),
            quarantines: step.quarantines.clone(),
        });
    }
    let preempts = preempted.map(|preempted| ended(preempted, &regions));
    Ok(RollbackView {
        rollout,
        hosts: hosts(app, &wanted.site).await?,
        regions,
        preempts,
    })
}

fn ended(preempted: &Preempted, steps: &[RollbackStep]) -> PreemptedRollout {
    let regions = preempted.view.regions.iter().map(|region| PreemptedRegion {
        region: region.region.clone(),
        phase: region.phase,
        release: region.release.clone(),
        live: preempted.live.get(&region.region).cloned(),
        goes_back: steps.iter().any(|step| step.region == region.region),
    });
    PreemptedRollout {
        rollout: preempted.view.rollout.clone(),
        kind: preempted.view.kind.clone(),
        by: preempted.view.by.clone(),
        regions: regions.collect(),
    }
}

async fn hosts(app: &App, site: &SiteId) -> Result<Vec<String>, StartError> {
    let mut connection = app.store.read().await?;
    let hosts = project::hosts(&mut connection, &site.project, &app.addresses).await?;
    let shown = hosts.into_iter().filter(|(_, shown)| shown == site);
    Ok(shown.map(|(host, _)| host.to_string()).collect())
}

/// Asks every live edge of each region for the target under its own name, which an edge answers only with what it holds.
async fn find_resident(app: &App, project: &ProjectName, view: &mut RollbackView) {
    let edges: Vec<EdgeStatus> = app.roster.edges();
    for step in &mut view.regions {
        let is_here = |edge: &&EdgeStatus| edge.live && edge.region == step.region;
        let here: Vec<EdgeStatus> = edges.iter().filter(is_here).cloned().collect();
        let asked: Vec<_> = here
            .iter()
            .map(|edge| holds(app.clone(), edge.clone(), project.clone(), step.to.clone()))
            .collect();
        let held: Vec<(EdgeId, bool)> = stream::iter(asked)
            .buffer_unordered(ASKED_AT_ONCE)
            .collect()
            .await;
        let held: BTreeMap<EdgeId, bool> = held.into_iter().collect();
        let those = |wanted: bool| {
            let those = held.iter().filter(|(_, holds)| **holds == wanted);
            those.map(|(edge, _)| edge.clone()).collect()
        };
        (step.resident, step.absent) = (those(true), those(false));
    }
}

/// Whether an edge answers with the release itself.
async fn holds(
    app: App,
    edge: EdgeStatus,
    project: ProjectName,
    release: ReleaseId,
) -> (EdgeId, bool) {
    let host = app.addresses.release_host(&project, &release);
    let request = app
        .asking
        .head(&edge.url)
        .header("host", host.as_str())
        .timeout(EDGE_TIMEOUT);
    let holds = match request.send().await {
        Ok(response) => {
            let named = response.headers().get("x-helix-release");
            named.is_some_and(|named| named.as_bytes() == release.as_str().as_bytes())
        }
        Err(error) => {
            tracing::debug!(edge = %edge.edge, %error, "whether it holds a release is not known");
            false
        }
    };
    (edge.edge, holds)
}
