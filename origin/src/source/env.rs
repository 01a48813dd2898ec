//! Variables of a project: immutable revisions for production and for previews.
//!
//! Invariant: a revision never changes, and names a version of each value, which never changes either. Every value is sealed, for its
//! project, kind, name and version; what was set as a secret is given to builds and shown to nobody.

use std::collections::BTreeMap;

use helix_routing::api::{
    BuildVariable, EnvKind, EnvView, MAX_ENV_BYTES, MAX_ENV_NAME_BYTES, MAX_ENV_NAMES, NewVariable,
    VariableView,
};
use helix_routing::id::ProjectName;
use helix_service::clock;

use super::seal::{SealError, SealKey};
use crate::auth::Caller;
use crate::store::{Connection, StoreError, Tx, count, millis, number, time};

/// Names that decide how programs run, not what they are told; builds set them themselves.
const RESERVED: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "SHELL",
    "PWD",
    "IFS",
    "ENV",
    "BASH_ENV",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "TMPDIR",
];
/// What origin and builds say of themselves.
const RESERVED_PREFIX: &str = "HELIX_";

/// A variable cannot be set or read.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// The name cannot be.
    #[error(
        "a variable's name is 1 to {MAX_ENV_NAME_BYTES} of A-Z, a-z, 0-9 and _, not starting with a digit; {RESERVED_PREFIX}* and names that decide how programs run are reserved"
    )]
    Name,
    /// The value cannot be.
    #[error("a variable's value has no NUL")]
    Value,
    /// There is too much.
    #[error(
        "variables of one kind have {MAX_ENV_NAMES} names and {MAX_ENV_BYTES} bytes at most, names and values together"
    )]
    TooLarge,
    /// There is no such variable.
    #[error("{project} has no variable {name} for {}", .kind.name())]
    Unknown {
        /// The project.
        project: ProjectName,
        /// Of which kind.
        kind: EnvKind,
        /// The name.
        name: String,
    },
    /// A value cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for EnvError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// The newest revision of a kind; 0 before the first.
///
/// # Errors
/// When the database fails.
pub async fn newest(
    connection: &mut Connection,
    project: &ProjectName,
    kind: EnvKind,
) -> Result<u64, StoreError> {
    let newest: i64 = sqlx::query_scalar(
        "SELECT COALESCE(MAX(revision), 0) FROM env_revisions WHERE project = $1 AND kind = $2",
    )
    .bind(project.as_str())
    .bind(kind.name())
    .fetch_one(connection)
    .await?;
    count(newest, "env_revisions.revision")
}

/// The newest revision of a kind, without the values of secrets.
///
/// # Errors
/// When a value does not open, or the database fails.
pub async fn view(
    connection: &mut Connection,
    key: &SealKey,
    project: &ProjectName,
    kind: EnvKind,
) -> Result<EnvView, EnvError> {
    let revision = newest(connection, project, kind).await?;
    let rows = rows(connection, project, kind, revision).await?;
    let mut variables = Vec::with_capacity(rows.len());
    for row in rows {
        let is_secret = row.secret != 0;
        let value = if is_secret {
            None
        } else {
            Some(open(key, project, kind, &row)?)
        };
        variables.push(VariableView {
            value,
            secret: is_secret,
            version: count(row.version, "env_values.version")?,
            set: time(row.created),
            by: row.by_whom,
            name: row.name,
        });
    }
    Ok(EnvView {
        project: project.clone(),
        kind,
        revision,
        variables,
    })
}

/// What a build is told: a revision's variables, and its secrets only if it may have them.
///
/// # Errors
/// When a value does not open, or the database fails.
pub async fn told(
    connection: &mut Connection,
    key: &SealKey,
    (project, kind): (&ProjectName, EnvKind),
    revision: u64,
    with_secrets: bool,
) -> Result<BTreeMap<String, BuildVariable>, EnvError> {
    let rows = rows(connection, project, kind, revision).await?;
    let mut told = BTreeMap::new();
    for row in rows
        .into_iter()
        .filter(|row| with_secrets || row.secret == 0)
    {
        let value = open(key, project, kind, &row)?;
        let secret = row.secret != 0;
        told.insert(row.name, BuildVariable { value, secret });
    }
    Ok(told)
}

