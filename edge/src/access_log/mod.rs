//! One line for each request, written when its response has ended, with what was really sent.
//!
//! ```text
//! request ──▶ line in the core's page ──full, or a second old──▶ queue ──▶ one thread ──▶ file
//! ```
//!
//! A core never waits for a disk ([`page`]): lines that the thread cannot keep up with are lost, and counted. A line is
//! formatted where it is said ([`line`]). Heads that were refused have one too, without what they asked for: it could
//! not be read.

mod config;
mod line;
mod page;
mod text;
mod wall;
mod writer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;
use std::{io, thread};

use helix_framing::Refusal;
use helix_routing::id::{EdgeId, RegionId};
use prometheus::IntCounter;

pub use self::config::{AccessLogConfig, Format};
pub use self::line::{Form, Line, Said, Served, Told};
use self::page::PAUSE;
pub use self::page::{CoreLog, Pages};
use self::writer::{Order, Shared, Writer};
use crate::edge::Edge;
use crate::exchange::Protocol;
use crate::limits::{LOG_DRAIN, LOG_PAGES_WAITING};

/// The access log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("open the access log {}", path.as_ref().map_or_else(|| "on standard output".into(), |path| path.display().to_string()))]
pub struct OpenError {
    path: Option<PathBuf>,
    #[source]
    source: io::Error,
}

/// The access log of one listener. Ends when the last core that writes to it has ended.
#[derive(Debug)]
pub struct AccessLog(Option<Open>);

#[derive(Debug)]
struct Open {
    form: Arc<Form>,
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
}

impl AccessLog {
    /// Opens the file and starts the thread. `lost` counts lines that nobody will read.
    ///
    /// # Errors
    /// When there is no writing to the file.
    pub fn open(
        config: &AccessLogConfig,
        (edge, region): (&EdgeId, &RegionId),
        lost: IntCounter,
    ) -> Result<Self, OpenError> {
        if config.format == Format::Off {
            return Ok(Self(None));
        }
        let path = config.path.clone();
        let failed = |source| OpenError {
            path: path.clone(),
            source,
        };
        let shared = Arc::new(Shared::new(lost));
        let writer = Writer::open(path.clone(), Arc::clone(&shared)).map_err(failed)?;
        let (orders, inbox) = sync_channel(LOG_PAGES_WAITING);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(failed)?;
        let form = Form::new(config.format, edge.as_str(), region.as_str());
        Ok(Self(Some(Open {
            form: Arc::new(form),
            orders,
            shared,
        })))
    }

    /// For one more core.
    #[must_use]
    pub fn core(&self) -> CoreLog {
        match &self.0 {
            None => CoreLog::off(),
            Some(Open {
                form,
                orders,
                shared,
            }) => CoreLog::new(Arc::clone(form), orders.clone(), Arc::clone(shared)),
        }
    }

    /// Waits until what was handed over has been written, though not for long.
    pub fn close(self) {
        let Some(open) = self.0 else { return };
        let deadline = Instant::now() + LOG_DRAIN;
        open.shared.end_by(deadline);
        let (told, ended) = sync_channel(1);
        let mut order = Order::End(told);
        while let Err(std::sync::mpsc::TrySendError::Full(back)) = open.orders.try_send(order) {
            if Instant::now() > deadline {
                return;
            }
            order = back;
            thread::park_timeout(PAUSE);
        }
        // Late: the writer is left to its disk.
        let _ = ended.recv_timeout(2 * LOG_DRAIN);
    }
}

/// Counts a finished request and writes its line, if lines are wanted.
pub fn record(edge: &Edge, line: &Line<'_>) {
    if let Told::Now(served) = &line.served {
        edge.tally
            .finished(served.protocol, served.status, served.bytes, line.took);
    }
    if let Some(mut pages) = edge.log.pages() {
        pages.write(line);
    }
}

/// Writes the line of a refused head, if lines are wanted, and counts it among the requests. The client has been `sent` its status and a
/// body of so many bytes, or nothing.
pub fn record_refused(
    edge: &Edge,
    protocol: Protocol,
    peer: SocketAddr,
    started: Instant,
    refusal: Refusal,
    sent: Option<u64>,
) {
    let error = refusal.to_string();
    let mut served = Served::refused(protocol, refusal);
    match sent {
        Some(bytes) => served.bytes = bytes,
        None => served.status = None,
    }
    let at = Instant::now();
    let line = Line {
        peer,
        at,
        took: at.duration_since(started),
        served: Told::Now(served),
        said: Said::default(),
        cache: "",
        upstream: None,
        error: &error,
    };
    record(edge, &line);
}
