//! The database as rows, whatever kind it is: read in one transaction, and loaded into an empty schema.
//!
//! This is the seam of backups. Rows are values with names of tables and columns, so what one kind of database wrote another
//! can load; only the lists of tables and columns are asked for in each one's own words.

use futures_util::TryStreamExt as _;
use helix_service::tls;
use serde::{Deserialize, Serialize};
use sqlx::any::{AnyRow, AnyTypeInfoKind};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, ValueRef as _};

use super::{Connection, Place, StoreError, migrations, open, trust};

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Nothing.
    Null,
    /// A whole number.
    Int(i64),
    /// Another number.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A table and its columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns, in the order of each row's values.
    pub columns: Vec<String>,
}

/// What one kind of database is asked in words of its own.
struct Words {
    /// From the first read to the end everything is of one moment, and writers are not held up.
    begin: &'static str,
    /// The tables in the order in which they were made, so that what a row refers to comes before it.
    tables: &'static str,
    columns: &'static str,
    /// Before rows are loaded. What is broken off is thrown away, so it needs no journal.
    loading: &'static str,
}

const SQLITE: Words = Words {
    begin: "BEGIN",
    tables: "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE '_sqlx%' ORDER BY rowid",
    columns: "SELECT name FROM pragma_table_info($1) ORDER BY cid",
    loading: "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF",
};

const POSTGRES: Words = Words {
    begin: "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    tables: "SELECT CAST(relname AS TEXT) FROM pg_class \
        WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND relname NOT LIKE '\\_sqlx%' ORDER BY oid",
    columns: "SELECT CAST(attname AS TEXT) FROM pg_attribute \
        WHERE attrelid = CAST($1 AS TEXT)::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    loading: "SET synchronous_commit = on; SET client_min_messages = warning",
};

/// Columns of PostgreSQL that count by themselves.
const COUNTING: &str = "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT) FROM information_schema.columns \
    WHERE table_schema = current_schema() AND is_identity = 'YES' ORDER BY table_name";

const fn words(place: &Place) -> &'static Words {
    match place {
        Place::File(_) => &SQLITE,
        Place::Postgres(_) => &POSTGRES,
    }
}

async fn connect(place: &Place, mode: &str) -> Result<Connection, StoreError> {
    sqlx::any::install_default_drivers();
    tls::choose_provider();
    trust::check_files(place)?;
    let failed = |source| trust::failed(place, source);
    let options = open::options(place, mode).map_err(failed)?;
    Connection::connect_with(&options).await.map_err(failed)
}

/// A database that is read for a backup, as it was at one moment. Origin may run on it meanwhile.
#[derive(Debug)]
pub struct Dump {
    connection: Connection,
    place: Place,
}

impl Dump {
    /// Opens the database for reading.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn open(place: &Place) -> Result<Self, StoreError> {
        let mut connection = connect(place, "ro").await?;
        if !place.is_shared() {
            connection
                .execute("PRAGMA busy_timeout = 5000; PRAGMA query_only = ON")
                .await?;
        }
        sqlx::query(words(place).begin)
            .execute(&mut connection)
            .await?;
        Ok(Self {
            connection,
            place: place.clone(),
        })
    }

    /// The newest migration that made its schema.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schema(&mut self) -> Result<i64, StoreError> {
        let newest: i64 = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
            .fetch_one(&mut self.connection)
            .await?;
        Ok(newest)
    }

    /// Its tables, without those that keep track of migrations. A table comes after those that its rows refer to.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tables(&mut self) -> Result<Vec<Table>, StoreError> {
        let words = words(&self.place);
        let names: Vec<String> = sqlx::query_scalar(words.tables)
            .fetch_all(&mut self.connection)
            .await?;
        let mut tables = Vec::with_capacity(names.len());
        for name in names {
            let columns: Vec<String> = sqlx::query_scalar(words.columns)
                .bind(&name)
                .fetch_all(&mut self.connection)
                .await?;
            tables.push(Table { name, columns });
        }
        Ok(tables)
    }

    /// Every row of a table, one after the other.
    ///
    /// # Errors
    /// When the database fails, or `each` does.
    pub async fn rows<E: From<StoreError>>(
        &mut self,
        table: &Table,
        mut each: impl FnMut(Vec<Value>) -> Result<(), E>,
    ) -> Result<(), E> {
        // The names are the database's own.
        let query = format!("SELECT {} FROM {}", table.columns.join(", "), table.name);
        let mut rows = sqlx::query(AssertSqlSafe(query)).fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await.map_err(StoreError::from)? {
            let values = (0..table.columns.len()).map(|at| value(&row, at));
            each(values.collect::<Result<_, _>>()?)?;
        }
        Ok(())
    }
}

