//! Why a request got no response of an upstream, and the one place where it gets another one.

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::group::{Outcome, PickError};
use super::headers::Loops;
use crate::exchange::{Broken, Ended, Exchange, Request, ResponseHead};

/// What the content type of every gRPC call starts with.
const GRPC: &[u8] = b"application/grpc";

/// What a request failed with (RFC 9110 15.6). Nothing of a response has reached the client.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the client is told.
    status: StatusCode,
    /// What the log is told.
    pub(crate) cause: String,
    /// What it says about the server.
    pub(super) outcome: Outcome,
    /// Whether the same request may be sent again.
    pub(crate) repeats: bool,
}

impl Failure {
    fn new(status: StatusCode, cause: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            status,
            cause: cause.into(),
            outcome,
            repeats: false,
        }
    }

    /// The server cannot be reached, broke off, or does not speak HTTP.
    pub(crate) fn gateway(cause: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, cause, Outcome::Failed)
    }

    /// It took too long.
    pub(crate) fn late(cause: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, cause, Outcome::Failed)
    }

    /// It answers, but not what was asked of it.
    pub(crate) fn unfit(cause: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, cause, Outcome::Answered)
    }

    /// The request's body is malformed.
    pub(crate) fn body(cause: &str) -> Self {
        let cause = format!("the request body {cause}");
        Self::new(StatusCode::BAD_REQUEST, cause, Outcome::Unknown)
    }

    /// This edge is at fault.
    pub(crate) fn own(cause: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, cause, Outcome::Unknown)
    }

    /// The request may be sent again, if `may`.
    pub(crate) fn repeating(mut self, may: bool) -> Self {
        self.repeats = may;
        self
    }
}

impl From<Loops> for Failure {
    fn from(loops: Loops) -> Self {
        let status = StatusCode::LOOP_DETECTED;
        Self::new(status, loops.to_string(), Outcome::Unknown)
    }
}

impl From<PickError> for Failure {
    fn from(error: PickError) -> Self {
        let status = match error {
            PickError::NoAddress(_) => StatusCode::BAD_GATEWAY,
            PickError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string(), Outcome::Unknown)
    }
}

/// Answers a request that got no response. The client learns little, the log all.
pub(super) async fn tell<E: Exchange>(
    failure: Failure,
    request: &Request,
    exchange: &mut E,
) -> Ended {
    let line = match failure.status {
        StatusCode::BAD_REQUEST => "the request is malformed\n",
        StatusCode::LOOP_DETECTED => "the request came back to where it was\n",
        StatusCode::SERVICE_UNAVAILABLE => "the server behind this site has too much to do\n",
        StatusCode::GATEWAY_TIMEOUT => "the server behind this site took too long\n",
        StatusCode::BAD_GATEWAY => "the server behind this site gave no answer\n",
        _ => "this request cannot be sent on right now\n",
    };
    if is_grpc(&request.head.headers) && !exchange.must_tunnel() {
        return tell_caller(failure, line, exchange).await;
    }
    let status = failure.status;
    let mut headers = HeaderMap::with_capacity(8);
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, text);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(line.len()));
    let head_only = request.head.method == Method::HEAD;
    let mut ended = Ended {
        status: Some(status),
        cause: Some(failure.cause),
        ..Ended::default()
    };
    let head = ResponseHead { status, headers };
    if let Err(broken) = exchange.start(head, head_only).await {
        ended.error = Some(broken);
    } else if !head_only {
        match exchange.send(line.into(), true).await {
            Ok(()) => ended.bytes = line.len() as u64,
            Err(broken) => ended.error = Some(broken),
        }
    }
    ended
}

/// Ends a request whose time is over: its release is no longer live. Where nothing has reached the client, it is told so.
pub(super) async fn cut<E: Exchange>(request: &Request, exchange: &mut E) -> Ended {
    let is_call = is_grpc(&request.head.headers) && !exchange.must_tunnel();
    let cause = Broken::Drained.to_string();
    let Some((status, bytes)) = exchange.given() else {
        let failure = if is_call {
            // Which most callers take for worth another try.
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, cause, Outcome::Unknown)
        } else {
            Failure::late(cause)
        };
        return tell(failure, request, exchange).await;
    };
    let mut ended = Ended {
        status: Some(status),
        bytes,
        ..Ended::default()
    };
    if is_call {
        let mut trailers = HeaderMap::with_capacity(2);
        let message = HeaderValue::from_static("the server behind this site was replaced");
        trailers.insert("grpc-status", HeaderValue::from_static("14"));
        trailers.insert("grpc-message", message);
        if exchange.end(Some(trailers)).await.is_ok() {
            ended.cause = Some(cause);
            return ended;
        }
    }
    ended.error = Some(Broken::Drained);
    ended
}

/// The same to a gRPC caller, who reads the status of a call and not of a response: a response of trailers only.
async fn tell_caller<E: Exchange>(failure: Failure, line: &str, exchange: &mut E) -> Ended {
    let code = match failure.status {
        StatusCode::GATEWAY_TIMEOUT => "4",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "14",
        _ => "13",
    };
    // No letter of it has to be encoded.
    let message = HeaderValue::from_str(line.trim_end());
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    headers.extend(message.map(|message| (HeaderName::from_static("grpc-message"), message)));
    let status = StatusCode::OK;
    let started = exchange.start(ResponseHead { status, headers }, true).await;
    Ended {
        status: started.is_ok().then_some(status),
        error: started.err(),
        cause: Some(failure.cause),
        ..Ended::default()
    }
}

/// Whether a request is a gRPC call: its status is then in fields of its own.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let name = kind.and_then(|kind| kind.get(..GRPC.len()));
    name.is_some_and(|name| name.eq_ignore_ascii_case(GRPC))
}
