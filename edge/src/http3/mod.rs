//! HTTP/3 (RFC 9114) over quinn: the same answers, over QUIC.
//!
//! `endpoint` admits connections, `connection` takes their requests, `stream` reads one and `exchange`
//! writes its response through [`crate::exchange::respond`], in the order that `priority` gives. [`helix_framing::http3`] and
//! [`helix_framing::qpack`] read every byte a client sends. `socket` and `connection_id` bring packets to the core and process they are for.
//!
//! Not offered: server push, datagrams, early data, a dynamic table, extended CONNECT.

mod connection;
mod connection_id;
mod endpoint;
mod exchange;
mod priority;
mod socket;
mod stream;

use helix_framing::http3::Code;
use quinn::VarInt;

pub use connection_id::{CONNECTION_ID_BYTES, ConnectionIds, ProcessTag, Reader};
pub(crate) use endpoint::CoreEndpoint;
pub use endpoint::{Http3, Http3Error};
pub use socket::{Letter, Post};

/// An error code as QUIC takes it.
const fn code(code: Code) -> VarInt {
    VarInt::from_u32(code.number())
}
