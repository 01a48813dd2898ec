//! One connection: its control stream, its requests side by side, and its end.
//!
//! ```text
//! Open ──shutdown──▶ Closing: GOAWAY says that no more will come; what is on its way is taken for a while
//!                       │ grace
//!                       ▼
//!                    Finishing: GOAWAY names the last request; what was taken is answered ──all sent──▶ closed
//! ```
//!
//! All requests run within the connection's task. It does not admit connections and decides no answer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use helix_framing::Refusal;
use helix_framing::http3::{Code, NOTHING, Unidirectional, Verdict, goaway, opening};
use helix_framing::limits::MAX_HEAD_BYTES;
use http::HeaderValue;
use http::header::ALLOW;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::code;
use super::exchange::StreamExchange;
use super::priority::{Changed, Priority};
use super::stream::{Inbound, NoRequest};
use crate::access_log::record_refused;
use crate::answer::{Answer, Response, answer as decide};
use crate::edge::Edge;
use crate::exchange::{
    Connect, Exchange, Key, Protocol, Request, carry_out, head_of, response_head,
};
use crate::limits::{DRAIN_GRACE, Limits};
use crate::tls::{Certificates, Secured};

/// How often a connection with a quiet tunnel says something: a third of the time after which it counts as dead, here and
/// with browsers.
const QUIET: Duration = Duration::from_secs(10);

/// Most unidirectional streams a client may open while a connection lives. It needs three, and greases a few.
const MAX_UNIDIRECTIONAL: u32 = 64;

/// Most requests a client may break off before they are answered, beyond half of those it made: more is a
/// flood of resets (as CVE-2023-44487).
const MAX_BROKEN_OFF: u32 = 100;

/// Id of the first request that no client can make: told at first, since nobody knows what is on its way.
const LAST_STREAM: u64 = (1 << 62) - 4;

/// How many finished responses are looked at before one is kept that the client has wholly.
const KEPT_UNLOOKED: usize = 16;

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) edge: Arc<Edge>,
    pub(super) limits: Limits,
    pub(super) connection: Connection,
    /// Which hosts it may be asked for; none when its certificate has been taken away meanwhile.
    secured: Option<Secured>,
    /// What the client has said of the order of its responses since it asked for them.
    pub(super) changed: Changed,
    /// Which unidirectional streams there are already.
    seen: AtomicU8,
    requests: AtomicU32,
    broken_off: AtomicU32,
    /// WebSockets that are open: they may be quiet for long.
    tunnels: AtomicU32,
}

impl Session {
    pub(super) fn new(
        edge: Arc<Edge>,
        limits: Limits,
        connection: Connection,
        certificates: &Certificates,
    ) -> Self {
        let server_name = connection
            .handshake_data()
            .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
            .and_then(|data| data.server_name);
        let secured = certificates
            .find(server_name.as_deref())
            .map(|certificate| Secured::new(certificate, server_name.as_deref(), false));
        Self {
            edge,
            limits,
            connection,
            secured,
            changed: Changed::default(),
            seen: AtomicU8::new(0),
            requests: AtomicU32::new(0),
            broken_off: AtomicU32::new(0),
            tunnels: AtomicU32::new(0),
        }
    }

    fn close(&self, code: Code) {
        self.connection.close(super::code(code), b"");
    }

    fn peer(&self) -> SocketAddr {
        let peer = self.connection.remote_address();
        SocketAddr::new(peer.ip().to_canonical(), peer.port())
    }

    /// Whether a request for `authority` may come over this connection.
    fn covers(&self, authority: &str) -> bool {
        self.secured
            .as_ref()
            .is_some_and(|secured| secured.covers(authority))
    }
}

/// Serves `session` until either side has had enough.
pub(super) async fn serve(session: Arc<Session>, draining: watch::Receiver<bool>) {
    let Some(control) = open_control(&session).await else {
        return;
    };
    let mut served = Served {
        session: Arc::clone(&session),
        control,
        requests: FuturesUnordered::new(),
        unidirectional: FuturesUnordered::new(),
        opened: 0,
        next: 0,
        sent: VecDeque::new(),
    };
    let drained = served.run_open(draining).await;
    if drained {
        served.close_in_order().await;
    }
}

/// The stream that has to stay open for as long as the connection.
async fn open_control(session: &Session) -> Option<SendStream> {
    let opened = timeout(session.limits.head_deadline, session.connection.open_uni());
    let mut control = opened.await.ok()?.ok()?;
    let opening = opening(MAX_HEAD_BYTES).freeze();
    control.write_chunk(opening).await.ok()?;
    Some(control)
}

/// The running parts of a connection.
struct Served<R, U> {
    session: Arc<Session>,
    control: SendStream,
    requests: FuturesUnordered<R>,
    unidirectional: FuturesUnordered<U>,
    opened: u32,
    /// Id of the first request not taken.
    next: u64,
    /// Responses that may not have arrived whole. No more than streams can be open at once, and a few.
    sent: VecDeque<SendStream>,
}

