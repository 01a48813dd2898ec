//! What the worker and the first process inside a sandbox say to one another, over the latter's standard input.
//!
//! Each message is one line of JSON. What a build is told, its secrets among it, is on no command line, and in no file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest message: a line to run and 64 KiB of variables fit many times.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Shell line.
    pub(crate) line: String,
    /// Where, inside.
    pub(crate) folder: String,
    /// All that it finds in its environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Folders below which it may write, besides those that the sandbox made.
    pub(crate) writable: Vec<String>,
    /// How the network is reached; not at all if left out.
    pub(crate) relay: Option<Relay>,
    /// What one process may use.
    pub(crate) limits: ProcessLimits,
}

/// A port on the sandbox's own loopback that leads to a socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    pub(crate) socket: String,
}

/// Limits that the kernel holds each process to.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ProcessLimits {
    /// Bytes of one file.
    pub(crate) file_bytes: u64,
    /// Bytes of memory, where no control group limits them all together.
    pub(crate) memory_bytes: Option<u64>,
    /// Processes of this user, where no control group counts them.
    pub(crate) processes: Option<u64>,
}

/// What is said back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// The sandbox stands, the line is about to run.
    Started,
    /// It ended with that code.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
}
