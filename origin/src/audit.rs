//! Who did what, when, on what, and why: one entry per act, in the transaction that carries it out.
//!
//! Invariant: entries are only ever added. Each holds a hash over itself and the hash of the entry before, so that one that is
//! changed, removed or put in between breaks the chain ([`verify`]). Whoever can write to the database can also forge a whole new
//! chain; a head that somebody wrote down elsewhere (`helix audit verify` prints it, and so does origin's log) shows that too.

use std::sync::{Mutex, PoisonError};

use helix_routing::id::{ProjectName, SiteId};
use helix_routing::operators::{AuditCheck, AuditEntry, AuditHead, AuditPage, BrokenAudit};
use helix_routing::time::Timestamp;
use helix_service::clock;
use helix_service::digest::sha256;

use crate::auth::Caller;
use crate::event::{self, Event};
use crate::store::{self, Connection, Store, StoreError, Tx, count, millis};

/// Entries of one page unless fewer are asked for.
pub const MAX_PAGE: u32 = 500;
/// Rows that a verification reads at once.
const VERIFY_ROWS: i64 = 2000;
/// Longest text of one column, in characters: longer ones are cut.
const MAX_TEXT: usize = 4000;
/// What every hash starts with, so that it is never taken for one of something else.
const CHAIN: &str = "helix-audit-1";
/// Refused acts that are written in one minute: whoever may not act must not fill the log either.
const DENIALS_PER_MINUTE: u32 = 60;

/// Families of acts that are events, too. Of what concerns access and webhooks only this log knows; deployments, rollbacks and returns have
/// events of their own.
const TOLD: [&str; 5] = ["hold.", "release.", "domain.", "project.", "break_glass."];

/// What was done.
#[derive(Clone, Debug)]
pub struct Act {
    action: &'static str,
    subject: String,
    project: Option<String>,
    reason: Option<String>,
    detail: Option<String>,
}

impl Act {
    /// `action` on `subject`. The project is that of the subject where it begins with a site.
    #[must_use]
    pub fn new(action: &'static str, subject: impl Into<String>) -> Self {
        let subject = subject.into();
        let first = subject.split(' ').next().unwrap_or_default();
        let site = first.parse::<SiteId>().ok();
        Self {
            action,
            project: site.map(|site| site.project.to_string()),
            subject,
            reason: None,
            detail: None,
        }
    }

    /// On a site.
    #[must_use]
    pub fn site(self, site: &SiteId) -> Self {
        self.project(&site.project)
    }

    /// Of a project.
    #[must_use]
    pub fn project(mut self, project: &ProjectName) -> Self {
        self.project = Some(project.to_string());
        self
    }

    /// Why, in the words of who did it.
    #[must_use]
    pub fn reason(mut self, reason: Option<&str>) -> Self {
        self.reason = reason.map(short);
        self
    }

    /// Why, as far as was said.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// What else a person would ask.
    #[must_use]
    pub fn detail(mut self, detail: Option<String>) -> Self {
        self.detail = detail.map(|detail| short(&detail));
        self
    }
}

/// Somebody who said it elsewhere: at an edge, or with a key. There is no token.
#[must_use]
pub fn elsewhere(name: String) -> Caller {
    Caller {
        id: "elsewhere".to_owned(),
        name,
        ..Caller::origin()
    }
}

/// Notes an act without a reason. `subject` is what it was done to; `detail` what else a person would ask.
///
/// # Errors
/// When the database fails.
pub async fn note(
    tx: &mut Tx,
    caller: &Caller,
    action: &'static str,
    subject: &str,
    detail: Option<&str>,
) -> Result<(), StoreError> {
    let act = Act::new(action, subject).detail(detail.map(str::to_owned));
    record(tx, caller, act).await
}

