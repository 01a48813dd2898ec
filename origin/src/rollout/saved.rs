//! A rollout as SQL holds it, and what its commands mean there.
//!
//! Invariant: machine, records, settlements and outcome change in one transaction, and only from the
//! revision that the caller saw.

use helix_routing::api::{HoldStatus, RolloutView};
use helix_routing::host::Host;
use helix_routing::id::{Environment, RegionId, RolloutId, SiteId};
use helix_routing::record::ReleaseRef;
use helix_routing::rollout::{Command, Event, Fleet, Kind, Outcome, Rollout, failure};
use helix_routing::time::Timestamp;
use helix_service::clock;

use super::{RolloutError, alias, returned};
use crate::feed::records;
use crate::store::{self, Connection, Store, Tx};
use crate::{event, hold, quarantine};

/// A rollout and what is known about it besides its state.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    pub machine: Rollout,
    pub by: String,
    /// Revision of the row: what a change of it is conditional on.
    pub stored: u64,
    /// Counts up with every change that can be seen; the row's follows it.
    pub revision: u64,
    pub started: Timestamp,
    pub changed: Timestamp,
}

impl Saved {
    pub(super) fn new(machine: Rollout, by: String, now: Timestamp) -> Self {
        Self {
            machine,
            by,
            stored: 1,
            revision: 1,
            started: now,
            changed: now,
        }
    }

    pub(super) fn view(&self) -> RolloutView {
        RolloutView {
            rollout: self.machine.id().clone(),
            site: self.machine.site().clone(),
            kind: self.machine.kind().to_string(),
            by: self.by.clone(),
            revision: self.revision,
            started: self.started,
            changed: self.changed,
            outcome: self.machine.outcome(),
            regions: self.machine.regions(),
            // Whoever shows it knows.
            in_flight: Vec::new(),
            plan: Some(self.machine.plan()),
        }
    }

    /// Takes the machine's next state.
    pub(super) fn advance(&mut self, machine: Rollout, now: Timestamp) {
        self.machine = machine;
        self.revision += 1;
        self.changed = now;
    }

