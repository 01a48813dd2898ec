//! How one site shall be in one region.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize};

use super::older::{SiteRecord1, SiteRecord2};
use super::pin::{Pin, pins};
use crate::id::{Digest, Epoch, Generation, RegionId, ReleaseId, SiteId};
use crate::protection::Protection;
use crate::provenance::policy::Requires;
use crate::time::Timestamp;
use crate::wire::{self, Wire};

/// The most that a weight can be: everybody.
pub const MAX_WEIGHT: u8 = 100;

/// A release as a record names it: its id, and the manifest that holds its files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseRef {
    /// The release.
    pub release: ReleaseId,
    /// Digest of its OCI manifest.
    pub artifact: Digest,
}

/// No automatic deploys to this (site, region).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// An operator decided here, past origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Override {
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when it holds, unless origin has taken it over before.
    pub until: Timestamp,
}

/// Limits under which an edge takes itself back while origin is gone. It does so once per generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Guard {
    /// Where it goes back to.
    pub to: ReleaseRef,
    /// Origin is gone when nothing was heard of it for so many seconds.
    pub silence_secs: u32,
    /// Fewer requests than this say nothing.
    pub min_requests: u32,
    /// Responses of 5xx that are borne, in millionths of all.
    pub max_5xx_millionths: u32,
    /// How long 99 of 100 requests may take, in milliseconds; none is as long as they like.
    pub max_p99_ms: Option<u32>,
}

/// All that an edge of `region` needs to serve `site`: the only record a cutover writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRecord {
    /// The site.
    pub site: SiteId,
    /// The region this record is for.
    pub region: RegionId,
    /// Term of the origin that wrote this generation.
    pub epoch: Epoch,
    /// Rises with every write.
    pub generation: Generation,
    /// The generation of the last cutover.
    pub live_since: Generation,
    /// What is served.
    pub live: Option<ReleaseRef>,
    /// What is being prepared.
    pub candidate: Option<ReleaseRef>,
    /// Share of visitors that the candidate gets, in percent: at most [`MAX_WEIGHT`].
    #[serde(deserialize_with = "weight")]
    pub weight: Option<u8>,
    /// Releases kept warm to go back to, newest first.
    pub previous: Vec<ReleaseRef>,
    /// Visitors who get another release than the others: at most [`MAX_PINS`](super::MAX_PINS).
    #[serde(deserialize_with = "pins")]
    pub pins: Vec<Pin>,
    /// An operator's override is in force.
    #[serde(default)]
    pub overridden: Option<Box<Override>>,
    /// No automatic deploys here.
    pub hold: Option<Hold>,
    /// Bake ends at this time.
    pub bake_until: Option<Timestamp>,
    /// When an edge takes itself back.
    #[serde(default)]
    pub guard: Option<Box<Guard>>,
    /// The site is gone: serve nothing, keep nothing.
    pub removed: bool,
    /// What the candidate's provenance has to show, besides that it is of this site; nothing more if there is none.
    #[serde(default)]
    pub requires: Option<Box<Requires>>,
    /// It is seen by who was let in alone.
    #[serde(default)]
    pub protection: Option<Box<Protection>>,
}

impl SiteRecord {
    /// The record of a site that was never in `region`: generation 0, nothing live. It is never sent.
    #[must_use]
    pub const fn blank(site: SiteId, region: RegionId, epoch: Epoch) -> Self {
        Self {
            site,
            region,
            epoch,
            generation: Generation(0),
            live_since: Generation(0),
            live: None,
            candidate: None,
            weight: None,
            previous: Vec::new(),
            pins: Vec::new(),
            overridden: None,
            hold: None,
            bake_until: None,
            guard: None,
            removed: false,
            requires: None,
            protection: None,
        }
    }

    /// Makes `release` live in the generation that is written next; the one before is kept to go back to, with `keep` in all.
    pub fn serve(&mut self, release: ReleaseRef, keep: usize) {
        let before = self.live.replace(release.clone());
        self.candidate = None;
        self.weight = None;
        self.previous
            .retain(|kept| *kept != release && Some(kept) != before.as_ref());
        if let Some(before) = before.filter(|before| *before != release) {
            self.previous.insert(0, before);
        }
        self.previous.truncate(keep);
        self.live_since = self.generation.next();
    }

    /// Releases that must stay on an edge's disk for this record: live, candidate, pinned, previous, and what a guard goes
    /// back to. Some may be named more than once.
    pub fn releases(&self) -> impl Iterator<Item = &ReleaseRef> {
        self.live
            .iter()
            .chain(&self.candidate)
            .chain(self.pins.iter().map(|pin| &pin.release))
            .chain(&self.previous)
            .chain(self.guard.iter().map(|guard| &guard.to))
    }

    /// The record for edges that read no newer version than this: what that version cannot say is left out. A version that
    /// this build does not write is its oldest or its newest.
    ///
    /// That a site is protected is never left out: an edge that cannot read it refuses the record, and serves nothing of it.
    #[must_use]
    pub fn encode_for(&self, version: u8) -> Vec<u8> {
        match version {
            _ if self.protection.is_some() => self.encode(),
            ..=1 => wire::body_of(1, &SiteRecord1::from(self)),
            2 => wire::body_of(2, &SiteRecord2::from(self)),
            Self::VERSION.. => self.encode(),
        }
    }
}

impl Wire for SiteRecord {
    const WHAT: &'static str = "site record";
    const VERSION: u8 = 3;
    const OLDEST: u8 = 1;

    fn older(version: u8, body: &[u8]) -> Option<Self> {
        match version {
            1 => wire::whole::<SiteRecord1>(body).map(Self::from),
            _ => wire::whole::<SiteRecord2>(body).map(Self::from),
        }
    }
}

/// Reads a weight that can be.
pub(super) fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    let weight = Option::<u8>::deserialize(from)?;
    if weight.is_some_and(|weight| weight > MAX_WEIGHT) {
        return Err(serde::de::Error::custom("a weight is 0 to 100 percent"));
    }
    Ok(weight)
}
