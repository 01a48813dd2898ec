//! pingora's own framing beside ours: behind the gate, where it reads one message, and alone, where it reads all.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use helix_framing::Gate;
use http::header::CONNECTION;
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use pingora_core::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Counted, Differences, Message, Read, cases, escaped, ours, seeds};

/// How many cases are usual.
const CASES: u64 = 40_000;

/// Bytes that arrive in pieces, as far as a gate lets them through. At their end it waits for more.
#[derive(Debug)]
struct Arriving {
    bytes: Vec<u8>,
    taken: Arc<AtomicUsize>,
    gate: Gate,
    steps: [usize; 3],
    reads: usize,
}

impl AsyncRead for Arriving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = self.taken.load(Ordering::Relaxed);
        let step = self.steps[self.reads % self.steps.len()].min(into.remaining());
        let piece = taken..self.bytes.len().min(taken.saturating_add(step));
        if piece.is_empty() || self.gate.is_done() {
            return Poll::Pending;
        }
        let Self { bytes, gate, .. } = &mut *self;
        let admitted = gate
            .admit(&bytes[piece])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        into.put_slice(&bytes[taken..taken + admitted]);
        self.reads += 1;
        self.taken.fetch_add(admitted, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Arriving {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Shutdown for Arriving {
    async fn shutdown(&mut self) {}
}

impl UniqueID for Arriving {
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for Arriving {}

impl Peek for Arriving {}

impl GetTimingDigest for Arriving {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Arriving {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Arriving {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

/// What pingora makes of `bytes` behind `gate`.
fn read(bytes: &[u8], steps: [usize; 3], gate: Gate) -> Read {
    let taken = Arc::new(AtomicUsize::new(0));
    let arriving = Arriving {
        bytes: bytes.to_vec(),
        taken: Arc::clone(&taken),
        gate,
        steps,
        reads: 0,
    };
    // Everything that will ever come is there: what is not ready at once never is.
    match message(arriving).now_or_never() {
        None => Read::Incomplete,
        Some(Err(error)) => Read::Refused(error.to_string()),
        Some(Ok((mut message, ahead))) => {
            message.length = taken.load(Ordering::Relaxed) - ahead;
            Read::Message(message)
        }
    }
}

/// One message, and how many bytes behind it were taken too.
async fn message(arriving: Arriving) -> pingora_core::Result<(Message, usize)> {
    let mut session = HttpSession::new(Box::new(arriving));
    session.set_pipelining_enabled(true);
    session.set_read_timeout(None);
    if session.read_request().await?.is_none() {
        return Error::e_explain(ErrorType::ConnectionClosed, "before a byte was read");
    }
    let mut body = Vec::new();
    while let Some(part) = session.read_body_bytes().await? {
        body.extend_from_slice(&part);
    }
    let head = session.req_header();
    let mut fields: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), escaped(value.as_bytes())))
        .collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    let message = Message {
        length: 0,
        method: head.method.to_string(),
        target: head.uri.to_string(),
        fields,
        body: escaped(&body),
    };
    // Only a connection that goes on gives back what was read ahead; whether it would is not the question here.
    session
        .req_header_mut()
        .insert_header(CONNECTION, "keep-alive")?;
    session.respect_keepalive();
    let ahead = session
        .reuse()
        .await?
        .and_then(|reusable| reusable.into_parts().1);
    Ok((message, ahead.map_or(0, |ahead| ahead.len())))
}

#[test]
fn pingora_reads_behind_the_gate_exactly_the_message_that_we_read() {
    let seeds = seeds(CASES);
    let (mut counted, mut differences) = (Counted::default(), Differences::default());
    for seed in seeds.clone() {
        let bytes = cases::case(seed);
        let expected = ours::in_origin_form(&bytes);
        counted.count(&expected);
        let Ok((head, start)) = ours::head(&bytes) else {
            continue;
        };
        let found = read(
            &bytes,
            cases::steps(seed),
            Gate::message(start, head.framing),
        );
        match (&expected, &found) {
            // The gate has stopped it, at the byte that no chunked body has.
            (Read::Refused(_), Read::Refused(_)) => {}
            _ if found == expected => {}
            _ => differences.add(seed, &bytes, &expected, &found),
        }
    }
    eprintln!("behind the gate: {counted:?}");
    differences.assert_none();
    counted.assert_varied(&seeds);
}

#[test]
fn pingora_alone_frames_what_we_take_as_we_do() {
    let seeds = seeds(CASES);
    let (mut counted, mut differences) = (Counted::default(), Differences::default());
    for seed in seeds.clone() {
        let bytes = cases::case(seed);
        let expected = ours::in_origin_form(&bytes);
        counted.count(&expected);
        let found = read(&bytes, cases::steps(seed), Gate::open());
        match (&expected, &found) {
            (Read::Refused(_), _) => {}
            (Read::Incomplete, Read::Incomplete | Read::Refused(_)) => {}
            _ if found == expected => {}
            _ => differences.add(seed, &bytes, &expected, &found),
        }
    }
    eprintln!("alone: {counted:?}");
    differences.assert_none();
    counted.assert_varied(&seeds);
}
