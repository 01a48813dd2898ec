//! Trailers of requests on their way to a server of HTTP/2, from clients of every protocol.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{Reason, server};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::http2;
use crate::http3::Served;
use crate::support::{Edge, PATIENCE};
use crate::upstream::{HOST, forward_to};

/// A request, as the server read it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

type Requests = mpsc::Receiver<Result<Seen, h2::Error>>;

/// A server that tells what each request was, whole or not, and answers with trailers that set a cookie. If it `leaves`, it does
/// so within the second request of its first connection, once that is whole.
async fn recording(leaves: bool) -> (SocketAddr, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (seen, requests) = mpsc::channel(100);
    tokio::spawn(async move {
        for number in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut connection = server::handshake(socket).await.unwrap();
                let (read, mut whole) = mpsc::channel::<()>(1);
                let mut served = 0;
                loop {
                    tokio::select! {
                        request = connection.accept() => {
                            let Some(Ok((request, respond))) = request else { return };
                            served += 1;
                            let answers = !(leaves && number == 0 && served == 2);
                            tokio::spawn(take(request, respond, seen.clone(), answers, read.clone()));
                        }
                        _ = whole.recv() => {
                            connection.abrupt_shutdown(Reason::NO_ERROR);
                        }
                    }
                }
            });
        }
    });
    (addr, requests)
}

async fn take(
    request: Request<h2::RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    seen: mpsc::Sender<Result<Seen, h2::Error>>,
    answers: bool,
    read: mpsc::Sender<()>,
) {
    let whole = read_whole(request.into_body()).await;
    let is_whole = whole.is_ok();
    seen.send(whole).await.unwrap();
    if !answers {
        read.send(()).await.unwrap();
        return std::future::pending().await;
    }
    if is_whole {
        let mut out = respond.send_response(Response::new(()), false).unwrap();
        out.send_data(Bytes::from_static(b"ok"), false).unwrap();
        let trailers = fields(&[("x-sum", "7"), ("set-cookie", "a=b")]);
        out.send_trailers(trailers).unwrap();
    }
}

async fn read_whole(mut body: h2::RecvStream) -> Result<Seen, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        bytes.extend_from_slice(&part);
    }
    Ok(Seen {
        body: bytes,
        trailers: body.trailers().await?,
    })
}

