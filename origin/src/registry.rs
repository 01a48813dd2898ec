//! The pull half of a registry (OCI distribution-spec 1.1) over the artifact store: what edges fetch
//! releases from, and any OCI client.
//!
//! Repositories are projects; tags are `main-<number>` for a production deployment, `preview-<pull request>`
//! for the newest deployment of a preview, and `git-<commit>-<environment>` for the newest of a commit. What refers to an
//! artifact is listed by the referrers API, and for clients that do not know that, under the tag `sha256-<digest>`. A
//! digest is answered only in a project that holds it. It takes nothing in: pushing is the API's uploads.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, LINK, RANGE, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helix_routing::api::Role;
use helix_routing::artifact::{IMPROVEMENT_TYPE, MANIFEST_TYPE, OCI_INDEX_TYPE};
use helix_routing::id::{Digest, Environment, ProjectName, SiteId};
use helix_routing::provenance::bundle::BUNDLE_TYPE;
use helix_routing::provenance::statement::PREDICATE_TYPE;
use helix_service::digest::sha256;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::api::extract::bearer;
use crate::app::App;
use crate::artifact::annotation::{commit_of_tag, tag_of_commit, tag_of_label};
use crate::auth::{self, AuthError};
use crate::bill::{self, BILL_TYPE};
use crate::provenance::{self, AttestError};
use crate::store::{Store, StoreError, id};

/// Tags in one answer when the client names no number, and the most it can name.
const MAX_TAGS: usize = 1000;
/// How much of a blob is read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Says that the answer holds only what was asked for (OCI distribution-spec, referrers).
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// The registry's routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v2", any(base))
        .route("/v2/", any(base))
        .route("/v2/{*path}", any(pull))
}

/// An error as registries say it.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    fn name_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            "there is no such repository",
        )
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({ "errors": [{ "code": self.code, "message": self.message }] });
        let mut response = (self.status, axum::Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"helix\""),
            );
        }
        response
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %helix_service::error::chain(&error), "registry request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "UNKNOWN",
            "the registry could not answer; its log says why",
        )
    }
}

impl From<AttestError> for Refused {
    fn from(error: AttestError) -> Self {
        match error {
            AttestError::Store(error) => error.into(),
            AttestError::TooLarge { .. } | AttestError::Build(_) | AttestError::Layout(_) => {
                tracing::error!(error = %helix_service::error::chain(&error), "an artifact is not attested");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "UNKNOWN",
                    "where the artifact comes from could not be attested; origin's log says why",
                )
            }
        }
    }
}

async fn base(State(app): State<App>, headers: HeaderMap) -> Result<Response, Refused> {
    authorize(&app, &headers).await?;
    Ok(([(API_VERSION, "registry/2.0")], axum::Json(json!({}))).into_response())
}

/// What a path below `/v2/` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    Manifest(&'a str),
    Blob(&'a str),
    Tags,
    Referrers(&'a str),
}

async fn pull(
    State(app): State<App>,
    Path(path): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    authorize(&app, &headers).await?;
    if !matches!(method, Method::GET | Method::HEAD) {
        return Err(Refused::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "this registry is for pulling",
        ));
    }
    let (project, asked) = read_path(&path).ok_or_else(Refused::name_unknown)?;
    let project: ProjectName = project.parse().map_err(|_| Refused::name_unknown())?;
    match asked {
        Asked::Manifest(reference) => manifest(&app, &project, reference, &method).await,
        Asked::Blob(digest) => blob(&app, &project, digest, &method, &headers).await,
        Asked::Tags => tags(&app.store, &project, uri.query().unwrap_or_default()).await,
        Asked::Referrers(digest) => {
            let query = uri.query().unwrap_or_default();
            referrers(&app, &project, digest, query).await
        }
    }
}

fn read_path(path: &str) -> Option<(&str, Asked<'_>)> {
    let (project, rest) = path.split_once('/')?;
    let asked = match rest.split_once('/')? {
        ("manifests", reference) => Asked::Manifest(reference),
        ("blobs", digest) => Asked::Blob(digest),
        ("tags", "list") => Asked::Tags,
        ("referrers", digest) => Asked::Referrers(digest),
        _ => return None,
    };
    Some((project, asked))
}

/// Takes a token as a bearer, or as the password of any user: what OCI clients can send.
async fn authorize(app: &App, headers: &HeaderMap) -> Result<(), Refused> {
    let refused = || {
        Refused::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "log in with any user and a token as the password",
        )
    };
    let secret = match bearer(headers) {
        Some(secret) => secret.to_owned(),
        None => basic_password(headers).ok_or_else(refused)?,
    };
    match auth::authenticate(&app.store, &secret).await {
        Ok(caller)
            if [Role::Edge, Role::Read]
                .iter()
                .any(|role| caller.role.includes(*role)) =>
        {
            Ok(())
        }
        Err(AuthError::Store(error)) => Err(error.into()),
        Ok(_) | Err(_) => Err(refused()),
    }
}

