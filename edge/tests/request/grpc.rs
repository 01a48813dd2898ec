//! gRPC, as far as HTTP/2 knows it: streams both ways, with trailers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::{client, server};
use helix_edge::limits::Limits;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::draining::{calls, drain, leave};
use crate::support::{Edge, PATIENCE};
use crate::upstream::{HOST, forward_to};

/// Sends each part back as it comes, then trailers. A stream that the other side resets is told of.
#[expect(
    clippy::disallowed_methods,
    reason = "a test counts what came, however much"
)]
async fn echo() -> (
    SocketAddr,
    mpsc::UnboundedReceiver<HeaderMap>,
    mpsc::UnboundedReceiver<()>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (seen, heads) = mpsc::unbounded_channel();
    let (cut, cuts) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (seen, cut) = (seen.clone(), cut.clone());
            tokio::spawn(async move {
                let mut connection = server::handshake(socket).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let _ = seen.send(request.headers().clone());
                    tokio::spawn(answer(request, respond, cut.clone()));
                }
            });
        }
    });
    (addr, heads, cuts)
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    cut: mpsc::UnboundedSender<()>,
) {
    let head = Response::builder().header("content-type", "application/grpc");
    let mut out = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    let mut body = request.into_body();
    while let Some(part) = body.data().await {
        let Ok(part) = part else {
            let _ = cut.send(());
            return;
        };
        body.flow_control().release_capacity(part.len()).unwrap();
        if &part[..] == b"break" {
            out.send_reset(h2::Reason::INTERNAL_ERROR);
            return;
        }
        out.send_data(part, false).unwrap();
    }
    let status = ("grpc-status", "0");
    let name = http::HeaderName::from_static(status.0);
    let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static(status.1))]);
    out.send_trailers(trailers).unwrap();
}

async fn connect(edge: &Edge) -> client::SendRequest<Bytes> {
    let socket = TcpStream::connect(edge.addr).await.unwrap();
    let (requests, connection) = client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    requests.ready().await.unwrap()
}

async fn call(
    requests: &mut client::SendRequest<Bytes>,
) -> (Response<h2::RecvStream>, h2::SendStream<Bytes>) {
    let request = Request::post(format!("http://{HOST}/api/Echo"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (response, send) = requests.send_request(request, false).unwrap();
    // The head comes before anything of the body is sent.
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    (response, send)
}

#[tokio::test]
async fn a_call_streams_both_ways_and_ends_with_its_trailers() {
    let (addr, mut heads, _cuts) = echo().await;
    let edge = Edge::start();
    forward_to(&edge, addr, &json!({ "protocol": "http2" }));
    let mut requests = connect(&edge).await;
    let (response, mut send) = call(&mut requests).await;
    assert_eq!(response.status(), StatusCode::OK);
    let head = heads.recv().await.unwrap();
    assert_eq!(head["te"], "trailers");
    let mut body = response.into_body();
    for part in ["one", "two", "three"] {
        send.send_data(Bytes::from(part), false).unwrap();
        let got = timeout(PATIENCE, body.data())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(got, part);
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert!(timeout(PATIENCE, body.data()).await.unwrap().is_none());
    let trailers = timeout(PATIENCE, body.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_call_that_either_side_breaks_off_ends_on_the_other() {
    let (addr, _heads, mut cuts) = echo().await;
    let edge = Edge::start();
    forward_to(&edge, addr, &json!({ "protocol": "http2" }));
    let mut requests = connect(&edge).await;

    let (response, mut send) = call(&mut requests).await;
    send.send_data(Bytes::from("break"), false).unwrap();
    let mut body = response.into_body();
    let error = loop {
        match timeout(PATIENCE, body.data()).await.unwrap() {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => {
                let trailers = timeout(PATIENCE, body.trailers()).await.unwrap();
                break trailers.expect_err("a call that broke off ended in order");
            }
        }
    };
    assert!(error.is_reset(), "{error}");

    let (_response, mut send) = call(&mut requests).await;
    send.send_reset(h2::Reason::CANCEL);
    timeout(PATIENCE, cuts.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let (addr, _heads, _cuts) = echo().await;
    let edge = Edge::start();
    forward_to(&edge, addr, &json!({ "protocol": "http2" }));
    let requests = connect(&edge).await;
    let calls = (0..40).map(|_| {
        let mut requests = requests.clone();
        async move {
            requests = requests.ready().await.unwrap();
            let (response, mut send) = call(&mut requests).await;
            tokio::time::sleep(Duration::ZERO).await;
            send.send_data(Bytes::from("x"), true).unwrap();
            let mut body = response.into_body();
            let got = timeout(PATIENCE, body.data())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert_eq!(got, "x");
        }
    });
    futures_util::future::join_all(calls).await;
}

/// A server that answers each call by `answer`.
async fn serving<F>(
    answer: impl Fn(Request<h2::RecvStream>, server::SendResponse<Bytes>) -> F + Copy + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = server::handshake(socket).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(request, respond));
                }
            });
        }
    });
    addr
}