fn fields(fields: &[(&str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| -> (HeaderName, HeaderValue) {
            (name.parse().unwrap(), value.parse().unwrap())
        })
        .collect()
}

async fn next(requests: &mut Requests) -> Result<Seen, h2::Error> {
    timeout(PATIENCE, requests.recv()).await.unwrap().unwrap()
}

/// What a client puts behind its body, and what of that may arrive.
fn sent() -> HeaderMap {
    fields(&[
        ("x-check", "5"),
        ("authorization", "Basic x"),
        ("x-forwarded-for", "127.0.0.1"),
        ("cookie", "a=b"),
        ("x-check", "6"),
    ])
}

fn arrived() -> Option<HeaderMap> {
    Some(fields(&[("x-check", "5"), ("x-check", "6")]))
}

async fn over_http1(edge: &Edge) -> String {
    let mut client = edge.client();
    let asking = spawn_blocking(move || {
        let mut text = format!(
            "POST /api/ HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
        );
        for (name, value) in &sent() {
            text += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
        client.send(text + "\r\n");
        client.until_the_end()
    });
    asking.await.unwrap()
}

/// What came back behind the body.
async fn over_http2(
    connection: &mut http2::Connection,
    method: Method,
    trailers: HeaderMap,
) -> Result<Option<HeaderMap>, h2::Error> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{HOST}/api/"));
    let mut requests = connection.requests.clone().ready().await?;
    let (response, mut send) = requests
        .send_request(request.body(()).unwrap(), false)
        .unwrap();
    send.send_data(Bytes::from_static(b"abc"), false).unwrap();
    send.send_trailers(trailers).unwrap();
    let mut body = timeout(PATIENCE, response).await.unwrap()?.into_body();
    while let Some(part) = timeout(PATIENCE, body.data()).await.unwrap() {
        part?;
    }
    timeout(PATIENCE, body.trailers()).await.unwrap()
}

async fn over_http3(served: &Served) -> Option<HeaderMap> {
    let connection = served.open_for(HOST).await;
    let request = Request::post(format!("https://{HOST}/api/"))
        .body(())
        .unwrap();
    let mut requests = connection.requests.clone();
    let mut stream = requests.send_request(request).await.unwrap();
    stream.send_data(Bytes::from_static(b"abc")).await.unwrap();
    stream.send_trailers(sent()).await.unwrap();
    let response = timeout(PATIENCE, stream.recv_response()).await.unwrap();
    assert_eq!(response.unwrap().status(), 200);
    while timeout(PATIENCE, stream.recv_data())
        .await
        .unwrap()
        .unwrap()
        .is_some()
    {}
    stream.recv_trailers().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_a_request_reach_a_server_of_http2_without_what_does_not_belong_there() {
    let (addr, mut requests) = recording(false).await;
    let served = Served::start();
    forward_to(&served.edge, addr, &json!({ "protocol": "http2" }));
    let whole = || Seen {
        body: b"abc".to_vec(),
        trailers: arrived(),
    };

    let answer = over_http1(&served.edge).await;
    assert_eq!(next(&mut requests).await.unwrap(), whole());
    assert!(
        answer.ends_with("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"),
        "{answer}"
    );

    let mut client = http2::Connection::open(&served.edge).await;
    let back = over_http2(&mut client, Method::POST, sent()).await.unwrap();
    assert_eq!(next(&mut requests).await.unwrap(), whole());
    assert_eq!(back, Some(fields(&[("x-sum", "7")])));

    let back = over_http3(&served).await;
    assert_eq!(next(&mut requests).await.unwrap(), whole());
    assert_eq!(back, Some(fields(&[("x-sum", "7")])));
}

#[tokio::test]
async fn a_request_without_trailers_that_pass_ends_without_any() {
    let (addr, mut requests) = recording(false).await;
    let edge = Edge::start();
    forward_to(&edge, addr, &json!({ "protocol": "http2" }));
    for trailers in [
        HeaderMap::new(),
        fields(&[("authorization", "Basic x"), ("x-helix-edge", "x")]),
    ] {
        let mut client = http2::Connection::open(&edge).await;
        over_http2(&mut client, Method::POST, trailers)
            .await
            .unwrap();
        let seen = next(&mut requests).await.unwrap();
        assert_eq!((&seen.body[..], seen.trailers), (&b"abc"[..], None));
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_has_its_trailers_again() {
    for (method, times) in [(Method::PUT, 2), (Method::POST, 1)] {
        let (addr, mut requests) = recording(true).await;
        let edge = Edge::start();
        forward_to(&edge, addr, &json!({ "protocol": "http2" }));
        // One connection of the client, so that both requests come over one to the server.
        let mut client = http2::Connection::open(&edge).await;
        over_http2(&mut client, Method::POST, sent()).await.unwrap();
        let back = over_http2(&mut client, method.clone(), sent())
            .await
            .unwrap();
        for _ in 0..1 + times {
            let seen = next(&mut requests).await.unwrap();
            assert_eq!((&seen.body[..], seen.trailers), (&b"abc"[..], arrived()));
        }
        // What must not be sent twice is a 502 with a line.
        assert_eq!(back.is_some(), times == 2, "{method}: {back:?}");
    }
}

#[tokio::test]
async fn trailers_that_are_too_large_or_malformed_make_no_whole_request() {
    let (addr, mut requests) = recording(false).await;
    let edge = Edge::start();
    forward_to(&edge, addr, &json!({ "protocol": "http2" }));
    let large = fields(&[("x-check", &"a".repeat(9000))]);
    let many: HeaderMap = (0..101)
        .map(|number| {
            let name: HeaderName = format!("x-{number}").parse().unwrap();
            (name, HeaderValue::from_static("1"))
        })
        .collect();
    // What the types of HTTP/2's libraries take for names.
    let quoted = HeaderName::from_lowercase(b"x\"y").unwrap();
    let quoted = HeaderMap::from_iter([(quoted, HeaderValue::from_static("1"))]);
    for trailers in [large, many, quoted] {
        let mut client = http2::Connection::open(&edge).await;
        let _ = over_http2(&mut client, Method::POST, trailers).await;
        // It may have been refused before anything of it was sent; the first whole one is the next.
        let mut client = http2::Connection::open(&edge).await;
        over_http2(&mut client, Method::POST, sent()).await.unwrap();
        let whole = loop {
            if let Ok(seen) = next(&mut requests).await {
                break seen;
            }
        };
        assert_eq!(whole.trailers, arrived());
    }
}
