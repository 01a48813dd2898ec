//! WebSockets through the edge: asked for by an upgrade of HTTP/1.1 or by extended CONNECT, to a server that echoes.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::ext::Protocol;
use helix_edge::limits::Limits;
use http::{HeaderMap, Request, StatusCode};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http3::Served;
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

/// A tunnel over one stream of HTTP/2.
struct Stream {
    send: h2::SendStream<Bytes>,
    body: h2::RecvStream,
    received: Vec<u8>,
}

impl Stream {
    async fn send(&mut self, frame: &Frame) {
        let mut bytes = Bytes::from(frame.bytes(Some([1, 2, 3, 4])));
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let room = std::future::poll_fn(|cx| self.send.poll_capacity(cx));
            let room = timeout(PATIENCE, room).await.unwrap().unwrap().unwrap();
            let part = bytes.split_to(room.min(bytes.len()));
            self.send.send_data(part, false).unwrap();
        }
    }

    /// The next bytes; none at the end.
    async fn fill(&mut self) -> bool {
        match timeout(PATIENCE, self.body.data()).await.unwrap() {
            Some(Ok(part)) => {
                self.body
                    .flow_control()
                    .release_capacity(part.len())
                    .unwrap();
                self.received.extend_from_slice(&part);
                true
            }
            Some(Err(_)) | None => false,
        }
    }

    async fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut rest = self.received.as_slice();
            let frame = Frame::read(|count| {
                let (part, behind) = rest.split_at_checked(count)?;
                rest = behind;
                Some(part.to_vec())
            });
            if let Some(frame) = frame {
                self.received = rest.to_vec();
                return Some(frame);
            }
            if !self.fill().await {
                return None;
            }
        }
    }
}

async fn h2_client(edge: &Edge) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(edge.addr).await.unwrap();
    let (requests, connection) = client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut requests = requests.ready().await.unwrap();
    // What is offered comes with the settings; a request behind them is answered after they were read.
    let request = Request::get(format!("http://{HOST}/")).body(()).unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    timeout(PATIENCE, response).await.unwrap().unwrap();
    assert!(requests.is_extended_connect_protocol_enabled());
    requests
}

async fn connect(
    requests: &mut SendRequest<Bytes>,
    path: &str,
    protocol: &'static str,
) -> (StatusCode, HeaderMap, Stream) {
    let request = Request::connect(format!("http://{HOST}{path}"))
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .header("sec-websocket-key", "not for the client to choose")
        .body(())
        .unwrap();
    *requests = requests.clone().ready().await.unwrap();
    let (response, send) = requests.send_request(request, false).unwrap();
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    let (head, body) = response.into_parts();
    let received = Vec::new();
    let stream = Stream {
        send,
        body,
        received,
    };
    (head.status, head.headers, stream)
}

#[tokio::test]
async fn extended_connect_is_an_upgrade_to_the_server() {
    let upstream = echo();
    let limits = Limits {
        body_stall: Duration::from_millis(100),
        ..Limits::default()
    };
    let edge = with_limits(&upstream, limits);
    let mut requests = h2_client(&edge).await;
    let (status, headers, mut stream) = connect(&mut requests, "/api/chat?x=1", "websocket").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["sec-websocket-protocol"], "chat");
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!headers.contains_key(name), "{headers:?}");
    }
    for payload in [vec![], vec![7; 300], vec![8; 500_000]] {
        let frame = Frame::of(BINARY, payload);
        stream.send(&frame).await;
        assert!(stream.frame().await == Some(frame));
        // Longer than a body may stand still.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    stream.send(&Frame::close(4001)).await;
    assert_eq!(stream.frame().await, Some(Frame::close(4001)));
    assert_eq!(stream.frame().await, None);
    assert!(stream.body.is_end_stream());
    let seen = &upstream.seen()[0];
    assert!(seen.head.starts_with("GET /api/chat?x=1 HTTP/1.1\r\n"));
    for (name, value) in [("connection", "upgrade"), ("upgrade", "websocket")] {
        assert_eq!(seen.fields(name), [value], "{}", seen.head);
    }
    let keys = seen.fields("sec-websocket-key");
    assert!(keys.len() == 1 && keys[0].len() == 24, "{}", seen.head);
    assert!(
        seen.fields("content-length").is_empty() && seen.fields("transfer-encoding").is_empty()
    );
}

