//! One core: its thread, its runtime, and the loop that accepts.

use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::{io, thread};

use helix_service::shutdown::Shutdown;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::caps::Caps;
use super::connection::{Core, serve};
use super::http2;
use super::socket::Socket;
use crate::edge::Edge;
use crate::http3::CoreEndpoint;
use crate::limits::{ACCEPT_PAUSE, DRAIN_GRACE, Limits};
use crate::proxy::Lane;

/// What a core is started with.
pub(super) struct CoreSetup {
    pub(super) edge: Arc<Edge>,
    pub(super) caps: Arc<Caps>,
    pub(super) limits: Limits,
    pub(super) shutdown: Shutdown,
    /// For whom comes over HTTP/3.
    pub(super) http3: Option<CoreEndpoint>,
}

impl CoreSetup {
    /// Starts the thread. It holds `alive` until it ends.
    pub(super) fn start(
        self,
        number: usize,
        socket: TcpListener,
        alive: mpsc::Sender<()>,
    ) -> io::Result<thread::JoinHandle<()>> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(socket)?
        };
        thread::Builder::new()
            .name(format!("edge-core-{number}"))
            .spawn(move || {
                let _alive = alive;
                runtime.block_on(self.run(listener));
            })
    }

    async fn run(mut self, listener: tokio::net::TcpListener) {
        let (drain, draining) = watch::channel(false);
        let core = Arc::new(Core {
            edge: Arc::clone(&self.edge),
            proxy: Arc::new(self.lane()),
            limits: self.limits,
            draining: draining.clone(),
        });
        let http3 = self.http3.take().map(|endpoint| {
            let (edge, caps) = (Arc::clone(&self.edge), Arc::clone(&self.caps));
            tokio::spawn(endpoint.run(edge, caps, self.limits, draining))
        });
        let mut connections = JoinSet::new();
        self.accept(
            &listener,
            &core,
            &mut connections,
            self.shutdown.requested(),
        )
        .await;
        drain.send_replace(true);
        // What the kernel has accepted already would be reset with the socket.
        self.accept(&listener, &core, &mut connections, sleep(DRAIN_GRACE))
            .await;
        drop(listener);
        let rest = async {
            while let Some(ended) = connections.join_next().await {
                log_panic(ended)
            }
            if let Some(http3) = http3 {
                log_panic(http3.await);
            }
        };
        if timeout(self.limits.drain_deadline, rest).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "connections cut at the end of the drain"
            );
        }
    }

    /// Accepts until `end`.
    async fn accept(
        &self,
        listener: &tokio::net::TcpListener,
        core: &Arc<Core>,
        connections: &mut JoinSet<()>,
        end: impl Future<Output = ()>,
    ) {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                biased;
                () = &mut end => return,
                Some(ended) = connections.join_next(), if !connections.is_empty() => log_panic(ended),
                accepted = listener.accept() => match accepted {
                    Ok((socket, peer)) => self.admit(core, connections, socket, peer),
                    Err(error) => self.pause(&error).await,
                },
            }
        }
    }

    fn lane(&self) -> pingora_proxy::HttpProxy<Lane> {
        let mut proxy = http_proxy(
            &Arc::new(ServerConf::default()),
            Lane(Arc::clone(&self.edge)),
        );
        proxy.h2_options = Some(http2::options());
        proxy.server_options = Some(http2::server_options(&self.limits));
        proxy
    }

    fn admit(
        &self,
        core: &Arc<Core>,
        connections: &mut JoinSet<()>,
        socket: TcpStream,
        peer: std::net::SocketAddr,
    ) {
        let metrics = &self.edge.metrics;
        metrics.connections_accepted.inc();
        let permit = match self.caps.admit(peer.ip()) {
            Ok(permit) => permit,
            Err(over) => {
                return metrics
                    .connections_refused
                    .with_label_values(&[over.label()])
                    .inc();
            }
        };
        // Responses are gathered before they are sent, so waiting for more would only delay them.
        if socket.set_nodelay(true).is_err() {
            return;
        }
        let open = Counted::new(&metrics.connections);
        let core = Arc::clone(core);
        connections.spawn(async move {
            let _held = (permit, open);
            serve(core, Socket::Plain(socket), peer).await;
        });
    }

    async fn pause(&self, error: &io::Error) {
        self.edge.metrics.accepts_failed.inc();
        tracing::warn!(error = error as &dyn std::error::Error, "accept failed");
        sleep(ACCEPT_PAUSE).await;
    }
}

/// A panic ends one connection, and is told.
fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "connection task failed"
        );
    }
}

/// Counts one in a gauge until dropped.
struct Counted(prometheus::IntGauge);

impl Counted {
    fn new(gauge: &prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
