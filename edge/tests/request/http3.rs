//! The same answers over HTTP/3, asked by an independent client.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3::error::{Code, StreamError};
use h3_quinn::OpenStreams;
use helix_edge::exchange::Protocol;
use helix_edge::http3::Http3;
use helix_edge::limits::Limits;
use helix_edge::listener::TlsListener;
use helix_edge::tls::{CertificateFiles, Certificates};
use http::{HeaderMap, Method, Request, StatusCode};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, StreamOwned};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{BIG, Edge, KEPT, LIVE, PATIENCE};
use crate::upstream::{HOST, Upstream, forward_to};

/// An edge that speaks HTTP/3, and what its clients trust.
pub(crate) struct Served {
    pub(crate) edge: Edge,
    pub(crate) addr: SocketAddr,
    trusted: Vec<CertificateDer<'static>>,
}

impl Served {
    pub(crate) fn start() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let kept = format!("{KEPT}.preview.shop.helix.localhost");
        Self::named(
            limits,
            &[&["shop.example", "empty.example", HOST], &[&kept]],
        )
    }

    /// One that has a certificate for each of these lists of names.
    pub(crate) fn named(limits: Limits, certificates: &[&[&str]]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (files, trusted) = certificates
            .iter()
            .enumerate()
            .map(|(number, names)| certificate(folder.path(), &number.to_string(), names))
            .unzip();
        let certificates = Certificates::open(files).unwrap();
        let addr = "127.0.0.1:0".parse().unwrap();
        let http3 = Http3 {
            addr,
            certificates: Arc::clone(&certificates),
        };
        let edge = Edge::on(
            limits,
            Some(TlsListener {
                addr,
                public_port: None,
                certificates,
            }),
            Some(http3),
        );
        let addr = edge.handle.http3_addr().unwrap();
        Self {
            edge,
            addr,
            trusted,
        }
    }

    /// What a client over TLS 1.3 trusts and offers.
    pub(crate) fn client(&self, alpn: &[u8]) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        for trusted in &self.trusted {
            roots.add(trusted.clone()).unwrap();
        }
        let mut tls =
            rustls::ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls
    }

    /// A TLS connection for `host` without anything of HTTP on it.
    pub(crate) fn connect_tls(
        &self,
        host: &str,
        alpn: &[u8],
    ) -> StreamOwned<ClientConnection, TcpStream> {
        self.connect_tls_as(&Arc::new(self.client(alpn)), host)
    }

    /// The same, of a client that remembers.
    pub(crate) fn connect_tls_as(
        &self,
        client: &Arc<rustls::ClientConfig>,
        host: &str,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let socket = TcpStream::connect(self.edge.handle.tls_addr().unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = host.to_owned().try_into().unwrap();
        let session = ClientConnection::new(Arc::clone(client), name).unwrap();
        StreamOwned::new(session, socket)
    }

    /// A QUIC connection without anything of HTTP on it.
    pub(crate) async fn connect(
        &self,
        host: &str,
        transport: quinn::TransportConfig,
    ) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
        let tls = self.client(b"h3");
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(config, self.addr, host).unwrap();
        let connection = timeout(PATIENCE, connecting).await.unwrap()?;
        Ok((endpoint, connection))
    }

    pub(crate) async fn open(&self) -> Connection {
        self.open_for("shop.example").await
    }

    pub(crate) async fn open_for(&self, host: &str) -> Connection {
        let transport = quinn::TransportConfig::default();
        let (endpoint, connection) = self.connect(host, transport).await.unwrap();
        let quic = h3_quinn::Connection::new(connection);
        let (mut driver, requests) = h3::client::new(quic).await.unwrap();
        let driver =
            tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Connection {
            endpoint,
            requests,
            driver,
        }
    }
}

/// A certificate of its own for `names`, on disk, and what trusts it.
fn certificate(
    folder: &Path,
    stem: &str,
    names: &[&str],
) -> (CertificateFiles, CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let files = CertificateFiles {
        cert: folder.join(format!("{stem}.pem")),
        key: folder.join(format!("{stem}.key")),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    (files, made.cert.der().clone())
}

/// A client of HTTP/3.
pub(crate) struct Connection {
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) requests: SendRequest<OpenStreams, Bytes>,
    pub(crate) driver: JoinHandle<h3::error::ConnectionError>,
}

