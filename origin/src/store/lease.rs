//! Which of several origins leads, where they share one database.
//!
//! ```text
//!  stands by ──the row's address is none, or its renewals have not risen for a lease──▶ takes the lead: the term rises
//!      ▲                                                                                  │ renews
//!      └────────────── found a later term, or could not renew for a lease ────────────────┘
//! ```
//!
//! Invariant: no clock of another machine is believed. Who stands by measures with its own, monotonic one how long the row
//! has stayed as it is, beginning with its first look. Two that believe to lead at a time are told apart by the term, which
//! every change checks ([`super::Store::write`]). A database that one origin has alone knows no lease: its start leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use helix_routing::id::Epoch;
use tokio::time::{Instant, sleep};

use super::{Opened, Store, StoreError, begin, count, number};

/// How long a leader may be silent before another takes over. With two looks, a start and the first records on a loaded machine it stays
/// below 10 s, and so below the lease of an edge, 15 s.
pub const LEASE: Duration = Duration::from_secs(6);
/// How often a leader renews: three times may go wrong.
const RENEW: Duration = Duration::from_millis(1500);
/// How often who stands by looks: a leader that let go is followed within this.
const LOOK: Duration = Duration::from_millis(300);
/// How often who stands by says so.
const BEAT: Duration = Duration::from_secs(2);
/// Without a word for as long, who stood by is shown as silent.
const SILENT: Duration = Duration::from_secs(10);
/// And after this it is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);

/// The leader's row, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its term.
    pub epoch: Epoch,
    /// Where others reach it; none once it let go.
    pub address: Option<String>,
    renewals: i64,
}

/// An origin that stands by, as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandBy {
    /// Where it is.
    pub address: String,
    /// It has said so lately.
    pub is_there: bool,
}

/// Waits for the lead and takes it. `is_ours` says that a row with our address is of a process of ours that is gone, so
/// there is nobody to wait for. `seen` is told of who leads meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn elect(
    opened: Opened,
    address: &str,
    mut is_ours: bool,
    seen: impl Fn(&Leader),
) -> Result<Store, StoreError> {
    let mut found = look(&opened).await?;
    let mut since = Instant::now();
    let mut said: Option<Instant> = None;
    loop {
        let is_free = found.address.is_none()
            || since.elapsed() >= LEASE
            || (is_ours && found.address.as_deref() == Some(address));
        is_ours = false;
        if is_free {
            tracing::info!(
                from = found.address.as_deref().unwrap_or("nobody"),
                to = address,
                silent_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
                "takes the lead"
            );
            if let Some(epoch) = take(&opened, address, &found).await? {
                return Ok(Store::leading(opened, epoch, Some(address)));
            }
        } else {
            seen(&found);
        }
        if said.is_none_or(|at| at.elapsed() >= BEAT) {
            beat(&opened, address).await?;
            said = Some(Instant::now());
        }
        sleep(LOOK).await;
        let now = look(&opened).await?;
        if now != found {
            found = now;
            since = Instant::now();
        }
    }
}

/// Holds the lead until it is lost, and keeps `standbys` of the store.
///
/// # Errors
/// When the database did not take a renewal for as long as a lease: by now another may lead.
pub async fn hold(store: &Store) -> Result<(), StoreError> {
    let mut renewed = Instant::now();
    let mut heard: BTreeMap<String, (i64, Instant)> = BTreeMap::new();
    loop {
        match renew(store).await {
            Ok(true) => renewed = Instant::now(),
            Ok(false) => {
                store.fence();
                return Ok(());
            }
            Err(error) if renewed.elapsed() >= LEASE => return Err(error),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the lead is not renewed"
                );
            }
        }
        if let Err(error) = listen(store, &mut heard).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "who stands by is not known"
            );
        }
        sleep(RENEW).await;
    }
}

