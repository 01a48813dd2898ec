//! One exchange as pingora sees it: a session whose two ends are bounded channels.
//!
//! pingora wants to own what it reads from and writes to; an [`Exchange`](crate::exchange::Exchange) is
//! borrowed. So pingora gets this, and [`super::carry`] moves what passes between it and the exchange. It
//! holds no more than a few parts and what a retry may send again. It knows no limits of time: those of the
//! client are the exchange's, those of the upstream the peer's.

use std::fmt::Write as _;
use std::net::SocketAddr as InetAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::custom::{CustomMessageWrite, server};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::sync::mpsc;

use crate::limits::RETRY_BYTES;

/// What the client sends, on its way to pingora.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A part of the body, or of the tunnel.
    Part(Bytes),
    /// Its end, with trailers if there are some.
    End(Option<HeaderMap>),
}

/// What pingora sends, on its way to the client.
#[derive(Debug)]
pub(super) enum Outbound {
    /// A head that another one follows.
    Interim(Box<ResponseHeader>),
    /// The head of the response; whether nothing follows.
    Start(Box<ResponseHeader>, bool),
    /// The head that turns the exchange into a tunnel.
    Tunnel(Box<ResponseHeader>),
    /// A part of the body, or of the tunnel.
    Part(Bytes),
    /// The end of the body, with trailers if there are some.
    End(Option<HeaderMap>),
}

/// The request, and how its body gets here.
pub(super) struct Asked {
    /// As it is to be sent on.
    pub(super) head: RequestHeader,
    /// Whether a body comes.
    pub(super) has_body: bool,
    /// Whether a 101 makes a tunnel of it.
    pub(super) can_tunnel: bool,
    /// The client.
    pub(super) peer: InetAddr,
}

/// The request, and the two channels it is carried out between.
pub(super) struct Ends {
    pub(super) asked: Asked,
    pub(super) inbound: mpsc::Receiver<Inbound>,
    pub(super) outbound: mpsc::Sender<Outbound>,
}

/// The session.
pub(super) struct Bridge {
    asked: Asked,
    peer: SocketAddr,
    inbound: mpsc::Receiver<Inbound>,
    outbound: mpsc::Sender<Outbound>,
    read: Read,
    written: Option<ResponseHeader>,
    ended: bool,
    tunnelled: bool,
    sent_bytes: usize,
    read_bytes: usize,
}

/// How far the request's body has been read, and what of it could be sent again.
struct Read {
    done: bool,
    kept: Option<BytesMut>,
    truncated: bool,
}

impl Bridge {
    pub(super) fn new(ends: Ends) -> Self {
        let Ends {
            asked,
            inbound,
            outbound,
        } = ends;
        Self {
            peer: SocketAddr::Inet(asked.peer),
            read: Read {
                done: !asked.has_body,
                kept: None,
                truncated: false,
            },
            asked,
            inbound,
            outbound,
            written: None,
            ended: false,
            tunnelled: false,
            sent_bytes: 0,
            read_bytes: 0,
        }
    }

    /// Cancel safe: what has been taken from the channel is returned at once.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.read.done {
            return Ok(None);
        }
        match self.inbound.recv().await {
            Some(Inbound::Part(part)) => {
                self.read_bytes += part.len();
                self.read.keep(&part);
                Ok(Some(part))
            }
            // pingora has no place for trailers: what it carries are tunnels and HTTP/1.1, and neither has any here.
            Some(Inbound::End(_)) => {
                self.read.done = true;
                Ok(None)
            }
            // The other end of the channel knows why, and answers for it.
            None => Error::e_explain(ErrorType::ReadError, "the client broke off").map_err(down),
        }
    }

    async fn write(&self, out: Outbound) -> Result<()> {
        self.outbound.send(out).await.map_err(|_| {
            down(Error::explain(
                ErrorType::WriteError,
                "the client takes no more",
            ))
        })
    }

    async fn start(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        let tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if head.status.is_informational() && !tunnel {
            return self.write(Outbound::Interim(head)).await;
        }
        if self.written.is_some() {
            return Ok(());
        }
        self.written = Some((*head).clone());
        if tunnel {
            self.tunnelled = true;
            // From here on the client may send again.
            self.read.done = false;
            return self.write(Outbound::Tunnel(head)).await;
        }
        self.ended = end;
        self.write(Outbound::Start(head, end)).await
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        if part.is_empty() || self.ended {
            return Ok(());
        }
        self.sent_bytes += part.len();
        self.write(Outbound::Part(part)).await
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        self.write(Outbound::End(trailers)).await
    }

    /// Whether the response ends with `task`.
    async fn task(&mut self, task: HttpTask) -> Result<bool> {
        match task {
            HttpTask::Header(head, end) => {
                let interim = head.status.is_informational();
                self.start(head, end).await?;
                Ok(end && !interim)
            }
            HttpTask::Body(part, end) | HttpTask::UpgradedBody(part, end) => {
                self.part(part.unwrap_or_default()).await?;
                Ok(end)
            }
            HttpTask::Trailer(trailers) => {
                self.end(trailers.map(|trailers| *trailers)).await?;
                Ok(true)
            }
            HttpTask::Done => Ok(true),
            HttpTask::Failed(error) => Err(error),
        }
    }
}

impl Read {
    fn keep(&mut self, part: &Bytes) {
        let Some(kept) = self.kept.as_mut() else {
            return;
        };
        if self.truncated || kept.len() + part.len() > RETRY_BYTES {
            self.truncated = true;
            *kept = BytesMut::new();
        } else {
            kept.extend_from_slice(part);
        }
    }
}

fn down(error: Box<Error>) -> Box<Error> {
    error.into_down()
}

#[async_trait]
impl server::Session for Bridge {
    fn req_header(&self) -> &RequestHeader {
        &self.asked.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.asked.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.next().await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.read.done {
            // That the client has left is noticed at the other end of the channels, which then drops this.
            return std::future::pending().await;
        }
        self.next().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        // What nobody reads is the exchange's to drop.
        Ok(())
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.start(head, end).await
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.start(Box::new(head.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.part(data).await?;
        if end { self.end(None).await } else { Ok(()) }
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.end(Some(trailers)).await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ended = false;
        for task in tasks {
            ended |= self.task(task).await?;
        }
        if ended {
            self.end(None).await?;
        }
        Ok(ended)
    }

    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, _: Option<Duration>) {}

    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_total_drain_timeout(&mut self, _: Option<Duration>) {}

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        None
    }

    fn request_summary(&self) -> String {
        let mut summary = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            summary,
            "{} {}",
            self.asked.head.method,
            self.asked.head.uri.path()
        );
        summary
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_ref()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        // Dropping it without an end is what breaks the response off.
        self.ended = true;
    }

    fn is_body_done(&mut self) -> bool {
        self.read.done
    }

    async fn finish(&mut self) -> Result<()> {
        if self.written.is_some() {
            self.end(None).await
        } else {
            Ok(())
        }
    }

    fn is_body_empty(&mut self) -> bool {
        !self.asked.has_body
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent_bytes
    }

    fn body_bytes_read(&self) -> usize {
        self.read_bytes
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        Some(&self.peer)
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        self.read.kept.get_or_insert_with(BytesMut::new);
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.read.truncated
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        let kept = self.read.kept.as_ref()?;
        let kept = (!self.read.truncated && !kept.is_empty()).then_some(kept)?;
        Some(Bytes::copy_from_slice(kept))
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }

    fn is_upgrade_req(&self) -> bool {
        self.asked.can_tunnel
    }

    fn was_upgraded(&self) -> bool {
        self.tunnelled
    }
}