#[tokio::test]
async fn only_a_server_that_agrees_gets_an_extended_connect_a_2xx() {
    let wrong = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    for (answer, status) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403),
        (
            "HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
            301,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 204 No Content\r\n\r\n", 502),
        (wrong, 502),
    ] {
        let upstream = Upstream::answering(|_| answer.as_bytes().to_vec());
        let edge = edge(&upstream);
        let mut requests = h2_client(&edge).await;
        // More often than failures take a server out.
        for _ in 0..6 {
            let (got, _, _) = connect(&mut requests, "/api/chat", "websocket").await;
            assert_eq!(got.as_u16(), status, "{answer}");
        }
    }
    let edge = edge(&echo());
    let mut requests = h2_client(&edge).await;
    for (path, protocol) in [("/", "websocket"), ("/api/chat", "connect-udp")] {
        let (status, headers, _) = connect(&mut requests, path, protocol).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path} {protocol}");
        assert!(headers.contains_key("allow"));
    }
    let plain = Request::connect("api.example:443").body(()).unwrap();
    let (response, _) = requests.send_request(plain, true).unwrap();
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http2_that_ends_or_resets_a_tunnel_ends_it_at_the_server() {
    let upstream = echo();
    let edge = edge(&upstream);
    let mut requests = h2_client(&edge).await;
    for reset in [true, false] {
        let (status, _, mut stream) = connect(&mut requests, "/api/chat", "websocket").await;
        assert_eq!(status, StatusCode::OK);
        if reset {
            stream.send.send_reset(h2::Reason::CANCEL);
        } else {
            stream.send.send_data(Bytes::new(), true).unwrap();
        }
        upstream.until_ended();
    }
}

#[tokio::test]
async fn a_drain_ends_a_tunnel_over_http2_with_its_close_and_the_connection_with_goaway() {
    let upstream = babble();
    let edge = edge(&upstream);
    let socket = TcpStream::connect(edge.addr).await.unwrap();
    let (requests, connection) = client::handshake(socket).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut requests = requests.ready().await.unwrap();
    let request = Request::get(format!("http://{HOST}/")).body(()).unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    timeout(PATIENCE, response).await.unwrap().unwrap();
    let (status, _, mut stream) = connect(&mut requests, "/api/chat", "websocket").await;
    assert_eq!(status, StatusCode::OK);
    for number in 0..50 {
        let frame = stream.frame().await.unwrap();
        assert_eq!(frame.payload.len(), (number * 37) % 70_000);
    }
    edge.shutdown.request();
    let last = loop {
        let frame = stream.frame().await.expect("ended without a close");
        if frame.kind == CLOSE {
            break frame;
        }
    };
    assert_eq!(last, Frame::close(1001));
    assert_eq!(stream.frame().await, None);
    assert!(stream.body.is_end_stream());
    drop((stream, requests));
    let ended = timeout(PATIENCE, driver).await.unwrap().unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    timeout(PATIENCE, edge.handle.join())
        .await
        .unwrap()
        .unwrap();
}

/// A field section that asks for a tunnel: no table, CONNECT, https, the path, the authority, the protocol.
fn section(path: &str, protocol: Option<&str>) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let mut section = b"\x00\x00\xcf\xd7".to_vec();
    section.push(0x51);
    section.extend(text(path));
    section.push(0x50);
    section.extend(text(HOST));
    if let Some(protocol) = protocol {
        section.extend(b"\x27\x02:protocol");
        section.extend(text(protocol));
    }
    section
}

/// A tunnel over one stream of HTTP/3, whose frames are written by hand.
struct QuicStream {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    ahead: Vec<u8>,
    data: Vec<u8>,
}

impl QuicStream {
    async fn ask(connection: &quinn::Connection, section: &[u8]) -> Self {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let head = [&[1, 0x40, section.len() as u8], section].concat();
        send.write_all(&head).await.unwrap();
        Self {
            send,
            receive,
            ahead: Vec::new(),
            data: Vec::new(),
        }
    }

    async fn send(&mut self, frame: &Frame) {
        let bytes = frame.bytes(Some([1, 2, 3, 4]));
        let length = (bytes.len() as u32 | 0x8000_0000).to_be_bytes();
        self.send
            .write_all(&[&[0], &length[..], &bytes].concat())
            .await
            .unwrap();
    }

    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            let read = timeout(PATIENCE, self.receive.read_chunk(usize::MAX, true));
            self.ahead.extend(read.await.unwrap().unwrap()?.bytes);
        }
        Some(self.ahead.drain(..count).collect())
    }

    async fn number(&mut self) -> Option<u64> {
        let first = self.take(1).await?[0];
        let rest = self.take((1 << (first >> 6)) - 1).await?;
        let start = u64::from(first & 0x3F);
        Some(
            rest.iter()
                .fold(start, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    }

    /// Type and payload of the next frame of HTTP/3.
    async fn http_frame(&mut self) -> Option<(u64, Vec<u8>)> {
        let kind = self.number().await?;
        let length = self.number().await?;
        let payload = self.take(length as usize).await.unwrap();
        Some((kind, payload))
    }

    async fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut rest = self.data.as_slice();
            let frame = Frame::read(|count| {
                let (part, behind) = rest.split_at_checked(count)?;
                rest = behind;
                Some(part.to_vec())
            });
            if let Some(frame) = frame {
                self.data = rest.to_vec();
                return Some(frame);
            }
            let (kind, payload) = self.http_frame().await?;
            assert_eq!(kind, 0, "not DATA");
            self.data.extend(payload);
        }
    }
}

