//! Files of a release: from the file that a request means to what is sent of it.
//!
//! Pure. Which representation, whether the client has it already, which part of it, and with which fields.
//! Which file a path means is decided in [`helix_routing::routes`]; bytes are read and written elsewhere.

mod beside;
mod client;
mod digest;
mod negotiation;
mod serve;

pub use beside::goes_beside;
pub use negotiation::choose;
pub use serve::{StaticFile, serve};