fn basic_password(headers: &HeaderMap) -> Option<String> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    Some(decoded.split_once(':')?.1.to_owned())
}

async fn manifest(
    app: &App,
    project: &ProjectName,
    reference: &str,
    method: &Method,
) -> Result<Response, Refused> {
    let unknown = || {
        Refused::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "there is no such manifest",
        )
    };
    if let Some(subject) = subject_of_tag(reference) {
        return referrers_as_manifest(app, project, &subject).await;
    }
    let digest = match reference.parse::<Digest>() {
        Ok(digest) => digest,
        Err(_) => tagged(&app.store, project, reference)
            .await?
            .ok_or_else(unknown)?,
    };
    match held(&app.store, project, &digest).await? {
        Some(media_type) if media_type == MANIFEST_TYPE => {}
        Some(_) | None => return Err(unknown()),
    }
    send(app, &digest, MANIFEST_TYPE, method, None).await
}

async fn blob(
    app: &App,
    project: &ProjectName,
    digest: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refused> {
    let unknown = || {
        Refused::new(
            StatusCode::NOT_FOUND,
            "BLOB_UNKNOWN",
            "there is no such blob",
        )
    };
    let digest: Digest = digest.parse().map_err(|error| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            format!("{error}"),
        )
    })?;
    held(&app.store, project, &digest)
        .await?
        .ok_or_else(unknown)?;
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    send(app, &digest, "application/octet-stream", method, range).await
}

/// The blob's media type, when the project holds it.
async fn held(
    store: &Store,
    project: &ProjectName,
    digest: &Digest,
) -> Result<Option<String>, StoreError> {
    let held =
        sqlx::query_scalar("SELECT media_type FROM packs WHERE project = $1 AND digest = $2")
            .bind(project.as_str())
            .bind(digest.as_str())
            .fetch_optional(store.reader())
            .await?;
    Ok(held)
}

/// The manifest a tag names. Tags are the deployments' labels with `-` for the `/` that tags cannot have, and commits.
async fn tagged(
    store: &Store,
    project: &ProjectName,
    tag: &str,
) -> Result<Option<Digest>, StoreError> {
    if let Some((commit, environment)) = commit_of_tag(tag) {
        return of_commit(store, project, commit, environment).await;
    }
    let Some((kind, number)) = tag.split_once('-') else {
        return Ok(None);
    };
    let artifact: Option<String> = sqlx::query_scalar(
        "SELECT releases.artifact FROM deployments
         JOIN releases ON releases.site = deployments.site AND releases.release_id = deployments.release_id
         WHERE deployments.project = $1 AND deployments.label = $2 AND releases.collected IS NULL
         ORDER BY deployments.number DESC LIMIT 1",
    )
    .bind(project.as_str())
    .bind(format!("{kind}/{number}"))
    .fetch_optional(store.reader())
    .await?;
    artifact.map(|artifact| id(&artifact)).transpose()
}

async fn of_commit(
    store: &Store,
    project: &ProjectName,
    commit: &str,
    environment: Environment,
) -> Result<Option<Digest>, StoreError> {
    let project = project.clone();
    let site = SiteId {
        project,
        environment,
    };
    let artifact: Option<String> = sqlx::query_scalar(
        "SELECT releases.artifact FROM deployments
         JOIN releases ON releases.site = deployments.site AND releases.release_id = deployments.release_id
         WHERE deployments.site = $1 AND deployments.commit_id = $2 AND releases.collected IS NULL
         ORDER BY deployments.number DESC LIMIT 1",
    )
    .bind(site.to_string())
    .bind(commit)
    .fetch_optional(store.reader())
    .await?;
    artifact.map(|artifact| id(&artifact)).transpose()
}

