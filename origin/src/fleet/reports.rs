//! What edges tell origin, checked and handed on.
//!
//! Every report is hostile until the subject it came on, the account the server says it came from, its own
//! words and the list of registered edges agree. The server sets `Nats-Request-Info` for every message that
//! comes through another account's import, over whatever the sender wrote there; a message without it
//! was published by origin's own account.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt;
use helix_routing::edge::report::EdgeReport;
use helix_routing::gate::report::GatesReport;
use helix_routing::glass::{EndedReport, LocalReport};
use helix_routing::id::{EdgeId, InvalidId, RegionId};
use helix_routing::in_flight::InFlightReport;
use helix_routing::recall::HeldReport;
use helix_routing::report::{Heartbeat, PurgeReport, Refusal, SiteReport, WindowReport};
use helix_routing::wire::{Wire, WireError};
use helix_service::clock;
use helix_service::shutdown::Shutdown;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

use super::Roster;
use crate::rollout::Conductor;

/// Where every edge's reports come.
const SUBJECT: &str = "rpt.>";
const REQUEST_INFO: &str = "Nats-Request-Info";
/// How often leases and the link are looked at: well below a lease.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Wait before the subscription is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A report was not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disbelieved {
    #[error("subject {0:?} is not of the form rpt.<region>.<edge>.<kind>")]
    Subject(String),
    #[error(transparent)]
    Name(#[from] InvalidId),
    #[error(transparent)]
    Body(#[from] WireError),
    #[error("edge {edge} is not registered in region {region}")]
    Unregistered { edge: EdgeId, region: RegionId },
    #[error("the report names edge {0}")]
    OtherEdge(EdgeId),
    #[error("it came from account {0:?}")]
    Account(String),
}

/// One report, attributed.
#[derive(Debug, PartialEq, Eq)]
enum Report {
    Heartbeat(Heartbeat),
    Site(SiteReport),
    Purge(PurgeReport),
    Gates(GatesReport),
    Window(WindowReport),
    InFlight(InFlightReport),
    Edge(EdgeReport),
    Local(LocalReport),
    Ended(EndedReport),
    Held(HeldReport),
    Refusal(Refusal),
}

/// Listens until shutdown. Leases begin and end here, and site reports go to the rollout they are for.
pub async fn run(client: Client, roster: Roster, conductor: Conductor, shutdown: &Shutdown) {
    tokio::select! {
        () = shutdown.requested() => {}
        () = listen(client, roster, conductor) => {}
    }
}

async fn listen(client: Client, roster: Roster, conductor: Conductor) {
    let statistics = client.statistics();
    let mut connects = statistics.connects.load(Ordering::Relaxed);
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut messages = match client.subscribe(SUBJECT).await {
            Ok(messages) => messages,
            Err(error) => {
                tracing::warn!(%error, "subscribe to the edges' reports");
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
        };
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => accept(&roster, &conductor, &message),
                    None => break,
                },
                _ = checks.tick() => {
                    let now = clock::now();
                    let latest = statistics.connects.load(Ordering::Relaxed);
                    if latest != connects || client.connection_state() != State::Connected {
                        connects = latest;
                        roster.link_was_down(now);
                    }
                    roster.refresh(now);
                }
            }
        }
    }
}

