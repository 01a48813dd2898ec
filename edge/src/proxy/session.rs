//! A request that pingora reads, as an [`Exchange`].

use bytes::Bytes;
use http::HeaderMap;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::edge::Edge;
use crate::exchange::{Broken, Exchange, Protocol, Request, ResponseHead};

/// Borrowed for one request.
pub(super) struct SessionExchange<'a> {
    session: &'a mut Session,
    broken: bool,
}

impl<'a> SessionExchange<'a> {
    pub(super) fn new(session: &'a mut Session, edge: &Edge) -> Self {
        if session.is_http2() {
            // Over HTTP/1 the connection watches this itself; an HTTP/2 stream may stall alone.
            session.set_write_timeout(Some(edge.limits.write_stall));
        }
        Self {
            session,
            broken: false,
        }
    }

    pub(super) fn request(&self) -> Request {
        let peer = self
            .session
            .client_addr()
            .and_then(|address| address.as_inet())
            .copied();
        Request {
            head: self.session.req_header().as_owned_parts(),
            peer: peer.unwrap_or_else(|| std::net::SocketAddr::from(([0, 0, 0, 0], 0))),
            secure: self
                .session
                .digest()
                .is_some_and(|digest| digest.ssl_digest.is_some()),
        }
    }

    /// An error if the response is not whole: pingora then ends the connection.
    pub(super) fn ended(&self) -> Result<()> {
        if self.broken {
            Error::e_explain(ErrorType::WriteError, "the response was broken off")
        } else {
            Ok(())
        }
    }
}

fn broken(_: Box<Error>) -> Broken {
    Broken::Client("is gone or takes nothing")
}

impl Exchange for SessionExchange<'_> {
    fn protocol(&self) -> Protocol {
        if self.session.is_http2() {
            Protocol::Http2
        } else {
            Protocol::Http1
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Broken> {
        self.session.read_request_body().await.map_err(broken)
    }

    fn is_read(&self) -> bool {
        // pingora only says so where it may change it; without a framing field there is no body over HTTP/1.
        let headers = &self.session.req_header().headers;
        !self.session.is_http2()
            && !headers.contains_key(http::header::TRANSFER_ENCODING)
            && !headers.contains_key(http::header::CONTENT_LENGTH)
    }

    async fn gone(&mut self) -> Broken {
        match self.session.read_body_or_idle(true).await {
            Ok(_) => Broken::Client("sent what is not a part of its request"),
            Err(error) => broken(error),
        }
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        Ok(None)
    }

    async fn interim(&mut self, head: ResponseHead) -> Result<(), Broken> {
        self.start(head, false).await
    }

    async fn start(&mut self, head: ResponseHead, ends: bool) -> Result<(), Broken> {
        let mut header =
            ResponseHeader::build_no_case(head.status, Some(head.headers.len())).map_err(broken)?;
        let has_no_length = !ends
            && !head.status.is_informational()
            && !head.headers.contains_key(http::header::CONTENT_LENGTH);
        if has_no_length && !self.session.is_http2() {
            header
                .insert_header(http::header::TRANSFER_ENCODING, "chunked")
                .map_err(broken)?;
        }
        for (name, value) in &head.headers {
            header.append_header(name, value).map_err(broken)?;
        }
        self.session
            .write_response_header(Box::new(header), false)
            .await
            .map_err(broken)?;
        if ends {
            self.session
                .write_response_body(None, true)
                .await
                .map_err(broken)?;
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes, ends: bool) -> Result<(), Broken> {
        self.session
            .write_response_body(Some(part), ends)
            .await
            .map_err(broken)
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        if let Some(trailers) = trailers.filter(|_| self.session.is_http2()) {
            let session = self.session.as_downstream_mut();
            return session
                .write_response_trailers(trailers)
                .await
                .map_err(broken);
        }
        self.session
            .write_response_body(None, true)
            .await
            .map_err(broken)
    }

    fn abort(&mut self) {
        self.broken = true;
    }
}
