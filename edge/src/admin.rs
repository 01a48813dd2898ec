//! The admin address: health, readiness, metrics, and what this edge would answer and why.
//!
//! For operators and probes on a private address. It reads, but for `POST /purge`, which makes this edge forget
//! stored responses of upstreams; it changes nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use helix_framing::{Fields, Lines};
use helix_routing::glass::{Cause, LocalOverride};
use helix_routing::id::{Generation, ReleaseId, SiteId};
use helix_routing::record::Override;
use helix_routing::time::Timestamp;
use helix_service::clock;
use helix_service::shutdown::Shutdown;
use http::{Method, Uri};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::agent::glass::Desk;
use crate::answer::{Answer, Pinned, RequestHead, answer};
use crate::cache::purge::Purge;
use crate::in_flight::{InFlight, Leaving};
use crate::maintenance::Maintenance;
use crate::metrics::Metrics;
use crate::table::Table;

/// Largest order to purge, in bytes: a few names and one URL.
const MAX_ORDER_BYTES: usize = 16 * 1024;

/// What the admin address shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Hosts, sites, releases.
    pub table: Arc<Table>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Set by the agent while this edge serves what its records name.
    pub ready: Arc<AtomicBool>,
    /// Whether this edge is taken out.
    pub maintenance: Maintenance,
    /// Overrides of this edge.
    pub desk: Arc<Desk>,
}

/// Which URL is asked about.
#[derive(Debug, Deserialize)]
struct Question {
    host: String,
    path: String,
}

/// What a GET of a URL gets on this edge, and why.
#[derive(Debug, Serialize)]
struct Explanation {
    site: Option<SiteId>,
    host_rule: Option<String>,
    release: Option<ReleaseId>,
    /// Where visitors do not all get the same: what this one got, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<String>,
    generation: Option<Generation>,
    status: u16,
    file: Option<Box<str>>,
    reason: &'static str,
    /// The rule that decided, as file and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

/// What one site serves.
#[derive(Debug, Serialize)]
struct SiteView {
    site: SiteId,
    generation: Generation,
    live: Option<ReleaseId>,
    /// What is in flight on the live release, and on those it took the place of.
    in_flight: Vec<FlyingView>,
    /// Another release than the record's is served.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    overridden: Option<OverrideView>,
}

/// What is in flight on one release.
#[derive(Debug, Serialize)]
struct FlyingView {
    release: ReleaseId,
    requests: u64,
    websockets: u64,
    draining: bool,
    /// How many seconds what is in flight has; none while the release is live, and where there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<u64>,
}

/// Why another release is served.
#[derive(Debug, Serialize)]
struct OverrideView {
    /// `operator` or `guard` of this edge alone, `signed` of the region.
    cause: &'static str,
    reason: String,
    by: String,
    since: Timestamp,
    until: Timestamp,
    expired: bool,
}

impl From<LocalOverride> for OverrideView {
    fn from(local: LocalOverride) -> Self {
        Self {
            expired: local.is_expired(clock::now()),
            cause: match local.cause {
                Cause::Operator => "operator",
                Cause::Guard => "guard",
            },
            reason: local.reason,
            by: local.by,
            since: local.since,
            until: local.until,
        }
    }
}

impl From<Override> for OverrideView {
    fn from(terms: Override) -> Self {
        Self {
            expired: clock::now() >= terms.until,
            cause: "signed",
            reason: terms.reason,
            by: terms.by,
            since: terms.since,
            until: terms.until,
        }
    }
}

/// What to forget: everything stored for `site` that fits all of what is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    site: SiteId,
    /// Scheme, host, port where it is not the usual one, path and query; both schemes are meant.
    url: Option<String>,
    /// A tag or group of the response.
    tag: Option<String>,
    release: Option<ReleaseId>,
    #[serde(default)]
    mode: Mode,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// It is removed.
    #[default]
    Delete,
    /// It is kept, and asked about before its next use.
    Stale,
}

/// How many responses that were.
#[derive(Debug, Serialize)]
struct Purged {
    purged: usize,
}

/// Serves the admin address until the shutdown.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: Shutdown) -> std::io::Result<()> {
    axum::serve(listener, router(admin))
        .with_graceful_shutdown(async move { shutdown.requested().await })
        .await
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .route("/explain", get(explanation))
        .route("/sites", get(sites))
        // Only JSON is taken, which no page of another origin can send without being allowed to.
        .route("/purge", post(purge))
        .layer(DefaultBodyLimit::max(MAX_ORDER_BYTES))
        .with_state(admin)
}

async fn readiness(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.maintenance.drains() {
        (StatusCode::SERVICE_UNAVAILABLE, "drains\n")
    } else if admin.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(admin): State<Admin>) -> Result<impl IntoResponse, (StatusCode, String)> {
    let text = admin
        .metrics
        .text()
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
}

async fn explanation(
    State(admin): State<Admin>,
    Query(question): Query<Question>,
) -> Json<Explanation> {
    Json(explain(&admin.table, &question.host, &question.path))
}

