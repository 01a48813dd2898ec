//! What one core counts of its requests.
//!
//! Only the core writes, so counting is an addition and no more; whoever scrapes adds the cores up. A value is at most
//! a few requests behind. The names under which these are shown are in [`crate::metrics`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::exchange::{Broken, Ended, Protocol};

/// Upper bounds of the times from head to last byte that are told apart, in microseconds: from memory to slow clients.
pub const BOUNDS: [u64; 12] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000,
    60_000_000,
];

/// As in labels, in the order of [`Tally::requests`].
pub const PROTOCOLS: [&str; 3] = ["h1", "h2", "h3"];

/// As in labels, in the order of [`Tally::requests`]. None: nothing was sent.
pub const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// A count that one core adds to.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds to it. By its core only: between the two steps nobody else may.
    pub fn add(&self, more: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(more), Ordering::Relaxed);
    }

    /// Puts it at `now`: for what rises and falls. By its core only.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }

    /// What it has come to.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one core. Aligned so that no two cores write to the same cache line, nor to the next one, which is
/// fetched with it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally {
    /// The number of the core, from 0.
    pub core: usize,
    /// Finished requests by protocol and class.
    pub requests: [[Cell; CLASSES.len()]; PROTOCOLS.len()],
    /// How many of them took no longer than each bound, but longer than the one before; the last longer than all.
    pub took: [Cell; BOUNDS.len() + 1],
    /// All their times together.
    pub took_micros: Cell,
    /// Bytes of response bodies sent.
    pub response_bytes: Cell,
    /// Requests under rules that cache, in the order of [`CacheOutcome`].
    pub cache: [Cell; CacheOutcome::ALL.len()],
    /// Requests that were sent on, or were to be, in the order of [`FORWARDS`].
    pub forwards: [Cell; FORWARDS.len()],
    /// At how many servers they were tried.
    pub upstream_tries: Cell,
    /// Tries beyond the first of a request.
    pub upstream_retries: Cell,
    /// Times that a server was taken out for failing requests.
    pub upstream_ejections: Cell,
    /// Requests of sites whose visitors do not all get the same, in the order of [`SIDES`].
    pub sides: [Cell; SIDES.len()],
    /// HTTP/1.1 connections to upstreams that were about to be made, and used again ([`NEW`], [`REUSED`]).
    pub upstream_connections: [Cell; USES.len()],
    /// HTTP/1.1 connections to upstreams that wait for a request now.
    pub upstream_idle: Cell,
    /// What a drain ended, in the order of [`DRAINED`].
    pub drained: [Cell; DRAINED.len()],
}

/// As in labels, in the order of [`Tally::forwards`]: the server's response went out whole; it or the server broke off;
/// the client left or broke the protocol; the edge answered in the server's place, with an error.
pub const FORWARDS: [&str; 4] = ["answered", "broken_off", "client", "failed"];

/// As in labels, in the order of [`Tally::drained`]: a request was cut, a WebSocket was closed in order, a WebSocket was cut,
/// all when another release had taken the place of theirs; and what was cut when the edge itself ended.
pub const DRAINED: [&str; 4] = [
    "request_cut",
    "websocket_closed",
    "websocket_cut",
    "shutdown_cut",
];
/// Among [`DRAINED`].
pub const REQUEST_CUT: usize = 0;
/// Among [`DRAINED`].
pub const WEBSOCKET_CLOSED: usize = 1;
/// Among [`DRAINED`].
pub const WEBSOCKET_CUT: usize = 2;
/// Among [`DRAINED`].
pub const SHUTDOWN_CUT: usize = 3;

/// As in labels, in the order of [`crate::visitor::Side`].
pub const SIDES: [&str; 3] = ["live", "candidate", "pinned"];

/// As in labels, in the order of [`Tally::upstream_connections`].
pub const USES: [&str; 2] = ["new", "reused"];
/// Among [`USES`].
pub const NEW: usize = 0;
/// Among [`USES`].
pub const REUSED: usize = 1;

/// What the response cache said to a request under a rule that caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// Answered from what is kept, and fresh.
    Hit,
    /// Answered from what is kept, while the upstream is asked about it.
    Stale,
    /// Fetched.
    Miss,
    /// Answered by the fetch of another request.
    Collapsed,
    /// Sent on alone.
    Bypass,
}

impl CacheOutcome {
    /// In the order of [`Tally::cache`].
    pub const ALL: [Self; 5] = [
        Self::Hit,
        Self::Stale,
        Self::Miss,
        Self::Collapsed,
        Self::Bypass,
    ];

    /// As in logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Bypass => "bypass",
        }
    }
}

impl Tally {
    /// Counts a finished request.
    pub fn finished(
        &self,
        protocol: Protocol,
        status: Option<StatusCode>,
        bytes: u64,
        took: Duration,
    ) {
        self.requests[protocol as usize][class(status)].add(1);
        let micros = took.as_secs().saturating_mul(1_000_000) + u64::from(took.subsec_micros());
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound);
        self.took[bucket.unwrap_or(BOUNDS.len())].add(1);
        self.took_micros.add(micros);
        self.response_bytes.add(bytes);
    }

    /// Counts a request that was tried at so many servers.
    pub fn forwarded(&self, ended: &Ended, tries: usize) {
        let outcome = match &ended.error {
            Some(Broken::Upstream(_) | Broken::Drained) => 1,
            Some(_) => 2,
            None if ended.cause.is_some() => 3,
            None => 0,
        };
        self.forwards[outcome].add(1);
        self.upstream_tries.add(tries as u64);
        self.upstream_retries.add(tries.saturating_sub(1) as u64);
    }
}

fn class(status: Option<StatusCode>) -> usize {
    status.map_or(0, |status| {
        usize::from(status.as_u16() / 100).min(CLASSES.len() - 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_protocol_and_class() {
        let tally = Tally::default();
        for (protocol, status) in [
            (Protocol::Http1, Some(200)),
            (Protocol::Http2, Some(206)),
            (Protocol::Http2, Some(999)),
            (Protocol::Http3, None),
        ] {
            let status = status.map(|status| StatusCode::from_u16(status).unwrap());
            tally.finished(protocol, status, 10, Duration::ZERO);
        }
        let counted: Vec<_> = PROTOCOLS
            .iter()
            .zip(&tally.requests)
            .flat_map(|(protocol, row)| {
                row.iter()
                    .zip(CLASSES)
                    .map(move |(cell, class)| (*protocol, class, cell.count()))
            })
            .filter(|(_, _, count)| *count > 0)
            .collect();
        assert_eq!(
            counted,
            [
                ("h1", "2xx", 1),
                ("h2", "2xx", 1),
                ("h2", "5xx", 1),
                ("h3", "none", 1)
            ]
        );
        assert_eq!(tally.response_bytes.count(), 40);
    }

    #[test]
    fn a_time_falls_under_the_first_bound_that_it_does_not_exceed() {
        for (micros, expected) in [
            (0, 0),
            (250, 0),
            (251, 1),
            (60_000_000, 11),
            (60_000_001, 12),
        ] {
            let tally = Tally::default();
            let took = Duration::from_micros(micros) + Duration::from_nanos(999);
            tally.finished(Protocol::Http1, None, 0, took);
            let at = tally.took.iter().position(|cell| cell.count() == 1);
            assert_eq!((at, tally.took_micros.count()), (Some(expected), micros));
        }
    }
}
