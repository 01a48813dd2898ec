//! Asks the servers of one upstream whether they are well.
//!
//! One task for each group that has requests; it ends with the group. Checks of the same round start at
//! different moments, as do those of other edges. A check connects to the address that requests go to.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use helix_routing::routes::HealthCheck;
use http::header::HOST;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Url};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::group::{Group, Server};

/// Checks until the group is gone.
pub(super) async fn keep_checking(group: Weak<Group>) {
    let mut interval = Duration::ZERO;
    loop {
        sleep(interval).await;
        let Some(group) = group.upgrade() else { return };
        let Some(check) = group.health_check() else {
            return;
        };
        round(&group, check).await;
        // Up to a tenth sooner or later, so that edges that started together do not ask together.
        interval = check
            .interval
            .duration()
            .mul_f64(0.9 + rand::random::<f64>() / 5.0);
    }
}

async fn round(group: &Arc<Group>, check: &HealthCheck) {
    let mut checks = JoinSet::new();
    for server in group.servers() {
        let (group, check) = (Arc::clone(group), check.clone());
        checks.spawn(async move {
            let good = match is_good(&group, &server, &check).await {
                Ok(good) => good,
                Err(error) => {
                    tracing::debug!(upstream.addr = %server.addr, error = &error as &dyn std::error::Error, "health check failed");
                    false
                }
            };
            group.checked(&server, good);
        });
    }
    checks.join_all().await;
}

async fn is_good(
    group: &Group,
    server: &Server,
    check: &HealthCheck,
) -> Result<bool, reqwest::Error> {
    let name = group.name_of(server);
    let client = client(group, &name, server.addr)?
        .timeout(check.timeout.duration())
        .user_agent("helix-health")
        .build()?;
    let url = url(server.address.secure, &name, server.addr, &check.path);
    let mut request = client.get(url);
    // The same that requests are sent; over HTTP/2 the name in the URL is it.
    if let Some(host) = group.host().filter(|_| !group.is_http2()) {
        request = request.header(HOST, host);
    }
    let response = request.send().await?;
    Ok(check.is_good(response.status().as_u16()))
}

/// What to ask for. The name in it leads to the server's address; where it is itself written as an address it would
/// lead there, whoever has allowed it, and so only the server's own may stand in its place.
pub(super) fn url(secure: bool, name: &str, addr: SocketAddr, path: &str) -> String {
    let scheme = if secure { "https" } else { "http" };
    let port = addr.port();
    let named = format!("{scheme}://{name}:{port}{path}");
    let is_name = |url: Url| url.domain().is_some();
    if Url::parse(&named).is_ok_and(is_name) {
        named
    } else {
        format!("{scheme}://{addr}{path}")
    }
}

/// What becomes a client that connects to `addr` and nowhere else.
pub(super) fn client(
    group: &Group,
    name: &str,
    addr: SocketAddr,
) -> Result<ClientBuilder, reqwest::Error> {
    let mut client = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .resolve(name, addr)
        .pool_max_idle_per_host(0);
    client = if group.is_http2() {
        client.http2_prior_knowledge()
    } else {
        client.http1_only()
    };
    if let Some(authorities) = group.authorities() {
        client = client.tls_certs_only(Certificate::from_pem_bundle(authorities.as_bytes())?);
    }
    Ok(client)
}