type Requests = futures_util::future::BoxFuture<'static, Option<SendStream>>;
type Listening = futures_util::future::BoxFuture<'static, ()>;

impl Served<Requests, Listening> {
    /// Serves until the connection ends (false) or is to be drained (true).
    async fn run_open(&mut self, mut draining: watch::Receiver<bool>) -> bool {
        let connection = self.session.connection.clone();
        let mut quiet = interval(QUIET);
        quiet.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(sent) = self.requests.next() => self.keep(sent),
                _ = quiet.tick() => self.stay_open(),
                request = connection.accept_bi() => match request {
                    Ok((outbound, inbound)) => self.take(outbound, inbound),
                    Err(_) => { self.finish_lost().await; return false }
                },
                Some(()) = self.unidirectional.next() => {}
                stream = connection.accept_uni() => match stream {
                    Ok(stream) => self.listen(stream),
                    Err(_) => { self.finish_lost().await; return false }
                },
                () = drained(&mut draining) => return true,
            }
        }
    }

    /// Lets the client know that the connection is used, while a tunnel is open. Where it takes nothing, it is not.
    fn stay_open(&mut self) {
        if self.session.tunnels.load(Ordering::Relaxed) > 0 {
            let nothing = Bytes::from_static(NOTHING);
            let _ = self.control.write_chunk(nothing).now_or_never();
        }
    }

    /// Ends without breaking anything off: see the module.
    async fn close_in_order(&mut self) {
        let connection = self.session.connection.clone();
        let _ = self.control.write_chunk(goaway(LAST_STREAM).freeze()).await;
        let grace = Instant::now() + DRAIN_GRACE;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(grace) => break,
                Some(sent) = self.requests.next() => self.keep(sent),
                request = connection.accept_bi() => match request {
                    Ok((outbound, inbound)) => self.take(outbound, inbound),
                    Err(_) => return self.finish_lost().await,
                },
            }
        }
        let _ = self.control.write_chunk(goaway(self.next).freeze()).await;
        loop {
            tokio::select! {
                biased;
                sent = self.requests.next() => match sent {
                    Some(sent) => self.keep(sent),
                    None => break,
                },
                request = connection.accept_bi() => match request {
                    Ok((outbound, inbound)) => reject(outbound, inbound),
                    Err(_) => return self.finish_lost().await,
                },
            }
        }
        for response in self.sent.drain(..) {
            // Stopped or gone: either way there is nothing more to wait for.
            let _ = response.stopped().await;
        }
        self.session.close(Code::NoError);
    }

    /// The connection is gone; what still runs finds that out, and is logged.
    async fn finish_lost(&mut self) {
        while self.requests.next().await.is_some() {}
    }

    fn take(&mut self, outbound: SendStream, inbound: RecvStream) {
        self.next = u64::from(VarInt::from(inbound.id())) + 4;
        self.requests
            .push(answer(Arc::clone(&self.session), outbound, inbound).boxed());
    }

    fn listen(&mut self, stream: RecvStream) {
        self.opened += 1;
        if self.opened > MAX_UNIDIRECTIONAL {
            return self.session.close(Code::ExcessiveLoad);
        }
        self.unidirectional
            .push(listen(Arc::clone(&self.session), stream).boxed());
    }

    /// Remembers a response until it has arrived.
    fn keep(&mut self, sent: Option<SendStream>) {
        let Some(sent) = sent else { return };
        self.sent.push_back(sent);
        if self.sent.len() <= KEPT_UNLOOKED {
            return;
        }
        if let Some(oldest) = self.sent.pop_front()
            && oldest.stopped().now_or_never().is_none()
        {
            self.sent.push_back(oldest);
        }
    }
}

async fn drained(draining: &mut watch::Receiver<bool>) {
    // An error means that the core has ended.
    let _ = draining.wait_for(|draining| *draining).await;
}

fn reject(mut outbound: SendStream, mut inbound: RecvStream) {
    // Errors mean that the client has ended it already.
    let _ = outbound.reset(code(Code::RequestRejected));
    let _ = inbound.stop(code(Code::RequestRejected));
}

