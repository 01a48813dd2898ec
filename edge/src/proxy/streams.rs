//! HTTP/2 to upstreams: one request on one stream of a connection that pingora made and keeps.
//!
//! pingora's proxy has no place for the trailers of a request, so what it would do with such a stream is done here: both
//! directions side by side, between the same two channels. How a connection is made, shared and kept is its connector's. A
//! stream is given back however it ends. It knows no limits of time but the peer's.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use helix_framing::is_field_name;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, Method, StatusCode, Uri};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::v2::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::http::v2::write_body;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, OrErr as _, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::sync::mpsc::{Receiver, Sender};

use super::bridge::{Bridge, Ends, Inbound, Outbound};
use super::lane::{self, Call};
use crate::limits::RETRY_BYTES;

thread_local! {
    /// A connection belongs to the runtime it was made on, so each thread has its own.
    static CONNECTOR: Arc<Connector> = {
        let options = ConnectorOptions::from_server_conf(&lane::conf());
        Arc::new(Connector::new(Some(options)))
    };
}

/// Carries out what stands in the head of `ends`. A server that turns out to speak HTTP/1.1 only is left to pingora's proxy.
pub(super) async fn process(ends: Ends, call: &Call) {
    let connector = CONNECTOR.with(Arc::clone);
    let held = match open(&connector, &call.peer).await {
        Ok(Some(held)) => held,
        Ok(None) => return lane::process(Bridge::new(ends)).await,
        Err(error) => return call.failed(&error),
    };
    let Ends {
        asked,
        inbound,
        outbound,
    } = ends;
    let body = asked.has_body.then(|| Body::new(inbound, &asked.head));
    let carried = match of_http2(asked.head, call.peer.is_tls()) {
        Ok(head) => carry(&connector, &call.peer, held, (head, body), &outbound).await,
        Err(error) => Err(error),
    };
    if let Err(error) = carried {
        call.failed(&error);
    }
}

/// A stream, and whether its connection had been used before.
struct Held<'a> {
    /// Gone once it is given back.
    session: Option<Http2Session>,
    reused: bool,
    connector: &'a Connector,
    peer: &'a HttpPeer,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let idle = self.peer.options.idle_timeout;
            self.connector
                .release_http_session(session, self.peer, idle);
        }
    }
}

/// A stream to `peer`; none when that speaks no HTTP/2.
async fn open<'a>(connector: &'a Connector, peer: &'a HttpPeer) -> Result<Option<Held<'a>>> {
    let kept = connector.reused_http_session(peer).await?;
    let reused = kept.is_some();
    let session = match kept {
        Some(session) => HttpSession::<()>::H2(session),
        None => connector.new_http_session(peer).await?,
    };
    let HttpSession::H2(mut session) = session else {
        return Ok(None);
    };
    session.read_timeout = peer.options.read_timeout;
    Ok(Some(Held {
        session: Some(session),
        reused,
        connector,
        peer,
    }))
}

/// Sends the request once, and a second time where a connection ended that need not have taken it, doing it twice is
/// doing it once, and all of it is still here.
async fn carry<'a>(
    connector: &'a Connector,
    peer: &'a HttpPeer,
    mut held: Held<'a>,
    (head, mut body): (RequestHeader, Option<Body>),
    outbound: &Sender<Outbound>,
) -> Result<()> {
    let idempotent = head.method.is_idempotent();
    let mut error = match exchange(&mut held, &head, body.as_mut(), outbound).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    error.retry.decide_reuse(held.reused);
    let seen = held
        .session
        .as_ref()
        .and_then(Http2Session::response_header);
    let whole = body.as_ref().is_none_or(|body| body.kept.is_some());
    // pingora would speak HTTP/1.1 to such a server, which nobody asked for.
    let unfit = matches!(error.etype(), ErrorType::H2Downgrade | ErrorType::InvalidH2);
    if unfit || !error.retry() || !idempotent || !whole || seen.is_some() {
        return Err(error);
    }
    drop(held);
    let Some(mut held) = open(connector, peer).await? else {
        return Err(error);
    };
    exchange(&mut held, &head, body.as_mut(), outbound).await
}

/// One request and its response, on one stream.
async fn exchange(
    held: &mut Held<'_>,
    head: &RequestHeader,
    body: Option<&mut Body>,
    outbound: &Sender<Outbound>,
) -> Result<()> {
    let (peer, Some(session)) = (held.peer, held.session.as_mut()) else {
        return Ok(());
    };
    session.write_request_header(Box::new(head.clone()), body.is_none())?;
    let mut stream = session.take_request_body_writer();
    let sending = async {
        if let (Some(body), Some(stream)) = (body, stream.as_mut()) {
            body.send(stream, peer.options.write_timeout).await?;
        }
        Ok(())
    };
    let moved = tokio::try_join!(sending, receive(session, &head.method, outbound));
    moved.map(|_| ()).inspect_err(|error| {
        if *error.etype() == ErrorType::ReadTimedout {
            // It may be the connection that hangs.
            session.conn.mark_shutdown();
        }
    })
}

