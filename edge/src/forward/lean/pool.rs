//! Connections to upstreams that wait for their next request.
//!
//! Each core keeps its own, since a connection belongs to the runtime it was made on. The one used last is used
//! first, so that what is not needed any more grows old. Once a second what has, or what a server has closed, goes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connection::Connection;
use crate::limits::UPSTREAM_IDLE_CONNECTIONS;
use crate::tally::{NEW, REUSED, Tally};

/// How often to look for connections that are of no use any more.
const SWEEP: Duration = Duration::from_secs(1);

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Debug, Default)]
struct Pool {
    /// By server; none of them empty after a sweep.
    idle: HashMap<u64, Vec<Idle>, foldhash::fast::RandomState>,
    count: usize,
    swept: bool,
    /// Where the core counts, once it has said so.
    tally: Option<Arc<Tally>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    until: Instant,
}

/// Lets this core count its connections in `tally`.
pub(crate) fn count_in(tally: &Arc<Tally>) {
    POOL.with_borrow_mut(|pool| pool.tally = Some(Arc::clone(tally)));
}

/// Counts a connection that is about to be made.
pub(super) fn count_new() {
    POOL.with_borrow_mut(|pool| pool.counted(|tally| tally.upstream_connections[NEW].add(1)));
}

/// A connection to `server` that can be used again `now`.
pub(super) fn take(server: u64, now: Instant) -> Option<Connection> {
    POOL.with_borrow_mut(|pool| {
        let taken = pool.take(server, now);
        if taken.is_some() {
            pool.counted(|tally| tally.upstream_connections[REUSED].add(1));
        }
        pool.show();
        taken
    })
}

/// Keeps a connection on which nothing is under way, for so long.
pub(super) fn put(server: u64, mut connection: Connection, patience: Duration) {
    connection.release();
    let until = Instant::now() + patience;
    let sweeps = POOL.with_borrow_mut(|pool| {
        pool.put(server, Idle { connection, until });
        pool.show();
        std::mem::replace(&mut pool.swept, true)
    });
    if !sweeps {
        tokio::spawn(sweep());
    }
}

/// Ends when nothing is left.
async fn sweep() {
    loop {
        sleep(SWEEP).await;
        let left = POOL.with_borrow_mut(|pool| {
            pool.sweep(Instant::now());
            pool.show();
            pool.swept = pool.count > 0;
            pool.swept
        });
        if !left {
            return;
        }
    }
}

impl Pool {
    fn counted(&self, count: impl FnOnce(&Tally)) {
        if let Some(tally) = &self.tally {
            count(tally);
        }
    }

    /// Says how many there are.
    fn show(&self) {
        self.counted(|tally| tally.upstream_idle.set(self.count as u64));
    }

    fn take(&mut self, server: u64, now: Instant) -> Option<Connection> {
        let idle = self.idle.get_mut(&server)?;
        while let Some(Idle {
            mut connection,
            until,
        }) = idle.pop()
        {
            self.count -= 1;
            if now < until && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    fn put(&mut self, server: u64, idle: Idle) {
        if self.count < UPSTREAM_IDLE_CONNECTIONS {
            self.count += 1;
            self.idle.entry(server).or_default().push(idle);
        }
    }

    fn sweep(&mut self, now: Instant) {
        self.idle.retain(|_, idle| {
            idle.retain_mut(|idle| now < idle.until && idle.connection.is_quiet());
            !idle.is_empty()
        });
        self.count = self.idle.values().map(Vec::len).sum();
    }
}
