//! Moves one exchange through pingora: what the client sends to it, what it sends to the client.
//!
//! One task, two futures: the lane's, which works between two channels, and the pump, which works on the exchange.
//! Whichever end breaks off ends both, so an upstream never works for a client that has left, and a client
//! sees that a response is not whole. Between the two lie a few parts at most.

use std::time::Duration;

use bytes::Bytes;
use helix_framing::websocket::{Close, Frames};
use http::{HeaderMap, StatusCode};
use pingora_http::ResponseHeader;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::bridge::{Asked, Ends, Inbound, Outbound};
use crate::edge::Edge;
use crate::exchange::{Broken, Ended, Exchange, ResponseHead};
use crate::forward::Failure;
use crate::in_flight::Departure;
use crate::limits::{PARTS_BETWEEN, UPSTREAM_RELEASE};
use crate::tally::WEBSOCKET_CLOSED;

/// What came of a request that pingora carried.
pub(super) struct Carried {
    pub(super) ended: Ended,
    /// Whether the response was sent to its end.
    pub(super) whole: bool,
    /// Why it came to nothing, where the upstream is not asked any more.
    pub(super) failure: Option<Failure>,
}

/// How long the upstream is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of its response, from the last that the client sent.
    pub(super) head: Duration,
    /// For what it sends next through a tunnel.
    pub(super) tunnel: Duration,
    /// Whether it only counts once the client has sent everything: until then the server may have nothing to say.
    pub(super) from_end: bool,
}

/// Carries `asked` by `lane`, which is given its ends of the channels.
pub(super) async fn carry<E, L, F>(
    edge: &Edge,
    (exchange, departure): (&mut E, Option<&Departure<'_>>),
    asked: Asked,
    patience: Patience,
    lane: L,
) -> Carried
where
    E: Exchange,
    L: FnOnce(Ends) -> F,
    F: Future<Output = ()> + Send,
{
    let (to_pingora, inbound) = mpsc::channel(PARTS_BETWEEN);
    let (outbound, from_pingora) = mpsc::channel(PARTS_BETWEEN);
    let reading = asked.has_body;
    let mut proxying = Box::pin(lane(Ends {
        asked,
        inbound,
        outbound,
    }));
    let pump = Pump {
        exchange,
        to_pingora,
        from_pingora,
        reading,
        patience,
        head_by: Instant::now() + patience.head,
        tunnel: None,
        edge,
        departure,
        carried: Carried {
            ended: Ended::default(),
            whole: false,
            failure: None,
        },
    };
    let mut pump = std::pin::pin!(pump.run());
    let (carried, read) = tokio::select! {
        biased;
        ended = &mut pump => ended,
        () = &mut proxying => return pump.await.0,
    };
    if carried.whole && read {
        // All is said; what is left is to put the connection back. If that is not at once, it is not worth it.
        let _ = timeout(UPSTREAM_RELEASE, proxying).await;
    }
    carried
}

struct Pump<'a, E> {
    exchange: &'a mut E,
    to_pingora: mpsc::Sender<Inbound>,
    from_pingora: mpsc::Receiver<Outbound>,
    /// Whether the client has more to send.
    reading: bool,
    patience: Patience,
    head_by: Instant,
    tunnel: Option<Tunnel>,
    edge: &'a Edge,
    /// When its release is no longer live.
    departure: Option<&'a Departure<'a>>,
    carried: Carried,
}

/// A WebSocket, followed so that it can be ended between two frames.
struct Tunnel {
    /// Of the server.
    frames: Frames,
    /// Of the client.
    from_client: Frames,
    /// It ends between two frames, with this one.
    closing: Option<Close>,
    /// Of those that end together, when: from 0 to 1.
    lot: f64,
    /// The server is silent for too long then.
    silent_by: Instant,
}

enum Event {
    /// pingora sends; nothing more when it is done.
    Out(Option<Outbound>),
    /// The client has sent something, for which there is room.
    In(Bytes),
    /// It has sent everything, and these trailers behind it.
    End(Option<HeaderMap>),
    /// The client has left, or broke the protocol.
    Gone(Broken),
    /// The head has not come in time.
    Late,
    /// What lasts is to end with this.
    Drain(Close),
    /// Nothing has come through the tunnel for too long.
    Silent,
}

