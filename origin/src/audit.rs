//! Who changed what, when: one row per change, in the transaction that makes it.

use helix_service::clock;

use crate::auth::Caller;
use crate::store::{StoreError, Tx, millis, text};

/// Notes a change. `subject` is what was changed; `detail` what else a person would ask.
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
    sqlx::query(
        "INSERT INTO audit (at, by_whom, action, subject, detail) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(millis(clock::now()))
    .bind(&caller.name)
    .bind(action)
    .bind(text(subject))
    .bind(detail.map(text))
    .execute(&mut **tx)
    .await?;
    tracing::info!(by = caller.name, action, subject, detail, "changed");
    Ok(())
}