fn accept(roster: &Roster, conductor: &Conductor, message: &Message) {
    match attribute(
        roster,
        &message.subject,
        message.headers.as_ref(),
        &message.payload,
    ) {
        Ok(Report::Heartbeat(heartbeat)) => {
            roster.note_version(conductor.store(), &heartbeat);
            roster.heartbeat(clock::now(), &heartbeat);
        }
        Ok(Report::Site(report)) => conductor.report(report),
        Ok(Report::Purge(report)) => roster.purge(report),
        Ok(Report::Gates(report)) if report.run.is_some() => roster.gate(report),
        Ok(Report::Gates(report)) => conductor.gated(report),
        Ok(Report::Window(report)) => conductor.measure(report),
        Ok(Report::InFlight(report)) => roster.flies(clock::now(), report),
        Ok(Report::Edge(report)) => roster.report(report),
        Ok(Report::Local(report)) => roster.local(report),
        Ok(Report::Ended(report)) => roster.ended_there(report),
        // It was asked for by a recovery, which is over.
        Ok(Report::Held(_)) => {}
        Ok(Report::Refusal(refusal)) => {
            tracing::warn!(
                edge = %refusal.edge, stream = refusal.stream, key = refusal.key, sequence = refusal.sequence,
                reason = refusal.reason, "edge refused a record"
            );
            roster.refusal(&refusal);
        }
        Err(error) => tracing::warn!(subject = %message.subject, %error, "report is not believed"),
    }
}

/// What an edge says it holds, if it is believed.
pub(crate) fn held(roster: &Roster, message: &Message) -> Result<HeldReport, Disbelieved> {
    let subject = &message.subject;
    match attribute(roster, subject, message.headers.as_ref(), &message.payload)? {
        Report::Held(report) => Ok(report),
        _ => Err(Disbelieved::Subject(subject.chars().take(200).collect())),
    }
}

fn attribute(
    roster: &Roster,
    subject: &str,
    headers: Option<&HeaderMap>,
    payload: &[u8],
) -> Result<Report, Disbelieved> {
    let mut parts = subject.split('.');
    let (Some("rpt"), Some(region), Some(edge), Some(kind), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return Err(Disbelieved::Subject(subject.chars().take(200).collect()));
    };
    let (region, edge): (RegionId, EdgeId) = (region.parse()?, edge.parse()?);
    if roster
        .edge(&edge)
        .is_none_or(|known| known.region != region)
    {
        return Err(Disbelieved::Unregistered { edge, region });
    }
    check_account(roster, headers, &edge)?;
    let (report, body_region, body_edge) = read(kind, payload)?
        .ok_or_else(|| Disbelieved::Subject(subject.chars().take(200).collect()))?;
    if body_edge != edge || body_region != region {
        return Err(Disbelieved::OtherEdge(body_edge));
    }
    Ok(report)
}

/// A report of this kind, with the region and the edge that it names; none when there is no such kind.
fn read(kind: &str, payload: &[u8]) -> Result<Option<(Report, RegionId, EdgeId)>, Disbelieved> {
    let read = match kind {
        "heartbeat" => {
            let heartbeat = Heartbeat::decode(payload)?;
            let named = (heartbeat.region.clone(), heartbeat.edge.clone());
            (Report::Heartbeat(heartbeat), named.0, named.1)
        }
        "site" => {
            let report = SiteReport::decode(payload)?;
            let named = (report.region.clone(), report.edge.clone());
            (Report::Site(report), named.0, named.1)
        }
        "purge" => {
            let report = PurgeReport::decode(payload)?;
            let named = (report.region.clone(), report.edge.clone());
            (Report::Purge(report), named.0, named.1)
        }
        "gates" => {
            let report = GatesReport::decode(payload)?;
            let named = (report.region.clone(), report.edge.clone());
            (Report::Gates(report), named.0, named.1)
        }
        "window" => {
            let report = WindowReport::decode(payload)?;
            let named = (report.region.clone(), report.edge.clone());
            (Report::Window(report), named.0, named.1)
        }
        "in-flight" => {
            let report = InFlightReport::decode(payload)?;
            let named = (report.region.clone(), report.edge.clone());
            (Report::InFlight(report), named.0, named.1)
        }
        "edge" => {
            let report = EdgeReport::decode(payload)?;
            let named = (report.region.clone(), report.edge.clone());
            (Report::Edge(report), named.0, named.1)
        }
        "held" => {
            let report = HeldReport::decode(payload)?;
            let named = (report.region.clone(), report.edge.clone());
            (Report::Held(report), named.0, named.1)
        }
        "local" => {
            let report = LocalReport::decode(payload)?;
            let named = (report.region.clone(), report.edge.clone());
            (Report::Local(report), named.0, named.1)
        }
        "ended" => {
            let report = EndedReport::decode(payload)?;
            let named = (report.region.clone(), report.edge.clone());
            (Report::Ended(report), named.0, named.1)
        }
        "refusal" => {
            let refusal = Refusal::decode(payload)?;
            let named = (refusal.region.clone(), refusal.edge.clone());
            (Report::Refusal(refusal), named.0, named.1)
        }
        _ => return Ok(None),
    };
    Ok(Some(read))
}

