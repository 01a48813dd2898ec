//! Uploads: what is missing, packs of small contents, large contents part by part.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use helix_routing::api::{NewUpload, PACK_UPLOAD_TYPE, Problem, UploadPlan};
use helix_routing::artifact::{Encoding, MAX_FILES};
use helix_routing::id::{Digest, ProjectName};

use super::extract::{Json, Path};
use super::problem::Rejection;
use crate::app::App;
use crate::artifact::append::AppendError;
use crate::artifact::layout::LayoutError;
use crate::artifact::partial::Upload;
use crate::project;

/// How many encoded bytes of a content origin has.
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// How many encoded bytes there are in all.
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
/// `identity` or `zstd`.
const UPLOAD_ENCODING: HeaderName = HeaderName::from_static("upload-encoding");

/// Ask which contents origin lacks
#[utoipa::path(
    post, path = "/v1/projects/{project}/uploads", tag = "uploads",
    params(("project" = String, Path, description = "Made by its first upload")),
    request_body = NewUpload,
    responses(
        (status = 200, body = UploadPlan),
        (status = 409, body = Problem, description = "`project-deleted`"),
        (status = 413, body = Problem, description = "`quota-exceeded`, `body-too-large`"),
        (status = 422, body = Problem, description = "`file-too-large`, `release-too-large`"),
    )
)]
pub(super) async fn plan(
    State(app): State<App>,
    Path(name): Path<ProjectName>,
    Json(new): Json<NewUpload>,
) -> Result<axum::Json<UploadPlan>, Rejection> {
    if new.contents.len() > MAX_FILES {
        let title = format!("{} contents, at most {MAX_FILES}", new.contents.len());
        return Err(Rejection::unprocessable("release-too-large", title));
    }
    project::ensure(&app.store, &name).await?;
    Ok(axum::Json(
        app.artifacts.plan_upload(&name, &new.contents).await?,
    ))
}

/// Send small contents
///
/// The body is frames, one after the other: the 32 bytes of the content's SHA-256, one byte of encoding
/// (0 identity, 1 zstd), four bytes of length (big-endian), and that many encoded bytes. All are kept or none.
#[utoipa::path(
    post, path = "/v1/projects/{project}/packs", tag = "uploads",
    params(("project" = String, Path)),
    request_body(content_type = "application/vnd.helixstack.pack-upload", content = Vec<u8>),
    responses(
        (status = 204, description = "Stored"),
        (status = 413, body = Problem, description = "`quota-exceeded`, `body-too-large`"),
        (status = 415, body = Problem, description = "`unsupported-media-type`"),
        (status = 422, body = Problem, description = "`digest-mismatch`, `undecodable`, `file-too-large`, `malformed-pack`"),
    )
)]
pub(super) async fn pack(
    State(app): State<App>,
    Path(name): Path<ProjectName>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<StatusCode, Rejection> {
    if headers
        .get(CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes() != PACK_UPLOAD_TYPE.as_bytes())
    {
        let title = format!("send packs as {PACK_UPLOAD_TYPE}");
        return Err(Rejection::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            title,
        ));
    }
    let body = body.map_err(|rejection| {
        let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
        let kind = if too_large {
            "body-too-large"
        } else {
            "cut-off"
        };
        Rejection::new(rejection.status(), kind, rejection.body_text())
    })?;
    project::ensure(&app.store, &name).await?;
    app.artifacts.receive_pack(&name, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How much of a large content has arrived
#[utoipa::path(
    head, path = "/v1/projects/{project}/blobs/{digest}", tag = "uploads",
    params(("project" = String, Path), ("digest" = String, Path, description = "Of the decoded content")),
    responses(
        (status = 200, description = "All of it"),
        (status = 204, description = "Some", headers(("upload-offset" = u64, description = "Encoded bytes that arrived"))),
    )
)]
pub(super) async fn progress(
    State(app): State<App>,
    Path((name, digest)): Path<(ProjectName, Digest)>,
) -> Result<Response, Rejection> {
    if app.artifacts.holds(&name, &digest).await? {
        return Ok(StatusCode::OK.into_response());
    }
    Ok(offset_response(
        StatusCode::NO_CONTENT,
        app.artifacts.partials().offset(&name, &digest),
    ))
}

/// Send part of a large content
///
/// Parts go one after the other, each from where the one before ended; what arrived of a part that was cut off is kept.
#[utoipa::path(
    patch, path = "/v1/projects/{project}/blobs/{digest}", tag = "uploads",
    params(
        ("project" = String, Path),
        ("digest" = String, Path, description = "Of the decoded content"),
        ("upload-offset" = u64, Header, description = "Where this part starts"),
        ("upload-length" = u64, Header, description = "Encoded bytes in all"),
        ("upload-encoding" = Option<String>, Header, description = "`identity` (if left out) or `zstd`"),
    ),
    request_body(content_type = "application/octet-stream", content = Vec<u8>),
    responses(
        (status = 204, description = "Stored", headers(("upload-offset" = u64, description = "Encoded bytes that arrived"))),
        (status = 409, body = Problem, description = "`wrong-offset`: go on from `upload-offset`"),
        (status = 413, body = Problem, description = "`quota-exceeded`, `file-too-large`"),
        (status = 422, body = Problem, description = "`digest-mismatch`, `undecodable`: what arrived is dropped"),
    )
)]
pub(super) async fn part(
    State(app): State<App>,
    Path((project, digest)): Path<(ProjectName, Digest)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Rejection> {
    let offset = number(&headers, &UPLOAD_OFFSET)?;
    let length = number(&headers, &UPLOAD_LENGTH)?;
    let encoding = encoding(&headers)?;
    project::ensure(&app.store, &project).await?;
    let upload = Upload {
        project,
        digest,
        encoding,
        length,
    };
    let has = app
        .artifacts
        .append(upload, offset, body.into_data_stream())
        .await?;
    Ok(offset_response(StatusCode::NO_CONTENT, has))
}

impl From<AppendError> for Rejection {
    fn from(error: AppendError) -> Self {
        let title = error.to_string();
        match error {
            AppendError::Offset { has } => {
                Self::conflict("wrong-offset", title).header(UPLOAD_OFFSET, HeaderValue::from(has))
            }
            AppendError::TooLong { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "file-too-large", title)
            }
            AppendError::Cut { has } => {
                Self::bad_request(title).header(UPLOAD_OFFSET, HeaderValue::from(has))
            }
            AppendError::Write(source) => LayoutError::Store {
                path: "uploads".into(),
                source,
            }
            .into(),
            AppendError::Upload(error) => error.into(),
        }
    }
}

fn offset_response(status: StatusCode, offset: u64) -> Response {
    (status, [(UPLOAD_OFFSET, HeaderValue::from(offset))]).into_response()
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Rejection> {
    let value = headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    value.ok_or_else(|| {
        Rejection::bad_request(format!(
            "this needs the header {name} with a number of bytes"
        ))
    })
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Rejection> {
    match headers.get(UPLOAD_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Encoding::Identity),
        Some(b"zstd") => Ok(Encoding::Zstd),
        Some(_) => Err(Rejection::bad_request(
            "upload-encoding is identity or zstd",
        )),
    }
}
