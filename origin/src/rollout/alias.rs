//! `preview.<project>.<base>`: the alias of the open preview with the highest deployment number settled in every region.

use helix_routing::host::{Host, HostPattern, join, primary};
use helix_routing::id::{Environment, ProjectName, SiteId};

use super::RolloutError;
use crate::feed::records;
use crate::store::{self, StoreError, Tx};

/// Points the alias at the right preview, or at nothing. Called in the transaction that settles or closes one.
///
/// # Errors
/// When the database fails.
pub async fn refresh(tx: &mut Tx, project: &ProjectName, base: &Host) -> Result<(), RolloutError> {
    // A deployment's rollout goes to every region that it did not skip, so settled is settled in all of them.
    let newest: Option<String> = sqlx::query_scalar(
        "SELECT d.site FROM deployments d JOIN sites s ON s.site = d.site JOIN rollouts r ON r.rollout = d.rollout \
         WHERE d.project = $1 AND s.closed IS NULL AND d.site <> $2 AND r.outcome = 'settled' AND d.skipped IS NULL \
         ORDER BY d.number DESC LIMIT 1",
    )
    .bind(project.as_str())
    .bind(SiteId { project: project.clone(), environment: Environment::Production }.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    let site: Option<SiteId> = newest.as_deref().map(store::id).transpose()?;
    let alias = join(project.as_str(), base)
        .and_then(|host| join("preview", &host))
        .map_err(StoreError::from)?;
    records::put_host(tx, &HostPattern::Exact(alias), site.as_ref()).await?;
    Ok(())
}

/// The host of a site under the base domain.
///
/// # Errors
/// When the base domain is too long for the project's name.
pub fn primary_host(site: &SiteId, base: &Host) -> Result<Host, RolloutError> {
    Ok(primary(site, base).map_err(StoreError::from)?)
}
