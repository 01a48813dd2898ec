//! The only way out of a sandbox: a proxy at a unix socket that connects to hosts on a list and to nothing else.
//!
//! The name that is asked for is checked against the list, and the very address that is connected to against what is public, so no
//! name leads into the worker's own network. What is inside a tunnel is not looked at.

mod allow;
mod names;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use helix_service::reachable::{Network, Reachable};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use allow::{Asked, Hosts};
use names::Names;

/// Longest head of a request: a proxy is told little.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long a head may take.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a lookup and a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// Connections at once; more wait. As many as the relay inside lets through.
const MAX_CONNECTIONS: usize = 256;
/// Hosts that are named in the log before the rest is passed over.
const MAX_NAMED: usize = 50;

/// What may be reached besides public addresses at the usual ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// Ranges that are permitted although they are loopback, private or otherwise special.
    pub allow: Vec<Network>,
    /// Ports.
    pub ports: Vec<u16>,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            ports: vec![80, 443],
        }
    }
}

/// A running proxy. It ends when this is dropped.
#[derive(Debug)]
pub struct Egress {
    task: JoinHandle<()>,
    shared: Arc<Shared>,
}

struct Shared {
    hosts: Hosts,
    ports: Vec<u16>,
    reachable: Reachable,
    names: Names,
    refused: Mutex<BTreeSet<String>>,
    tell: Box<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// Why a request gets nothing.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0} is not among the hosts that this project's builds may reach")]
    Host(String),
    #[error("port {1} of {0} is not among those that builds may reach")]
    Port(String, u16),
    #[error("{0} has no address that builds may reach")]
    Address(String),
    #[error("reach {0}: {1}")]
    Unreachable(String, Arc<io::Error>),
    #[error("not a request that a proxy understands")]
    Malformed,
}

impl Egress {
    /// Listens at `socket`. Each host that is refused is told once.
    ///
    /// # Errors
    /// When there can be no socket.
    pub fn start(
        socket: &Path,
        hosts: &[String],
        config: &EgressConfig,
        tell: impl Fn(&str) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        // The build is another user.
        std::fs::set_permissions(socket, Permissions::from_mode(0o666))?;
        let shared = Arc::new(Shared {
            hosts: Hosts::new(hosts),
            ports: config.ports.clone(),
            reachable: Reachable {
                allow: config.allow.clone(),
                own: Vec::new(),
            },
            names: Names::new(),
            refused: Mutex::default(),
            tell: Box::new(tell),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { task, shared })
    }

    /// Hosts that were refused so far, in order.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        let refused = self
            .shared
            .refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        refused.iter().cloned().collect()
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            // Too many open files pass as connections end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _permit = permit;
            // However it ends, only the build sees it.
            let _ = attend(client, &shared).await;
        });
    }
}

async fn attend(mut client: UnixStream, shared: &Shared) -> io::Result<()> {
    let Ok(Some(asked)) = timeout(HEAD_WITHIN, head(&mut client)).await else {
        return refuse(&mut client, &Refusal::Malformed).await;
    };
    let mut server = match shared.connect(&asked).await {
        Ok(server) => server,
        Err(refusal) => {
            shared.note(&asked, &refusal);
            return refuse(&mut client, &refusal).await;
        }
    };
    match &asked.head {
        Some(head) => server.write_all(head).await?,
        None => {
            client
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?
        }
    }
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Reads a byte at a time, so that what follows the head is still in the socket: heads here are short and few.
async fn head(client: &mut UnixStream) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD_BYTES {
            return None;
        }
        head.push(client.read_u8().await.ok()?);
    }
    allow::read(&head)
}

async fn refuse(client: &mut UnixStream, refusal: &Refusal) -> io::Result<()> {
    let (status, text) = match refusal {
        Refusal::Malformed => ("400 Bad Request", refusal.to_string()),
        Refusal::Unreachable(..) => ("502 Bad Gateway", refusal.to_string()),
        Refusal::Host(_) | Refusal::Port(..) | Refusal::Address(_) => {
            ("403 Forbidden", refusal.to_string())
        }
    };
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    );
    client.write_all(answer.as_bytes()).await
}

impl Shared {
    async fn connect(&self, asked: &Asked) -> Result<TcpStream, Refusal> {
        let host = || asked.host.clone();
        if !self.hosts.allow(&asked.host) {
            return Err(Refusal::Host(host()));
        }
        if !self.ports.contains(&asked.port) {
            return Err(Refusal::Port(host(), asked.port));
        }
        let failed = |error| Refusal::Unreachable(host(), error);
        let late = |_| failed(Arc::new(io::ErrorKind::TimedOut.into()));
        let found = timeout(CONNECT_WITHIN, self.names.find(&asked.host)).await;
        let found = found.map_err(late)?.map_err(failed)?;
        let addresses: Vec<SocketAddr> = found
            .iter()
            .filter(|address| self.reachable.permits(**address))
            .map(|address| SocketAddr::new(*address, asked.port))
            .collect();
        if addresses.is_empty() {
            return Err(Refusal::Address(host()));
        }
        let connected = timeout(CONNECT_WITHIN, TcpStream::connect(addresses.as_slice())).await;
        connected
            .map_err(late)?
            .map_err(|error| failed(Arc::new(error)))
    }

    fn note(&self, asked: &Asked, refusal: &Refusal) {
        if matches!(refusal, Refusal::Unreachable(..)) {
            (self.tell)(&refusal.to_string());
            return;
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < MAX_NAMED && refused.insert(asked.host.clone()) {
            drop(refused);
            (self.tell)(&format!("refused: {refusal}"));
        }
    }
}

#[cfg(test)]
mod tests;
