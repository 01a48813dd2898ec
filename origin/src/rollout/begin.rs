//! The start of a rollout: one transaction in which the older one ends and the new one begins.
//!
//! Invariant: between the two there is no moment without an owner of the site's records, and the order
//! of starts is the order in which they got the write lock.

use std::time::Duration;

use helix_routing::api::{HoldStatus, SkippedRegion};
use helix_routing::host::HostPattern;
use helix_routing::id::{RegionId, RolloutId, SiteId};
use helix_routing::record::{Hold, ReleaseRef, SiteRecord};
use helix_routing::rollout::{
    BakePlan, Command, Kind, Order, Outcome, RegionPlan, Rollout, RolloutPlan,
};
use helix_service::{clock, random};

use super::saved::{self, Saved};
use super::target::{self, Kept, Preempted, Step};
use super::{Conductor, NewRollback, NewRollout, RolloutError, alias};
use crate::feed::records;
use crate::pin;
use crate::store::{self, StoreError, Tx};
use crate::{event, hold};

/// How long a start whose commit got no answer is looked for.
const LOST_COMMIT: Duration = Duration::from_secs(60);
/// How often.
const LOST_COMMIT_LOOK: Duration = Duration::from_secs(1);

/// A rollout that was started and is not yet committed. Dropped, nothing happened.
#[derive(Debug)]
pub struct Begun {
    /// The open transaction, for what belongs to the same change.
    pub tx: Tx,
    /// The rollout.
    pub rollout: RolloutId,
    /// Regions whose hold it lifts.
    pub held: Vec<RegionId>,
    /// Held regions that it leaves alone.
    pub skipped: Vec<SkippedRegion>,
    /// What it does where, for a rollback.
    pub steps: Vec<Step>,
    /// The rollout that it ends, for a rollback.
    pub preempted: Option<Preempted>,
    conductor: Conductor,
    saved: Saved,
    commands: Vec<Command>,
}

impl Begun {
    /// Commits, and starts the driver. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// When the database fails; then nothing happened, unless only its answer was lost: such a rollout is taken up.
    pub async fn commit(self) -> Result<RolloutId, RolloutError> {
        let done = tokio::spawn(async move {
            let Self {
                mut tx,
                rollout,
                conductor,
                saved,
                commands,
                ..
            } = self;
            if saved.machine.outcome() == Some(Outcome::Settled) {
                // The deployment's row was written after the machine ended.
                alias::refresh(&mut tx, &saved.machine.site().project, &conductor.0.base).await?;
            }
            let _in_order = conductor.0.launching.lock().await;
            if let Err(error) = tx.commit().await {
                tokio::spawn(conductor.clone().look_for(rollout));
                return Err(error.into());
            }
            conductor.launch(saved, Some(commands));
            Ok(rollout)
        });
        done.await.unwrap_or_else(|_| {
            Err(RolloutError::Store(StoreError::Corrupt {
                what: "the start of a rollout",
            }))
        })
    }
}

