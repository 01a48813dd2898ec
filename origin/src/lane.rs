//! Who may deploy to a site, and when: freezes, locks, and the order of pushes.
//!
//! Invariant: all is checked in the transaction that starts the deployment. A rollback is never frozen, and no lock holds up an
//! operator who goes back.

use std::time::Duration;

use helix_routing::api::{
    FreezeView, Held, InFreeze, LockView, MAX_REASON_BYTES, NewFreeze, NewLock, Role,
};
use helix_routing::id::{Environment, ProjectName, SiteId};
use helix_routing::rollout::Closed;
use helix_routing::routes::Span;
use helix_routing::time::Timestamp;
use helix_service::{clock, random};

use crate::auth::Caller;
use crate::store::{Connection, StoreError, Tx, count, millis, number, time};

/// Freezes of one project that are not over, at most.
const MAX_FREEZES: i64 = 100;
/// Longest freeze, and longest time of a lock that has one: longer is a mistake.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Something is not allowed, or makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The deployment would come in a freeze.
    #[error(
        "{site} is frozen from {} to {} UTC by {}: {}; deploy with --at after it, with --wait-freeze, or with --override-freeze REASON",
        .freeze.from.utc(), .freeze.until.utc(), .freeze.by, .freeze.reason
    )]
    Frozen {
        /// The site.
        site: SiteId,
        /// The freeze.
        freeze: Box<FreezeView>,
    },
    /// Somebody else holds the lock.
    #[error("{site} is locked by {} {}: {}; wait, or ask an operator for `helix lock release --force`", .held.holder, remaining(.held, *.now), .held.reason)]
    Locked {
        /// The site.
        site: SiteId,
        /// The lock.
        held: Box<Held>,
        /// As of when.
        now: Timestamp,
    },
    /// Nobody holds the lock.
    #[error("{0} is not locked")]
    NotLocked(SiteId),
    /// There is no such freeze.
    #[error("project {project} has no freeze {freeze}")]
    UnknownFreeze {
        /// The project.
        project: ProjectName,
        /// The id that was named.
        freeze: String,
    },
    /// A time or a reason cannot be.
    #[error("{what}: {problem}")]
    Illegal {
        /// Which.
        what: &'static str,
        /// What would be right.
        problem: String,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for LaneError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// Checks that `caller` may deploy now what goes live at `at`, and says which freezes its stages have to leave out.
///
/// # Errors
/// When somebody else has locked the site, or it is frozen then.
pub async fn check_deploy(
    tx: &mut Tx,
    caller: &Caller,
    site: &SiteId,
    at: Option<Timestamp>,
    in_freeze: &InFreeze,
) -> Result<Vec<Closed>, LaneError> {
    check_lock(tx, caller, site).await?;
    // Previews have no visitors that a freeze could protect.
    if site.environment != Environment::Production {
        return Ok(Vec::new());
    }
    let now = clock::now();
    let freezes = freezes(tx, &site.project, now).await?;
    if let InFreeze::Override(reason) = in_freeze {
        check_reason(reason)?;
        return Ok(Vec::new());
    }
    let at = at.unwrap_or(now).max(now);
    let here = freezes
        .iter()
        .find(|freeze| freeze.from <= at && at < freeze.until);
    if let (Some(freeze), InFreeze::Refuse) = (here, in_freeze) {
        return Err(LaneError::Frozen {
            site: site.clone(),
            freeze: Box::new(freeze.clone()),
        });
    }
    let closed = freezes.iter().map(|freeze| Closed {
        from: freeze.from,
        until: freeze.until,
    });
    Ok(closed.collect())
}

/// Checks that `caller` may take a site back: operators always may.
///
/// # Errors
/// When somebody else has locked it.
pub async fn check_rollback(tx: &mut Tx, caller: &Caller, site: &SiteId) -> Result<(), LaneError> {
    if caller.role == Role::Operate {
        return Ok(());
    }
    check_lock(tx, caller, site).await
}

/// The highest number of a push that was deployed to a site.
///
/// # Errors
/// When the database fails.
pub async fn newest_push(tx: &mut Tx, site: &SiteId) -> Result<Option<u64>, StoreError> {
    let newest: Option<i64> =
        sqlx::query_scalar("SELECT MAX(push_seq) FROM deployments WHERE site = $1")
            .bind(site.to_string())
            .fetch_one(&mut **tx)
            .await?;
    newest
        .map(|newest| count(newest, "deployments.push_seq"))
        .transpose()
}

async fn check_lock(tx: &mut Tx, caller: &Caller, site: &SiteId) -> Result<(), LaneError> {
    let now = clock::now();
    match held(tx, site, now).await? {
        Some((holder, held)) if holder != caller.id => Err(LaneError::Locked {
            site: site.clone(),
            held: Box::new(held),
            now,
        }),
        Some(_) | None => Ok(()),
    }
}

type LockRow = (String, String, String, i64, Option<i64>);

/// The lock of a site that holds at `now`, with the id of the token that holds it.
async fn held(
    connection: &mut Connection,
    site: &SiteId,
    now: Timestamp,
) -> Result<Option<(String, Held)>, StoreError> {
    let row: Option<LockRow> = sqlx::query_as(
        "SELECT holder_id, holder, reason, since, until FROM locks WHERE site = $1 AND (until IS NULL OR until > $2)",
    )
    .bind(site.to_string())
    .bind(millis(now))
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(holder_id, holder, reason, since, until)| {
        let held = Held {
            holder,
            reason,
            since: time(since),
            until: until.map(time),
        };
        (holder_id, held)
    }))
}

