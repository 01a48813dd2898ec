//! One request on one connection.
//!
//! ```text
//!  Asking ──interim──▶ Asking ──head──▶ Answering ──end──▶ kept, or closed
//!    │ closed, late, malformed            │ the same
//!    ▼                                    ▼
//!  a failure, perhaps another try       broken off, which the client sees
//! ```
//!
//! The body goes on to be sent in both states, so that either side may speak first.

use std::future::{pending, poll_fn};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use helix_framing::{HeadScan, Reply, Scan, parse_reply};
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::super::call::Call;
use super::super::failure::Failure;
use super::super::group::Picked;
use super::connection::{Connection, Event};
use super::incoming::Incoming;
use super::upload::Upload;
use super::{pool, request};
use crate::exchange::{Broken, Ended, Exchange, Relayed, ResponseHead};
use crate::limits::MAX_INTERIM_RESPONSES;

/// Borrowed for one try.
pub(super) struct Trip<'a, 'c, E> {
    call: &'a Call<'c>,
    picked: &'a Picked,
    upload: &'a mut Upload,
    exchange: &'a mut E,
    connection: Connection,
    /// Arrived and not understood yet.
    arrived: Bytes,
    /// Since when nothing has moved.
    moved: Instant,
    /// Whether the head of the response has come.
    answering: bool,
    /// Whether anything of the request has left.
    sent: bool,
    /// Whether anything of a response has come.
    heard: bool,
    /// Why no more of the request can be sent.
    deaf: Option<std::io::Error>,
}

/// Why there is no more of a response.
#[derive(Debug)]
enum Stop {
    /// The client left, or broke the protocol.
    Client(Broken),
    /// The server closed the connection.
    Closed,
    Io(std::io::Error),
    Late,
    /// What came is not HTTP.
    Bad(String),
}

/// What the client does next.
enum FromClient {
    Part(Result<Option<Bytes>, Broken>),
    Gone(Broken),
}

impl<'a, 'c, E: Exchange> Trip<'a, 'c, E> {
    pub(super) fn new(
        call: &'a Call<'c>,
        picked: &'a Picked,
        upload: &'a mut Upload,
        exchange: &'a mut E,
        connection: Connection,
    ) -> Self {
        Self {
            call,
            picked,
            upload,
            exchange,
            connection,
            arrived: Bytes::new(),
            moved: Instant::now(),
            answering: false,
            sent: false,
            heard: false,
            deaf: None,
        }
    }

    /// # Errors
    /// When nothing of a response has reached the client.
    pub(super) async fn run(mut self) -> Result<Ended, Failure> {
        let out = &mut self.connection.outbound;
        let room = out.room(request::USUAL_BYTES);
        request::write_head(room, self.call, self.upload.framed());
        self.upload.again(out);
        let reply = match self.reply().await {
            Ok(reply) => reply,
            Err(stop) => return self.unanswered(stop),
        };
        let mut ended = Ended::default();
        if let Err(broken) = self.answer(reply, &mut ended).await {
            ended.error = Some(broken);
        }
        Ok(ended)
    }

    /// What becomes of a request without a response.
    fn unanswered(self, stop: Stop) -> Result<Ended, Failure> {
        let repeats = !self.heard && self.upload.repeats(!self.sent);
        let broken_off = |cause: String| Failure::gateway(cause).repeating(repeats);
        Err(match stop {
            Stop::Client(Broken::Body(cause)) => Failure::body(cause),
            Stop::Client(broken) => {
                return Ok(Ended {
                    error: Some(broken),
                    ..Ended::default()
                });
            }
            Stop::Closed => broken_off("closed without a response".into()),
            Stop::Io(error) => broken_off(error.to_string()),
            Stop::Late => Failure::late("no head of a response in time"),
            Stop::Bad(problem) => Failure::gateway(problem),
        })
    }

    /// The final head.
    async fn reply(&mut self) -> Result<Reply, Stop> {
        for _ in 0..MAX_INTERIM_RESPONSES {
            let head = self.head().await?;
            let head_only = self.call.request.head.method == Method::HEAD;
            let reply = parse_reply(&head, head_only).map_err(|bad| Stop::Bad(bad.to_string()))?;
            match reply.status {
                StatusCode::SWITCHING_PROTOCOLS => {
                    return Err(Stop::Bad("another protocol that nobody asked for".into()));
                }
                // Whether the client may send its body is not for the upstream to say.
                StatusCode::CONTINUE => {}
                status if status.is_informational() => {
                    let interim = self.exchange.interim(head_of(&reply));
                    interim.await.map_err(Stop::Client)?;
                }
                _ => {
                    self.answering = true;
                    return Ok(reply);
                }
            }
        }
        Err(Stop::Bad("interim responses without end".into()))
    }

    /// The bytes of one head, of the few parts it comes in.
    async fn head(&mut self) -> Result<Bytes, Stop> {
        let mut scan = HeadScan::default();
        let mut whole = BytesMut::new();
        loop {
            let here = if whole.is_empty() {
                &self.arrived[..]
            } else {
                &whole
            };
            match scan.look(here).map_err(|bad| Stop::Bad(bad.to_string()))? {
                Scan::Complete(length) if whole.is_empty() => {
                    return Ok(self.arrived.split_to(length));
                }
                Scan::Complete(length) => {
                    self.arrived = whole.split_off(length).freeze();
                    return Ok(whole.freeze());
                }
                Scan::More => {}
            }
            whole.extend_from_slice(&std::mem::take(&mut self.arrived));
            if whole.is_empty() {
                self.arrived = self.more().await?;
            } else {
                let more = self.more().await?;
                whole.extend_from_slice(&more);
            }
        }
    }

