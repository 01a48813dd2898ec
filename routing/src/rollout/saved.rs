//! A rollout as origins have saved it, the first version of it as well: that had waves, which all were one wave.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::Deserialize;

use super::baking::BakePlan;
use super::cutover::Cutover;
use super::hours::Hours;
use super::machine::Rollout;
use super::plan::{Closed, Stage};
use super::staging::{At, Pause};
use super::{Kind, Outcome};
use crate::api::PhaseName;
use crate::id::{Epoch, RegionId, RolloutId, SiteId};
use crate::time::Timestamp;

#[derive(Deserialize)]
pub(super) struct Saved {
    id: RolloutId,
    site: SiteId,
    kind: Kind,
    epoch: Epoch,
    /// Only before there were stages.
    #[serde(default)]
    waves: Vec<Vec<RegionId>>,
    #[serde(default)]
    stages: Vec<Stage>,
    #[serde(default)]
    stage: usize,
    at: Option<At>,
    #[serde(default)]
    not_before: Option<Timestamp>,
    #[serde(default)]
    hours: Vec<Hours>,
    #[serde(default)]
    closed: Vec<Closed>,
    #[serde(default)]
    paused: Option<Pause>,
    cutovers: BTreeMap<RegionId, Cutover>,
    outcome: Option<Outcome>,
    #[serde(default)]
    bake: BakePlan,
}

impl From<Saved> for Rollout {
    fn from(saved: Saved) -> Self {
        let stages = if saved.stages.is_empty() {
            saved.waves.into_iter().map(Stage::everywhere).collect()
        } else {
            saved.stages
        };
        let prepares = |cutover: &Cutover| cutover.phase_name() == PhaseName::Preparing;
        let at = saved.at.unwrap_or_else(|| {
            if saved.cutovers.values().any(prepares) {
                At::Preparing
            } else {
                At::In
            }
        });
        Self {
            id: saved.id,
            site: saved.site,
            kind: saved.kind,
            epoch: saved.epoch,
            stages,
            stage: saved.stage,
            at,
            not_before: saved.not_before,
            hours: saved.hours,
            closed: saved.closed,
            paused: saved.paused,
            cutovers: saved.cutovers,
            outcome: saved.outcome,
            bake: saved.bake,
        }
    }
}