/// Who holds the lock of a site.
///
/// # Errors
/// When the database fails.
pub async fn lock(connection: &mut Connection, site: SiteId) -> Result<LockView, LaneError> {
    let held = held(connection, &site, clock::now()).await?;
    Ok(LockView {
        site,
        lock: held.map(|(_, held)| held),
    })
}

/// Takes the lock of a site, or renews it for whoever holds it.
///
/// # Errors
/// When somebody else holds it, or reason or time make no sense.
pub async fn acquire(
    tx: &mut Tx,
    caller: &Caller,
    site: SiteId,
    new: &NewLock,
) -> Result<LockView, LaneError> {
    check_reason(&new.reason)?;
    let ttl = new.ttl.map(Span::duration);
    if ttl.is_some_and(|ttl| ttl.is_zero() || ttl > LONGEST) {
        let problem = "is 1s to a year, or left out".to_owned();
        return Err(LaneError::Illegal {
            what: "ttl",
            problem,
        });
    }
    check_lock(tx, caller, &site).await?;
    let now = clock::now();
    sqlx::query(
        "INSERT INTO locks (site, holder_id, holder, reason, since, until) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (site) DO UPDATE SET holder_id = excluded.holder_id, holder = excluded.holder, \
         reason = excluded.reason, since = excluded.since, until = excluded.until",
    )
    .bind(site.to_string())
    .bind(&caller.id)
    .bind(&caller.name)
    .bind(&new.reason)
    .bind(millis(now))
    .bind(ttl.map(|ttl| millis(now + ttl)))
    .execute(&mut **tx)
    .await?;
    lock(tx, site).await
}

/// Gives the lock of a site back; with `force` an operator ends somebody else's.
///
/// # Errors
/// When there is none, or it is somebody else's.
pub async fn release(
    tx: &mut Tx,
    caller: &Caller,
    site: SiteId,
    force: bool,
) -> Result<LockView, LaneError> {
    let now = clock::now();
    let Some((holder, held)) = held(tx, &site, now).await? else {
        return Err(LaneError::NotLocked(site));
    };
    let may = holder == caller.id || (force && caller.role == Role::Operate);
    if !may {
        let held = Box::new(held);
        return Err(LaneError::Locked { site, held, now });
    }
    sqlx::query("DELETE FROM locks WHERE site = $1")
        .bind(site.to_string())
        .execute(&mut **tx)
        .await?;
    lock(tx, site).await
}

