//! What every request of this edge shares, on one core.

use std::sync::Arc;

use helix_service::shutdown::Shutdown;
use http::HeaderValue;

use crate::access_log::CoreLog;
use crate::forward::Upstreams;
use crate::limits::Limits;
use crate::listener::Lanes;
use crate::metrics::Metrics;
use crate::table::Table;
use crate::tally::Tally;

/// One edge, as the requests of one of its cores see it.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Hosts, sites, releases.
    pub table: Arc<Table>,
    /// Servers that requests are sent on to.
    pub upstreams: Arc<Upstreams>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What this core counts.
    pub tally: Arc<Tally>,
    /// Where this core writes a line for each request.
    pub log: Arc<CoreLog>,
    /// Which ways a request may take.
    pub lanes: Lanes,
    /// While asked for, what is in flight may end and what lasts is told to.
    pub shutdown: Shutdown,
    /// What clients may use up.
    pub limits: Limits,
    /// Value of `Alt-Svc`: where the same is served over HTTP/3 (RFC 7838), if it is.
    pub alt_svc: Option<HeaderValue>,
    /// Value of `x-helix-edge`.
    pub edge: HeaderValue,
    /// Value of `x-helix-region`.
    pub region: HeaderValue,
}
