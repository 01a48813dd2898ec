//! The one place that turns errors into responses: `application/problem+json` (RFC 9457).
//!
//! Invariant: a problem's `type` is stable and named here or at the error it stands for. What went
//! wrong inside is logged, once, and not shown.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use helix_routing::api::Problem;
use helix_service::error::chain;

use crate::artifact::content::UploadError;
use crate::artifact::release::MakeError;
use crate::artifact::{LayoutError, pack::PackError};
use crate::auth::AuthError;
use crate::store::StoreError;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// When to ask again what an origin could not do for now, in seconds.
pub(crate) const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A request that is not answered with what it asked for.
#[derive(Debug)]
pub struct Rejection {
    status: StatusCode,
    kind: &'static str,
    title: String,
    detail: Option<String>,
    // Boxed, since a rejection travels in every result of every handler.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Rejection {
    /// A problem of this stable type.
    #[must_use]
    pub fn new(status: StatusCode, kind: &'static str, title: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            title: title.into(),
            detail: None,
            header: None,
        }
    }

    /// With more to say.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// There is no such thing.
    #[must_use]
    pub fn not_found(title: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", title)
    }

    /// The request makes no sense.
    #[must_use]
    pub fn bad_request(title: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", title)
    }

    /// It makes sense, but not with what is there.
    #[must_use]
    pub fn conflict(kind: &'static str, title: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, kind, title)
    }

    /// It is well-formed and still wrong.
    #[must_use]
    pub fn unprocessable(kind: &'static str, title: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, kind, title)
    }

    /// Something here failed: logged with its causes, of which the caller learns nothing.
    #[must_use]
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %chain(error), "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "origin could not do this; its log says why",
        )
    }

    /// Its status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Its title.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let Self {
            status,
            kind,
            title,
            detail,
            header,
        } = self;
        let problem = Problem {
            kind: kind.to_owned(),
            title,
            status: status.as_u16(),
            detail,
        };
        let mut response = (
            status,
            [(header::CONTENT_TYPE, PROBLEM_JSON)],
            Json(problem),
        )
            .into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if let Some((name, value)) = header.map(|header| *header) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Fenced { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not-leading",
                "another origin leads; ask again, the address will lead there",
            )
            .header(header::RETRY_AFTER, RETRY_AFTER),
            StoreError::Sql(sqlx::Error::PoolTimedOut) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "origin is busy; try again",
            )
            .header(header::RETRY_AFTER, RETRY_AFTER),
            away if away.is_passing() => {
                tracing::warn!(error = %chain(&error), "the database is away");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "database-away",
                    "origin cannot reach its database; nothing was changed that it did not confirm: try again",
                )
                .header(header::RETRY_AFTER, RETRY_AFTER)
            }
            StoreError::Open { .. }
            | StoreError::Untrusted { .. }
            | StoreError::TlsFile { .. }
            | StoreError::Migrate(_)
            | StoreError::Sql(_)
            | StoreError::Illegal(_)
            | StoreError::Corrupt { .. } => Self::internal(&error),
        }
    }
}

impl From<LayoutError> for Rejection {
    fn from(error: LayoutError) -> Self {
        let full = std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<std::io::Error>())
            .is_some_and(|source| source.kind() == std::io::ErrorKind::StorageFull);
        if full {
            return Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk-full",
                "origin's disk is full",
            );
        }
        Self::internal(&error)
    }
}

impl From<AuthError> for Rejection {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unknown => unauthorized(error.to_string()),
            AuthError::Name => Self::unprocessable("illegal-name", error.to_string()),
            AuthError::Missing { .. } => Self::not_found(error.to_string()),
            AuthError::Read { .. } | AuthError::Write(_) => Self::internal(&error),
            AuthError::Store(error) => error.into(),
        }
    }
}

/// No token, or none that is known.
#[must_use]
pub fn unauthorized(title: impl Into<String>) -> Rejection {
    Rejection::new(StatusCode::UNAUTHORIZED, "unauthorized", title)
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

impl From<UploadError> for Rejection {
    fn from(error: UploadError) -> Self {
        use crate::artifact::partial::VerifyError;
        let kind = match error {
            UploadError::Layout(error) => return error.into(),
            UploadError::Store(error) => return error.into(),
            UploadError::Quota { .. } => {
                return Self::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "quota-exceeded",
                    error.to_string(),
                );
            }
            UploadError::Pack(PackError::Digest { .. })
            | UploadError::Content(VerifyError::Digest { .. }) => "digest-mismatch",
            UploadError::Pack(PackError::TooLarge { .. })
            | UploadError::Content(VerifyError::TooLarge { .. })
            | UploadError::FileTooLarge { .. } => "file-too-large",
            UploadError::Pack(PackError::Undecodable { .. })
            | UploadError::Content(VerifyError::Undecodable { .. }) => "undecodable",
            UploadError::Pack(
                PackError::Cut { .. } | PackError::Empty | PackError::Encoding { .. },
            ) => "malformed-pack",
        };
        Self::unprocessable(kind, error.to_string())
    }
}

impl From<MakeError> for Rejection {
    fn from(error: MakeError) -> Self {
        let title = error.to_string();
        match error {
            MakeError::Path(_) | MakeError::Twice { .. } | MakeError::Folder { .. } => {
                Self::unprocessable("illegal-path", title)
            }
            MakeError::Empty => Self::unprocessable("no-files", title),
            MakeError::TooLarge { .. } => Self::unprocessable("release-too-large", title),
            MakeError::Size { .. } => Self::unprocessable("size-mismatch", title),
            MakeError::Missing { digests } => {
                Self::conflict("missing-contents", title).detail(MakeError::missing(&digests))
            }
            MakeError::Rules { errors } => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Self::unprocessable("illegal-rules", title).detail(lines.join("\n"))
            }
            MakeError::Read(error) => Self::internal(&error),
            MakeError::Layout(error) => error.into(),
            MakeError::Store(error) => error.into(),
            MakeError::Variants(error) => error.into(),
        }
    }
}
