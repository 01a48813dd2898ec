//! Taking over what was decided while origin could not be asked: a region goes on where its edges already are.
//!
//! Invariant: a word is taken over before anything else is written for its site, in one transaction: what ran for the site
//! ends, the record names what is served, the region is held, what was left is quarantined, and the audit log says who and why.
//! It moves no visitor: the edges that count serve it already.

use helix_routing::api::HoldStatus;
use helix_routing::glass::signed::left;
use helix_routing::glass::{Cause, LocalOverride};
use helix_routing::host::Host;
use helix_routing::id::{RegionId, SiteId};
use helix_routing::record::{Hold, ReleaseRef, SiteRecord};
use helix_routing::rollout::{Command, KEEP_PREVIOUS};
use helix_service::clock;

use super::{Conductor, RolloutError, saved};
use crate::audit::{self, Act};
use crate::feed::records;
use crate::fleet::Roster;
use crate::store::{Store, Tx};
use crate::{hold, quarantine};

impl Conductor {
    /// Takes over an override that most edges of `region` made themselves. False when a later cutover has replaced it, or there is no such
    /// site.
    ///
    /// # Errors
    /// When the database fails; then nothing was changed.
    pub async fn adopt(
        &self,
        region: &RegionId,
        local: &LocalOverride,
    ) -> Result<bool, RolloutError> {
        let mut tx = self.0.store.write().await?;
        let stands = records::site(&mut tx, region, &local.site)
            .await?
            .is_some_and(|record| local.stands(&record));
        if !stands {
            return Ok(false);
        }
        self.supersede(&mut tx, &local.site).await?;
        let Some(mut record) = records::site(&mut tx, region, &local.site).await? else {
            return Ok(false);
        };
        let left = left(&record, &local.release)
            .cloned()
            .or_else(|| local.left.clone());
        record.serve(local.release.clone(), KEEP_PREVIOUS);
        let what = match local.cause {
            Cause::Operator => "break-glass by",
            Cause::Guard => "taken back by",
        };
        let why = Why {
            who: &local.by,
            reason: format!("{what} {}: {}", local.by, local.reason),
        };
        take_over(&mut tx, record, left.as_ref(), &why).await?;
        tx.commit().await?;
        self.reload(&local.site);
        Ok(true)
    }
}

/// Takes over what operators have signed, before origin writes again. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Adopter {
    store: Store,
    base: Host,
    roster: Roster,
}

impl Adopter {
    /// One that writes to `store`.
    #[must_use]
    pub const fn new(store: Store, base: Host, roster: Roster) -> Self {
        Self {
            store,
            base,
            roster,
        }
    }

    /// Takes over an override that an operator's key has signed, unless SQL has gone past it. It stands on the edges, so its
    /// generation counts even where SQL has another of the same number, which then nobody has seen.
    ///
    /// # Errors
    /// When the database fails; then nothing was changed.
    pub(crate) async fn signed(&self, signed: SiteRecord) -> Result<bool, RolloutError> {
        let Some(terms) = signed.overridden.clone() else {
            return Ok(false);
        };
        let mut tx = self.store.write().await?;
        let held = records::site(&mut tx, &signed.region, &signed.site).await?;
        let Some(held) = held.filter(|held| held.overridden.is_none() && !held.removed) else {
            return Ok(false);
        };
        if held.generation > signed.generation && held.live_since >= signed.live_since {
            tracing::warn!(site = %signed.site, region = %signed.region, reason = terms.reason, "an operator's override was replaced before");
            return Ok(false);
        }
        self.end_running(&mut tx, &signed).await?;
        let now_held = records::site(&mut tx, &signed.region, &signed.site).await?;
        let now_held = now_held.map_or(held.generation, |held| held.generation);
        let mut record = signed;
        record.generation = record.generation.max(now_held);
        records::replace_site(&mut tx, &record).await?;
        let left = record
            .live
            .as_ref()
            .and_then(|over| left(&held, over))
            .cloned();
        record.overridden = None;
        let why = Why {
            who: &terms.by,
            reason: format!(
                "break-glass by {} with the operator's key: {}",
                terms.by, terms.reason
            ),
        };
        record.live_since = record.generation.next();
        take_over(&mut tx, record, left.as_ref(), &why).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Ends what runs for the site. Its record in the region is the operator's; those of other regions lose their candidates.
    async fn end_running(&self, tx: &mut Tx, signed: &SiteRecord) -> Result<(), RolloutError> {
        let fleet = self.roster.snapshot();
        let keeps = |command: &Command| match command {
            Command::Write(record) => record.region != signed.region,
            _ => true,
        };
        saved::supersede(tx, &self.base, &fleet, &signed.site, keeps).await
    }
}

/// Who decided, and why.
struct Why<'a> {
    who: &'a str,
    reason: String,
}

/// Writes `record`, held, as the generation after the one stored; what it left is quarantined.
async fn take_over(
    tx: &mut Tx,
    mut record: SiteRecord,
    left: Option<&ReleaseRef>,
    Why { who, reason }: &Why<'_>,
) -> Result<(), RolloutError> {
    let now = clock::now();
    let (site, region) = (record.site.clone(), record.region.clone());
    record.generation = record.generation.next();
    record.epoch = tx.epoch();
    record.candidate = None;
    record.weight = None;
    record.bake_until = None;
    record.guard = None;
    record.hold = Some(Hold {
        reason: reason.clone(),
        since: now,
    });
    records::put_site(tx, &record).await?;
    let status = HoldStatus {
        reason: reason.clone(),
        since: now,
        by: Some((*who).to_owned()),
        until: None,
    };
    hold::write(tx, &site, &region, &status).await?;
    if let Some(live) = &record.live {
        settled(tx, &site, &region, live).await?;
    }
    let left = left.filter(|left| record.live.as_ref() != Some(*left));
    if let Some(left) = left {
        quarantine::write(tx, &site, &region, &left.release, &status).await?;
    }
    let caller = audit::elsewhere((*who).to_owned());
    let name = |release: Option<&ReleaseRef>| {
        release.map_or_else(|| "nothing".to_owned(), |named| named.release.to_string())
    };
    let detail = format!("left {}, to {}", name(left), name(record.live.as_ref()));
    let act = Act::new("break_glass.adopt", format!("{site} {region}"))
        .reason(Some(reason))
        .detail(Some(detail));
    audit::record(tx, &caller, act).await?;
    tracing::warn!(%site, %region, from = ?left.map(|left| &left.release), to = ?record.live.map(|live| live.release), reason, "an override is taken over");
    Ok(())
}

/// What is served there is what one compares with, and goes back to, from now on.
async fn settled(
    tx: &mut Tx,
    site: &SiteId,
    region: &RegionId,
    live: &ReleaseRef,
) -> Result<(), RolloutError> {
    sqlx::query(
        "INSERT INTO region_sites (site, region, settled, settled_artifact) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (site, region) DO UPDATE SET settled = excluded.settled, settled_artifact = excluded.settled_artifact",
    )
    .bind(site.to_string())
    .bind(region.as_str())
    .bind(live.release.as_str())
    .bind(live.artifact.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}