fn value(row: &AnyRow, at: usize) -> Result<Value, StoreError> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().kind();
    Ok(match kind {
        AnyTypeInfoKind::Null => Value::Null,
        AnyTypeInfoKind::Text => Value::Text(row.try_get_unchecked(at)?),
        AnyTypeInfoKind::Blob => Value::Bytes(row.try_get_unchecked(at)?),
        AnyTypeInfoKind::Real | AnyTypeInfoKind::Double => Value::Real(row.try_get_unchecked(at)?),
        AnyTypeInfoKind::Bool
        | AnyTypeInfoKind::SmallInt
        | AnyTypeInfoKind::Integer
        | AnyTypeInfoKind::BigInt => Value::Int(row.try_get_unchecked(at)?),
    })
}

/// A new database that is filled from a backup, in one transaction.
#[derive(Debug)]
pub struct Load {
    connection: Connection,
    place: Place,
}

impl Load {
    /// The newest migration that this build knows.
    #[must_use]
    pub fn newest_schema() -> i64 {
        migrations::FILES
            .iter()
            .map(|known| known.version)
            .max()
            .unwrap_or_default()
    }

    /// Makes a database with the schema of migration `schema`, and nothing in it. None when an origin has led there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn create(place: &Place, schema: i64) -> Result<Option<Self>, StoreError> {
        let mut connection = connect(place, "rwc").await?;
        connection.execute(words(place).loading).await?;
        migrator(place).run_to(schema, &mut connection).await?;
        sqlx::query("BEGIN").execute(&mut connection).await?;
        let led: i64 = sqlx::query_scalar("SELECT epoch FROM terms WHERE id = 1")
            .fetch_one(&mut connection)
            .await?;
        let place = place.clone();
        Ok((led == 0).then_some(Self { connection, place }))
    }

    /// Empties a table that a migration has put something into.
    ///
    /// # Errors
    /// When there is no such table with these columns, or the database fails.
    pub async fn table(&mut self, table: &Table) -> Result<(), StoreError> {
        check_name(&table.name)?;
        for column in &table.columns {
            check_name(column)?;
        }
        sqlx::query(AssertSqlSafe(format!("DELETE FROM {}", table.name)))
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Adds a row to a table that was named before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn row(&mut self, table: &Table, values: Vec<Value>) -> Result<(), StoreError> {
        // A value that is none has no type, and a database may want one of what is bound.
        let mut bound = 0;
        let places: Vec<String> = values
            .iter()
            .map(|value| match value {
                Value::Null => "NULL".to_owned(),
                Value::Int(_) | Value::Real(_) | Value::Text(_) | Value::Bytes(_) => {
                    bound += 1;
                    format!("${bound}")
                }
            })
            .collect();
        let insert = format!(
            "INSERT INTO {} ({}) VALUES ({})",
            table.name,
            table.columns.join(", "),
            places.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(insert));
        for value in values {
            query = match value {
                Value::Null => query,
                Value::Int(number) => query.bind(number),
                Value::Real(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
                Value::Bytes(bytes) => query.bind(bytes),
            };
        }
        query.execute(&mut self.connection).await?;
        Ok(())
    }

    /// What is loaded so far, for whoever has to look at it or add to it before it counts.
    pub const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Makes all of it durable at once, and brings the schema up to this build.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        if self.place.is_shared() {
            self.count_on().await?;
        }
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        migrator(&self.place).run(&mut self.connection).await?;
        self.connection.close().await?;
        Ok(())
    }

    /// Columns that count by themselves go on behind what was loaded.
    async fn count_on(&mut self) -> Result<(), StoreError> {
        let counting: Vec<(String, String)> = sqlx::query_as(COUNTING)
            .fetch_all(&mut self.connection)
            .await?;
        for (table, column) in counting {
            check_name(&table)?;
            check_name(&column)?;
            let set = format!(
                "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), \
                 (SELECT COALESCE(MAX({column}), 0) + 1 FROM {table}), false)"
            );
            sqlx::query(AssertSqlSafe(set))
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }
}

fn migrator(place: &Place) -> Migrator {
    match place {
        Place::File(_) => Migrator {
            migrations: migrations::FILES.migrations.clone(),
            ..Migrator::DEFAULT
        },
        Place::Postgres(_) => migrations::postgres(),
    }
}

/// Names go into statements as they are; a backup that was opened is ours, and this costs nothing.
fn check_name(name: &str) -> Result<(), StoreError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.is_empty() && name.bytes().all(is_plain) {
        Ok(())
    } else {
        Err(StoreError::Corrupt {
            what: "the name of a table or column of the backup",
        })
    }
}
