//! The record: SQL, through one writer and a few readers.
//!
//! Invariant: every change is made in a [`Tx`], which holds the database's write lock and has
//! checked that the term is still this origin's, so an origin that lost the lead cannot change
//! anything. It knows no table but `terms`: the statements live beside the code that means them.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use helix_routing::id::{Epoch, InvalidId};
use helix_routing::time::Timestamp;
use sqlx::Transaction;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{Notify, watch};

/// Connections for reading; each is a thread with a page cache of about 2 MB.
const READERS: u32 = 3;
/// How long a statement waits for another process's write lock before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection: longer than any of our transactions takes.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The kind of database. Statements elsewhere name it, its connections and its pools by these names only.
pub type Database = sqlx::Sqlite;
/// One connection, for reading or inside of a [`Tx`].
pub type Connection = sqlx::SqliteConnection;
/// Connections that are handed out one by one.
pub type Pool = sqlx::SqlitePool;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("open the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
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

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Pool,
    reader: Pool,
    epoch: Epoch,
    committed: Arc<Notify>,
    fenced: watch::Sender<bool>,
}

impl Store {
    /// Opens the database, brings its schema up to date and takes the lead: the term rises by one.
    ///
    /// # Errors
    /// When the file cannot be opened, migrated or written.
    pub async fn lead(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let open_failed = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let writer = pool(1)
            .connect_with(options.clone())
            .await
            .map_err(open_failed)?;
        MIGRATIONS.run(&writer).await?;
        let reader = pool(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(open_failed)?;
        let epoch = raise_term(&writer).await?;
        tracing::info!(epoch = epoch.0, "leading");
        Ok(Self {
            writer,
            reader,
            epoch,
            committed: Arc::default(),
            fenced: watch::Sender::new(false),
        })
    }

    /// This origin's term.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Connections for statements that change nothing.
    #[must_use]
    pub const fn reader(&self) -> &Pool {
        &self.reader
    }

    /// Begins a change. Waits for the one before to end: there is one writer.
    ///
    /// # Errors
    /// When another origin leads, or the database fails.
    pub async fn write(&self) -> Result<Tx, StoreError> {
        // IMMEDIATE takes the write lock now, so the term cannot change between this check and the commit.
        let mut inner = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let theirs = read_term(&mut inner).await?;
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

    /// Lets running statements end and closes the file.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
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

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
}

async fn raise_term(writer: &Pool) -> Result<Epoch, StoreError> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("UPDATE terms SET epoch = epoch + 1 WHERE id = 1")
        .execute(&mut *tx)
        .await?;
    let epoch = read_term(&mut tx).await?;
    tx.commit().await?;
    Ok(epoch)
}

async fn read_term(connection: &mut Connection) -> Result<Epoch, StoreError> {
    let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM terms WHERE id = 1")
        .fetch_one(connection)
        .await?;
    Ok(Epoch(count(epoch, "terms.epoch")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_origin_fences_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origin.db");
        let first = Store::lead(&path).await.unwrap();
        first.write().await.unwrap().commit().await.unwrap();
        let second = Store::lead(&path).await.unwrap();
        assert_eq!(second.epoch(), first.epoch().next());
        assert!(matches!(
            first.write().await,
            Err(StoreError::Fenced { .. })
        ));
        first.fenced().await;
        second.write().await.unwrap().commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_change_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lead(&folder.path().join("origin.db")).await.unwrap();
        let mut tx = store.write().await.unwrap();
        sqlx::query("INSERT INTO projects (project, created) VALUES ($1, $2)")
            .bind("shop")
            .bind(1)
            .execute(&mut *tx)
            .await
            .unwrap();
        drop(tx);
        let mut tx = store.write().await.unwrap();
        let projects: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM projects")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(projects, 0);
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lead(&folder.path().join("origin.db")).await.unwrap();
        let written = sqlx::query("UPDATE terms SET epoch = 9")
            .execute(store.reader())
            .await;
        assert!(written.is_err());
    }
}