async fn tags(store: &Store, project: &ProjectName, query: &str) -> Result<Response, Refused> {
    let parameter = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let number = parameter("n")
        .and_then(|n| n.parse().ok())
        .unwrap_or(MAX_TAGS)
        .min(MAX_TAGS);
    let last = parameter("last").unwrap_or_default();
    let rows: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT DISTINCT deployments.label, deployments.site, deployments.commit_id FROM deployments
         JOIN releases ON releases.site = deployments.site AND releases.release_id = deployments.release_id
         WHERE deployments.project = $1 AND releases.collected IS NULL",
    )
    .bind(project.as_str())
    .fetch_all(store.reader())
    .await
    .map_err(StoreError::from)?;
    let mut tags = BTreeSet::new();
    for (label, site, commit) in rows {
        let site: SiteId = id(&site).map_err(Refused::from)?;
        tags.insert(tag_of_label(&label));
        tags.extend(commit.map(|commit| tag_of_commit(&commit, site.environment)));
    }
    let mut tags: Vec<String> = tags.into_iter().filter(|tag| *tag > last).collect();
    let more = tags.len() > number;
    tags.truncate(number);
    let next = tags
        .last()
        .filter(|_| more)
        .map(|last| format!("</v2/{project}/tags/list?n={number}&last={last}>; rel=\"next\""));
    let mut response = axum::Json(json!({ "name": project, "tags": tags })).into_response();
    if let Some(next) = next.and_then(|next| HeaderValue::try_from(next).ok()) {
        response.headers_mut().insert(LINK, next);
    }
    Ok(response)
}

/// What says more about a manifest: where it comes from, newest first, and the improvement of a release, once it is made.
async fn referrers(
    app: &App,
    project: &ProjectName,
    digest: &str,
    query: &str,
) -> Result<Response, Refused> {
    let digest: Digest = digest.parse().map_err(|error| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            format!("{error}"),
        )
    })?;
    // A type has no space: who asks has not escaped its `+`.
    let wanted = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "artifactType")
        .map(|(_, value)| value.replace(' ', "+"));
    let body = referrers_of(app, project, &digest, wanted.as_deref()).await?;
    let mut response = ([(CONTENT_TYPE, OCI_INDEX_TYPE)], body).into_response();
    if wanted.is_some() {
        let filter = HeaderValue::from_static("artifactType");
        response.headers_mut().insert(FILTERS_APPLIED, filter);
    }
    Ok(response)
}

/// The artifact whose referrers a tag lists, for clients of registries without their API (OCI distribution-spec, referrers tag schema).
fn subject_of_tag(tag: &str) -> Option<Digest> {
    Digest::from_hex(tag.strip_prefix("sha256-")?).ok()
}

async fn referrers_as_manifest(
    app: &App,
    project: &ProjectName,
    subject: &Digest,
) -> Result<Response, Refused> {
    let body = referrers_of(app, project, subject, None).await?;
    let digest = sha256(body.as_bytes());
    let digest = HeaderValue::try_from(digest.as_str()).expect("a digest is plain ASCII");
    let mut response = ([(CONTENT_TYPE, OCI_INDEX_TYPE)], body).into_response();
    response.headers_mut().insert(CONTENT_DIGEST, digest);
    Ok(response)
}

async fn referrers_of(
    app: &App,
    project: &ProjectName,
    digest: &Digest,
    wanted: Option<&str>,
) -> Result<String, Refused> {
    let is_wanted = |kind: &str| wanted.is_none_or(|wanted| wanted == kind);
    let mut manifests = Vec::new();
    if is_wanted(BUNDLE_TYPE) {
        app.attestor.vouch(project, digest).await?;
        let mut connection = app.store.read().await?;
        let bundles = provenance::referrers(&mut connection, project, digest).await?;
        let annotations = json!({ "dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": PREDICATE_TYPE });
        manifests.extend(bundles.into_iter().map(|bundle| {
            json!({
                "mediaType": MANIFEST_TYPE,
                "digest": bundle.manifest,
                "size": bundle.size,
                "artifactType": BUNDLE_TYPE,
                "annotations": annotations,
            })
        }));
    }
    if is_wanted(BILL_TYPE) {
        let mut connection = app.store.read().await?;
        let bills = bill::referrers(&mut connection, project, digest).await?;
        manifests.extend(bills.into_iter().map(|bill| {
            json!({
                "mediaType": MANIFEST_TYPE,
                "digest": bill.manifest,
                "size": bill.size,
                "artifactType": BILL_TYPE,
            })
        }));
    }
    if is_wanted(IMPROVEMENT_TYPE) {
        let improvements = improvements(&app.store, project, digest).await?;
        manifests.extend(improvements.into_iter().map(|(digest, size)| {
            json!({
                "mediaType": MANIFEST_TYPE,
                "digest": digest,
                "size": size,
                "artifactType": IMPROVEMENT_TYPE,
            })
        }));
    }
    let body = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX_TYPE, "manifests": manifests });
    Ok(body.to_string())
}

