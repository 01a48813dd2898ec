//! WebSockets through the edge: asked for by an upgrade of HTTP/1.1 or by extended CONNECT, to a server that echoes.

mod http2;
mod http3;

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use helix_edge::limits::Limits;
use helix_edge::tally::{WEBSOCKET_CLOSED, WEBSOCKET_CUT};

use serde_json::json;
use tokio::time::timeout;

use crate::draining::{calls, drain, leave, until_flies};
use crate::support::{Client, Edge, PATIENCE};
use crate::tls::Secure;
use crate::upstream::{HOST, Link, Seen, Upstream, forward_to};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// The sample key of RFC 6455 1.3, and what accepts it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Close with status 1001, as a server sends it.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xE9];

/// One frame (RFC 6455 5.2).
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    last: bool,
    kind: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn of(kind: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            last: true,
            kind,
            payload: payload.as_ref().to_vec(),
        }
    }

    fn close(code: u16) -> Self {
        Self::of(CLOSE, code.to_be_bytes())
    }

    /// As a client sends it, masked, or as a server does.
    fn bytes(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.last) << 7 | self.kind];
        let masked = u8::from(mask.is_some()) << 7;
        match self.payload.len() {
            length @ ..126 => bytes.push(masked | length as u8),
            length @ ..65536 => {
                bytes.push(masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        let mask = mask.inspect(|mask| bytes.extend(mask)).unwrap_or_default();
        let masking = mask.iter().cycle();
        bytes.extend(
            self.payload
                .iter()
                .zip(masking)
                .map(|(byte, mask)| byte ^ mask),
        );
        bytes
    }

    /// The frame that starts here, whose bytes `take` gives, so many at a time.
    fn read(mut take: impl FnMut(usize) -> Option<Vec<u8>>) -> Option<Self> {
        let head = take(2)?;
        let length = match head[1] & 0x7F {
            126 => u64::from(u16::from_be_bytes(take(2)?.try_into().unwrap())),
            127 => u64::from_be_bytes(take(8)?.try_into().unwrap()),
            length => u64::from(length),
        };
        let mask = if head[1] & 0x80 == 0 {
            vec![0]
        } else {
            take(4)?
        };
        let mut payload = take(length as usize)?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Some(Self {
            last: head[0] & 0x80 != 0,
            kind: head[0] & 0x0F,
            payload,
        })
    }
}

/// Answers the handshake that was asked for, and keeps it.
fn accept(link: &mut Link, keep: &dyn Fn(Seen)) -> bool {
    let Some(seen) = link.request() else {
        return false;
    };
    let keys = seen.fields("sec-websocket-key");
    let accept = accept_of(keys.first().unwrap());
    keep(seen);
    link.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    ))
}

fn accept_of(key: &str) -> String {
    use base64::Engine as _;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        text.as_bytes(),
    );
    base64::engine::general_purpose::STANDARD.encode(hash)
}

/// Sends each message back as it came, answers pings, and ends as it is told to: by a close, which it answers with
/// the same, or by the text `end`, upon which it closes with 4002 itself.
fn echo() -> Upstream {
    Upstream::raw(|mut link, keep| {
        if !accept(&mut link, keep) {
            return;
        }
        while let Some(mut frame) = Frame::read(|count| link.take(count)) {
            if frame.payload == b"end" {
                frame = Frame::close(4002);
            } else if frame.kind == PING {
                frame.kind = PONG;
            }
            if !link.send(frame.bytes(None)) || frame.kind == CLOSE {
                return;
            }
        }
    })
}

fn edge(upstream: &Upstream) -> Edge {
    with_limits(upstream, Limits::default())
}

fn with_limits(upstream: &Upstream, limits: Limits) -> Edge {
    let edge = Edge::with(limits);
    forward_to(&edge, upstream.addr, &json!({}));
    edge
}

fn upgrade() -> String {
    format!(
        "GET /api/chat?room=1 HTTP/1.1\r\nHost: {HOST}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: chat\r\n\
         Origin: https://{HOST}\r\n\r\n"
    )
}

/// A client's end of a tunnel over any stream.
struct Socket<S> {
    stream: S,
    received: Vec<u8>,
}

