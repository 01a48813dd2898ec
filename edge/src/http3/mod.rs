//! HTTP/3 (RFC 9114) over quinn: the same answers, over QUIC.
//!
//! `endpoint` admits connections, `connection` takes their requests, `stream` reads one and `exchange`
//! writes its response through [`crate::exchange::respond`], in the order that `priority` gives. `frames`, `control`, `head` and
//! [`helix_framing::qpack`] are pure and read every byte a client sends; they are as strict as [`helix_framing`], which is why they
//! are the edge's own. `socket` and `connection_id` bring packets to the core and process they are for.
//!
//! Not offered: server push, datagrams, early data, a dynamic table, extended CONNECT.

mod code;
mod connection;
mod connection_id;
mod control;
mod endpoint;
mod exchange;
mod frames;
mod head;
mod priority;
mod socket;
mod stream;

pub use connection_id::{CONNECTION_ID_BYTES, ConnectionIds, ProcessTag, Reader};
pub(crate) use endpoint::CoreEndpoint;
pub use endpoint::{Http3, Http3Error};
pub use socket::{Letter, Post};
