//! What is in flight on one release, and until when it may be.
//!
//! ```text
//!  live ──another takes its place──▶ leaving ──▶ requests that were sent on are cut at their deadline
//!                                            └─▶ WebSockets are closed one after the other before theirs
//! ```
//!
//! Each core counts in a row of its own, made by its first request: a request costs two additions there, and one that is
//! sent on waits for the end in a list that no other core touches. What an edge answers itself is counted and never cut:
//! it needs nobody who would have to wait for it. Only requests that came by the names of the site count as those of its
//! live release; a release that is asked for by its own name has another of these, which ends when it is dropped.

use std::array;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use helix_routing::routes::Drain;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};

/// Cores with a row of their own. Those beyond share one.
const ROWS: usize = 32;
/// Rows there may be at once, of 128 bytes each. With more, cores share what each release has for those beyond.
const MAX_ROWS: usize = 200_000;
/// WebSockets are closed over the last part of their time, so that their clients do not come back all at once.
const CLOSING_PART: u32 = 4;
/// How long a tunnel may take to come to the end of the frame under way, before it is cut within.
const FRAME_GRACE: Duration = Duration::from_secs(5);

/// Rows there are.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// By core, each made by its first request; none where there is no room for one more.
type Rows = [OnceLock<Option<Box<Row>>>; ROWS];

/// What is in flight on one release while it is live, and after.
#[derive(Debug, Default)]
pub struct InFlight {
    rows: OnceLock<Box<Rows>>,
    /// For cores without a row.
    rest: OnceLock<Box<Row>>,
    leaving: OnceLock<Leaving>,
}

/// One core's part. Aligned so that no two cores write to the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Row {
    requests: AtomicU64,
    sockets: AtomicU64,
    /// Told when the release leaves.
    left: Notify,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that are being answered.
    pub requests: u64,
    /// WebSockets that are open.
    pub sockets: u64,
}

/// A release that is no longer live, and what it grants.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// Since when.
    pub since: Instant,
    /// When requests that were sent on are cut; none for never.
    pub requests: Option<Instant>,
    /// When the last WebSocket is told to close; none for never.
    pub sockets: Option<Instant>,
}

impl Load {
    /// And so much more.
    pub const fn add(&mut self, more: Self) {
        self.requests += more.requests;
        self.sockets += more.sockets;
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.requests == 0 && self.sockets == 0
    }
}

impl Leaving {
    fn new(drain: &Drain, since: Instant) -> Self {
        let at = |grace: Option<Duration>| grace.map(|grace| since + grace);
        Self {
            since,
            requests: at(drain.requests.duration()),
            sockets: at(drain.websockets.duration()),
        }
    }

    /// When nothing is left at the latest; none where something may stay.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        Some(self.requests?.max(self.sockets?))
    }

    /// When a WebSocket is closed that drew `lot`, from 0 to 1.
    fn closes(&self, lot: f64) -> Option<Instant> {
        let last = self.sockets?;
        let span = last.saturating_duration_since(self.since) / CLOSING_PART;
        Some(last - span.mul_f64(lot.clamp(0.0, 1.0)))
    }
}

