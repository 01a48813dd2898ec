//! Gates against a release that answers itself, and against servers that are well, ill or odd.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use helix_edge::forward::Reachable;
use helix_edge::gate::exec::NoRuntime;
use helix_edge::gate::{Asker, Scope, Subject};
use helix_edge::limits::Limits;
use helix_edge::release::Release;
use helix_edge::tls::Certificates;
use helix_routing::gate::result::GateResult;
use helix_routing::id::Digest;
use helix_routing::routes::{Routes, SiteConfig};
use helix_routing::verdict::Verdict;
use serde_json::{Value, json};

use crate::support::{Edge, KEPT, site};
use crate::tls::Secure;
use crate::upstream::{Upstream, ok};

/// A release that nobody is served yet, with what its `helix.toml` says.
fn subject(config: &Value) -> Subject {
    let config: SiteConfig = serde_json::from_value(config.clone()).unwrap();
    config.check().unwrap();
    let redirects = Some("/old /new 301\n");
    let routes = Routes::compile(config, redirects, None).unwrap();
    let artifact = Digest::from_hex(&"0".repeat(64)).unwrap();
    let files = [
        (
            "index.html",
            "text/html",
            Bytes::from_static(b"the candidate"),
        ),
        ("large.txt", "text/plain", Bytes::from(vec![b'x'; 200_000])),
    ];
    let release = Release::from_memory(KEPT.parse().unwrap(), artifact, files);
    Subject {
        site: site(),
        release: Arc::new(release.with_routes(routes)),
    }
}

async fn run_with(
    edge: &Edge,
    certificates: Option<Arc<Certificates>>,
    config: &Value,
    scope: &Scope,
) -> Vec<GateResult> {
    let asker = Asker::new(
        Arc::clone(edge.handle.edge()),
        certificates,
        Arc::new(NoRuntime),
    );
    asker.run(&subject(config), scope).await
}

/// What the declared gate showed, as the only one that is run.
async fn ask(edge: &Edge, upstreams: &Value, gate: &Value) -> GateResult {
    let mut whole =
        json!({ "name": "a", "rise": 1, "fall": 1, "timeout": "1s", "deadline": "20s" });
    let described = whole.as_object_mut().unwrap();
    described.extend(gate.as_object().unwrap().clone());
    let config = json!({
        "upstreams": upstreams,
        "forward": [],
        "gates": [whole],
    });
    let only = Scope {
        only: Some("a".to_owned()),
        returns: false,
    };
    let mut results = run_with(edge, None, &config, &only).await;
    assert_eq!(results.len(), 1, "{results:?}");
    results.remove(0)
}

fn at(addrs: &[SocketAddr]) -> Value {
    let addresses: Vec<_> = addrs.iter().map(|addr| format!("http://{addr}")).collect();
    json!({ "api": { "addresses": addresses } })
}

/// An address at which nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_release_is_asked_as_a_visitor_would_ask_it_before_anybody_can() {
    let edge = Edge::start();
    for (gate, verdict, status, words) in [
        (json!({}), Verdict::Pass, 200, ""),
        (
            json!({ "path": "/?a=b", "body": "/^the cand/" }),
            Verdict::Pass,
            200,
            "",
        ),
        (
            json!({ "body": "the live one" }),
            Verdict::Fail,
            200,
            "does not hold \"the live one\"",
        ),
        (
            json!({ "path": "/missing" }),
            Verdict::Fail,
            404,
            "answered 404, wanted 2xx",
        ),
        (
            json!({ "path": "/missing", "status": [404, 410] }),
            Verdict::Pass,
            404,
            "",
        ),
        (
            json!({ "path": "/old" }),
            Verdict::Fail,
            301,
            "answered 301, wanted 2xx",
        ),
        (
            json!({ "path": "/old", "status": ["3xx"] }),
            Verdict::Pass,
            301,
            "",
        ),
        (
            json!({ "path": "/large.txt", "body": "/^x+$/" }),
            Verdict::Pass,
            200,
            "",
        ),
    ] {
        let mut gate = gate;
        gate["kind"] = "http".into();
        let result = ask(&edge, &json!({}), &gate).await;
        assert_eq!(
            (result.verdict, result.status),
            (verdict, Some(status)),
            "{gate} {result}"
        );
        assert!(result.to_string().contains(words), "{result}");
        assert!(
            result.asked.starts_with("http://shop.helix.localhost/"),
            "{result}"
        );
        assert!(result.body.unwrap().chars().count() <= 301);
    }
    let host = json!({ "kind": "http", "host": "www.shop.example" });
    let result = ask(&edge, &json!({}), &host).await;
    assert_eq!(result.asked, "http://www.shop.example/");
    let shown = String::from_utf8(edge.metrics.text().unwrap()).unwrap();
    let counted =
        |line: &str| line.starts_with("helix_edge_requests_total") && !line.ends_with(" 0");
    assert!(
        !shown.lines().any(counted),
        "a gate counts as a request: {shown}"
    );
    assert!(
        std::fs::read_to_string(&edge.log)
            .unwrap_or_default()
            .is_empty()
    );
}

