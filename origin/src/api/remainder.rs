//! What a sender still sends after it has been answered.
//!
//! A refusal comes before the body was read to its end. A connection that is closed with bytes unread is reset, and the
//! reset may reach the sender before it has seen the answer (RFC 9112, section 9.6): it would know that it failed, but not
//! why. So what is left of a body is read and dropped, while the answer is already on its way.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;

/// Most that is read and dropped: more than any sender puts into one request, but for lists.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// How long it is read at most.
const WAIT: Duration = Duration::from_secs(10);

/// Answers, and reads what is left of the request.
pub(super) async fn drop_after(request: Request, next: Next) -> Response {
    // Who waits to be told to go on has sent nothing, and being read would tell it so.
    if request.headers().contains_key(EXPECT) || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(body)));
    let response = next
        .run(Request::from_parts(head, Body::new(shared.clone())))
        .await;
    if !shared.is_end_stream() {
        tokio::spawn(tokio::time::timeout(WAIT, read_off(shared)));
    }
    response
}

async fn read_off(mut body: Shared) {
    let mut left = MAX_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(fewer) => left = fewer,
            None => return,
        }
    }
}

/// A body that outlives who was to read it.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl Shared {
    fn with<T>(&self, read: impl FnOnce(&mut Body) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        self.with(|body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.with(|body| body.size_hint())
    }
}
