//! Which requests are sent on to a server, and which servers there are.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// Servers that answer alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// `http://` or `https://`, host and port of each.
    pub addresses: Vec<String>,
}

/// Requests that are sent on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Path that the request's must be, or, if it ends with `/*`, lie below.
    pub path: String,
    /// Name of the upstream.
    pub upstream: String,
    /// Whether responses may be kept and used again (RFC 9111).
    #[serde(default)]
    pub cache: bool,
}
