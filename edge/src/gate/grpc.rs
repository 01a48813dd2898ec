//! The standard health check of gRPC servers: `grpc.health.v1.Health/Check`, one call on a connection of its own.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream, client};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Version};

use super::drive::Probed;
use super::health::{self, Health};
use crate::forward::{Server, Servers};

const PATH: &str = "/grpc.health.v1.Health/Check";
/// The answer has a handful of bytes.
const MAX_ANSWER_BYTES: usize = 4096;

/// What a call came to.
struct Answer {
    status: StatusCode,
    message: Bytes,
    /// `grpc-status`, from behind the message or in its place.
    code: Option<u16>,
    /// `grpc-message`.
    told: Option<String>,
}

/// Asks a server how `service` is.
pub(super) async fn check(servers: &Servers, server: &Server, service: &str) -> Probed {
    let asked = format!("{}{PATH} {service}", server.origin());
    let asked = asked.trim_end();
    let socket = match servers.connect_http2(server).await {
        Ok(socket) => socket,
        Err(error) => return Probed::bad(asked, &format!("takes no connection: {error}")),
    };
    let request = match request(servers, server) {
        Ok(request) => request,
        Err(error) => return Probed::impossible(asked, &error.to_string()),
    };
    let (mut sender, connection) = match client::handshake(socket).await {
        Ok(opened) => opened,
        Err(error) => return Probed::bad(asked, &format!("does not speak HTTP/2: {error}")),
    };
    let call = async {
        let (response, body) = sender.send_request(request, false)?;
        answer(response, body, health::request(service)).await
    };
    let mut call = pin!(call);
    let answered = tokio::select! {
        answered = &mut call => answered,
        // What came before the end was read with it. An end without an answer fails the call.
        _ = connection => call.await,
    };
    match answered {
        Ok(answer) => judged(asked, &answer),
        Err(error) => Probed::bad(asked, &format!("gave no answer: {error}")),
    }
}

fn request(servers: &Servers, server: &Server) -> Result<Request<()>, http::Error> {
    let name = servers.name_of(server);
    let authority = match servers.host() {
        Some(_) => name,
        None if name.parse::<std::net::IpAddr>().is_ok() => server.addr.to_string(),
        None => format!("{name}:{}", server.addr.port()),
    };
    let scheme = server.origin();
    let scheme = scheme.split(':').next().unwrap_or("http");
    Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("{scheme}://{authority}{PATH}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, "helix-gate")
        .body(())
}

async fn answer(
    response: ResponseFuture,
    mut body: SendStream<Bytes>,
    message: Bytes,
) -> Result<Answer, h2::Error> {
    body.send_data(message, true)?;
    let (head, mut received) = response.await?.into_parts();
    let message = whole(&mut received).await?;
    let trailers = received.trailers().await?;
    let field = |name: &str| {
        let within = |fields: &HeaderMap| Some(fields.get(name)?.to_str().ok()?.to_owned());
        trailers
            .as_ref()
            .and_then(within)
            .or_else(|| within(&head.headers))
    };
    Ok(Answer {
        status: head.status,
        message,
        code: field("grpc-status").and_then(|code| code.parse().ok()),
        told: field("grpc-message"),
    })
}

async fn whole(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut whole = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        if whole.len() + part.len() <= MAX_ANSWER_BYTES {
            whole.extend_from_slice(&part);
        }
    }
    Ok(whole.freeze())
}

fn judged(asked: &str, answer: &Answer) -> Probed {
    if answer.status != StatusCode::OK {
        let problem = format!("answered HTTP status {}", answer.status.as_u16());
        return Probed::bad(asked, &problem);
    }
    let code = answer.code.unwrap_or(2);
    if code != 0 {
        let told = answer.told.as_deref().unwrap_or_default();
        let problem = match answer.code {
            Some(_) => format!("answered gRPC status {code} {told}"),
            None => "answered without a gRPC status".to_owned(),
        };
        return Probed::bad(asked, problem.trim_end()).with(code, None);
    }
    match health::health(&answer.message) {
        Ok(Health::Serving) => Probed::good(asked).with(code, None),
        Ok(other) => Probed::bad(asked, &format!("is {other}")).with(code, None),
        Err(problem) => Probed::bad(asked, problem).with(code, None),
    }
}
