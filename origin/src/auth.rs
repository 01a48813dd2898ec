//! Tokens: who calls, and what they may do.
//!
//! Invariant: a secret is seen once, when it is made; only its SHA-256 is stored. It is looked up
//! by that hash, so how long a look-up takes says nothing about the secret. A revoked token is
//! refused from the next request on.

use std::io;
use std::path::{Path, PathBuf};

use helix_routing::api::{CreatedToken, NewToken, Role, TokenView};
use helix_routing::id::InvalidId;
use helix_routing::time::Timestamp;
use helix_service::clock;
use helix_service::digest::sha256;
use helix_service::disk::{WriteError, write_secret};
use helix_service::random::{hex16, secret};

use crate::audit::{self, Act};
use crate::store::{Store, StoreError, Tx, millis, time};

/// What every secret starts with, so that scanners for leaked ones can find it.
const PREFIX: &str = "helix_";
/// How exactly the last use is noted: a write per request would be a write too many.
const USED_RESOLUTION_MS: u64 = 60_000;
/// Longest name of a token, in characters.
const MAX_NAME: usize = 100;
/// Longest secret that is looked up, in bytes.
const MAX_SECRET: usize = 256;

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Id of the token.
    pub id: String,
    /// Name of the token.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Id of the request that it made.
    pub request: Option<String>,
}

impl Caller {
    /// Origin itself, for what no person did.
    #[must_use]
    pub fn origin() -> Self {
        Self {
            id: "origin".to_owned(),
            name: "origin".to_owned(),
            role: Role::Operate,
            request: None,
        }
    }
}

/// A token could not be made or found.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Nobody's secret, or a revoked one.
    #[error("the token is not known, or was revoked")]
    Unknown,
    /// The name says nothing, or too much.
    #[error("a token needs a name of 1 to {MAX_NAME} characters without control characters")]
    Name,
    /// There is no such token to revoke.
    #[error("there is no token {id}")]
    Missing {
        /// The id that was asked for.
        id: String,
    },
    /// A token file cannot be read.
    #[error("read the token file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A token file cannot be written.
    #[error("write a token file")]
    Write(#[from] WriteError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Row = (String, String, String, i64, Option<i64>);

/// Finds the caller of a secret, and notes the use.
///
/// # Errors
/// When it is nobody's, or the database fails.
pub async fn authenticate(store: &Store, secret: &str) -> Result<Caller, AuthError> {
    if secret.len() > MAX_SECRET || !secret.starts_with(PREFIX) {
        return Err(AuthError::Unknown);
    }
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, name, role, created, used FROM tokens WHERE secret_hash = $1 AND revoked IS NULL",
    )
    .bind(hash(secret))
    .fetch_optional(store.reader())
    .await
    .map_err(StoreError::from)?;
    let token = view(row.ok_or(AuthError::Unknown)?)?;
    note_use(store, &token);
    Ok(Caller {
        id: token.id,
        name: token.name,
        role: token.role,
        request: None,
    })
}

/// Makes a token.
///
/// # Errors
/// When the name is not legal or the database fails.
pub async fn create(tx: &mut Tx, new: NewToken) -> Result<CreatedToken, AuthError> {
    let token = format!("{PREFIX}{}", secret());
    let view = insert(tx, new, &token).await?;
    Ok(CreatedToken { token, view })
}

/// Every token that is in force, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn list(store: &Store) -> Result<Vec<TokenView>, AuthError> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT id, name, role, created, used FROM tokens WHERE revoked IS NULL ORDER BY created, id")
            .fetch_all(store.reader())
            .await
            .map_err(StoreError::from)?;
    rows.into_iter().map(view).collect()
}

/// Ends a token.
///
/// # Errors
/// When there is none by this id in force, or the database fails.
pub async fn revoke(tx: &mut Tx, id: &str) -> Result<(), AuthError> {
    let revoked = sqlx::query("UPDATE tokens SET revoked = $1 WHERE id = $2 AND revoked IS NULL")
        .bind(millis(clock::now()))
        .bind(id)
        .execute(&mut **tx)
        .await
        .map_err(StoreError::from)?;
    if revoked.rows_affected() == 0 {
        return Err(AuthError::Missing {
            id: id.chars().take(MAX_NAME).collect(),
        });
    }
    Ok(())
}

