//! What operators and probes see of a running edge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use helix_edge::admin::{self, Admin};
use helix_service::shutdown::Shutdown;
use http::{HeaderMap, Method};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use crate::support::{Client, Edge, LIVE, Response};

#[tokio::test]
async fn health_readiness_sites_and_explanations_are_told_until_the_shutdown() {
    let edge = Edge::start();
    edge.get("/");
    edge.until_idle();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let ready = Arc::new(AtomicBool::new(false));
    let shown = Admin {
        table: Arc::clone(&edge.table),
        metrics: Arc::clone(&edge.metrics),
        ready: Arc::clone(&ready),
        maintenance: helix_edge::maintenance::Maintenance::default(),
        desk: Arc::default(),
    };
    let (shutdown, asked) = Shutdown::manual();
    let serving = tokio::spawn(admin::serve(listener, shown, shutdown));
    let ask = async |path: &'static str| spawn_blocking(move || get(addr, path)).await.unwrap();

    assert_eq!(ask("/healthz").await.status, 200);
    assert_eq!(ask("/readyz").await.status, 503);
    ready.store(true, Ordering::Release);
    assert_eq!(ask("/readyz").await.status, 200);
    assert!(
        ask("/metrics")
            .await
            .text()
            .contains("helix_edge_connections_accepted_total")
    );
    let sites = ask("/sites").await;
    assert_eq!(
        sites.text(),
        format!(
            r#"[{{"site":"shop/production","generation":1,"live":"{LIVE}","in_flight":[{{"release":"{LIVE}","requests":0,"websockets":0,"draining":false}}]}}]"#
        )
    );
    let explained = ask("/explain?host=shop.example%3A8080&path=/dir/%3Fa").await;
    for part in [
        r#""file":"dir/index.html""#,
        r#""host_rule":"shop.example""#,
        r#""status":200"#,
    ] {
        assert!(explained.text().contains(part), "{}", explained.text());
    }
    assert_eq!(ask("/explain?host=shop.example").await.status, 400);
    asked.request();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_operators_ask_is_answered_to_nobody_else() {
    let served = crate::http3::Served::start();
    let mut h2 = crate::http2::Connection::open(&served.edge).await;
    let h3 = served.open().await;
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/sites",
        "/explain?host=shop.example&path=/",
        "/purge",
    ] {
        // It is the site's to answer, which has no such file.
        for host in ["shop.example", "127.0.0.1", "admin"] {
            let mut client = served.edge.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let response = client.response();
            assert_eq!(response.status, 404, "{host}{path}");
            assert!(
                !response.text().contains("helix_edge_"),
                "{}",
                response.text()
            );
        }
        let url = format!("//shop.example{path}");
        let ask = |scheme: &str| (Method::GET, format!("{scheme}:{url}"), HeaderMap::new());
        let (method, url, fields) = ask("http");
        assert_eq!(h2.ask(method, &url, fields).await.0, 404, "{path}");
        let (method, url, fields) = ask("https");
        assert_eq!(h3.ask(method, &url, fields).await.0, 404, "{path}");
    }
}

fn get(addr: std::net::SocketAddr, path: &str) -> Response {
    let mut client = Client::connect(addr);
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
    ));
    client.response()
}
