//! Servers that speak HTTP/2: over TLS by ALPN, without it with prior knowledge; and when they go away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::{Reason, server};
use http::{HeaderName, HeaderValue, Response};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsAcceptor;

use crate::support::Edge;
use crate::upstream::{HOST, forward_to};

/// What the server does with each connection.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Answers all requests.
    Steady,
    /// Says GOAWAY after each request, and answers that one.
    LeavesInOrder,
    /// Says GOAWAY in the middle of the third.
    LeavesAbruptly,
    /// Answers with a field that has no name of HTTP/1.1.
    Misnames,
}

struct Http2 {
    addr: SocketAddr,
    /// In PEM, if it speaks TLS.
    certificate: Option<String>,
    connections: Arc<AtomicUsize>,
}

async fn serve<I: AsyncRead + AsyncWrite + Unpin>(io: I, manner: Manner) {
    let Ok(mut connection) = server::handshake(io).await else {
        return;
    };
    let mut served = 0;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        served += 1;
        match manner {
            Manner::Steady | Manner::Misnames => {}
            Manner::LeavesInOrder => connection.graceful_shutdown(),
            Manner::LeavesAbruptly if served == 3 => {
                connection.abrupt_shutdown(Reason::NO_ERROR);
                continue;
            }
            Manner::LeavesAbruptly => {}
        }
        let authority = request.uri().authority().unwrap().as_str().to_owned();
        let head = Response::builder().header("x-authority", authority);
        let mut head = head.body(()).unwrap();
        if matches!(manner, Manner::Misnames) {
            let name = HeaderName::from_lowercase(b"x\"y").unwrap();
            head.headers_mut()
                .insert(name, HeaderValue::from_static("1"));
        }
        let mut out = respond.send_response(head, false).unwrap();
        out.send_data(Bytes::from_static(b"over http/2"), true)
            .unwrap();
    }
}

/// A server, behind TLS with a certificate for `name` if there is one, that offers these protocols there.
async fn http2(name: Option<(&str, &[&[u8]])>, manner: Manner) -> Http2 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let made = name.map(|(name, protocols)| acceptor(name, protocols));
    let certificate = made.as_ref().map(|(_, certificate)| certificate.clone());
    let acceptor = made.map(|(acceptor, _)| acceptor);
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                match acceptor {
                    None => {
                        count.fetch_add(1, Ordering::AcqRel);
                        serve(socket, manner).await;
                    }
                    Some(acceptor) => {
                        let Ok(stream) = acceptor.accept(socket).await else {
                            return;
                        };
                        count.fetch_add(1, Ordering::AcqRel);
                        serve(stream, manner).await;
                    }
                }
            });
        }
    });
    Http2 {
        addr,
        certificate,
        connections,
    }
}

fn acceptor(name: &str, protocols: &[&[u8]]) -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

/// What so many requests get, one after the other.
async fn ask(edge: Edge, method: &'static str, times: usize) -> Vec<(u16, Option<String>)> {
    let asking = spawn_blocking(move || {
        let mut client = edge.client();
        let ask = |_| {
            client.send(format!(
                "{method} /api/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"
            ));
            let head = client.head();
            match head.header("content-length") {
                Some(length) => drop(client.take(length.parse().unwrap())),
                None => assert_eq!(client.chunked_body(), b"over http/2"),
            }
            let authority = head.header("x-authority").map(str::to_owned);
            (head.status, authority)
        };
        (0..times).map(ask).collect()
    });
    asking.await.unwrap()
}

fn edge_to(addr: SocketAddr, more: &Value) -> Edge {
    let edge = Edge::start();
    forward_to(&edge, addr, more);
    edge
}

#[tokio::test]
async fn a_server_behind_tls_is_spoken_to_by_alpn_if_its_certificate_is_right() {
    let h2: &[&[u8]] = &[b"h2"];
    let right = http2(Some(("api.internal", h2)), Manner::Steady).await;
    let other = http2(Some(("api.internal", h2)), Manner::Steady).await;
    let ca = right.certificate.clone();
    for (host, ca, status) in [
        ("api.internal", &ca, 200),
        ("other.internal", &ca, 502),
        ("api.internal", &other.certificate, 502),
        ("api.internal", &None, 502),
    ] {
        let more = json!({
            "addresses": [format!("https://{}", right.addr)], "protocol": "http2", "host": host,
            "tls": { "ca": ca },
        });
        let before = right.connections.load(Ordering::Acquire);
        let answers = ask(edge_to(right.addr, &more), "GET", 3).await;
        for (got, authority) in answers {
            assert_eq!(got, status, "{host}");
            if status == 200 {
                assert_eq!(authority.as_deref(), Some(host));
            }
        }
        if status == 200 {
            assert_eq!(right.connections.load(Ordering::Acquire), before + 1);
        }
    }
}

#[tokio::test]
async fn a_server_that_leaves_in_order_is_not_noticed_by_anybody() {
    let server = http2(None, Manner::LeavesInOrder).await;
    let edge = edge_to(server.addr, &json!({ "protocol": "http2" }));
    for (status, authority) in ask(edge, "GET", 40).await {
        assert_eq!((status, authority.as_deref()), (200, Some(HOST)));
    }
    assert!(server.connections.load(Ordering::Acquire) > 1);
}

#[tokio::test]
async fn a_request_that_a_leaving_server_may_have_taken_is_sent_again_only_if_that_does_no_harm() {
    for (method, harmless) in [("GET", true), ("POST", false)] {
        let server = http2(None, Manner::LeavesAbruptly).await;
        let edge = edge_to(server.addr, &json!({ "protocol": "http2" }));
        let statuses: Vec<_> = ask(edge, method, 12)
            .await
            .into_iter()
            .map(|(status, _)| status)
            .collect();
        let failed = statuses.iter().filter(|status| **status != 200).count();
        assert!(
            statuses.iter().all(|status| matches!(status, 200 | 502)),
            "{statuses:?}"
        );
        assert_eq!(failed == 0, harmless, "{method}: {statuses:?}");
    }
}

#[tokio::test]
async fn a_field_that_http1_has_no_name_for_is_no_response() {
    let server = http2(None, Manner::Misnames).await;
    let edge = edge_to(server.addr, &json!({ "protocol": "http2" }));
    assert_eq!(ask(edge, "GET", 1).await, [(502, None)]);
}