#[tokio::test]
async fn what_a_release_sends_on_is_asked_for_each_time_and_not_kept() {
    let edge = Edge::start();
    let kept = || {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 5\r\n\r\n";
        [head.as_bytes(), b"ready"].concat()
    };
    let server = Upstream::answering(move |_| kept());
    let config = json!({
        "upstreams": at(&[server.addr]),
        "forward": [{ "path": "/api/*", "upstream": "api", "strip": "/api", "cache": true }],
        "gates": [{ "name": "a", "kind": "http", "path": "/api/up?x=1", "headers": { "X-Gate": "yes" },
            "body": "ready", "interval": "100ms" }],
    });
    let results = run_with(&edge, None, &config, &Scope::default()).await;
    assert!(results.iter().all(GateResult::is_passed), "{results:?}");
    let names: Vec<_> = results.iter().map(|result| result.gate.as_str()).collect();
    assert_eq!(names, ["artifact", "upstream", "a"]);
    let seen = server.seen();
    assert_eq!(seen.len(), 3, "three good answers in a row are wanted");
    assert!(
        seen[0].head.starts_with("GET /up?x=1 HTTP/1.1\r\n"),
        "{}",
        seen[0].head
    );
    assert_eq!(seen[0].fields("x-gate"), ["yes"]);
    assert_eq!(seen[0].fields("host"), ["shop.helix.localhost"]);
}

