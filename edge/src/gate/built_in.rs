//! The gates that nobody declares: artifact, certificate, upstream.

use futures_util::future::join_all;
use helix_routing::gate::result::{GateKind, GateResult, evidence};
use helix_routing::gate::watch::Outcome;
use helix_routing::gate::{ARTIFACT, BUILT_IN_TIMING};
use helix_routing::host::HostPattern;
use helix_routing::routes::{HttpsPolicy, Upstream};
use helix_routing::verdict::Verdict;

use super::drive::Probed;
use super::servers::Question;
use super::{Subject, servers};
use crate::edge::Edge;
use crate::forward::Servers;
use crate::tls::Certificates;

/// Most hosts without a certificate that are named.
const MAX_NAMED: usize = 5;

fn verified(verdict: Verdict, reason: Option<String>) -> GateResult {
    GateResult {
        gate: ARTIFACT.to_owned(),
        kind: GateKind::Artifact,
        verdict,
        asked: String::new(),
        status: None,
        body: None,
        reason,
        probes: 0,
        elapsed_ms: 0,
        last_probe: None,
    }
}

/// A release that is here was verified, or it would not be.
pub(super) fn artifact() -> GateResult {
    verified(Verdict::Pass, None)
}

/// The same of one that could not be made ready, with what prevented it.
pub(crate) fn unready(verdict: Verdict, reason: &str) -> GateResult {
    verified(verdict, Some(evidence(reason)))
}

/// Whether each host that this release sends visitors to TLS on has a certificate. One that a release does not is served
/// without, as it was before, which is worth a word.
pub(super) fn covered(edge: &Edge, certificates: &Certificates, subject: &Subject) -> Probed {
    let hosts = edge.table.hosts_of(&subject.site);
    let missing: Vec<_> = hosts
        .iter()
        .filter(|host| !is_covered(certificates, host))
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        return Probed::good("");
    }
    let more = missing.len().saturating_sub(MAX_NAMED);
    let mut names = missing[..missing.len() - more].join(", ");
    if more > 0 {
        names.push_str(&format!(" and {more} more"));
    }
    match subject.release.routes.https {
        HttpsPolicy::Redirect => {
            let problem = "where this release sends visitors to TLS";
            Probed::bad("", &format!("no certificate covers {names}, {problem}"))
        }
        HttpsPolicy::Optional => {
            let remark = format!("no certificate covers {names}, served without TLS");
            Probed::good("").remarking(&remark)
        }
    }
}

fn is_covered(certificates: &Certificates, host: &HostPattern) -> bool {
    match host {
        HostPattern::Exact(host) => certificates.find(Some(host.as_str())).is_some(),
        // A certificate for one of its hosts is one for all of them.
        HostPattern::Wildcard(suffix) => {
            let any = format!("any.{suffix}");
            certificates.find(Some(&any)).is_some()
        }
    }
}

/// Whether of each upstream at least one server takes connections.
pub(super) async fn reachable(edge: &Edge, subject: &Subject) -> Probed {
    let upstreams = &subject.release.routes.upstreams;
    let asking = upstreams
        .iter()
        .map(|(name, upstream)| one_of(edge, subject, name, upstream));
    let mut all = join_all(asking).await;
    let worst = all
        .iter()
        .position(|probed| probed.outcome != Outcome::Good);
    match worst {
        Some(worst) => all.swap_remove(worst),
        None => {
            let names: Vec<_> = upstreams.keys().map(String::as_str).collect();
            Probed::good(names.join(", "))
        }
    }
}

async fn one_of(edge: &Edge, subject: &Subject, name: &str, upstream: &Upstream) -> Probed {
    let found = servers::of(edge, &subject.site, Some(upstream)).await;
    let mut probed = match found {
        Ok(servers) => any(&servers).await,
        Err(probed) => probed,
    };
    let reason = probed.reason.take();
    probed.reason = reason.map(|reason| evidence(&format!("of upstream {name} {reason}")));
    probed
}

/// The first server that takes a connection, or what kept the last of them from it.
async fn any(servers: &Servers) -> Probed {
    let limit = BUILT_IN_TIMING.timeout;
    let asking = servers
        .iter()
        .map(|server| Question::Connect.put(servers, server, limit));
    let mut all = join_all(asking).await;
    let good = all
        .iter()
        .position(|probed| probed.outcome == Outcome::Good);
    match (good, all.len()) {
        (_, 0) => Probed::error("", "has no server"),
        (Some(good), _) => all.swap_remove(good),
        (None, _) => all.swap_remove(0),
    }
}
