//! The servers of one upstream as this edge knows them: addresses, health, connections in use.
//!
//! A group lives as long as a release that names it, and is shared by all that define it alike, so that a
//! cutover changes nothing about what is known. Names are looked up when first needed and again when that is
//! old; while a lookup fails, the last addresses go on. Of two servers chosen at random the one with fewer
//! requests is taken. When fewer than half are well, all of them get requests: the others may not bear the
//! load of all, and what is ill by mistake must not take a site down.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use helix_routing::id::SiteId;
use helix_routing::routes::{
    Address, AddressHost, HealthCheck, Timeouts, Upstream, UpstreamProtocol,
};
use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::check;
use super::health::{Health, State};
use super::lean::Trust;
use super::resolve::{ResolveError, resolve};
use helix_service::reachable::Reachable;

/// How long what a name means is held for true. Resolvers do not say how long it is.
const LOOKUP_AGE: Duration = Duration::from_secs(30);
/// How long a failed lookup is not tried again, so that requests do not become lookups.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);
/// Most requests that wait for a connection to one upstream. Beyond it a server is not slow but down.
const MAX_WAITING: usize = 1024;

/// Servers known so far.
static SERVERS: AtomicU64 = AtomicU64::new(0);

/// One upstream of one site.
#[derive(Debug)]
pub struct Group {
    /// Unlike that of any other group: requests of different groups share no connection.
    pub id: u64,
    site: SiteId,
    upstream: Upstream,
    host: Option<HeaderValue>,
    trust: Trust,
    reachable: Arc<Reachable>,
    known: ArcSwap<Known>,
    resolving: tokio::sync::Mutex<()>,
    refreshing: AtomicBool,
    checking: AtomicBool,
    waiting: AtomicUsize,
}

/// What the addresses were found to mean.
#[derive(Debug, Default)]
struct Known {
    servers: Vec<Arc<Server>>,
    /// None when it holds for good.
    until: Option<Instant>,
    /// Why there are none.
    problem: Option<String>,
}

/// One server at one address.
#[derive(Debug)]
pub(super) struct Server {
    /// Unlike that of any other: what is known of one is never taken for another's.
    id: u64,
    pub(super) addr: SocketAddr,
    pub(super) address: Address,
    free: Arc<Semaphore>,
    health: Mutex<Health>,
}

/// Why no server was found for a request.
#[derive(Debug, thiserror::Error)]
pub enum PickError {
    /// There is no address to connect to.
    #[error("upstream has no address: {0}")]
    NoAddress(String),
    /// All connections are in use, and no more requests may wait for one, or one waited for too long.
    #[error("upstream has all its connections in use")]
    Busy,
}

/// A server, picked for one request. Counts as one of its connections until it is dropped.
#[derive(Debug)]
pub struct Picked {
    /// When it was picked.
    pub(super) at: Instant,
    /// The address to connect to, and no other: it has been checked.
    pub addr: SocketAddr,
    /// The name its certificate must have, when TLS is spoken.
    pub tls: Option<String>,
    group: Arc<Group>,
    server: Arc<Server>,
    _connection: OwnedSemaphorePermit,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered, whatever it said.
    Answered,
    /// It could not be reached, did not answer in time, or not in HTTP.
    Failed,
    /// Nothing can be learned from it: the client left.
    Unknown,
}

impl Picked {
    /// The group it belongs to.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Names the server: connections to it may be kept under this.
    pub(super) fn server(&self) -> u64 {
        self.server.id
    }

    /// Tells what came of it. Whether the server was taken out for it.
    pub fn report(self, outcome: Outcome) -> bool {
        let mut health = self.server.health();
        match outcome {
            Outcome::Answered => health.answered(),
            Outcome::Failed if health.failed(Instant::now().into_std()) => {
                tracing::warn!(site.id = %self.group.site, upstream.addr = %self.addr, from = "in", to = "out", "upstream gets no requests for a while");
                return true;
            }
            Outcome::Failed | Outcome::Unknown => {}
        }
        false
    }
}

