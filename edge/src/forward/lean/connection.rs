//! One connection to an upstream.
//!
//! While nothing is on its way it holds no buffers: what arrives is read beside it, into memory of the thread, and
//! handed on in memory of its own size.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::super::failure::Failure;
use super::super::group::Picked;
use super::tls;
use crate::buffer::Buffer;
use crate::limits::UPSTREAM_READ_BYTES;
use crate::socket::Socket;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; UPSTREAM_READ_BYTES].into());
}

/// What happens next on a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// This has arrived; nothing at its end.
    Arrived(io::Result<Bytes>),
    /// So many bytes have left.
    Sent(io::Result<usize>),
    /// Neither, for too long.
    Late,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    /// To be sent.
    pub(super) outbound: Buffer,
    /// Whether TLS may hold some of what was sent.
    flushes: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Connects to the very address that was picked.
pub(super) async fn connect(picked: &Picked) -> Result<Connection, Failure> {
    let patience = picked.group().timeouts().connect.duration();
    // Nothing of the request has left, so any may be sent elsewhere.
    let failed = |error: io::Error| Failure::gateway(format!("connect: {error}")).repeating(true);
    let socket = match timeout(patience, open(picked)).await {
        Ok(opened) => opened.map_err(failed)?,
        Err(_) => return Err(Failure::late("no connection in time").repeating(true)),
    };
    Ok(Connection {
        socket,
        outbound: Buffer::default(),
        flushes: false,
        timer: None,
    })
}

async fn open(picked: &Picked) -> io::Result<Socket> {
    let stream = TcpStream::connect(picked.addr).await?;
    // What is sent is gathered here already.
    stream.set_nodelay(true)?;
    match &picked.tls {
        None => Ok(Socket::Plain(stream)),
        Some(name) => tls::shake(picked.group(), name, stream).await,
    }
}

impl Connection {
    /// Whether the server has neither closed it nor sent what nobody asked for. Costs no system call.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        let read = Pin::new(&mut self.socket).poll_read(&mut cx, &mut byte);
        read.is_pending()
    }

    /// Whether all that was to be sent has left.
    pub(super) fn is_sent(&self) -> bool {
        self.outbound.is_empty() && !self.flushes
    }

    /// Gives back what is empty.
    pub(super) fn release(&mut self) {
        self.outbound.release();
    }

    /// Sends what is to be sent, reads what has arrived, and says so when neither has moved by `deadline`. Cancel
    /// safe.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Event> {
        if !self.outbound.is_empty()
            && let Poll::Ready(sent) = self.poll_send(cx)
        {
            return Poll::Ready(Event::Sent(sent));
        }
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Event::Sent(Err(error)));
        }
        if let Poll::Ready(read) = self.poll_read(cx) {
            return Poll::Ready(Event::Arrived(read));
        }
        self.poll_deadline(cx, deadline).map(|()| Event::Late)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut part = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut part))?;
            Poll::Ready(Ok(Bytes::copy_from_slice(part.filled())))
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.outbound))?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.outbound.advance(sent);
        self.flushes = true;
        Poll::Ready(Ok(sent))
    }

    /// TLS keeps records that the socket has no room for, and says nothing of them while it is read.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushes && self.outbound.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.flushes = false;
        }
        Poll::Ready(Ok(()))
    }

    /// One timer for all requests: a deadline that moves away costs nothing until it would have fired.
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