/// Sets a variable: a new revision with a new version of its value.
///
/// # Errors
/// When name or value cannot be, there is too much, or the database fails.
pub async fn set(
    tx: &mut Tx,
    key: &SealKey,
    caller: &Caller,
    project: &ProjectName,
    (name, new): (&str, &NewVariable),
) -> Result<(), EnvError> {
    check_name(name)?;
    if new.value.contains('\0') {
        return Err(EnvError::Value);
    }
    let kind = new.kind;
    let revision = newest(tx, project, kind).await?;
    let mut members = rows(tx, project, kind, revision).await?;
    members.retain(|row| row.name != name);
    let others: usize = members
        .iter()
        .map(|row| row.name.len() + usize::try_from(row.bytes).unwrap_or(MAX_ENV_BYTES))
        .sum();
    if members.len() >= MAX_ENV_NAMES || others + name.len() + new.value.len() > MAX_ENV_BYTES {
        return Err(EnvError::TooLarge);
    }
    let last: i64 = sqlx::query_scalar(
        "SELECT COALESCE(MAX(version), 0) FROM env_values WHERE project = $1 AND kind = $2 AND name = $3",
    )
    .bind(project.as_str())
    .bind(kind.name())
    .bind(name)
    .fetch_one(&mut **tx)
    .await?;
    let row = Row {
        name: name.to_owned(),
        version: last + 1,
        secret: i64::from(new.secret),
        sealed: key.seal(&purpose(project, kind, name, last + 1), &new.value)?,
        bytes: number(new.value.len() as u64),
        created: millis(clock::now()),
        by_whom: caller.name.clone(),
    };
    sqlx::query(
        "INSERT INTO env_values (project, kind, name, version, secret, sealed, bytes, created, by_whom) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(project.as_str())
    .bind(kind.name())
    .bind(&row.name)
    .bind(row.version)
    .bind(row.secret)
    .bind(&row.sealed)
    .bind(row.bytes)
    .bind(row.created)
    .bind(&row.by_whom)
    .execute(&mut **tx)
    .await?;
    members.push(row);
    revise(tx, caller, project, kind, &members).await
}

/// Removes a variable: a new revision without it.
///
/// # Errors
/// When there is none, or the database fails.
pub async fn unset(
    tx: &mut Tx,
    caller: &Caller,
    project: &ProjectName,
    kind: EnvKind,
    name: &str,
) -> Result<(), EnvError> {
    let revision = newest(tx, project, kind).await?;
    let mut members = rows(tx, project, kind, revision).await?;
    let there = members.len();
    members.retain(|row| row.name != name);
    if members.len() == there {
        return Err(EnvError::Unknown {
            project: project.clone(),
            kind,
            name: name.chars().take(MAX_ENV_NAME_BYTES).collect(),
        });
    }
    revise(tx, caller, project, kind, &members).await
}

#[derive(sqlx::FromRow)]
struct Row {
    name: String,
    version: i64,
    secret: i64,
    sealed: String,
    bytes: i64,
    created: i64,
    by_whom: String,
}

async fn rows(
    connection: &mut Connection,
    project: &ProjectName,
    kind: EnvKind,
    revision: u64,
) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT v.name, v.version, v.secret, v.sealed, v.bytes, v.created, v.by_whom FROM env_members m \
         JOIN env_values v ON v.project = m.project AND v.kind = m.kind AND v.name = m.name AND v.version = m.version \
         WHERE m.project = $1 AND m.kind = $2 AND m.revision = $3 ORDER BY v.name",
    )
    .bind(project.as_str())
    .bind(kind.name())
    .bind(number(revision))
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

async fn revise(
    tx: &mut Tx,
    caller: &Caller,
    project: &ProjectName,
    kind: EnvKind,
    members: &[Row],
) -> Result<(), EnvError> {
    let revision = number(newest(tx, project, kind).await? + 1);
    sqlx::query("INSERT INTO env_revisions (project, kind, revision, created, by_whom) VALUES ($1, $2, $3, $4, $5)")
        .bind(project.as_str())
        .bind(kind.name())
        .bind(revision)
        .bind(millis(clock::now()))
        .bind(&caller.name)
        .execute(&mut **tx)
        .await?;
    for member in members {
        sqlx::query("INSERT INTO env_members (project, kind, revision, name, version) VALUES ($1, $2, $3, $4, $5)")
            .bind(project.as_str())
            .bind(kind.name())
            .bind(revision)
            .bind(&member.name)
            .bind(member.version)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

fn open(
    key: &SealKey,
    project: &ProjectName,
    kind: EnvKind,
    row: &Row,
) -> Result<String, SealError> {
    key.unseal(&purpose(project, kind, &row.name, row.version), &row.sealed)
}

fn purpose(project: &ProjectName, kind: EnvKind, name: &str, version: i64) -> String {
    format!("{project}|{}|{name}|{version}", kind.name())
}

fn check_name(name: &str) -> Result<(), EnvError> {
    let legal = (1..=MAX_ENV_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.as_bytes()[0].is_ascii_digit()
        && !name.starts_with(RESERVED_PREFIX)
        && !RESERVED.contains(&name);
    if legal { Ok(()) } else { Err(EnvError::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_a_shell() {
        for name in ["A", "_a1", "NODE_ENV", "api_key"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "1A",
            "A-B",
            "A B",
            "\u{c4}",
            "PATH",
            "LD_PRELOAD",
            "HELIX_BUILD",
            "A=B",
            &"A".repeat(129),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
