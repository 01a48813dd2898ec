//! A WebSocket asked for by extended CONNECT (RFC 8441, RFC 9220), as the upgrade of HTTP/1.1 that it stands for.
//!
//! [`Key::upgrade`] makes of the request the GET that an HTTP/1.1 client would have sent, with a key of our own;
//! [`Connect`] makes of the 101 that accepts it the 200 that this client waits for. Nothing else ever gets a 2xx,
//! which would tell the client that a tunnel is open. Frames pass as they are: both forms have the same.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::sleep;

use super::{Broken, Exchange, Protocol, ResponseHead};
use crate::limits::LINGER;

/// What the server appends to the key before it hashes both (RFC 6455 1.3).
const SERVER_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The key of one handshake (RFC 6455 4.1): whoever answers it has understood that it is one.
#[derive(Clone, Debug)]
pub(crate) struct Key(HeaderValue);

impl Key {
    /// Makes of the head of an extended CONNECT that of an upgrade. `random` is new for each.
    pub(crate) fn upgrade(head: &mut Parts, random: u128) -> Self {
        head.method = Method::GET;
        // What follows belongs to the tunnel, however long it is.
        head.headers.remove(CONTENT_LENGTH);
        // The lane towards the server says it anew; until then it tells that this is no common GET.
        head.headers
            .insert(UPGRADE, HeaderValue::from_static("websocket"));
        let key = HeaderValue::try_from(STANDARD.encode(random.to_be_bytes()))
            .expect("base64 is legal in a field");
        head.headers.insert(SEC_WEBSOCKET_KEY, key.clone());
        Self(key)
    }

    /// What only a server that has seen it answers.
    fn accepted(&self) -> String {
        let text = [self.0.as_bytes(), SERVER_SUFFIX.as_bytes()].concat();
        STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text))
    }
}

/// The exchange of one such request.
#[derive(Debug)]
pub(crate) struct Connect<E> {
    inner: E,
    key: Key,
    open: bool,
    /// The client has ended its side.
    ended: bool,
}

impl<E> Connect<E> {
    pub(crate) const fn new(inner: E, key: Key) -> Self {
        Self {
            inner,
            key,
            open: false,
            ended: false,
        }
    }

    pub(crate) fn into_inner(self) -> E {
        self.inner
    }
}

impl<E: Exchange> Exchange for Connect<E> {
    fn protocol(&self) -> Protocol {
        self.inner.protocol()
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Broken> {
        if !self.open {
            return Ok(None);
        }
        let part = self.inner.read().await?;
        self.ended = part.is_none();
        Ok(part)
    }

    fn is_read(&self) -> bool {
        // Before the tunnel is open there is no body: what comes is the tunnel's.
        !self.open || self.ended
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        Ok(None)
    }

    fn interim(&mut self, head: ResponseHead) -> impl Future<Output = Result<(), Broken>> + Send {
        self.inner.interim(head)
    }

    async fn start(&mut self, head: ResponseHead, ends: bool) -> Result<(), Broken> {
        if head.status.is_success() {
            return Err(Broken::Upstream(format!(
                "{} in place of a tunnel",
                head.status
            )));
        }
        self.inner.start(head, ends).await
    }

    fn send(&mut self, part: Bytes, ends: bool) -> impl Future<Output = Result<(), Broken>> + Send {
        self.inner.send(part, ends)
    }

    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
    ) -> impl Future<Output = Result<(), Broken>> + Send {
        self.inner.end(trailers)
    }

    async fn gone(&mut self) -> Broken {
        if !self.ended {
            return self.inner.gone().await;
        }
        // A WebSocket that one side has ended is over, but for what is on its way.
        tokio::select! {
            () = sleep(LINGER) => Broken::Client("has ended the tunnel"),
            gone = self.inner.gone() => gone,
        }
    }

    fn can_tunnel(&self) -> bool {
        true
    }

    fn must_tunnel(&self) -> bool {
        true
    }

    fn may_rest(&mut self, silence: Duration) {
        self.inner.may_rest(silence);
    }

    async fn tunnel(&mut self, mut head: ResponseHead) -> Result<StatusCode, Broken> {
        let accept = head.headers.remove(SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != self.key.accepted().as_bytes()) {
            let wrong = "Sec-WebSocket-Accept is not the key's";
            return Err(Broken::Upstream(wrong.to_owned()));
        }
        head.status = StatusCode::OK;
        self.inner.start(head, false).await?;
        self.inner.may_rest(Duration::MAX);
        self.open = true;
        Ok(StatusCode::OK)
    }

    fn abort(&mut self) {
        self.inner.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_accepted_as_the_rfc_has_it() {
        let key = Key(HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(key.accepted(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_extended_connect_becomes_a_get_with_a_key_of_our_own() {
        let request = http::Request::connect("https://a.example/chat")
            .header(SEC_WEBSOCKET_KEY, "mine")
            .header(CONTENT_LENGTH, "5")
            .header("origin", "https://a.example");
        let mut head = request.body(()).unwrap().into_parts().0;
        let key = Key::upgrade(&mut head, 7);
        assert_eq!((&head.method, head.uri.path()), (&Method::GET, "/chat"));
        let keys: Vec<_> = head.headers.get_all(SEC_WEBSOCKET_KEY).iter().collect();
        assert_eq!(keys, ["AAAAAAAAAAAAAAAAAAAABw=="]);
        assert_eq!(key.0, "AAAAAAAAAAAAAAAAAAAABw==");
        assert!(!head.headers.contains_key(CONTENT_LENGTH) && head.headers.contains_key("origin"));
    }
}
