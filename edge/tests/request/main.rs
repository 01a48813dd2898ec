//! The request story over real sockets: a listener on a free port, a table made by hand, raw bytes in.

mod admin;
mod framing;
mod http2;
mod limits;
mod serving;
mod support;
