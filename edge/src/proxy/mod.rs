//! The pingora lane: pingora reads and writes the messages, and asks here what to answer.
//!
//! Towards clients, [`Lane`]: each phase calls one function, and what a request gets is decided by
//! [`crate::answer`], the same for every lane. Towards upstreams, [`through`]: any exchange, to any kind of
//! upstream; slower than the lane for plain HTTP/1.1 and always right. Of HTTP/2 only the connections are pingora's
//! ([`streams`]).

mod bridge;
mod carry;
mod failure;
mod head;
mod lane;
mod peer;
mod session;
mod streams;
mod through;

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

pub use self::peer::{Authorities, Reach};
use self::session::SessionExchange;
pub(crate) use self::through::through;
use crate::edge::Edge;
use crate::exchange::respond;

/// Answers what pingora read.
#[derive(Debug)]
pub struct Lane(pub Arc<Edge>);

#[async_trait]
impl ProxyHttp for Lane {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // None: compression is part of the answer.
    }

    async fn request_filter(&self, session: &mut Session, _context: &mut ()) -> Result<bool> {
        let mut exchange = SessionExchange::new(session, &self.0);
        let request = exchange.request();
        respond(&self.0, request, &mut exchange).await;
        exchange.ended()?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Error::e_explain(
            ErrorType::HTTPStatus(502),
            "every request is answered before an upstream is looked for",
        )
    }

    async fn fail_to_proxy(&self, session: &mut Session, _: &Error, _: &mut ()) -> FailToProxy {
        let status = StatusCode::INTERNAL_SERVER_ERROR.as_u16();
        if session.response_written().is_none() && session.respond_error(status).await.is_err() {
            tracing::debug!("the client was gone before an error could be sent");
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &(), _: &Error) -> bool {
        // It is in the access log.
        true
    }
}