impl Connection {
    pub(crate) async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
    ) -> (StatusCode, HeaderMap, usize) {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = url.parse().unwrap();
        *request.headers_mut() = headers;
        let mut requests = self.requests.clone();
        let mut stream = requests.send_request(request).await.unwrap();
        // A response that is whole before the request is ends it kindly (RFC 9114 4.1).
        if let Err(error) = stream.finish().await {
            let kindly = matches!(
                error,
                StreamError::RemoteTerminate { code, .. } if code == Code::H3_NO_ERROR
            );
            assert!(kindly, "{error}");
        }
        let response = timeout(PATIENCE, stream.recv_response())
            .await
            .unwrap()
            .unwrap();
        let mut length = 0;
        while let Some(part) = timeout(PATIENCE, stream.recv_data())
            .await
            .unwrap()
            .unwrap()
        {
            length += part.remaining();
        }
        (response.status(), response.headers().clone(), length)
    }

    /// The heads of the responses to a GET: what comes before the final one, and that.
    pub(crate) async fn heads(
        &self,
        url: &str,
        headers: HeaderMap,
    ) -> Vec<(StatusCode, HeaderMap)> {
        let mut request = Request::get(url).body(()).unwrap();
        *request.headers_mut() = headers;
        let mut requests = self.requests.clone();
        let mut stream = requests.send_request(request).await.unwrap();
        let mut heads: Vec<(StatusCode, HeaderMap)> = Vec::new();
        while heads
            .last()
            .is_none_or(|(status, _)| status.is_informational())
        {
            let head = timeout(PATIENCE, stream.recv_response())
                .await
                .unwrap()
                .unwrap();
            heads.push((head.status(), head.headers().clone()));
        }
        heads
    }

    pub(crate) async fn get(&self, target: &str) -> (StatusCode, HeaderMap, usize) {
        let url = format!("https://shop.example{target}");
        self.ask(Method::GET, &url, HeaderMap::new()).await
    }
}

#[tokio::test]
async fn files_pages_and_redirects_are_those_of_http1() {
    let served = Served::start();
    let connection = served.open().await;
    for (method, target, status) in [
        (Method::GET, "/", 200),
        (Method::HEAD, "/a.txt", 200),
        (Method::GET, "/missing", 404),
        (Method::GET, "/empty", 200),
        (Method::GET, "/%zz", 400),
        (Method::POST, "/", 405),
        (Method::OPTIONS, "/", 204),
    ] {
        let url = format!("https://shop.example{target}");
        let (got, headers, length) = connection.ask(method.clone(), &url, HeaderMap::new()).await;
        assert_eq!(got.as_u16(), status, "{method} {target}");
        assert_eq!(headers["x-helix-release"], LIVE);
        assert!(headers.contains_key("date") && !headers.contains_key("connection"));
        if method == Method::GET {
            assert_eq!(headers["content-length"], length.to_string());
        }
    }
    let (_, headers, _) = connection.get("/a.txt").await;
    let condition = HeaderMap::from_iter([(http::header::IF_NONE_MATCH, headers["etag"].clone())]);
    let url = "https://shop.example/a.txt";
    let (status, _, length) = connection.ask(Method::GET, url, condition).await;
    assert_eq!((status.as_u16(), length), (304, 0));
    assert_eq!(served.edge.metrics.connections_accepted.get(), 1);
}

