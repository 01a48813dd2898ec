//! One core: its thread, its runtime, and the loop that accepts.

use std::net::{SocketAddr, TcpListener};
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
use super::turn::{self, Turns};
use super::{Lanes, lane};
use crate::access_log::CoreLog;
use crate::edge::Edge;
use crate::forward;
use crate::http3::CoreEndpoint;
use crate::limits::{ACCEPT_PAUSE, CUT_GRACE, DRAIN_GRACE, LOG_FLUSH, Limits};
use crate::maintenance::Told;
use crate::metrics::Counted;
use crate::proxy::Lane;
use crate::tls::Certificates;

/// What a core is started with.
pub(super) struct CoreSetup {
    pub(super) edge: Arc<Edge>,
    pub(super) caps: Arc<Caps>,
    pub(super) limits: Limits,
    pub(super) lanes: Lanes,
    pub(super) shutdown: Shutdown,
    /// What the edge is told of maintenance.
    pub(super) told: watch::Receiver<Told>,
    /// Tells what lasts that it is to end.
    pub(super) lasting: watch::Sender<bool>,
    /// For whom comes over HTTP/3.
    pub(super) http3: Option<CoreEndpoint>,
    /// For whom comes over TLS.
    pub(super) tls: Option<Arc<Certificates>>,
}

/// What one core accepts on.
#[derive(Debug)]
pub(super) struct CoreSockets {
    pub(super) plain: TcpListener,
    pub(super) secure: Option<TcpListener>,
}

/// The same, registered with the core's runtime.
struct Listeners {
    plain: tokio::net::TcpListener,
    secure: Option<tokio::net::TcpListener>,
}

impl Listeners {
    /// The next connection, and whether it comes over TLS.
    async fn accept(&self) -> (io::Result<(TcpStream, SocketAddr)>, bool) {
        let secure = async {
            match &self.secure {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        // Not biased: neither may keep the other waiting.
        tokio::select! {
            accepted = self.plain.accept() => (accepted, false),
            accepted = secure => (accepted, true),
        }
    }
}

impl CoreSetup {
    /// Starts the thread. It holds `alive` until it ends.
    pub(super) fn start(
        self,
        number: usize,
        sockets: CoreSockets,
        alive: mpsc::Sender<()>,
    ) -> io::Result<thread::JoinHandle<()>> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listeners = {
            let _entered = runtime.enter();
            let secure = sockets.secure.map(tokio::net::TcpListener::from_std);
            Listeners {
                plain: tokio::net::TcpListener::from_std(sockets.plain)?,
                secure: secure.transpose()?,
            }
        };
        thread::Builder::new()
            .name(format!("edge-core-{number}"))
            .spawn(move || {
                let _alive = alive;
                runtime.block_on(self.run(listeners));
            })
    }

    async fn run(mut self, listeners: Listeners) {
        let (drain, draining) = watch::channel(false);
        let turns = Turns::default();
        let mut core = self.core(&turns, Arc::new(self.lane()));
        let mut http3 = self.http3.take().map(|endpoint| {
            let (edge, caps) = (Arc::clone(&self.edge), Arc::clone(&self.caps));
            tokio::spawn(endpoint.run(edge, caps, self.limits, (draining, turns.clone())))
        });
        tokio::spawn(turn::follow(turns.clone(), self.told.clone()));
        let lasting = std::mem::replace(&mut self.lasting, watch::Sender::new(false));
        let (told, shutdown) = (self.told.clone(), self.shutdown.clone());
        tokio::spawn(turn::end_what_lasts(lasting, told, shutdown));
        forward::count_idle_in(&self.edge.tally);
        tokio::spawn(keep_flushing(Arc::clone(&self.edge.log)));
        let mut connections = JoinSet::new();
        self.accept(
            &listeners,
            (&mut core, &turns),
            &mut connections,
            self.shutdown.requested(),
        )
        .await;
        turns.end();
        drain.send_replace(true);
        // What the kernel has accepted already would be reset with the socket.
        let grace = sleep(DRAIN_GRACE);
        self.accept(&listeners, (&mut core, &turns), &mut connections, grace)
            .await;
        drop(listeners);
        let rest = async {
            while let Some(ended) = connections.join_next().await {
                log_panic(ended)
            }
            if let Some(http3) = &mut http3 {
                log_panic(http3.await);
            }
        };
        if timeout(self.limits.drain_deadline, rest).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "connections cut at the end of the drain"
            );
            // What they carried has lines yet to be written, by its tasks as they go.
            if let Some(http3) = &http3 {
                http3.abort();
            }
            connections.shutdown().await;
            sleep(CUT_GRACE).await;
        }
        self.edge.log.end().await;
    }

    /// Accepts until `end`.
    async fn accept(
        &self,
        listeners: &Listeners,
        (core, turns): (&mut Arc<Core>, &Turns),
        connections: &mut JoinSet<()>,
        end: impl Future<Output = ()>,
    ) {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                biased;
                () = &mut end => return,
                Some(ended) = connections.join_next(), if !connections.is_empty() => log_panic(ended),
                (accepted, secure) = listeners.accept() => match accepted {
                    Ok((socket, peer)) => {
                        self.keep_to_turn(core, turns);
                        self.admit(core, connections, (socket, peer), secure);
                    }
                    Err(error) => self.pause(&error).await,
                },
            }
        }
    }

    /// What the connections of this turn share.
    fn core(&self, turns: &Turns, proxy: Arc<pingora_proxy::HttpProxy<Lane>>) -> Arc<Core> {
        let turn = turns.current();
        Arc::new(Core {
            edge: Arc::clone(&self.edge),
            proxy,
            limits: self.limits,
            pingora_only: self.lanes == Lanes::Pingora,
            lane: lane::Lane::new(self.lanes == Lanes::All),
            draining: turn.over,
            ends: turn.ends,
        })
    }

    /// Whoever comes now belongs to the turn that is now; what the core remembers of answers goes with the one before.
    fn keep_to_turn(&self, core: &mut Arc<Core>, turns: &Turns) {
        if *core.draining.borrow() && !self.shutdown.is_requested() {
            let proxy = Arc::clone(&core.proxy);
            *core = self.core(turns, proxy);
        }
    }

    fn lane(&self) -> pingora_proxy::HttpProxy<Lane> {
        http_proxy(
            &Arc::new(ServerConf::default()),
            Lane(Arc::clone(&self.edge)),
        )
    }

    fn admit(
        &self,
        core: &Arc<Core>,
        connections: &mut JoinSet<()>,
        (socket, peer): (TcpStream, SocketAddr),
        secure: bool,
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
        let tls = self.tls.as_ref().filter(|_| secure).map(Arc::clone);
        connections.spawn(async move {
            let _held = (permit, open);
            serve(core, socket, peer, tls).await;
        });
    }

    async fn pause(&self, error: &io::Error) {
        self.edge.metrics.accepts_failed.inc();
        tracing::warn!(error = error as &dyn std::error::Error, "accept failed");
        sleep(ACCEPT_PAUSE).await;
    }
}

/// Hands lines of the access log over before they are old, until the core ends.
async fn keep_flushing(log: Arc<CoreLog>) {
    loop {
        sleep(LOG_FLUSH).await;
        log.flush();
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