impl Group {
    pub(super) fn new(
        id: u64,
        site: SiteId,
        upstream: Upstream,
        reachable: Arc<Reachable>,
    ) -> Arc<Self> {
        let host = upstream
            .host
            .as_ref()
            .and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        // What is known holds until now: it is looked up at once.
        let known = Known {
            until: Some(Instant::now()),
            ..Known::default()
        };
        Arc::new(Self {
            id,
            site,
            upstream,
            host,
            trust: Trust::default(),
            reachable,
            known: ArcSwap::from_pointee(known),
            resolving: tokio::sync::Mutex::default(),
            refreshing: AtomicBool::default(),
            checking: AtomicBool::default(),
            waiting: AtomicUsize::default(),
        })
    }

    /// `Host` to be sent instead of the client's.
    #[must_use]
    pub const fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// How long its servers are waited for.
    #[must_use]
    pub const fn timeouts(&self) -> &Timeouts {
        &self.upstream.timeouts
    }

    /// Whether they speak HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.upstream.protocol == UpstreamProtocol::Http2
    }

    /// Certificates of the authorities it trusts, in PEM, when these are not the public ones.
    #[must_use]
    pub fn authorities(&self) -> Option<&str> {
        self.upstream.tls.ca.as_deref()
    }

    pub(super) const fn health_check(&self) -> Option<&HealthCheck> {
        self.upstream.health.as_ref()
    }

    pub(super) const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Picks a server for one request, none of those `tried` already, and waits for a connection to it to be free if
    /// need be.
    ///
    /// # Errors
    /// When there is none that may be connected to, or it has too much to do.
    pub async fn pick(self: &Arc<Self>, tried: &[SocketAddr]) -> Result<Picked, PickError> {
        self.keep_checked();
        let now = Instant::now();
        let known = self.known(now).await;
        let server = choose(&known.servers, tried, now, rand::random())
            .ok_or_else(|| PickError::NoAddress(known.problem.clone().unwrap_or_default()))?;
        let connection = self.connection(server).await?;
        Ok(Picked {
            at: now,
            addr: server.addr,
            tls: server.address.secure.then(|| self.name_of(server)),
            group: Arc::clone(self),
            server: Arc::clone(server),
            _connection: connection,
        })
    }

    /// The name that a server's certificate must have.
    pub(super) fn name_of(&self, server: &Server) -> String {
        self.name_at(&server.address)
    }

    /// The same for what is at `address`.
    pub(super) fn name_at(&self, address: &Address) -> String {
        match (&self.upstream.host, &address.host) {
            (Some(host), _) | (None, AddressHost::Name(host)) => host.as_str().to_owned(),
            (None, AddressHost::Ip(ip)) => ip.to_string(),
        }
    }

    async fn connection(&self, server: &Server) -> Result<OwnedSemaphorePermit, PickError> {
        if let Ok(permit) = Arc::clone(&server.free).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::join(&self.waiting).ok_or(PickError::Busy)?;
        let free = Arc::clone(&server.free).acquire_owned();
        match timeout(self.upstream.timeouts.connect.duration(), free).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(PickError::Busy),
        }
    }

    /// What each server is held for.
    pub(super) fn states(&self) -> Vec<State> {
        let (known, now) = (self.known.load(), Instant::now().into_std());
        let servers = known.servers.iter();
        servers.map(|server| server.health().state(now)).collect()
    }

    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        self.known.load().servers.clone()
    }

    /// What is known; looked up first if nothing is, and in the background if it is old.
    async fn known(self: &Arc<Self>, now: Instant) -> Arc<Known> {
        let known = self.known.load_full();
        if known.is_current(now) {
            return known;
        }
        if known.servers.is_empty() {
            let _resolving = self.resolving.lock().await;
            if !self.known.load().is_current(Instant::now()) {
                self.look_up().await;
            }
            return self.known.load_full();
        }
        if !self.refreshing.swap(true, Ordering::AcqRel) {
            let group = Arc::clone(self);
            tokio::spawn(async move {
                group.look_up().await;
                group.refreshing.store(false, Ordering::Release);
            });
        }
        known
    }

    pub(super) async fn look_up(&self) {
        let before = self.known.load_full();
        let mut servers = Vec::new();
        let mut problem = None;
        for address in &self.upstream.addresses {
            match resolve(address, &self.reachable).await {
                Ok(found) => servers.extend(
                    found
                        .into_iter()
                        .map(|addr| self.server(&before, address, addr)),
                ),
                Err(error) => {
                    servers.extend(stale(&before, address, &error));
                    problem = Some(described(&error));
                }
            }
        }
        if let Some(problem) = problem.as_ref().filter(|_| before.problem != problem) {
            tracing::warn!(site.id = %self.site, problem, servers = servers.len(), "upstream address not usable");
        }
        let names = self
            .upstream
            .addresses
            .iter()
            .any(|address| matches!(address.host, AddressHost::Name(_)));
        let age = if problem.is_some() {
            LOOKUP_PAUSE
        } else {
            LOOKUP_AGE
        };
        self.known.store(Arc::new(Known {
            servers,
            until: names.then(|| Instant::now() + age),
            problem,
        }));
    }

    /// What each of its addresses means right now, whatever is known.
    pub(super) async fn resolve(&self) -> Vec<(Address, Result<Vec<SocketAddr>, ResolveError>)> {
        let mut all = Vec::with_capacity(self.upstream.addresses.len());
        for address in &self.upstream.addresses {
            let found = resolve(address, &self.reachable).await;
            all.push((address.clone(), found));
        }
        all
    }

    /// The server at `addr`, with what is known of it.
    fn server(&self, before: &Known, address: &Address, addr: SocketAddr) -> Arc<Server> {
        let known = before
            .servers
            .iter()
            .find(|server| server.addr == addr && server.address == *address);
        known.cloned().unwrap_or_else(|| {
            Arc::new(Server {
                id: SERVERS.fetch_add(1, Ordering::Relaxed),
                addr,
                address: address.clone(),
                free: Arc::new(Semaphore::new(self.upstream.max_connections as usize)),
                health: Mutex::default(),
            })
        })
    }

    fn keep_checked(self: &Arc<Self>) {
        if self.upstream.health.is_some() && !self.checking.swap(true, Ordering::AcqRel) {
            tokio::spawn(check::keep_checking(Arc::downgrade(self)));
        }
    }

    pub(super) fn checked(&self, server: &Server, good: bool) {
        let Some(check) = self.health_check() else {
            return;
        };
        if server.health().checked(good, check) {
            let (from, to) = if good {
                ("ill", "well")
            } else {
                ("well", "ill")
            };
            tracing::warn!(site.id = %self.site, upstream.addr = %server.addr, from, to, "upstream health");
        }
    }
}

