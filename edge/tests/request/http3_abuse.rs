//! What an HTTP/3 client may not do, and how it ends. Frames are written by hand.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use helix_edge::limits::Limits;
use http::StatusCode;
use quinn::{ConnectionError, TransportConfig};
use tokio::time::timeout;

use crate::http3::Served;
use crate::support::PATIENCE;
use crate::support::ran_alone;

/// The code that the edge closes a connection with after `send` did its work.
async fn closed_with(served: &Served, unidirectional: bool, bytes: &[u8]) -> u64 {
    let (_endpoint, connection) = served
        .connect("shop.example", TransportConfig::default())
        .await
        .unwrap();
    let mut stream = if unidirectional {
        connection.open_uni().await.unwrap()
    } else {
        connection.open_bi().await.unwrap().0
    };
    // It may be refused half-way.
    let _ = stream.write_all(bytes).await;
    match timeout(PATIENCE, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_connection_with_its_code() {
    let served = Served::start();
    for (unidirectional, bytes, code) in [
        // DATA before HEADERS, a frame of HTTP/2, SETTINGS on a request.
        (false, &b"\x00\x01x"[..], 0x105),
        (false, b"\x02\x00", 0x105),
        (false, b"\x04\x00", 0x105),
        // A section that refers to the dynamic table.
        (false, b"\x01\x03\x01\x00\x80", 0x200),
        // Not settings first; a push; instructions for a table.
        (true, b"\x00\x07\x01\x00", 0x10a),
        (true, b"\x01\x00", 0x103),
        (true, b"\x02\x3f\xe1\x1f", 0x201),
    ] {
        assert_eq!(
            closed_with(&served, unidirectional, bytes).await,
            code,
            "{bytes:x?}"
        );
    }
    assert_eq!(served.open().await.get("/a.txt").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_request_whose_head_never_ends_is_answered_at_the_deadline() {
    let served = Served::with(Limits {
        head_deadline: Duration::from_millis(300),
        ..Limits::default()
    });
    let (_endpoint, connection) = served
        .connect("shop.example", TransportConfig::default())
        .await
        .unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(b"\x01\x40\x64\x00\x00").await.unwrap();
    let response = timeout(PATIENCE, receive.read_to_end(10_000))
        .await
        .unwrap()
        .unwrap();
    // HEADERS, its section without a table, then status 408 as a literal under the name at 24.
    assert_eq!(response[..1], [1]);
    assert!(response.windows(3).any(|window| window == b"408"));
}

#[tokio::test]
async fn malformed_requests_are_told_so_and_the_connection_goes_on() {
    let served = Served::start();
    let (_endpoint, connection) = served
        .connect("shop.example", TransportConfig::default())
        .await
        .unwrap();
    // Method GET, scheme https, path /, authority, then one more field.
    let good = b"\x00\x00\xd1\xd7\xc1\x50\x0cshop.example";
    for (more, status) in [
        (&b""[..], None),
        (b"\x27\x03connection\x05close", Some("400")),
        (b"\xd1", Some("400")),
        (b"\x23a\xc3\xa4\x01b", Some("400")),
        (b"\x21a\x03x\r\n", Some("400")),
        (b"\x23a_b\x01x", Some("400")),
        (b"\x54\x02+5", Some("400")),
        // Nothing but authority and the method CONNECT would be no better.
        (b"\xcf", Some("400")),
    ] {
        let section = [good.as_slice(), more].concat();
        let frame = [&[1, section.len() as u8], section.as_slice()].concat();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&frame).await.unwrap();
        send.finish().unwrap();
        let response = timeout(PATIENCE, receive.read_to_end(10_000))
            .await
            .unwrap()
            .unwrap();
        // 200 stands at 25 of the static table, 400 at 67.
        let indexed = response.iter().skip(1).take(8).any(|byte| *byte == 0xd9);
        assert_eq!(indexed, status.is_none(), "{more:x?}");
    }
    assert!(connection.close_reason().is_none());
}

#[tokio::test]
async fn a_flood_of_broken_off_requests_ends_the_connection() {
    let served = Served::start();
    let (_endpoint, connection) = served
        .connect("shop.example", TransportConfig::default())
        .await
        .unwrap();
    let flood = async {
        while let Ok((mut send, mut receive)) = connection.open_bi().await {
            let _ = send.write_all(&[1, 50]).await;
            let _ = send.reset(0x10cu32.into());
            let _ = receive.stop(0x10cu32.into());
        }
    };
    timeout(PATIENCE, flood).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = connection.closed().await else {
        panic!("the edge did not close it");
    };
    assert_eq!(close.error_code.into_inner(), 0x107);
}

/// A control stream, and settings that say nothing.
const CONTROL: &[u8] = b"\x00\x04\x00";

#[tokio::test]
async fn floods_on_unidirectional_streams_end_the_connection() {
    let served = Served::start();
    // A push id that grows, an unknown frame, a GOAWAY that repeats itself, words about a table that is not used.
    let floods = [
        [CONTROL, &b"\x0d\x01\x01".repeat(11_000)].concat(),
        [CONTROL, &b"\x21\x00".repeat(11_000)].concat(),
        [CONTROL, &b"\x07\x01\x00".repeat(11_000)].concat(),
        [&b"\x03"[..], &[0x40; 70_000]].concat(),
    ];
    for flood in floods {
        assert_eq!(closed_with(&served, true, &flood).await, 0x107);
    }
    assert_eq!(served.open().await.get("/a.txt").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_flood_of_streams_that_mean_nothing_ends_the_connection() {
    let served = Served::start();
    let (_endpoint, connection) = served
        .connect("shop.example", TransportConfig::default())
        .await
        .unwrap();
    let flood = async {
        while let Ok(mut stream) = connection.open_uni().await {
            // A type that nobody knows.
            let _ = stream.write_all(b"\x21").await;
            let _ = stream.finish();
        }
    };
    timeout(PATIENCE, flood).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = connection.closed().await else {
        panic!("the edge did not close it");
    };
    assert_eq!(close.error_code.into_inner(), 0x107);
}

/// Instructions that change nothing are allowed, but not for ever.
#[tokio::test]
async fn an_endless_stream_of_instructions_ends_the_connection() {
    let served = Served::start();
    let flood = [&b"\x02"[..], &[0x20; 100_000]].concat();
    let code = closed_with(&served, true, &flood).await;
    assert_eq!(code, 0x107);
}

/// Frames that nobody knows are skipped (RFC 9114 9), but not for ever.
#[tokio::test]
async fn a_flood_of_unknown_frames_in_a_request_ends_the_connection() {
    let served = Served::start();
    let flood = b"\x21\x00".repeat(100_000);
    assert_eq!(closed_with(&served, false, &flood).await, 0x107);
}

/// What one connection may make the edge hold.
const MAX_HELD_KIB: usize = 4 * 1024;

/// As many streams as there may be, each with a head as large as may be that never ends; then bombs: each field one
/// byte, which stands for many.
#[tokio::test]
async fn heads_that_never_end_and_header_bombs_cost_little() {
    if ran_alone("http3_abuse::heads_that_never_end_and_header_bombs_cost_little") {
        return;
    }
    // HEADERS of 32,000 bytes, of which the last never comes; `accept: */*` each.
    let bomb = [b"\x01\x80\x00\x7d\x00\x00\x00".as_slice(), &[0xdd; 31_998]].concat();
    let unfinished = &bomb[..bomb.len() - 1];
    let usual = Limits::default();
    let soon = Limits {
        head_deadline: Duration::from_secs(3),
        ..usual
    };
    for (what, bytes, limits) in [("unfinished", unfinished, soon), ("bomb", &bomb, usual)] {
        let served = Served::with(limits);
        served.open().await.get("/a.txt").await;
        let (_endpoint, connection) = served
            .connect("shop.example", TransportConfig::default())
            .await
            .unwrap();
        let before = memory_kib();
        let mut streams = Vec::new();
        for _ in 0..64 {
            let (mut send, receive) = connection.open_bi().await.unwrap();
            // It may be answered before it is whole.
            let _ = send.write_all(bytes).await;
            streams.push((send, receive));
        }
        let mut most = memory_kib();
        for (_, receive) in &mut streams {
            let response = timeout(PATIENCE, receive.read_to_end(10_000)).await;
            let response = response.unwrap().unwrap();
            let status = if what == "bomb" { b"431" } else { b"408" };
            assert!(response.windows(3).any(|window| window == status), "{what}");
            most = most.max(memory_kib());
        }
        let held = most.saturating_sub(before);
        // This process is the client too, which keeps what it sends until it is acknowledged.
        eprintln!("{what}: {held} KiB more, the client's part among them");
        assert!(held < 2 * MAX_HELD_KIB, "{what}: {held} KiB more");
    }
}

/// A packet that starts like the first of a connection, of `kind`.
fn noise(kind: u8, number: u64, length: usize) -> Vec<u8> {
    let mut packet = vec![0u8; length];
    packet[0] = kind;
    packet[1..5].copy_from_slice(&1u32.to_be_bytes());
    packet[5] = 8;
    packet[6..14].copy_from_slice(&number.to_be_bytes());
    // Source id of 8, no token, and a length that reaches to the end.
    packet[14] = 8;
    packet[24] = 0x44;
    packet[25] = 0x9e;
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in &mut packet[26..] {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    packet
}

fn cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
    };
    of(usage.user_time()) + of(usage.system_time())
}

fn memory_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn malformed_first_packets_cost_little_and_leave_others_alone() {
    if ran_alone("http3_abuse::malformed_first_packets_cost_little_and_leave_others_alone") {
        return;
    }
    const PACKETS: u64 = 20_000;
    let served = Served::start();
    let connection = served.open().await;
    assert_eq!(connection.get("/a.txt").await.0, StatusCode::OK);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(served.addr).unwrap();
    let (before, started) = (memory_kib(), (cpu(), Instant::now()));
    for number in 0..PACKETS {
        let kind = [0xc0, 0xc3, 0xe0, 0xd0, 0xf0, 0x40][(number % 6) as usize];
        let length = [1200, 60, 1199, 1452][(number % 4) as usize];
        // A full buffer loses what it would have taken.
        let _ = socket.send(&noise(kind, number, length));
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for length in 0..30 {
        let _ = socket.send(&noise(0xc0, 1, 30)[..length]);
    }
    assert_eq!(connection.get("/a.txt").await.0, StatusCode::OK);
    let spent = cpu() - started.0;
    let each = spent / u32::try_from(PACKETS).unwrap();
    let grown = memory_kib().saturating_sub(before);
    eprintln!(
        "{PACKETS} packets: {each:?} of CPU each with sending them, {grown} KiB more, {:?}",
        started.1.elapsed()
    );
    assert!(
        each < Duration::from_micros(200),
        "{each:?} of CPU for each packet"
    );
    assert!(grown < 64 * 1024, "{grown} KiB more");
    assert_eq!(served.edge.metrics.connections_accepted.get(), 1);
}
