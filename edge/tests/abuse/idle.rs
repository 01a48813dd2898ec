//! Clients that connect and then say nothing, before a request, within a handshake, or after an answer.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::crowd::{Crowd, Stream, alone};
use crate::elsewhere::{Elsewhere, Settings, connections, within};

const CLIENTS: usize = 4000;
/// What a connection that waits for its next request may hold.
const MAX_IDLE_BYTES: u64 = 6 * 1024;
const MAX_IDLE_TLS_BYTES: u64 = 18 * 1024;
/// What one may hold that has said nothing yet. It is an idle one, but the first crowd of a process pays for how its allocator
/// grows: 4.7 to 8.8 KiB were seen.
const MAX_SILENT_BYTES: u64 = 12 * 1024;
/// What one that shakes hands may hold.
const MAX_SHAKING_BYTES: u64 = 48 * 1024;
/// By when whoever says nothing at first is cut.
const CUT_BY: Duration = Duration::from_secs(12);
const PATIENCE: Duration = Duration::from_secs(180);

/// How long all of `clients` connections stayed open after `say`, and what each made the edge hold meanwhile.
fn hold(edge: &Elsewhere, tls: bool, say: &'static [u8], answers: bool) -> (usize, Duration, u64) {
    let crowd = Crowd::new(&edge.at, tls, connections(CLIENTS));
    measured(edge, &crowd, say, answers)
}

fn measured(
    edge: &Elsewhere,
    crowd: &Crowd,
    say: &'static [u8],
    answers: bool,
) -> (usize, Duration, u64) {
    // A few come and go first, so that what is made once is not counted.
    let few = Crowd {
        count: 200,
        ..crowd.clone()
    };
    alone(few.each(move |mut stream: Box<dyn Stream>, _| async move {
        let _ = stream.write_all(say).await;
        let _ = stream.flush().await;
        if answers {
            let _ = stream.read(&mut [0; 4096]).await;
        }
    }));
    let (before, open) = (edge.resident(), edge.descriptors());
    let each = move |mut stream: Box<dyn Stream>, since: Instant| async move {
        // Who says too much may be cut before it is all said.
        let _ = stream.write_all(say).await;
        let _ = stream.flush().await;
        let mut part = vec![0; 4096];
        if answers {
            assert!(stream.read(&mut part).await.unwrap() > 0);
        }
        while let Ok(1..) = stream.read(&mut part).await {}
        since.elapsed()
    };
    let (lived, most) =
        edge.most_resident(|| alone(async { timeout(PATIENCE, crowd.each(each)).await }).unwrap());
    edge.until_closed(open);
    let lived: Vec<Duration> = lived.into_iter().flatten().collect();
    let longest = lived.iter().copied().max().unwrap();
    let each = most.saturating_sub(before) / lived.len() as u64;
    (lived.len(), longest, each)
}

#[test]
fn connections_that_never_say_anything_are_held_cheaply_and_cut() {
    let name = "idle::connections_that_never_say_anything_are_held_cheaply_and_cut";
    let Some(edge) = Elsewhere::start(name, &Settings::default()) else {
        return;
    };
    for (what, tls, say, most) in [
        ("silent", false, &b""[..], MAX_SILENT_BYTES),
        ("silent over TLS", true, b"", MAX_IDLE_TLS_BYTES),
    ] {
        let (count, lived, bytes) = hold(&edge, tls, say, false);
        eprintln!("{what}: {count} connections, {bytes} bytes each, cut after {lived:.2?}");
        assert_eq!(count, connections(CLIENTS));
        assert!(lived < within(CUT_BY), "{what} lived for {lived:?}");
        assert!(bytes <= most, "{what} held {bytes} bytes");
    }
}

#[test]
fn handshakes_that_stop_half_way_are_held_cheaply_and_cut() {
    let name = "idle::handshakes_that_stop_half_way_are_held_cheaply_and_cut";
    let Some(edge) = Elsewhere::start(name, &Settings::default()) else {
        return;
    };
    // Nothing at all; the first bytes of a hello; the head of a record that would be as long as can be, and half of it.
    let large: &'static [u8] = Box::leak([&[0x16, 3, 1, 0x40, 0][..], &[1; 8000]].concat().into());
    for (what, say) in [
        ("no hello", &b""[..]),
        ("the start of a hello", &[0x16, 3, 1, 2, 0, 1]),
        ("half of a large hello", large),
    ] {
        let crowd = Crowd {
            tls: None,
            ..Crowd::new(&edge.at, true, connections(CLIENTS))
        };
        let (count, lived, bytes) = measured(&edge, &crowd, say, false);
        eprintln!("{what}: {count} connections, {bytes} bytes each, cut after {lived:.2?}");
        assert_eq!(count, connections(CLIENTS));
        assert!(lived < within(CUT_BY), "{what} lived for {lived:?}");
        assert!(bytes <= MAX_SHAKING_BYTES, "{what} held {bytes} bytes");
    }
}

#[test]
fn connections_that_wait_after_an_answer_are_held_cheaply_and_closed() {
    let name = "idle::connections_that_wait_after_an_answer_are_held_cheaply_and_closed";
    let settings = Settings {
        idle: Duration::from_secs(10),
        ..Settings::default()
    };
    let Some(edge) = Elsewhere::start(name, &settings) else {
        return;
    };
    let ask = b"GET /a.txt HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    for (what, tls, most) in [
        ("idle", false, MAX_IDLE_BYTES),
        ("idle over TLS", true, MAX_IDLE_TLS_BYTES),
    ] {
        let (count, lived, bytes) = hold(&edge, tls, ask, true);
        eprintln!("{what}: {count} connections, {bytes} bytes each, closed after {lived:.2?}");
        assert_eq!(count, connections(CLIENTS));
        assert!(lived < within(2 * CUT_BY), "{what} lived for {lived:?}");
        assert!(bytes <= most, "{what} held {bytes} bytes");
    }
}

/// What an unfinished head may hold.
const MAX_HEAD_HELD_BYTES: u64 = 48 * 1024;

#[test]
fn heads_that_stop_before_they_are_too_large_and_header_bombs_are_held_cheaply_and_cut() {
    let name =
        "idle::heads_that_stop_before_they_are_too_large_and_header_bombs_are_held_cheaply_and_cut";
    let Some(edge) = Elsewhere::start(name, &Settings::default()) else {
        return;
    };
    let head = |lines: usize| -> &'static [u8] {
        let line = format!("X: {}\r\n", "y".repeat(995));
        let head = format!(
            "GET / HTTP/1.1\r\nHost: shop.example\r\n{}",
            line.repeat(lines)
        );
        Box::leak(head.into_boxed_str().into_boxed_bytes())
    };
    for (what, say) in [
        ("a head of 31 KiB", head(31)),
        ("a head of a megabyte", head(1000)),
    ] {
        for tls in [false, true] {
            let (count, lived, bytes) = hold(&edge, tls, say, false);
            eprintln!(
                "{what}, TLS {tls}: {count} connections, {bytes} bytes each, cut after {lived:.2?}"
            );
            assert_eq!(count, connections(CLIENTS));
            assert!(lived < within(CUT_BY), "{what} lived for {lived:?}");
            assert!(bytes <= MAX_HEAD_HELD_BYTES, "{what} held {bytes} bytes");
        }
    }
}
