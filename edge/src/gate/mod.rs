//! Gates of a release, asked on this edge: before it may be reported as prepared, and when somebody asks for it by hand.
//!
//! What is asked and when enough was seen is decided in [`helix_routing::gate`]; here is what asks. All gates of a release
//! run side by side, each driven by [`drive`]: [`itself`] asks the release as a visitor would, through the code that answers
//! visitors; [`servers`] and [`grpc`] ask upstreams; [`exec`] is the seam to what runs commands; [`built_in`] holds the gates
//! that nobody declares. Invariant: no gate connects to an address that `forward` did not permit, none is logged or counted as
//! a request, and each ends by its deadline.

mod built_in;
mod drive;
pub mod exec;
mod grpc;
mod health;
mod itself;
mod judge;
mod servers;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use helix_routing::gate::result::{GateKind, GateResult};
use helix_routing::gate::{self, Ask, BUILT_IN_TIMING, Gate, Spread, Timing};
use helix_routing::id::SiteId;
use helix_routing::verdict::Verdict;
use tokio::sync::Semaphore;

pub(crate) use self::built_in::unready;
use self::drive::{Probed, drive};
use self::exec::Runtime;
use self::itself::Itself;
use self::judge::Judge;
use self::servers::Question;
use crate::edge::Edge;
use crate::release::Release;
use crate::tls::Certificates;

/// Probes under way at once on one edge; each may hold a connection to every server of an upstream.
const MAX_PROBES: usize = 128;

/// The release whose gates are run.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The site it is of.
    pub site: SiteId,
    /// The release, ready.
    pub release: Arc<Release>,
}

/// Which gates, and how long.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The only one, by its name; all of them without.
    pub only: Option<String>,
    /// The release was live here before: a good answer of each will do, and that a server is away at the moment must not
    /// keep it from coming back.
    pub returns: bool,
}

/// What gates are asked with.
#[derive(Debug)]
pub struct Asker {
    edge: Arc<Edge>,
    certificates: Option<Arc<Certificates>>,
    runtime: Arc<dyn Runtime>,
    probes: Semaphore,
}

impl Asker {
    /// Asks through what `edge` serves requests with. `certificates` are there where it speaks TLS.
    #[must_use]
    pub fn new(
        edge: Arc<Edge>,
        certificates: Option<Arc<Certificates>>,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        Self {
            edge,
            certificates,
            runtime,
            probes: Semaphore::new(MAX_PROBES),
        }
    }

    /// What requests are served with.
    pub(crate) const fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// Runs the gates of a release, the built-in ones first in what is returned.
    pub async fn run(&self, subject: &Subject, scope: &Scope) -> Vec<GateResult> {
        let wanted = |name: &str| scope.only.as_deref().is_none_or(|only| only == name);
        let mut results = Vec::new();
        if wanted(gate::ARTIFACT) {
            results.push(built_in::artifact());
        }
        let mut running: Vec<BoxFuture<'_, GateResult>> = Vec::new();
        if let Some(certificates) = &self.certificates
            && wanted(gate::CERTIFICATE)
        {
            running.push(self.certificate(certificates, subject).boxed());
        }
        let has_upstreams = !subject.release.routes.upstreams.is_empty();
        if has_upstreams && !scope.returns && wanted(gate::UPSTREAM) {
            running.push(self.upstream(subject).boxed());
        }
        for gate in &subject.release.routes.gates {
            if wanted(&gate.name) {
                running.push(self.declared(subject, gate, scope.returns).boxed());
            }
        }
        results.extend(join_all(running).await);
        for result in &results {
            tell(subject, result);
        }
        results
    }

    async fn certificate(&self, certificates: &Certificates, subject: &Subject) -> GateResult {
        let probe = || std::future::ready(built_in::covered(&self.edge, certificates, subject));
        let ended = drive(BUILT_IN_TIMING, Spread::none(), probe).await;
        ended.result(gate::CERTIFICATE, GateKind::Certificate)
    }

    async fn upstream(&self, subject: &Subject) -> GateResult {
        let probe = || self.permitted(built_in::reachable(&self.edge, subject));
        let spread = spread(subject, &BUILT_IN_TIMING);
        let ended = drive(BUILT_IN_TIMING, spread, probe).await;
        ended.result(gate::UPSTREAM, GateKind::Upstream)
    }

    async fn declared(&self, subject: &Subject, gate: &Gate, returns: bool) -> GateResult {
        let (timing, spread) = if returns {
            let brief = gate.timing.brief();
            (brief, spread(subject, &brief).at_once())
        } else {
            (gate.timing, spread(subject, &gate.timing))
        };
        let probe = || self.permitted(self.ask(subject, gate));
        let kind = match &gate.ask {
            Ask::Http(_) => GateKind::Http,
            Ask::Tcp { .. } => GateKind::Tcp,
            Ask::Grpc { .. } => GateKind::Grpc,
            Ask::Exec { .. } => GateKind::Exec,
        };
        drive(timing, spread, probe).await.result(&gate.name, kind)
    }

    /// One probe of a declared gate.
    async fn ask(&self, subject: &Subject, gate: &Gate) -> Probed {
        let limit = gate.timing.timeout;
        let named = |upstream: &str| subject.release.routes.upstreams.get(upstream);
        match &gate.ask {
            Ask::Exec { command } => exec::ask(&*self.runtime, command, limit).await,
            Ask::Tcp { upstream } => {
                let asked = servers::of(&self.edge, &subject.site, named(upstream)).await;
                servers::each(asked, limit, Question::Connect).await
            }
            Ask::Grpc { upstream, service } => {
                let asked = servers::of(&self.edge, &subject.site, named(upstream)).await;
                servers::each(asked, limit, Question::Check(service)).await
            }
            Ask::Http(ask) => {
                let judge = match Judge::new(ask) {
                    Ok(judge) => judge,
                    Err(impossible) => return impossible,
                };
                let Some(upstream) = &ask.upstream else {
                    let itself = Itself::new(&self.edge, subject, ask);
                    return itself.ask(&judge, limit).await;
                };
                let asked = servers::of(&self.edge, &subject.site, named(upstream)).await;
                servers::each(asked, limit, Question::Get(ask, &judge)).await
            }
        }
    }

    /// Waits for a place among the probes under way. How long is the watch's matter.
    async fn permitted(&self, probe: impl Future<Output = Probed>) -> Probed {
        let _permit = self.probes.acquire().await;
        probe.await
    }
}

/// How the probes of this run are kept out of step with those of other edges. A release without upstreams asks none.
fn spread(subject: &Subject, timing: &Timing) -> Spread {
    if subject.release.routes.upstreams.is_empty() {
        Spread::none()
    } else {
        Spread::of(timing, rand::random())
    }
}

/// The first gate that a release did not pass, in one line, and how many more there are.
#[must_use]
pub fn failure(results: &[GateResult]) -> Option<String> {
    let mut others = results.iter().filter(|result| !result.is_passed());
    let first = others.next()?;
    Some(match others.count() {
        0 => first.to_string(),
        1 => format!("{first}; and one more gate"),
        more => format!("{first}; and {more} more gates"),
    })
}

fn tell(subject: &Subject, result: &GateResult) {
    let (site, release) = (&subject.site, &subject.release.id);
    match result.verdict {
        Verdict::Pass => {
            tracing::info!(site = %site, release.id = %release, gate = result.gate, to = "pass", "gate");
        }
        Verdict::Fail | Verdict::Inconclusive | Verdict::Error => {
            tracing::warn!(site = %site, release.id = %release, gate = result.gate, to = %result.verdict, evidence = %result, "gate");
        }
    }
}