/// The account as the server names it has to be the edge's own.
fn check_account(
    roster: &Roster,
    headers: Option<&HeaderMap>,
    edge: &EdgeId,
) -> Result<(), Disbelieved> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(default)]
        acc: String,
    }
    let Some(info) = headers.and_then(|headers| headers.get(REQUEST_INFO)) else {
        return Ok(());
    };
    let account = serde_json::from_str::<Info>(info.as_str())
        .map(|info| info.acc)
        .unwrap_or_default();
    if roster.is_account_of(&account, edge) {
        Ok(())
    } else {
        Err(Disbelieved::Account(account))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Edge;

    fn roster() -> Roster {
        let edge = Edge {
            region: "fra".parse().unwrap(),
            edge: "fra-1".parse().unwrap(),
            url: String::new(),
        };
        Roster::new(vec![edge], clock::now())
    }

    fn refusal(region: &str, edge: &str) -> Vec<u8> {
        Refusal {
            edge: edge.parse().unwrap(),
            region: region.parse().unwrap(),
            stream: "KV_g".to_owned(),
            key: "h.00.x".to_owned(),
            sequence: 1,
            reason: "why".to_owned(),
        }
        .encode()
    }

    fn from_account(account: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_INFO, format!("{{\"acc\":\"{account}\",\"rtt\":1}}"));
        headers
    }

    #[test]
    fn a_report_counts_only_when_subject_account_body_and_registration_agree() {
        let roster = roster();
        let cases = [
            ("rpt.fra.fra-1.refusal", None, refusal("fra", "fra-1"), true),
            (
                "rpt.fra.fra-1.refusal",
                Some("EDGE_fra-1"),
                refusal("fra", "fra-1"),
                true,
            ),
            (
                "rpt.fra.fra-1.refusal",
                Some("EDGE_iad-1"),
                refusal("fra", "fra-1"),
                false,
            ),
            (
                "rpt.fra.fra-1.refusal",
                Some(""),
                refusal("fra", "fra-1"),
                false,
            ),
            (
                "rpt.fra.fra-1.refusal",
                None,
                refusal("fra", "fra-2"),
                false,
            ),
            (
                "rpt.fra.fra-1.refusal",
                None,
                refusal("iad", "fra-1"),
                false,
            ),
            (
                "rpt.iad.fra-1.refusal",
                None,
                refusal("iad", "fra-1"),
                false,
            ),
            (
                "rpt.fra.fra-9.refusal",
                None,
                refusal("fra", "fra-9"),
                false,
            ),
            ("rpt.fra.fra-1.other", None, refusal("fra", "fra-1"), false),
            (
                "rpt.fra.fra-1.refusal.x",
                None,
                refusal("fra", "fra-1"),
                false,
            ),
            (
                "rpt.fra.fra-1.heartbeat",
                None,
                refusal("fra", "fra-1"),
                false,
            ),
            ("rpt.fra.fra-1.refusal", None, b"\xff\xff".to_vec(), false),
            ("rpt.fra.fra-1.refusal", None, Vec::new(), false),
        ];
        for (subject, account, body, is_believed) in cases {
            let headers = account.map(from_account);
            let report = attribute(&roster, subject, headers.as_ref(), &body);
            assert_eq!(
                report.is_ok(),
                is_believed,
                "{subject} {account:?} {report:?}"
            );
        }
    }
}
