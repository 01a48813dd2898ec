//! Responses of upstreams, kept and used again (RFC 9111, 9211, 9213, 5861).
//!
//! [`serve`] stands between a request and the lanes that carry it to an upstream. What may be kept and used is
//! decided by [`policy`], purely; [`store`] keeps it in memory and [`disk`] behind that; [`purge`] says what is to be
//! forgotten; `fetch` makes one request for all who ask at once. The key
//! names the release, so a cutover can never serve the old release's bytes as the new one's.
//! It opens no connection: a fetch goes the way that any forwarded request goes.

pub mod content;
pub mod directives;
pub mod disk;
mod fetch;
mod pass;
pub mod policy;
pub mod purge;
mod reply;
pub mod store;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, ETAG, HeaderMap, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::{mpsc, oneshot, watch};

use self::content::{Cut, Reader};
use self::directives::{DEVICE, SURROGATE_CAPABILITY};
use self::fetch::{Fetching, Flights, Joined, Landing, Led, Origin, Outcome, State};
use self::pass::Passing;
use self::policy::Use;
use self::reply::{Reply, reply};
use self::store::{Found, Key, Store, Stored};
use crate::answer::{ForwardTo, Pinned};
use crate::edge::Edge;
use crate::exchange::{Broken, Ended, Exchange, Protocol, Request, ResponseHead, head_of};
use crate::forward::uncached;
use crate::tally::CacheOutcome;
use crate::trace::TraceId;

/// How long one waits for the head that somebody else fetches. Longer than most take; who waited in vain asks alone.
const COLLAPSE_WAIT: Duration = Duration::from_secs(10);

/// Fields that make some servers answer as if another thing had been asked for, and that no key knows.
const UNKEYED: [&str; 6] = [
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// What is kept, and what is on its way.
#[derive(Debug, Default)]
pub struct Cache {
    /// What is kept.
    pub store: Arc<Store>,
    flights: Arc<Flights>,
}

impl Cache {
    /// One that keeps so many bytes in memory, and nothing on disk: see [`Store::attach`].
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            store: Arc::new(Store::new(memory_bytes)),
            flights: Arc::default(),
        }
    }
}

/// A request that may be answered from what is kept.
struct Asking<'a> {
    edge: &'a Edge,
    request: &'a Request,
    pinned: &'a Pinned,
    target: &'a ForwardTo,
    key: Arc<Key>,
}

/// What a fetch met on its way, for the line in the log of the one who started it.
struct Fetched {
    upstream: Option<SocketAddr>,
    trace: Option<TraceId>,
    cause: Option<String>,
}

/// Answers `request`, which a rule that caches sends on, from what is kept or from the upstream.
pub async fn serve<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: &Pinned,
    target: &ForwardTo,
    exchange: &mut E,
) -> Ended {
    let Some(key) = key(request, pinned, target) else {
        return uncached(edge, request, Some(pinned), target, exchange).await;
    };
    let asking = Asking {
        edge,
        request,
        pinned,
        target,
        key: Arc::new(key),
    };
    if !may_be_kept(request, exchange) {
        return asking.alone("bypass", exchange).await;
    }
    asking.answer(exchange).await
}

fn key(request: &Request, pinned: &Pinned, target: &ForwardTo) -> Option<Key> {
    let head = head_of(request);
    let path = request.head.uri.path_and_query()?;
    Some(Key {
        site: (*pinned.site).clone(),
        release: pinned.release.as_ref()?.id.clone(),
        rule: target.rule,
        secure: request.secure,
        authority: head.authority.to_ascii_lowercase(),
        target: path.as_str().to_owned(),
    })
}

fn may_be_kept<E: Exchange>(request: &Request, exchange: &E) -> bool {
    let head = &request.head;
    let has_body = head.headers.contains_key(TRANSFER_ENCODING)
        || head
            .headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
        || (exchange.protocol() != Protocol::Http1 && !exchange.is_read());
    let own = [UPGRADE, IF_MATCH, IF_UNMODIFIED_SINCE];
    matches!(head.method, Method::GET | Method::HEAD)
        && !has_body
        && !own.iter().any(|name| head.headers.contains_key(name))
}