impl<S: Read + Write> Socket<S> {
    /// Shakes hands, and fails unless the server agrees.
    fn open(stream: S) -> Self {
        let mut socket = Self {
            stream,
            received: Vec::new(),
        };
        socket.stream.write_all(upgrade().as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(socket.take(1).expect("closed within a head"));
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        let accept = format!("sec-websocket-accept: {ACCEPT}").to_ascii_lowercase();
        for line in [
            accept.as_str(),
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-protocol: chat",
        ] {
            assert_eq!(
                head.matches(&format!("\r\n{line}\r\n")).count(),
                1,
                "{head}"
            );
        }
        socket
    }

    fn send(&mut self, frame: &Frame) {
        let bytes = frame.bytes(Some([1, 2, 3, 4]));
        self.stream.write_all(&bytes).unwrap();
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut part = vec![0; 64 * 1024];
        while self.received.len() < count {
            match self.stream.read(&mut part) {
                Ok(read @ 1..) => self.received.extend_from_slice(&part[..read]),
                Ok(0) => return None,
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing comes"),
                Err(_) => return None,
            }
        }
        Some(self.received.drain(..count).collect())
    }

    fn frame(&mut self) -> Option<Frame> {
        Frame::read(|count| self.take(count))
    }

    /// Says every kind of thing, and hears it back.
    fn talk(&mut self) {
        for length in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
            let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let frame = Frame::of(if length < 126 { TEXT } else { BINARY }, payload);
            self.send(&frame);
            assert!(self.frame() == Some(frame), "{length} bytes");
        }
        // A message in three fragments, with a ping between two of them.
        let fragments = [(false, TEXT, "one"), (false, 0, "two"), (true, 0, "three")];
        for (at, (last, kind, payload)) in fragments.into_iter().enumerate() {
            let frame = Frame {
                last,
                ..Frame::of(kind, payload)
            };
            self.send(&frame);
            assert_eq!(self.frame(), Some(frame));
            if at == 1 {
                self.send(&Frame::of(PING, "there?"));
                assert_eq!(self.frame(), Some(Frame::of(PONG, "there?")));
            }
        }
    }
}

fn plain(edge: &Edge) -> Socket<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect(edge.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Socket::open(stream)
}

#[test]
fn messages_of_every_kind_pass_both_ways_and_either_side_may_close() {
    let upstream = echo();
    let edge = edge(&upstream);
    for (last, code) in [(Frame::close(4001), 4001), (Frame::of(TEXT, "end"), 4002)] {
        let mut socket = plain(&edge);
        socket.talk();
        socket.send(&last);
        assert_eq!(socket.frame(), Some(Frame::close(code)));
        assert_eq!(socket.frame(), None);
        upstream.until_ended();
    }
    let seen = &upstream.seen()[0];
    assert!(seen.head.starts_with("GET /api/chat?room=1 HTTP/1.1\r\n"));
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-version", "13"),
        ("origin", &format!("https://{HOST}")),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(seen.fields(name), [value], "{}", seen.head);
    }
    edge.until_idle();
}

#[test]
fn a_client_of_tls_is_carried_as_well() {
    let upstream = echo();
    let secure = Secure::for_hosts(&[HOST], Limits::default());
    forward_to(&secure.edge, upstream.addr, &json!({}));
    let config = std::sync::Arc::new(secure.client(&[b"http/1.1"]));
    let mut socket = Socket::open(secure.connect(&config, HOST).unwrap());
    socket.talk();
    socket.send(&Frame::close(1000));
    assert_eq!(socket.frame(), Some(Frame::close(1000)));
    assert_eq!(socket.frame(), None);
    assert_eq!(upstream.seen()[0].fields("x-forwarded-proto"), ["https"]);
}

#[test]
fn what_the_first_frames_hurry_ahead_of_is_not_lost() {
    let upstream = Upstream::raw(|mut link, keep| {
        let Some(seen) = link.request() else { return };
        keep(seen);
        // The head and the first frame in one.
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        link.send([head.as_bytes(), &Frame::of(TEXT, "hello").bytes(None)].concat());
        while link.fill() {}
    });
    let edge = edge(&upstream);
    let mut client = edge.client();
    client.send(upgrade());
    assert_eq!(client.head().status, 101);
    assert_eq!(client.take(7), Frame::of(TEXT, "hello").bytes(None));
}

