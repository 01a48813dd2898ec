//! One request and its response, whatever protocol carries them.
//!
//! [`respond`] is the one way from a request to its response: it asks [`crate::answer`] and carries the
//! answer out through an [`Exchange`]. A protocol may take a shorter way for what it can send at once;
//! that nobody can tell them apart is what the tests of behaviour check. Nothing here frames bytes:
//! that belongs to each protocol.

mod body;
mod connect;
mod date;
mod relayed;
mod respond;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

pub use body::{Body, Piece, Pieces};
pub(crate) use connect::{Connect, Key};
pub use date::date;
pub use relayed::{Own, Relayed};
pub use respond::{Ended, at_once, carry_out, carry_rest, finish, head_of, respond, response_head};
pub(crate) use respond::{carry, mark, marks};

/// What carries an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
}

impl Protocol {
    /// As in logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Http1 => "h1",
            Self::Http2 => "h2",
            Self::Http3 => "h3",
        }
    }
}

/// A request, read up to its body.
#[derive(Debug)]
pub struct Request {
    /// Method, target and fields. The target has an authority only where the protocol sends one.
    pub head: http::request::Parts,
    /// The client.
    pub peer: SocketAddr,
    /// Whether the client came over TLS.
    pub secure: bool,
}

/// The head of a response, interim or final.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, none of which belong to one connection only.
    pub headers: HeaderMap,
}

/// How much of a response has been taken off our hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether that is all of its head.
    pub head: bool,
    /// Bytes of its body.
    pub body: u64,
}

/// The other side is gone, stalls, or broke the protocol. The exchange is over.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The client ended it, or took or sent nothing for too long.
    #[error("the client {0}")]
    Client(&'static str),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    /// The request's body is malformed or larger than allowed.
    #[error("the request body {0}")]
    Body(&'static str),
    /// The upstream gave no response, or not all of it.
    #[error("the upstream failed: {0}")]
    Upstream(String),
    /// Its release is no longer live, and its time to end is over.
    #[error("cut at the end of its release's drain")]
    Drained,
}

/// Reads one request's body and writes its response. Every wait has a limit; reading is cancel safe.
pub trait Exchange: Send {
    /// What carries it.
    fn protocol(&self) -> Protocol;

    /// The next part of the request's body, decoded; none at its end.
    fn read(&mut self) -> impl Future<Output = Result<Option<Bytes>, Broken>> + Send;

    /// Whether nothing of the request's body is left to be read, because it has been or because it has none.
    /// False where that is not known.
    fn is_read(&self) -> bool;

    /// The request's trailers, once its body has ended.
    fn trailers(&mut self) -> impl Future<Output = Result<Option<HeaderMap>, Broken>> + Send;

    /// Sends an interim response (1xx), if the protocol and client can take it.
    fn interim(&mut self, head: ResponseHead) -> impl Future<Output = Result<(), Broken>> + Send;

    /// Sends the final head; with `ends` there is no body and nothing follows.
    fn start(
        &mut self,
        head: ResponseHead,
        ends: bool,
    ) -> impl Future<Output = Result<(), Broken>> + Send;

    /// The same as [`Self::start`], for a head as an upstream sent it.
    fn relay(
        &mut self,
        relayed: Relayed<'_>,
        ends: bool,
    ) -> impl Future<Output = Result<(), Broken>> + Send {
        self.start(relayed.to_head(), ends)
    }

    /// Sends a part of the body; with `ends` it is the last.
    fn send(&mut self, part: Bytes, ends: bool) -> impl Future<Output = Result<(), Broken>> + Send;

    /// Ends the response behind its body.
    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
    ) -> impl Future<Output = Result<(), Broken>> + Send;

    /// Waits until the client has left; for ever where that cannot be known. Cancel safe, reads nothing of the
    /// body, and is only asked for once the body has been read.
    fn gone(&mut self) -> impl Future<Output = Broken> + Send {
        std::future::pending()
    }

    /// Whether the client asked for another protocol in a way that [`Self::tunnel`] can carry.
    fn can_tunnel(&self) -> bool {
        false
    }

    /// Whether to this client any 2xx says that the other protocol is spoken now, so that nothing but
    /// [`Self::tunnel`] may send one.
    fn must_tunnel(&self) -> bool {
        false
    }

    /// Lets the client be silent for so long within its body, however slow that makes it: what it sends has a
    /// pace of its own, as a call that lasts has.
    fn may_rest(&mut self, silence: Duration) {
        let _ = silence;
    }

    /// Sends the head that accepts the other protocol, and says with which status. What is read and sent from
    /// here on is the other protocol's; nobody but the two ends says how long either may be silent.
    fn tunnel(
        &mut self,
        head: ResponseHead,
    ) -> impl Future<Output = Result<StatusCode, Broken>> + Send {
        let _ = head;
        std::future::ready(Err(Broken::Client(
            "cannot be answered in another protocol",
        )))
    }

    /// How much of the response has been taken; none where that is only known of whole parts.
    fn taken(&self) -> Option<Taken> {
        None
    }

    /// The status and the bytes of body that this side was given to send, where it keeps account of that; none before
    /// the head.
    fn given(&self) -> Option<(StatusCode, u64)> {
        None
    }

    /// Breaks it off, so that the client sees that the response is not whole.
    fn abort(&mut self);
}