impl Known {
    fn is_current(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Server {
    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing in here can panic half-way.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place among those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicUsize) -> Option<Self> {
        let before = waiting.fetch_add(1, Ordering::AcqRel);
        let joined = Self(waiting);
        (before < MAX_WAITING).then_some(joined)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What was known of `address`, when it could not be looked up. What may not be connected to is not kept.
fn stale(before: &Known, address: &Address, error: &ResolveError) -> Vec<Arc<Server>> {
    match error {
        ResolveError::Refused { .. } | ResolveError::Own { .. } => Vec::new(),
        ResolveError::Lookup { .. } => before
            .servers
            .iter()
            .filter(|server| server.address == *address)
            .cloned()
            .collect(),
    }
}

fn described(error: &ResolveError) -> String {
    match error {
        ResolveError::Refused { .. } | ResolveError::Own { .. } => error.to_string(),
        ResolveError::Lookup { source, .. } => format!("{error}: {source}"),
    }
}

/// Of two at random, the one with more connections free; among those that are well, unless they are fewer than half.
/// None of those `tried`.
fn choose<'a>(
    servers: &'a [Arc<Server>],
    tried: &[SocketAddr],
    now: Instant,
    random: u64,
) -> Option<&'a Arc<Server>> {
    if let [only] = servers {
        return Some(only).filter(|only| !tried.contains(&only.addr));
    }
    let well: Vec<_> = servers
        .iter()
        .filter(|server| server.health().is_well(now.into_std()))
        .collect();
    let mut among = if well.len() * 2 < servers.len() {
        servers.iter().collect()
    } else {
        well
    };
    among.retain(|server| !tried.contains(&server.addr));
    let count = u64::try_from(among.len()).ok().filter(|count| *count > 0)?;
    let at = |random: u64| among[usize::try_from(random % count).unwrap_or_default()];
    let (one, other) = (at(random >> 32), at(random & u64::from(u32::MAX)));
    let freer = one.free.available_permits() >= other.free.available_permits();
    Some(if freer { one } else { other })
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
