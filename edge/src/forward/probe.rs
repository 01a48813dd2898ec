//! Asking servers of an upstream one question, outside of any request: for gates.
//!
//! Every connection goes to an address that was looked up and checked just before, as requests' do; whatever a site writes,
//! nothing else is reached. Who asks says how long it waits, by letting go.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use helix_routing::id::SiteId;
use helix_routing::routes::{Address, Upstream};
use http::HeaderValue;
use reqwest::Client;
use tokio::net::TcpStream;

use super::check;
use super::group::Group;
use super::lean;
use super::resolve::ResolveError;
use super::upstreams::Upstreams;
use crate::socket::Socket;

/// Servers that are asked.
#[derive(Debug)]
pub(crate) struct Servers {
    group: Arc<Group>,
    all: Vec<Server>,
}

/// One server at one address.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Where it is; checked.
    pub(crate) addr: SocketAddr,
    address: Address,
}

/// An upstream has no servers that can be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoServers {
    /// One of its addresses may not be connected to, now or later.
    #[error("{0}")]
    Refused(ResolveError),
    /// One of its names is not known right now.
    #[error("{0}: {cause}", cause = cause(.0))]
    Unknown(ResolveError),
}

fn cause(error: &ResolveError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

impl Servers {
    /// Looks the servers of `upstream` up.
    ///
    /// # Errors
    /// When one of its addresses means none.
    pub(crate) async fn find(
        upstreams: &Upstreams,
        site: &SiteId,
        upstream: &Upstream,
    ) -> Result<Self, NoServers> {
        let group = upstreams.named(site, upstream);
        let mut all = Vec::new();
        for (address, found) in group.resolve().await {
            let found = found.map_err(|error| match error {
                ResolveError::Refused { .. } | ResolveError::Own { .. } => {
                    NoServers::Refused(error)
                }
                ResolveError::Lookup { .. } => NoServers::Unknown(error),
            })?;
            all.extend(found.into_iter().map(|addr| Server {
                addr,
                address: address.clone(),
            }));
        }
        Ok(Self { group, all })
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Server> {
        self.all.iter()
    }

    /// `Host` that the upstream is sent, if it is told one.
    pub(crate) fn host(&self) -> Option<&HeaderValue> {
        self.group.host()
    }

    /// Whether they speak HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.group.is_http2()
    }

    /// The name that the certificate of `server` must have, which it is asked by.
    pub(crate) fn name_of(&self, server: &Server) -> String {
        self.group.name_at(&server.address)
    }

    /// A client that connects to `server` and nowhere else, and the URL to ask for.
    ///
    /// # Errors
    /// When what the upstream says of TLS cannot be used.
    pub(crate) fn client(
        &self,
        server: &Server,
        path: &str,
    ) -> Result<(Client, String), reqwest::Error> {
        let name = self.name_of(server);
        let client = check::client(&self.group, &name, server.addr)?.user_agent("helix-gate");
        let url = check::url(server.address.secure, &name, server.addr, path);
        Ok((client.build()?, url))
    }

    /// A connection.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(crate) async fn connect(&self, server: &Server) -> io::Result<TcpStream> {
        TcpStream::connect(server.addr).await
    }

    /// A connection on which HTTP/2 can be spoken.
    ///
    /// # Errors
    /// When there is none to be had, or the server is not who it should be.
    pub(crate) async fn connect_http2(&self, server: &Server) -> io::Result<Socket> {
        let stream = self.connect(server).await?;
        stream.set_nodelay(true)?;
        if !server.address.secure {
            return Ok(Socket::Plain(stream));
        }
        lean::shake_http2(&self.group, &self.name_of(server), stream).await
    }
}

impl Server {
    /// As a URL begins.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.address.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }
}