impl InFlight {
    /// Counts a request on core number `core`, until what is returned is dropped.
    pub fn begin(&self, core: usize) -> Request<'_> {
        let place = self.place(core);
        place.add(|row| &row.requests);
        Request { place }
    }

    /// What is sent on from core number `core`: it learns when it has to end.
    pub fn departure(&self, core: usize) -> Departure<'_> {
        Departure {
            place: self.place(core),
            all: self,
            is_tunnel: AtomicBool::new(false),
        }
    }

    /// The release is no longer live. The first time counts.
    pub fn leave(&self, drain: &Drain, now: Instant) {
        if self.leaving.set(Leaving::new(drain, now)).is_err() {
            return;
        }
        // Who looks for the end after this sees it, who waited before is told: see [`Departure::told`].
        fence(Ordering::SeqCst);
        self.all_rows().for_each(|row| row.left.notify_waiters());
    }

    /// Since when it is no longer live, and what that means; none while it is.
    #[must_use]
    pub fn leaving(&self) -> Option<&Leaving> {
        self.leaving.get()
    }

    /// How much is in flight.
    #[must_use]
    pub fn load(&self) -> Load {
        let sum = |of: fn(&Row) -> &AtomicU64| {
            self.all_rows().fold(0_u64, |sum, row| {
                sum.wrapping_add(of(row).load(Ordering::Relaxed))
            })
        };
        // A row that is read between two steps of its core may be one behind.
        let positive = |count: u64| i64::try_from(count).map_or(0, i64::unsigned_abs);
        Load {
            requests: positive(sum(|row| &row.requests)),
            sockets: positive(sum(|row| &row.sockets)),
        }
    }

    fn all_rows(&self) -> impl Iterator<Item = &Row> {
        let rows = self.rows.get().into_iter().flat_map(|rows| rows.iter());
        let rows = rows.filter_map(|row| row.get()?.as_deref());
        rows.chain(self.rest.get().map(AsRef::as_ref))
    }

    fn place(&self, core: usize) -> Place<'_> {
        let rows = || Box::new(array::from_fn(|_| OnceLock::new()));
        let own = self.rows.get_or_init(rows).get(core);
        let own = own.and_then(|row| row.get_or_init(Row::new).as_deref());
        Place {
            row: own.unwrap_or_else(|| self.rest.get_or_init(Box::default)),
            is_shared: own.is_none(),
        }
    }
}

impl Row {
    fn new() -> Option<Box<Self>> {
        if HELD.fetch_add(1, Ordering::Relaxed) >= MAX_ROWS {
            HELD.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Box::default())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let rows = self.rows.get().into_iter().flat_map(|rows| rows.iter());
        let own = rows
            .filter(|row| matches!(row.get(), Some(Some(_))))
            .count();
        HELD.fetch_sub(own, Ordering::Relaxed);
    }
}

/// A row, as its core writes to it.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    row: &'a Row,
    is_shared: bool,
}

impl Place<'_> {
    fn add(&self, count: fn(&Row) -> &AtomicU64) {
        self.change(count(self.row), 1);
    }

    fn subtract(&self, count: fn(&Row) -> &AtomicU64) {
        self.change(count(self.row), u64::MAX);
    }

    fn change(&self, count: &AtomicU64, by: u64) {
        if self.is_shared {
            count.fetch_add(by, Ordering::Relaxed);
        } else {
            // Between the two steps nobody else writes: the row is its core's.
            let now = count.load(Ordering::Relaxed);
            count.store(now.wrapping_add(by), Ordering::Relaxed);
        }
    }
}

/// A request that is in flight.
#[derive(Debug)]
pub struct Request<'a> {
    place: Place<'a>,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.place.subtract(|row| &row.requests);
    }
}

/// A request that was sent on, and needs the server of its release.
#[derive(Debug)]
pub struct Departure<'a> {
    place: Place<'a>,
    all: &'a InFlight,
    is_tunnel: AtomicBool,
}

