//! Extractors whose rejections are problems, and who is calling.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, HeaderMap};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use helix_routing::api::Role;
use helix_routing::id::{Environment, ProjectName, SiteId};
use helix_service::random;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::{Rejection, unauthorized};
use crate::app::App;
use crate::audit;
use crate::auth::{self, Caller};
use crate::build::work;

/// The environment of a project that is asked about.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EnvironmentOf {
    /// `production` (if left out) or `preview/N`.
    #[param(value_type = Option<String>)]
    environment: Option<Environment>,
}

impl EnvironmentOf {
    /// The project's site in it.
    pub(super) fn site(&self, project: ProjectName) -> SiteId {
        SiteId {
            project,
            environment: self.environment.unwrap_or(Environment::Production),
        }
    }
}

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(json_rejection(&rejection)),
        }
    }
}

fn json_rejection(rejection: &JsonRejection) -> Rejection {
    let kind = match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => "body-too-large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported-media-type",
        _ => "bad-request",
    };
    let text = rejection.body_text();
    // The title says what is wrong; the library puts its own sentence before it.
    let title = text
        .split_once("type: ")
        .map_or(text.as_str(), |(_, cause)| cause);
    Rejection::new(rejection.status(), kind, title)
}

/// Parts of the path.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let extracted: Result<axum::extract::Path<T>, PathRejection> =
            axum::extract::Path::from_request_parts(parts, state).await;
        extracted
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| {
                let text = rejection.body_text();
                let title = text.strip_prefix("Invalid URL: ").unwrap_or(&text);
                Rejection::new(rejection.status(), "bad-request", title)
            })
    }
}

/// The query.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let extracted: Result<axum::extract::Query<T>, QueryRejection> =
            axum::extract::Query::from_request_parts(parts, state).await;
        extracted
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| {
                Rejection::new(rejection.status(), "bad-request", rejection.body_text())
            })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Rejection;

    /// Who the layer of the route's group found.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| unauthorized("this needs a token"))
    }
}

/// Lets a request pass whose token may do what `role` may.
///
/// # Errors
/// When there is no token, nobody's, or a lesser one.
pub async fn authorize(
    State((app, role)): State<(App, Role)>,
    request: Request,
    next: Next,
) -> Result<Response, Rejection> {
    let asked = Asked::of(&request);
    let caller = asked.caller(&app).await?;
    if !caller.role.includes(role) {
        return Err(asked.refuse(&app, &caller, role).await);
    }
    Ok(pass(caller, request, next).await)
}

/// Lets whoever may deploy upload, and a worker to the project that it builds.
///
/// # Errors
/// When there is no token, nobody's, a lesser one, or a worker's that builds nothing of the project.
pub async fn authorize_upload(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Rejection> {
    let asked = Asked::of(&request);
    let caller = asked.caller(&app).await?;
    let may = match caller.role {
        Role::Deploy | Role::Operate => true,
        Role::Edge | Role::Read => false,
        Role::Build => {
            // `/v1/projects/{project}/…`
            let project = request.uri().path().split('/').nth(3);
            work::has_build_of(&app, &caller, project.unwrap_or_default()).await?
        }
    };
    if !may {
        return Err(asked.refuse(&app, &caller, Role::Deploy).await);
    }
    Ok(pass(caller, request, next).await)
}

/// What of a request says who asks for what. A request with its body cannot be looked at while something is waited for.
struct Asked {
    secret: Option<String>,
    id: Option<String>,
    what: String,
    is_safe: bool,
}

impl Asked {
    fn of(request: &Request) -> Self {
        Self {
            secret: bearer(request.headers()).map(str::to_owned),
            id: request
                .extensions()
                .get::<RequestId>()
                .map(|id| id.0.clone()),
            what: format!("{} {}", request.method(), request.uri().path()),
            is_safe: request.method().is_safe(),
        }
    }

    async fn caller(&self, app: &App) -> Result<Caller, Rejection> {
        let secret = self.secret.as_deref().ok_or_else(|| {
            unauthorized("this needs a token: send `Authorization: Bearer <token>`")
        })?;
        let mut caller = auth::authenticate(&app.store, secret).await?;
        caller.request.clone_from(&self.id);
        Ok(caller)
    }

    async fn refuse(&self, app: &App, caller: &Caller, needed: Role) -> Rejection {
        if !self.is_safe {
            audit::denied(&app.store, caller, &self.what).await;
        }
        let title = format!(
            "token {:?} may not do this: it needs the role {}",
            caller.name,
            needed.as_str()
        );
        Rejection::new(StatusCode::FORBIDDEN, "forbidden", title)
    }
}

async fn pass(caller: Caller, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// The secret of `Authorization: Bearer`.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// Names a request, in its response, in the audit log and in events.
#[derive(Clone, Debug)]
pub struct RequestId(String);

/// Longest id that is taken over from a client.
const MAX_REQUEST_ID: usize = 64;
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives each request its id: the client's, if it is one, or a new one.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(X_REQUEST_ID);
    let given = given.and_then(|id| id.to_str().ok()).filter(|id| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(is_plain)
    });
    let id = given.map_or_else(random::hex16, str::to_owned);
    let value = HeaderValue::from_str(&id);
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).await;
    if let Ok(value) = value {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}
