//! Opening a database: connections with the settings that the rest relies on, and a schema that is up to date.

use std::time::Duration;

use helix_service::tls;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{Connection as _, Executor};

use super::{Connection, Place, Pool, StoreError, migrations, trust};

/// Connections for reading. With SQLite each is a thread with a page cache of about 2 MB, with PostgreSQL a process there.
const READERS: u32 = 3;
/// How long a caller waits for a connection: longer than any of our transactions takes.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take to answer who knocks first.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A writer's log is on disk before a commit returns, and it waits as long for another process's write lock before it fails.
const SQLITE_WRITER: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000";
const SQLITE_READER: &str = "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON";
/// No statement of ours takes as long. A writer that was stopped in the middle of a change loses it, and with it the lock
/// that whoever takes over waits for; a commit is on disk before it returns, whatever the server's default.
const POSTGRES_WRITER: &str = "SET statement_timeout = '30s'; SET lock_timeout = '8s'; \
    SET idle_in_transaction_session_timeout = '8s'; SET synchronous_commit = on; SET client_min_messages = warning";
/// What one transaction reads is of one moment, as SQLite has it anyway.
const POSTGRES_READER: &str = "SET statement_timeout = '30s'; SET default_transaction_read_only = on; \
    SET default_transaction_isolation = 'repeatable read'; \
    SET idle_in_transaction_session_timeout = '60s'; SET client_min_messages = warning";

/// A database with its schema, and nobody who leads yet.
#[derive(Clone, Debug)]
pub struct Opened {
    pub(super) writer: Pool,
    pub(super) reader: Pool,
    /// For the lease alone: it must not wait behind a change.
    pub(super) lease: Pool,
    pub(super) is_shared: bool,
}

impl Opened {
    /// Opens the database and brings its schema up to date. Of several origins that start at a time, one does that.
    ///
    /// # Errors
    /// When it cannot be opened or migrated.
    pub async fn open(place: &Place) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        tls::choose_provider();
        trust::check_files(place)?;
        let open_failed = |source| trust::failed(place, source);
        let writing = options(place, "rwc").map_err(open_failed)?;
        if place.is_shared() {
            // A pool would only say that it waited.
            knock(&writing).await.map_err(open_failed)?;
        }
        let (writer, reader) = match place {
            Place::File(_) => (SQLITE_WRITER, SQLITE_READER),
            Place::Postgres(_) => (POSTGRES_WRITER, POSTGRES_READER),
        };
        let settings = writer;
        let writer = pool(1, settings)
            .connect_with(writing.clone())
            .await
            .map_err(open_failed)?;
        match place {
            Place::File(_) => migrations::FILES.run(&writer).await?,
            Place::Postgres(_) => migrations::postgres().run(&writer).await?,
        }
        let reading = options(place, "ro").map_err(open_failed)?;
        let reader = pool(READERS, reader)
            .connect_with(reading)
            .await
            .map_err(open_failed)?;
        let lease = if place.is_shared() {
            pool(1, settings)
                .connect_with(writing)
                .await
                .map_err(open_failed)?
        } else {
            writer.clone()
        };
        Ok(Self {
            writer,
            reader,
            lease,
            is_shared: place.is_shared(),
        })
    }

    /// Lets running statements end and closes what is open.
    pub async fn close(&self) {
        self.lease.close().await;
        self.reader.close().await;
        self.writer.close().await;
    }
}

pub(super) fn options(place: &Place, mode: &str) -> Result<AnyConnectOptions, sqlx::Error> {
    place.url(mode).parse()
}

/// Connects once and goes again, to hear why it cannot be done.
async fn knock(options: &AnyConnectOptions) -> Result<(), sqlx::Error> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, Connection::connect_with(options));
    match connected.await {
        Ok(connected) => connected?.close().await,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

fn pool(connections: u32, settings: &'static str) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            Box::pin(async move { connection.execute(settings).await.map(drop) })
        })
}
