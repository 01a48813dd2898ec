//! What one request keeps from its head to its line in the log.

use std::time::Instant;

use pingora_core::Error;
use pingora_proxy::Session;

use super::Edge;
use crate::access_log::{Finished, record};
use crate::answer::{Pinned, RequestHead};

/// One request's own state. Holds what it was answered from until it is finished.
#[derive(Debug)]
pub struct RequestContext {
    started: Instant,
    pub(super) pinned: Option<Pinned>,
}

impl RequestContext {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            pinned: None,
        }
    }

    /// Tells log and metrics how it ended.
    pub(super) fn finish(
        &self,
        edge: &Edge,
        session: &Session,
        head: &RequestHead<'_>,
        error: Option<&Error>,
    ) {
        let release = self
            .pinned
            .as_ref()
            .and_then(|pinned| pinned.release.as_ref());
        let path = session
            .req_header()
            .uri
            .path_and_query()
            .map_or(head.path, http::uri::PathAndQuery::as_str);
        let finished = Finished {
            protocol: if session.is_http2() { "h2" } else { "h1" },
            peer: session
                .client_addr()
                .and_then(|address| address.as_inet())
                .copied(),
            method: head.method.as_str(),
            authority: head.authority,
            path,
            release: release.map_or("", |release| release.id.as_str()),
            status: session.response_written().map(|response| response.status),
            bytes: session.body_bytes_sent() as u64,
            took: self.started.elapsed(),
            error: &error.map(ToString::to_string).unwrap_or_default(),
        };
        record(&edge.metrics, edge.access_log, &finished);
    }
}
