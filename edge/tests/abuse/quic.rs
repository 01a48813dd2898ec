//! First packets of QUIC from everywhere at once: genuine ones whose senders never answer, and noise.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Buf as _;
use http::Request;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;

use crate::crowd::careless;
use crate::elsewhere::{Elsewhere, Settings};
use crate::support::{LIVE, PATIENCE};

/// Senders, each from a port of its own.
const SENDERS: usize = 1500;
/// What a flood may make the edge hold, all in all: a hundred handshakes for each core, with room.
const MAX_HELD_BYTES: u64 = 32 * 1024 * 1024;
/// RFC 9000 8.1: what may be sent to an address that has not shown that it is one, for each byte that came from it.
const MAX_AMPLIFICATION: usize = 3;
/// quinn begins a datagram while there is any of that left, so it may go beyond it by less than one.
const LAST_DATAGRAM: usize = 1200;
/// Between packets, so that the socket's buffer does not lose most of them.
const PACE: Duration = Duration::from_micros(100);
/// How long answers, and their repetitions, are waited for.
const LISTENS: Duration = Duration::from_secs(3);

fn client() -> quinn::ClientConfig {
    let tls = QuicClientConfig::try_from(Arc::unwrap_or_clone(careless(b"h3"))).unwrap();
    quinn::ClientConfig::new(Arc::new(tls))
}

/// A whole request on a connection of its own.
async fn ask(edge: &Elsewhere) {
    let asked = async {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint
            .connect_with(client(), edge.at.quic, "shop.example")
            .unwrap();
        let quic = h3_quinn::Connection::new(connecting.await.unwrap());
        let (mut driver, mut requests) = h3::client::new(quic).await.unwrap();
        let drives =
            tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        let request = Request::get("https://shop.example/a.txt").body(()).unwrap();
        let mut stream = requests.send_request(request).await.unwrap();
        // It may have been answered before it ends, and then nobody wants its end.
        let _ = stream.finish().await;
        assert_eq!(stream.recv_response().await.unwrap().status(), 200);
        let mut body = Vec::new();
        while let Some(mut part) = stream.recv_data().await.unwrap() {
            body.extend_from_slice(&part.copy_to_bytes(part.remaining()));
        }
        assert_eq!(body, format!("text of {LIVE}\n").as_bytes());
        drives.abort();
    };
    timeout(PATIENCE, asked)
        .await
        .expect("honest clients are served");
}

/// First packets of genuine connections, each with an id of its own.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let sink = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = sink.local_addr().unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let (mut packets, mut connecting) = (BTreeMap::new(), Vec::new());
    let mut part = vec![0; 2000];
    while packets.len() < count {
        connecting.push(endpoint.connect_with(client(), to, "shop.example").unwrap());
        let received = timeout(PATIENCE, sink.recv(&mut part)).await.unwrap();
        let packet = part[..received.unwrap()].to_vec();
        let id = packet[6..6 + usize::from(packet[5])].to_vec();
        packets.insert(id, packet);
    }
    packets.into_values().collect()
}

/// What came back to one sender.
#[derive(Clone, Copy, Debug, Default)]
struct Back {
    bytes: usize,
    retries: usize,
}

