//! Custom domains: which hosts outside the base domain show a project's site.
//!
//! Invariant: a host belongs to one project. A wildcard and an exact host below it may belong to
//! different sites; the exact one wins at the edge. The host's routing record changes in the
//! transaction that changes the row.

use helix_routing::api::{DomainView, NewDomain};
use helix_routing::host::{Host, HostPattern};
use helix_routing::id::{ProjectName, SiteId};
use helix_service::clock;

use crate::feed::records::{self, RecordError};
use crate::store::{Connection, StoreError, Tx, id, millis, time};

/// Domains of one project. Each is a record on every edge.
const MAX_DOMAINS: i64 = 1000;

/// A domain cannot be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// Names under the base domain are made by origin alone.
    #[error("host {host} lies under the base domain {base}, whose hosts are made by themselves")]
    UnderBase {
        /// The host.
        host: HostPattern,
        /// The base domain.
        base: Host,
    },
    /// It would cover hosts under the base domain.
    #[error("wildcard {host} covers the base domain {base}")]
    CoversBase {
        /// The wildcard.
        host: HostPattern,
        /// The base domain.
        base: Host,
    },
    /// Another project has it.
    #[error("host {host} is taken by another project")]
    Taken {
        /// The host.
        host: HostPattern,
    },
    /// The project does not have it.
    #[error("project {project} has no host {host}")]
    Unknown {
        /// The host.
        host: HostPattern,
        /// The project.
        project: ProjectName,
    },
    /// Too many.
    #[error("project {project} has {MAX_DOMAINS} domains, which is the most")]
    TooMany {
        /// The project.
        project: ProjectName,
    },
    /// The record could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for DomainError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The project's domains.
///
/// # Errors
/// When the database fails.
pub async fn list(
    connection: &mut Connection,
    project: &ProjectName,
) -> Result<Vec<DomainView>, DomainError> {
    let rows: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT host, site, added FROM domains WHERE project = $1 ORDER BY host")
            .bind(project.as_str())
            .fetch_all(connection)
            .await?;
    let view = |(host, site, added): (String, String, i64)| {
        Ok(DomainView {
            host: id(&host)?,
            site: id(&site)?,
            added: time(added),
        })
    };
    rows.into_iter().map(view).collect()
}

/// Adds a domain, or points one that the project has at another of its sites.
///
/// # Errors
/// As [`DomainError`] says.
pub async fn add(
    tx: &mut Tx,
    project: &ProjectName,
    new: NewDomain,
    base: &Host,
) -> Result<DomainView, DomainError> {
    let NewDomain { host, environment } = new;
    check_place(&host, base)?;
    match owner(tx, &host).await? {
        Some(owner) if owner != project.as_str() => return Err(DomainError::Taken { host }),
        Some(_) => {}
        None => check_room(tx, project).await?,
    }
    let site = SiteId {
        project: project.clone(),
        environment,
    };
    let added = clock::now();
    sqlx::query(
        "INSERT INTO domains (host, project, site, added) VALUES ($1, $2, $3, $4)
         ON CONFLICT (host) DO UPDATE SET site = excluded.site",
    )
    .bind(host.to_string())
    .bind(project.as_str())
    .bind(site.to_string())
    .bind(millis(added))
    .execute(&mut **tx)
    .await?;
    records::put_host(tx, &host, Some(&site)).await?;
    Ok(DomainView { host, site, added })
}

/// Removes a domain of the project.
///
/// # Errors
/// When it is not the project's, or the database fails.
pub async fn remove(
    tx: &mut Tx,
    project: &ProjectName,
    host: HostPattern,
) -> Result<(), DomainError> {
    let removed = sqlx::query("DELETE FROM domains WHERE host = $1 AND project = $2")
        .bind(host.to_string())
        .bind(project.as_str())
        .execute(&mut **tx)
        .await?;
    if removed.rows_affected() == 0 {
        return Err(DomainError::Unknown {
            host,
            project: project.clone(),
        });
    }
    records::put_host(tx, &host, None).await?;
    Ok(())
}

/// No host under the base domain, and no wildcard that covers one.
fn check_place(host: &HostPattern, base: &Host) -> Result<(), DomainError> {
    if host.name().is_within(base) {
        return Err(DomainError::UnderBase {
            host: host.clone(),
            base: base.clone(),
        });
    }
    let covers = |suffix: &Host| {
        base.split_label()
            .is_some_and(|(_, rest)| rest == suffix.as_str())
    };
    match host {
        HostPattern::Wildcard(suffix) if covers(suffix) => Err(DomainError::CoversBase {
            host: host.clone(),
            base: base.clone(),
        }),
        HostPattern::Wildcard(_) | HostPattern::Exact(_) => Ok(()),
    }
}

async fn owner(tx: &mut Tx, host: &HostPattern) -> Result<Option<String>, StoreError> {
    let owner = sqlx::query_scalar("SELECT project FROM domains WHERE host = $1")
        .bind(host.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(owner)
}

async fn check_room(tx: &mut Tx, project: &ProjectName) -> Result<(), DomainError> {
    let domains: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM domains WHERE project = $1")
        .bind(project.as_str())
        .fetch_one(&mut **tx)
        .await?;
    if domains >= MAX_DOMAINS {
        Err(DomainError::TooMany {
            project: project.clone(),
        })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_touch_the_base_domain_are_refused() {
        let base: Host = "apps.example.com".parse().unwrap();
        let check = |text: &str| check_place(&text.parse().unwrap(), &base);
        for text in [
            "apps.example.com",
            "x.apps.example.com",
            "*.apps.example.com",
            "*.x.apps.example.com",
        ] {
            assert!(
                matches!(check(text), Err(DomainError::UnderBase { .. })),
                "{text}"
            );
        }
        assert!(matches!(
            check("*.example.com"),
            Err(DomainError::CoversBase { .. })
        ));
        for text in [
            "example.com",
            "www.example.com",
            "xapps.example.com",
            "*.www.example.com",
        ] {
            assert!(check(text).is_ok(), "{text}");
        }
    }
}
