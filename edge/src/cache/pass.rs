//! A request that is not answered from what is kept: what comes back is marked, and what it changed forgotten.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, HeaderName, StatusCode, Uri};

use super::directives::strings;
use super::purge::Purge;
use super::reply;
use super::store::{Key, Store};
use crate::exchange::{Broken, Exchange, Protocol, ResponseHead};

/// Groups that a response to an unsafe request says are no longer true (RFC 9875 3).
const GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
/// Most groups that one response may invalidate: each means a look at everything that is kept.
const MAX_GROUPS: usize = 64;

/// The client's exchange, with an eye on the head.
pub(super) struct Passing<'a, E> {
    pub(super) exchange: &'a mut E,
    pub(super) store: &'a Arc<Store>,
    pub(super) key: &'a Arc<Key>,
    pub(super) unsafe_method: bool,
    pub(super) status: String,
}

impl<E: Exchange> Passing<'_, E> {
    /// RFC 9111 4.4: the target, and what the response names on the same host; RFC 9875 3.2: the groups it names.
    fn changed(&self, head: &ResponseHead) -> Option<Changed> {
        if !(head.status.is_success() || head.status.is_redirection()) {
            return None;
        }
        let named = [LOCATION, CONTENT_LOCATION].into_iter().filter_map(|name| {
            let named = head.headers.get(name)?.to_str().ok()?;
            let mut key = Key::clone(self.key);
            key.target = self.resolve(named)?;
            Some(Arc::new(key))
        });
        let groups = strings(&head.headers, &GROUP_INVALIDATION);
        Some(Changed {
            keys: [Arc::clone(self.key)].into_iter().chain(named).collect(),
            groups: groups.into_iter().take(MAX_GROUPS).collect(),
        })
    }

    /// Path and query of a reference on the same host; none if it is elsewhere.
    fn resolve(&self, reference: &str) -> Option<String> {
        if reference.starts_with('/') && !reference.starts_with("//") {
            return Some(reference.split('#').next()?.to_owned());
        }
        if let Ok(uri) = reference.parse::<Uri>()
            && uri.scheme().is_some()
        {
            let same = uri
                .authority()?
                .as_str()
                .eq_ignore_ascii_case(&self.key.authority);
            return same.then(|| {
                uri.path_and_query()
                    .map_or("/", |path| path.as_str())
                    .to_owned()
            });
        }
        let path = self.key.target.split('?').next()?;
        let folder = &path[..=path.rfind('/')?];
        Some(format!("{folder}{reference}"))
    }
}

/// What a successful unsafe request has changed.
struct Changed {
    /// The target first.
    keys: Vec<Arc<Key>>,
    groups: Vec<String>,
}

impl Changed {
    /// Forgets it, before the client hears of the change.
    async fn forget(self, store: Arc<Store>) {
        for key in &self.keys {
            store.invalidate(key).await;
        }
        if self.groups.is_empty() {
            return;
        }
        let purging = tokio::task::spawn_blocking(move || {
            let key = &self.keys[0];
            for group in self.groups {
                store.purge(&Purge {
                    site: Some(key.site.clone()),
                    host: Some(key.authority.clone()),
                    tag: Some(group),
                    ..Purge::default()
                });
            }
        });
        // It ends before its time only with the process.
        let _ = purging.await;
    }
}

impl<E: Exchange> Exchange for Passing<'_, E> {
    fn protocol(&self) -> Protocol {
        self.exchange.protocol()
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Broken> {
        self.exchange.read().await
    }

    fn is_read(&self) -> bool {
        self.exchange.is_read()
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        self.exchange.trailers().await
    }

    async fn interim(&mut self, head: ResponseHead) -> Result<(), Broken> {
        self.exchange.interim(head).await
    }

    async fn start(&mut self, mut head: ResponseHead, ends: bool) -> Result<(), Broken> {
        if self.unsafe_method
            && let Some(changed) = self.changed(&head)
        {
            changed.forget(Arc::clone(self.store)).await;
        }
        reply::say(&mut head.headers, &self.status);
        self.exchange.start(head, ends).await
    }

    async fn send(&mut self, part: Bytes, ends: bool) -> Result<(), Broken> {
        self.exchange.send(part, ends).await
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        self.exchange.end(trailers).await
    }

    async fn gone(&mut self) -> Broken {
        self.exchange.gone().await
    }

    fn can_tunnel(&self) -> bool {
        self.exchange.can_tunnel()
    }

    fn must_tunnel(&self) -> bool {
        self.exchange.must_tunnel()
    }

    fn may_rest(&mut self, silence: Duration) {
        self.exchange.may_rest(silence);
    }

    async fn tunnel(&mut self, head: ResponseHead) -> Result<StatusCode, Broken> {
        self.exchange.tunnel(head).await
    }

    fn abort(&mut self) {
        self.exchange.abort();
    }
}