/// Makes sure that the file at `path` holds a token of `role` that is in force; makes one if it is missing.
///
/// # Errors
/// When the file or the database fails.
pub async fn ensure_file(
    store: &Store,
    path: &Path,
    name: &str,
    role: Role,
) -> Result<(), AuthError> {
    let held = match std::fs::read_to_string(path) {
        Ok(text) => text.trim().to_owned(),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let token = format!("{PREFIX}{}", secret());
            write_secret(path, token.as_bytes())?;
            token
        }
        Err(source) => {
            return Err(AuthError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    if matches!(authenticate(store, &held).await, Ok(caller) if caller.role.includes(role)) {
        return Ok(());
    }
    let mut tx = store.write().await?;
    // The file is the operator's word: a token that was revoked or lesser is what the file says again.
    sqlx::query("DELETE FROM tokens WHERE secret_hash = $1")
        .bind(hash(&held))
        .execute(&mut *tx)
        .await
        .map_err(StoreError::from)?;
    let new = NewToken {
        name: name.to_owned(),
        role,
    };
    let view = insert(&mut tx, new, &held).await?;
    let detail = format!("{name}, role {}, in {}", role.as_str(), path.display());
    let act = Act::new("token.create", view.id).detail(Some(detail));
    audit::record(&mut tx, &Caller::origin(), act).await?;
    tx.commit().await?;
    Ok(())
}

async fn insert(tx: &mut Tx, new: NewToken, secret: &str) -> Result<TokenView, AuthError> {
    let NewToken { name, role } = new;
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME || name.chars().any(char::is_control) {
        return Err(AuthError::Name);
    }
    let view = TokenView {
        id: hex16(),
        name,
        role,
        created: clock::now(),
        used: None,
    };
    sqlx::query(
        "INSERT INTO tokens (id, name, role, secret_hash, created) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&view.id)
    .bind(&view.name)
    .bind(role.as_str())
    .bind(hash(secret))
    .bind(millis(view.created))
    .execute(&mut **tx)
    .await
    .map_err(StoreError::from)?;
    Ok(view)
}

/// Notes the minute of the last use, behind the request's back: it must not wait for the writer.
fn note_use(store: &Store, token: &TokenView) {
    let now = clock::now();
    let noted = token.used.unwrap_or_default();
    if now.as_millis().saturating_sub(noted.as_millis()) < USED_RESOLUTION_MS {
        return;
    }
    let (store, id) = (store.clone(), token.id.clone());
    tokio::spawn(async move {
        if let Err(error) = store_use(&store, &id, now).await {
            tracing::debug!(%error, token = id, "use of a token not noted");
        }
    });
}

async fn store_use(store: &Store, id: &str, now: Timestamp) -> Result<(), StoreError> {
    let minute = now.as_millis() / USED_RESOLUTION_MS * USED_RESOLUTION_MS;
    let mut tx = store.write().await?;
    sqlx::query("UPDATE tokens SET used = $1 WHERE id = $2")
        .bind(millis(Timestamp::from_millis(minute)))
        .bind(id)
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

fn hash(secret: &str) -> String {
    sha256(secret.as_bytes()).hex().to_owned()
}

fn view((id, name, role, created, used): Row) -> Result<TokenView, AuthError> {
    let role = role.parse().map_err(|_| StoreError::Corrupt {
        what: "tokens.role",
    })?;
    Ok(TokenView {
        id,
        name,
        role,
        created: time(created),
        used: used.map(time),
    })
}

impl From<InvalidId> for AuthError {
    fn from(invalid: InvalidId) -> Self {
        Self::Store(StoreError::Illegal(invalid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Place, testing};

    async fn store(folder: &Path) -> Store {
        Store::lead(testing::of(folder).parse::<Place>().unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_token_works_until_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let mut tx = store.write().await.unwrap();
        let new = NewToken {
            name: "ci".to_owned(),
            role: Role::Deploy,
        };
        let created = create(&mut tx, new).await.unwrap();
        tx.commit().await.unwrap();
        let caller = authenticate(&store, &created.token).await.unwrap();
        assert_eq!((caller.name.as_str(), caller.role), ("ci", Role::Deploy));
        assert!(matches!(
            authenticate(&store, "helix_nobody").await,
            Err(AuthError::Unknown)
        ));
        let mut tx = store.write().await.unwrap();
        revoke(&mut tx, &created.view.id).await.unwrap();
        assert!(matches!(
            revoke(&mut tx, &created.view.id).await,
            Err(AuthError::Missing { .. })
        ));
        tx.commit().await.unwrap();
        assert!(matches!(
            authenticate(&store, &created.token).await,
            Err(AuthError::Unknown)
        ));
        assert!(list(&store).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_token_file_is_made_once_and_honoured_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let path = folder.path().join("token");
        for _ in 0..2 {
            ensure_file(&store, &path, "bootstrap", Role::Operate)
                .await
                .unwrap();
            let secret = std::fs::read_to_string(&path).unwrap();
            assert_eq!(
                authenticate(&store, &secret).await.unwrap().role,
                Role::Operate
            );
        }
        assert_eq!(list(&store).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_token_file_gets_the_role_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let path = folder.path().join("token");
        for role in [Role::Read, Role::Edge] {
            ensure_file(&store, &path, "edges", role).await.unwrap();
            let secret = std::fs::read_to_string(&path).unwrap();
            assert_eq!(authenticate(&store, &secret).await.unwrap().role, role);
        }
        assert_eq!(list(&store).await.unwrap().len(), 1);
    }
}
