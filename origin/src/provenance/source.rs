//! Where a release comes from, as far as SQL knows: of a build that is deployed now, and of releases that were deployed before.

use helix_routing::id::{Digest, ReleaseId, SiteId};
use helix_routing::provenance::{Built, Checkout, LogDigest, Promoted, Source};
use helix_service::digest::Sha256;

use super::AttestError;
use crate::build::{self, Build, BuildError};
use crate::store::{Connection, StoreError, id, number};

/// Who is named where nobody is known: a release that was made and never deployed.
const NOBODY: &str = "unknown";

/// A release that a build has made.
///
/// # Errors
/// When the database fails.
pub(crate) async fn of_build(
    connection: &mut Connection,
    build: &Build,
) -> Result<Source, StoreError> {
    let settings = &build.wanted.settings;
    Ok(Source::Build(Built {
        of: checkout(build),
        trust: build.wanted.trust,
        root: settings.root.clone(),
        command: settings.build.clone(),
        build: build.id.clone(),
        log: log(connection, build).await?,
    }))
}

/// What a build has checked out.
fn checkout(build: &Build) -> Checkout {
    let wanted = &build.wanted;
    let reference = wanted.reference.clone();
    Checkout {
        repository: wanted.url.clone(),
        reference: reference.unwrap_or_else(|| wanted.commit.to_string()),
        commit: wanted.commit.clone(),
    }
}

/// What it has printed so far; none before the first line, and once the log is no longer kept.
async fn log(connection: &mut Connection, build: &Build) -> Result<Option<LogDigest>, StoreError> {
    let lines: Vec<String> = sqlx::query_scalar(
        "SELECT line FROM build_lines WHERE build = $1 AND attempt = $2 ORDER BY seq",
    )
    .bind(build.id.as_str())
    .bind(number(build.attempts))
    .fetch_all(connection)
    .await?;
    let mut sum = Sha256::new();
    for line in &lines {
        sum.update(line.as_bytes());
        sum.update(b"\n");
    }
    let digest = sum.finish();
    Ok((!lines.is_empty()).then_some(LogDigest {
        digest,
        lines: lines.len() as u64,
    }))
}

/// A preview's release that goes to production on somebody's word; none when it is not known.
///
/// # Errors
/// When what is known of it cannot be read.
pub(crate) async fn promoted(
    connection: &mut Connection,
    (from, release): (&SiteId, &ReleaseId),
    (by, reason): (&str, &str),
) -> Result<Option<Source>, AttestError> {
    let artifact: Option<String> =
        sqlx::query_scalar("SELECT artifact FROM releases WHERE site = $1 AND release_id = $2")
            .bind(from.to_string())
            .bind(release.as_str())
            .fetch_optional(&mut *connection)
            .await?;
    let Some(artifact) = artifact else {
        return Ok(None);
    };
    let artifact: Digest = id(&artifact)?;
    let built_of = match deployed(connection, from, release).await? {
        Some((Some(build), _)) => found(connection, &build).await?.as_ref().map(checkout),
        Some((None, _)) | None => None,
    };
    Ok(Some(Source::Promotion(Promoted {
        by: by.to_owned(),
        reason: reason.to_owned(),
        from: from.clone(),
        release: release.clone(),
        artifact,
        built_of,
    })))
}

/// Where a release comes from that was deployed before.
///
/// # Errors
/// When what is known of it cannot be read.
pub(crate) async fn of_release(
    connection: &mut Connection,
    site: &SiteId,
    release: &ReleaseId,
) -> Result<Source, AttestError> {
    if let Some(promotion) = promotion(connection, site, release).await? {
        let (of, word) = (
            (&promotion.from, &promotion.release),
            (promotion.by.as_str(), promotion.reason.as_str()),
        );
        if let Some(source) = promoted(connection, of, word).await? {
            return Ok(source);
        }
    }
    let deployed = deployed(connection, site, release).await?;
    let (build, by) = deployed.unwrap_or_else(|| (None, NOBODY.to_owned()));
    let build = match build {
        Some(build) => found(connection, &build).await?,
        None => None,
    };
    match build {
        Some(build) => Ok(of_build(connection, &build).await?),
        None => Ok(Source::Upload { by }),
    }
}

/// The build of the newest deployment of a release, and by whom that was.
async fn deployed(
    connection: &mut Connection,
    site: &SiteId,
    release: &ReleaseId,
) -> Result<Option<(Option<String>, String)>, StoreError> {
    let deployed = sqlx::query_as(
        "SELECT build, by_whom FROM deployments WHERE site = $1 AND release_id = $2 ORDER BY number DESC LIMIT 1",
    )
    .bind(site.to_string())
    .bind(release.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(deployed)
}

async fn found(connection: &mut Connection, build: &str) -> Result<Option<Build>, AttestError> {
    let build = id(build).map_err(AttestError::Store)?;
    match build::find(connection, &build).await {
        Ok(build) => Ok(Some(build)),
        Err(BuildError::Unknown(_)) => Ok(None),
        Err(error) => Err(AttestError::Build(error)),
    }
}

/// A promotion, as the audit log has it.
#[derive(Debug, PartialEq, Eq)]
struct Promotion {
    by: String,
    reason: String,
    from: SiteId,
    release: ReleaseId,
}

/// The newest promotion that has made a release.
async fn promotion(
    connection: &mut Connection,
    site: &SiteId,
    release: &ReleaseId,
) -> Result<Option<Promotion>, StoreError> {
    let row: Option<(String, Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT by_whom, reason, detail FROM audit WHERE action = 'promote' AND subject = $1 AND detail LIKE $2 ORDER BY id DESC LIMIT 1",
    )
    .bind(site.to_string())
    .bind(format!("% as {release}"))
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(|(by, reason, detail)| {
        let (release, from) = promoted_in(&detail?)?;
        Some(Promotion {
            by,
            reason: reason?,
            from,
            release,
        })
    }))
}

/// `release <release> of <site>, as <release>`.
pub(crate) fn promotion_detail(from: &SiteId, release: &ReleaseId, made: &ReleaseId) -> String {
    format!("release {release} of {from}, as {made}")
}

fn promoted_in(detail: &str) -> Option<(ReleaseId, SiteId)> {
    let (what, _) = detail.strip_prefix("release ")?.split_once(", as ")?;
    let (release, from) = what.split_once(" of ")?;
    Some((release.parse().ok()?, from.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_promoted_is_read_from_what_the_audit_log_says() {
        let (from, one, other) = (
            "shop/preview/3".parse().unwrap(),
            "a".repeat(20).parse().unwrap(),
            "b".repeat(20).parse().unwrap(),
        );
        let detail = promotion_detail(&from, &one, &other);
        assert_eq!(promoted_in(&detail), Some((one, from)));
        assert_eq!(promoted_in("release x of y, as z"), None);
    }
}
