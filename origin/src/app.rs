//! What every request can reach: the parts, put together once.

use std::sync::Arc;

use helix_routing::id::RegionId;
use helix_routing::rollout::RolloutPolicy;

use crate::address::Addresses;
use crate::admission::Admission;
use crate::artifact::Artifacts;
use crate::feed::Feed;
use crate::fleet::Roster;
use crate::project::Reach;
use crate::provenance::Attestor;
use crate::remote::Remote;
use crate::rollout::Conductor;
use crate::rollout::bake::BakeConfig;
use crate::source::Source;
use crate::store::Store;
use crate::webhook::deliver::Sender;

/// The parts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    /// The record.
    pub store: Store,
    /// What was uploaded, and the releases of it.
    pub artifacts: Artifacts,
    /// Says where releases come from.
    pub attestor: Attestor,
    /// Where sites answer.
    pub addresses: Arc<Addresses>,
    /// Every region, in the order of the config.
    pub regions: Arc<[RegionId]>,
    /// Starts rollouts and knows those that run.
    pub conductor: Conductor,
    /// How long releases bake that say nothing of it.
    pub bakes: Arc<BakeConfig>,
    /// In which stages releases go out that say nothing of it.
    pub rollouts: Arc<RolloutPolicy>,
    /// The edges.
    pub roster: Roster,
    /// Lets edges in, where that was set up.
    pub admission: Option<Admission>,
    /// What edges are told.
    pub feed: Feed,
    /// How webhooks are sent to.
    pub webhooks: Sender,
    /// Where projects' files come from.
    pub source: Source,
    /// The registry that releases are pushed to, if there is one.
    pub remote: Option<Remote>,
    /// Asks edges what a visitor would see; follows no redirect, since that is an answer too.
    pub asking: reqwest::Client,
}

impl App {
    /// What a change of a project needs to know.
    #[must_use]
    pub fn reach(&self) -> Reach<'_> {
        Reach {
            addresses: &self.addresses,
            regions: &self.regions,
        }
    }
}
