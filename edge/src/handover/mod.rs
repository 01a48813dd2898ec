//! An edge gives its sockets to its successor: another process of the same edge, usually of a newer version.
//!
//! ```text
//! successor                         predecessor
//!     │── take ────────────────────────▶│  stops following records; serves on
//!     │◀─────────────────── sockets ────│
//!     │  reads state, prepares, serves  │
//!     │── serving ─────────────────────▶│  drains, and ends
//!     │── packets of old connections ──▶│
//! ```
//!
//! The sockets are the same ones in both processes, so nothing that waits in them is lost, whoever accepts it.
//! Only one of the two follows records and writes to disk at any time. A successor that fails before it serves
//! leaves everything as it was: the predecessor follows its records again.
//! It does not start the successor; whoever runs the edge does.

mod give;
mod take;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use give::{Giver, MAX_WAITING_STAGES, Packet, Stage};
pub use take::{Packets, Taken, take};

/// Name of the socket in the edge's data folder.
const FILE: &str = "handover.sock";

/// Most sockets that are handed over: three per core, and the admin's.
const MAX_SOCKETS: usize = 253;

/// Where an edge with this data folder hands its sockets over.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Plain HTTP.
    Plain,
    /// TLS.
    Secure,
    /// QUIC.
    Quic,
    /// The admin address.
    Admin,
}

/// A socket that is handed over.
#[derive(Debug)]
pub struct Handed {
    /// What it is for.
    pub purpose: Purpose,
    /// The socket, open in both processes.
    pub socket: OwnedFd,
}

/// A handover that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The socket in the data folder cannot be used.
    #[error("open the handover socket {}", path.display())]
    Open {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The other process is gone, or says nothing.
    #[error("talk to the other process")]
    Talk(#[from] io::Error),
    /// The other process says something else than it should.
    #[error("the other process said {said:?} instead of {expected}")]
    Unexpected {
        /// What came, as far as it is text.
        said: String,
        /// What should have come.
        expected: &'static str,
    },
    /// Its sockets are not those it named.
    #[error("the predecessor named {named} sockets and sent {sent}")]
    Count {
        /// How many it named.
        named: usize,
        /// How many came.
        sent: usize,
    },
}
