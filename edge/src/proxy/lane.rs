//! pingora, one for each core: its connector, its pools, and the phases it asks us in.
//!
//! Each phase calls one function. Everything that is decided for one request is in its [`Call`], which
//! travels with the request's head.

use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use http::StatusCode;
use pingora_core::apps::HttpServerApp;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, ProxyWarnLogContext, Session, http_proxy};
use tokio::sync::watch;

use super::bridge::Bridge;
use super::failure::failure_of;
use crate::forward::Failure;
use crate::limits::UPSTREAM_IDLE_CONNECTIONS;

/// The second is for a connection that was kept and turned out to be closed. Other servers are tried from outside.
const TRIES: usize = 2;

/// One request on its way, as the phases see it.
pub(super) struct Call {
    pub(super) peer: HttpPeer,
    pub(super) failure: Mutex<Option<Failure>>,
}

impl Call {
    /// What the last try failed with.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
    }

    pub(super) fn failed(&self, error: &Error) {
        let failure = failure_of(error);
        *self
            .failure
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(failure);
    }
}

/// Carries out calls.
struct Forwarding;

thread_local! {
    /// A connection belongs to the runtime it was made on, so each thread has its own.
    static LANE: Arc<HttpProxy<Forwarding>> = Arc::new(new());
}

fn new() -> HttpProxy<Forwarding> {
    http_proxy(&Arc::new(conf()), Forwarding)
}

/// What each thread's connections have in common.
pub(super) fn conf() -> ServerConf {
    // pingora would choose another provider, without key exchange that outlasts quantum computers. An error
    // means that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    ServerConf {
        max_retries: TRIES,
        upstream_keepalive_pool_size: UPSTREAM_IDLE_CONNECTIONS,
        ..ServerConf::default()
    }
}

/// Lets pingora carry out what stands in the session's head.
pub(super) async fn process(session: Bridge) {
    // Nobody ends sessions through pingora: whoever awaits this does.
    static NEVER: OnceLock<(watch::Sender<bool>, watch::Receiver<bool>)> = OnceLock::new();
    let (_, shutdown) = NEVER.get_or_init(|| watch::channel(false));
    let lane = LANE.with(Arc::clone);
    lane.process_new_http(ServerSession::new_custom(Box::new(session)), shutdown)
        .await;
}

fn call(session: &Session) -> Result<&Arc<Call>> {
    session
        .req_header()
        .extensions
        .get::<Arc<Call>>()
        .ok_or_else(|| Error::explain(ErrorType::InternalError, "a request without its call"))
}

#[async_trait]
impl ProxyHttp for Forwarding {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _: &mut HttpModules) {
        // None: a body passes as it is.
    }

    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(call(session)?.peer.clone()))
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        _: &mut (),
        reused: bool,
    ) -> Box<Error> {
        if may_repeat(session) {
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _: &mut ()) -> FailToProxy {
        if let Ok(call) = call(session) {
            call.failed(error);
        }
        FailToProxy {
            error_code: StatusCode::BAD_GATEWAY.as_u16(),
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &(), _: &Error) -> bool {
        // It is in the access log.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &(),
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// Whether the request may be sent a second time: doing it twice is doing it once, all of it is still here,
/// and the client has seen nothing of a response.
fn may_repeat(session: &Session) -> bool {
    session.req_header().method.is_idempotent()
        && !session.retry_buffer_truncated()
        && session.response_written().is_none()
}
