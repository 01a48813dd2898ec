//! The local socket: what an edge's own operator may change on it, without origin and without NATS.
//!
//! HTTP over a unix socket in the data folder that only the edge's user can open; that is all the credential there is.
//! It changes what one edge serves of one site, for a reason and a time, and nothing else.
//!
//! ```text
//! GET  /v1/overrides                       [LocalOverride]
//! POST /v1/overrides        NewOverride →  LocalOverride
//! POST /v1/overrides/end    {site}      →  204
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use helix_routing::glass::{LocalOverride, NewOverride};
use helix_routing::id::SiteId;
use helix_service::shutdown::Shutdown;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use crate::agent::glass::{Denied, Desk, Wish};

/// Name of the socket in the data folder.
const FILE: &str = "admin.sock";
/// Largest wish, in bytes: names and a reason.
const MAX_WISH_BYTES: usize = 4 * 1024;

/// Where the local socket of an edge with this data folder is.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Opens the socket at `path`, in place of one that is there.
///
/// # Errors
/// When it cannot be opened. To be called on a runtime.
pub fn open(path: &Path) -> io::Result<UnixListener> {
    let beside = path.with_extension(format!("{}", std::process::id()));
    let listener = std::os::unix::net::UnixListener::bind(&beside)?;
    // Whoever may connect may change what is served.
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
    fs::rename(&beside, path)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Serves it until the shutdown.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: UnixListener, desk: Arc<Desk>, shutdown: Shutdown) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/overrides", get(standing).post(create))
        .route("/v1/overrides/end", post(end))
        .layer(DefaultBodyLimit::max(MAX_WISH_BYTES))
        .with_state(desk)
        .into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.requested().await })
        .await
}

/// The user on the other end, as the kernel names it.
#[derive(Clone, Debug)]
struct Peer(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|cred| cred.uid()))
    }
}

/// Why nothing came of a wish.
#[derive(Serialize)]
struct Problem {
    detail: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    site: SiteId,
}

async fn standing(State(desk): State<Arc<Desk>>) -> Json<Vec<LocalOverride>> {
    Json(desk.standing().into_values().collect())
}

async fn create(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(Peer(uid)): ConnectInfo<Peer>,
    Json(mut wish): Json<NewOverride>,
) -> Response {
    if let Some(uid) = uid {
        // A name is what somebody says; the number is what the kernel knows.
        wish.by = format!("{} (uid {uid})", wish.by);
    }
    match desk.ask(Wish::Override(wish)).await {
        Ok(standing) => (StatusCode::CREATED, Json(standing)).into_response(),
        Err(denied) => refusal(&denied),
    }
}

async fn end(State(desk): State<Arc<Desk>>, Json(End { site }): Json<End>) -> Response {
    match desk.ask(Wish::End { site }).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(denied) => refusal(&denied),
    }
}

fn refusal(denied: &Denied) -> Response {
    let status = match denied {
        Denied::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Denied::Write { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Denied::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    let detail = denied.to_string();
    (status, Json(Problem { detail })).into_response()
}
