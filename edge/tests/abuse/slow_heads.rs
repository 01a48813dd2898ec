//! Ten thousand clients that send a byte of a request's head every nine seconds.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use helix_edge::limits::MAX_CONNECTIONS_PER_ADDRESS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::crowd::{Crowd, Stream, addresses, alone};
use crate::elsewhere::{Elsewhere, PAIRS, Settings, connections, within};
use crate::honest;

const CLIENTS: usize = 10_000;
/// Just within what limits on silence allow.
const PAUSE: Duration = Duration::from_secs(9);
/// By when each of them is cut: the head's deadline, and a while for a busy machine.
const CUT_BY: Duration = Duration::from_secs(12);
/// What each may make the edge hold.
const MAX_HELD_BYTES: u64 = 48 * 1024;
/// How long an honest client is watched, before and meanwhile.
const WATCHED: Duration = Duration::from_secs(3);
/// How much longer it may wait meanwhile, on a machine that does something else too: the figure that counts is printed.
const MAX_TIMES_LONGER: u32 = 20;
/// And waits below this are none.
const SHORT_WAIT: Duration = Duration::from_millis(10);

/// How many times before and meanwhile are compared; more by the variable, for a machine that is left alone.
fn pairs() -> usize {
    std::env::var(PAIRS)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

/// How one client fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fared {
    /// Closed at once, with nothing said: over the cap.
    Refused,
    /// Told 408 after so long.
    Cut(Duration),
}

/// Sends a head as slowly as can be, and waits to be cut.
async fn dribble(mut stream: Box<dyn Stream>, since: Instant) -> Fared {
    let mut received = Vec::new();
    let begun = b"GET / HTTP/1.1\r\nHost: shop.example\r\nX: ";
    // Who is over the cap finds out by reading.
    let _ = stream.write_all(begun).await;
    let _ = stream.flush().await;
    loop {
        let mut part = [0; 512];
        tokio::select! {
            read = stream.read(&mut part) => match read {
                Ok(read @ 1..) => received.extend_from_slice(&part[..read]),
                Ok(0) | Err(_) if received.is_empty() => return Fared::Refused,
                Ok(0) | Err(_) => break,
            },
            () = sleep(PAUSE) => {
                let _ = stream.write_all(b"x").await;
                let _ = stream.flush().await;
            }
        }
        if received.starts_with(b"HTTP/1.1 408 ") {
            break;
        }
    }
    assert!(
        received.starts_with(b"HTTP/1.1 408 "),
        "cut with {:?}",
        String::from_utf8_lossy(&received)
    );
    Fared::Cut(since.elapsed())
}

/// What one attack did.
struct Seen {
    held: usize,
    refused: usize,
    last_cut: Duration,
    bytes_each: u64,
    before: Duration,
    meanwhile: Duration,
}

fn attack(edge: &Elsewhere, tls: bool, from: Vec<Ipv4Addr>, count: usize) -> Seen {
    let crowd = Crowd {
        from,
        ..Crowd::new(&edge.at, tls, count)
    };
    let (to, tls, settled) = (crowd.to, crowd.tls.clone(), Arc::clone(&crowd.settled));
    let before = honest::p99(to, tls.as_ref(), WATCHED);
    let (quiet, open) = (edge.resident(), edge.descriptors());
    let (fared, meanwhile, most) = std::thread::scope(|scope| {
        let attackers = scope.spawn(move || {
            alone(async { timeout(Duration::from_secs(120), crowd.each(dribble)).await }).unwrap()
        });
        // From when all have come, or when the first begin to be cut.
        let until = Instant::now() + PAUSE;
        while settled.load(Ordering::Relaxed) < count && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let (meanwhile, most) = edge.most_resident(|| honest::p99(to, tls.as_ref(), WATCHED));
        (attackers.join().unwrap(), meanwhile, most)
    });
    edge.until_closed(open);
    let cuts: Vec<Duration> = fared
        .iter()
        .filter_map(|fared| match fared {
            Some(Fared::Cut(after)) => Some(*after),
            Some(Fared::Refused) | None => None,
        })
        .collect();
    Seen {
        held: cuts.len(),
        refused: count - cuts.len(),
        last_cut: cuts.iter().copied().max().unwrap_or_default(),
        bytes_each: most.saturating_sub(quiet) / cuts.len().max(1) as u64,
        before,
        meanwhile,
    }
}

/// Attacks as often as asked for, says what was seen, and asserts what must hold at any speed.
fn hold(
    name: &str,
    tls: bool,
    per_address: usize,
    from: &[Ipv4Addr],
    held: impl Fn(usize) -> usize,
) {
    let test = format!("slow_heads::{name}");
    let settings = Settings {
        per_address,
        ..Settings::default()
    };
    let Some(edge) = Elsewhere::start(&test, &settings) else {
        return;
    };
    let count = connections(CLIENTS);
    warm(&edge, tls);
    let mut ratios = Vec::new();
    for _ in 0..pairs() {
        let seen = attack(&edge, tls, from.to_vec(), count);
        let ratio = seen.meanwhile.as_secs_f64() / seen.before.as_secs_f64();
        ratios.push(ratio);
        eprintln!(
            "{name}: {} held and {} refused of {count}, the last cut after {:.2?}, {} bytes each; \
             honest p99 {:.3?} before, {:.3?} meanwhile, x {ratio:.2}",
            seen.held, seen.refused, seen.last_cut, seen.bytes_each, seen.before, seen.meanwhile
        );
        assert_eq!(seen.held, held(count), "held, of {count}");
        assert!(seen.last_cut <= within(CUT_BY), "{:?}", seen.last_cut);
        assert!(seen.bytes_each <= MAX_HELD_BYTES, "{}", seen.bytes_each);
        let most = seen.before.max(SHORT_WAIT) * MAX_TIMES_LONGER;
        assert!(seen.meanwhile <= most, "{:?}", seen.meanwhile);
    }
    ratios.sort_by(f64::total_cmp);
    eprintln!(
        "{name}: median of {} pairs: x {:.2}",
        ratios.len(),
        ratios[ratios.len() / 2]
    );
}

/// Lets a few come and go, so that what is made once is not counted.
fn warm(edge: &Elsewhere, tls: bool) {
    let crowd = Crowd::new(&edge.at, tls, 200);
    let leave = |stream: Box<dyn Stream>, _| async move { drop(stream) };
    alone(crowd.each(leave));
}

/// From one address only as many are let in as one address may have.
fn capped(count: usize) -> usize {
    count.min(MAX_CONNECTIONS_PER_ADDRESS)
}

#[test]
fn from_one_address_they_are_capped_and_cut() {
    let name = "from_one_address_they_are_capped_and_cut";
    hold(
        name,
        false,
        MAX_CONNECTIONS_PER_ADDRESS,
        &addresses(1),
        capped,
    );
}

#[test]
fn from_one_address_over_tls_they_are_capped_and_cut() {
    let name = "from_one_address_over_tls_they_are_capped_and_cut";
    hold(
        name,
        true,
        MAX_CONNECTIONS_PER_ADDRESS,
        &addresses(1),
        capped,
    );
}

#[test]
fn from_four_addresses_all_are_held_cheaply_and_cut() {
    let name = "from_four_addresses_all_are_held_cheaply_and_cut";
    hold(name, false, CLIENTS, &addresses(4), |count| count);
}

#[test]
fn from_four_addresses_over_tls_all_are_held_cheaply_and_cut() {
    let name = "from_four_addresses_over_tls_all_are_held_cheaply_and_cut";
    hold(name, true, CLIENTS, &addresses(4), |count| count);
}
