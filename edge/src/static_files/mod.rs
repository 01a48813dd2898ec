//! Files of a release: from a request's path to a file, and from a file to response headers.
//!
//! Pure. Lookup is exact, in the release's index, after one percent-decode; no file path is ever built
//! from a URL. Bytes are read and written elsewhere.

mod conditional;
mod find;
mod path;

pub use conditional::matches;
pub use find::{Found, find};
pub use path::{BadPath, decode};
