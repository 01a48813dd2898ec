//! Bills of materials: what a build says that its release was made of, kept beside the artifact as a referrer of it.
//!
//! A release that is made of another one's files, in production or with other variables, has that one's bill.
//!
//! Invariant: it is the worker's word, and nothing is decided by it. Its blobs live as long as a release that names them.

use helix_routing::api::MAX_MATERIALS_BYTES;
use helix_routing::id::{Digest, ProjectName, ReleaseId, SiteId};
use helix_routing::record::ReleaseRef;
use serde::Deserialize;

use crate::artifact::content::blocking;
use crate::artifact::referrer::{self, Referrer, Said};
use crate::artifact::{Layout, LayoutError, annotation};
use crate::store::{Connection, Store, StoreError, Tx, id, number};

/// What a bill is (CycloneDX 1.6, registered with IANA).
pub const BILL_TYPE: &str = "application/vnd.cyclonedx+json";

/// A bill cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum BillError {
    /// It is something else.
    #[error(
        "the bill of materials is none: it is to be CycloneDX in JSON, of at most {MAX_MATERIALS_BYTES} bytes"
    )]
    NotOne,
    /// The disk refused.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for BillError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    bom_format: String,
}

/// Whether a text can be a bill. What is in it is for those who read bills.
///
/// # Errors
/// When it is too long, no JSON, or says that it is something else.
pub fn check(bill: &str) -> Result<(), BillError> {
    let head: Option<Head> = serde_json::from_str(bill).ok();
    let is_one = head.is_some_and(|head| head.bom_format == "CycloneDX");
    if is_one && bill.len() <= MAX_MATERIALS_BYTES {
        Ok(())
    } else {
        Err(BillError::NotOne)
    }
}

/// Keeps the bill of a release, in place of an earlier one of its artifact.
///
/// # Errors
/// When it is none, it cannot be written, or the database fails.
pub(crate) async fn note(
    tx: &mut Tx,
    layout: &Layout,
    (site, made): (&SiteId, &ReleaseRef),
    bill: &str,
) -> Result<(), BillError> {
    check(bill)?;
    let subject = referrer::subject(tx, &site.project, &made.artifact).await?;
    let (layout, bill, annotations) = (layout.clone(), bill.to_owned(), annotation::of_site(site));
    let written = blocking(move || {
        let said = Said {
            kind: BILL_TYPE,
            title: "bill.cdx.json",
            bytes: bill.as_bytes(),
        };
        let manifest = referrer::manifest(subject, &said, annotations);
        referrer::write(&layout, &manifest, &said)
    });
    let held = written.await?;
    sqlx::query(
        "INSERT INTO bills (site, artifact, project, manifest, manifest_size, bill) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (site, artifact) DO UPDATE SET manifest = excluded.manifest, manifest_size = excluded.manifest_size, bill = excluded.bill",
    )
    .bind(site.to_string())
    .bind(made.artifact.as_str())
    .bind(site.project.as_str())
    .bind(held.manifest.0.as_str())
    .bind(number(held.manifest.1))
    .bind(held.bytes.0.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(referrer::keep(tx, site, &made.release, &held, BILL_TYPE).await?)
}

/// Forgets a bill whose referrer is no more.
///
/// # Errors
/// When the database fails.
pub(crate) async fn forget(tx: &mut Tx, project: &str, manifest: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM bills WHERE project = $1 AND manifest = $2")
        .bind(project)
        .bind(manifest)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The bills of an artifact, as the registry lists them.
///
/// # Errors
/// When the database fails.
pub(crate) async fn referrers(
    connection: &mut Connection,
    project: &ProjectName,
    artifact: &Digest,
) -> Result<Vec<Referrer>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT DISTINCT manifest, manifest_size FROM bills WHERE project = $1 AND artifact = $2 ORDER BY manifest",
    )
    .bind(project.as_str())
    .bind(artifact.as_str())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Referrer::of).collect()
}

/// The bill of an artifact in a site, if its build brought one.
///
/// # Errors
/// When it cannot be read, or the database fails.
pub(crate) async fn of(
    store: &Store,
    layout: &Layout,
    site: &SiteId,
    artifact: &Digest,
) -> Result<Option<Vec<u8>>, BillError> {
    let bill: Option<String> =
        sqlx::query_scalar("SELECT bill FROM bills WHERE site = $1 AND artifact = $2")
            .bind(site.to_string())
            .bind(artifact.as_str())
            .fetch_optional(store.reader())
            .await?;
    read(layout, bill).await
}

/// The bill of a release that another one is to be made of, if its build brought one.
///
/// # Errors
/// When it cannot be read, or the database fails.
pub(crate) async fn of_release(
    store: &Store,
    layout: &Layout,
    site: &SiteId,
    release: &ReleaseId,
) -> Result<Option<String>, BillError> {
    let bill: Option<String> = sqlx::query_scalar(
        "SELECT bill FROM bills JOIN releases ON releases.site = bills.site AND releases.artifact = bills.artifact
         WHERE releases.site = $1 AND releases.release_id = $2",
    )
    .bind(site.to_string())
    .bind(release.as_str())
    .fetch_optional(store.reader())
    .await?;
    let bill = read(layout, bill).await?;
    let bill = bill.map(|bill| String::from_utf8(bill).map_err(|_| BillError::NotOne));
    bill.transpose()
}

async fn read(layout: &Layout, bill: Option<String>) -> Result<Option<Vec<u8>>, BillError> {
    let Some(bill) = bill else {
        return Ok(None);
    };
    let (layout, digest) = (layout.clone(), id(&bill)?);
    let read = blocking(move || layout.read(&digest, MAX_MATERIALS_BYTES as u64));
    Ok(Some(read.await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_that_it_is_something_else_is_no_bill() {
        assert!(check(r#"{"bomFormat": "CycloneDX", "components": []}"#).is_ok());
        let long = format!(
            r#"{{"bomFormat": "CycloneDX", "x": "{}"}}"#,
            "x".repeat(MAX_MATERIALS_BYTES)
        );
        for other in [
            "",
            "[]",
            r#"{"bomFormat": "SPDX"}"#,
            r#"{"spdxVersion": "SPDX-2.3"}"#,
            &long,
        ] {
            assert!(check(other).is_err(), "{}", &other[..other.len().min(40)]);
        }
    }
}
