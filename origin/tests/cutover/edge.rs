//! An edge as origin sees one: follows the feed, verifies, reports, and answers probes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use futures_util::StreamExt;
use helix_origin::fleet;
use helix_routing::id::{BootId, EdgeId, Generation, RegionId, ReleaseId, SiteId};
use helix_routing::key::{self, Scope};
use helix_routing::record::{HostRecord, SiteRecord};
use helix_routing::report::{CandidateReport, CandidateState, Heartbeat, SiteReport};
use helix_routing::seal::KeyRole;
use helix_routing::wire::Wire;
use helix_service::keys::KeyRing;
use helix_service::{clock, random};
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    /// Follows and says nothing.
    Silent,
    /// Cannot prepare anything.
    Failing,
    /// Prepares what there is to prepare, and says nothing of what is live.
    Stuck,
}

pub(crate) struct FakeEdge {
    pub(crate) region: RegionId,
    pub(crate) edge: EdgeId,
    url: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    region: RegionId,
    edge: EdgeId,
    boot: BootId,
    ring: KeyRing,
    client: async_nats::Client,
    mood: Mutex<Mood>,
    sites: Mutex<BTreeMap<SiteId, SiteRecord>>,
    /// When each host record came.
    hosts: Mutex<BTreeMap<String, Instant>>,
    refused: Mutex<u64>,
}

impl FakeEdge {
    pub(crate) async fn start(
        client: async_nats::Client,
        ring: KeyRing,
        region: &str,
        edge: &str,
    ) -> Self {
        let shared = Arc::new(Shared {
            region: region.parse().expect("a region"),
            edge: edge.parse().expect("an edge"),
            boot: random::boot_id(),
            ring,
            client,
            mood: Mutex::new(Mood::Good),
            sites: Mutex::default(),
            hosts: Mutex::default(),
            refused: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        tasks.spawn(Arc::clone(&shared).follow(Scope::Global));
        tasks.spawn(Arc::clone(&shared).follow(Scope::Region(shared.region.clone())));
        tasks.spawn(Arc::clone(&shared).beat());
        Self {
            region: shared.region.clone(),
            edge: shared.edge.clone(),
            url,
            shared,
            _tasks: tasks,
        }
    }

    pub(crate) fn registration(&self) -> fleet::Edge {
        fleet::Edge {
            region: self.region.clone(),
            edge: self.edge.clone(),
            url: self.url.clone(),
        }
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.shared.mood.lock().expect("whole") = mood;
    }

    pub(crate) fn live(&self, site: &SiteId) -> Option<ReleaseId> {
        self.shared
            .sites
            .lock()
            .expect("whole")
            .get(site)
            .and_then(|record| record.live.clone())
            .map(|live| live.release)
    }

    pub(crate) fn generation(&self, site: &SiteId) -> Option<Generation> {
        let sites = self.shared.sites.lock().expect("whole");
        sites.get(site).map(|record| record.live_since)
    }

    pub(crate) fn host_seen(&self, host: &str) -> Option<Instant> {
        self.shared.hosts.lock().expect("whole").get(host).copied()
    }

    pub(crate) fn refused(&self) -> u64 {
        *self.shared.refused.lock().expect("whole")
    }
}

impl Shared {
    async fn follow(self: Arc<Self>, scope: Scope) {
        let mut messages = self
            .client
            .subscribe(format!("{}>", scope.feed_prefix()))
            .await
            .expect("a subscription");
        while let Some(message) = messages.next().await {
            let stored = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get("Nats-Subject"))
                .map(|subject| subject.as_str().to_owned());
            let Some(stored) = stored else { continue };
            let Some(found) = stored.strip_prefix(&scope.stored_prefix()) else {
                continue;
            };
            if message.payload.is_empty() || found == key::TERM {
                continue;
            }
            let Ok(seal) = self.ring.verify(KeyRole::Record, &message.payload) else {
                *self.refused.lock().expect("whole") += 1;
                continue;
            };
            assert_eq!(
                (seal.stream.as_str(), seal.key.as_str()),
                (scope.stream().as_str(), found)
            );
            match scope {
                Scope::Global => {
                    let record = HostRecord::decode(&seal.body).expect("a host record");
                    self.hosts
                        .lock()
                        .expect("whole")
                        .insert(record.host.to_string(), Instant::now());
                }
                Scope::Region(_) => {
                    self.site(SiteRecord::decode(&seal.body).expect("a site record"))
                        .await
                }
            }
        }
    }

    async fn site(&self, record: SiteRecord) {
        let held = {
            let mut sites = self.sites.lock().expect("whole");
            let held = sites
                .entry(record.site.clone())
                .or_insert_with(|| record.clone());
            if record.generation >= held.generation {
                *held = record;
            }
            held.clone()
        };
        let mood = *self.mood.lock().expect("whole");
        let state = match mood {
            Mood::Silent => return,
            Mood::Stuck if held.candidate.is_none() => return,
            Mood::Good | Mood::Stuck => CandidateState::Prepared,
            Mood::Failing => CandidateState::Failed("no space left on device".to_owned()),
        };
        let report = SiteReport {
            edge: self.edge.clone(),
            region: self.region.clone(),
            boot: self.boot.clone(),
            site: held.site,
            generation: held.generation,
            serving: held.generation,
            live: held.live.map(|live| live.release),
            candidate: held.candidate.map(|candidate| CandidateReport {
                release: candidate.release,
                state,
            }),
        };
        let subject = key::report(&self.region, &self.edge, "site");
        self.client
            .publish(subject, report.encode().into())
            .await
            .expect("a publication");
    }

    async fn beat(self: Arc<Self>) {
        loop {
            let heartbeat = Heartbeat {
                edge: self.edge.clone(),
                region: self.region.clone(),
                boot: self.boot.clone(),
                version: "test".to_owned(),
                record_version: SiteRecord::VERSION,
                at: clock::now(),
                ready: true,
                streams: Vec::new(),
                refused: 0,
            };
            let subject = key::report(&self.region, &self.edge, "heartbeat");
            let _ = self
                .client
                .publish(subject, heartbeat.encode().into())
                .await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn serving(&self, host: &str) -> Option<(Generation, ReleaseId)> {
        let sites = self.sites.lock().expect("whole");
        let of_host = |site: &SiteId| host == crate::host_of(site).as_str();
        let record = sites.iter().find(|(site, _)| of_host(site))?.1;
        Some((record.generation, record.live.clone()?.release))
    }
}

async fn answer(State(edge): State<Arc<Shared>>, headers: HeaderMap) -> impl IntoResponse {
    let host = headers
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    match edge.serving(&host) {
        Some((generation, release)) => {
            let shown = [
                ("x-helix-generation", generation.to_string()),
                ("x-helix-release", release.to_string()),
            ];
            (StatusCode::OK, shown, "hello").into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
