//! Pure. One region of a rollout, for people.

use alloc::vec::Vec;

use super::baking::BakePlan;
use super::cutover::Cutover;
use super::phase::Phase;
use crate::api::{PhaseName, RegionView};
use crate::gate::view::EdgeGates;
use crate::id::{EdgeId, RegionId};

impl Cutover {
    pub(super) fn phase_name(&self) -> PhaseName {
        match &self.phase {
            Phase::Pending => PhaseName::Pending,
            Phase::Preparing { .. } if self.is_prepared() => PhaseName::Prepared,
            Phase::Preparing { .. } => PhaseName::Preparing,
            Phase::Ready { .. } => PhaseName::Prepared,
            Phase::Committing(_) => PhaseName::Committing,
            Phase::Admitting(_) => PhaseName::Admitting,
            Phase::Canary(_) => PhaseName::Canary,
            Phase::Admitted => PhaseName::Admitted,
            Phase::Baking(_) => PhaseName::Baking,
            Phase::Stable => PhaseName::Stable,
            Phase::Undecided => PhaseName::Undecided,
            Phase::RollingBack(_) => PhaseName::RollingBack,
            Phase::RolledBack => PhaseName::RolledBack,
            Phase::RevertBlocked => PhaseName::RevertBlocked,
            Phase::Aborted => PhaseName::Aborted,
            Phase::Superseded => PhaseName::Superseded,
        }
    }

    pub(super) fn view(&self, region: &RegionId, plan: &BakePlan) -> RegionView {
        let (required, done): (Vec<EdgeId>, Vec<EdgeId>) = match &self.phase {
            Phase::Preparing {
                required, prepared, ..
            }
            | Phase::Ready {
                required, prepared, ..
            } => (
                required.iter().cloned().collect(),
                required
                    .iter()
                    .filter(|edge| prepared.contains_key(*edge))
                    .cloned()
                    .collect(),
            ),
            Phase::Committing(proof) | Phase::Admitting(proof) | Phase::RollingBack(proof) => (
                proof.required.iter().cloned().collect(),
                proof.proven.iter().cloned().collect(),
            ),
            Phase::Pending
            | Phase::Canary(_)
            | Phase::Admitted
            | Phase::Baking(_)
            | Phase::Stable
            | Phase::Undecided
            | Phase::RolledBack
            | Phase::RevertBlocked
            | Phase::Aborted
            | Phase::Superseded => (Vec::new(), Vec::new()),
        };
        RegionView {
            region: region.clone(),
            release: self.target.release.clone(),
            phase: self.phase_name(),
            generation: self.record.generation,
            required,
            done,
            reason: self.reason.clone(),
            gates: self.gates_view(),
            bake: self.bake_view(plan),
            weight: self.record.weight,
        }
    }

    fn gates_view(&self) -> Vec<EdgeGates> {
        let shown = self.shown.iter().map(|(edge, results)| EdgeGates {
            edge: edge.clone(),
            results: results.clone(),
        });
        shown.collect()
    }
}
