//! One connection from its first byte to its last: read a head, let pingora answer that one message, again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::io::{EdgeIo, Next};
use super::socket::Socket;
use crate::access_log::record_refused;
use crate::edge::Edge;
use crate::http1::Refusal;
use crate::http2;
use crate::limits::{DRAIN_GRACE, HANDSHAKE_DEADLINE, Limits};
use crate::proxy::Lane;
use crate::tls::{Certificates, Secured, handshake};

/// What all connections of one core share. One [`HttpProxy`] each, so that its tasks and pools stay on the core.
pub(super) struct Core {
    pub(super) edge: Arc<Edge>,
    pub(super) proxy: Arc<HttpProxy<Lane>>,
    pub(super) limits: Limits,
    /// True once requests may only be finished.
    pub(super) draining: watch::Receiver<bool>,
}

/// Shakes hands where that is due, and serves `socket` until either side has had enough.
pub(super) async fn serve(
    core: Arc<Core>,
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Certificates>>,
) {
    let accepted = Instant::now();
    let Some(certificates) = tls else {
        return serve_clear(core, Socket::Plain(socket), peer, None, accepted).await;
    };
    let deadline = accepted + HANDSHAKE_DEADLINE.min(core.limits.head_deadline);
    let settled = handshake(&certificates, &core.edge.metrics, socket, deadline).await;
    drop(certificates);
    if let Some((stream, secured)) = settled {
        let socket = Socket::Tls(Box::new(stream));
        Box::pin(serve_clear(core, socket, peer, Some(secured), accepted)).await;
    }
}

/// Serves a connection whose bytes are in the clear now.
async fn serve_clear(
    core: Arc<Core>,
    socket: Socket,
    peer: SocketAddr,
    secured: Option<Secured>,
    accepted: Instant,
) {
    let agreed = secured.as_ref().is_some_and(Secured::is_http2);
    let io = EdgeIo::new(socket, peer, secured, core.limits.write_stall);
    if agreed {
        return core.serve_http2(io, accepted).await;
    }
    let mut io = Box::new(io);
    let mut first = Some(accepted);
    loop {
        match core.next(&mut io, first.take()).await {
            Next::Gone => return,
            Next::Refused(refusal) => return core.refuse(&mut io, refusal).await,
            Next::Http2 => return Box::pin(core.serve_http2(*io, accepted)).await,
            Next::Message => match core.answer(io).await {
                Some(reusable) => io = reusable,
                None => return,
            },
        }
    }
}

impl Core {
    async fn serve_http2(&self, io: EdgeIo, accepted: Instant) {
        let (socket, ahead, client) = io.into_http2();
        let deadline = accepted + self.limits.head_deadline;
        let edge = Arc::clone(&self.edge);
        let draining = self.draining.clone();
        http2::serve(
            edge,
            self.limits,
            client,
            (socket, ahead),
            deadline,
            draining,
        )
        .await;
    }

    /// Waits for the next message. A fresh connection, accepted at `fresh`, has one deadline for waiting and head
    /// together; a reused one may be idle, and its head's deadline starts with its first byte.
    async fn next(&self, io: &mut EdgeIo, fresh: Option<Instant>) -> Next {
        if io.is_idle() {
            let patience = if fresh.is_some() {
                self.limits.head_deadline
            } else {
                self.limits.idle_deadline
            };
            let arrived = tokio::select! {
                biased;
                arrived = timeout(patience, io.wait()) => arrived.unwrap_or(false),
                () = self.drained() => false,
            };
            if !arrived {
                return Next::Gone;
            }
        }
        let deadline = fresh.unwrap_or_else(Instant::now) + self.limits.head_deadline;
        timeout_at(deadline, io.next(fresh.is_some()))
            .await
            .unwrap_or(Next::Refused(Refusal::HeadTooSlow))
    }

    /// Returns when a connection that is idle will not be sent anything any more.
    async fn drained(&self) {
        // An error means that the core has ended, and this task with it.
        let _ = self.draining.clone().wait_for(|draining| *draining).await;
        sleep(DRAIN_GRACE).await;
    }

    async fn refuse(&self, io: &mut EdgeIo, refusal: Refusal) {
        record_refused(&self.edge.metrics, self.edge.access_log, io.peer(), refusal);
        io.refuse(&refusal.response(SystemTime::now())).await;
    }

    /// Lets pingora answer the one message behind the gate. Gives the connection back if it can be used again.
    async fn answer(&self, io: Box<EdgeIo>) -> Option<Box<EdgeIo>> {
        let mut session = ServerSession::new_http1(io);
        // Only whether, not how long: waiting for the next head is done here.
        session.set_keepalive(Some(self.limits.idle_deadline.as_secs().max(1)));
        let (stream, _settings) = self
            .proxy
            .process_new_http(session, &self.draining)
            .await?
            .consume();
        let io = own(stream)?;
        // A body that was not read to its end leaves the next head nowhere to start.
        io.is_between_messages().then_some(io)
    }
}

/// The connection back from pingora, which knows it as any stream.
fn own(stream: Stream) -> Option<Box<EdgeIo>> {
    stream.into_any().downcast().ok()
}
