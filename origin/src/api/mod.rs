//! Origin's HTTP API: every route is in the list below, with the role it needs.
//!
//! Invariant: every answer that is not what was asked for is `application/problem+json`, and every
//! route is in `/openapi.json`, since both are made of the same list.

mod audit;
mod build;
mod control;
mod deployment;
mod edge;
pub mod extract;
mod gate;
mod hold;
mod join;
mod lane;
mod pin;
pub mod problem;
mod project;
mod protection;
mod provenance;
mod purge;
mod push;
mod remainder;
mod restart;
mod rollout;
mod source;
mod status;
mod token;
mod upload;
mod visitor;
mod webhook;

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::get;
use axum::{Json, Router, middleware};
use helix_routing::api::Role;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::problem::Rejection;
use crate::app::App;
use crate::artifact::pack::MAX_REQUEST_BYTES;
use crate::registry;

/// Largest list of files or contents: the most files a release may have, at about 300 bytes each, with room.
const MAX_LIST_BYTES: usize = 48 * 1024 * 1024;
/// Largest part of a build's log: a thousand lines of the usual kind, escaped.
const MAX_LOG_BYTES: usize = 16 * 1024 * 1024;
/// Largest body of a variable: all that a project may have, escaped.
const MAX_VARIABLE_BYTES: usize = 512 * 1024;
/// Largest body of every other request.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The API, its description at `/openapi.json`, and the registry at `/v2/`.
pub fn router(app: App) -> Router {
    let (api, description) = routes(&app).split_for_parts();
    api.route("/openapi.json", get(|| async move { Json(description) }))
        .merge(registry::routes())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(extract::identify))
        .layer(middleware::from_fn(remainder::drop_after))
        .with_state(app)
}

/// Every route by the role it needs and the size of its bodies.
fn routes(app: &App) -> OpenApiRouter<App> {
    let deploys = |routes| words(changes(routes));
    let operates = |routes| webhooks(fleet(operations(routes)));
    OpenApiRouter::with_openapi(description())
        // Whoever joins has no token yet but the one in its body.
        .merge(
            OpenApiRouter::new()
                .routes(routes!(join::join))
                .routes(routes!(join::renew))
                .layer(DefaultBodyLimit::max(MAX_BODY_BYTES)),
        )
        .merge(group(app, Role::Read, MAX_BODY_BYTES, |routes| {
            sources(views(routes))
        }))
        .merge(group(app, Role::Deploy, MAX_BODY_BYTES, deploys))
        .merge(group(app, Role::Deploy, MAX_LIST_BYTES, |routes| {
            routes.routes(routes!(deployment::deploy))
        }))
        .merge(uploads(app, MAX_LIST_BYTES, |routes| {
            routes.routes(routes!(upload::plan))
        }))
        .merge(uploads(app, MAX_REQUEST_BYTES, |routes| {
            routes.routes(routes!(upload::pack))
        }))
        .merge(uploads(app, MAX_BODY_BYTES, |routes| {
            routes.routes(routes!(upload::progress, upload::part))
        }))
        .merge(group(app, Role::Deploy, MAX_VARIABLE_BYTES, |routes| {
            routes.routes(routes!(source::set_variable))
        }))
        .merge(group(app, Role::Build, MAX_LIST_BYTES, |routes| {
            routes.routes(routes!(build::end))
        }))
        .merge(group(app, Role::Build, MAX_LOG_BYTES, |routes| {
            routes.routes(routes!(build::log))
        }))
        .merge(group(app, Role::Edge, MAX_BODY_BYTES, |routes| {
            routes.routes(routes!(visitor::key))
        }))
        .merge(group(app, Role::Build, MAX_BODY_BYTES, |routes| {
            routes
                .routes(routes!(build::claim))
                .routes(routes!(build::heartbeat))
        }))
        // Providers have no token: what they send is signed. Its size is limited where it is read.
        .merge(
            OpenApiRouter::new()
                .routes(routes!(source::receive))
                .layer(DefaultBodyLimit::disable()),
        )
        .merge(group(app, Role::Operate, MAX_BODY_BYTES, operates))
}

/// What is read.
fn views(routes: OpenApiRouter<App>) -> OpenApiRouter<App> {
    routes
        .routes(routes!(status::status))
        .routes(routes!(status::explain))
        .routes(routes!(edge::list))
        .routes(routes!(project::list))
        .routes(routes!(project::domains))
        .routes(routes!(deployment::releases))
        .routes(routes!(purge::show))
        .routes(routes!(gate::show))
        .routes(routes!(hold::list))
        .routes(routes!(hold::quarantines))
        .routes(routes!(rollout::show))
        .routes(routes!(pin::list))
        .routes(routes!(lane::freezes))
        .routes(routes!(lane::show_lock))
        .routes(routes!(rollout::list))
        .routes(routes!(rollout::follow))
}

