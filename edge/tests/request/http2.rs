//! The same answers over cleartext HTTP/2 with prior knowledge.

use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use helix_edge::limits::Limits;

use crate::support::{BIG, Edge, KEPT, LIVE, PATIENCE};

/// A client of HTTP/2.
pub(crate) struct Connection {
    pub(crate) requests: SendRequest<Bytes>,
    pub(crate) driver: JoinHandle<Result<(), h2::Error>>,
}

impl Connection {
    pub(crate) async fn open(edge: &Edge) -> Self {
        let socket = TcpStream::connect(edge.addr).await.unwrap();
        let (requests, connection) = client::handshake(socket).await.unwrap();
        Self {
            requests: requests.ready().await.unwrap(),
            driver: tokio::spawn(connection),
        }
    }

    /// The heads of the responses to a GET: what comes before the final one, and that.
    pub(crate) async fn heads(
        &mut self,
        url: &str,
        headers: HeaderMap,
    ) -> Vec<(StatusCode, HeaderMap)> {
        let mut request = Request::get(url).body(()).unwrap();
        *request.headers_mut() = headers;
        self.requests = self.requests.clone().ready().await.unwrap();
        let (mut response, _) = self.requests.send_request(request, true).unwrap();
        let mut heads = Vec::new();
        loop {
            let interim = std::future::poll_fn(|cx| response.poll_informational(cx));
            let Some(head) = timeout(PATIENCE, interim).await.unwrap() else {
                break;
            };
            let head = head.unwrap();
            heads.push((head.status(), head.headers().clone()));
        }
        let last = timeout(PATIENCE, response).await.unwrap().unwrap();
        heads.push((last.status(), last.headers().clone()));
        heads
    }

    pub(crate) async fn ask(
        &mut self,
        method: Method,
        url: &str,
        headers: HeaderMap,
    ) -> (StatusCode, HeaderMap, usize) {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = url.parse().unwrap();
        *request.headers_mut() = headers;
        self.requests = self.requests.clone().ready().await.unwrap();
        let (response, _) = self.requests.send_request(request, true).unwrap();
        let (head, mut body) = timeout(PATIENCE, response)
            .await
            .unwrap()
            .unwrap()
            .into_parts();
        let mut length = 0;
        while let Some(part) = timeout(PATIENCE, body.data()).await.unwrap() {
            let part = part.unwrap();
            length += part.len();
            body.flow_control().release_capacity(part.len()).unwrap();
        }
        (head.status, head.headers, length)
    }
}

#[tokio::test]
async fn files_pages_and_redirects_are_those_of_http1() {
    let edge = Edge::start();
    let mut connection = Connection::open(&edge).await;
    for (method, target, status) in [
        (Method::GET, "/", 200),
        (Method::HEAD, "/a.txt", 200),
        (Method::GET, "/dir", 307),
        (Method::GET, "/missing", 404),
        (Method::GET, "/%zz", 400),
        (Method::POST, "/", 405),
        (Method::OPTIONS, "/", 204),
    ] {
        let url = format!("http://shop.example{target}");
        let (got, headers, length) = connection.ask(method.clone(), &url, HeaderMap::new()).await;
        assert_eq!(got.as_u16(), status, "{method} {target}");
        assert_eq!(headers["x-helix-release"], LIVE);
        assert!(headers.contains_key("date") && !headers.contains_key("connection"));
        if method == Method::GET {
            assert_eq!(headers["content-length"], length.to_string());
        }
    }
    let (_, headers, _) = connection
        .ask(Method::GET, "http://shop.example/a.txt", HeaderMap::new())
        .await;
    let condition = HeaderMap::from_iter([(http::header::IF_NONE_MATCH, headers["etag"].clone())]);
    let (status, _, length) = connection
        .ask(Method::GET, "http://shop.example/a.txt", condition)
        .await;
    assert_eq!((status.as_u16(), length), (304, 0));
    let named = format!("http://{KEPT}.preview.shop.helix.localhost/");
    let (_, headers, _) = connection.ask(Method::GET, &named, HeaderMap::new()).await;
    assert_eq!(headers["x-helix-release"], KEPT);
    assert_eq!(edge.metrics.connections_accepted.get(), 1);
}

#[tokio::test]
async fn streams_side_by_side_and_a_large_file_arrive_whole() {
    let edge = Edge::start();
    let connection = Connection::open(&edge).await;
    let asks = (0..50).map(|number| {
        let mut connection = Connection {
            requests: connection.requests.clone(),
            driver: tokio::spawn(async { Ok(()) }),
        };
        let target = if number == 7 { "big.bin" } else { "a.txt" };
        async move {
            connection
                .ask(
                    Method::GET,
                    &format!("http://shop.example/{target}"),
                    HeaderMap::new(),
                )
                .await
        }
    });
    for (number, (status, _, length)) in futures_util::future::join_all(asks)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(status, StatusCode::OK);
        assert_eq!(length == BIG, number == 7);
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_shutdown_says_goaway() {
    let edge = Edge::with(Limits {
        idle_deadline: std::time::Duration::from_millis(200),
        ..Limits::default()
    });
    let idle = Connection::open(&edge).await;
    let ended = timeout(PATIENCE, idle.driver).await.unwrap().unwrap();
    assert!(ended.is_ok() || ended.unwrap_err().is_io());

    let edge = Edge::start();
    let mut connection = Connection::open(&edge).await;
    assert_eq!(
        connection
            .ask(Method::GET, "http://shop.example/a.txt", HeaderMap::new())
            .await
            .0,
        StatusCode::OK
    );
    edge.shutdown.request();
    assert!(
        timeout(PATIENCE, connection.driver)
            .await
            .unwrap()
            .unwrap()
            .is_ok()
    );
    timeout(PATIENCE, edge.handle.join())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_a_stream_loses_the_stream() {
    let edge = Edge::with(Limits {
        write_stall: std::time::Duration::from_millis(200),
        ..Limits::default()
    });
    let socket = TcpStream::connect(edge.addr).await.unwrap();
    // One stream cannot use up what the connection may be sent.
    let handshake = client::Builder::new()
        .initial_connection_window_size(1024 * 1024)
        .handshake::<_, Bytes>(socket);
    let (requests, driver) = handshake.await.unwrap();
    let mut connection = Connection {
        requests,
        driver: tokio::spawn(driver),
    };
    let request = Request::get("http://shop.example/big.bin")
        .body(())
        .unwrap();
    let (response, _) = connection.requests.send_request(request, true).unwrap();
    let response = timeout(PATIENCE, response).await.unwrap();
    let mut body = response.unwrap().into_body();
    // No capacity is ever given back, so the stream stalls after its first window. Others go on.
    let until = Instant::now() + PATIENCE;
    let error = loop {
        let url = "http://shop.example/a.txt";
        let (status, _, length) = connection.ask(Method::GET, url, HeaderMap::new()).await;
        assert_eq!((status, length > 0), (StatusCode::OK, true));
        match body.data().now_or_never() {
            Some(Some(Ok(_))) | None => assert!(Instant::now() < until, "it is never reset"),
            Some(Some(Err(error))) => break error,
            Some(None) => panic!("the body ended"),
        }
    };
    assert!(error.is_reset(), "{error}");
}

#[tokio::test]
async fn streams_with_headers_over_the_limit_are_refused() {
    let edge = Edge::start();
    let mut connection = Connection::open(&edge).await;
    let value = http::HeaderValue::from_str(&"y".repeat(40_000)).unwrap();
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-large"), value)]);
    let (status, _, _) = connection
        .ask(Method::GET, "http://shop.example/", headers)
        .await;
    assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}
