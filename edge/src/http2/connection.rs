//! One HTTP/2 connection from its preface to its last byte.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use helix_framing::Refusal;
use helix_framing::http2::check;
use http::header::{ALLOW, EXPECT};
use http::{HeaderMap, HeaderValue, Method};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};

use super::settings;
use super::stream::{Progress, Stream};
use super::untaken::Refused;
use super::wire::Wire;
use crate::access_log::record_refused;
use crate::answer::{Answer, Answered, Response, answer};
use crate::edge::Edge;
use crate::exchange::{
    Connect, Ended, Key, Protocol, Request, at_once, carry_out, carry_rest, finish, head_of,
};
use crate::limits::{BODY_STALL, LINGER, LINGER_BYTES, Limits};
use crate::tls::Secured;

/// Why a connection is cut whose client does not end a head, as metrics have it.
const SLOW_HEAD: &str = "slow_head";

/// Who is on the other side.
#[derive(Debug)]
pub struct Client {
    /// Its address.
    pub peer: SocketAddr,
    /// What the handshake settled, when it came over TLS.
    pub secured: Option<Secured>,
}

/// Serves `io`, of which `ahead` has been read already, until either side has had enough. The preface must
/// have come by `deadline`. Once `draining` is true, streams that are open are finished and no more accepted.
pub async fn serve<I>(
    edge: Arc<Edge>,
    limits: Limits,
    client: Client,
    (io, ahead): (I, BytesMut),
    deadline: Instant,
    mut draining: watch::Receiver<bool>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send,
{
    let wire = Wire::new(io, ahead);
    let Ok(Ok(h2)) = timeout_at(deadline, settings().handshake(wire.share())).await else {
        return;
    };
    let now = Instant::now();
    let mut connection = Connection {
        edge,
        limits,
        client,
        h2,
        wire,
        progress: Arc::default(),
        tasks: JoinSet::new(),
        timer: Box::pin(sleep_until(now + limits.idle_deadline)),
        idle_since: Some(now),
        ending: None,
    };
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = poll_fn(|cx| connection.poll(cx)) => break,
            // An error means that the core has ended, and this task with it.
            _ = draining.wait_for(|draining| *draining), if !told => {
                told = true;
                connection.h2.graceful_shutdown();
            }
        }
    }
    connection.end().await;
}

struct Connection<I> {
    edge: Arc<Edge>,
    limits: Limits,
    client: Client,
    h2: h2::server::Connection<Wire<I>, Bytes>,
    wire: Wire<I>,
    progress: Arc<Progress>,
    /// Streams that could not be answered at once.
    tasks: JoinSet<()>,
    /// Fires no later than the next deadline.
    timer: Pin<Box<Sleep>>,
    /// Since when there is no stream.
    idle_since: Option<Instant>,
    /// It has been told to go away, and is cut then.
    ending: Option<Instant>,
}