/// Adds an entry to the end of the chain.
///
/// # Errors
/// When the database fails.
pub async fn record(tx: &mut Tx, caller: &Caller, act: Act) -> Result<(), StoreError> {
    let head = head(tx).await?;
    let entry = AuditEntry {
        number: head.number + 1,
        at: clock::now(),
        actor: caller.id.clone(),
        by: short(&caller.name),
        action: act.action.to_owned(),
        subject: short(&act.subject),
        project: act.project,
        reason: act.reason,
        detail: act.detail,
        request: caller.request.clone(),
        hash: String::new(),
    };
    let hash = hash(&head.hash, &entry);
    insert(tx, &entry, &hash).await?;
    sqlx::query("UPDATE audit_head SET number = $1, hash = $2 WHERE id = 1")
        .bind(store::number(entry.number))
        .bind(&hash)
        .execute(&mut **tx)
        .await?;
    if TOLD.iter().any(|family| entry.action.starts_with(family)) {
        event::emit(tx, told(&entry)).await?;
    }
    tracing::info!(
        by = entry.by,
        action = entry.action,
        subject = entry.subject,
        reason = entry.reason,
        detail = entry.detail,
        request = entry.request,
        audit.number = entry.number,
        audit.hash = hash,
        "act"
    );
    Ok(())
}

/// The act as an event of its own.
fn told(entry: &AuditEntry) -> Event {
    let project = entry.project.as_deref().and_then(|name| name.parse().ok());
    Event::new(entry.action.clone(), project.as_ref())
        .with("subject", Some(entry.subject.clone()))
        .with("by", Some(entry.by.clone()))
        .with("reason", entry.reason.clone())
        .with("detail", entry.detail.clone())
        .with("request", entry.request.clone())
        .with("audit", Some(entry.number))
}

async fn insert(tx: &mut Tx, entry: &AuditEntry, hash: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (id, at, by_whom, action, subject, detail, actor, project, reason, request, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(store::number(entry.number))
    .bind(millis(entry.at))
    .bind(&entry.by)
    .bind(&entry.action)
    .bind(&entry.subject)
    .bind(&entry.detail)
    .bind(&entry.actor)
    .bind(&entry.project)
    .bind(&entry.reason)
    .bind(&entry.request)
    .bind(hash)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes that a known caller tried what it may not do. Only so many in a minute; the log has them all.
pub async fn denied(store: &Store, caller: &Caller, what: &str) {
    tracing::warn!(by = caller.name, what, "act refused");
    if !may_note_denial(clock::now()) {
        return;
    }
    let noted = async {
        let mut tx = store.write().await?;
        record(&mut tx, caller, Act::new("access.denied", what)).await?;
        tx.commit().await
    };
    if let Err(error) = noted.await {
        tracing::warn!(%error, what, "a refused act is not in the audit log");
    }
}

fn may_note_denial(now: Timestamp) -> bool {
    static NOTED: Mutex<(u64, u32)> = Mutex::new((0, 0));
    let minute = now.as_millis() / 60_000;
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    if noted.0 != minute {
        *noted = (minute, 0);
    }
    noted.1 += 1;
    noted.1 <= DENIALS_PER_MINUTE
}

/// Which entries.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only of this project.
    pub project: Option<ProjectName>,
    /// Only from this moment on.
    pub since: Option<Timestamp>,
    /// Only of whom: a name, or the id of a token.
    pub by: Option<String>,
    /// Only this action, or those that begin with it and a dot.
    pub action: Option<String>,
    /// Only older ones than this.
    pub before: Option<u64>,
    /// How many at most.
    pub limit: Option<u32>,
}

/// Entries, newest first, and where the next page begins.
///
/// # Errors
/// When the database fails.
pub async fn list(connection: &mut Connection, wanted: &Wanted) -> Result<AuditPage, StoreError> {
    let limit = wanted.limit.unwrap_or(100).clamp(1, MAX_PAGE);
    let prefix = wanted.action.as_ref().map(|action| format!("{action}."));
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, at, by_whom, action, subject, detail, actor, project, reason, request, hash FROM audit \
         WHERE id < $1 AND at >= $2 AND (CAST($3 AS TEXT) IS NULL OR project = $3) \
         AND (CAST($4 AS TEXT) IS NULL OR by_whom = $4 OR actor = $4) \
         AND (CAST($5 AS TEXT) IS NULL OR action = $5 OR SUBSTR(action, 1, LENGTH($6)) = $6) \
         ORDER BY id DESC LIMIT $7",
    )
    .bind(wanted.before.map_or(i64::MAX, store::number))
    .bind(millis(wanted.since.unwrap_or_default()))
    .bind(wanted.project.as_ref().map(ProjectName::as_str))
    .bind(&wanted.by)
    .bind(&wanted.action)
    .bind(&prefix)
    .bind(i64::from(limit) + 1)
    .fetch_all(connection)
    .await?;
    let mut entries = rows.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let has_more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries
        .last()
        .filter(|_| has_more)
        .map(|entry| entry.number);
    Ok(AuditPage { entries, next })
}

