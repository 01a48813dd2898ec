//! Asks every server of an upstream the same, side by side: a probe is good when all of them are.

use futures_util::future::join_all;
use helix_routing::gate::watch::Outcome;
use helix_routing::gate::{HttpAsk, MAX_BODY_BYTES};
use helix_routing::id::SiteId;
use helix_routing::routes::{Span, Upstream};
use http::header::HOST;
use reqwest::Response;

use super::drive::{Probed, within};
use super::grpc;
use super::judge::Judge;
use crate::edge::Edge;
use crate::forward::{NoServers, Server, Servers};

/// The servers of an upstream of a release.
///
/// # Errors
/// What a probe shows that finds none.
pub(super) async fn of(
    edge: &Edge,
    site: &SiteId,
    upstream: Option<&Upstream>,
) -> Result<Servers, Probed> {
    let Some(upstream) = upstream else {
        return Err(Probed::impossible("", "the release has no such upstream"));
    };
    let found = Servers::find(&edge.upstreams, site, upstream).await;
    found.map_err(|error| match error {
        NoServers::Refused(_) => Probed::impossible("", &error.to_string()),
        NoServers::Unknown(_) => Probed::error("", &error.to_string()),
    })
}

/// What each server is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question<'a> {
    /// For a connection.
    Connect,
    /// How this gRPC service is.
    Check(&'a str),
    /// For a response.
    Get(&'a HttpAsk, &'a Judge<'a>),
}

impl Question<'_> {
    /// Puts it to one of them.
    pub(super) async fn put(self, servers: &Servers, server: &Server, limit: Span) -> Probed {
        let asked = server.origin();
        within(limit, &asked, async {
            match self {
                Self::Connect => connect(servers, server).await,
                Self::Check(service) => grpc::check(servers, server, service).await,
                Self::Get(ask, judge) => get(servers, server, ask, judge).await,
            }
        })
        .await
    }
}

/// Asks each of them; the first that is not good stands for all.
pub(super) async fn each(
    servers: Result<Servers, Probed>,
    limit: Span,
    question: Question<'_>,
) -> Probed {
    let servers = match servers {
        Ok(servers) => servers,
        Err(probed) => return probed,
    };
    let asking = servers
        .iter()
        .map(|server| question.put(&servers, server, limit));
    let mut all = join_all(asking).await;
    let worst = all
        .iter()
        .position(|probed| probed.outcome != Outcome::Good)
        .unwrap_or(0);
    if all.is_empty() {
        return Probed::error("", "the upstream has no server");
    }
    all.swap_remove(worst)
}

/// Whether a server takes connections.
async fn connect(servers: &Servers, server: &Server) -> Probed {
    let addr = server.addr.to_string();
    match servers.connect(server).await {
        Ok(_) => Probed::good(addr),
        Err(error) => Probed::bad(addr, &format!("takes no connection: {error}")),
    }
}

/// What a server answers to a request.
async fn get(servers: &Servers, server: &Server, ask: &HttpAsk, judge: &Judge<'_>) -> Probed {
    let asked = format!("{}{}", server.origin(), ask.path);
    let (client, url) = match servers.client(server, &ask.path) {
        Ok(made) => made,
        Err(error) => return Probed::error(asked, &chain(&error)),
    };
    let mut request = client.get(url);
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    // Over HTTP/2 the name in the URL is the one that counts.
    if let Some(host) = &ask.host {
        request = request.header(HOST, host.as_str());
    } else if let Some(host) = servers.host().filter(|_| !servers.is_http2()) {
        request = request.header(HOST, host);
    }
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Probed::bad(asked, &format!("gave no answer: {}", chain(&error))),
    };
    let status = response.status().as_u16();
    match start_of(response).await {
        Ok(body) => judge.judge(&asked, status, &body, None),
        Err(error) => {
            Probed::bad(asked, &format!("broke off: {}", chain(&error))).with(status, None)
        }
    }
}

/// The start of a body. The rest is left where it is.
async fn start_of(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        let room = MAX_BODY_BYTES - body.len();
        body.extend_from_slice(&part[..part.len().min(room)]);
        if part.len() > room {
            break;
        }
    }
    Ok(body)
}

/// An error's last cause, which is the one that says something: those before name the URL again.
fn chain(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
