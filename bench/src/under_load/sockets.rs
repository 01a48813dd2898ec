//! WebSockets that say something every second and want it heard (RFC 6455); who is told that the service restarts comes again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use helix_tests::fleet::Fleet;
use helix_tests::wait;

use super::visitors::address;

/// Between two words of one socket.
const PACE: Duration = Duration::from_secs(1);
/// An echo that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(10);
/// `ok` from a client, masked with zeros, and from a server.
const SAID: [u8; 8] = [0x81, 0x82, 0, 0, 0, 0, b'o', b'k'];
const HEARD: [u8; 4] = [0x81, 2, b'o', b'k'];
/// Close with status 1012 (service restart).
const COME_AGAIN: [u8; 4] = [0x88, 2, 0x03, 0xF4];

/// A server whose WebSockets answer each word.
pub(super) struct Echo {
    pub(super) address: SocketAddr,
}

impl Echo {
    pub(super) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // An error is an end, and the other side sees it.
                std::thread::spawn(move || echo(stream));
            }
        });
        Ok(Self { address })
    }
}

fn echo(stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    read_head(&mut stream)?;
    stream.get_mut().write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    )?;
    let mut frame = [0; SAID.len()];
    loop {
        stream.read_exact(&mut frame)?;
        // A close frame with a status is as long as a word.
        if frame[0] != SAID[0] {
            return Ok(());
        }
        stream.get_mut().write_all(&HEARD)?;
    }
}

fn read_head(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut first = String::new();
    stream.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line)? > 0, "the head was cut off");
        if line.trim().is_empty() {
            return Ok(first);
        }
    }
}

/// They are open until they are closed.
pub(super) struct Sockets {
    stop: Arc<AtomicBool>,
    moved: Arc<AtomicU64>,
    echoes: Arc<AtomicU64>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Sockets {
    pub(super) fn open(fleet: &Fleet, host: &str, count: usize) -> anyhow::Result<Self> {
        let edges: Vec<SocketAddr> = fleet
            .edges()
            .map(|(_, edge)| address(&edge.http))
            .collect::<anyhow::Result<_>>()?;
        let mut sockets = Self {
            stop: Arc::default(),
            moved: Arc::default(),
            echoes: Arc::default(),
            threads: Vec::new(),
        };
        for number in 0..count {
            let edge = edges[number % edges.len()];
            let socket = connect(edge, host)?;
            let (host, stop) = (host.to_owned(), Arc::clone(&sockets.stop));
            let (moved, echoes) = (Arc::clone(&sockets.moved), Arc::clone(&sockets.echoes));
            sockets.threads.push(std::thread::spawn(move || {
                talk(socket, edge, &host, &stop, &moved, &echoes)
                    .with_context(|| format!("a WebSocket at {edge}"))
            }));
        }
        Ok(sockets)
    }

    /// How many were told to come again, and how many words were heard. Fails if any ended otherwise.
    pub(super) fn close(self) -> anyhow::Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a WebSocket's thread panicked"),
            }
        }
        Ok((
            self.moved.load(Ordering::Relaxed),
            self.echoes.load(Ordering::Relaxed),
        ))
    }
}

fn connect(edge: SocketAddr, host: &str) -> anyhow::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(edge)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut stream = BufReader::new(stream);
    let ask = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.get_mut().write_all(ask.as_bytes())?;
    let first = read_head(&mut stream)?;
    ensure!(first.starts_with("HTTP/1.1 101 "), "no WebSocket: {first}");
    Ok(stream)
}

fn talk(
    mut socket: BufReader<TcpStream>,
    edge: SocketAddr,
    host: &str,
    stop: &AtomicBool,
    moved: &AtomicU64,
    echoes: &AtomicU64,
) -> anyhow::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let said = socket.get_mut().write_all(&SAID);
        let mut frame = [0; HEARD.len()];
        socket
            .read_exact(&mut frame)
            .with_context(|| format!("hear what was said ({said:?})"))?;
        match frame {
            HEARD => echoes.fetch_add(1, Ordering::Relaxed),
            COME_AGAIN => {
                socket = connect(edge, host)?;
                moved.fetch_add(1, Ordering::Relaxed)
            }
            other => bail!("{other:02x?} instead of an echo"),
        };
        wait::pause(PACE);
    }
    Ok(())
}
