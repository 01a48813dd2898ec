//! One connection from its first byte to its last: read heads, answer, again.
//!
//! ```text
//!  Waiting ──bytes──▶ Head ──complete──▶ Answering ──▶ Waiting
//!    │ idle, drained    │ too slow, refused   │ close, broken
//!    └────────────▶ closed ◀──────────────────┘
//! ```

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use helix_framing::{Asked, Fields, Head, Preface, Refusal, preface};
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::exchange::Http1Exchange;
use super::io::EdgeIo;
use super::lane::{Batch, Lane, Message, Next};
use super::memo::By;
use crate::access_log::record_refused;
use crate::answer::{Answer, Pinned, RequestHead, answer};
use crate::edge::Edge;
use crate::exchange::{Protocol, Request, carry_out};
use crate::http2;
use crate::limits::{DRAIN_GRACE, HANDSHAKE_DEADLINE, Limits};
use crate::metrics::Counted;
use crate::proxy;
use crate::socket::Socket;
use crate::tls::{Certificates, Secured, handshake};

/// What all connections of one core share. One [`HttpProxy`] each, so that its tasks and pools stay on the core.
pub(super) struct Core {
    pub(super) edge: Arc<Edge>,
    pub(super) proxy: Arc<HttpProxy<proxy::Lane>>,
    pub(super) limits: Limits,
    /// Whether pingora reads and writes every message.
    pub(super) pingora_only: bool,
    pub(super) lane: Lane,
    /// True once those of its turn are to end.
    pub(super) draining: watch::Receiver<bool>,
    /// The same, for those who ask often.
    pub(super) ends: Arc<AtomicBool>,
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
    // Boxed, as is what follows it: neither should hold the other's room.
    let shaking = Box::pin(handshake(
        &certificates,
        &core.edge.metrics,
        socket,
        deadline,
    ));
    let settled = shaking.await;
    drop(certificates);
    if let Some((stream, secured)) = settled {
        let socket = Socket::Tls(Box::new(stream.into()));
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
    let mut io = Box::new(EdgeIo::new(socket, peer, secured, core.limits.write_stall));
    if agreed {
        return Box::pin(core.serve_http2(*io, accepted)).await;
    }
    let mut wait = Wait::new(accepted);
    loop {
        match preface(&io.inbound) {
            Preface::No => break,
            Preface::Yes => return Box::pin(core.serve_http2(*io, accepted)).await,
            Preface::Undecided if core.more(&mut io, &mut wait).await => {}
            Preface::Undecided => return,
        }
    }
    core.messages(io, wait).await;
}

/// Since when a connection waits, and for what.
struct Wait {
    /// Since when the next message is waited for; once some of it is here, since when that is so.
    since: Instant,
    /// Whether nothing has been answered yet.
    fresh: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// Ends when an idle connection will not be sent anything any more.
    drained: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// What waiting for bytes came to.
enum Waited {
    Arrived,
    /// The client is gone, or nobody waits for it any longer.
    Over,
    TooSlow,
}

impl Wait {
    const fn new(accepted: Instant) -> Self {
        Self {
            since: accepted,
            fresh: true,
            timer: None,
            drained: None,
        }
    }

    /// The next message is waited for from now on.
    fn again(&mut self) {
        self.fresh = false;
        self.since = Instant::now();
    }

    /// Waits for bytes: idle, as long as nothing of a message is here; else within the head's deadline. A fresh
    /// connection has one deadline for both.
    async fn wait(&mut self, core: &Core, io: &mut EdgeIo) -> Waited {
        let empty = io.inbound.is_empty();
        let idle = empty && !self.fresh;
        io.release();
        let patience = if idle {
            core.limits.idle_deadline
        } else {
            core.limits.head_deadline
        };
        let deadline = self.since + patience;
        let waited = poll_fn(|cx| {
            match io.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => return Poll::Ready(Waited::Arrived),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Waited::Over),
                Poll::Pending => {}
            }
            if self.poll_deadline(cx, deadline).is_ready() {
                return Poll::Ready(if empty { Waited::Over } else { Waited::TooSlow });
            }
            if empty {
                self.poll_drained(cx, &core.draining).map(|()| Waited::Over)
            } else {
                Poll::Pending
            }
        })
        .await;
        if idle {
            // The head's time starts with its first byte.
            self.since = Instant::now();
        }
        waited
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>, draining: &watch::Receiver<bool>) -> Poll<()> {
        self.drained
            .get_or_insert_with(|| Box::pin(drained(draining.clone())))
            .as_mut()
            .poll(cx)
    }

    /// One timer for the whole connection: a deadline that moves away costs nothing until it would have fired.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

impl Core {
    async fn serve_http2(&self, io: EdgeIo, accepted: Instant) {
        let (socket, ahead, client) = io.into_http2();
        let deadline = accepted + self.limits.head_deadline;
        let edge = Arc::clone(&self.edge);
        let _open = Counted::new(&edge.metrics.http2_connections);
        let draining = self.draining.clone();
        http2::serve(
            Arc::clone(&edge),
            self.limits,
            client,
            (socket, ahead),
            deadline,
            draining,
        )
        .await;
    }

    /// Answers messages until the connection ends.
    async fn messages(self: Arc<Self>, mut io: Box<EdgeIo>, mut wait: Wait) {
        loop {
            if io.inbound.is_empty() && !self.more(&mut io, &mut wait).await {
                return;
            }
            let ends = self.ends.load(Ordering::Relaxed);
            let started = std::time::Instant::now();
            let (batch, next) = self.lane.answer(&self.edge, &mut io, started, ends);
            if !batch.is_empty() {
                if !self.send(&mut io, batch).await {
                    return;
                }
                wait.again();
            }
            match next {
                Next::Again => {}
                Next::More => {
                    if !self.more(&mut io, &mut wait).await {
                        return;
                    }
                }
                Next::Refused(refusal) => return self.refuse(&mut io, refusal).await,
                Next::Message(message) => {
                    // Boxed: a connection that waits should not hold the room of one that works.
                    let again = if self.pingora_only {
                        io.admit(message.length, message.head.framing);
                        Box::pin(self.by_pingora(io, message.head.persists)).await
                    } else {
                        Box::pin(self.respond(io, message, started)).await
                    };
                    match again {
                        Some(again) => io = again,
                        None => return,
                    }
                    wait.again();
                }
            }
        }
    }