    /// Saves a rollout that was not there.
    pub(super) async fn insert(
        &self,
        tx: &mut Tx,
        reason: Option<&str>,
    ) -> Result<(), RolloutError> {
        sqlx::query(
            "INSERT INTO rollouts (rollout, site, kind, by_whom, reason, machine, revision, started, changed, outcome) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(self.machine.id().as_str())
        .bind(self.machine.site().to_string())
        .bind(self.machine.kind().to_string())
        .bind(&self.by)
        .bind(reason.map(store::text))
        .bind(self.json()?)
        .bind(store::number(self.revision))
        .bind(store::millis(self.started))
        .bind(store::millis(self.changed))
        .bind(self.machine.outcome().map(Outcome::label))
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    /// Saves a rollout over the revision it was read at; false when someone else changed it since.
    pub(super) async fn update(&mut self, tx: &mut Tx) -> Result<bool, RolloutError> {
        let updated = sqlx::query(
            "UPDATE rollouts SET machine = $3, revision = $4, changed = $5, outcome = $6 \
             WHERE rollout = $1 AND revision = $2 AND outcome IS NULL",
        )
        .bind(self.machine.id().as_str())
        .bind(store::number(self.stored))
        .bind(self.json()?)
        .bind(store::number(self.revision))
        .bind(store::millis(self.changed))
        .bind(self.machine.outcome().map(Outcome::label))
        .execute(&mut **tx)
        .await?;
        self.stored = self.revision;
        Ok(updated.rows_affected() == 1)
    }

    fn json(&self) -> Result<String, RolloutError> {
        serde_json::to_string(&self.machine).map_err(|source| RolloutError::Machine {
            rollout: self.machine.id().to_string(),
            source,
        })
    }
}

/// Ends the rollout of a site that runs, for something newer. Of what it does about that, what `keeps` says is done.
pub(super) async fn supersede(
    tx: &mut Tx,
    base: &Host,
    fleet: &Fleet,
    site: &SiteId,
    keeps: impl Fn(&Command) -> bool,
) -> Result<(), RolloutError> {
    let Some(mut running) = running(tx, &site.to_string()).await? else {
        return Ok(());
    };
    let now = clock::now();
    let before = running.view();
    let mut machine = running.machine.clone();
    let epoch = tx.epoch();
    let mut commands = machine.step(now, fleet, &Event::Superseded { epoch });
    commands.retain(keeps);
    running.advance(machine, now);
    running.update(tx).await?;
    event::emit_steps(tx, Some(&before), &running.view()).await?;
    apply(tx, base, &running.machine, commands).await?;
    Ok(())
}

/// Carries out the durable commands and returns the others. The machine's row is saved before.
pub(super) async fn apply(
    tx: &mut Tx,
    base: &Host,
    machine: &Rollout,
    commands: Vec<Command>,
) -> Result<Vec<Command>, RolloutError> {
    let mut rest = Vec::new();
    let ends = commands
        .iter()
        .any(|command| matches!(command, Command::Finish(_)));
    for command in commands {
        match command {
            Command::Write(record) => records::put_site(tx, &record).await?,
            // The row of the machine says all of it.
            Command::Bake { .. } | Command::Plan => {}
            Command::Settle {
                region, release, ..
            } => settle(tx, machine, &region, &release).await?,
            Command::Return {
                region,
                left,
                to,
                quarantine,
            } => {
                let why = quarantine.as_deref();
                returned::note(tx, machine, &region, (&left.release, &to), why).await?;
            }
            Command::Withdraw {
                region,
                left,
                quarantine: Some(why),
            } => returned::blame(tx, machine, &region, &left.release, &why).await?,
            Command::Withdraw { .. } => {}
            Command::Finish(outcome) => finish(tx, base, machine, outcome).await?,
            Command::Republish { .. } | Command::Probe { .. } | Command::Ask { .. } => {
                rest.push(command);
            }
        }
    }
    if ends {
        // What of pins and protection changed since its last write.
        records::tell(tx, machine.site()).await?;
    }
    Ok(rest)
}

/// A deployment that settles is the newest from now on; a rollback moves nothing, and what it left is not to be used unseen.
async fn settle(
    tx: &mut Tx,
    machine: &Rollout,
    region: &RegionId,
    release: &ReleaseRef,
) -> Result<(), RolloutError> {
    let site = machine.site().to_string();
    let now = store::millis(clock::now());
    let statement = match machine.kind() {
        // What is live stays what it was: settled, or a person's to decide about.
        Kind::Restart => return restarted(tx, machine, region, release).await,
        Kind::Deploy => {
            "INSERT INTO settlements (site, region, release_id, artifact, position, settled) \
             SELECT $1, $2, $3, $4, COALESCE(MAX(position), 0) + 1, $5 FROM settlements WHERE site = $1 AND region = $2 \
             ON CONFLICT (site, region, release_id) \
             DO UPDATE SET artifact = excluded.artifact, position = excluded.position, settled = excluded.settled"
        }
        Kind::Rollback => {
            "INSERT INTO settlements (site, region, release_id, artifact, position, settled) VALUES ($1, $2, $3, $4, 0, $5) \
             ON CONFLICT (site, region, release_id) DO NOTHING"
        }
    };
    let artifact = release.artifact.as_str();
    sqlx::query(statement)
        .bind(&site)
        .bind(region.as_str())
        .bind(release.release.as_str())
        .bind(artifact)
        .bind(now)
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "INSERT INTO region_sites (site, region, settled, settled_artifact) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (site, region) DO UPDATE SET settled = excluded.settled, settled_artifact = excluded.settled_artifact, note = NULL",
    )
    .bind(&site)
    .bind(region.as_str())
    .bind(release.release.as_str())
    .bind(artifact)
    .execute(&mut **tx)
    .await?;
    if machine.kind() == Kind::Rollback {
        quarantine_what_was_left(tx, machine, region, release).await?;
    }
    tracing::info!(rollout = %machine.id(), site, %region, release.id = %release.release, "settled");
    Ok(())
}

/// Why an earlier attempt failed is no news any more, where what is live had settled.
async fn restarted(
    tx: &mut Tx,
    machine: &Rollout,
    region: &RegionId,
    release: &ReleaseRef,
) -> Result<(), RolloutError> {
    let site = machine.site().to_string();
    sqlx::query(
        "UPDATE region_sites SET note = NULL WHERE site = $1 AND region = $2 AND settled = $3",
    )
    .bind(&site)
    .bind(region.as_str())
    .bind(release.release.as_str())
    .execute(&mut **tx)
    .await?;
    tracing::info!(rollout = %machine.id(), site, %region, release.id = %release.release, "restarted");
    Ok(())
}

async fn quarantine_what_was_left(
    tx: &mut Tx,
    machine: &Rollout,
    region: &RegionId,
    release: &ReleaseRef,
) -> Result<(), RolloutError> {
    let left = machine
        .record(region)
        .and_then(|record| record.previous.first())
        .filter(|left| *left != release);
    let Some(left) = left else { return Ok(()) };
    let reason = format!(
        "rolled back to {} by rollout {}",
        release.release,
        machine.id()
    );
    let mark = HoldStatus {
        reason,
        since: clock::now(),
        by: None,
        until: None,
    };
    quarantine::write(tx, machine.site(), region, &left.release, &mark).await?;
    Ok(())
}

/// Notes why regions did not get their target, and moves the preview alias.
async fn finish(
    tx: &mut Tx,
    base: &Host,
    machine: &Rollout,
    outcome: Outcome,
) -> Result<(), RolloutError> {
    let site = machine.site();
    for view in machine.regions() {
        if let Some(reason) = failure(&view) {
            sqlx::query(
                "INSERT INTO region_sites (site, region, note) VALUES ($1, $2, $3) \
                 ON CONFLICT (site, region) DO UPDATE SET note = excluded.note",
            )
            .bind(site.to_string())
            .bind(view.region.as_str())
            .bind(store::text(&reason))
            .execute(&mut **tx)
            .await?;
        }
    }
    // What operators said of holds while the machine alone wrote the records.
    hold::carry(tx, site).await?;
    if outcome == Outcome::Settled && site.environment != Environment::Production {
        alias::refresh(tx, &site.project, base).await?;
    }
    tracing::info!(rollout = %machine.id(), %site, from = "running", to = outcome.label(), "rollout");
    Ok(())
}

type RolloutRow = (String, String, String, i64, i64, i64);

/// The rollout of that id; none when there is none.
pub(super) async fn load(
    connection: &mut Connection,
    rollout: &RolloutId,
) -> Result<Option<Saved>, RolloutError> {
    let row: Option<RolloutRow> =
        sqlx::query_as("SELECT rollout, machine, by_whom, revision, started, changed FROM rollouts WHERE rollout = $1")
            .bind(rollout.as_str())
            .fetch_optional(connection)
            .await?;
    row.map(read).transpose()
}

/// The rollout of a site that has not ended.
pub(super) async fn running(
    connection: &mut Connection,
    site: &str,
) -> Result<Option<Saved>, RolloutError> {
    let row: Option<RolloutRow> = sqlx::query_as(
        "SELECT rollout, machine, by_whom, revision, started, changed FROM rollouts WHERE site = $1 AND outcome IS NULL",
    )
    .bind(site)
    .fetch_optional(connection)
    .await?;
    row.map(read).transpose()
}

/// Rollouts that are listed, at most.
const LISTED: i64 = 50;

/// The newest rollouts of a site, or of all.
pub(super) async fn newest(
    connection: &mut Connection,
    site: Option<&SiteId>,
) -> Result<Vec<Saved>, RolloutError> {
    let rows: Vec<RolloutRow> = sqlx::query_as(
        "SELECT rollout, machine, by_whom, revision, started, changed FROM rollouts \
         WHERE $1 = '' OR site = $1 ORDER BY started DESC, rollout LIMIT $2",
    )
    .bind(site.map(ToString::to_string).unwrap_or_default())
    .bind(LISTED)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(read).collect()
}

/// Every rollout that has not ended. One bad row must not keep the others from going on.
pub(super) async fn unfinished(store: &Store) -> Result<Vec<Saved>, RolloutError> {
    let rows: Vec<RolloutRow> = sqlx::query_as(
        "SELECT rollout, machine, by_whom, revision, started, changed FROM rollouts WHERE outcome IS NULL ORDER BY started",
    )
    .fetch_all(store.reader())
    .await?;
    let mut read_rows = Vec::with_capacity(rows.len());
    for row in rows {
        match read(row) {
            Ok(saved) => read_rows.push(saved),
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "rollout cannot be resumed"
            ),
        }
    }
    Ok(read_rows)
}

fn read(row: RolloutRow) -> Result<Saved, RolloutError> {
    let (rollout, machine, by, revision, started, changed) = row;
    let machine = serde_json::from_str(&machine)
        .map_err(|source| RolloutError::Machine { rollout, source })?;
    let revision = store::count(revision, "rollouts.revision")?;
    Ok(Saved {
        machine,
        by,
        stored: revision,
        revision,
        started: store::time(started),
        changed: store::time(changed),
    })
}