async fn improvements(
    store: &Store,
    project: &ProjectName,
    digest: &Digest,
) -> Result<Vec<(String, i64)>, StoreError> {
    // A project's name has no character that LIKE reads as a pattern.
    let rows = sqlx::query_as(
        "SELECT DISTINCT packs.digest, packs.size FROM releases
         JOIN packs ON packs.digest = releases.improvement AND packs.project = $1
         WHERE releases.artifact = $2 AND releases.collected IS NULL AND releases.site LIKE $1 || '/%'",
    )
    .bind(project.as_str())
    .bind(digest.as_str())
    .fetch_all(store.reader())
    .await?;
    Ok(rows)
}

/// Which bytes of a blob are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// From the first to the last byte, both included.
    Bytes(u64, u64),
    Unsatisfiable,
}

/// One range of bytes (RFC 9110 14.1.2). Several, or other units, are answered with the whole.
fn part(range: Option<&str>, size: u64) -> Part {
    let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'))
    else {
        return Part::Whole;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Err(_), Ok(suffix)) if first.is_empty() => match suffix.min(size) {
            0 => Part::Unsatisfiable,
            suffix => Part::Bytes(size - suffix, size - 1),
        },
        (Ok(first), _) if first >= size => Part::Unsatisfiable,
        (Ok(first), Err(_)) if last.is_empty() => Part::Bytes(first, size - 1),
        (Ok(first), Ok(last)) if first <= last => Part::Bytes(first, last.min(size - 1)),
        _ => Part::Whole,
    }
}

fn lost() -> Refused {
    let message = "the blob cannot be read";
    Refused::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", message)
}

async fn send(
    app: &App,
    digest: &Digest,
    kind: &'static str,
    method: &Method,
    range: Option<&str>,
) -> Result<Response, Refused> {
    let gone = |error: std::io::Error| {
        tracing::error!(%digest, %error, "a blob that is noted cannot be read");
        lost()
    };
    if let Err(error) = app.artifacts.whole(digest).await {
        tracing::error!(%digest, error = %helix_service::error::chain(&error), "a blob is lost here, and the registry does not have it");
        return Err(lost());
    }
    let mut file = tokio::fs::File::open(app.artifacts.layout().path(digest))
        .await
        .map_err(gone)?;
    let size = file.metadata().await.map_err(gone)?.len();
    let (status, first, length) = match part(range, size) {
        Part::Whole => (StatusCode::OK, 0, size),
        Part::Bytes(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Part::Unsatisfiable => {
            let range = [(CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, range).into_response());
        }
    };
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        file.seek(std::io::SeekFrom::Start(first))
            .await
            .map_err(gone)?;
        Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK_BYTES))
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        CONTENT_DIGEST,
        HeaderValue::try_from(digest.as_str()).expect("a digest is plain ASCII"),
    );
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {first}-{}/{size}", first + length - 1);
        headers.insert(
            CONTENT_RANGE,
            HeaderValue::try_from(range).expect("digits are plain ASCII"),
        );
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_blob() {
        for (range, expected) in [
            ("bytes=0-4", Part::Bytes(0, 4)),
            ("bytes=5-", Part::Bytes(5, 9)),
            ("bytes=-3", Part::Bytes(7, 9)),
            ("bytes=-30", Part::Bytes(0, 9)),
            ("bytes=8-100", Part::Bytes(8, 9)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=4-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-4", Part::Whole),
            ("bytes=x-", Part::Whole),
            ("bytes=-", Part::Whole),
        ] {
            assert_eq!(part(Some(range), 10), expected, "{range}");
        }
        assert_eq!(part(None, 10), Part::Whole);
        assert_eq!(part(Some("bytes=0-0"), 0), Part::Unsatisfiable);
    }

    #[test]
    fn paths_name_a_repository_and_what_is_asked_of_it() {
        assert_eq!(read_path("shop/tags/list"), Some(("shop", Asked::Tags)));
        assert_eq!(
            read_path("shop/manifests/main-3"),
            Some(("shop", Asked::Manifest("main-3")))
        );
        assert_eq!(
            read_path("shop/blobs/sha256:x"),
            Some(("shop", Asked::Blob("sha256:x")))
        );
        for path in [
            "",
            "shop",
            "shop/",
            "shop/tags",
            "shop/tags/all",
            "a/b/tags/list",
            "shop/uploads/x",
        ] {
            assert_eq!(read_path(path), None, "{path}");
        }
    }

    #[test]
    fn the_password_is_what_follows_the_user() {
        let headers = HeaderMap::from_iter([(
            AUTHORIZATION,
            HeaderValue::from_static("Basic dXNlcjpoZWxpeF94Onk="),
        )]);
        assert_eq!(basic_password(&headers).as_deref(), Some("helix_x:y"));
        let bad = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Basic ???"))]);
        assert_eq!(basic_password(&bad), None);
    }
}