/// Whether to go on.
enum Step {
    On,
    Over,
}

impl<E: Exchange> Pump<'_, E> {
    /// The result, and whether the client had sent everything.
    async fn run(mut self) -> (Carried, bool) {
        loop {
            let step = match self.step().await {
                Ok(step) => step,
                Err(broken) => {
                    self.carried.ended.error = Some(broken);
                    Step::Over
                }
            };
            if matches!(step, Step::Over) {
                return (self.carried, !self.reading);
            }
        }
    }

    async fn step(&mut self) -> Result<Step, Broken> {
        let waiting =
            self.carried.ended.status.is_none() && !(self.patience.from_end && self.reading);
        let lasting = self
            .tunnel
            .as_ref()
            .filter(|tunnel| tunnel.closing.is_none());
        let lot = lasting.map(|tunnel| tunnel.lot);
        let silent_by = self.tunnel.as_ref().map(|tunnel| tunnel.silent_by);
        let event = tokio::select! {
            biased;
            // First, or a server that sends without a pause would never be heard out.
            () = self.edge.shutdown.requested(), if lot.is_some() => Event::Drain(Close::GoingAway),
            () = closes(self.departure, lot) => Event::Drain(Close::ServiceRestart),
            out = self.from_pingora.recv() => Event::Out(out),
            event = from_client(self.exchange, &self.to_pingora, self.reading) => event,
            () = sleep_until(self.head_by), if waiting => Event::Late,
            () = sleep_until(silent_by.unwrap_or(self.head_by)), if silent_by.is_some() => Event::Silent,
        };
        match event {
            Event::Out(None) => Ok(Step::Over),
            Event::Out(Some(out)) => self.send(out).await,
            Event::In(part) => {
                self.head_by = Instant::now() + self.patience.head;
                if let Some(tunnel) = &mut self.tunnel {
                    tunnel.from_client.pass_all(&part);
                }
                self.hand_on(Inbound::Part(part));
                Ok(Step::On)
            }
            Event::End(trailers) => {
                self.head_by = Instant::now() + self.patience.head;
                self.reading = false;
                self.hand_on(Inbound::End(trailers));
                Ok(Step::On)
            }
            Event::Gone(broken) => Err(broken),
            Event::Late => Ok(self.fail(Failure::late("no head of a response in time"))),
            Event::Drain(close) => self.drain(close).await,
            Event::Silent => self.give_up().await,
        }
    }

    async fn send(&mut self, out: Outbound) -> Result<Step, Broken> {
        match out {
            // Whether the client may send its body is not for the upstream to say.
            Outbound::Interim(head) if head.status == StatusCode::CONTINUE => {}
            Outbound::Interim(head) => self.exchange.interim(response_head(&head)).await?,
            Outbound::Start(head, _) if self.exchange.must_tunnel() && head.status.is_success() => {
                let cause = format!("{} in place of a tunnel", head.status);
                return Ok(self.fail(Failure::unfit(cause)));
            }
            Outbound::Start(head, ends) => {
                let head = response_head(&head);
                let status = head.status;
                self.exchange.start(head, ends).await?;
                self.carried.ended.status = Some(status);
                if ends {
                    return Ok(self.over());
                }
            }
            Outbound::Tunnel(_) if !self.exchange.can_tunnel() => {
                let cause = "it speaks another protocol that nobody asked for";
                return Ok(self.fail(Failure::gateway(cause)));
            }
            Outbound::Tunnel(head) => {
                let status = self.exchange.tunnel(response_head(&head)).await?;
                self.carried.ended.status = Some(status);
                self.tunnel = Some(Tunnel {
                    frames: Frames::default(),
                    from_client: Frames::default(),
                    closing: None,
                    lot: rand::random(),
                    silent_by: Instant::now() + self.patience.tunnel,
                });
                if let Some(departure) = self.departure {
                    departure.becomes_tunnel();
                }
                self.reading = true;
            }
            Outbound::Part(part) => return self.part(part).await,
            Outbound::End(trailers) => {
                self.exchange.end(trailers).await?;
                return Ok(self.over());
            }
        }
        Ok(Step::On)
    }

    async fn part(&mut self, mut part: Bytes) -> Result<Step, Broken> {
        let mut close = None;
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.silent_by = Instant::now() + self.patience.tunnel;
            if tunnel.closing.is_some() {
                part.truncate(tunnel.frames.pass(&part));
                close = tunnel.closing.filter(|_| tunnel.frames.is_between());
            } else {
                tunnel.frames.pass_all(&part);
            }
        }
        self.carried.ended.bytes += part.len() as u64;
        self.exchange.send(part, false).await?;
        match close {
            Some(close) => self.close(close).await,
            None => Ok(Step::On),
        }
    }

    /// Ends the tunnel where the frame under way ends.
    async fn drain(&mut self, close: Close) -> Result<Step, Broken> {
        let Some(tunnel) = &mut self.tunnel else {
            return Ok(Step::On);
        };
        tunnel.closing = Some(close);
        if tunnel.frames.is_between() {
            return self.close(close).await;
        }
        Ok(Step::On)
    }

    /// Ends a tunnel whose server is silent, in order if no frame is under way.
    async fn give_up(&mut self) -> Result<Step, Broken> {
        let between = |tunnel: &Tunnel| tunnel.frames.is_between();
        if self.tunnel.as_ref().is_some_and(between) {
            return self.close(Close::GoingAway).await;
        }
        let cause = "it is silent within a frame for too long";
        Err(Broken::Upstream(cause.to_owned()))
    }

    /// Tells both ends, each between two frames of the other; a server whose client is within one sees the end alone.
    async fn close(&mut self, close: Close) -> Result<Step, Broken> {
        if close == Close::ServiceRestart {
            self.edge.tally.drained[WEBSOCKET_CLOSED].add(1);
        }
        let between = |tunnel: &Tunnel| tunnel.from_client.is_between();
        if self.reading && self.tunnel.as_ref().is_some_and(between) {
            self.hand_on(Inbound::Part(Bytes::from_static(close.as_client())));
            self.hand_on(Inbound::End(None));
            self.reading = false;
        }
        let frame = Bytes::from_static(close.as_server());
        self.carried.ended.bytes += frame.len() as u64;
        self.exchange.send(frame, false).await?;
        self.exchange.end(None).await?;
        Ok(self.over())
    }

    /// There is room for what was read; for what is added at the end there may be none, and it is left out.
    fn hand_on(&self, inbound: Inbound) {
        let _ = self.to_pingora.try_send(inbound);
    }

    fn fail(&mut self, failure: Failure) -> Step {
        self.carried.failure = Some(failure);
        Step::Over
    }

    const fn over(&mut self) -> Step {
        self.carried.whole = true;
        Step::Over
    }
}

