//! HTTP/3 as far as it is bytes (RFC 9114): frames and unidirectional streams, and what the fields of a request say.
//!
//! Pure. Whose streams they are, and what becomes of them, is for whoever owns the connection.

mod code;
mod control;
mod frames;
mod head;

pub use code::Code;
pub use control::{NOTHING, Unidirectional, Verdict, goaway, opening};
pub use frames::{DATA, FrameError, Frames, HEADERS, Part, put_variable, variable};
pub use head::{Head, HeadBuilder, trailer};
