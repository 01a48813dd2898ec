//! Passes a request on to the origin that leads, and its answer back, as they come.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::unavailable;
use crate::api::problem::{Rejection, chain};

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

    pub(super) async fn forward(&self, leader: &str, request: Request) -> Response {
        if request.headers().contains_key(FORWARDED) {
            return unavailable(
                "not-leading",
                "the origin that was said to lead does not; ask again",
            );
        }
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
        match sending.send().await {
            Ok(answer) => passed_back(leader, answer),
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

fn passed_back(leader: &str, answer: reqwest::Response) -> Response {
    let (status, mut headers) = (answer.status(), passed_on(answer.headers()));
    if let Ok(leader) = HeaderValue::from_str(leader) {
        headers.insert(LEADER, leader);
    }
    let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
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
    Rejection::new(
        StatusCode::BAD_GATEWAY,
        "leader-away",
        format!("the origin that leads, {leader}, was lost before it answered; what was asked may have been done"),
    )
    .into_response()
}
