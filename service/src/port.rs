//! Ports of this machine for what is started, ended and started again on them.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that kernels hand to outgoing connections (Linux from 32768, others from 49152): one of
/// those could take a port while whoever listens there is away, and keep it for a minute after.
const LISTENING: Range<u16> = 10_000..32_768;
/// So many that are taken by others are tried.
const TRIES: usize = 200;

/// A port of the loopback address that nobody listened on a moment ago.
///
/// # Errors
/// When the machine gives out no port at all.
pub fn free() -> io::Result<u16> {
    let chosen = (0..TRIES).map(|_| next()).find(|port| is_free(*port));
    match chosen {
        Some(port) => Ok(port),
        None => Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port()),
    }
}

/// One after the other, from where chance has it: no port twice in one process, and hardly one that another process has.
fn next() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    let width = LISTENING.end - LISTENING.start;
    LISTENING.start + NEXT.fetch_add(1, Ordering::Relaxed) % width
}

/// Whether nobody listens on a port of the loopback address right now.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connection_is_given_a_free_port() {
        for _ in 0..50 {
            let port = free().unwrap();
            assert!(LISTENING.contains(&port), "{port}");
            let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
            assert!(!is_free(port));
        }
    }
}
