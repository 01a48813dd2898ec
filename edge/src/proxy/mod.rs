//! The pingora lane: pingora reads and writes the messages, and asks here what to answer.
//!
//! Each phase calls one function. What a request gets is decided by [`crate::answer`], the same for every
//! lane; this lane can carry out every answer. Nothing goes to an upstream from here.

mod carry;
mod context;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderValue, header};
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::answer::{RequestHead, answer};
use crate::metrics::Metrics;
use crate::table::Table;

pub use context::RequestContext;

/// What every request of this edge shares.
#[derive(Debug)]
pub struct Edge {
    /// Hosts, sites, releases.
    pub table: Arc<Table>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Whether each request has a line in the log.
    pub access_log: bool,
    /// How long a client may take no bytes.
    pub write_stall: Duration,
    /// Value of `x-helix-edge`.
    pub edge: HeaderValue,
    /// Value of `x-helix-region`.
    pub region: HeaderValue,
}

/// Answers what pingora read.
#[derive(Debug)]
pub struct Lane(pub Arc<Edge>);

#[async_trait]
impl ProxyHttp for Lane {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new()
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // None: compression is part of the answer.
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        context: &mut RequestContext,
    ) -> Result<bool> {
        let answered = answer(&self.0.table, &head_of(session));
        carry::send(&self.0, session, context, answered).await?;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _context: &mut RequestContext,
    ) -> Result<Box<HttpPeer>> {
        Error::e_explain(
            ErrorType::HTTPStatus(502),
            "every request is answered before an upstream is looked for",
        )
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        _: &Error,
        _: &mut RequestContext,
    ) -> FailToProxy {
        carry::give_up(session).await
    }

    fn suppress_error_log(
        &self,
        _session: &Session,
        _context: &RequestContext,
        _error: &Error,
    ) -> bool {
        // It is in the access log.
        true
    }

    async fn logging(
        &self,
        session: &mut Session,
        error: Option<&Error>,
        context: &mut RequestContext,
    ) {
        context.finish(&self.0, session, &head_of(session), error);
    }
}

/// The head as pingora parsed it, from either protocol.
fn head_of(session: &Session) -> RequestHead<'_> {
    let head = session.req_header();
    let host = || {
        head.headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
    };
    RequestHead {
        method: &head.method,
        authority: head
            .uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(host)
            .unwrap_or_default(),
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
    }
}
