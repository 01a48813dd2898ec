//! The gates that nobody declares: artifact, certificate, upstream.

use futures_util::future::join_all;
use helix_routing::gate::result::{GateKind, GateResult, Verdict, evidence};
use helix_routing::gate::watch::Outcome;
use helix_routing::gate::{ARTIFACT, CERTIFICATE, UPSTREAM_TIMING};
use helix_routing::host::HostPattern;
use helix_routing::routes::{HttpsPolicy, Upstream};

use super::drive::Probed;
use super::servers::Question;
use super::{Subject, servers};
use crate::edge::Edge;
use crate::forward::Servers;
use crate::tls::Certificates;

/// Most hosts without a certificate that are named.
const MAX_NAMED: usize = 5;

fn result(gate: &str, kind: GateKind, verdict: Verdict, reason: Option<String>) -> GateResult {
    GateResult {
        gate: gate.to_owned(),
        kind,
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
    result(ARTIFACT, GateKind::Artifact, Verdict::Pass, None)
}

/// The same of one that could not be made ready, with what prevented it.
pub(crate) fn unready(verdict: Verdict, reason: &str) -> GateResult {
    let reason = Some(evidence(reason));
    result(ARTIFACT, GateKind::Artifact, verdict, reason)
}

/// Each host that this release sends visitors to TLS on has to have a certificate. A release that does not is served
/// without one as it was before, which is worth a word.
pub(super) fn certificate(
    edge: &Edge,
    certificates: &Certificates,
    subject: &Subject,
) -> GateResult {
    let hosts = edge.table.hosts_of(&subject.site);
    let missing: Vec<_> = hosts
        .iter()
        .filter(|host| !is_covered(certificates, host))
        .map(ToString::to_string)
        .collect();
    let named = |list: &[String]| {
        let more = list.len().saturating_sub(MAX_NAMED);
        let names = list[..list.len().min(MAX_NAMED)].join(", ");
        if more > 0 {
            format!("{names} and {more} more")
        } else {
            names
        }
    };
    let is_needed = subject.release.routes.https == HttpsPolicy::Redirect;
    let (verdict, reason) = match (missing.as_slice(), is_needed) {
        ([], _) => (Verdict::Pass, None),
        (missing, true) => {
            let problem = format!(
                "no certificate covers {}, where this release sends visitors to TLS",
                named(missing)
            );
            (Verdict::Fail, Some(problem))
        }
        (missing, false) => {
            let remark = format!(
                "no certificate covers {}, served without TLS",
                named(missing)
            );
            (Verdict::Pass, Some(remark))
        }
    };
    result(CERTIFICATE, GateKind::Certificate, verdict, reason)
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
    let limit = UPSTREAM_TIMING.timeout;
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
