//! One fetch for everybody who waits for the same response.
//!
//! The fetch is a task of its own, so that a client that leaves takes nothing from the others. To whatever
//! lane carries it, it is an [`Exchange`] like any other: the response that comes out of it is stored as it
//! comes, or, where it may not be, handed to the one client that asked first while the others go on alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, DATE, ETAG, HeaderMap};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::{mpsc, oneshot, watch};

use super::content::{Content, Cut, Reader};
use super::directives::{RequestDirectives, strings, tokens};
use super::now;
use super::policy::{self, Freshness};
use super::store::{Facts, Key, Store, Stored, selected};
use crate::exchange::{Broken, Exchange, Protocol, ResponseHead};

/// Parts of a response that is not shared that may wait for its client.
const PARTS_AHEAD: usize = 4;
/// Most tags and groups of one response, so that a purge stays cheap.
const MAX_TAGS: usize = 128;
/// Fields of a stored response that a 304 does not change: they are about bytes that it has not sent.
const KEPT_BY_304: [&str; 5] = [
    "content-encoding",
    "content-length",
    "content-md5",
    "content-range",
    "etag",
];

/// What became of a fetch, for those who wait.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// This is the response, or what is used in its place.
    Shared(Arc<Stored>),
    /// It may not be shared.
    Alone,
}

/// What became of a fetch, for the one who started it.
#[derive(Debug)]
pub(super) enum Led {
    /// This is the response, or what is used in its place; its body is read from here.
    Shared(Arc<Stored>, Option<Reader>, Origin),
    /// It may not be shared.
    Through(ResponseHead, mpsc::Receiver<Result<Bytes, Cut>>),
}

/// What the upstream said about a response that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It sent it, and it is kept.
    Sent,
    /// It sent this status, and what was kept is used.
    Status(StatusCode),
    /// Nothing.
    Silent,
}

/// Responses that turned out not to be for sharing are remembered for so long: who asks for them again does not wait
/// for somebody else's first.
const APART: Duration = Duration::from_secs(60);
/// Most of them; beyond that, some wait for nothing now and then.
const MAX_APART: u64 = 8192;

/// Fetches on their way.
#[derive(Debug)]
pub(super) struct Flights {
    by_key: Mutex<HashMap<FlightKey, watch::Receiver<Option<Outcome>>>>,
    apart: moka::sync::Cache<FlightKey, ()>,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            by_key: Mutex::default(),
            apart: moka::sync::Cache::builder()
                .max_capacity(MAX_APART)
                .time_to_live(APART)
                .build(),
        }
    }
}

type FlightKey = (Arc<Key>, Vec<(HeaderName, String)>);

/// Whether one has to fetch, or waits for who does.
pub(super) enum Joined {
    Lead(Landing),
    Wait(watch::Receiver<Option<Outcome>>),
}

impl Flights {
    /// Joins the fetch of `key`, or becomes it.
    pub(super) fn join(self: &Arc<Self>, key: FlightKey) -> Joined {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = by_key.get(&key) {
            return Joined::Wait(flight.clone());
        }
        let (outcome, waiting) = watch::channel(None);
        if !self.apart.contains_key(&key) {
            by_key.insert(key.clone(), waiting);
        }
        drop(by_key);
        Joined::Lead(Landing {
            flights: Arc::clone(self),
            key,
            outcome,
        })
    }
}