/// Sends each packet from a port of its own, and counts what comes back.
fn flood(to: SocketAddr, packets: &[Vec<u8>]) -> Vec<Back> {
    let senders: Vec<UdpSocket> = packets
        .iter()
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    for (sender, packet) in senders.iter().zip(packets) {
        sender.set_nonblocking(true).unwrap();
        // A full buffer loses what it would have taken.
        let _ = sender.send_to(packet, to);
        std::thread::sleep(PACE);
    }
    let mut backs = vec![Back::default(); senders.len()];
    let until = Instant::now() + LISTENS;
    while Instant::now() < until {
        for (sender, back) in senders.iter().zip(&mut backs) {
            let mut part = [0; 2000];
            while let Ok((read, from)) = sender.recv_from(&mut part) {
                // A port may have been another's a moment ago, whose peers do not know that yet.
                if from != to {
                    continue;
                }
                back.bytes += read;
                // A long header of version 1, and the type of a retry.
                back.retries += usize::from(part[0] & 0xf0 == 0xf0 && part[1..5] == [0, 0, 0, 1]);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    backs
}

/// Floods while an honest client asks; what came back, and what the edge held at most.
async fn besieged(edge: &Arc<Elsewhere>, packets: Vec<Vec<u8>>) -> (Vec<Back>, u64) {
    let before = edge.resident();
    let (held, to) = (Arc::clone(edge), edge.at.quic);
    let flooding = tokio::task::spawn_blocking(move || {
        let (backs, most) = held.most_resident(|| flood(to, &packets));
        for (back, packet) in backs.iter().zip(&packets) {
            let full = packet.len() >= LAST_DATAGRAM;
            let beyond = if full { LAST_DATAGRAM - 1 } else { 0 };
            assert!(
                back.bytes <= MAX_AMPLIFICATION * packet.len() + beyond,
                "{} bytes came back for {}: {}",
                back.bytes,
                packet.len(),
                packet[..20.min(packet.len())].escape_ascii()
            );
        }
        let sent: usize = packets.iter().map(Vec::len).sum();
        let came: usize = backs.iter().map(|back| back.bytes).sum();
        assert!(came <= MAX_AMPLIFICATION * sent, "{came} bytes for {sent}");
        (backs, most)
    });
    while !flooding.is_finished() {
        ask(edge).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (backs, most) = flooding.await.unwrap();
    ask(edge).await;
    (backs, most.saturating_sub(before))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_never_finished_cost_little_and_keep_nobody_out() {
    let name = "quic::handshakes_that_are_never_finished_cost_little_and_keep_nobody_out";
    let Some(edge) = Elsewhere::start(name, &Settings::default()) else {
        return;
    };
    let edge = Arc::new(edge);
    ask(&edge).await;
    let packets = first_packets(SENDERS).await;
    let sent: usize = packets.iter().map(Vec::len).sum();
    let (backs, held) = besieged(&edge, packets).await;
    let answered = backs.iter().filter(|back| back.bytes > 0).count();
    let retries: usize = backs.iter().map(|back| back.retries).sum();
    let bytes: usize = backs.iter().map(|back| back.bytes).sum();
    eprintln!(
        "{SENDERS} first packets: {answered} answered, {retries} told to retry, {:.2} bytes back for each, {} KiB held",
        bytes as f64 / sent as f64,
        held / 1024
    );
    assert!(retries > 0, "none of {SENDERS} was told to retry");
    assert!(held <= MAX_HELD_BYTES, "{held} bytes held");
}

/// Pseudo-random bytes, the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_be_bytes())
            .flatten()
            .take(length)
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_first_packets_cost_little_and_keep_nobody_out() {
    let name = "quic::malformed_first_packets_cost_little_and_keep_nobody_out";
    let Some(edge) = Elsewhere::start(name, &Settings::default()) else {
        return;
    };
    let edge = Arc::new(edge);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let genuine = first_packets(64).await;
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for packet in &genuine {
        // Cut off, of a version that is not known or reserved, with lengths that lie, one bit wrong, twice in one.
        for length in [1, 5, 6, 20, 50, packet.len() / 2, packet.len() - 1] {
            packets.push(packet[..length].to_vec());
        }
        for version in [
            [0; 4],
            [0x1a, 0x2a, 0x3a, 0x4a],
            [0x6b, 0x33, 0x43, 0xcf],
            [0xff; 4],
        ] {
            let mut other = packet.clone();
            other[1..5].copy_from_slice(&version);
            packets.push(other);
        }
        for (at, value) in [
            (5, 0),
            (5, 7),
            (5, 21),
            (5, 255),
            (0, 0x40),
            (0, 0xd0),
            (0, 0xe0),
            (0, 0xf0),
        ] {
            let mut other = packet.clone();
            other[at] = value;
            packets.push(other);
        }
        let mut flipped = packet.clone();
        let at = usize::try_from(noise.next() % 1200).unwrap();
        flipped[at] ^= 1 << (noise.next() % 8);
        packets.push(flipped);
        packets.push([&packet[..600], &packet[..600]].concat());
        let mut random = noise.bytes(1200);
        random[0] |= 0xc0;
        random[1..5].copy_from_slice(&[0, 0, 0, 1]);
        packets.push(random);
        packets.push(noise.bytes(1 + usize::try_from(noise.0 % 1400).unwrap()));
        packets.push(vec![0; 1200]);
    }
    let count = packets.len();
    let (backs, held) = besieged(&edge, packets).await;
    let answered = backs.iter().filter(|back| back.bytes > 0).count();
    eprintln!(
        "{count} malformed packets: {answered} answered, {} KiB held",
        held / 1024
    );
    assert!(held <= MAX_HELD_BYTES, "{held} bytes held");
}
