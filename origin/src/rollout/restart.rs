//! The start of a restart: what is live begins anew, region by region.
//!
//! Invariant: a restart never takes over from a deployment or a rollback that runs. Those bring something new, which it
//! would keep from coming; and they begin anew by themselves what it would. A newer restart takes over from an older one.

use helix_routing::id::{Generation, RegionId, RolloutId, SiteId};
use helix_routing::record::ReleaseRef;
use helix_routing::rollout::{BakePlan, Kind, RolloutPlan};

use super::begin::{Begun, plan};
use super::target::{self, Kept};
use super::{Conductor, RolloutError, saved};
use crate::feed::records;
use crate::store::Connection;

/// What to begin anew.
#[derive(Clone, Debug)]
pub struct NewRestart {
    /// The site.
    pub site: SiteId,
    /// The regions; none means all in which something is live.
    pub regions: Option<Vec<RegionId>>,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// What begins anew in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anew {
    /// The region.
    pub region: RegionId,
    /// What is live there, and stays.
    pub release: ReleaseRef,
    /// Under which generation.
    pub generation: Generation,
}

impl Conductor {
    /// What a restart would begin anew.
    ///
    /// # Errors
    /// When nothing is live, when something runs that it must not end, or when the database fails.
    pub async fn plan_restart(
        &self,
        site: &SiteId,
        regions: Option<&[RegionId]>,
    ) -> Result<Vec<Anew>, RolloutError> {
        let scope = self.scope(regions)?;
        let mut connection = self.0.store.read().await?;
        refuse_while_running(&mut connection, site).await?;
        live_in(&mut connection, site, &scope, regions.is_some()).await
    }

    /// Starts a restart.
    ///
    /// # Errors
    /// When nothing is live, when something runs that it must not end, or when the database fails.
    pub async fn restart(&self, new: NewRestart) -> Result<(Begun, Vec<Anew>), RolloutError> {
        let scope = self.scope(new.regions.as_deref())?;
        let mut tx = self.0.store.write().await?;
        refuse_while_running(&mut tx, &new.site).await?;
        self.supersede(&mut tx, &new.site).await?;
        let steps = live_in(&mut tx, &new.site, &scope, new.regions.is_some()).await?;
        let mut plans = Vec::with_capacity(steps.len());
        for Anew {
            region, release, ..
        } in &steps
        {
            let kept = target::kept(&mut tx, &new.site, &release.release).await?;
            let target = Kept {
                release: release.clone(),
                ..kept
            };
            plans.push(plan(&mut tx, &new.site, region.clone(), target).await?);
        }
        let how = (Kind::Restart, BakePlan::default(), RolloutPlan::default());
        let begun = self
            .begin(tx, new.site, how, plans, (new.by, new.reason))
            .await?;
        Ok((begun, steps))
    }
}

async fn refuse_while_running(
    connection: &mut Connection,
    site: &SiteId,
) -> Result<(), RolloutError> {
    let running = saved::running(connection, &site.to_string()).await?;
    match running.map(|saved| (saved.machine.kind(), saved.machine.id().clone())) {
        None | Some((Kind::Restart, _)) => Ok(()),
        Some((kind @ (Kind::Deploy | Kind::Rollback), rollout)) => {
            let rollout: RolloutId = rollout;
            Err(RolloutError::Running {
                site: site.clone(),
                kind,
                rollout,
            })
        }
    }
}

/// What is live in `scope`. Regions in which nothing is are left out, unless they were asked for by name.
async fn live_in(
    connection: &mut Connection,
    site: &SiteId,
    scope: &[RegionId],
    is_by_name: bool,
) -> Result<Vec<Anew>, RolloutError> {
    let mut steps = Vec::with_capacity(scope.len());
    let mut without = Vec::new();
    for region in scope {
        let record = records::site(connection, region, site).await?;
        let live = record.and_then(|record| Some((record.live?, record.generation)));
        match live {
            Some((release, generation)) => steps.push(Anew {
                region: region.clone(),
                release,
                generation,
            }),
            None => without.push(region.clone()),
        }
    }
    if steps.is_empty() || (is_by_name && !without.is_empty()) {
        return Err(RolloutError::NothingLive {
            site: site.clone(),
            regions: without,
        });
    }
    Ok(steps)
}
