//! Edges that joined by a token, as SQL holds them, and the accounts of those that are no more.
//!
//! Invariant: an account is in `ended_accounts` from the transaction on that removes its edge, and stays there.

use helix_routing::edge::join::JoinRequest;
use helix_routing::id::{EdgeId, RegionId};
use helix_routing::time::Timestamp;

use super::authority::Issued;
use crate::store::{Store, StoreError, Tx, id, millis};

/// An edge as it is let in.
pub(super) struct Admittance {
    pub(super) edge: EdgeId,
    pub(super) region: RegionId,
    /// Public nkey of its account.
    pub(super) account: String,
    pub(super) issued: Issued,
    /// Id of the token that it reads artifacts with.
    pub(super) read_token: String,
}

/// Who has a name.
pub(super) struct Held {
    pub(super) account: Option<String>,
    pub(super) read_token: Option<String>,
    nats_user: Option<String>,
    join_token: Option<String>,
}

impl Held {
    /// Whether that is who asks, with the token that it was admitted by.
    pub(super) fn is_by(&self, request: &JoinRequest, token: &str) -> bool {
        self.nats_user.as_ref() == Some(&request.nats_user)
            && self.join_token.as_deref() == Some(token)
    }
}

type HeldRow = (
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

/// Who has the name; none where nobody had it, or its edge was removed.
pub(super) async fn holder(tx: &mut Tx, edge: &EdgeId) -> Result<Option<Held>, StoreError> {
    let row: Option<HeldRow> = sqlx::query_as(
        "SELECT account, read_token, nats_user, join_token FROM edges WHERE edge = $1 AND removed IS NULL",
    )
    .bind(edge.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    Ok(
        row.map(|(account, read_token, nats_user, join_token)| Held {
            account,
            read_token,
            nats_user,
            join_token,
        }),
    )
}

/// Writes an edge down.
pub(super) async fn save(
    tx: &mut Tx,
    request: &JoinRequest,
    admittance: &Admittance,
    now: Timestamp,
    token: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO edges \
         (edge, region, url, admitted, joined, account, nats_user, certificate, certificate_until, join_token, read_token) \
         VALUES ($1, $2, $3, 'token', $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (edge) DO UPDATE SET region = excluded.region, url = excluded.url, admitted = 'token', \
         joined = excluded.joined, account = excluded.account, nats_user = excluded.nats_user, \
         certificate = excluded.certificate, certificate_until = excluded.certificate_until, \
         join_token = excluded.join_token, read_token = excluded.read_token, removed = NULL",
    )
    .bind(request.edge.as_str())
    .bind(admittance.region.as_str())
    .bind(&request.url)
    .bind(millis(now))
    .bind(&admittance.account)
    .bind(&request.nats_user)
    .bind(&admittance.issued.serial)
    .bind(millis(admittance.issued.until))
    .bind(token)
    .bind(&admittance.read_token)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends what an edge could show: its account, and the token that it reads artifacts with.
pub(crate) async fn end(tx: &mut Tx, edge: &EdgeId, now: Timestamp) -> Result<(), StoreError> {
    for statement in [
        "INSERT INTO ended_accounts (account, edge, ended) \
         SELECT account, edge, $2 FROM edges WHERE edge = $1 AND account IS NOT NULL ON CONFLICT DO NOTHING",
        "UPDATE tokens SET revoked = $2 WHERE revoked IS NULL AND id = (SELECT read_token FROM edges WHERE edge = $1)",
    ] {
        sqlx::query(statement)
            .bind(edge.as_str())
            .bind(millis(now))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// The accounts of every edge that joined by a token.
pub(super) async fn accounts(store: &Store) -> Result<Vec<(String, EdgeId, RegionId)>, StoreError> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT account, edge, region FROM edges WHERE account IS NOT NULL AND removed IS NULL ORDER BY edge",
    )
    .fetch_all(store.reader())
    .await?;
    rows.into_iter()
        .map(|(account, edge, region)| Ok((account, id(&edge)?, id(&region)?)))
        .collect()
}

/// Whether an account is no more.
pub(super) async fn is_ended(store: &Store, account: &str) -> Result<bool, StoreError> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT account FROM ended_accounts WHERE account = $1")
            .bind(account)
            .fetch_optional(store.reader())
            .await?;
    Ok(found.is_some())
}

/// Every account that is no more, and whose it was.
pub(super) async fn ended(store: &Store) -> Result<Vec<(String, String)>, StoreError> {
    let rows = sqlx::query_as("SELECT account, edge FROM ended_accounts ORDER BY ended, account")
        .fetch_all(store.reader())
        .await?;
    Ok(rows)
}