#[test]
fn a_server_that_refuses_says_so_itself_and_the_connection_goes_on() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nbye\n".to_vec()
    });
    let edge = edge(&upstream);
    let mut client = edge.client();
    for _ in 0..2 {
        client.send(upgrade());
        let response = client.response();
        assert_eq!((response.status, response.text()), (403, "bye\n"));
        assert_eq!(response.header("connection"), Some("keep-alive"));
    }
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(client.response().text(), "page");
}

#[test]
fn a_switch_that_nobody_asked_for_is_a_bad_gateway() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            .to_vec()
    });
    let edge = edge(&upstream);
    let asked = upgrade();
    for without in [
        // Another protocol, no protocol, no key: none of them asks for a WebSocket.
        asked.replace("Upgrade: websocket\r\n", ""),
        asked.replace("keep-alive, Upgrade", "keep-alive"),
        asked.replace("Sec-WebSocket-Key", "X-Key"),
    ] {
        let mut client = edge.client();
        client.send(&without);
        assert_eq!(client.response().status, 502, "{without}");
    }
}

#[test]
fn a_tunnel_whose_server_is_silent_ends_and_one_whose_client_is_does_not() {
    let limits = Limits {
        tunnel_idle: Duration::from_millis(400),
        body_window: Duration::from_millis(100),
        ..Limits::default()
    };
    let upstream = Upstream::raw(|mut link, keep| {
        if !accept(&mut link, keep) {
            return;
        }
        for _ in 0..6 {
            std::thread::park_timeout(Duration::from_millis(150));
            link.send(Frame::of(TEXT, "tick").bytes(None));
        }
        while link.fill() {}
    });
    let edge = with_limits(&upstream, limits);
    let mut socket = plain(&edge);
    for _ in 0..6 {
        assert_eq!(socket.frame(), Some(Frame::of(TEXT, "tick")));
    }
    assert_eq!(socket.frame(), Some(Frame::close(1001)));
    assert_eq!(socket.frame(), None);
    upstream.until_ended();
}

#[test]
fn a_side_that_leaves_without_a_word_ends_the_other() {
    let upstream = echo();
    let edge = edge(&upstream);
    drop(plain(&edge));
    upstream.until_ended();
    let leaves = Upstream::raw(|mut link, keep| {
        accept(&mut link, keep);
    });
    forward_to(&edge, leaves.addr, &json!({}));
    assert_eq!(plain(&edge).frame(), None);
    edge.until_idle();
}