async fn quic(served: &Served) -> (quinn::Endpoint, quinn::Connection) {
    let transport = quinn::TransportConfig::default();
    served.connect(HOST, transport).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_connect_over_http3_is_an_upgrade_to_the_server() {
    let upstream = echo();
    let served = Served::start();
    forward_to(&served.edge, upstream.addr, &json!({}));
    let (_endpoint, connection) = quic(&served).await;
    // It is offered: SETTINGS_ENABLE_CONNECT_PROTOCOL is 1.
    let mut control = connection.accept_uni().await.unwrap();
    let opening = control.read_chunk(100, true).await.unwrap().unwrap().bytes;
    assert!(opening.ends_with(b"\x08\x01"), "{opening:x?}");
    let ask = section("/api/chat", Some("websocket"));
    let mut stream = QuicStream::ask(&connection, &ask).await;
    let (kind, head) = stream.http_frame().await.unwrap();
    // Status 200 stands at 25 of the static table.
    assert!(kind == 1 && head[2] == 0xd9, "{head:x?}");
    for payload in [vec![], vec![7; 300], vec![8; 500_000]] {
        let frame = Frame::of(BINARY, payload);
        stream.send(&frame).await;
        assert!(stream.frame().await == Some(frame));
    }
    stream.send(&Frame::close(4001)).await;
    assert_eq!(stream.frame().await, Some(Frame::close(4001)));
    assert_eq!(stream.frame().await, None);
    assert_eq!(upstream.seen()[0].fields("upgrade"), ["websocket"]);
    upstream.until_ended();
    // A client that resets its stream, and one that ends it, leave nobody behind.
    for reset in [true, false] {
        let mut stream = QuicStream::ask(&connection, &ask).await;
        stream.http_frame().await.unwrap();
        if reset {
            stream.send.reset(0x10cu32.into()).unwrap();
        } else {
            stream.send.finish().unwrap();
        }
        upstream.until_ended();
    }
    for (path, protocol) in [
        ("/", Some("websocket")),
        ("/api/", Some("connect-udp")),
        ("/api/", None),
    ] {
        let mut stream = QuicStream::ask(&connection, &section(path, protocol)).await;
        let (_, head) = stream.http_frame().await.unwrap();
        let refused = head.windows(3).any(|window| window == b"405");
        assert!(refused, "{path} {protocol:?}: {head:x?}");
    }
}

#[tokio::test]
async fn a_drain_ends_a_tunnel_over_http3_with_its_close_and_says_goaway() {
    let upstream = babble();
    let served = Served::start();
    forward_to(&served.edge, upstream.addr, &json!({}));
    let (_endpoint, connection) = quic(&served).await;
    let mut control = connection.accept_uni().await.unwrap();
    let ask = section("/api/chat", Some("websocket"));
    let mut stream = QuicStream::ask(&connection, &ask).await;
    stream.http_frame().await.unwrap();
    for number in 0..50 {
        let frame = stream.frame().await.unwrap();
        assert_eq!(frame.payload.len(), (number * 37) % 70_000);
    }
    served.edge.shutdown.request();
    let last = loop {
        let frame = stream.frame().await.expect("ended without a close");
        if frame.kind == CLOSE {
            break frame;
        }
    };
    assert_eq!(last, Frame::close(1001));
    assert_eq!(stream.frame().await, None);
    let mut said = Vec::new();
    while let Ok(Some(chunk)) = control.read_chunk(100, true).await {
        said.extend(chunk.bytes);
    }
    // GOAWAY, behind every request that may be on its way.
    let goaway = b"\x07\x08\xff\xff\xff\xff\xff\xff\xff\xfc";
    assert!(said.windows(10).any(|window| window == goaway), "{said:x?}");
    timeout(PATIENCE, served.edge.handle.join())
        .await
        .unwrap()
        .unwrap();
}
