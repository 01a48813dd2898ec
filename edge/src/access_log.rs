//! One line and one count for each finished request, with what was really sent.
//!
//! The line is a `tracing` event of target `access`; what a client sent is quoted in it. Heads that
//! were refused have a line too, without what they asked for: it could not be read.

use std::net::SocketAddr;
use std::time::Duration;

use helix_framing::Refusal;
use http::StatusCode;

use crate::metrics::Metrics;

/// A finished request.
#[derive(Debug)]
pub struct Finished<'a> {
    /// h1 or h2.
    pub protocol: &'static str,
    /// The client.
    pub peer: Option<SocketAddr>,
    /// As sent.
    pub method: &'a str,
    /// As sent.
    pub authority: &'a str,
    /// Path and query, as sent.
    pub path: &'a str,
    /// The release that answered, or nothing.
    pub release: &'a str,
    /// None when the client was gone before it was sent one.
    pub status: Option<StatusCode>,
    /// Bytes of body sent.
    pub bytes: u64,
    /// From head to last byte.
    pub took: Duration,
    /// Why it was not finished, or nothing.
    pub error: &'a str,
}

/// Writes the line, if lines are wanted, and counts the request.
pub fn record(metrics: &Metrics, lines: bool, finished: &Finished<'_>) {
    metrics
        .requests
        .with_label_values(&[finished.protocol, class(finished.status)])
        .inc();
    metrics.request_seconds.observe(finished.took.as_secs_f64());
    metrics.response_bytes.inc_by(finished.bytes);
    if lines {
        tracing::info!(
            target: "access",
            protocol = finished.protocol,
            peer = finished.peer.map(tracing::field::display),
            method = finished.method,
            host = ?finished.authority,
            path = ?finished.path,
            release.id = finished.release,
            status = finished.status.map_or(0, |status| status.as_u16()),
            bytes = finished.bytes,
            seconds = finished.took.as_secs_f64(),
            error = ?finished.error,
        );
    }
}

/// Writes the line of a refused head, if lines are wanted, and counts it.
pub fn record_refused(metrics: &Metrics, lines: bool, peer: SocketAddr, refusal: Refusal) {
    metrics
        .heads_refused
        .with_label_values(&[refusal.label()])
        .inc();
    if lines {
        tracing::info!(target: "access", protocol = "h1", %peer, status = refusal.status().as_u16(), error = %refusal);
    }
}

fn class(status: Option<StatusCode>) -> &'static str {
    match status.map(|status| status.as_u16() / 100) {
        None => "none",
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(_) => "5xx",
    }
}
