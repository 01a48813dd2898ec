//! Which of two responses a client gets first over one connection (RFC 9218).

use bytes::{BufMut as _, BytesMut};
use http::{HeaderMap, HeaderValue, Request};
use quinn::VarInt;
use tokio::time::timeout;

use crate::http3::Served;
use crate::support::PATIENCE;

/// So little is on its way that both responses wait for the same room.
const WINDOW: u32 = 64 * 1024;

/// A client of HTTP/3 that takes no more than the window at once, and can send frames on its control stream.
struct Narrow {
    _endpoint: quinn::Endpoint,
    requests: h3::client::SendRequest<h3_quinn::OpenStreams, bytes::Bytes>,
}

impl Narrow {
    async fn open(served: &Served) -> Self {
        let mut transport = quinn::TransportConfig::default();
        // Of the connection alone: what a stream may be sent is no reason to send the other.
        transport.receive_window(VarInt::from_u32(WINDOW));
        let (endpoint, connection) = served.connect("shop.example", transport).await.unwrap();
        let quic = h3_quinn::Connection::new(connection);
        let (mut driver, requests) = h3::client::new(quic).await.unwrap();
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Self {
            _endpoint: endpoint,
            requests,
        }
    }

    /// Asks twice for the large file before it takes anything; which of the two came first.
    async fn first_of(&self, priorities: [&'static str; 2]) -> usize {
        let mut bodies = Vec::new();
        for priority in priorities {
            let mut request = Request::get("https://shop.example/big.bin")
                .body(())
                .unwrap();
            if !priority.is_empty() {
                let value = HeaderValue::from_static(priority);
                *request.headers_mut() =
                    HeaderMap::from_iter([("priority".parse().unwrap(), value)]);
            }
            let mut stream = self.requests.clone().send_request(request).await.unwrap();
            stream.finish().await.unwrap();
            bodies.push(stream);
        }
        let [one, other] = &mut bodies[..] else {
            unreachable!()
        };
        let both = async {
            tokio::select! { () = whole(one) => 0, () = whole(other) => 1 }
        };
        timeout(PATIENCE, both).await.unwrap()
    }
}

async fn whole(
    stream: &mut h3::client::RequestStream<h3_quinn::BidiStream<bytes::Bytes>, bytes::Bytes>,
) {
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    while stream.recv_data().await.unwrap().is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_urgent_overtakes_and_the_rest_keeps_its_order() {
    let served = Served::start();
    for (priorities, first) in [
        (["", ""], 0),
        (["u=7", "u=0"], 1),
        (["u=0", "u=7"], 0),
        // What is of use in part waits for what is not.
        (["i", ""], 1),
    ] {
        let client = Narrow::open(&served).await;
        assert_eq!(client.first_of(priorities).await, first, "{priorities:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_priority_of_a_stream_that_has_no_response_ends_the_connection() {
    let served = Served::start();
    let transport = quinn::TransportConfig::default();
    let (_endpoint, connection) = served.connect("shop.example", transport).await.unwrap();
    let mut control = connection.open_uni().await.unwrap();
    let mut frames = BytesMut::from(&b"\x00\x04\x00"[..]);
    // PRIORITY_UPDATE for a stream that the edge opens.
    frames.put_slice(b"\x80\x0f\x07\x00\x04\x03u=1");
    control.write_all(&frames).await.unwrap();
    let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(closed) = closed else {
        panic!("{closed}");
    };
    // H3_ID_ERROR.
    assert_eq!(closed.error_code, VarInt::from_u32(0x108));
}
