//! Which of two responses a client gets first over one connection (RFC 9218).

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request};
use quinn::VarInt;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::http3::{Connection, Served};
use crate::support::PATIENCE;

/// A network between a client and the edge that can hold back what the edge sends.
struct Network {
    addr: SocketAddr,
    open: watch::Sender<bool>,
}

impl Network {
    async fn to(edge: SocketAddr) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        far.connect(edge).await.unwrap();
        let addr = near.local_addr().unwrap();
        let (open, opened) = watch::channel(true);
        tokio::spawn(carry(near, far, opened));
        Self { addr, open }
    }
}

async fn carry(near: UdpSocket, far: UdpSocket, mut open: watch::Receiver<bool>) {
    let (mut there, mut back) = ([0; 2000], [0; 2000]);
    let (mut client, mut held) = (None, Vec::new());
    loop {
        tokio::select! {
            received = near.recv_from(&mut there) => {
                let Ok((length, from)) = received else { return };
                client = Some(from);
                let _ = far.send(&there[..length]).await;
            }
            Ok(length) = far.recv(&mut back) => held.push(back[..length].to_vec()),
            changed = open.changed() => if changed.is_err() { return },
        }
        if let Some(client) = client.filter(|_| *open.borrow()) {
            for packet in held.drain(..) {
                let _ = near.send_to(&packet, client).await;
            }
        }
    }
}

/// Asks twice for a file of which the edge may send little before it hears of the client; which of the two came first.
async fn first_of(
    served: &Served,
    network: &Network,
    asked: u64,
    wishes: [&'static str; 2],
) -> usize {
    let client: Connection = served.open().await;
    network.open.send_replace(false);
    let mut bodies = Vec::new();
    for wish in wishes {
        let mut request = Request::get("https://shop.example/200k.bin")
            .body(())
            .unwrap();
        if !wish.is_empty() {
            let value = HeaderValue::from_static(wish);
            *request.headers_mut() = HeaderMap::from_iter([("priority".parse().unwrap(), value)]);
        }
        let mut stream = client.requests.clone().send_request(request).await.unwrap();
        stream.finish().await.unwrap();
        bodies.push(stream);
    }
    until_answered(served, asked).await;
    network.open.send_replace(true);
    let [one, other] = &mut bodies[..] else {
        unreachable!()
    };
    let both = async {
        tokio::select! { () = whole(one) => 0, () = whole(other) => 1 }
    };
    timeout(PATIENCE, both).await.unwrap()
}

type Stream = h3::client::RequestStream<h3_quinn::BidiStream<bytes::Bytes>, bytes::Bytes>;

async fn whole(stream: &mut Stream) {
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    while stream.recv_data().await.unwrap().is_some() {}
}

/// Returns when the edge holds so many responses, or has sent them.
async fn until_answered(served: &Served, count: u64) {
    let metrics = &served.edge.metrics;
    let answered = || metrics.counted(|core| &core.requests[2][2]);
    let until = Instant::now() + PATIENCE;
    while answered() < count {
        assert!(Instant::now() < until, "{} of {count}", answered());
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_urgent_overtakes_and_the_rest_keeps_its_order() {
    let mut served = Served::start();
    let edge = served.addr;
    let cases = [
        (["", ""], 0),
        (["u=7", "u=0"], 1),
        (["u=0", "u=7"], 0),
        // What is of use in part waits for what is not.
        (["i", ""], 1),
    ];
    for (asked, (wishes, first)) in (2..).step_by(2).zip(cases) {
        let network = Network::to(edge).await;
        served.addr = network.addr;
        let came = first_of(&served, &network, asked, wishes).await;
        assert_eq!(came, first, "{wishes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_priority_of_a_stream_that_has_no_response_ends_the_connection() {
    let served = Served::start();
    let transport = quinn::TransportConfig::default();
    let (_endpoint, connection) = served.connect("shop.example", transport).await.unwrap();
    let mut control = connection.open_uni().await.unwrap();
    // Settings, and PRIORITY_UPDATE for a stream that the edge opens.
    let frames = b"\x00\x04\x00\x80\x0f\x07\x00\x04\x03u=1";
    control.write_all(frames).await.unwrap();
    let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(closed) = closed else {
        panic!("{closed}");
    };
    // H3_ID_ERROR.
    assert_eq!(closed.error_code, VarInt::from_u32(0x108));
}
