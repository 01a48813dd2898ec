//! One core's UDP socket, and the way of a packet to the core or process that it is for.
//!
//! The kernel spreads packets over the cores by the addresses they come from and go to. When a client's address
//! changes, its packets arrive at another core: the id in them says whose they are ([`Reader`]), and they
//! are put into that core's letter box. Packets of another process, which drains beside this one on the
//! same address, go to whoever has asked for them. A box that is full loses packets, as the network does.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::sync::Mutex;
use tokio::sync::mpsc;

use super::connection_id::{ProcessTag, Reader};

/// Packets waiting for another core. Clients that change their address send a few each.
const BOX_PACKETS: usize = 256;

/// A packet that arrived where it is not read.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Its datagram, whole.
    pub packet: Bytes,
    /// Where it came from.
    pub from: SocketAddr,
    /// Where it was sent to, if known.
    pub to: Option<std::net::IpAddr>,
    /// The core that has to read it.
    pub core: u8,
}

/// Letter boxes of the cores of one process, and of the processes that drain beside it.
#[derive(Debug)]
pub struct Post {
    process: ProcessTag,
    cores: Vec<mpsc::Sender<Letter>>,
    others: RwLock<HashMap<ProcessTag, mpsc::Sender<Letter>>>,
    /// Another process reads the socket.
    left: AtomicBool,
}

impl Post {
    /// For this many cores, with what each of them receives.
    pub(super) fn new(
        process: ProcessTag,
        cores: usize,
    ) -> (Arc<Self>, Vec<mpsc::Receiver<Letter>>) {
        let (senders, boxes) = (0..cores).map(|_| mpsc::channel(BOX_PACKETS)).unzip();
        let post = Self {
            process,
            cores: senders,
            others: RwLock::default(),
            left: AtomicBool::new(false),
        };
        (Arc::new(post), boxes)
    }

    /// The tag in the ids that this process gives out.
    #[must_use]
    pub const fn process(&self) -> ProcessTag {
        self.process
    }

    /// From now on packets of `process` go to `letters`.
    pub fn forward(&self, process: ProcessTag, letters: mpsc::Sender<Letter>) {
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        others.insert(process, letters);
    }

    /// Leaves reading to a successor on the same socket: what it reads for this process comes by [`Post::deliver`].
    pub fn leave_socket(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// Takes a packet that another process received for this one. False when there is no room or no such core.
    pub fn deliver(&self, letter: Letter) -> bool {
        self.cores
            .get(usize::from(letter.core))
            .is_some_and(|core| core.try_send(letter).is_ok())
    }

    /// Whether `reader` is neither here nor anybody known.
    fn send(&self, reader: Reader, letter: Letter) {
        if reader.process == self.process {
            self.deliver(letter);
            return;
        }
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(letters) = others.get(&reader.process) {
            // Full: lost, as on the network.
            let _ = letters.try_send(letter);
        }
    }

    fn is_known(&self, reader: Reader) -> bool {
        reader.process == self.process && usize::from(reader.core) < self.cores.len()
            || self
                .others
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains_key(&reader.process)
    }
}

/// The socket of one core.
#[derive(Debug)]
pub(super) struct CoreSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    reader: Reader,
    post: Arc<Post>,
    letters: Mutex<mpsc::Receiver<Letter>>,
}

impl CoreSocket {
    pub(super) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        reader: Reader,
        post: Arc<Post>,
        letters: mpsc::Receiver<Letter>,
    ) -> Self {
        Self {
            inner,
            reader,
            post,
            letters: Mutex::new(letters),
        }
    }

    /// Sends on what is for others, and closes the gaps. What is left keeps its order.
    fn sort(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let stride = meta.stride.max(1);
        let (mut at, mut kept) = (0, 0);
        while at < meta.len {
            let end = (at + stride).min(meta.len);
            match Reader::of_packet(&buffer[at..end]) {
                Some(reader) if reader != self.reader && self.post.is_known(reader) => {
                    let letter = Letter {
                        packet: Bytes::copy_from_slice(&buffer[at..end]),
                        from: meta.addr,
                        to: meta.dst_ip,
                        core: reader.core,
                    };
                    self.post.send(reader, letter);
                }
                _ => {
                    if kept != at {
                        buffer.copy_within(at..end, kept);
                    }
                    kept += end - at;
                }
            }
            at = end;
        }
        meta.len = kept;
    }

    /// One packet from the letter box.
    fn receive(&self, cx: &mut Context<'_>, buffer: &mut [u8], meta: &mut RecvMeta) -> Poll<()> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match letters.poll_recv(cx) {
                Poll::Ready(Some(letter)) if letter.packet.len() <= buffer.len() => {
                    let length = letter.packet.len();
                    buffer[..length].copy_from_slice(&letter.packet);
                    *meta = RecvMeta {
                        addr: letter.from,
                        len: length,
                        stride: length,
                        ecn: None,
                        dst_ip: letter.to,
                    };
                    return Poll::Ready(());
                }
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl AsyncUdpSocket for CoreSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if let ([buffer, ..], [first, ..]) = (&mut *bufs, &mut *meta)
            && self.receive(cx, buffer, first).is_ready()
        {
            return Poll::Ready(Ok(1));
        }
        if self.post.left.load(Ordering::Acquire) {
            // The letter box wakes; the socket has a reader that knows what to do with everybody's packets.
            return Poll::Pending;
        }
        let received = match self.inner.poll_recv(cx, bufs, meta) {
            Poll::Ready(Ok(received)) => received,
            other => return other,
        };
        for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(received) {
            self.sort(buffer, meta);
        }
        // A batch without a byte is skipped by who reads it.
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