    /// Waits for more of the response. Meanwhile the request goes on.
    async fn more(&mut self) -> Result<Bytes, Stop> {
        if self.answering {
            // What the client took its time for is not the server's.
            self.moved = Instant::now();
        }
        loop {
            let deadline = self.moved + self.patience();
            let reads = self.deaf.is_none() && self.connection.outbound.is_empty();
            let Self {
                connection,
                exchange,
                ..
            } = self;
            let event = tokio::select! {
                biased;
                event = poll_fn(|cx| connection.poll(cx, deadline)) => event,
                event = from_client(*exchange, self.upload.is_read(), reads) => {
                    self.client(event).await.map_err(Stop::Client)?;
                    continue;
                }
            };
            match event {
                Event::Arrived(Ok(part)) if part.is_empty() => {
                    return Err(self.deaf.take().map_or(Stop::Closed, Stop::Io));
                }
                Event::Arrived(Ok(part)) => {
                    self.heard = true;
                    return Ok(part);
                }
                Event::Arrived(Err(error)) => return Err(Stop::Io(error)),
                Event::Sent(Ok(_)) => {
                    self.sent = true;
                    self.moved = Instant::now();
                }
                Event::Sent(Err(error)) => {
                    // It may have answered before it stopped listening.
                    self.connection.outbound.clear();
                    self.deaf = Some(error);
                }
                Event::Late => return Err(Stop::Late),
            }
        }
    }

    fn patience(&self) -> Duration {
        let waits = self.picked.group().timeouts();
        if self.answering || !self.connection.outbound.is_empty() {
            waits.stall.duration()
        } else {
            waits.response.duration()
        }
    }

    async fn client(&mut self, event: FromClient) -> Result<(), Broken> {
        let out = &mut self.connection.outbound;
        match event {
            FromClient::Gone(broken) => return Err(broken),
            FromClient::Part(Err(broken)) => return Err(broken),
            FromClient::Part(Ok(Some(part))) => self.upload.take(part, out)?,
            FromClient::Part(Ok(None)) => {
                let trailers = self.exchange.trailers().await?;
                self.upload.end(trailers, out)?;
            }
        }
        self.moved = Instant::now();
        Ok(())
    }

    /// Sends the response on. What is left of the connection is kept before the client has all of it: a client that
    /// is slow to take the end holds nothing of the server.
    async fn answer(mut self, reply: Reply, ended: &mut Ended) -> Result<(), Broken> {
        let mut incoming = Incoming::new(reply.body);
        let persists = reply.persists;
        let status = reply.status;
        if incoming.is_done() {
            let exchange = self.conclude(persists);
            exchange.relay(Relayed::new(&reply), true).await?;
            ended.status = Some(status);
            return Ok(());
        }
        self.exchange.relay(Relayed::new(&reply), false).await?;
        drop(reply);
        ended.status = Some(status);
        loop {
            let part = incoming.part(&mut self.arrived);
            let part = part.map_err(|bad| Broken::Upstream(bad.to_string()))?;
            let trailers = if incoming.is_done() {
                incoming.trailers()
            } else {
                None
            };
            if let Some(part) = part {
                let length = part.len() as u64;
                if incoming.is_done() && trailers.is_none() {
                    self.conclude(persists).send(part, true).await?;
                    ended.bytes += length;
                    return Ok(());
                }
                self.exchange.send(part, false).await?;
                ended.bytes += length;
            } else if !incoming.is_done() {
                match self.more().await {
                    Ok(arrived) => self.arrived = arrived,
                    Err(Stop::Closed) if matches!(incoming, Incoming::UntilClose) => {
                        return self.exchange.end(None).await;
                    }
                    Err(stop) => return Err(stop.broken()),
                }
            }
            if incoming.is_done() {
                return self.conclude(persists).end(trailers).await;
            }
        }
    }

    /// Keeps the connection, if both messages are whole and nothing follows.
    fn conclude(self, persists: bool) -> &'a mut E {
        let clean = self.arrived.is_empty() && self.connection.is_sent();
        if persists && clean && self.upload.is_read() && self.deaf.is_none() {
            let patience = self.picked.group().timeouts().idle.duration();
            pool::put(self.picked.server(), self.connection, patience);
        }
        self.exchange
    }
}

/// Cancel safe. With `reads` there is room for more of the body.
async fn from_client<E: Exchange>(exchange: &mut E, is_read: bool, reads: bool) -> FromClient {
    match (is_read, reads) {
        (true, _) => FromClient::Gone(exchange.gone().await),
        (false, true) => FromClient::Part(exchange.read().await),
        (false, false) => pending().await,
    }
}

fn head_of(reply: &Reply) -> ResponseHead {
    ResponseHead {
        status: reply.status,
        headers: reply.headers(),
    }
}

impl Stop {
    /// What it means once a response has begun.
    fn broken(self) -> Broken {
        match self {
            Self::Client(broken) => broken,
            Self::Closed => Broken::Upstream("closed within its response".into()),
            Self::Io(error) => Broken::Upstream(error.to_string()),
            Self::Late => Broken::Upstream("its response stands still".into()),
            Self::Bad(problem) => Broken::Upstream(problem),
        }
    }
}
