//! Join tokens: what lets an edge in, once.
//!
//! Invariant: a secret is seen once, when it is made; only its SHA-256 is stored. A use is counted in the transaction that
//! admits an edge, so no race admits one more.

use std::time::Duration;

use helix_routing::edge::join::{
    CreatedJoinToken, DEFAULT_TTL_SECONDS, JoinTokenView, MAX_TTL_SECONDS, MAX_USES, NewJoinToken,
    PREFIX,
};
use helix_routing::id::RegionId;
use helix_routing::time::Timestamp;
use helix_service::clock;
use helix_service::digest::sha256;
use helix_service::random::{hex16, secret};

use super::AdmissionError;
use crate::auth::Caller;
use crate::store::{Store, StoreError, Tx, count, id, millis, text, time};

/// Longest secret that is looked up, in bytes.
const MAX_SECRET: usize = 256;

type Row = (
    String,
    String,
    Option<String>,
    i64,
    i64,
    i64,
    i64,
    String,
    Option<i64>,
);

/// Makes a token.
///
/// # Errors
/// When what it is for cannot be, or the database fails.
pub async fn create(
    tx: &mut Tx,
    new: NewJoinToken,
    regions: &[RegionId],
    caller: &Caller,
) -> Result<CreatedJoinToken, AdmissionError> {
    if !regions.contains(&new.region) {
        return Err(AdmissionError::UnknownRegion(new.region));
    }
    let ttl = new.ttl_seconds.unwrap_or(DEFAULT_TTL_SECONDS);
    if !(1..=MAX_TTL_SECONDS).contains(&ttl) {
        let problem = format!("the time to live is {ttl} s; 1 to {MAX_TTL_SECONDS} s can be had");
        return Err(AdmissionError::Illegal(problem));
    }
    let uses = new.uses.unwrap_or(1);
    if !(1..=MAX_USES).contains(&uses) || (uses > 1 && new.edge.is_some()) {
        let problem = format!(
            "it cannot be used {uses} times: 1 to {MAX_USES}, and once where it names its edge"
        );
        return Err(AdmissionError::Illegal(problem));
    }
    let token = format!("{PREFIX}{}", secret());
    let created = clock::now();
    let view = JoinTokenView {
        id: hex16(),
        region: new.region,
        edge: new.edge,
        uses,
        used: 0,
        created,
        expires: created + Duration::from_secs(ttl),
        by: caller.name.clone(),
    };
    sqlx::query(
        "INSERT INTO join_tokens (id, secret_hash, region, edge, uses, used, created, expires, by_whom) \
         VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8)",
    )
    .bind(&view.id)
    .bind(hash(&token))
    .bind(view.region.as_str())
    .bind(view.edge.as_ref().map(|edge| edge.as_str().to_owned()))
    .bind(i64::from(uses))
    .bind(millis(view.created))
    .bind(millis(view.expires))
    .bind(&view.by)
    .execute(&mut **tx)
    .await?;
    Ok(CreatedJoinToken { token, view })
}

/// Every token that can still be used, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn list(store: &Store) -> Result<Vec<JoinTokenView>, AdmissionError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, region, edge, uses, used, created, expires, by_whom, revoked FROM join_tokens \
         WHERE revoked IS NULL AND used < uses AND expires > $1 ORDER BY created, id",
    )
    .bind(millis(clock::now()))
    .fetch_all(store.reader())
    .await?;
    Ok(rows.into_iter().map(view).collect::<Result<_, _>>()?)
}

/// Ends a token.
///
/// # Errors
/// When there is none by this id, or the database fails.
pub async fn revoke(tx: &mut Tx, id: &str) -> Result<(), AdmissionError> {
    let revoked =
        sqlx::query("UPDATE join_tokens SET revoked = $1 WHERE id = $2 AND revoked IS NULL")
            .bind(millis(clock::now()))
            .bind(text(id))
            .execute(&mut **tx)
            .await?;
    if revoked.rows_affected() == 0 {
        return Err(AdmissionError::NoToken(id.chars().take(100).collect()));
    }
    Ok(())
}

/// Finds the token of a secret, which has not ended at `now`. It may be used up.
pub(super) async fn find(
    tx: &mut Tx,
    secret: &str,
    now: Timestamp,
) -> Result<JoinTokenView, AdmissionError> {
    if secret.len() > MAX_SECRET || !secret.starts_with(PREFIX) {
        return Err(AdmissionError::BadToken);
    }
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, region, edge, uses, used, created, expires, by_whom, revoked FROM join_tokens WHERE secret_hash = $1",
    )
    .bind(hash(secret))
    .fetch_optional(&mut **tx)
    .await?;
    let row = row.ok_or(AdmissionError::BadToken)?;
    let is_revoked = row.8.is_some();
    let view = view(row)?;
    if is_revoked {
        return Err(AdmissionError::RevokedToken);
    }
    if view.expires <= now {
        return Err(AdmissionError::ExpiredToken {
            ago: now.since(view.expires).as_secs(),
        });
    }
    Ok(view)
}

/// Counts a use.
pub(super) async fn consume(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE join_tokens SET used = used + 1 WHERE id = $1")
        .bind(id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn hash(secret: &str) -> String {
    sha256(secret.as_bytes()).hex().to_owned()
}

fn view(row: Row) -> Result<JoinTokenView, StoreError> {
    let (token, region, edge, uses, used, created, expires, by, _) = row;
    let small =
        |value, what| Ok::<_, StoreError>(u32::try_from(count(value, what)?).unwrap_or(u32::MAX));
    Ok(JoinTokenView {
        id: token,
        region: id(&region)?,
        edge: edge.as_deref().map(id).transpose()?,
        uses: small(uses, "join_tokens.uses")?,
        used: small(used, "join_tokens.used")?,
        created: time(created),
        expires: time(expires),
        by,
    })
}