impl Conductor {
    /// Takes up a rollout whose commit got no answer, if it was committed.
    async fn look_for(self, rollout: RolloutId) {
        let read = async || {
            let mut connection = self.0.store.read().await?;
            saved::load(&mut connection, &rollout).await
        };
        // A database that stays away costs the lead, and who leads next takes everything up.
        let give_up = tokio::time::Instant::now() + LOST_COMMIT;
        while tokio::time::Instant::now() < give_up {
            tokio::time::sleep(LOST_COMMIT_LOOK).await;
            let _in_order = self.0.launching.lock().await;
            match read().await {
                Ok(Some(saved))
                    if self.running(saved.machine.site()).as_ref() != Some(&rollout) =>
                {
                    tracing::warn!(%rollout, "rollout is taken up: its start was committed, and the answer lost");
                    return self.launch(saved, None);
                }
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(%rollout, error = &error as &dyn std::error::Error, "a start is not known yet");
                }
            }
        }
    }

    /// Starts a deployment in every region. The rollout of the site that runs is superseded.
    ///
    /// # Errors
    /// When the release is unknown, collected or quarantined, or the database fails.
    pub async fn deploy(&self, new: NewRollout) -> Result<Begun, RolloutError> {
        self.deploy_in(self.0.store.write().await?, new).await
    }

    /// The same as part of a change that has begun.
    ///
    /// # Errors
    /// The same.
    pub async fn deploy_in(&self, mut tx: Tx, new: NewRollout) -> Result<Begun, RolloutError> {
        let mut regions: Vec<RegionId> = self.0.roster.regions().into_iter().collect();
        let kept = target::kept(&mut tx, &new.site, &new.release.release).await?;
        let skipped = skip_held(&mut tx, &new, &mut regions).await?;
        let regions = new.way_out.ordered(regions);
        if let Some(because) = &new.superseded {
            let because = because.clone();
            return self.superseded(tx, new, regions, kept, &because).await;
        }
        self.check_quarantine(&mut tx, &new, &regions).await?;
        self.supersede(&mut tx, &new.site).await?;
        let held = if new.automatic {
            Vec::new()
        } else {
            lift_holds(&mut tx, &new.site).await?
        };
        let mut plans = Vec::with_capacity(regions.len());
        for region in regions.clone() {
            let mut plan = plan(&mut tx, &new.site, region, kept.clone()).await?;
            plan.record.hold = None;
            plan.record.removed = false;
            plan.record.requires = new.requires.clone().map(Box::new);
            plans.push(plan);
        }
        let is_first = plans.iter().all(|plan| plan.record.live.is_none());
        let mut out = new.way_out.plan(&new.site, &regions, is_first)?;
        out.not_before = new.not_before;
        out.closed = new.closed;
        let host = alias::primary_host(&new.site, &self.0.base)?;
        records::put_host(&mut tx, &HostPattern::Exact(host), Some(&new.site)).await?;
        let mut begun = self
            .begin(
                tx,
                new.site,
                (Kind::Deploy, new.bake, out),
                plans,
                (new.by, None),
            )
            .await?;
        begun.held = held;
        begun.skipped = skipped;
        Ok(begun)
    }

    /// A deployment that came after a newer one is noted, and changes nothing.
    async fn superseded(
        &self,
        mut tx: Tx,
        new: NewRollout,
        regions: Vec<RegionId>,
        kept: Kept,
        because: &str,
    ) -> Result<Begun, RolloutError> {
        let mut plans = Vec::with_capacity(regions.len());
        for region in regions {
            plans.push(plan(&mut tx, &new.site, region, kept.clone()).await?);
        }
        let order = Order {
            id: random::hex16().parse().map_err(StoreError::from)?,
            site: new.site,
            kind: Kind::Deploy,
            epoch: tx.epoch(),
            plans,
            bake: BakePlan::default(),
            plan: RolloutPlan::default(),
        };
        let (machine, _) = Rollout::superseded(order, because);
        self.started(tx, machine, Vec::new(), (new.by, Some(because.to_owned())))
            .await
    }

    /// What a rollback would change.
    ///
    /// # Errors
    /// When there is nothing to go back to, each reason by its own name.
    pub async fn plan_rollback(
        &self,
        wanted: &NewRollback,
    ) -> Result<(Vec<Step>, Option<Preempted>), RolloutError> {
        let site = &wanted.site;
        let scope = self.scope(wanted.regions.as_deref())?;
        let mut connection = self.0.store.read().await?;
        let mut running = target::preempted(&mut connection, site).await?;
        let steps = target::steps(&mut connection, wanted, &scope, running.as_ref()).await?;
        if let Some(running) = &mut running
            && let Some(newer) = self.live_view(site, &running.view.rollout)
        {
            // The driver knows how far the edges are, which is not saved.
            running.view.clone_from(&newer.borrow());
        }
        Ok((steps, running))
    }

    /// Starts a rollback. It pre-empts whatever runs; the regions are held from now on.
    ///
    /// # Errors
    /// When there is nothing to go back to, each reason by its own name, or the database fails.
    pub async fn rollback(&self, new: NewRollback) -> Result<Begun, RolloutError> {
        let scope = self.scope(new.regions.as_deref())?;
        let mut tx = self.0.store.write().await?;
        let preempted = target::preempted(&mut tx, &new.site).await?;
        let steps = target::steps(&mut tx, &new, &scope, preempted.as_ref()).await?;
        self.supersede(&mut tx, &new.site).await?;
        let now = clock::now();
        let reason = new.hold_reason();
        let mut plans = Vec::with_capacity(steps.len());
        for step in &steps {
            let kept = target::kept(&mut tx, &new.site, &step.to.release).await?;
            let target = Kept {
                release: step.to.clone(),
                ..kept
            };
            let mut plan = plan(&mut tx, &new.site, step.region.clone(), target).await?;
            plan.record.hold = Some(Hold {
                reason: reason.clone(),
                since: now,
            });
            if plan.record.live.as_ref() == Some(&step.to) {
                // It was going there by itself, and was not proven to be there.
                plan.baseline = None;
            }
            let held = HoldStatus {
                reason: reason.clone(),
                since: now,
                by: Some(new.by.clone()),
                until: None,
            };
            hold::write(&mut tx, &new.site, &step.region, &held).await?;
            plans.push(plan);
        }
        let mut begun = self
            .begin(
                tx,
                new.site,
                (Kind::Rollback, BakePlan::default(), RolloutPlan::default()),
                plans,
                (new.by, new.reason),
            )
            .await?;
        begun.steps = steps;
        begun.preempted = preempted;
        Ok(begun)
    }

    /// Ends what runs for a site and takes it off every edge. After the commit, call [`Conductor::reload`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_site(&self, tx: &mut Tx, site: &SiteId) -> Result<(), RolloutError> {
        self.supersede(tx, site).await?;
        pin::forget(tx, site).await?;
        for region in self.0.roster.regions() {
            let Some(mut record) = records::site(tx, &region, site)
                .await?
                .filter(|record| !record.removed)
            else {
                continue;
            };
            record.generation = record.generation.next();
            record.epoch = tx.epoch();
            record.live = None;
            record.candidate = None;
            record.previous.clear();
            record.pins.clear();
            record.removed = true;
            records::put_site(tx, &record).await?;
        }
        Ok(())
    }

    /// The regions that are meant: all, unless some are named.
    pub(super) fn scope(&self, named: Option<&[RegionId]>) -> Result<Vec<RegionId>, RolloutError> {
        let all = self.0.roster.regions();
        let Some(named) = named else {
            return Ok(all.into_iter().collect());
        };
        if let Some(unknown) = named.iter().find(|region| !all.contains(*region)) {
            return Err(RolloutError::UnknownRegion(unknown.clone()));
        }
        Ok(all
            .into_iter()
            .filter(|region| named.contains(region))
            .collect())
    }

    async fn check_quarantine(
        &self,
        tx: &mut Tx,
        new: &NewRollout,
        regions: &[RegionId],
    ) -> Result<(), RolloutError> {
        let release = &new.release.release;
        let quarantined = target::quarantined(tx, &new.site, release, regions).await?;
        if quarantined.is_empty() {
            return Ok(());
        }
        if !new.lift_quarantine {
            return Err(RolloutError::Quarantined {
                release: release.clone(),
                regions: quarantined,
            });
        }
        sqlx::query("DELETE FROM quarantines WHERE site = $1 AND release_id = $2")
            .bind(new.site.to_string())
            .bind(release.as_str())
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Ends the site's running rollout in favour of a newer one.
    pub(super) async fn supersede(&self, tx: &mut Tx, site: &SiteId) -> Result<(), RolloutError> {
        saved::supersede(tx, &self.0.base, &self.0.roster.snapshot(), site, |_| true).await
    }

    pub(super) async fn begin(
        &self,
        tx: Tx,
        site: SiteId,
        (kind, bake, plan): (Kind, BakePlan, RolloutPlan),
        plans: Vec<RegionPlan>,
        (by, reason): (String, Option<String>),
    ) -> Result<Begun, RolloutError> {
        if plans.is_empty() {
            return Err(RolloutError::NoRegions);
        }
        let now = clock::now();
        let order = Order {
            id: random::hex16().parse().map_err(StoreError::from)?,
            site,
            kind,
            epoch: tx.epoch(),
            plans,
            bake,
            plan,
        };
        let (machine, commands) = Rollout::start(order, now, &self.0.roster.snapshot());
        self.started(tx, machine, commands, (by, reason)).await
    }

    async fn started(
        &self,
        mut tx: Tx,
        machine: Rollout,
        commands: Vec<Command>,
        (by, reason): (String, Option<String>),
    ) -> Result<Begun, RolloutError> {
        let (rollout, kind) = (machine.id().clone(), machine.kind());
        let saved = Saved::new(machine, by, clock::now());
        saved.insert(&mut tx, reason.as_deref()).await?;
        event::emit_steps(&mut tx, None, &saved.view()).await?;
        let commands = saved::apply(&mut tx, &self.0.base, &saved.machine, commands).await?;
        tracing::info!(%rollout, site = %saved.machine.site(), %kind, by = saved.by, "rollout is started");
        let conductor = self.clone();
        Ok(Begun {
            tx,
            rollout,
            held: Vec::new(),
            skipped: Vec::new(),
            steps: Vec::new(),
            preempted: None,
            conductor,
            saved,
            commands,
        })
    }
}