#[tokio::test]
async fn every_server_of_an_upstream_has_to_answer_well() {
    let edge = Edge::start();
    let well = Upstream::answering(|_| ok("up and running"));
    let ill = Upstream::answering(|_| {
        b"HTTP/1.1 503 Unavailable\r\nContent-Length: 8\r\n\r\nstarting".to_vec()
    });
    let gate = json!({ "kind": "http", "upstream": "api", "path": "/healthz?deep", "body": "running", "host": "api.internal" });
    let result = ask(&edge, &at(&[well.addr, well.addr]), &gate).await;
    assert_eq!(result.verdict, Verdict::Pass, "{result}");
    let seen = &well.seen()[0];
    assert!(
        seen.head.starts_with("GET /healthz?deep HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    assert_eq!(seen.fields("host"), ["api.internal"]);
    let result = ask(&edge, &at(&[well.addr, ill.addr]), &gate).await;
    assert_eq!((result.verdict, result.status), (Verdict::Fail, Some(503)));
    assert_eq!(result.body.as_deref(), Some("starting"));
    assert_eq!(result.asked, format!("http://{}/healthz?deep", ill.addr));
    let result = ask(&edge, &at(&[well.addr, nowhere()]), &gate).await;
    assert_eq!(result.verdict, Verdict::Fail);
    assert!(result.to_string().contains("refused"), "{result}");
}

#[tokio::test]
async fn odd_servers_hold_up_a_gate_for_no_longer_than_its_time() {
    let edge = Edge::start();
    let silent = Upstream::raw(|mut link, _| while link.fill() {});
    let closing = Upstream::raw(|mut link, _| drop(link.head()));
    let endless = Upstream::raw(|mut link, _| {
        let _ = link.head();
        link.send("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
        while link.send(vec![b'x'; 65_536]) {}
    });
    let dribbling = Upstream::raw(|mut link, _| {
        let _ = link.head();
        link.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx");
        while link.fill() {}
    });
    let babbling = Upstream::raw(|mut link, _| {
        let _ = link.head();
        link.send("220 smtp.example ESMTP\r\n\r\n");
    });
    let moving = Upstream::answering(|_| {
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    for (server, verdict, words) in [
        (&silent, Verdict::Fail, "gave no answer within 300ms"),
        (&closing, Verdict::Fail, "gave no answer"),
        (&endless, Verdict::Pass, ""),
        (&dribbling, Verdict::Fail, "within 300ms"),
        (&babbling, Verdict::Fail, "gave no answer"),
        (&moving, Verdict::Fail, "answered 302"),
    ] {
        let gate = json!({ "kind": "http", "upstream": "api", "timeout": "300ms" });
        let started = Instant::now();
        let result = ask(&edge, &at(&[server.addr]), &gate).await;
        assert_eq!(result.verdict, verdict, "{result}");
        assert!(result.to_string().contains(words), "{result}");
        assert!(started.elapsed() < Duration::from_secs(5), "{result}");
    }
}

#[tokio::test]
async fn a_server_that_starts_slowly_is_waited_for() {
    let edge = Edge::start();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let server = Upstream::answering(move |_| {
        if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 4 {
            b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec()
        } else {
            ok("")
        }
    });
    let config = json!({
        "upstreams": at(&[server.addr]),
        "gates": [{ "name": "a", "kind": "http", "upstream": "api", "interval": "100ms", "rise": 2 }],
    });
    let only = Scope {
        only: Some("a".to_owned()),
        returns: false,
    };
    let results = run_with(&edge, None, &config, &only).await;
    assert_eq!((results[0].verdict, results[0].probes), (Verdict::Pass, 6));
    let returns = Scope {
        returns: true,
        ..only
    };
    let results = run_with(&edge, None, &config, &returns).await;
    assert_eq!(
        results[0].probes, 1,
        "a release that was live here is only looked at"
    );
}

#[tokio::test]
async fn a_port_takes_connections_or_not() {
    let edge = Edge::start();
    let server = Upstream::raw(|_, _| {});
    let gate = json!({ "kind": "tcp", "upstream": "api" });
    let open = ask(&edge, &at(&[server.addr]), &gate).await;
    assert_eq!(
        (open.verdict, open.asked),
        (Verdict::Pass, server.addr.to_string())
    );
    let addr = nowhere();
    let closed = ask(&edge, &at(&[server.addr, addr]), &gate).await;
    assert_eq!(
        (closed.verdict, &closed.asked),
        (Verdict::Fail, &addr.to_string())
    );
    assert!(
        closed.to_string().contains("takes no connection"),
        "{closed}"
    );
}

#[tokio::test]
async fn a_command_needs_a_runtime() {
    let edge = Edge::start();
    let gate = json!({ "kind": "exec", "command": ["migrate", "--check"] });
    let result = ask(&edge, &json!({}), &gate).await;
    assert_eq!((result.verdict, result.probes), (Verdict::Error, 1));
    assert!(
        result.to_string().contains("no runtime is configured"),
        "{result}"
    );
}

#[tokio::test]
async fn no_gate_connects_to_what_requests_may_not_be_sent_to() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let port = trap.local_addr().unwrap().port();
    let edge = Edge::reaching(Reachable::default());
    for address in [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        "http://169.254.169.254".to_owned(),
        "http://10.0.0.1".to_owned(),
    ] {
        let http2 = json!({ "api": { "addresses": [address], "protocol": "http2" } });
        for gate in [
            json!({ "kind": "http", "upstream": "api" }),
            json!({ "kind": "tcp", "upstream": "api" }),
            json!({ "kind": "grpc", "upstream": "api" }),
        ] {
            let result = ask(&edge, &http2, &gate).await;
            assert_eq!(
                (result.verdict, result.probes),
                (Verdict::Error, 1),
                "{result}"
            );
            assert!(
                result.to_string().contains("does not connect to"),
                "{result}"
            );
        }
        let config = json!({ "upstreams": { "api": { "addresses": [address] } } });
        let only = Scope {
            only: Some("upstream".to_owned()),
            returns: false,
        };
        let results = run_with(&edge, None, &config, &only).await;
        assert_eq!(results[0].verdict, Verdict::Error, "{:?}", results[0]);
    }
    assert!(trap.accept().is_err(), "something connected");
    let edge = Edge::start();
    let own = ask(
        &edge,
        &at(&[edge.addr]),
        &json!({ "kind": "tcp", "upstream": "api" }),
    )
    .await;
    assert_eq!(own.verdict, Verdict::Error);
    assert!(own.to_string().contains("this edge itself"), "{own}");
}

#[tokio::test]
async fn one_server_of_each_upstream_has_to_be_reachable() {
    let edge = Edge::start();
    let server = Upstream::raw(|_, _| {});
    let only = Scope {
        only: Some("upstream".to_owned()),
        returns: false,
    };
    let reached = json!({ "upstreams": at(&[nowhere(), server.addr]) });
    let results = run_with(&edge, None, &reached, &only).await;
    assert!(results[0].is_passed(), "{}", results[0]);
    let away = json!({ "upstreams": at(&[nowhere()]) });
    let results = run_with(&edge, None, &away, &only).await;
    assert_eq!(results[0].verdict, Verdict::Fail);
    assert!(
        results[0]
            .to_string()
            .contains("of upstream api takes no connection"),
        "{}",
        results[0]
    );
    assert!(results[0].probes > 1, "a server may be about to start");
    let returns = Scope {
        only: None,
        returns: true,
    };
    let results = run_with(&edge, None, &away, &returns).await;
    assert!(results.iter().all(GateResult::is_passed), "{results:?}");
}

#[tokio::test]
async fn hosts_that_a_release_sends_to_tls_need_a_certificate() {
    let secure = Secure::for_hosts(&["shop.example"], Limits::default());
    let (edge, certificates) = (&secure.edge, secure.certificates());
    let redirecting = json!({ "https": "redirect" });
    let only = Scope {
        only: Some("certificate".to_owned()),
        returns: false,
    };
    let run = async |config: &Value| {
        let certificates = Some(Arc::clone(&certificates));
        let mut results = run_with(edge, certificates, config, &only).await;
        results.remove(0)
    };
    assert_eq!(run(&redirecting).await.reason, None);
    for host in ["www.shop.example", "*.more.example"] {
        edge.table.set_host(&host.parse().unwrap(), Some(&site()));
        let failed = run(&redirecting).await;
        assert_eq!(failed.verdict, Verdict::Fail);
        assert!(failed.to_string().contains(host), "{failed}");
        let optional = run(&json!({})).await;
        assert!(
            optional.is_passed() && optional.to_string().contains(host),
            "{optional}"
        );
        edge.table.set_host(&host.parse().unwrap(), None);
    }
    let plain = run_with(edge, None, &redirecting, &only).await;
    assert!(plain.is_empty(), "an edge without TLS has no such gate");
    let gate = json!({ "https": "redirect", "gates": [{ "name": "a", "kind": "http" }] });
    let all = Scope::default();
    let results = run_with(edge, Some(Arc::clone(&certificates)), &gate, &all).await;
    let home = results.last().unwrap();
    assert!(
        home.is_passed(),
        "it is asked over TLS where there is TLS: {home}"
    );
    assert!(home.asked.starts_with("https://"), "{home}");
}

mod grpc {
    use h2::server;
    use http::{HeaderMap, Response};
    use tokio::net::TcpListener;

    use super::*;

    /// How a server answers a health check.
    #[derive(Clone, Copy, Debug)]
    enum Manner {
        /// With this state, and this status behind it.
        Says(u8, u16),
        /// With this status alone.
        Refuses(u16),
        /// With a status of HTTP.
        NotFound,
        Silent,
    }

    async fn health(manner: Manner) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut connection = server::handshake(socket).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                        assert_eq!(request.headers()["content-type"], "application/grpc");
                        tokio::spawn(answer(request.into_body(), respond, manner));
                    }
                });
            }
        });
        addr
    }

    async fn answer(
        mut body: h2::RecvStream,
        mut respond: server::SendResponse<Bytes>,
        manner: Manner,
    ) {
        let message = body.data().await.unwrap().unwrap();
        assert_eq!(message.as_ref(), b"\0\0\0\0\x06\x0a\x04shop");
        let head = Response::builder().header("content-type", "application/grpc");
        match manner {
            Manner::Silent => std::future::pending().await,
            Manner::NotFound => {
                let head = head.status(404).body(()).unwrap();
                respond.send_response(head, true).unwrap();
            }
            Manner::Refuses(code) => {
                let head = head
                    .header("grpc-status", code)
                    .header("grpc-message", "no health here");
                respond.send_response(head.body(()).unwrap(), true).unwrap();
            }
            Manner::Says(state, code) => {
                let mut out = respond
                    .send_response(head.body(()).unwrap(), false)
                    .unwrap();
                let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, state]);
                out.send_data(message, false).unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", code.into());
                out.send_trailers(trailers).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_service_says_whether_it_serves() {
        let edge = Edge::start();
        for (manner, verdict, words) in [
            (Manner::Says(1, 0), Verdict::Pass, ""),
            (Manner::Says(2, 0), Verdict::Fail, "is NOT_SERVING"),
            (Manner::Says(1, 13), Verdict::Fail, "gRPC status 13"),
            (
                Manner::Refuses(12),
                Verdict::Fail,
                "gRPC status 12 no health here",
            ),
            (Manner::NotFound, Verdict::Fail, "HTTP status 404"),
            (Manner::Silent, Verdict::Fail, "gave no answer within 300ms"),
        ] {
            let addr = health(manner).await;
            let upstreams =
                json!({ "api": { "addresses": [format!("http://{addr}")], "protocol": "http2" } });
            let gate =
                json!({ "kind": "grpc", "upstream": "api", "service": "shop", "timeout": "300ms" });
            let result = ask(&edge, &upstreams, &gate).await;
            assert_eq!(result.verdict, verdict, "{manner:?} {result}");
            assert!(result.to_string().contains(words), "{manner:?} {result}");
        }
    }

    #[tokio::test]
    async fn a_server_of_another_protocol_is_no_grpc_server() {
        let edge = Edge::start();
        let server = Upstream::raw(|mut link, _| {
            link.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            while link.fill() {}
        });
        let upstreams = json!({ "api": { "addresses": [format!("http://{}", server.addr)], "protocol": "http2" } });
        let gate = json!({ "kind": "grpc", "upstream": "api" });
        let result = ask(&edge, &upstreams, &gate).await;
        assert_eq!(result.verdict, Verdict::Fail, "{result}");
    }
}