    /// Waits for more bytes. False when the connection is over.
    async fn more(&self, io: &mut EdgeIo, wait: &mut Wait) -> bool {
        match wait.wait(self, io).await {
            Waited::Arrived => true,
            Waited::Over => false,
            Waited::TooSlow => {
                self.refuse(io, Refusal::HeadTooSlow).await;
                false
            }
        }
    }

    /// Sends the responses of a batch. False when the connection is over.
    async fn send(&self, io: &mut EdgeIo, mut batch: Batch) -> bool {
        let sent = match batch.large.take() {
            Some(body) => io.write_all(&body).await,
            None => Ok(()),
        };
        let sent = match sent {
            Ok(()) => io.flush().await,
            Err(error) => Err(error),
        };
        let closes = batch.closes;
        self.lane.finish(batch, &self.edge, io, sent.is_ok());
        if closes && sent.is_ok() {
            io.close().await;
        }
        sent.is_ok() && !closes
    }

    async fn refuse(&self, io: &mut EdgeIo, refusal: Refusal) {
        let started = std::time::Instant::now();
        let refused = &self.edge.metrics.heads_refused;
        refused.with_label_values(&[refusal.label()]).inc();
        let told = io.refuse(&refusal.response(SystemTime::now())).await;
        // The body is the reason, in a line.
        let sent = told.then(|| refusal.to_string().len() as u64 + 1);
        record_refused(
            &self.edge,
            Protocol::Http1,
            io.peer(),
            started,
            refusal,
            sent,
        );
        if told {
            io.close().await;
        }
    }

    /// Answers one message. Gives the connection back if it can be used again.
    async fn respond(
        &self,
        mut io: Box<EdgeIo>,
        message: Message,
        started: std::time::Instant,
    ) -> Option<Box<EdgeIo>> {
        let bytes = Bytes::copy_from_slice(&io.inbound[..message.length]);
        io.inbound.advance(message.length);
        let (secure, peer) = (io.secure(), io.peer());
        let asked = Asked::default();
        let head = request_head(&message.head, &bytes, secure, &asked);
        let answered = answer(&self.edge.table, &head);
        let forwards = matches!(answered.answer, Answer::Forward(_));
        let pinned = answered.pinned.as_ref();
        let release = pinned.and_then(|pinned| pinned.release.as_ref());
        // What comes from an upstream is never remembered.
        let kept_as = message.hash.filter(|_| !forwards).map(|hash| {
            let by = By {
                release: release.map(|release| release.id.clone()),
                site: pinned.map(|pinned| (*pinned.site).clone()),
                counted: pinned.and_then(Pinned::counted).cloned(),
            };
            (hash, by)
        });
        let mut exchange = Http1Exchange::new(
            &mut io,
            &message.head,
            message.made.date,
            self.limits.body_window,
            &self.ends,
        );
        if !forwards {
            exchange = exchange.local(message.hash.is_some());
        }
        let request = Request {
            head: message.head.to_parts(&bytes),
            peer,
            secure,
        };
        carry_out(&self.edge, &request, answered, started, &mut exchange).await;
        if let (Some(sent), Some((hash, by))) = (exchange.sent(), kept_as) {
            let question = (hash, message.question(&bytes, secure));
            self.lane.keep(&self.edge, question, &asked, sent, by);
        }
        self.lane.spare(message.head);
        exchange.finish().await.then_some(io)
    }
}

/// The head as [`answer`] wants it.
fn request_head<'a>(
    head: &'a Head,
    bytes: &'a [u8],
    secure: bool,
    asked: &'a Asked,
) -> RequestHead<'a> {
    let path = head.path.text(bytes);
    RequestHead {
        method: &head.method,
        authority: head.host.text(bytes),
        path: if path.is_empty() { "/" } else { path },
        query: head.query.map(|query| query.text(bytes)),
        fields: Fields::Lines(head.fields(bytes).noted(asked)),
        secure,
    }
}

/// Returns when a connection that is idle will not be sent anything any more.
async fn drained(mut draining: watch::Receiver<bool>) {
    // An error means that the core has ended, and this task with it.
    let _ = draining.wait_for(|draining| *draining).await;
    sleep(DRAIN_GRACE).await;
}

impl Core {
    /// Lets pingora answer the one message behind the gate. Gives the connection back if it can be used again.
    async fn by_pingora(&self, io: Box<EdgeIo>, persists: bool) -> Option<Box<EdgeIo>> {
        let mut session = ServerSession::new_http1(io);
        // Only whether, not how long: waiting for the next head is done here.
        session.set_keepalive(Some(self.limits.idle_deadline.as_secs().max(1)));
        let (stream, _settings) = self
            .proxy
            .process_new_http(session, &self.draining)
            .await?
            .consume();
        let mut io = own(stream)?;
        if !persists {
            // pingora looks at the first `Connection` alone.
            io.close().await;
            return None;
        }
        // A body that was not read to its end leaves the next head nowhere to start.
        io.is_between_messages().then_some(io)
    }
}

/// The connection back from pingora, which knows it as any stream.
fn own(stream: Stream) -> Option<Box<EdgeIo>> {
    stream.into_any().downcast().ok()
}
