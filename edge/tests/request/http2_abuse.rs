//! Clients of HTTP/2 that flood, hold or dribble: each is told GOAWAY and cut, and none makes the edge hold much.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use helix_edge::limits::{CONTROL_FRAMES, Limits, MAX_STREAMS};

use crate::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
};
use crate::support::{Edge, PATIENCE, ran_alone};

/// What one connection may make the edge hold.
const MAX_HELD_BYTES: u64 = 4 * 1024 * 1024;
const ENHANCE_YOUR_CALM: u32 = 11;

/// GET /big.bin of shop.example, without indexing; the path is indexed where it is short.
fn request(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (index, value) in [(0x04, path), (0x01, "shop.example")] {
        block.extend_from_slice(&[index, u8::try_from(value.len()).unwrap()]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// A client that writes frames as it likes.
struct Abuser(TcpStream);

impl Abuser {
    fn open(edge: &Edge, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(edge.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(PREFACE).unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, settings)).unwrap();
        Self(stream)
    }

    /// Sends until the edge has closed, at most so many times.
    fn flood(&mut self, times: usize, bytes: &[u8]) {
        for _ in 0..times {
            if self.0.write_all(bytes).is_err() {
                return;
            }
        }
    }

    /// The reason of the GOAWAY, once the connection has ended.
    fn reason(&mut self) -> u32 {
        let until = Instant::now() + PATIENCE;
        let mut received = Vec::new();
        let mut part = vec![0; 64 * 1024];
        loop {
            assert!(Instant::now() < until, "it is never cut");
            match self.0.read(&mut part) {
                Ok(0) => break,
                Ok(read) => received.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("read: {error}"),
            }
        }
        goaway(&received).expect("it was cut without a GOAWAY")
    }
}

fn goaway(mut bytes: &[u8]) -> Option<u32> {
    let mut reason = None;
    while let [a, b, c, kind, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let payload = rest.get(5..5 + length)?;
        if *kind == GOAWAY {
            reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        bytes = &rest[5 + length..];
    }
    reason
}

/// Connections that abuse the same, one after the other.
const ABUSERS: u64 = 9;

/// What this process holds of its own, in bytes: code that is read from its file for the first time is none of it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// What one of several connections held: the first also pays for what is made once.
fn usual(mut held: Vec<u64>) -> u64 {
    held.sort_unstable();
    held[held.len() / 2]
}

#[test]
fn floods_of_frames_that_carry_nothing_are_cut() {
    let edge = Edge::start();
    let often = usize::try_from(CONTROL_FRAMES).unwrap() * 2;
    for (what, bytes) in [
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("SETTINGS", frame(SETTINGS, 0, 0, b"")),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(0x77, 0, 0, b"?")),
    ] {
        let before = edge.metrics.http2_cut.with_label_values(&["flood"]).get();
        let mut client = Abuser::open(&edge, b"");
        client.flood(often, &bytes);
        assert_eq!(client.reason(), ENHANCE_YOUR_CALM, "{what}");
        let after = edge.metrics.http2_cut.with_label_values(&["flood"]).get();
        assert_eq!(after - before, 1, "{what}");
    }
    edge.until_idle();
}

#[test]
fn empty_data_and_continuations_without_end_are_cut() {
    let edge = Edge::start();
    let mut client = Abuser::open(&edge, b"");
    client.flood(1, &frame(HEADERS, END_HEADERS, 1, &request("/big.bin")));
    client.flood(3000, &frame(DATA, 0, 1, b""));
    client.reason();

    let mut client = Abuser::open(&edge, b"");
    client.flood(1, &frame(HEADERS, 0, 1, &request("/")));
    client.flood(3000, &frame(CONTINUATION, 0, 1, b""));
    assert_eq!(client.reason(), ENHANCE_YOUR_CALM);
    edge.until_idle();
}

#[test]
fn rapid_resets_are_cut() {
    let edge = Edge::start();
    let mut client = Abuser::open(&edge, b"");
    let mut bytes = Vec::new();
    for number in 0..2000 {
        let stream = 2 * number + 1;
        let flags = END_HEADERS | END_STREAM;
        bytes.extend(frame(HEADERS, flags, stream, &request("/a.txt")));
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    client.flood(1, &bytes);
    assert_eq!(client.reason(), ENHANCE_YOUR_CALM);
    edge.until_idle();
}

/// A request, and the error that follows it, twice: the first may still be allowed. Nothing stands for a stream that
/// depends on itself.
fn erring(stream: u32, block: &[u8], flags: u8, error: (u8, u8, &[u8])) -> Vec<u8> {
    let (kind, more_flags, payload) = error;
    let own = [&stream.to_be_bytes()[..], &[1]].concat();
    let payload = if payload.is_empty() && kind == PRIORITY {
        &own
    } else {
        payload
    };
    let error = frame(kind, more_flags, stream, payload);
    [&frame(HEADERS, flags, stream, block)[..], &error, &error].concat()
}

/// MadeYouReset (CVE-2025-8671): the client does not reset, it makes the edge do it, and each request was begun.
#[test]
fn errors_that_make_the_edge_reset_streams_are_cut() {
    const PADDED: u8 = 8;
    const TIMES: u32 = 3000;
    let upper = [&request("/big.bin")[..], b"\x00\x01A\x01b"].concat();
    let length = [&request("/big.bin")[..], b"\x0f\x0d\x011"].concat();
    let good = request("/big.bin");
    let flag = END_HEADERS | END_STREAM;
    let edge = Edge::start();
    for (what, block, flags, kind, more_flags, payload) in [
        (
            "window of nothing",
            &good,
            flag,
            WINDOW_UPDATE,
            0,
            &[0; 4][..],
        ),
        (
            "window too large",
            &good,
            flag,
            WINDOW_UPDATE,
            0,
            &[0x7f, 255, 255, 255],
        ),
        ("data after the end", &good, flag, DATA, 0, b"x"),
        ("head after the end", &good, flag, HEADERS, flag, b"\x82"),
        (
            "trailers that do not end",
            &good,
            END_HEADERS,
            HEADERS,
            END_HEADERS,
            b"\x00\x01a\x01b",
        ),
        (
            "more than it said",
            &length,
            END_HEADERS,
            DATA,
            END_STREAM,
            b"xx",
        ),
        (
            "less than it said",
            &length,
            END_HEADERS,
            DATA,
            END_STREAM,
            b"",
        ),
        (
            "padding too long",
            &good,
            END_HEADERS,
            DATA,
            PADDED,
            &[9, 0],
        ),
        ("upper case", &upper, flag, PRIORITY, 0, &[0, 0, 0, 0, 1]),
        ("depends on itself", &good, flag, PRIORITY, 0, &[]),
    ] {
        let mut client = Abuser::open(&edge, &[0, 4, 0, 0, 0, 0]);
        for number in 0..TIMES {
            let error = (kind, more_flags, payload);
            client.flood(1, &erring(2 * number + 1, block, flags, error));
        }
        let reason = client.reason();
        assert_ne!(reason, 0, "{what}");
        edge.until_idle();
    }
}

#[test]
fn windows_beyond_the_largest_end_the_connection() {
    let edge = Edge::start();
    let most = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]);
    let large = frame(SETTINGS, 0, 0, &[0, 4, 255, 255, 255, 255]);
    for bytes in [most, large] {
        let mut client = Abuser::open(&edge, b"");
        client.flood(1, &bytes);
        // PROTOCOL_ERROR or FLOW_CONTROL_ERROR.
        assert!(matches!(client.reason(), 1 | 3));
    }
    edge.until_idle();
}

/// A large file that is taken a byte for each frame that allows it.
#[test]
fn a_response_that_is_let_through_by_the_byte_is_cut() {
    let edge = Edge::start();
    let mut client = Abuser::open(&edge, &[0, 4, 0, 0, 0, 0]);
    let flags = END_HEADERS | END_STREAM;
    client.flood(1, &frame(HEADERS, flags, 1, &request("/big.bin")));
    client.flood(5000, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
    assert_eq!(client.reason(), ENHANCE_YOUR_CALM);
    edge.until_idle();
}

/// Bodies in frames of a byte that nobody reads, since the responses before them are not taken.
#[test]
fn bodies_in_frames_of_a_byte_cost_little_and_are_cut() {
    if ran_alone("http2_abuse::bodies_in_frames_of_a_byte_cost_little_and_are_cut") {
        return;
    }
    const STREAMS: u32 = 4;
    // Of a frame with a byte and of one with nothing but the length of its padding.
    for (what, part) in [
        ("a byte", frame(DATA, 0, 1, b"x")),
        ("only padding", frame(DATA, 8, 1, &[0])),
    ] {
        let edge = Edge::with(Limits {
            write_stall: Duration::from_secs(4),
            ..Limits::default()
        });
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut client = Abuser::open(&edge, &[0, 4, 0, 0, 0, 0]);
            let before = resident();
            for number in 0..STREAMS {
                let stream = 2 * number + 1;
                client.flood(
                    1,
                    &frame(HEADERS, END_HEADERS, stream, &request("/big.bin")),
                );
                let mut part = part.clone();
                part[5..9].copy_from_slice(&stream.to_be_bytes());
                // All that the window of a stream allows, unless it is cut before.
                client.flood(64, &part.repeat(4000));
            }
            let most = resident().saturating_sub(before);
            // It is cut for what it sent, or for what it does not take.
            assert_ne!(client.reason(), 0, "{what}");
            held.push(most);
        }
        let held = usual(held);
        eprintln!("{what}: {held} bytes held");
        assert!(held < MAX_HELD_BYTES, "{what}: {held} bytes held");
        edge.until_idle();
    }
}

#[test]
fn a_head_that_is_dribbled_is_cut() {
    let edge = Edge::with(Limits {
        head_deadline: Duration::from_millis(300),
        ..Limits::default()
    });
    let mut client = Abuser::open(&edge, b"");
    let head = frame(HEADERS, 0, 1, &request("/"));
    client.flood(1, &head[..head.len() - 1]);
    assert_eq!(client.reason(), ENHANCE_YOUR_CALM);
    let cut = &edge.metrics.http2_cut;
    assert_eq!(cut.with_label_values(&["slow_head"]).get(), 1);
}

/// All streams there may be, each with as many header fields as fit, none of whose responses is taken.
#[test]
fn responses_held_by_a_zero_window_cost_little_and_are_cut() {
    if ran_alone("http2_abuse::responses_held_by_a_zero_window_cost_little_and_are_cut") {
        return;
    }
    let edge = Edge::with(Limits {
        write_stall: Duration::from_millis(500),
        ..Limits::default()
    });
    // One field that the table remembers, then named by one byte each.
    let block = |path, first: bool| {
        let mut block = request(path);
        if first {
            block.extend_from_slice(b"\x40\x01a\x01b");
        }
        block.extend(std::iter::repeat_n(0xbe, 90));
        block
    };
    let mut bytes = Vec::new();
    for number in 0..MAX_STREAMS {
        let block = block("/big.bin", number == 0);
        bytes.extend(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            2 * number + 1,
            &block,
        ));
    }
    let mut held = Vec::new();
    for number in 1..=ABUSERS {
        // SETTINGS_INITIAL_WINDOW_SIZE of 0.
        let mut client = Abuser::open(&edge, &[0, 4, 0, 0, 0, 0]);
        let before = resident();
        client.flood(1, &bytes);
        assert_eq!(client.reason(), ENHANCE_YOUR_CALM);
        held.push(resident().saturating_sub(before));
        let cut = &edge.metrics.http2_cut;
        assert_eq!(cut.with_label_values(&["held"]).get(), number);
    }
    let held = usual(held);
    assert!(held < MAX_HELD_BYTES, "{held} bytes held");
    edge.until_idle();
}

