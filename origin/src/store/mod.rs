//! The record: SQL, through one writer and a few readers.
//!
//! Invariant: every change is made in a [`Tx`], which holds the database's write lock and has
//! checked that the term is still this origin's, so an origin that lost the lead cannot change
//! anything. It knows no table but `terms`: the statements live beside the code that means them.

pub mod dump;

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use helix_routing::id::{Epoch, InvalidId};
use helix_routing::time::Timestamp;
use sqlx::Transaction;
use sqlx::pool::PoolConnection;
use tokio::sync::{Notify, watch};

#[cfg(test)]
mod early;
pub mod lease;
mod migrations;
mod open;
mod place;
mod statement;
#[cfg(test)]
#[path = "../../tests/place/mod.rs"]
pub(crate) mod testing;
mod trust;

use lease::StandBy;
pub use open::Opened;
pub use place::{IllegalPlace, Place};
pub use statement::Statement;

/// The kind of database. Statements elsewhere name it, its connections and its pools by these names only.
pub type Database = sqlx::Any;
/// One connection, for reading or inside of a [`Tx`].
pub type Connection = sqlx::AnyConnection;
/// Connections that are handed out one by one.
pub type Pool = sqlx::AnyPool;

/// States of PostgreSQL that pass: connections that broke or are not to be had, a server that starts or stops, what
/// took too long or waited too long for a lock, and a server that has become a replica.
const PASSING: [&str; 14] = [
    "08000", "08001", "08003", "08004", "08006", "25006", "25P03", "40001", "40P01", "53300",
    "55P03", "57014", "57P01", "57P02",
];
/// The server starts.
const STARTING: &str = "57P03";

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error("open the database {place}")]
    Open {
        /// Where.
        place: Box<Place>,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Its server is not spoken to over TLS as the URL asks.
    #[error(
        "speak TLS with the server of the database {place}: sslrootcert=FILE in the URL names the authority that signed its \
         certificate, and the host is the name that this is for"
    )]
    Untrusted {
        /// Where.
        place: Box<Place>,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A file of TLS that its URL names cannot be read.
    #[error("read {}, which the URL of the database {place} names", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Box<Place>,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The schema could not be brought up to date.
    #[error("migrate the database")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// Another origin has taken the lead. This one must end.
    #[error("write to the database in term {ours}: another origin leads in term {theirs}")]
    Fenced {
        /// This origin's term.
        ours: Epoch,
        /// The term found.
        theirs: Epoch,
    },
    /// A statement failed.
    #[error("query the database")]
    Sql(#[from] sqlx::Error),
    /// A column holds what this build cannot have written.
    #[error("read a value from the database")]
    Illegal(#[from] InvalidId),
    /// A column holds a number that is out of range, or text that is not what it should be.
    #[error("read {what} from the database: illegal value")]
    Corrupt {
        /// The column.
        what: &'static str,
    },
}

impl StoreError {
    /// Whether the database is away for now, and the same may go well a little later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Sql(error) | Self::Open { source: error, .. } => is_passing(error),
            Self::Migrate(error) => match error {
                sqlx::migrate::MigrateError::Execute(error)
                | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => is_passing(error),
                _ => false,
            },
            Self::Fenced { .. }
            | Self::Untrusted { .. }
            | Self::TlsFile { .. }
            | Self::Illegal(_)
            | Self::Corrupt { .. } => false,
        }
    }
}

/// Whether an error or cause of one is a database that is away for now.
#[must_use]
pub fn is_away(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref().is_some_and(is_passing)
}

fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(refused) => refused
            .code()
            .is_some_and(|code| code == STARTING || PASSING.contains(&&*code)),
        _ => false,
    }
}

/// The database, as the origin that leads has it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    opened: Opened,
    epoch: Epoch,
    /// Where others reach the origin that leads, where there are others.
    address: Option<Arc<str>>,
    committed: Arc<Notify>,
    fenced: watch::Sender<bool>,
    standbys: watch::Sender<Arc<[StandBy]>>,
}

impl Store {
    /// Opens the database, brings its schema up to date and takes the lead: the term rises by one.
    ///
    /// # Errors
    /// When it cannot be opened, migrated or written.
    pub async fn lead(place: impl Into<Place>) -> Result<Self, StoreError> {
        let opened = Opened::open(&place.into()).await?;
        let epoch = raise_term(&opened).await?;
        Ok(Self::leading(opened, epoch, None))
    }

    fn leading(opened: Opened, epoch: Epoch, address: Option<&str>) -> Self {
        tracing::info!(epoch = epoch.0, "leading");
        Self {
            opened,
            epoch,
            address: address.map(Arc::from),
            committed: Arc::default(),
            fenced: watch::Sender::new(false),
            standbys: watch::Sender::new(Arc::default()),
        }
    }