/// Says nothing before it has heard something, as servers of streams do.
async fn answer_late(request: Request<h2::RecvStream>, mut respond: server::SendResponse<Bytes>) {
    let mut body = request.into_body();
    let Some(Ok(part)) = body.data().await else {
        return;
    };
    let mut out = respond.send_response(Response::new(()), false).unwrap();
    out.send_data(part, false).unwrap();
    while let Some(Ok(part)) = body.data().await {
        out.send_data(part, false).unwrap();
    }
    out.send_trailers(HeaderMap::new()).unwrap();
}

async fn say_nothing(_: Request<h2::RecvStream>, _respond: server::SendResponse<Bytes>) {
    std::future::pending().await
}

/// Answers with a head that is all there is, and in it what it was told of the deadline.
async fn refuse(request: Request<h2::RecvStream>, mut respond: server::SendResponse<Bytes>) {
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "12")
        .header("x-deadline", &request.headers()["grpc-timeout"]);
    respond.send_response(head.body(()).unwrap(), true).unwrap();
}

fn hasty() -> Limits {
    Limits {
        body_stall: Duration::from_millis(100),
        ..Limits::default()
    }
}

fn post(kind: &str) -> Request<()> {
    Request::post(format!("http://{HOST}/api/Echo"))
        .header("te", "trailers")
        .header("content-type", kind)
        .header("grpc-timeout", "5S")
        .body(())
        .unwrap()
}