/// Tells those who wait, at the latest when it is dropped.
#[derive(Debug)]
pub(super) struct Landing {
    flights: Arc<Flights>,
    key: FlightKey,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Landing {
    fn tell(&self, outcome: Outcome) {
        self.outcome.send_if_modified(|told| {
            let first = told.is_none();
            if first {
                *told = Some(outcome);
            }
            first
        });
    }

    /// Who asks for the same from now on fetches it alone, or again together.
    fn set_apart(&self, apart: bool) {
        let known = &self.flights.apart;
        if apart {
            known.insert(self.key.clone(), ());
        } else if known.contains_key(&self.key) {
            known.invalidate(&self.key);
        }
    }

    /// Lets the next one who asks fetch again.
    fn leave(&self) {
        let own = self.outcome.subscribe();
        let mut by_key = self
            .flights
            .by_key
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Somebody else may be on the way for the same key since this one left.
        if by_key
            .get(&self.key)
            .is_some_and(|flight| flight.same_channel(&own))
        {
            by_key.remove(&self.key);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.tell(Outcome::Alone);
        self.leave();
    }
}

/// A fetch, as the exchange that a lane carries it out through.
pub(super) struct Fetching {
    pub(super) store: Arc<Store>,
    pub(super) key: Arc<Key>,
    /// The client's fields.
    pub(super) request: HeaderMap,
    pub(super) said: RequestDirectives,
    pub(super) protocol: Protocol,
    /// What it asks about, if that has a validator, and what covers a failure.
    pub(super) candidate: Option<Arc<Stored>>,
    pub(super) leader: Option<oneshot::Sender<Led>>,
    pub(super) landing: Landing,
    pub(super) asked: u64,
    /// See [`Stored::began`].
    pub(super) began: u64,
    /// See [`Stored::purged`].
    pub(super) purged: u64,
    pub(super) state: State,
}

/// Where its response goes.
#[derive(Debug)]
pub(super) enum State {
    Waiting,
    Filling(Arc<Stored>),
    Through(mpsc::Sender<Result<Bytes, Cut>>),
    /// An error that a stale response may cover if it turns out to be the lane's own.
    Held(ResponseHead, Vec<Bytes>),
    Settled,
}

impl Fetching {
    /// Who asks while the body still comes joins as well; a response that is there already is found in the store.
    fn share(&mut self, stored: &Arc<Stored>, origin: Origin) {
        let reader = stored.content.reader(0, None);
        self.landing.tell(Outcome::Shared(Arc::clone(stored)));
        if stored.content.length().is_some() {
            self.landing.leave();
        }
        if let Some(leader) = self.leader.take() {
            // Who is gone needs nothing.
            drop(leader.send(Led::Shared(Arc::clone(stored), reader, origin)));
        }
    }

    fn pass(&mut self, head: ResponseHead) -> Result<(), Broken> {
        self.landing.tell(Outcome::Alone);
        self.landing.leave();
        let (parts, read) = mpsc::channel(PARTS_AHEAD);
        let gone = Broken::Client("is gone");
        let leader = self.leader.take().ok_or(gone)?;
        leader
            .send(Led::Through(head, read))
            .map_err(|_| Broken::Client("is gone"))?;
        self.state = State::Through(parts);
        Ok(())
    }

    /// The stored response that covers a failure.
    fn cover(&self, answered: bool) -> Option<Arc<Stored>> {
        let candidate = self.candidate.as_ref()?;
        let covers = candidate
            .freshness
            .usable_after_failure(&self.said, answered, now());
        covers.then(|| Arc::clone(candidate))
    }

    fn begin(&mut self, head: ResponseHead) -> Result<(), Broken> {
        if head.status == StatusCode::NOT_MODIFIED
            && let Some(candidate) = self.candidate.clone()
        {
            let refreshed = Arc::new(self.refreshed(&candidate, &head.headers));
            self.store.insert(&refreshed);
            self.share(&refreshed, Origin::Status(head.status));
            self.state = State::Settled;
            return Ok(());
        }
        if head.status.is_server_error() {
            if let Some(stale) = self.cover(true) {
                self.share(&stale, Origin::Status(head.status));
                self.state = State::Settled;
                return Ok(());
            }
            if self.cover(false).is_some() {
                self.state = State::Held(head, Vec::new());
                return Ok(());
            }
        }
        match self.stored(&head) {
            Some(stored) => {
                let stored = Arc::new(stored);
                self.landing.set_apart(false);
                self.share(&stored, Origin::Sent);
                self.state = State::Filling(stored);
                Ok(())
            }
            None => {
                // One failure, or one person's response, says nothing about the next.
                let lasts = !head.status.is_server_error();
                if lasts && !self.request.contains_key(AUTHORIZATION) {
                    self.landing.set_apart(true);
                }
                self.pass(head)
            }
        }
    }

    fn stored(&self, head: &ResponseHead) -> Option<Stored> {
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.store.largest()) {
            return None;
        }
        let (freshness, withheld) = policy::storable(
            &Method::GET,
            &self.request,
            head.status,
            &head.headers,
            self.asked,
            now(),
        )
        .ok()?;
        let headers = kept(head.headers.clone(), &withheld, freshness.received);
        // In the background it is fetched for whoever asks next.
        let unread = self.leader.is_none();
        let content = Content::coming(length, self.store.disk(), unread);
        Some(self.made(head.status, headers, freshness, content))
    }

    fn refreshed(&self, candidate: &Stored, fields: &HeaderMap) -> Stored {
        let mut headers = candidate.headers.clone();
        let changed = |name: &&HeaderName| !KEPT_BY_304.contains(&name.as_str());
        for name in fields.keys().filter(changed) {
            headers.remove(name);
            for value in fields.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let storable = policy::storable(
            &Method::GET,
            &self.request,
            candidate.status,
            &headers,
            self.asked,
            now(),
        );
        // What may no longer be kept is used this once, and asked about again.
        let (freshness, withheld) = storable.unwrap_or_else(|_| {
            let freshness = Freshness {
                no_cache: true,
                received: now(),
                ..candidate.freshness.clone()
            };
            (freshness, Vec::new())
        });
        let headers = kept(headers, &withheld, freshness.received);
        self.made(
            candidate.status,
            headers,
            freshness,
            Arc::clone(&candidate.content),
        )
    }

    fn made(
        &self,
        status: StatusCode,
        headers: HeaderMap,
        freshness: Freshness,
        content: Arc<Content>,
    ) -> Stored {
        Stored {
            facts: Facts {
                key: Arc::clone(&self.key),
                selected: selected(&self.request, &headers),
                tags: tags(&headers),
            },
            status,
            headers,
            freshness,
            content,
            began: self.began,
            purged: self.purged,
            file: OnceLock::new(),
            invalid: false.into(),
            offered: false.into(),
        }
    }

    async fn complete(&mut self) {
        match std::mem::replace(&mut self.state, State::Settled) {
            State::Filling(stored) => {
                // It is kept before its end is seen: who asks next finds it.
                stored.content.join();
                let on_disk = stored.content.keep(&stored).await;
                if !on_disk && stored.content.length().is_some() {
                    self.store.insert(&stored);
                }
                stored.content.finish(Ok(()));
                self.landing.leave();
            }
            // Only now the lane says whose error it was.
            held @ State::Held(..) => self.state = held,
            State::Waiting | State::Through(_) | State::Settled => {}
        }
    }

    /// Ends it; `disconnected` if no response came from the origin.
    pub(super) async fn land(mut self, disconnected: bool, broken: bool) {
        match std::mem::replace(&mut self.state, State::Settled) {
            State::Filling(stored) => stored.content.finish(Err(Cut)),
            State::Through(parts) if broken => drop(parts.send(Err(Cut)).await),
            State::Held(head, parts) => {
                let stale = self.cover(false).filter(|_| disconnected);
                if let Some(stale) = stale {
                    self.share(&stale, Origin::Silent);
                } else if self.pass(head).is_ok() {
                    for part in parts {
                        let _ = self.send(part, false).await;
                    }
                }
            }
            State::Waiting | State::Through(_) | State::Settled => {}
        }
    }
}

/// Tags and groups that a response can be purged by.
fn tags(headers: &HeaderMap) -> Vec<String> {
    let plain = ["cache-tag", "surrogate-key"].map(HeaderName::from_static);
    let plain = plain.iter().flat_map(|name| tokens(headers, name));
    let plain = plain.flat_map(str::split_whitespace).map(ToOwned::to_owned);
    let groups = HeaderName::from_static("cache-groups");
    let groups = strings(headers, &groups);
    groups.into_iter().chain(plain).take(MAX_TAGS).collect()
}

/// What is kept of a head.
fn kept(mut headers: HeaderMap, withheld: &[HeaderName], received: u64) -> HeaderMap {
    let own = [
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "te",
        "upgrade",
        "keep-alive",
        "proxy-connection",
    ];
    for name in own {
        headers.remove(name);
    }
    for name in withheld
        .iter()
        .filter(|name| **name != ETAG && **name != DATE)
    {
        headers.remove(name);
    }
    if !headers.contains_key(DATE) {
        let date = std::time::UNIX_EPOCH + Duration::from_secs(received);
        if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(date)) {
            headers.insert(DATE, date);
        }
    }
    headers
}

impl Exchange for Fetching {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Broken> {
        Ok(None)
    }