impl Asking<'_> {
    async fn answer<E: Exchange>(&self, exchange: &mut E) -> Ended {
        let headers = &self.request.head.headers;
        let said = directives::of_request(headers);
        let Found {
            stored: found,
            newest,
        } = self.cache().store.look_up(&self.key, headers).await;
        let usable = found.as_ref().map(|stored| self.usable(stored, &said));
        if let (Some(stored), Some(Use::Fresh | Use::Stale)) = (&found, usable) {
            let ttl = signed_ttl(stored);
            self.cache()
                .store
                .used_again(stored, stored.freshness.left(now()));
            self.count(CacheOutcome::Hit);
            return self
                .send(stored, &format!("{DEVICE}; hit; ttl={ttl}"), None, exchange)
                .await
                .cached(CacheOutcome::Hit);
        }
        if let (Some(stored), Some(Use::WhileRevalidating)) = (&found, usable) {
            self.revalidate(stored, exchange.protocol());
            self.count(CacheOutcome::Stale);
            let ttl = signed_ttl(stored);
            return self
                .send(
                    stored,
                    &format!("{DEVICE}; hit; ttl={ttl}; detail=revalidating"),
                    None,
                    exchange,
                )
                .await
                .cached(CacheOutcome::Stale);
        }
        if said.only_if_cached {
            self.count(CacheOutcome::Miss);
            return self.refuse(exchange).await.cached(CacheOutcome::Miss);
        }
        let forward = match (&found, &newest) {
            (Some(_), _) => "stale",
            (None, Some(_)) => "vary-miss",
            (None, None) => "uri-miss",
        };
        let whole = self.request.head.method == Method::GET && !headers.contains_key(RANGE);
        if said.no_store || !(whole || found.is_some()) {
            return self.alone(forward, exchange).await;
        }
        let selected = newest.map_or_else(Vec::new, |newest| newest.selected_of(headers));
        match self.cache().flights.join((Arc::clone(&self.key), selected)) {
            Joined::Lead(landing) => self.lead(landing, found, forward, exchange).await,
            Joined::Wait(outcome) => self.wait(outcome, &said, forward, exchange).await,
        }
    }

    fn usable(&self, stored: &Stored, said: &directives::RequestDirectives) -> Use {
        if stored.invalid.load(Ordering::Acquire) {
            return Use::Validate;
        }
        let authorized = self.request.head.headers.contains_key(AUTHORIZATION);
        stored.freshness.usable(said, authorized, now())
    }

    async fn lead<E: Exchange>(
        &self,
        landing: Landing,
        found: Option<Arc<Stored>>,
        forward: &str,
        exchange: &mut E,
    ) -> Ended {
        let (leader, led) = oneshot::channel();
        let fetched = self.fetch(landing, found, Some(leader), exchange.protocol());
        self.count(CacheOutcome::Miss);
        let mut ended = match led.await {
            Ok(Led::Shared(stored, reader, origin)) => {
                let status = match origin {
                    Origin::Sent => format!("{DEVICE}; fwd={forward}; stored"),
                    Origin::Status(status) => {
                        format!("{DEVICE}; fwd={forward}; fwd-status={}", status.as_u16())
                    }
                    Origin::Silent => format!("{DEVICE}; fwd={forward}; detail=unreachable"),
                };
                self.send(&stored, &status, reader, exchange).await
            }
            Ok(Led::Through(mut head, parts)) => {
                reply::say(&mut head.headers, &format!("{DEVICE}; fwd={forward}"));
                self.through(head, parts, exchange).await
            }
            // It ended without a response.
            Err(_) => return self.alone(forward, exchange).await,
        };
        if let Some(fetched) = fetched.get() {
            ended.upstream = fetched.upstream;
            ended.trace = fetched.trace;
            ended.cause.clone_from(&fetched.cause);
        }
        ended.cached(CacheOutcome::Miss)
    }

    async fn wait<E: Exchange>(
        &self,
        mut outcome: watch::Receiver<Option<Outcome>>,
        said: &directives::RequestDirectives,
        forward: &str,
        exchange: &mut E,
    ) -> Ended {
        // Who came after the response began gets it only if it is fresh, and nothing changed since it was asked for.
        let late = outcome.borrow().is_some();
        let told = tokio::time::timeout(COLLAPSE_WAIT, told(&mut outcome)).await;
        let told = told.ok().flatten();
        let Some(Outcome::Shared(stored)) = told else {
            return self.alone(forward, exchange).await;
        };
        let old = late && self.usable(&stored, said) != Use::Fresh;
        if old || self.cache().store.was_purged(&stored) {
            return self.alone(forward, exchange).await;
        }
        let headers = &self.request.head.headers;
        let open = stored.freshness.authorized || !headers.contains_key(AUTHORIZATION);
        let readable = stored.content.reader(0, None);
        if said.no_cache || !open || !stored.facts.answers(headers) || readable.is_none() {
            return self.alone(forward, exchange).await;
        }
        self.count(CacheOutcome::Collapsed);
        let status = format!("{DEVICE}; fwd={forward}; collapsed");
        let sent = self.send(&stored, &status, readable, exchange);
        sent.await.cached(CacheOutcome::Collapsed)
    }

    fn revalidate(&self, stored: &Arc<Stored>, protocol: Protocol) {
        let selected = stored.facts.selected_of(&self.request.head.headers);
        if let Joined::Lead(landing) = self.cache().flights.join((Arc::clone(&self.key), selected))
        {
            self.fetch(landing, Some(Arc::clone(stored)), None, protocol);
        }
    }

    fn fetch(
        &self,
        landing: Landing,
        candidate: Option<Arc<Stored>>,
        leader: Option<oneshot::Sender<Led>>,
        protocol: Protocol,
    ) -> Arc<OnceLock<Fetched>> {
        let headers = self.request.head.headers.clone();
        let request = question(self.request, candidate.as_deref());
        let mut fetching = Fetching {
            store: Arc::clone(&self.cache().store),
            key: Arc::clone(&self.key),
            said: directives::of_request(&headers),
            request: headers,
            protocol,
            candidate,
            leader,
            landing,
            asked: now(),
            // The moment first: what comes between the two counts as later.
            began: self.cache().store.purges().moment(),
            purged: self.cache().store.purges().number(&self.key.site),
            state: State::Waiting,
        };
        let (edge, pinned) = (self.edge.clone(), self.pinned.clone());
        let target = self.target.clone();
        let fetched = Arc::new(OnceLock::new());
        let telling = Arc::clone(&fetched);
        tokio::spawn(async move {
            let ended = uncached(&edge, &request, Some(&pinned), &target, &mut fetching).await;
            let (disconnected, broken) = (ended.cause.is_some(), ended.error.is_some());
            // Nobody else sets it.
            let _ = telling.set(Fetched {
                upstream: ended.upstream,
                trace: ended.trace,
                cause: ended.cause,
            });
            fetching.land(disconnected, broken).await;
        });
        fetched
    }

    async fn send<E: Exchange>(
        &self,
        stored: &Stored,
        status: &str,
        reader: Option<Reader>,
        exchange: &mut E,
    ) -> Ended {
        let head = &self.request.head;
        let Reply { head, body } = reply(stored, &head.method, &head.headers, now(), status);
        let reader = match body {
            None => None,
            Some((0, None)) => reader.or_else(|| stored.content.reader(0, None)),
            Some((from, until)) => stored.content.reader(from, until),
        };
        self.carry(head, reader, exchange).await
    }

    async fn carry<E: Exchange>(
        &self,
        head: ResponseHead,
        mut reader: Option<Reader>,
        exchange: &mut E,
    ) -> Ended {
        let mut ended = Ended::default();
        let status = head.status;
        if let Err(broken) = exchange.start(head, reader.is_none()).await {
            ended.error = Some(broken);
            return ended;
        }
        ended.status = Some(status);
        let Some(reader) = &mut reader else {
            return ended;
        };
        ended.error = loop {
            match reader.next().await {
                Ok(Some(part)) => {
                    let length = part.len() as u64;
                    if let Err(broken) = exchange.send(part, false).await {
                        break Some(broken);
                    }
                    ended.bytes += length;
                }
                Ok(None) => break exchange.end(None).await.err(),
                Err(Cut) => break Some(Broken::Upstream(Cut.to_string())),
            }
        };
        ended
    }

    async fn through<E: Exchange>(
        &self,
        head: ResponseHead,
        mut parts: mpsc::Receiver<Result<bytes::Bytes, Cut>>,
        exchange: &mut E,
    ) -> Ended {
        let mut ended = Ended {
            status: Some(head.status),
            ..Ended::default()
        };
        let bodiless =
            matches!(head.status.as_u16(), 204 | 304) || self.request.head.method == Method::HEAD;
        if let Err(broken) = exchange.start(head, bodiless).await {
            ended.error = Some(broken);
            return ended;
        }
        while let Some(part) = parts.recv().await {
            let sent = match part {
                Ok(part) => {
                    ended.bytes += part.len() as u64;
                    exchange.send(part, false).await
                }
                Err(cut) => Err(Broken::Upstream(cut.to_string())),
            };
            if let Err(broken) = sent {
                ended.error = Some(broken);
                return ended;
            }
        }
        if !bodiless {
            ended.error = exchange.end(None).await.err();
        }
        ended
    }

    /// Goes to the upstream for this client alone; what it changes there is forgotten here.
    async fn alone<E: Exchange>(&self, forward: &str, exchange: &mut E) -> Ended {
        self.count(CacheOutcome::Bypass);
        let mut passing = Passing {
            exchange,
            store: &self.cache().store,
            key: &self.key,
            unsafe_method: !self.request.head.method.is_safe(),
            status: format!("{DEVICE}; fwd={forward}"),
        };
        uncached(
            self.edge,
            self.request,
            Some(self.pinned),
            self.target,
            &mut passing,
        )
        .await
        .cached(CacheOutcome::Bypass)
    }

    /// `only-if-cached`, and there is nothing (RFC 9111 5.2.1.7).
    async fn refuse<E: Exchange>(&self, exchange: &mut E) -> Ended {
        let mut head = ResponseHead {
            status: StatusCode::GATEWAY_TIMEOUT,
            ..ResponseHead::default()
        };
        head.headers
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        reply::say(
            &mut head.headers,
            &format!("{DEVICE}; detail=only-if-cached"),
        );
        self.carry(head, None, exchange).await
    }

    fn cache(&self) -> &Cache {
        self.edge.table.cache()
    }

    fn count(&self, outcome: CacheOutcome) {
        self.edge.tally.cache[outcome as usize].add(1);
    }
}