/// What is read of sources and builds, and of where releases come from.
fn sources(routes: OpenApiRouter<App>) -> OpenApiRouter<App> {
    routes
        .routes(routes!(provenance::show))
        .routes(routes!(provenance::materials))
        .routes(routes!(provenance::key))
        .routes(routes!(source::show))
        .routes(routes!(source::variables))
        .routes(routes!(protection::show))
        .routes(routes!(build::list))
        .routes(routes!(build::show))
        .routes(routes!(build::follow))
}

/// What changes a project.
fn changes(routes: OpenApiRouter<App>) -> OpenApiRouter<App> {
    routes
        .routes(routes!(source::unset_variable))
        .routes(routes!(build::approve))
        .routes(routes!(build::cancel))
        .routes(routes!(build::redeploy))
        .routes(routes!(deployment::roll_back))
        .routes(routes!(restart::restart))
        .routes(routes!(project::add_domain))
        .routes(routes!(project::remove_domain))
        .routes(routes!(purge::purge))
        .routes(routes!(gate::run))
        .routes(routes!(pin::add))
        .routes(routes!(pin::remove))
        .routes(routes!(protection::share))
}

/// What is said of rollouts, and the log of all that was.
fn words(routes: OpenApiRouter<App>) -> OpenApiRouter<App> {
    routes
        .routes(routes!(hold::set))
        .routes(routes!(hold::clear))
        .routes(routes!(hold::quarantine))
        .routes(routes!(hold::unquarantine))
        .routes(routes!(push::verify))
        .routes(routes!(audit::list))
        .routes(routes!(audit::verify))
        .routes(routes!(lane::acquire))
        .routes(routes!(lane::release))
        .routes(routes!(control::pause))
        .routes(routes!(control::resume))
        .routes(routes!(control::abort))
}

/// What changes who may do what.
fn operations(routes: OpenApiRouter<App>) -> OpenApiRouter<App> {
    routes
        .routes(routes!(control::approve))
        .routes(routes!(lane::add_freeze))
        .routes(routes!(lane::remove_freeze))
        .routes(routes!(project::delete))
        .routes(routes!(project::restore))
        .routes(routes!(source::put, source::remove))
        .routes(routes!(protection::change))
        .routes(routes!(source::rotate))
        .routes(routes!(deployment::promote))
        .routes(routes!(token::list, token::create))
        .routes(routes!(token::revoke))
}

/// What changes the fleet.
fn fleet(routes: OpenApiRouter<App>) -> OpenApiRouter<App> {
    routes
        .routes(routes!(edge::drain, edge::undrain))
        .routes(routes!(edge::remove))
        .routes(routes!(visitor::rotate))
        .routes(routes!(join::list, join::create))
        .routes(routes!(join::revoke))
}

/// Who is told of events.
fn webhooks(routes: OpenApiRouter<App>) -> OpenApiRouter<App> {
    routes
        .routes(routes!(webhook::list, webhook::add))
        .routes(routes!(webhook::remove))
        .routes(routes!(webhook::enable))
        .routes(routes!(webhook::test))
        .routes(routes!(webhook::deliveries))
        .routes(routes!(webhook::delivery))
        .routes(routes!(webhook::replay))
}

fn group(
    app: &App,
    role: Role,
    body_bytes: usize,
    add: impl FnOnce(OpenApiRouter<App>) -> OpenApiRouter<App>,
) -> OpenApiRouter<App> {
    add(OpenApiRouter::new())
        .route_layer(DefaultBodyLimit::max(body_bytes))
        .route_layer(middleware::from_fn_with_state(
            (app.clone(), role),
            extract::authorize,
        ))
}

/// What workers may do besides: send what they built, to the project that they build.
fn uploads(
    app: &App,
    body_bytes: usize,
    add: impl FnOnce(OpenApiRouter<App>) -> OpenApiRouter<App>,
) -> OpenApiRouter<App> {
    add(OpenApiRouter::new())
        .route_layer(DefaultBodyLimit::max(body_bytes))
        .route_layer(middleware::from_fn_with_state(
            app.clone(),
            extract::authorize_upload,
        ))
}

fn description() -> OpenApi {
    const BEARER: &str = "token";
    let mut components = Components::new();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of `helix token create`"))
        .build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    let info = InfoBuilder::new()
        .title("HelixStack origin")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Deploy, roll back and look after sites. Errors are RFC 9457 problems whose `type` is stable."))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([SecurityRequirement::new(BEARER, [""; 0])]))
        .build()
}

async fn unknown(uri: Uri) -> Rejection {
    Rejection::not_found(format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Rejection {
    let title = format!("{} cannot be used on {}", method.as_str(), uri.path());
    Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title)
}