async fn sites(State(admin): State<Admin>) -> Json<Vec<SiteView>> {
    let (mut standing, mut signed) = (admin.desk.standing(), admin.desk.signed());
    let mut view = |site: Arc<crate::table::Site>| {
        let serving = site.serving();
        let live = serving.live.as_ref().map(|release| release.id.clone());
        let now = live.iter().map(|live| flying(live, &serving.in_flight));
        let left = admin.table.left().of(&site.id);
        let left = left
            .iter()
            .map(|left| flying(&left.release, &left.in_flight));
        let in_flight = now.chain(left).collect();
        SiteView {
            site: SiteId::clone(&site.id),
            generation: serving.generation,
            live,
            in_flight,
            overridden: standing
                .remove(&site.id)
                .map(OverrideView::from)
                .or_else(|| signed.remove(&site.id).map(OverrideView::from)),
        }
    };
    Json(admin.table.sites().into_iter().map(&mut view).collect())
}

fn flying(release: &ReleaseId, in_flight: &InFlight) -> FlyingView {
    let load = in_flight.load();
    let leaving = in_flight.leaving();
    let until = leaving.and_then(Leaving::until);
    FlyingView {
        release: release.clone(),
        requests: load.requests,
        websockets: load.sockets,
        draining: leaving.is_some(),
        seconds_left: until.map(|until| until.saturating_duration_since(Instant::now()).as_secs()),
    }
}

async fn purge(
    State(admin): State<Admin>,
    Json(order): Json<Order>,
) -> Result<Json<Purged>, (StatusCode, String)> {
    let purge = order.purge()?;
    let store = Arc::clone(&admin.table.cache().store);
    let forgetful = Arc::clone(&store);
    // It looks at everything that is kept.
    let purged = tokio::task::spawn_blocking(move || forgetful.purge(&purge)).await;
    if let Some(disk) = store.disk() {
        // What was written before this process started is not to come back with the next one.
        disk.known().await;
    }
    purged
        .map(|purged| Json(Purged { purged }))
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}

impl Order {
    fn purge(self) -> Result<Purge, (StatusCode, String)> {
        let mut purge = Purge {
            site: Some(self.site),
            release: self.release,
            tag: self.tag,
            mark_stale: self.mode == Mode::Stale,
            ..Purge::default()
        };
        if let Some(url) = self.url {
            let refused = || {
                let why = format!("url: {url:?} is no URL with scheme and host\n");
                (StatusCode::UNPROCESSABLE_ENTITY, why)
            };
            let uri: Uri = url.parse().map_err(|_| refused())?;
            let authority = uri.authority().filter(|_| uri.scheme().is_some());
            purge.host = Some(authority.ok_or_else(refused)?.as_str().to_owned());
            let target = uri.path_and_query().map_or("/", |target| target.as_str());
            purge.target = Some(target.to_owned());
        }
        Ok(purge)
    }
}

/// Asks the same code that answers requests.
fn explain(table: &Table, host: &str, target: &str) -> Explanation {
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    let head = RequestHead {
        method: &Method::GET,
        authority: host,
        path,
        query,
        fields: Fields::Lines(Lines::none()),
        secure: false,
    };
    let answered = answer(table, &head);
    let file = match &answered.answer {
        Answer::Static(answer) => Some(answer.file.path.clone()),
        Answer::Respond(_) | Answer::Forward(_) | Answer::Guarded(_) => None,
    };
    let pinned = answered.pinned;
    Explanation {
        host_rule: pinned.as_ref().map(|pinned| pinned.rule.to_string()),
        release: pinned
            .as_ref()
            .and_then(|pinned| pinned.release.as_ref())
            .map(|release| release.id.clone()),
        side: pinned.as_ref().and_then(explain_side),
        generation: pinned.as_ref().map(|pinned| pinned.serving.generation),
        site: pinned.map(|pinned| Arc::unwrap_or_clone(pinned.site)),
        status: answered.answer.status().as_u16(),
        file,
        reason: answered.reason,
        rule: answered.line.map(|line| format!("_redirects:{line}")),
    }
}

/// Which side whoever asks without anything to show is on, why, and what others may get.
fn explain_side(pinned: &Pinned) -> Option<String> {
    let chosen = pinned.chosen.as_ref()?;
    let split = pinned.serving.split.as_ref()?;
    let mut said = format!("{}: {}", chosen.side.label(), chosen.reason);
    if let Some(canary) = &split.canary {
        let (weight, candidate) = (canary.weight, &canary.candidate.id);
        said.push_str(&format!("; {weight}% of visitors get {candidate}"));
    }
    for (pin, release) in &split.pins {
        said.push_str(&format!("; pin {} is {}", pin.label, release.id));
    }
    Some(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Release;
    use crate::table::Serving;
    use bytes::Bytes;
    use helix_routing::id::Digest;

    #[test]
    fn an_explanation_names_site_rule_release_file_and_reason() {
        let digest = Digest::from_hex(&"0".repeat(64)).unwrap();
        let files = [("index.html", "text/html", Bytes::from_static(b"hello"))];
        let release = Release::from_memory("aaaaaaaaaaaaaaaaaaaa".parse().unwrap(), digest, files);
        let table = Table::new("helix.localhost".parse().unwrap());
        let site = "shop/production".parse().unwrap();
        table.set_host(&"*.shop.example".parse().unwrap(), Some(&site));
        table.publish(
            &site,
            Serving::new(Generation(5), Some(Arc::new(release)), Vec::new()),
        );
        let shown = serde_json::to_value(explain(&table, "www.shop.example", "/?x=1")).unwrap();
        let expected = serde_json::json!({
            "site": "shop/production", "host_rule": "*.shop.example", "release": "aaaaaaaaaaaaaaaaaaaa", "generation": 5,
            "status": 200, "file": "index.html", "reason": "file",
        });
        assert_eq!(shown, expected);
        assert_eq!(explain(&table, "other.example", "/").status, 404);
    }
}