impl Departure<'_> {
    /// It has become a tunnel: it counts as one, and has a tunnel's time.
    pub fn becomes_tunnel(&self) {
        if !self.is_tunnel.swap(true, Ordering::Relaxed) {
            self.place.add(|row| &row.sockets);
            self.place.subtract(|row| &row.requests);
        }
    }

    /// Whether it has.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Ordering::Relaxed)
    }

    /// Waits until it has to be cut; for ever where it may take its time.
    pub async fn cut(&self) {
        let leaving = *self.told().await;
        let tunnel = leaving.sockets.map(|at| (at + FRAME_GRACE, true));
        let request = leaving.requests.map(|at| (at, false));
        let mut ends: Vec<_> = tunnel.into_iter().chain(request).collect();
        ends.sort_unstable();
        for (at, of_tunnels) in ends {
            sleep_until(at).await;
            if self.is_tunnel() == of_tunnels {
                return;
            }
        }
        std::future::pending().await
    }

    /// Waits until the tunnel that drew `lot` is to be closed; for ever where it may stay.
    pub async fn closes(&self, lot: f64) {
        match self.told().await.closes(lot) {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Waits until the release is no longer live.
    async fn told(&self) -> &Leaving {
        loop {
            let mut left = pin!(self.place.row.left.notified());
            left.as_mut().enable();
            // After it is listed: either it sees the end, or whoever sets it sees the list.
            fence(Ordering::SeqCst);
            if let Some(leaving) = self.all.leaving() {
                return leaving;
            }
            left.await;
        }
    }
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        if self.is_tunnel() {
            self.place.subtract(|row| &row.sockets);
            // It goes on as the request that it began as, to its end.
            self.place.add(|row| &row.requests);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use tokio::time::{advance, timeout};

    use super::*;

    fn drain(requests: &str, websockets: &str) -> Drain {
        Drain {
            requests: requests.parse().unwrap(),
            websockets: websockets.parse().unwrap(),
        }
    }

    #[test]
    fn what_begins_on_any_core_is_counted_until_it_ends() {
        let all = InFlight::default();
        let load = |requests, sockets| Load { requests, sockets };
        assert_eq!(all.load(), load(0, 0));
        let (first, second) = (all.begin(0), all.begin(ROWS + 3));
        assert_eq!(all.load(), load(2, 0));
        let tunnel = all.departure(0);
        tunnel.becomes_tunnel();
        tunnel.becomes_tunnel();
        assert_eq!(all.load(), load(1, 1));
        drop(tunnel);
        assert_eq!(all.load(), load(2, 0));
        drop((first, second));
        assert!(all.load().is_none());
    }

    #[test]
    fn cores_count_side_by_side() {
        let all = InFlight::default();
        thread::scope(|scope| {
            for core in 0..ROWS + 2 {
                let all = &all;
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let request = all.begin(core);
                        let departure = all.departure(core);
                        departure.becomes_tunnel();
                        drop(departure);
                        drop(request);
                    }
                });
            }
        });
        assert!(all.load().is_none(), "{:?}", all.load());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_cut_at_its_deadline_and_not_before() {
        let all = Arc::new(InFlight::default());
        let waiting = {
            let all = Arc::clone(&all);
            tokio::spawn(async move {
                all.departure(0).cut().await;
                Instant::now()
            })
        };
        advance(Duration::from_secs(1000)).await;
        let left = Instant::now();
        all.leave(&drain("30s", "120s"), left);
        all.leave(&drain("1s", "1s"), left);
        assert_eq!(waiting.await.unwrap() - left, Duration::from_secs(30));
        // One that asks after the end has the same deadline.
        all.departure(1).cut().await;
        assert_eq!(Instant::now() - left, Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_closed_in_the_last_quarter_of_its_time_and_cut_after_it() {
        let all = InFlight::default();
        let left = Instant::now();
        all.leave(&drain("30s", "120s"), left);
        let tunnel = all.departure(0);
        tunnel.becomes_tunnel();
        for (lot, after) in [(1.0, 90), (0.5, 105), (0.0, 120)] {
            tunnel.closes(lot).await;
            assert_eq!(Instant::now() - left, Duration::from_secs(after), "{lot}");
        }
        tunnel.cut().await;
        assert_eq!(
            Instant::now() - left,
            Duration::from_secs(120) + FRAME_GRACE
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_stay_stays() {
        let all = InFlight::default();
        all.leave(&drain("never", "never"), Instant::now());
        let departure = all.departure(0);
        let day = Duration::from_secs(86_400);
        assert!(timeout(day, departure.cut()).await.is_err());
        assert!(timeout(day, departure.closes(0.0)).await.is_err());
        assert!(all.leaving().unwrap().until().is_none());
    }
}
