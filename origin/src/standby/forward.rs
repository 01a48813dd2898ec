//! Passes a request on to the origin that leads, and its answer back, as they come.

use std::io;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::{Fuse, FutureExt as _};
use futures_util::stream::{self, Stream, StreamExt as _};
use helix_service::error::chain;

use super::unavailable;
use crate::api::problem::Rejection;

/// A leader on the same network that does not take a connection by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two bytes of an answer: a stream of events says something every 10 s, the making of a large release takes longer.
const SILENCE: Duration = Duration::from_secs(120);
/// Names the origin that passed a request on: a request is passed on once.
const FORWARDED: HeaderName = HeaderName::from_static("x-helix-forwarded-by");
/// Names the origin that answered.
const LEADER: HeaderName = HeaderName::from_static("x-helix-leader");
/// Fields that are of one connection (RFC 9110 7.6.1), and those that the client writes anew.
const OF_A_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[derive(Debug)]
pub(super) struct Forwarder {
    client: reqwest::Client,
    address: Option<HeaderValue>,
}

impl Forwarder {
    pub(super) fn new(address: &str) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(SILENCE)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()?,
            address: HeaderValue::from_str(address).ok(),
        })
    }

    /// Passes a request on, for as long as its leader leads: `lost` is when it does not.
    pub(super) async fn forward(
        &self,
        leader: &str,
        request: Request,
        lost: impl Future<Output = ()> + Send + 'static,
    ) -> Response {
        if request.headers().contains_key(FORWARDED) {
            return unavailable(
                "not-leading",
                "the origin that was said to lead does not; ask again",
            );
        }
        let is_safe = request.method().is_safe();
        let is_bodiless = request.body().is_end_stream();
        let (parts, body) = request.into_parts();
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let mut headers = passed_on(&parts.headers);
        if let Some(address) = &self.address {
            headers.insert(FORWARDED, address.clone());
        }
        let sending = self
            .client
            .request(parts.method, format!("{leader}{target}"))
            .headers(headers);
        let sending = if is_bodiless {
            sending
        } else {
            sending.body(reqwest::Body::wrap_stream(body.into_data_stream()))
        };
        let mut lost = Box::pin(lost.fuse());
        let answered = tokio::select! {
            answered = sending.send() => answered,
            () = &mut lost => return gone(leader, is_safe),
        };
        match answered {
            Ok(answer) => passed_back(leader, answer, lost),
            Err(error) => refused(leader, &error),
        }
    }
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in &OF_A_CONNECTION {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers
}

/// What a leader says, until it leads no more: its answer then ends as a broken one.
fn passed_back<L>(leader: &str, answer: reqwest::Response, lost: Lost<L>) -> Response
where
    L: Future<Output = ()> + Send + 'static,
{
    let (status, mut headers) = (answer.status(), passed_on(answer.headers()));
    if let Ok(leader) = HeaderValue::from_str(leader) {
        headers.insert(LEADER, leader);
    }
    let mut response = Response::new(Body::from_stream(while_it_leads(
        answer.bytes_stream(),
        lost,
    )));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

type Lost<L> = std::pin::Pin<Box<Fuse<L>>>;

fn while_it_leads<L, B, E>(
    answer: impl Stream<Item = Result<B, E>> + Send + 'static,
    lost: Lost<L>,
) -> impl Stream<Item = io::Result<B>> + Send + 'static
where
    L: Future<Output = ()> + Send + 'static,
    B: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    stream::unfold(Some((Box::pin(answer), lost)), async |state| {
        let (mut answer, mut lost) = state?;
        tokio::select! {
            part = answer.next() => match part? {
                Ok(part) => Some((Ok(part), Some((answer, lost)))),
                Err(error) => Some((Err(io::Error::other(error)), None)),
            },
            () = &mut lost => Some((Err(io::Error::other("another origin leads")), None)),
        }
    })
}

/// It was asked, and leads no more.
fn gone(leader: &str, is_safe: bool) -> Response {
    if is_safe {
        return unavailable(
            "leader-away",
            &format!(
                "the origin that led, {leader}, does not answer; another takes over: ask again"
            ),
        );
    }
    unanswered(leader)
}

/// What never reached the leader may be asked again by anybody; of the rest the caller has to know that it may have been done.
fn refused(leader: &str, error: &reqwest::Error) -> Response {
    tracing::debug!(leader, error = %chain(error), "request is not passed on");
    if error.is_connect() {
        return unavailable(
            "leader-away",
            &format!(
                "the origin that leads, {leader}, does not answer; another takes over: ask again"
            ),
        );
    }
    unanswered(leader)
}

fn unanswered(leader: &str) -> Response {
    Rejection::new(
        StatusCode::BAD_GATEWAY,
        "leader-away",
        format!("the origin that leads, {leader}, was lost before it answered; what was asked may have been done"),
    )
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    use axum::Router;
    use axum::http::Method;
    use axum::routing::{any, get};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    /// An origin that takes every request and answers none, but begins a stream of events.
    async fn stopped() -> (String, JoinSet<io::Result<()>>) {
        let begins = || async {
            let first = stream::once(async { Ok::<_, io::Error>("event: rollout\n\n") });
            Body::from_stream(first.chain(stream::pending()))
        };
        let router = Router::new()
            .route("/events", get(begins))
            .fallback(any(pending::<()>));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let leader = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await });
        (leader, tasks)
    }

    fn request(method: Method, path: &str) -> Request {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        request
    }

    #[tokio::test]
    async fn who_waits_for_a_leader_that_leads_no_more_hears_of_it() {
        let (leader, _tasks) = stopped().await;
        let forwarder = Forwarder::new("http://here").unwrap();
        for (method, status) in [
            (Method::GET, StatusCode::SERVICE_UNAVAILABLE),
            (Method::POST, StatusCode::BAD_GATEWAY),
        ] {
            let asked = request(method.clone(), "/v1/projects");
            let answer = forwarder.forward(&leader, asked, ready(())).await;
            assert_eq!(answer.status(), status, "{method}");
            let may_retry = answer.headers().contains_key(header::RETRY_AFTER);
            assert_eq!(may_retry, method == Method::GET);
        }
    }

    #[tokio::test]
    async fn a_stream_breaks_when_its_leader_leads_no_more() {
        let (leader, _tasks) = stopped().await;
        let forwarder = Forwarder::new("http://here").unwrap();
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let lost = told.map(drop);
        let asked = request(Method::GET, "/events");
        let answer = forwarder.forward(&leader, asked, lost).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let mut parts = answer.into_body().into_data_stream();
        assert_eq!(parts.next().await.unwrap().unwrap(), "event: rollout\n\n");
        tell.send(()).unwrap();
        assert!(parts.next().await.unwrap().is_err(), "no clean end");
    }
}