/// What the deadlines of a connection say.
enum Verdict {
    /// Look again then, if ever.
    Wait(Option<Instant>),
    /// Tell the client to go away, and why.
    End(Reason, Option<&'static str>),
    /// There is nobody to tell.
    Gone,
}

impl<I> Connection<I>
where
    I: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.poll_requests(cx).is_ready() {
                return Poll::Ready(());
            }
            while let Poll::Ready(Some(ended)) = self.tasks.poll_join_next(cx) {
                log_panic(ended);
            }
            if let Poll::Ready(Err(_)) = self.wire.poll_send(cx) {
                return Poll::Ready(());
            }
            self.record_refused();
            let now = Instant::now();
            match self.verdict(now) {
                Verdict::Gone => return Poll::Ready(()),
                Verdict::End(reason, abuse) => {
                    if let Some(abuse) = abuse {
                        let cut = &self.edge.metrics.http2_cut;
                        cut.with_label_values(&[abuse]).inc();
                    }
                    if abuse == Some(SLOW_HEAD) {
                        self.record_unanswered(Refusal::HeadTooSlow);
                    }
                    self.ending = Some(now + LINGER);
                    self.h2.abrupt_shutdown(reason);
                }
                Verdict::Wait(due) => {
                    if self.poll_timer(cx, due).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Reads and answers until nothing more has come. Ready when the connection has ended.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    if error.is_library() {
                        self.record_unanswered(Refusal::Malformed);
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if self.wire.resume() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn verdict(&mut self, now: Instant) -> Verdict {
        let waits = self.wire.waits();
        let stalled = waits.stalled.map(|since| since + self.limits.write_stall);
        let over = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if over(stalled) || over(self.ending) {
            return Verdict::Gone;
        }
        if self.ending.is_some() {
            return Verdict::Wait(earliest([stalled, self.ending, None]));
        }
        if waits.flooded {
            return Verdict::End(Reason::ENHANCE_YOUR_CALM, Some("flood"));
        }
        if self.progress.is_held() {
            return Verdict::End(Reason::ENHANCE_YOUR_CALM, Some("held"));
        }
        let head = waits.head.map(|since| since + self.limits.head_deadline);
        if over(head) {
            return Verdict::End(Reason::ENHANCE_YOUR_CALM, Some(SLOW_HEAD));
        }
        if !self.tasks.is_empty() {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(now);
        }
        let idle = self
            .idle_since
            .map(|since| since + self.limits.idle_deadline);
        if over(idle) {
            return Verdict::End(Reason::NO_ERROR, None);
        }
        Verdict::Wait(earliest([stalled, head, idle]))
    }

    /// Pending until it is time to look again. The timer is only moved when it would fire too late.
    fn poll_timer(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> Poll<()> {
        let Some(due) = due else {
            return Poll::Pending;
        };
        if due < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due);
        }
        self.timer.as_mut().poll(cx)
    }

    fn accept(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        let started = std::time::Instant::now();
        self.idle_since = None;
        self.wire.taken(respond.stream_id().as_u32());
        let (head, body) = request.into_parts();
        let mut request = Request {
            head,
            peer: self.client.peer,
            secure: self.client.secured.is_some(),
        };
        let (answered, key) = self.answer(&mut request);
        let mut stream = Stream::new(
            body,
            respond,
            Arc::clone(&self.progress),
            &self.limits,
            request.head.headers.contains_key(EXPECT),
        );
        let edge = Arc::clone(&self.edge);
        if let Some(key) = key {
            let mut stream = Connect::new(stream, key);
            self.tasks.spawn(async move {
                carry_out(&edge, &request, answered, started, &mut stream).await;
            });
            return;
        }
        let Some((head, body)) = at_once(&edge, &request, &answered) else {
            self.tasks.spawn(async move {
                carry_out(&edge, &request, answered, started, &mut stream).await;
            });
            return;
        };
        let (status, length) = (head.status, body.len());
        let pinned = answered.pinned;
        let mut ended = Ended::default();
        match stream.send_now(head, body) {
            Ok(rest) if rest.is_empty() => {
                ended.status = Some(status);
                ended.bytes = length as u64;
            }
            Ok(rest) => {
                ended.status = Some(status);
                self.tasks.spawn(async move {
                    let so_far = (started, ended);
                    carry_rest(&edge, &request, pinned.as_ref(), so_far, rest, &mut stream).await;
                });
                return;
            }
            Err(error) => ended.error = Some(error),
        }
        finish(
            &edge,
            &request,
            pinned.as_ref(),
            Protocol::Http2,
            started,
            &ended,
        );
    }

    /// The answer to `request`, and the key of the WebSocket that it asks for, if it does.
    fn answer(&self, request: &mut Request) -> (Answered, Option<Key>) {
        if let Err(refusal) = self.check(request) {
            return (self.refuse(request, refusal), None);
        }
        let connects = request.head.method == Method::CONNECT;
        let key = connects.then(|| Key::upgrade(&mut request.head, rand::random()));
        let answered = answer(&self.edge.table, &head_of(request));
        let is_sent_on = matches!(answered.answer, Answer::Forward(_) | Answer::Guarded(_));
        if key.is_some() && !is_sent_on {
            return (self.refuse(request, Refusal::Connect), None);
        }
        (answered, key)
    }

    fn check(&self, request: &mut Request) -> Result<(), Refusal> {
        let protocol = request.head.extensions.get::<h2::ext::Protocol>();
        let websocket =
            protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"));
        check(&mut request.head, websocket)?;
        match &self.client.secured {
            Some(secured) if !secured.covers(head_of(request).authority) => {
                Err(Refusal::Misdirected)
            }
            _ => Ok(()),
        }
    }

    /// Of what h2 has answered by itself.
    fn record_refused(&self) {
        for refused in self.wire.refused() {
            match refused {
                Refused::TooLarge => self.record(Refusal::HeadTooLarge, Some(0)),
                Refused::Malformed => self.record(Refusal::Malformed, None),
            }
        }
    }

    /// Requests that ended with the connection, for this reason, have their lines too.
    fn record_unanswered(&self, refusal: Refusal) {
        (0..self.wire.unanswered()).for_each(|_| self.record(refusal, None));
    }

    /// Counts a head that h2 refused, and writes its line. The client was sent a status if it was sent a body, of so many
    /// bytes.
    fn record(&self, refusal: Refusal, sent: Option<u64>) {
        self.count(refusal);
        let (peer, now) = (self.client.peer, std::time::Instant::now());
        record_refused(&self.edge, Protocol::Http2, peer, now, refusal, sent);
    }

    fn count(&self, refusal: Refusal) {
        let refused = &self.edge.metrics.heads_refused;
        refused.with_label_values(&[refusal.label()]).inc();
    }

    fn refuse(&self, request: &mut Request, refusal: Refusal) -> Answered {
        self.count(refusal);
        // What is refused is not held.
        request.head.headers = HeaderMap::new();
        let mut response = Response::text(refusal.status(), format!("{refusal}\n"));
        if refusal == Refusal::Connect {
            let methods = HeaderValue::from_static("GET, HEAD, OPTIONS");
            response.headers.push((ALLOW, methods));
        }
        Answered {
            pinned: None,
            answer: Answer::Respond(response),
            reason: "the request's head is refused",
            line: None,
        }
    }

    /// Lets the client read what it was told last, and the streams write their lines in the log.
    async fn end(self) {
        self.record_refused();
        let Self {
            h2,
            wire,
            mut tasks,
            ..
        } = self;
        drop(h2);
        if !wire.waits().is_stalled() {
            // Running out of time is the client's loss, and no error.
            let _ = timeout(LINGER, wire.drop_rest(LINGER_BYTES)).await;
        }
        drop(wire);
        let streams = async {
            while let Some(ended) = tasks.join_next().await {
                log_panic(ended);
            }
        };
        // What is left then is cut: it waits for an upstream, and for nobody.
        let _ = timeout(BODY_STALL, streams).await;
    }
}

fn earliest(dues: [Option<Instant>; 3]) -> Option<Instant> {
    dues.into_iter().flatten().min()
}

/// A panic ends one stream, and is told.
fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "stream task failed"
        );
    }
}