#[tokio::test]
async fn a_connection_answers_for_the_hosts_of_its_certificate_only() {
    let served = Served::start();
    let kept = format!("{KEPT}.preview.shop.helix.localhost");
    let connection = served.open_for(&kept).await;
    let named = format!("https://{kept}/");
    let (_, headers, _) = connection.ask(Method::GET, &named, HeaderMap::new()).await;
    assert_eq!(headers["x-helix-release"], KEPT);
    let (status, headers, _) = connection.get("/").await;
    assert_eq!(status, StatusCode::MISDIRECTED_REQUEST);
    assert!(!headers.contains_key("x-helix-release"));
    // Another host of the same certificate is fine, and has nothing live.
    let connection = served.open().await;
    let url = "https://empty.example/";
    let (status, _, _) = connection.ask(Method::GET, url, HeaderMap::new()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // A name without a certificate is answered by an alert.
    let transport = quinn::TransportConfig::default();
    assert!(served.connect("nobody.example", transport).await.is_err());
}

#[tokio::test]
async fn responses_over_tls_say_where_http3_is_spoken() {
    let served = Served::start();
    let expected = format!("h3=\":{}\"; ma=86400", served.addr.port());
    let (_, headers, _) = served.open().await.get("/a.txt").await;
    assert_eq!(headers["alt-svc"], expected);
    // Without TLS nobody knows who says so (RFC 7838 2.1).
    assert_eq!(served.edge.get("/a.txt").header("alt-svc"), None);
}

#[tokio::test]
async fn streams_side_by_side_and_a_large_file_arrive_whole() {
    let served = Served::start();
    let connection = served.open().await;
    let asks = (0..50).map(|number| {
        let target = if number == 7 { "/big.bin" } else { "/a.txt" };
        connection.get(target)
    });
    let answers = futures_util::future::join_all(asks).await;
    for (number, (status, _, length)) in answers.into_iter().enumerate() {
        assert_eq!(status, StatusCode::OK);
        assert_eq!(length == BIG, number == 7);
    }
}

#[tokio::test]
async fn a_client_that_changes_its_address_is_served_on() {
    let served = Served::start();
    let connection = served.open().await;
    for _ in 0..8 {
        assert_eq!(connection.get("/a.txt").await.0, StatusCode::OK);
        // Another port, and so perhaps another core's socket.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        connection.endpoint.rebind(socket).unwrap();
    }
    assert_eq!(connection.get("/a.txt").await.0, StatusCode::OK);
    assert_eq!(served.edge.metrics.connections_accepted.get(), 1);
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_in_flight_and_says_goaway() {
    let served = Served::start();
    let connection = served.open().await;
    let mut requests = connection.requests.clone();
    let request = Request::get("https://shop.example/big.bin")
        .body(())
        .unwrap();
    let mut stream = requests.send_request(request).await.unwrap();
    stream.finish().await.unwrap();
    stream.recv_response().await.unwrap();
    served.edge.shutdown.request();
    let mut length = 0;
    while let Some(part) = timeout(PATIENCE, stream.recv_data())
        .await
        .unwrap()
        .unwrap()
    {
        length += part.remaining();
    }
    assert_eq!(length, BIG);
    let ended = timeout(PATIENCE, connection.driver).await.unwrap().unwrap();
    assert!(ended.is_h3_no_error(), "{ended}");
    timeout(PATIENCE, served.edge.handle.join())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_a_stream_loses_the_stream() {
    let served = Served::with(Limits {
        write_stall: Duration::from_millis(300),
        ..Limits::default()
    });
    let connection = served.open().await;
    let mut requests = connection.requests.clone();
    let request = Request::get("https://shop.example/big.bin")
        .body(())
        .unwrap();
    let mut stream = requests.send_request(request).await.unwrap();
    stream.finish().await.unwrap();
    stream.recv_response().await.unwrap();
    let answered = || {
        let metrics = &served.edge.metrics;
        metrics.counted(|core| &core.requests[Protocol::Http3 as usize][2])
    };
    let until = std::time::Instant::now() + PATIENCE;
    // The request is over, though nothing of its body was read.
    while answered() == 0 {
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let failed = loop {
        match timeout(PATIENCE, stream.recv_data()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(failed, "the body ended as if it were whole");
    assert_eq!(connection.get("/a.txt").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cancels_a_request_ends_it_at_the_server() {
    let upstream = Upstream::raw(|mut link, keep| {
        let Some(seen) = link.request() else { return };
        keep(seen);
        // Until the edge closes.
        while link.fill() {}
    });
    let served = Served::start();
    forward_to(&served.edge, upstream.addr, &serde_json::json!({}));
    let connection = served.open_for(HOST).await;
    let mut requests = connection.requests.clone();
    let request = Request::get(format!("https://{HOST}/api/"));
    let mut stream = requests
        .send_request(request.body(()).unwrap())
        .await
        .unwrap();
    stream.finish().await.unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    while upstream.seen().is_empty() {
        assert!(std::time::Instant::now() < until, "it is never sent on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stream.stop_sending(Code::H3_REQUEST_CANCELLED);
    upstream.until_ended();
}