/// Lets go of the lead, so that another takes it at once.
///
/// # Errors
/// When the database fails; then the others wait for a lease.
pub async fn release(store: &Store) -> Result<(), StoreError> {
    let released = sqlx::query(
        "UPDATE leader SET address = NULL WHERE id = 1 AND $1 = (SELECT epoch FROM terms WHERE id = 1)",
    )
    .bind(number(store.epoch().0))
    .execute(&store.opened.lease)
    .await?;
    if released.rows_affected() > 0 {
        tracing::info!(
            epoch = store.epoch().0,
            from = "leading",
            to = "gone",
            "origin lets go"
        );
    }
    Ok(())
}

/// Says no more that this origin stands by.
///
/// # Errors
/// When the database fails.
pub async fn withdraw(opened: &Opened, address: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM standbys WHERE address = $1")
        .bind(address)
        .execute(&opened.lease)
        .await?;
    Ok(())
}

/// Who leads, as the row says it.
///
/// # Errors
/// When the database fails.
pub async fn look(opened: &Opened) -> Result<Leader, StoreError> {
    let (epoch, address, renewals): (i64, Option<String>, i64) = sqlx::query_as(
        "SELECT t.epoch, l.address, l.renewals FROM terms t, leader l WHERE t.id = 1 AND l.id = 1",
    )
    .fetch_one(&opened.lease)
    .await?;
    Ok(Leader {
        epoch: Epoch(count(epoch, "terms.epoch")?),
        address,
        renewals,
    })
}