/// Longer than every wait that these tests limit, but for that of a call.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test]
async fn a_call_may_be_silent_for_longer_than_a_body() {
    let (early, _heads, _cuts) = echo().await;
    let late = serving(answer_late).await;
    let waits = json!({ "response": "150ms", "stall": "150ms" });
    for addr in [early, late] {
        let edge = Edge::with(hasty());
        forward_to(
            &edge,
            addr,
            &json!({ "protocol": "http2", "timeouts": waits }),
        );
        let mut requests = connect(&edge).await;
        let (response, mut send) = requests
            .send_request(post("application/grpc+proto"), false)
            .unwrap();
        a_while().await;
        send.send_data(Bytes::from("one"), false).unwrap();
        let mut body = timeout(PATIENCE, response)
            .await
            .unwrap()
            .unwrap()
            .into_body();
        for part in ["one", "two"] {
            let got = timeout(PATIENCE, body.data()).await.unwrap().unwrap();
            assert_eq!(got.unwrap(), part);
            a_while().await;
            send.send_data(Bytes::from("two"), part == "two").unwrap();
        }
        assert_eq!(
            timeout(PATIENCE, body.data())
                .await
                .unwrap()
                .unwrap()
                .unwrap(),
            "two"
        );
        assert!(timeout(PATIENCE, body.data()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_call_that_is_silent_for_too_long_and_a_body_that_is_no_call_are_cut() {
    let limits = Limits {
        call_idle: Duration::from_millis(300),
        ..hasty()
    };
    let (addr, _heads, mut cuts) = echo().await;
    for (kind, limits) in [
        ("application/grpc", limits),
        ("application/octet-stream", hasty()),
    ] {
        let edge = Edge::with(limits);
        forward_to(&edge, addr, &json!({ "protocol": "http2" }));
        let mut requests = connect(&edge).await;
        let (response, mut send) = requests.send_request(post(kind), false).unwrap();
        send.send_data(Bytes::from("one"), false).unwrap();
        let mut body = timeout(PATIENCE, response)
            .await
            .unwrap()
            .unwrap()
            .into_body();
        let error = loop {
            match timeout(PATIENCE, body.data()).await.unwrap() {
                Some(Ok(part)) => assert_eq!(part, "one"),
                Some(Err(error)) => break error,
                None => panic!("{kind}: it ended in order"),
            }
        };
        assert!(error.is_reset(), "{kind}: {error}");
        timeout(PATIENCE, cuts.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_response_of_trailers_only_stays_one_and_the_deadline_is_passed_on() {
    let addr = serving(refuse).await;
    let edge = Edge::start();
    forward_to(&edge, addr, &json!({ "protocol": "http2" }));
    let mut requests = connect(&edge).await;
    let (response, _send) = requests
        .send_request(post("application/grpc"), true)
        .unwrap();
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    assert_eq!(response.headers()["grpc-status"], "12");
    assert_eq!(response.headers()["x-deadline"], "5S");
    assert!(response.body().is_end_stream());
}

#[tokio::test]
async fn a_caller_is_told_of_failures_as_grpc_tells_them() {
    let silent = serving(say_nothing).await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let waits = json!({ "protocol": "http2", "timeouts": { "response": "200ms" } });
    for (addr, code, status) in [(gone, "14", 502), (silent, "4", 504)] {
        let edge = Edge::start();
        forward_to(&edge, addr, &waits);
        let mut requests = connect(&edge).await;
        let mut ask = async |kind| {
            let (response, _) = requests.send_request(post(kind), true).unwrap();
            timeout(PATIENCE, response).await.unwrap().unwrap()
        };
        let response = ask("application/grpc+json; charset=utf-8").await;
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers();
        assert_eq!(headers["grpc-status"], code);
        assert_eq!(headers["content-type"], "application/grpc");
        let message = headers["grpc-message"].to_str().unwrap();
        assert!(
            message.starts_with("the server behind this site "),
            "{message}"
        );
        assert!(response.body().is_end_stream());
        // Whoever does not speak gRPC is told by the status.
        let response = ask("application/json").await;
        assert_eq!(response.status(), status);
        assert!(!response.headers().contains_key("grpc-status"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_release_that_left_ends_with_a_status_at_its_deadline() {
    let (addr, _heads, _cuts) = echo().await;
    let edge = Edge::start();
    forward_to(&edge, addr, &json!({ "protocol": "http2" }));
    let mut requests = connect(&edge).await;
    let (response, mut send) = call(&mut requests).await;
    let mut body = response.into_body();
    send.send_data(Bytes::from_static(b"one"), false).unwrap();
    let got = timeout(PATIENCE, body.data()).await.unwrap();
    assert_eq!(got.unwrap().unwrap(), "one");
    leave(&edge, &calls(), &drain("0s", "1h"));
    assert!(timeout(PATIENCE, body.data()).await.unwrap().is_none());
    let trailers = timeout(PATIENCE, body.trailers()).await.unwrap();
    assert_eq!(trailers.unwrap().unwrap()["grpc-status"], "14");
    let line = &edge.logged(1)[0];
    assert_eq!(line["error"], "cut at the end of its release's drain");
}