pub(super) async fn plan(
    tx: &mut Tx,
    site: &SiteId,
    region: RegionId,
    target: Kept,
) -> Result<RegionPlan, RolloutError> {
    let mut record = records::site(tx, &region, site)
        .await?
        .unwrap_or_else(|| SiteRecord::blank(site.clone(), region.clone(), tx.epoch()));
    // What a deployment before has required says nothing of this target; a deployment requires anew.
    record.requires = None;
    let settled: Option<(Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT settled, settled_artifact FROM region_sites WHERE site = $1 AND region = $2",
    )
    .bind(site.to_string())
    .bind(region.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    let baseline = match settled {
        Some((Some(release), Some(artifact))) => Some(ReleaseRef {
            release: store::id(&release)?,
            artifact: store::id(&artifact)?,
        }),
        Some(_) | None => None,
    };
    let is_baseline_quarantined = match &baseline {
        Some(baseline) => {
            let here = [record.region.clone()];
            let found = target::quarantined(tx, site, &baseline.release, &here).await?;
            !found.is_empty()
        }
        None => false,
    };
    Ok(RegionPlan {
        record,
        target: target.release,
        baseline,
        is_baseline_quarantined,
        bytes: target.bytes,
        gates: target.gates,
    })
}

/// Takes the held regions out of the scope of an automatic deployment, and names them.
async fn skip_held(
    tx: &mut Tx,
    new: &NewRollout,
    regions: &mut Vec<RegionId>,
) -> Result<Vec<SkippedRegion>, RolloutError> {
    if !new.automatic {
        return Ok(Vec::new());
    }
    let held = hold::in_force(tx, &new.site, clock::now()).await?;
    let skipped: Vec<SkippedRegion> = regions
        .iter()
        .filter_map(|region| {
            held.get(region).map(|hold| SkippedRegion {
                region: region.clone(),
                reason: hold.reason.clone(),
            })
        })
        .collect();
    regions.retain(|region| !held.contains_key(region));
    if regions.is_empty() && !skipped.is_empty() {
        return Err(RolloutError::Held {
            site: new.site.clone(),
            skipped,
        });
    }
    Ok(skipped)
}

/// Ends the holds of a site and names the regions that had one. A record that carries one and is not
/// going to be written by the rollout is written here.
async fn lift_holds(tx: &mut Tx, site: &SiteId) -> Result<Vec<RegionId>, RolloutError> {
    let held: Vec<RegionId> = hold::in_force(tx, site, clock::now())
        .await?
        .into_keys()
        .collect();
    for region in &held {
        hold::remove(tx, site, region).await?;
    }
    hold::carry(tx, site).await?;
    Ok(held)
}