    fn is_read(&self) -> bool {
        true
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        Ok(None)
    }

    async fn interim(&mut self, _head: ResponseHead) -> Result<(), Broken> {
        // An interim response belongs to one client's wait.
        Ok(())
    }

    async fn start(&mut self, head: ResponseHead, ends: bool) -> Result<(), Broken> {
        self.begin(head)?;
        if ends {
            self.complete().await;
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes, ends: bool) -> Result<(), Broken> {
        match &mut self.state {
            State::Filling(stored) => stored
                .content
                .push(part)
                .await
                .map_err(|_| Broken::Client("is gone"))?,
            State::Through(parts) => parts
                .send(Ok(part))
                .await
                .map_err(|_| Broken::Client("is gone"))?,
            State::Held(_, parts) if parts.len() < 64 => parts.push(part),
            State::Waiting | State::Held(..) | State::Settled => {}
        }
        if ends {
            self.complete().await;
        }
        Ok(())
    }

    async fn end(&mut self, _trailers: Option<HeaderMap>) -> Result<(), Broken> {
        self.complete().await;
        Ok(())
    }

    fn given(&self) -> Option<(StatusCode, u64)> {
        match &self.state {
            State::Waiting => None,
            State::Filling(stored) => Some((stored.status, 0)),
            State::Held(head, _) => Some((head.status, 0)),
            State::Through(_) | State::Settled => Some((StatusCode::OK, 0)),
        }
    }

    fn abort(&mut self) {}
}