    /// Whether other origins may have this database too.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.opened.is_shared
    }

    /// Where others reach this origin, where there are others.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// The origins that stand by.
    #[must_use]
    pub fn standbys(&self) -> Arc<[StandBy]> {
        Arc::clone(&self.standbys.borrow())
    }

    /// This origin's term.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Connections for statements that change nothing.
    #[must_use]
    pub const fn reader(&self) -> &Pool {
        &self.opened.reader
    }

    /// One of the connections for statements that change nothing; waits for one.
    ///
    /// # Errors
    /// When the database fails, or none is free in time.
    pub async fn read(&self) -> Result<PoolConnection<Database>, StoreError> {
        Ok(self.opened.reader.acquire().await?)
    }

    /// Everything that is read here is of one moment, whatever is committed meanwhile.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn snapshot(&self) -> Result<Transaction<'static, Database>, StoreError> {
        Ok(self.opened.reader.begin().await?)
    }

    /// Begins a change. Waits for the one before to end: there is one writer.
    ///
    /// # Errors
    /// When another origin leads, or the database fails.
    pub async fn write(&self) -> Result<Tx, StoreError> {
        let (inner, theirs) = begin(&self.opened).await?;
        if theirs != self.epoch {
            self.fenced.send_replace(true);
            return Err(StoreError::Fenced {
                ours: self.epoch,
                theirs,
            });
        }
        Ok(Tx {
            inner,
            epoch: self.epoch,
            committed: Arc::clone(&self.committed),
        })
    }

    /// Notes that `term` was seen, which is not below this origin's: it no longer leads, and the next start is above.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rise_to(&self, term: Epoch) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE terms SET epoch = $1 WHERE id = 1 AND epoch <= $1")
            .bind(number(term.0))
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    /// Leads on, in the term after the one that is stored: that may have risen by more than one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lead_anew(self) -> Result<Self, StoreError> {
        let epoch = raise_term(&self.opened).await?;
        Ok(Self::leading(self.opened, epoch, self.address.as_deref()))
    }

    /// Notified after every commit.
    #[must_use]
    pub fn committed(&self) -> Arc<Notify> {
        Arc::clone(&self.committed)
    }

    /// Ends when another origin is found to lead, by a write here or by a call of [`Store::fence`].
    pub async fn fenced(&self) {
        let mut fenced = self.fenced.subscribe();
        // The sender lives as long as this store, so the wait ends only by a fence.
        let _ = fenced.wait_for(|fenced| *fenced).await;
    }

    /// Says that another origin was found to lead by other means than SQL.
    pub fn fence(&self) {
        self.fenced.send_replace(true);
    }

    /// Lets running statements end and closes what is open.
    pub async fn close(&self) {
        self.opened.close().await;
    }
}

/// A change in the making; dropped without [`Tx::commit`], nothing happened.
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Database>,
    epoch: Epoch,
    committed: Arc<Notify>,
}

impl Tx {
    /// The term this change is made in.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Makes the change durable and wakes who waits for one.
    ///
    /// # Errors
    /// When the database fails; then nothing was changed.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.inner.commit().await?;
        self.committed.notify_waiters();
        // Kept for a waiter that is busy right now, so no commit goes unseen.
        self.committed.notify_one();
        Ok(())
    }
}

impl Deref for Tx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.inner
    }
}

/// Reads a name or id from its column.
///
/// # Errors
/// When the column holds no legal one.
pub fn id<T: FromStr<Err = InvalidId>>(text: &str) -> Result<T, StoreError> {
    Ok(text.parse()?)
}

/// What somebody wrote, or a server answered, as a column can hold it: PostgreSQL's texts have no NUL.
#[must_use]
pub fn text(written: &str) -> String {
    written.replace('\0', "\u{fffd}")
}

/// Reads a time from its column.
#[must_use]
pub fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A time as its column holds it.
#[must_use]
pub fn millis(at: Timestamp) -> i64 {
    number(at.as_millis())
}

/// A count as its column holds it; one beyond 63 bits cannot arise.
#[must_use]
pub fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a count from its column.
///
/// # Errors
/// When it is negative.
pub fn count(value: i64, what: &'static str) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Corrupt { what })
}

/// Begins a change with the database's one write lock, so the term cannot rise between this look at it and the commit: with
/// SQLite the lock is the file's, with PostgreSQL that of the term's row. Since every change takes it first, and none
/// takes another before, no two can wait for each other or have to be repeated.
async fn begin(opened: &Opened) -> Result<(Transaction<'static, Database>, Epoch), StoreError> {
    let (statement, term) = if opened.is_shared {
        ("BEGIN", "SELECT epoch FROM terms WHERE id = 1 FOR UPDATE")
    } else {
        ("BEGIN IMMEDIATE", "SELECT epoch FROM terms WHERE id = 1")
    };
    let mut inner = opened.writer.begin_with(statement).await?;
    let epoch: i64 = sqlx::query_scalar(term).fetch_one(&mut *inner).await?;
    Ok((inner, Epoch(count(epoch, "terms.epoch")?)))
}