/// Sends frames without a pause until nobody takes them.
fn babble() -> Upstream {
    Upstream::raw(|mut link, keep| {
        if !accept(&mut link, keep) {
            return;
        }
        for number in 0u32.. {
            let payload = vec![number as u8; (number as usize * 37) % 70_000];
            if !link.send(Frame::of(BINARY, payload).bytes(None)) {
                return;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_a_tunnel_between_two_frames_however_many_are_in_flight() {
    let upstream = babble();
    let edge = edge(&upstream);
    let addr = edge.addr;
    let (seen, started) = std::sync::mpsc::channel();
    let reading = tokio::task::spawn_blocking(move || {
        let stream = std::net::TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut socket = Socket::open(stream);
        let mut frames = 0u32;
        loop {
            let frame = socket.frame().expect("ended without a close");
            if frame.kind == CLOSE {
                assert_eq!(frame, Frame::close(1001));
                assert_eq!(socket.take(1), None, "something follows the close");
                return;
            }
            assert_eq!(frame.payload.len(), (frames as usize * 37) % 70_000);
            frames += 1;
            if frames == 100 {
                seen.send(()).unwrap();
            }
        }
    });
    tokio::task::spawn_blocking(move || started.recv_timeout(PATIENCE).unwrap())
        .await
        .unwrap();
    edge.shutdown.request();
    timeout(PATIENCE, reading).await.unwrap().unwrap();
    upstream.until_ended();
    timeout(PATIENCE, edge.handle.join())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_the_end_of_a_frame_that_is_half_sent() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::raw(move |mut link, keep| {
        if !accept(&mut link, keep) {
            return;
        }
        let frame = Frame::of(TEXT, "0123456789").bytes(None);
        link.send(&frame[..5]);
        // Until the edge drains.
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
        let next = Frame::of(TEXT, "next").bytes(None);
        link.send([&frame[5..], &next].concat());
        while link.fill() {}
    });
    let edge = edge(&upstream);
    let mut client = Client::connect(edge.addr);
    client.send(upgrade());
    assert_eq!(client.head().status, 101);
    assert_eq!(client.take(5), *b"\x81\x0a012");
    edge.shutdown.request();
    // No new connection is taken any more: the drain is under way.
    let until = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(edge.addr).is_ok() {
        assert!(Instant::now() < until, "it never drains");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    go_on.send(()).unwrap();
    assert_eq!(client.take(7 + 4), [b"3456789", &GOING_AWAY[..]].concat());
    assert!(client.is_closed());
    upstream.until_ended();
    timeout(PATIENCE, edge.handle.join())
        .await
        .unwrap()
        .unwrap();
}

/// Echoes, and gives away the first close that it is sent.
fn echo_until_closed() -> (Upstream, std::sync::mpsc::Receiver<Frame>) {
    let (closed, closing) = std::sync::mpsc::channel();
    let upstream = Upstream::raw(move |mut link, keep| {
        if !accept(&mut link, keep) {
            return;
        }
        while let Some(frame) = Frame::read(|count| link.take(count)) {
            if frame.kind == CLOSE {
                closed.send(frame).unwrap();
                return;
            }
            link.send(frame.bytes(None));
        }
    });
    (upstream, closing)
}

#[test]
fn a_tunnel_of_a_release_that_left_is_closed_in_the_last_part_of_its_time() {
    let (upstream, closed) = echo_until_closed();
    let edge = edge(&upstream);
    let mut sockets: Vec<_> = (0..20).map(|_| plain(&edge)).collect();
    let left = Instant::now();
    let serving = leave(&edge, &calls(), &drain("0s", "2s"));
    until_flies(&serving, 0, 20);
    for socket in &mut sockets {
        // It is no request any more, whose time is over.
        socket.send(&Frame::of(TEXT, "still here"));
        assert_eq!(socket.frame(), Some(Frame::of(TEXT, "still here")));
    }
    let mut ends = Vec::new();
    for socket in &mut sockets {
        assert_eq!(socket.frame(), Some(Frame::close(1012)));
        assert_eq!(socket.frame(), None);
        ends.push(left.elapsed());
        // The server is told as a client would.
        assert_eq!(closed.recv_timeout(PATIENCE).unwrap(), Frame::close(1012));
    }
    let first = *ends.first().unwrap();
    let last = *ends.last().unwrap();
    assert!(first >= Duration::from_millis(1500), "{ends:?}");
    assert!(last < Duration::from_secs(10), "{ends:?}");
    until_flies(&serving, 0, 0);
    let drained = edge.metrics.counted(|core| &core.drained[WEBSOCKET_CLOSED]);
    assert_eq!(drained, 20);
    for line in edge.logged(20) {
        assert_eq!(
            (&line["status"], &line["error"]),
            (&json!(101), &json!(null))
        );
    }
}

#[test]
fn a_tunnel_that_is_within_a_frame_at_the_end_of_its_time_is_cut() {
    let upstream = Upstream::raw(|mut link, keep| {
        if !accept(&mut link, keep) {
            return;
        }
        link.send(&Frame::of(TEXT, "0123456789").bytes(None)[..5]);
        while link.fill() {}
    });
    let edge = edge(&upstream);
    let mut client = Client::connect(edge.addr);
    client.send(upgrade());
    assert_eq!(client.head().status, 101);
    assert_eq!(client.take(5), *b"\x81\x0a012");
    leave(&edge, &calls(), &drain("1h", "0s"));
    assert!(client.is_closed());
    upstream.until_ended();
    let line = &edge.logged(1)[0];
    assert_eq!(line["error"], "cut at the end of its release's drain");
    let cut = edge.metrics.counted(|core| &core.drained[WEBSOCKET_CUT]);
    assert_eq!(cut, 1);
}