type FreezeRow = (String, i64, i64, String, String);

/// The freezes of a project that are not over, the next one first.
///
/// # Errors
/// When the database fails.
pub async fn freezes(
    connection: &mut Connection,
    project: &ProjectName,
    now: Timestamp,
) -> Result<Vec<FreezeView>, LaneError> {
    let rows: Vec<FreezeRow> = sqlx::query_as(
        "SELECT id, starts, ends, reason, by_whom FROM freezes WHERE project = $1 AND ends > $2 ORDER BY starts, id",
    )
    .bind(project.as_str())
    .bind(millis(now))
    .fetch_all(connection)
    .await?;
    let view = |(id, starts, ends, reason, by): FreezeRow| FreezeView {
        id,
        project: project.clone(),
        from: time(starts),
        until: time(ends),
        reason,
        by,
    };
    Ok(rows.into_iter().map(view).collect())
}

/// Sets a freeze.
///
/// # Errors
/// When its times or its reason make no sense, or there are too many.
pub async fn add_freeze(
    tx: &mut Tx,
    caller: &Caller,
    project: &ProjectName,
    new: NewFreeze,
) -> Result<FreezeView, LaneError> {
    check_reason(&new.reason)?;
    let now = clock::now();
    let illegal = |problem: &str| {
        Err(LaneError::Illegal {
            what: "until",
            problem: problem.to_owned(),
        })
    };
    if new.until <= new.from || new.until <= now {
        return illegal("is later than the start, and later than now");
    }
    if new.until.since(new.from) > LONGEST {
        return illegal("is a year after the start at most");
    }
    let open = freezes(tx, project, now).await?;
    if number(open.len() as u64) >= MAX_FREEZES {
        return illegal("belongs to one freeze too many: remove some");
    }
    let view = FreezeView {
        id: random::hex16(),
        project: project.clone(),
        from: new.from,
        until: new.until,
        reason: new.reason,
        by: caller.name.clone(),
    };
    sqlx::query(
        "INSERT INTO freezes (id, project, starts, ends, reason, by_whom, created) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&view.id)
    .bind(project.as_str())
    .bind(millis(view.from))
    .bind(millis(view.until))
    .bind(&view.reason)
    .bind(&view.by)
    .bind(millis(now))
    .execute(&mut **tx)
    .await?;
    Ok(view)
}

/// Ends a freeze, or takes back one that was to come.
///
/// # Errors
/// When there is none of that id.
pub async fn remove_freeze(
    tx: &mut Tx,
    project: &ProjectName,
    freeze: &str,
) -> Result<(), LaneError> {
    let removed = sqlx::query("DELETE FROM freezes WHERE id = $1 AND project = $2")
        .bind(freeze)
        .bind(project.as_str())
        .execute(&mut **tx)
        .await?;
    if removed.rows_affected() == 0 {
        return Err(LaneError::UnknownFreeze {
            project: project.clone(),
            freeze: freeze.chars().take(40).collect(),
        });
    }
    Ok(())
}

/// As in `for 42m more`.
fn remaining(held: &Held, now: Timestamp) -> String {
    match held.until {
        Some(until) => format!("for {} more", Span::roughly(until.since(now))),
        None => "until it is released".to_owned(),
    }
}

fn check_reason(reason: &str) -> Result<(), LaneError> {
    let is_plain = !reason.trim().is_empty()
        && reason.len() <= MAX_REASON_BYTES
        && !reason.chars().any(char::is_control);
    if is_plain {
        Ok(())
    } else {
        Err(LaneError::Illegal {
            what: "reason",
            problem: format!("is 1 to {MAX_REASON_BYTES} bytes on one line"),
        })
    }
}