/// Walks the whole chain. With `known`, a head that was written down before has to be in it.
///
/// # Errors
/// When the database fails.
pub async fn verify(
    connection: &mut Connection,
    known: Option<&AuditHead>,
) -> Result<AuditCheck, StoreError> {
    let end = head(connection).await?;
    let mut check = AuditCheck {
        entries: 0,
        unchained: 0,
        head: end.clone(),
        broken: None,
    };
    let mut walk = Walk::default();
    loop {
        let page = page_after(connection, walk.number).await?;
        let Some(last) = page.last() else { break };
        let done = last.number;
        for entry in page {
            if entry.number > end.number {
                // Added since we began.
                return Ok(check);
            }
            match walk.step(&entry, known) {
                Ok(true) => check.entries += 1,
                Ok(false) => check.unchained += 1,
                Err(what) => {
                    let number = entry.number;
                    check.broken = Some(BrokenAudit { number, what });
                    return Ok(check);
                }
            }
        }
        walk.number = done;
    }
    check.broken = walk.end(&end, known);
    Ok(check)
}

/// How far a verification has come. *Pure.*
#[derive(Default)]
struct Walk {
    number: u64,
    hash: String,
    is_chained: bool,
    has_met: bool,
}

impl Walk {
    /// Whether the entry is part of the chain, and fits; or what is wrong with it.
    fn step(&mut self, entry: &AuditEntry, known: Option<&AuditHead>) -> Result<bool, String> {
        if entry.hash.is_empty() && !self.is_chained {
            self.number = entry.number;
            return Ok(false);
        }
        if self.is_chained && entry.number != self.number + 1 {
            return Err(format!("entry {} is missing", self.number + 1));
        }
        if entry.hash != hash(&self.hash, entry) {
            return Err(
                "it is not what was written, or does not follow the entry before".to_owned(),
            );
        }
        if let Some(known) = known.filter(|known| known.number == entry.number) {
            if known.hash != entry.hash {
                return Err("it is another entry than the head that was written down".to_owned());
            }
            self.has_met = true;
        }
        self.is_chained = true;
        self.number = entry.number;
        self.hash.clone_from(&entry.hash);
        Ok(true)
    }

    /// What is missing at the end.
    fn end(&self, head: &AuditHead, known: Option<&AuditHead>) -> Option<BrokenAudit> {
        let what = if self.number != head.number || (self.is_chained && self.hash != head.hash) {
            "the newest entries are missing"
        } else if known.is_some() && !self.has_met {
            "the head that was written down is not in the chain"
        } else {
            return None;
        };
        Some(BrokenAudit {
            number: self.number + 1,
            what: what.to_owned(),
        })
    }
}

async fn head(connection: &mut Connection) -> Result<AuditHead, StoreError> {
    let (number, hash): (i64, String) =
        sqlx::query_as("SELECT number, hash FROM audit_head WHERE id = 1")
            .fetch_one(connection)
            .await?;
    Ok(AuditHead {
        number: count(number, "audit_head.number")?,
        hash,
    })
}

async fn page_after(
    connection: &mut Connection,
    number: u64,
) -> Result<Vec<AuditEntry>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, at, by_whom, action, subject, detail, actor, project, reason, request, hash FROM audit \
         WHERE id > $1 ORDER BY id LIMIT $2",
    )
    .bind(store::number(number))
    .bind(VERIFY_ROWS)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(entry).collect()
}

/// Over every column and the hash before. A list in JSON can be read in one way only.
fn hash(before: &str, entry: &AuditEntry) -> String {
    let covered = (
        CHAIN,
        before,
        entry.number,
        entry.at,
        (&entry.actor, &entry.by),
        (&entry.action, &entry.subject),
        &entry.project,
        &entry.reason,
        &entry.detail,
        &entry.request,
    );
    let bytes = serde_json::to_vec(&covered).expect("plain data always encodes");
    sha256(&bytes).hex().to_owned()
}

fn short(text: &str) -> String {
    store::text(text).chars().take(MAX_TEXT).collect()
}

