//! The admin address: is the process there, is it ready, how is it doing. Not for the public.
//!
//! Ready means: it leads, its database answers, and every stream of the feed is ready for writing.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use helix_service::error::chain;

use crate::app::App;
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::remote::queue;
use crate::store::{StoreError, number};

/// What the admin address shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The parts.
    pub app: App,
    /// The feed.
    pub feed: Feed,
    /// The figures.
    pub metrics: Metrics,
}

/// `/healthz`, `/readyz`, `/metrics`.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>) -> Response {
    let (streams, wanted) = admin.feed.ready_streams();
    if streams < wanted {
        let text = format!("{streams} of {wanted} streams are ready\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    match outbox(&admin).await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", chain(&error)),
        )
            .into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    if let Err(error) = measure(&admin).await {
        return (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{}\n", chain(&error)),
        )
            .into_response();
    }
    match admin.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn measure(admin: &Admin) -> Result<(), StoreError> {
    let Admin { app, feed, metrics } = admin;
    let edges = app.roster.edges();
    metrics.epoch.set(number(app.store.epoch().0));
    metrics
        .edges_live
        .set(number(edges.iter().filter(|edge| edge.live).count() as u64));
    metrics.edges_registered.set(number(edges.len() as u64));
    metrics
        .streams_ready
        .set(number(feed.ready_streams().0 as u64));
    metrics.outbox.set(outbox(admin).await?);
    let running = sqlx::query_scalar("SELECT COUNT(*) FROM rollouts WHERE outcome IS NULL");
    metrics
        .rollouts_running
        .set(running.fetch_one(app.store.reader()).await?);
    if let Some(remote) = &app.remote {
        let mut reader = app.store.read().await?;
        let status = queue::status(&mut reader, remote).await?;
        metrics.pushes_waiting.set(number(status.waiting));
        metrics.pushes_failing.set(number(status.failing));
    }
    Ok(())
}

async fn outbox(admin: &Admin) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM outbox")
        .fetch_one(admin.app.store.reader())
        .await?)
}
