//! Gates: what a release has to show on every edge before it may go live there.
//!
//! Pure. [`config`] reads a gate as a site writes it and makes of it the [`Gate`] that a release carries; [`watch`] is
//! the machine of one gate, [`Spread`] keeps those of many edges out of step, [`result`] what came of it. [`record`] carries a run by hand to the edges, [`report`] what they
//! found, [`view`] shows it. Who asks, and over what, is the edge's matter.

mod answer;
mod config;
pub mod record;
pub mod report;
pub mod result;
mod spread;
pub mod view;
pub mod watch;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::answer::{BodyMatch, BodyTest, InvalidBodyMatch, InvalidStatus, Status};
pub use self::config::{AskKind, GateConfig, check, parse};
pub use self::spread::Spread;
use crate::host::Host;
use crate::routes::{HttpsPolicy, Routes, Span};

/// The gate that every release passes by being fetched and verified.
pub const ARTIFACT: &str = "artifact";
/// The gate of the certificates of a site's hosts.
pub const CERTIFICATE: &str = "certificate";
/// The gate of the servers that a release sends requests on to.
pub const UPSTREAM: &str = "upstream";
/// Gates that nobody declares, by their names.
pub const BUILT_IN: [&str; 3] = [ARTIFACT, CERTIFICATE, UPSTREAM];

/// Most bytes of a response's body that a gate looks at: a health page is short, and what a pattern costs grows with them.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The built-in gates that may have to wait: a server that starts beside its release is there within seconds, and so is a
/// certificate that was just made.
pub const BUILT_IN_TIMING: Timing = Timing {
    interval: Span::from_secs(1),
    timeout: Span::from_secs(2),
    rise: 1,
    fall: None,
    initial_delay: Span::from_secs(0),
    deadline: Span::from_secs(10),
};

/// One gate of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Its name, of its own within the release.
    pub name: String,
    /// What is asked, and what has to be answered.
    pub ask: Ask,
    /// How often, and for how long.
    pub timing: Timing,
}

/// What a gate asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// A request, of the release itself or of every server of an upstream.
    Http(HttpAsk),
    /// A connection to every server of an upstream.
    Tcp {
        /// Name of the upstream.
        upstream: String,
    },
    /// `grpc.health.v1.Health/Check` of every server of an upstream.
    Grpc {
        /// Name of the upstream.
        upstream: String,
        /// The service asked about; empty for the server as a whole.
        service: String,
    },
    /// A command, which has to end with 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// A request, and which answers are good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpAsk {
    /// Name of the upstream whose servers are asked; none asks the release as a visitor would.
    pub upstream: Option<String>,
    /// Path and query.
    pub path: String,
    /// `Host`; none takes the site's own, or what the upstream is sent otherwise.
    pub host: Option<Host>,
    /// Further fields, by name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The good ones.
    pub status: Vec<Status>,
    /// What the body has to hold.
    pub body: Option<BodyMatch>,
}

/// When a gate asks, and when it has seen enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// From the start of one probe to the start of the next.
    pub interval: Span,
    /// How long one answer may take.
    pub timeout: Span,
    /// Good answers in a row that pass the gate.
    pub rise: u32,
    /// Other answers in a row that end it before its deadline.
    pub fall: Option<u32>,
    /// Before the first probe.
    pub initial_delay: Span,
    /// From the first probe to the end.
    pub deadline: Span,
}

impl Timing {
    /// How long a gate may take in all.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        self.initial_delay
            .duration()
            .saturating_add(self.deadline.duration())
    }

    /// For a release that has passed here before: one good answer will do.
    #[must_use]
    pub const fn brief(self) -> Self {
        Self { rise: 1, ..self }
    }
}

impl Gate {
    /// The upstream whose servers it asks.
    #[must_use]
    pub fn upstream(&self) -> Option<&str> {
        match &self.ask {
            Ask::Http(ask) => ask.upstream.as_deref(),
            Ask::Tcp { upstream } | Ask::Grpc { upstream, .. } => Some(upstream),
            Ask::Exec { .. } => None,
        }
    }
}

/// How long the gates of a release may take, which are all asked side by side: what a prepare deadline has to allow for.
#[must_use]
pub fn patience(routes: &Routes) -> Duration {
    let declared = routes.gates.iter().map(|gate| gate.timing.patience());
    let waits = !routes.upstreams.is_empty() || routes.https == HttpsPolicy::Redirect;
    let built_in = waits.then(|| BUILT_IN_TIMING.patience());
    declared.chain(built_in).max().unwrap_or_default()
}

/// The names of the gates of a release that can be run, the built-in ones first.
pub fn names(routes: &Routes) -> impl Iterator<Item = &str> {
    let declared = routes.gates.iter().map(|gate| gate.name.as_str());
    BUILT_IN.into_iter().chain(declared)
}