async fn told(outcome: &mut watch::Receiver<Option<Outcome>>) -> Option<Outcome> {
    let told = outcome.wait_for(Option::is_some).await.ok()?;
    told.clone()
}

/// What the upstream is asked: the whole, and only if it is not what is kept.
fn question(request: &Request, candidate: Option<&Stored>) -> Request {
    let mut head = request.head.clone();
    head.method = Method::GET;
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE] {
        head.headers.remove(name);
    }
    for name in UNKEYED {
        head.headers.remove(name);
    }
    let capability = HeaderValue::from_static("helix=\"Surrogate/1.0\"");
    head.headers.insert(SURROGATE_CAPABILITY, capability);
    if let Some(candidate) = candidate {
        condition(&mut head.headers, candidate, ETAG, IF_NONE_MATCH);
        condition(
            &mut head.headers,
            candidate,
            LAST_MODIFIED,
            IF_MODIFIED_SINCE,
        );
    }
    Request {
        head,
        peer: request.peer,
        secure: request.secure,
    }
}

fn condition(
    headers: &mut HeaderMap,
    candidate: &Stored,
    validator: HeaderName,
    condition: HeaderName,
) {
    if let Some(value) = candidate.headers.get(validator) {
        headers.insert(condition, value.clone());
    }
}

/// Seconds it stays fresh, or, negative, has been stale (RFC 9211 2.4).
fn signed_ttl(stored: &Stored) -> String {
    let now = now();
    match stored.freshness.staleness(now) {
        None => stored.freshness.left(now).to_string(),
        Some(stale) => format!("-{}", stale.min(u64::from(u32::MAX))),
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