type Row = (
    i64,
    i64,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

fn entry(row: Row) -> Result<AuditEntry, StoreError> {
    let (id, at, by, action, subject, detail, actor, project, reason, request, hash) = row;
    Ok(AuditEntry {
        number: count(id, "audit.id")?,
        at: store::time(at),
        actor: actor.unwrap_or_default(),
        by,
        action,
        subject,
        project,
        reason,
        detail,
        request,
        hash: hash.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn log(folder: &std::path::Path, acts: usize) -> Store {
        let store = Store::lead(&folder.join("origin.db")).await.unwrap();
        let mut tx = store.write().await.unwrap();
        sqlx::query(
            "INSERT INTO audit (id, at, by_whom, action, subject) VALUES (1, 1, 'x', 'y', 'z')",
        )
        .execute(&mut *tx)
        .await
        .unwrap();
        sqlx::query("UPDATE audit_head SET number = 1")
            .execute(&mut *tx)
            .await
            .unwrap();
        for number in 0..acts {
            let act = Act::new("hold.set", "shop/production fra")
                .reason(Some("because"))
                .detail(Some(number.to_string()));
            record(&mut tx, &Caller::origin(), act).await.unwrap();
        }
        tx.commit().await.unwrap();
        store
    }

    async fn check(store: &Store, known: Option<&AuditHead>) -> AuditCheck {
        let mut connection = store.reader().acquire().await.unwrap();
        verify(&mut connection, known).await.unwrap()
    }

    async fn forge(store: &Store, statement: &'static str) {
        let mut tx = store.write().await.unwrap();
        sqlx::query(statement).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_chain_that_nobody_touched_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = log(folder.path(), 5).await;
        let whole = check(&store, None).await;
        assert_eq!(
            (whole.entries, whole.unchained, &whole.broken),
            (5, 1, &None)
        );
        let known = whole.head.clone();
        assert_eq!(check(&store, Some(&known)).await.broken, None);
        let mut connection = store.reader().acquire().await.unwrap();
        let page = list(
            &mut connection,
            &Wanted {
                limit: Some(2),
                ..Wanted::default()
            },
        )
        .await
        .unwrap();
        assert_eq!((page.entries[0].number, page.next), (6, Some(5)));
        assert_eq!(page.entries[0].project.as_deref(), Some("shop"));
    }

    #[tokio::test]
    async fn whatever_is_changed_removed_or_put_in_is_found() {
        for (statement, number) in [
            ("UPDATE audit SET reason = 'other' WHERE id = 3", 3),
            ("UPDATE audit SET by_whom = 'ana' WHERE id = 4", 4),
            ("DELETE FROM audit WHERE id = 4", 5),
            ("DELETE FROM audit WHERE id = 6", 6),
            ("DELETE FROM audit WHERE id = 2", 3),
            (
                "INSERT INTO audit (id, at, by_whom, action, subject, hash) VALUES (7, 1, 'x', 'y', 'z', '')",
                7,
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let store = log(folder.path(), 5).await;
            forge(&store, statement).await;
            if number == 7 {
                forge(&store, "UPDATE audit_head SET number = 7").await;
            }
            let broken = check(&store, None).await.broken.unwrap();
            assert_eq!(broken.number, number, "{statement}: {}", broken.what);
        }
    }

    #[tokio::test]
    async fn a_shorter_chain_with_a_forged_head_is_found_by_who_wrote_the_head_down() {
        let folder = tempfile::tempdir().unwrap();
        let store = log(folder.path(), 5).await;
        let known = check(&store, None).await.head;
        forge(&store, "DELETE FROM audit WHERE id = 6").await;
        forge(
            &store,
            "UPDATE audit_head SET number = 5, hash = (SELECT hash FROM audit WHERE id = 5)",
        )
        .await;
        assert_eq!(check(&store, None).await.broken, None);
        let broken = check(&store, Some(&known)).await.broken.unwrap();
        assert!(broken.what.contains("written down"), "{}", broken.what);
    }

    #[test]
    fn only_so_many_refused_acts_are_written_in_a_minute() {
        let at = |minute: u64| Timestamp::from_millis(minute * 60_000);
        let noted = (0..100).filter(|_| may_note_denial(at(7))).count();
        assert_eq!(noted, 60);
        assert!(may_note_denial(at(8)));
    }
}