/// Raises the term, unless the row is no longer as it was found: then somebody was faster, or the leader is back.
async fn take(opened: &Opened, address: &str, found: &Leader) -> Result<Option<Epoch>, StoreError> {
    let (mut tx, term) = begin(opened).await?;
    let (held, renewals): (Option<String>, i64) =
        sqlx::query_as("SELECT address, renewals FROM leader WHERE id = 1")
            .fetch_one(&mut *tx)
            .await?;
    if (term, &held, renewals) != (found.epoch, &found.address, found.renewals) {
        return Ok(None);
    }
    let epoch = term.next();
    for statement in [
        "UPDATE terms SET epoch = $1 WHERE id = 1",
        "UPDATE leader SET renewals = $1 WHERE id = 1",
    ] {
        sqlx::query(statement)
            .bind(number(epoch.0))
            .execute(&mut *tx)
            .await?;
    }
    for statement in [
        "UPDATE leader SET address = $1 WHERE id = 1",
        "DELETE FROM standbys WHERE address = $1",
    ] {
        sqlx::query(statement)
            .bind(address)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(Some(epoch))
}

/// Whether the term is still ours.
async fn renew(store: &Store) -> Result<bool, StoreError> {
    let renewed = sqlx::query(
        "UPDATE leader SET renewals = renewals + 1 WHERE id = 1 AND $1 = (SELECT epoch FROM terms WHERE id = 1)",
    )
    .bind(number(store.epoch().0))
    .execute(&store.opened.lease)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

async fn beat(opened: &Opened, address: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO standbys (address, beats) VALUES ($1, 1) ON CONFLICT (address) DO UPDATE SET beats = standbys.beats + 1",
    )
    .bind(address)
    .execute(&opened.lease)
    .await?;
    Ok(())
}

async fn listen(
    store: &Store,
    heard: &mut BTreeMap<String, (i64, Instant)>,
) -> Result<(), StoreError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT address, beats FROM standbys ORDER BY address")
            .fetch_all(&store.opened.lease)
            .await?;
    heard.retain(|address, _| rows.iter().any(|(there, _)| there == address));
    for (address, beats) in rows {
        match heard.get_mut(&address) {
            Some((known, _)) if *known == beats => {}
            Some(known) => *known = (beats, Instant::now()),
            None => {
                heard.insert(address, (beats, Instant::now()));
            }
        }
    }
    let gone = |at: &Instant, limit| at.elapsed() >= limit;
    for (address, _) in heard.iter().filter(|(_, (_, at))| gone(at, FORGOTTEN)) {
        withdraw(&store.opened, address).await?;
    }
    let standbys: Vec<StandBy> = heard
        .iter()
        .map(|(address, (_, at))| StandBy {
            address: address.clone(),
            is_there: !gone(at, SILENT),
        })
        .collect();
    store.standbys.send_replace(Arc::from(standbys));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Place, testing};

    /// Far beyond what an election takes.
    const LIMIT: Duration = Duration::from_secs(30);

    fn place() -> Option<Place> {
        testing::server().map(|server| server.database().parse().unwrap())
    }

    async fn lead(place: &Place, address: &'static str) -> Store {
        let opened = Opened::open(place).await.unwrap();
        let elected = elect(opened, address, false, |_| {});
        tokio::time::timeout(LIMIT, elected).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn one_leads_and_the_other_follows_when_it_lets_go_or_falls_silent() {
        let Some(place) = place() else { return };
        let first = lead(&place, "a").await;
        assert_eq!(first.epoch(), Epoch(1));
        let holding = {
            let first = first.clone();
            tokio::spawn(async move { hold(&first).await })
        };
        let second = {
            let place = place.clone();
            tokio::spawn(async move { lead(&place, "b").await })
        };
        let is_told = async {
            let told = [StandBy {
                address: "b".to_owned(),
                is_there: true,
            }];
            while *first.standbys() != told {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, is_told).await.unwrap();
        sleep(LEASE + RENEW).await;
        assert!(
            !second.is_finished(),
            "a leader that renews is not followed"
        );

        release(&first).await.unwrap();
        let asked = Instant::now();
        let second = second.await.unwrap();
        assert!(
            asked.elapsed() < Duration::from_secs(4),
            "{:?}",
            asked.elapsed()
        );
        assert_eq!(second.epoch(), Epoch(2));
        assert!(matches!(
            first.write().await,
            Err(StoreError::Fenced { .. })
        ));
        assert!(holding.await.unwrap().is_ok());
        second.write().await.unwrap().commit().await.unwrap();

        let asked = Instant::now();
        let third = lead(&place, "a").await;
        assert!(
            asked.elapsed() >= LEASE,
            "silence is waited for: {:?}",
            asked.elapsed()
        );
        assert_eq!(third.epoch(), Epoch(3));
        assert!(!renew(&second).await.unwrap());
    }

    #[tokio::test]
    async fn a_leader_that_was_stopped_in_the_middle_of_a_change_does_not_keep_the_lead() {
        let Some(place) = place() else { return };
        let first = lead(&place, "a").await;
        let held = first.write().await.unwrap();
        let asked = Instant::now();
        let second = lead(&place, "b").await;
        assert!(
            asked.elapsed() < Duration::from_secs(15),
            "{:?}",
            asked.elapsed()
        );
        assert!(held.commit().await.is_err(), "what it had begun is gone");
        second.write().await.unwrap().commit().await.unwrap();
    }

    #[tokio::test]
    async fn of_several_that_see_a_free_lead_one_has_it() {
        let Some(place) = place() else { return };
        let opened = Opened::open(&place).await.unwrap();
        let found = look(&opened).await.unwrap();
        let other = Opened::open(&place).await.unwrap();
        let (one, two) = tokio::join!(take(&opened, "a", &found), take(&other, "b", &found));
        assert_eq!(
            [one.unwrap(), two.unwrap()].iter().flatten().count(),
            1,
            "the row is no longer as the second found it"
        );
    }

    #[tokio::test]
    async fn who_comes_back_at_its_own_address_waits_for_nobody() {
        let Some(place) = place() else { return };
        lead(&place, "a").await;
        let opened = Opened::open(&place).await.unwrap();
        let asked = Instant::now();
        let again = elect(opened, "a", true, |_| {}).await.unwrap();
        assert!(asked.elapsed() < LEASE / 2, "{:?}", asked.elapsed());
        assert_eq!(again.epoch(), Epoch(2));
    }
}
