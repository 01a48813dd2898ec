//! What edges sign visitors' cookies with: made once, and the same for every edge.
//!
//! It is no part of a record: those are kept in more places than a secret should be. Who knows it can choose which of two
//! releases they are shown. Passes of protected sites are signed with it and with what their records hold, so that neither alone
//! lets anybody in.

use helix_routing::time::Timestamp;
use helix_routing::visitor::VisitorKey;
use helix_service::{clock, random};

use crate::store::{self, Store, StoreError};

/// The key; made now, if there is none.
///
/// # Errors
/// When the database fails.
pub async fn current(store: &Store) -> Result<VisitorKey, StoreError> {
    if let Some(secret) = held(store).await? {
        return Ok(VisitorKey { secret });
    }
    let now: Timestamp = clock::now();
    let mut tx = store.write().await?;
    // Whoever came first has made it.
    sqlx::query(
        "INSERT INTO visitor_keys (id, secret, created) VALUES ('1', $1, $2) ON CONFLICT (id) DO NOTHING",
    )
    .bind(random::secret())
    .bind(store::millis(now))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    let secret = held(store).await?;
    let secret = secret.ok_or(StoreError::Corrupt {
        what: "visitor_keys",
    })?;
    Ok(VisitorKey { secret })
}

async fn held(store: &Store) -> Result<Option<String>, StoreError> {
    Ok(
        sqlx::query_scalar("SELECT secret FROM visitor_keys WHERE id = '1'")
            .fetch_optional(store.reader())
            .await?,
    )
}