/// The request's body on its way, and what of it could be sent again.
struct Body {
    inbound: Receiver<Inbound>,
    /// What came of it, as long as it is all of it and may be of use.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    /// Its trailers, once it has ended.
    end: Option<Option<HeaderMap>>,
}

impl Body {
    fn new(inbound: Receiver<Inbound>, head: &RequestHeader) -> Self {
        Self {
            inbound,
            kept: head.method.is_idempotent().then(Vec::new),
            kept_bytes: 0,
            end: None,
        }
    }

    /// Sends all of it, from its start. A server that takes no more of it may still answer.
    ///
    /// # Errors
    /// When the server takes nothing for too long.
    async fn send(
        &mut self,
        stream: &mut SendStream<Bytes>,
        patience: Option<Duration>,
    ) -> Result<()> {
        match self.pass(stream, patience).await {
            Err(error) if *error.etype() != ErrorType::WriteTimedout => Ok(()),
            sent => sent,
        }
    }

    async fn pass(
        &mut self,
        stream: &mut SendStream<Bytes>,
        patience: Option<Duration>,
    ) -> Result<()> {
        for part in self.kept.clone().into_iter().flatten() {
            write_body(stream, part, false, patience).await?;
        }
        while self.end.is_none() {
            match self.inbound.recv().await {
                Some(Inbound::Part(part)) => {
                    self.keep(&part);
                    write_body(stream, part, false, patience).await?;
                }
                Some(Inbound::End(trailers)) => self.end = Some(trailers),
                // The other end of the channel knows why, and ends all of this.
                None => pending().await,
            }
        }
        let ended = match self.end.clone().flatten() {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        };
        ended.or_err(ErrorType::WriteError, "end the request")
    }

    fn keep(&mut self, part: &Bytes) {
        self.kept_bytes += part.len();
        if self.kept_bytes > RETRY_BYTES {
            self.kept = None;
        } else if let Some(kept) = &mut self.kept {
            kept.push(part.clone());
        }
    }
}

/// Hands the response on as it comes.
async fn receive(
    session: &mut Http2Session,
    method: &Method,
    outbound: &Sender<Outbound>,
) -> Result<()> {
    session.read_response_header().await?;
    let ends = session.check_response_end_or_error()?;
    let Some(head) = session.response_header() else {
        return Ok(());
    };
    named(&head.headers)?;
    if ends && promises_a_body(head, method) {
        return Error::e_explain(
            ErrorType::H2Error,
            "it ends before the body that it announces",
        );
    }
    let head = Box::new(head.clone());
    // Whoever takes nothing more ends this from outside.
    let _ = outbound.send(Outbound::Start(head, ends)).await;
    if ends {
        return Ok(());
    }
    while let Some(part) = session.read_response_body().await? {
        if !part.is_empty() {
            let _ = outbound.send(Outbound::Part(part)).await;
        }
    }
    let trailers = session.read_trailers().await?;
    trailers.as_ref().map_or(Ok(()), named)?;
    let _ = outbound.send(Outbound::End(trailers)).await;
    Ok(())
}

/// Refuses names that no field of HTTP/1.1 may have, which h2 takes: a client may speak that.
fn named(headers: &HeaderMap) -> Result<()> {
    let is_legal = |byte| byte == b'_' || is_field_name(byte);
    if headers
        .keys()
        .all(|name| name.as_str().bytes().all(is_legal))
    {
        return Ok(());
    }
    Error::e_explain(ErrorType::H2Error, "it has a field whose name is none")
}

/// Whether a response that has no body says that it has one (RFC 9113 8.1.1), which h2 does not look for.
fn promises_a_body(head: &ResponseHeader, method: &Method) -> bool {
    let may = *method == Method::HEAD
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let length = head.headers.get(CONTENT_LENGTH);
    !may && length.is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}

/// The head as HTTP/2 has it: what `Host` says stands in the target (RFC 9113 8.3.1).
fn of_http2(mut head: RequestHeader, secure: bool) -> Result<RequestHeader> {
    let host = head.remove_header(&HOST);
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let uri = Uri::builder()
        .scheme(if secure { "https" } else { "http" })
        .authority(host.as_ref().map_or(&b""[..], |host| host.as_bytes()))
        .path_and_query(target)
        .build()
        .or_err(ErrorType::InvalidHTTPHeader, "name the host to the server")?;
    head.set_uri(uri);
    Ok(head)
}
