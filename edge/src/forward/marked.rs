//! An exchange whose response came from an upstream: cleaned, and marked as what this edge sends.

use std::time::Duration;

use bytes::Bytes;
use helix_framing::Reply;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::headers::{for_client, to_client, trailers_to_client, trailers_to_upstream};
use crate::answer::Pinned;
use crate::edge::Edge;
use crate::exchange::{Broken, Exchange, Own, Protocol, Relayed, ResponseHead, mark, marks};
use crate::visitor::private::{NOT_SHARED, TARGETED, cache_control};

/// Borrowed for one request.
pub(super) struct Marked<'a, E> {
    pub(super) inner: &'a mut E,
    pub(super) edge: &'a Edge,
    pub(super) pinned: Option<&'a Pinned>,
    /// Whether the client came over TLS.
    pub(super) secure: bool,
    /// The head that was sent, and how much of a body.
    pub(super) given: Option<(StatusCode, u64)>,
}

impl<E> Marked<'_, E> {
    fn mark(&self, mut head: ResponseHead) -> ResponseHead {
        to_client(&mut head.headers);
        mark(self.edge, self.pinned, self.secure, &mut head.headers);
        head
    }
}

impl<E: Exchange> Exchange for Marked<'_, E> {
    fn protocol(&self) -> Protocol {
        self.inner.protocol()
    }

    fn read(&mut self) -> impl Future<Output = Result<Option<Bytes>, Broken>> + Send {
        self.inner.read()
    }

    fn is_read(&self) -> bool {
        self.inner.is_read()
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        let mut trailers = self.inner.trailers().await?;
        if let Some(trailers) = &mut trailers {
            trailers_to_upstream(trailers);
        }
        Ok(trailers)
    }

    fn interim(
        &mut self,
        mut head: ResponseHead,
    ) -> impl Future<Output = Result<(), Broken>> + Send {
        to_client(&mut head.headers);
        self.inner.interim(head)
    }

    fn start(
        &mut self,
        head: ResponseHead,
        ends: bool,
    ) -> impl Future<Output = Result<(), Broken>> + Send {
        self.given = Some((head.status, 0));
        let head = self.mark(head);
        self.inner.start(head, ends)
    }

    async fn relay(&mut self, relayed: Relayed<'_>, ends: bool) -> Result<(), Broken> {
        self.given = Some((relayed.status(), 0));
        let passes = for_client(relayed.reply());
        let mut own = marks(self.edge, self.pinned, self.secure);
        if self.pinned.is_some_and(Pinned::is_private) {
            own.extend(for_one_visitor(relayed.reply()));
        }
        self.inner.relay(relayed.marked(&passes, &own), ends).await
    }

    fn send(&mut self, part: Bytes, ends: bool) -> impl Future<Output = Result<(), Broken>> + Send {
        if let Some((_, bytes)) = &mut self.given {
            *bytes += part.len() as u64;
        }
        self.inner.send(part, ends)
    }

    fn end(
        &mut self,
        mut trailers: Option<HeaderMap>,
    ) -> impl Future<Output = Result<(), Broken>> + Send {
        if let Some(trailers) = &mut trailers {
            trailers_to_client(trailers);
        }
        self.inner.end(trailers)
    }

    fn gone(&mut self) -> impl Future<Output = Broken> + Send {
        self.inner.gone()
    }

    fn can_tunnel(&self) -> bool {
        self.inner.can_tunnel()
    }

    fn must_tunnel(&self) -> bool {
        self.inner.must_tunnel()
    }

    fn may_rest(&mut self, silence: Duration) {
        self.inner.may_rest(silence);
    }

    fn tunnel(
        &mut self,
        head: ResponseHead,
    ) -> impl Future<Output = Result<StatusCode, Broken>> + Send {
        self.given = Some((head.status, 0));
        let head = self.mark(head);
        self.inner.tunnel(head)
    }

    fn given(&self) -> Option<(StatusCode, u64)> {
        self.given
    }

    fn abort(&mut self) {
        self.inner.abort();
    }
}

/// What takes the place of what the upstream allows caches that others read from.
fn for_one_visitor(reply: &Reply) -> impl Iterator<Item = Own> {
    let headers = reply.headers();
    let said = headers.get_all(CACHE_CONTROL).iter();
    let own = |name, value| Own {
        name,
        value,
        beside: false,
    };
    let for_it = own(
        CACHE_CONTROL,
        cache_control(said.map(HeaderValue::as_bytes)),
    );
    let targeted = TARGETED.into_iter();
    let targeted = targeted.filter(move |name| headers.contains_key(name));
    std::iter::once(for_it).chain(targeted.map(move |name| own(name, NOT_SHARED)))
}
