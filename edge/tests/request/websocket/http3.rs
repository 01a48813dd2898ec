//! WebSockets over HTTP/3 (RFC 9220).

use serde_json::json;

use super::*;
use crate::http3::Served;

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
    quic_for(served, Duration::from_secs(30)).await
}

/// The same, taken for dead when nothing was heard for so long.
async fn quic_for(served: &Served, idle: Duration) -> (quinn::Endpoint, quinn::Connection) {
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(idle.try_into().unwrap()));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_over_http3_is_closed_when_its_release_has_left() {
    let upstream = echo();
    let served = Served::start();
    forward_to(&served.edge, upstream.addr, &json!({}));
    let (_endpoint, connection) = quic(&served).await;
    let ask = section("/api/chat", Some("websocket"));
    let mut stream = QuicStream::ask(&connection, &ask).await;
    stream.http_frame().await.unwrap();
    leave(&served.edge, &calls(), &drain("1h", "0s"));
    assert_eq!(stream.frame().await, Some(Frame::close(1012)));
    assert_eq!(stream.frame().await, None);
    upstream.until_ended();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_tunnel_over_http3_outlives_what_a_connection_may_be_silent() {
    let upstream = echo();
    let served = Served::start();
    forward_to(&served.edge, upstream.addr, &json!({}));
    let (_endpoint, connection) = quic_for(&served, Duration::from_secs(12)).await;
    let ask = section("/api/chat", Some("websocket"));
    let mut stream = QuicStream::ask(&connection, &ask).await;
    stream.http_frame().await.unwrap();
    let ended = timeout(Duration::from_secs(15), connection.closed()).await;
    assert!(ended.is_err(), "{ended:?}");
    let frame = Frame::of(TEXT, "still there");
    stream.send(&frame).await;
    assert_eq!(stream.frame().await, Some(frame));
}