/// Answers one request. Gives back what may not have arrived yet.
async fn answer(
    session: Arc<Session>,
    outbound: SendStream,
    inbound: RecvStream,
) -> Option<SendStream> {
    let requests = session.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let mut inbound = Inbound::new(inbound);
    let head = match inbound.head(session.limits.head_deadline).await {
        Ok(head) => head,
        Err(NoRequest::Refused(refusal)) => {
            let exchange = StreamExchange::new(session.clone(), inbound, outbound);
            return refuse(&session, exchange, refusal).await;
        }
        Err(NoRequest::Gone) => {
            broke_off(&session, requests);
            return None;
        }
        Err(NoRequest::Connection(code)) => {
            session.close(code);
            record_malformed(&session);
            return None;
        }
    };
    let priority = Priority::of(&head.parts.headers);
    let authority = head.parts.uri.authority();
    let directed = authority.is_some_and(|authority| session.covers(authority.as_str()));
    let mut exchange = StreamExchange::new(session.clone(), inbound, outbound);
    exchange.prioritize(priority);
    if !directed {
        return refuse(&session, exchange, Refusal::Misdirected).await;
    }
    let mut request = Request {
        head: head.parts,
        peer: session.peer(),
        secure: true,
    };
    let started = std::time::Instant::now();
    let edge = &session.edge;
    if head.websocket {
        let key = Key::upgrade(&mut request.head, rand::random());
        let answered = decide(&edge.table, &head_of(&request));
        // Nobody but an upstream speaks WebSocket.
        if !matches!(answered.answer, Answer::Forward(_) | Answer::Guarded(_)) {
            return refuse(&session, exchange, Refusal::Connect).await;
        }
        let mut connect = Connect::new(exchange, key);
        let _open = OpenTunnel::on(&session.tunnels);
        carry_out(edge, &request, answered, started, &mut connect).await;
        exchange = connect.into_inner();
    } else {
        let answered = decide(&edge.table, &head_of(&request));
        if !matches!(answered.answer, Answer::Forward(_)) {
            exchange = exchange.local();
        }
        carry_out(edge, &request, answered, started, &mut exchange).await;
    }
    let sent = exchange.into_sent();
    if sent.is_none() {
        broke_off(&session, requests);
    }
    sent
}

/// Counts a tunnel until it is dropped.
struct OpenTunnel<'a>(&'a AtomicU32);

impl<'a> OpenTunnel<'a> {
    fn on(tunnels: &'a AtomicU32) -> Self {
        tunnels.fetch_add(1, Ordering::Relaxed);
        Self(tunnels)
    }
}

impl Drop for OpenTunnel<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request that came to nothing, and ends a connection that has too many of them.
fn broke_off(session: &Session, requests: u32) {
    let broken_off = session.broken_off.fetch_add(1, Ordering::Relaxed) + 1;
    if broken_off > MAX_BROKEN_OFF + requests / 2 {
        session.close(Code::ExcessiveLoad);
    }
}

/// A head that ends its connection has a line, though nobody is sent a status.
fn record_malformed(session: &Session) {
    let (edge, refusal) = (&session.edge, Refusal::Malformed);
    let refused = &edge.metrics.heads_refused;
    refused.with_label_values(&[refusal.label()]).inc();
    let (peer, now) = (session.peer(), std::time::Instant::now());
    record_refused(edge, Protocol::Http3, peer, now, refusal, None);
}

/// Says why a request is none. The connection goes on: each stream is framed by itself.
async fn refuse(
    session: &Session,
    mut exchange: StreamExchange,
    refusal: Refusal,
) -> Option<SendStream> {
    let edge = &session.edge;
    let line = format!("{refusal}\n");
    let length = line.len() as u64;
    let answer = Answer::Respond(Response::text(refusal.status(), line.clone()));
    let mut head = response_head(edge, None, true, &answer, Some(length));
    if refusal == Refusal::Connect {
        let methods = HeaderValue::from_static("GET, HEAD, OPTIONS");
        head.headers.insert(ALLOW, methods);
    }
    let started = std::time::Instant::now();
    let refused = &edge.metrics.heads_refused;
    refused.with_label_values(&[refusal.label()]).inc();
    let told = async {
        exchange.start(head, false).await?;
        exchange.send(line.into(), true).await
    };
    let sent = told.await.is_ok().then_some(length);
    if sent.is_none() {
        exchange.abort();
    }
    let (protocol, peer) = (exchange.protocol(), session.peer());
    record_refused(edge, protocol, peer, started, refusal, sent);
    exchange.into_sent()
}

/// Reads a unidirectional stream to its end, which some may not have.
async fn listen(session: Arc<Session>, mut stream: RecvStream) {
    let mut kind = Unidirectional::default();
    while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
        let mut bytes: Bytes = chunk.bytes;
        while !bytes.is_empty() {
            match kind.take(&mut bytes) {
                Ok(Verdict::On) => {}
                Ok(Verdict::Prioritize(stream, wish)) => {
                    session.changed.set(stream, Priority::parse(&wish));
                }
                Ok(Verdict::Is(number)) => {
                    let bit = 1u8 << (number & 7);
                    if session.seen.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
                        return session.close(Code::StreamCreation);
                    }
                }
                Ok(Verdict::Ignored) => {
                    // An error means that it has ended anyway.
                    let _ = stream.stop(code(Code::StreamCreation));
                    return;
                }
                Err(code) => return session.close(code),
            }
        }
    }
    if kind.is_critical() {
        session.close(Code::ClosedCriticalStream);
    }
}
