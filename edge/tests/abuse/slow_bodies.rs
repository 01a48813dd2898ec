//! Clients that send their requests' bodies, or take their responses, by the byte.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::crowd::{Crowd, Stream, alone};
use crate::elsewhere::{Elsewhere, Settings, within};
use crate::upstream::Upstream;

const CLIENTS: usize = 600;
/// In which a client's pace is judged.
const WINDOW: Duration = Duration::from_secs(1);
/// By when each is cut: two windows, and a while for a busy machine.
const CUT_BY: Duration = Duration::from_secs(12);
/// What one may make the edge hold, with the connection to the upstream.
const MAX_HELD_BYTES: u64 = 48 * 1024;
/// What TLS holds of a response besides: 64 KiB of records that the kernel does not take, and what they are made of.
const MAX_HELD_RECORDS: u64 = 96 * 1024;
const PAUSE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(90);

/// How long each was let go on, and what all together made the edge hold.
fn hold<F>(
    edge: &Elsewhere,
    crowd: &Crowd,
    each: impl Fn(Box<dyn Stream>, Instant) -> F + Clone + Send + 'static,
) -> (Duration, u64)
where
    F: Future<Output = Duration> + Send,
{
    // A few come and go first, so that what is made once is not counted.
    let few = Crowd {
        count: CLIENTS / 10,
        ..crowd.clone()
    };
    alone(few.each(each.clone()));
    let (before, open) = (edge.resident(), edge.descriptors());
    let (lived, most) =
        edge.most_resident(|| alone(async { timeout(PATIENCE, crowd.each(each)).await }).unwrap());
    edge.until_closed(open);
    let lived: Vec<Duration> = lived.into_iter().flatten().collect();
    assert_eq!(lived.len(), crowd.count);
    let bytes = most.saturating_sub(before) / lived.len() as u64;
    (lived.into_iter().max().unwrap(), bytes)
}

fn assert_bounded(what: &str, (lived, bytes): (Duration, u64), most: u64) {
    eprintln!("{what}: {CLIENTS} clients, {bytes} bytes each, cut after {lived:.2?}");
    assert!(lived < within(CUT_BY), "{what} lived for {lived:?}");
    assert!(bytes <= most, "{what} held {bytes} bytes");
}

/// Sends `begun`, and then `part` again and again, until the connection ends.
async fn drip(
    mut stream: Box<dyn Stream>,
    since: Instant,
    begun: &'static [u8],
    part: &'static [u8],
) -> Duration {
    let _ = stream.write_all(begun).await;
    let _ = stream.flush().await;
    let mut received = [0; 512];
    loop {
        tokio::select! {
            read = stream.read(&mut received) => if !matches!(read, Ok(1..)) {
                return since.elapsed();
            },
            () = sleep(PAUSE) => if stream.write_all(part).await.is_err() || stream.flush().await.is_err() {
                return since.elapsed();
            },
        }
    }
}

#[test]
fn bodies_that_come_by_the_byte_are_held_cheaply_and_cut() {
    let name = "slow_bodies::bodies_that_come_by_the_byte_are_held_cheaply_and_cut";
    // It waits for the end of a body that never comes.
    let upstream = Upstream::raw(|mut link, _| while link.fill() {});
    let settings = Settings {
        body_window: WINDOW,
        upstream: Some(upstream.addr),
        ..Settings::default()
    };
    let Some(edge) = Elsewhere::start(name, &settings) else {
        return;
    };
    for tls in [false, true] {
        // Over TLS the same code reads them, once.
        let most = if tls { 1 } else { usize::MAX };
        let bodies = [
            (
                "a body with a length",
                &b"POST /api/ HTTP/1.1\r\nHost: api.example\r\nContent-Length: 1000000\r\n\r\n"[..],
                &b"x"[..],
            ),
            (
                "a body in chunks of a byte",
                b"POST /api/ HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"1\r\nx\r\n",
            ),
            (
                "a chunk's size without end",
                b"POST /api/ HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"0",
            ),
            (
                "a body that nobody reads",
                b"POST /a.txt HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000\r\n\r\n",
                b"x",
            ),
        ];
        for (what, begun, part) in bodies.into_iter().take(most) {
            let each = move |stream, since| drip(stream, since, begun, part);
            let held = hold(&edge, &Crowd::new(&edge.at, tls, CLIENTS), each);
            assert_bounded(&format!("{what}, TLS {tls}"), held, MAX_HELD_BYTES);
        }
    }
}

#[test]
fn responses_that_are_taken_by_the_byte_are_held_cheaply_and_cut() {
    let name = "slow_bodies::responses_that_are_taken_by_the_byte_are_held_cheaply_and_cut";
    let settings = Settings {
        write_stall: WINDOW,
        ..Settings::default()
    };
    let Some(edge) = Elsewhere::start(name, &settings) else {
        return;
    };
    let each = |mut stream: Box<dyn Stream>, since: Instant| async move {
        let ask = b"GET /big.bin HTTP/1.1\r\nHost: shop.example\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        stream.flush().await.unwrap();
        // Less each window than must be taken; what the kernel holds for it is more than it ever asks for.
        let until = since + 4 * CUT_BY;
        loop {
            sleep(PAUSE).await;
            let mut part = [0; 16];
            if !matches!(stream.read(&mut part).await, Ok(1..)) || Instant::now() > until {
                return since.elapsed();
            }
            // Whether it has been cut is told by what can no longer be sent.
            if stream.write_all(b"\r\n").await.is_err() || stream.flush().await.is_err() {
                return since.elapsed();
            }
        }
    };
    for tls in [false, true] {
        let held = hold(&edge, &Crowd::new(&edge.at, tls, CLIENTS), each);
        let most = MAX_HELD_BYTES + u64::from(tls) * MAX_HELD_RECORDS;
        assert_bounded(&format!("a large file, TLS {tls}"), held, most);
    }
}