/// As many fields in few bytes as HPACK allows: refused, and not held.
#[test]
fn header_bombs_are_refused_and_not_held() {
    if ran_alone("http2_abuse::header_bombs_are_refused_and_not_held") {
        return;
    }
    let edge = Edge::start();
    let mut bytes = Vec::new();
    for number in 0..MAX_STREAMS {
        let mut block = request("/a.txt");
        if number == 0 {
            block.extend_from_slice(b"\x40\x01a\x01b");
        }
        block.extend(std::iter::repeat_n(0xbe, 900));
        bytes.extend(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            2 * number + 1,
            &block,
        ));
    }
    let refused = edge
        .metrics
        .heads_refused
        .with_label_values(&["too_many_headers"]);
    let mut clients = Vec::new();
    let mut held = Vec::new();
    for number in 1..=ABUSERS {
        let before = resident();
        let mut client = Abuser::open(&edge, &[0, 4, 0, 0, 0, 0]);
        client.flood(1, &bytes);
        let until = Instant::now() + PATIENCE;
        while refused.get() < number * u64::from(MAX_STREAMS) {
            assert!(Instant::now() < until, "{} refused", refused.get());
            std::thread::yield_now();
        }
        held.push(resident().saturating_sub(before));
        clients.push(client);
    }
    let held = usual(held);
    assert!(held < MAX_HELD_BYTES, "{held} bytes held");
}
