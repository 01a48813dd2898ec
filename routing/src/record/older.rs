//! What was written before: read as what it meant, and written for edges that read nothing newer.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::pin::{Pin, pins};
use super::site::{Guard, Hold, Override, ReleaseRef, SiteRecord, weight};
use crate::id::{Epoch, Generation, RegionId, ReleaseId, SiteId};
use crate::time::Timestamp;

/// Version 1 of a site record. No origin ever wrote a weight, a pin or an override into one.
#[derive(Serialize, Deserialize)]
pub(super) struct SiteRecord1 {
    site: SiteId,
    region: RegionId,
    epoch: Epoch,
    generation: Generation,
    live_since: Generation,
    live: Option<ReleaseRef>,
    candidate: Option<ReleaseRef>,
    #[serde(deserialize_with = "weight")]
    weight: Option<u8>,
    previous: Vec<ReleaseRef>,
    pins: Vec<Pin1>,
    override_reason: Option<String>,
    hold: Option<Hold>,
    bake_until: Option<Timestamp>,
    removed: bool,
}

#[derive(Serialize, Deserialize)]
struct Pin1 {
    label: String,
    release: ReleaseId,
}

impl From<SiteRecord1> for SiteRecord {
    fn from(old: SiteRecord1) -> Self {
        Self {
            site: old.site,
            region: old.region,
            epoch: old.epoch,
            generation: old.generation,
            live_since: old.live_since,
            live: old.live,
            candidate: old.candidate,
            weight: old.weight,
            previous: old.previous,
            pins: Vec::new(),
            overridden: None,
            hold: old.hold,
            bake_until: old.bake_until,
            guard: None,
            removed: old.removed,
            requires: None,
            protection: None,
        }
    }
}

impl From<&SiteRecord> for SiteRecord1 {
    fn from(new: &SiteRecord) -> Self {
        Self {
            site: new.site.clone(),
            region: new.region.clone(),
            epoch: new.epoch,
            generation: new.generation,
            live_since: new.live_since,
            live: new.live.clone(),
            candidate: new.candidate.clone(),
            // Edges of that version know no other share than none.
            weight: None,
            previous: new.previous.clone(),
            pins: Vec::new(),
            override_reason: new.overridden.as_ref().map(|held| held.reason.clone()),
            hold: new.hold.clone(),
            bake_until: new.bake_until,
            removed: new.removed,
        }
    }
}

/// Version 2 of a site record: it says nothing of provenance and protection.
#[derive(Serialize, Deserialize)]
pub(super) struct SiteRecord2 {
    site: SiteId,
    region: RegionId,
    epoch: Epoch,
    generation: Generation,
    live_since: Generation,
    live: Option<ReleaseRef>,
    candidate: Option<ReleaseRef>,
    #[serde(deserialize_with = "weight")]
    weight: Option<u8>,
    previous: Vec<ReleaseRef>,
    #[serde(deserialize_with = "pins")]
    pins: Vec<Pin>,
    overridden: Option<Box<Override>>,
    hold: Option<Hold>,
    bake_until: Option<Timestamp>,
    guard: Option<Box<Guard>>,
    removed: bool,
}

impl From<SiteRecord2> for SiteRecord {
    fn from(old: SiteRecord2) -> Self {
        Self {
            site: old.site,
            region: old.region,
            epoch: old.epoch,
            generation: old.generation,
            live_since: old.live_since,
            live: old.live,
            candidate: old.candidate,
            weight: old.weight,
            previous: old.previous,
            pins: old.pins,
            overridden: old.overridden,
            hold: old.hold,
            bake_until: old.bake_until,
            guard: old.guard,
            removed: old.removed,
            requires: None,
            protection: None,
        }
    }
}

impl From<&SiteRecord> for SiteRecord2 {
    fn from(new: &SiteRecord) -> Self {
        Self {
            site: new.site.clone(),
            region: new.region.clone(),
            epoch: new.epoch,
            generation: new.generation,
            live_since: new.live_since,
            live: new.live.clone(),
            candidate: new.candidate.clone(),
            weight: new.weight,
            previous: new.previous.clone(),
            pins: new.pins.clone(),
            overridden: new.overridden.clone(),
            hold: new.hold.clone(),
            bake_until: new.bake_until,
            guard: new.guard.clone(),
            removed: new.removed,
        }
    }
}