/// What the client does next. Room is made before anything is read, so nothing can be lost. Cancel safe.
async fn from_client<E: Exchange>(
    exchange: &mut E,
    to_pingora: &mpsc::Sender<Inbound>,
    reading: bool,
) -> Event {
    if !reading {
        return Event::Gone(exchange.gone().await);
    }
    let Ok(room) = to_pingora.reserve().await else {
        // pingora is done, which it says at the other channel.
        return std::future::pending().await;
    };
    let event = match exchange.read().await {
        Ok(Some(part)) => Event::In(part),
        Ok(None) => match exchange.trailers().await {
            Ok(trailers) => Event::End(trailers.filter(|trailers| !trailers.is_empty())),
            Err(broken) => Event::Gone(broken),
        },
        Err(broken) => Event::Gone(broken),
    };
    // Nobody else takes the room before it is used.
    drop(room);
    event
}

/// Waits until the tunnel that drew `lot` is to be closed since its release is no longer live.
async fn closes(departure: Option<&Departure<'_>>, lot: Option<f64>) {
    match (departure, lot) {
        (Some(departure), Some(lot)) => departure.closes(lot).await,
        (None, _) | (_, None) => std::future::pending().await,
    }
}

/// Without what belongs to the connection to the upstream: the client's has its own.
fn response_head(head: &ResponseHeader) -> ResponseHead {
    let mut response = ResponseHead {
        status: head.status,
        headers: head.headers.clone(),
    };
    super::head::drop_connection_fields(&mut response.headers);
    response
}
