//! What a provider is told of builds: the status of a commit, and one comment for each pull request.
//!
//! Invariant: nothing waits for a provider. A change notes that there is something to tell; whoever tells it says how things are by then,
//! so that what changed twice meanwhile is told once, and a provider that was away hears the newest.

use crate::build::Build;
use crate::store::{StoreError, Tx, millis};
use helix_service::clock;

/// Notes that the provider is to be told how a build is.
///
/// # Errors
/// When the database fails.
pub async fn want(tx: &mut Tx, build: &Build) -> Result<(), StoreError> {
    let now = millis(clock::now());
    sqlx::query(
        "INSERT INTO feedback (build, project, wanted, told, attempts, next_at) \
         SELECT $1, project, 1, 0, 0, $2 FROM links WHERE project = $3 AND provider <> 'git' AND api IS NOT NULL AND credential IS NOT NULL \
         ON CONFLICT (build) DO UPDATE SET wanted = feedback.wanted + 1, attempts = 0, next_at = $2",
    )
    .bind(build.id.as_str())
    .bind(now)
    .bind(build.project().as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}
