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
use crate::store::{self, Store, Tx};
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

    /// Takes over an override that an operator's key has signed, once. It stands on the edges, so its generation counts even where
    /// SQL has that number or a higher one, of which then nobody has seen anything: whoever wrote those did not know of it.
    ///
    /// # Errors
    /// When the database fails; then nothing was changed.
    pub(crate) async fn signed(
        &self,
        signed: SiteRecord,
        place: &Place<'_>,
    ) -> Result<bool, RolloutError> {
        let Some(terms) = signed.overridden.clone() else {
            return Ok(false);
        };
        let mut tx = self.store.write().await?;
        let held = records::site(&mut tx, &signed.region, &signed.site).await?;
        let Some(held) = held.filter(|held| held.overridden.is_none() && !held.removed) else {
            return Ok(false);
        };
        let is_past = held.generation > signed.generation && held.live_since >= signed.live_since;
        if is_past && !place.is_new {
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
        place.note(&mut tx).await?;
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

/// Where an operator's record stands in its stream.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// The stream.
    pub(crate) stream: &'a str,
    /// The record's sequence.
    pub(crate) sequence: u64,
    /// It came after all that SQL knows of this life of the stream, so it was never taken over. In another life nothing says so.
    pub(crate) is_new: bool,
}

impl Place<'_> {
    /// From now on SQL knows the stream up to here.
    async fn note(&self, tx: &mut Tx) -> Result<(), RolloutError> {
        if self.is_new {
            sqlx::query(
                "UPDATE streams SET acknowledged = $2 WHERE stream = $1 AND acknowledged < $2",
            )
            .bind(self.stream)
            .bind(store::number(self.sequence))
            .execute(&mut **tx)
            .await?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use helix_routing::id::{Epoch, Generation};
    use helix_routing::record::Override;

    use super::*;

    fn release(digit: &str) -> ReleaseRef {
        ReleaseRef {
            release: digit.repeat(20).parse().unwrap(),
            artifact: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
        }
    }

    fn record(generation: u64, live_since: u64, live: &str) -> SiteRecord {
        let (site, region) = ("shop/production".parse(), "fra".parse());
        let mut record = SiteRecord::blank(site.unwrap(), region.unwrap(), Epoch(1));
        record.generation = Generation(generation);
        record.live_since = Generation(live_since);
        record.live = Some(release(live));
        record
    }

    /// What an operator signed over generation 2, which was all that edges had.
    fn signed() -> SiteRecord {
        let now = clock::now();
        let mut record = record(3, 3, "a");
        record.epoch = Epoch(9);
        record.previous = vec![release("b")];
        record.overridden = Some(Box::new(Override {
            reason: "sick".to_owned(),
            by: "ada".to_owned(),
            since: now,
            until: now,
        }));
        record
    }

    #[tokio::test]
    async fn an_override_is_taken_over_once_also_where_nobody_had_seen_what_origin_decided_meanwhile()
     {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lead(&folder.path().join("origin.db")).await.unwrap();
        let base = "example.net".parse().unwrap();
        let adopter = Adopter::new(store.clone(), base, Roster::new(Vec::new(), clock::now()));
        let mut tx = store.write().await.unwrap();
        // Generations 3 and 4, a cutover and one more write, were never published.
        for (generation, live_since, live) in [(1, 1, "a"), (2, 2, "b"), (3, 3, "c"), (4, 3, "c")] {
            let record = record(generation, live_since, live);
            records::put_site(&mut tx, &record).await.unwrap();
        }
        sqlx::query("INSERT INTO streams (stream, incarnation, acknowledged) VALUES ('KV_r_fra', '0123456789abcdef', 7)")
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let place = |sequence, is_new| Place {
            stream: "KV_r_fra",
            sequence,
            is_new,
        };
        assert!(adopter.signed(signed(), &place(8, true)).await.unwrap());
        let mut connection = store.read().await.unwrap();
        let (site, region) = (signed().site, signed().region);
        let held = records::site(&mut connection, &region, &site)
            .await
            .unwrap();
        let held = held.unwrap();
        assert_eq!(held.live, Some(release("a")));
        assert_eq!(
            (held.generation, held.live_since),
            (Generation(5), Generation(5))
        );
        assert!(held.hold.is_some() && held.overridden.is_none());
        let known: i64 = sqlx::query_scalar("SELECT acknowledged FROM streams")
            .fetch_one(store.reader())
            .await
            .unwrap();
        assert_eq!(known, 8, "the next start begins to read after it");
        // Found in another life of the stream, of which SQL knows nothing.
        assert!(!adopter.signed(signed(), &place(1, false)).await.unwrap());
    }
}
