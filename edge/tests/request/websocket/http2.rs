//! WebSockets over HTTP/2 (RFC 8441).

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::ext::Protocol;
use http::{HeaderMap, Request, StatusCode};
use tokio::net::TcpStream;

use super::*;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_over_http2_is_closed_when_its_release_has_left_and_the_connection_goes_on() {
    let upstream = echo();
    let edge = edge(&upstream);
    let mut requests = h2_client(&edge).await;
    let (_, _, mut stream) = connect(&mut requests, "/api/chat", "websocket").await;
    leave(&edge, &calls(), &drain("1h", "0s"));
    assert_eq!(stream.frame().await, Some(Frame::close(1012)));
    assert_eq!(stream.frame().await, None);
    assert!(stream.body.is_end_stream());
    upstream.until_ended();
    let (status, _, _) = connect(&mut requests, "/api/chat", "websocket").await;
    assert_eq!(status, StatusCode::OK);
}