async fn raise_term(opened: &Opened) -> Result<Epoch, StoreError> {
    let (mut tx, before) = begin(opened).await?;
    sqlx::query("UPDATE terms SET epoch = epoch + 1 WHERE id = 1")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(before.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of each kind that this machine has.
    fn places(folder: &tempfile::TempDir) -> Vec<Place> {
        let file = Place::from(&folder.path().join("origin.db"));
        let server = testing::server().map(|server| server.database().parse().unwrap());
        std::iter::once(file).chain(server).collect()
    }

    #[tokio::test]
    async fn a_later_origin_fences_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder) {
            let first = Store::lead(&place).await.unwrap();
            first.write().await.unwrap().commit().await.unwrap();
            let second = Store::lead(&place).await.unwrap();
            assert_eq!(second.epoch(), first.epoch().next());
            assert!(matches!(
                first.write().await,
                Err(StoreError::Fenced { .. })
            ));
            first.fenced().await;
            second.write().await.unwrap().commit().await.unwrap();
        }
    }

    async fn projects(connection: &mut Connection) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM projects")
            .fetch_one(connection)
            .await
            .unwrap()
    }

    async fn add_project(tx: &mut Tx, name: &str) {
        sqlx::query("INSERT INTO projects (project, created) VALUES ($1, $2)")
            .bind(name)
            .bind(1_i64)
            .execute(&mut **tx)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_dropped_change_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder) {
            let store = Store::lead(&place).await.unwrap();
            let mut tx = store.write().await.unwrap();
            add_project(&mut tx, "shop").await;
            drop(tx);
            let mut tx = store.write().await.unwrap();
            assert_eq!(projects(&mut tx).await, 0);
            tx.commit().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_snapshot_stays_what_it_was_when_it_was_first_read() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder) {
            let store = Store::lead(&place).await.unwrap();
            let mut snapshot = store.snapshot().await.unwrap();
            assert_eq!(projects(&mut snapshot).await, 0);
            let mut tx = store.write().await.unwrap();
            add_project(&mut tx, "shop").await;
            tx.commit().await.unwrap();
            assert_eq!(projects(&mut snapshot).await, 0, "{place}");
            drop(snapshot);
            assert_eq!(projects(&mut store.snapshot().await.unwrap()).await, 1);
        }
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder) {
            let store = Store::lead(&place).await.unwrap();
            let written = sqlx::query("UPDATE terms SET epoch = 9")
                .execute(store.reader())
                .await;
            assert!(written.is_err(), "{place}");
        }
    }

    #[tokio::test]
    async fn values_of_every_kind_come_back_as_they_were() {
        type Row = (String, i64, Vec<u8>, Option<i64>, Option<String>);
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder) {
            let store = Store::lead(&place).await.unwrap();
            let mut tx = store.write().await.unwrap();
            let body: Vec<u8> = (0..=255).collect();
            add_project(&mut tx, &text("a\0b")).await;
            for (key, removed) in [
                ("B", Some(i64::MAX)),
                ("a", None),
                ("a-b", Some(-1)),
                ("ab", None),
            ] {
                sqlx::query("INSERT INTO records (stream, record_key, generation, epoch, body, removed) VALUES ($1, $2, $3, $4, $5, $6)")
                    .bind("KV_g")
                    .bind(key)
                    .bind(i64::MIN)
                    .bind(0_i64)
                    .bind(&body[..])
                    .bind(removed)
                    .execute(&mut *tx)
                    .await
                    .unwrap();
            }
            tx.commit().await.unwrap();
            let rows: Vec<Row> = sqlx::query_as("SELECT record_key, generation, body, removed, CAST(NULL AS TEXT) FROM records ORDER BY record_key")
                .fetch_all(store.reader())
                .await
                .unwrap();
            let keys: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
            assert_eq!(keys, ["B", "a", "a-b", "ab"], "ordered by bytes: {place}");
            assert!(
                rows.iter()
                    .all(|row| row.1 == i64::MIN && row.2 == body && row.4.is_none())
            );
            assert_eq!(rows[0].3, Some(i64::MAX));
            assert_eq!(rows[1].3, None);
        }
    }

    #[tokio::test]
    async fn origins_that_start_at_a_time_make_one_schema_and_two_terms() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder).into_iter().filter(Place::is_shared) {
            let (one, other) = tokio::join!(Store::lead(&place), Store::lead(&place));
            let mut terms = [one.unwrap().epoch().0, other.unwrap().epoch().0];
            terms.sort_unstable();
            assert_eq!(terms, [1, 2]);
        }
    }

    #[tokio::test]
    async fn an_address_that_leads_nowhere_is_said_without_its_password() {
        let place: Place = "postgres://helix:s3cret@127.0.0.1:1/origin"
            .parse()
            .unwrap();
        let error = Store::lead(&place).await.unwrap_err();
        assert!(error.is_passing(), "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("127.0.0.1:1/origin") && !text.contains("s3cret"),
            "{text}"
        );
    }
}
