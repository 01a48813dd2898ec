//! Origin's half of a cutover against a real nats-server, with edges that are only as real as origin can tell.

mod builds;
mod collection;
mod edge;
mod imports;
mod nats;
#[path = "../place/mod.rs"]
mod place;
mod pressed;
mod rollouts;
#[path = "../schema/mod.rs"]
mod schema;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge::{FakeEdge, Mood};
use futures_util::StreamExt;
use helix_origin::feed::{Feed, FeedError, Policy, ServerError, StreamError, records};
use helix_origin::fleet::{Roster, reports};
use helix_origin::rollout::policy::WayOut;
use helix_origin::rollout::{Conductor, NewRollback, NewRollout, RolloutError, alias};
use helix_origin::store::{Place, Store};
use helix_routing::api::RolloutView;
use helix_routing::host::{Host, HostPattern};
use helix_routing::id::{ReleaseId, RolloutId, SiteId};
use helix_routing::record::ReleaseRef;
use helix_routing::rollout::{BakePlan, Outcome};
use helix_routing::seal::KeyRole;
use helix_service::clock;
use helix_service::keys::{KeyRing, SigningKey};
use helix_service::shutdown::{Shutdown, ShutdownHandle};
use nats::Nats;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Far beyond what any step takes.
const DEADLINE: Duration = Duration::from_secs(30);

fn base() -> Host {
    "helix.localhost".parse().expect("a host")
}

fn host_of(site: &SiteId) -> Host {
    alias::primary_host(site, &base()).expect("a short name")
}

fn site() -> SiteId {
    "shop/production".parse().expect("a site")
}

fn release(number: u8) -> ReleaseRef {
    let digest = helix_service::digest::sha256(&[number]);
    ReleaseRef {
        release: digest.hex()[..20].parse().expect("a release"),
        artifact: digest,
    }
}

struct Fleet {
    key: Arc<SigningKey>,
    edges: Vec<FakeEdge>,
}

impl Fleet {
    async fn start(nats: &Nats) -> Self {
        let key = Arc::new(SigningKey::generate(KeyRole::Record));
        let ring = KeyRing::new([key.public()]);
        let mut edges = Vec::new();
        for (region, edge) in [
            ("fra", "fra-1"),
            ("fra", "fra-2"),
            ("iad", "iad-1"),
            ("iad", "iad-2"),
        ] {
            edges.push(FakeEdge::start(nats.client().await, ring.clone(), region, edge).await);
        }
        Self { key, edges }
    }

    fn set(&self, mood: Mood) {
        self.edges.iter().for_each(|edge| edge.set(mood));
    }

    fn all_serve(&self, site: &SiteId, release: &ReleaseId) -> bool {
        self.edges
            .iter()
            .all(|edge| edge.live(site).as_ref() == Some(release))
    }
}

/// A deployment of a release, everywhere at once.
fn wanted(site: &SiteId, release: &ReleaseRef) -> NewRollout {
    NewRollout {
        site: site.clone(),
        release: release.clone(),
        by: "test".to_owned(),
        lift_quarantine: false,
        automatic: false,
        bake: BakePlan::default(),
        way_out: WayOut::together(),
        not_before: None,
        closed: Vec::new(),
        superseded: None,
        requires: None,
    }
}

struct Origin {
    store: Store,
    conductor: Conductor,
    feed: JoinSet<Result<(), FeedError>>,
    _tasks: JoinSet<()>,
    _shutdown: ShutdownHandle,
}

impl Origin {
    async fn start(folder: &Path, nats: &Nats, fleet: &Fleet) -> Self {
        let store = Store::lead(place::of(folder).parse::<Place>().expect("a place"))
            .await
            .expect("a database");
        let client = nats.client().await;
        let roster = Roster::new(
            fleet.edges.iter().map(FakeEdge::registration).collect(),
            clock::now(),
        );
        let regions: Vec<_> = roster.regions().into_iter().collect();
        let feed = Feed::new(
            store.clone(),
            client.clone(),
            Arc::clone(&fleet.key),
            &regions,
            Policy::default(),
        );
        let conductor = Conductor::new(store.clone(), feed.clone(), roster.clone(), base(), None);
        conductor.resume().await.expect("rollouts are read");
        let (shutdown, handle) = Shutdown::manual();
        let (monitor, ending) = (nats.monitor(), shutdown.clone());
        let mut running = JoinSet::new();
        running.spawn(async move { feed.run(Some(&monitor), &ending).await });
        let mut tasks = JoinSet::new();
        let heard = conductor.clone();
        tasks.spawn(async move { reports::run(client, roster, heard, &shutdown).await });
        Self {
            store,
            conductor,
            feed: running,
            _tasks: tasks,
            _shutdown: handle,
        }
    }

    async fn deploy(&self, site: &SiteId, release: &ReleaseRef) -> RolloutId {
        self.deploy_and_bake(site, release, BakePlan::default())
            .await
    }

    async fn deploy_and_bake(
        &self,
        site: &SiteId,
        release: &ReleaseRef,
        bake: BakePlan,
    ) -> RolloutId {
        self.made(site, release).await;
        let new = NewRollout {
            bake,
            ..wanted(site, release)
        };
        let mut begun = self.conductor.deploy(new).await.expect("it starts");
        sqlx::query(
            "INSERT INTO deployments (project, number, label, site, release_id, rollout, by_whom, created) \
             SELECT $1, COALESCE(MAX(number), 0) + 1, 'x', $2, $3, $4, 'test', 1 FROM deployments WHERE project = $1",
        )
        .bind(site.project.as_str())
        .bind(site.to_string())
        .bind(release.release.as_str())
        .bind(begun.rollout.as_str())
        .execute(&mut *begun.tx)
        .await
        .expect("a row");
        begun.commit().await.expect("it commits")
    }

    async fn rollback(&self, release: Option<&ReleaseRef>) -> Result<RolloutId, RolloutError> {
        let new = NewRollback {
            site: site(),
            release: release.map(|release| release.release.clone()),
            regions: None,
            by: "test".to_owned(),
            reason: None,
        };
        self.conductor.rollback(new).await?.commit().await
    }

    async fn end_of(&self, rollout: &RolloutId) -> RolloutView {
        let watched = self
            .conductor
            .watch(rollout)
            .await
            .expect("it is read")
            .expect("it is there");
        let last = timeout(DEADLINE, watched.fold(None, async |_, view| Some(view))).await;
        last.expect("it ends in time").expect("it has a view")
    }

    async fn outcome(&self, rollout: &RolloutId) -> Option<Outcome> {
        self.end_of(rollout).await.outcome
    }

    /// As kill -9 would, but for the memory.
    async fn kill(self) {
        drop(self.feed);
        self.store.close().await;
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = timeout(DEADLINE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} did not come in time");
}

async fn start() -> Option<(TempDir, Nats, Fleet, Origin)> {
    let nats = Nats::start()?;
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&nats).await;
    let origin = Origin::start(folder.path(), &nats, &fleet).await;
    Some((folder, nats, fleet, origin))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_settles_on_every_edge() {
    let Some((_folder, _nats, fleet, origin)) = start().await else {
        return;
    };
    let rollout = origin.deploy(&site(), &release(1)).await;
    let view = origin.end_of(&rollout).await;
    assert_eq!(view.outcome, Some(Outcome::Settled), "{view:?}");
    assert!(fleet.all_serve(&site(), &release(1).release));
    assert!(
        fleet
            .edges
            .iter()
            .all(|edge| edge.host_seen("shop.helix.localhost").is_some())
    );
    let again = origin.deploy(&site(), &release(1)).await;
    let view = origin.end_of(&again).await;
    assert_eq!(
        (view.outcome, view.revision),
        (Some(Outcome::Settled), 1),
        "the same again is done at once"
    );
}

#[expect(clippy::print_stdout, reason = "the figures are what this test is for")]
#[tokio::test(flavor = "multi_thread")]
async fn cutovers_and_host_records_are_quick() {
    let Some((_folder, _nats, fleet, origin)) = start().await else {
        return;
    };
    assert_eq!(
        origin
            .outcome(&origin.deploy(&site(), &release(1)).await)
            .await,
        Some(Outcome::Settled)
    );
    let mut cutovers = Vec::new();
    for number in 2..32 {
        origin.made(&site(), &release(number)).await;
        let begin = Instant::now();
        let rollout = origin.deploy(&site(), &release(number)).await;
        assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
        cutovers.push(begin.elapsed());
    }
    let mut records = Vec::new();
    for number in 0..50 {
        let host = format!("www{number}.example.com");
        let pattern: HostPattern = host.parse().expect("a host");
        let mut tx = origin.store.write().await.expect("a transaction");
        records::put_host(&mut tx, &pattern, Some(&site()))
            .await
            .expect("a record");
        tx.commit().await.expect("a commit");
        let committed = Instant::now();
        until("the host record", async || {
            fleet
                .edges
                .iter()
                .all(|edge| edge.host_seen(&host).is_some())
        })
        .await;
        let last = fleet
            .edges
            .iter()
            .filter_map(|edge| edge.host_seen(&host))
            .max()
            .expect("one at least");
        records.push(last.saturating_duration_since(committed));
    }
    for (what, mut times) in [
        ("deploy to proof in both regions", cutovers),
        ("SQL commit to last of 4 edges", records),
    ] {
        times.sort_unstable();
        println!(
            "{what}: p50 {:?}, p90 {:?}, worst {:?}",
            times[times.len() / 2],
            times[times.len() * 9 / 10],
            times[times.len() - 1]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_on_after_origin_was_killed() {
    let Some((folder, nats, fleet, origin)) = start().await else {
        return;
    };
    fleet.set(Mood::Silent);
    let rollout = origin.deploy(&site(), &release(1)).await;
    origin.kill().await;
    fleet.set(Mood::Good);
    let origin = Origin::start(folder.path(), &nats, &fleet).await;
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    assert!(fleet.all_serve(&site(), &release(1).release));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_while_nats_was_away_is_published_when_it_is_back() {
    let Some((_folder, mut nats, fleet, origin)) = start().await else {
        return;
    };
    assert_eq!(
        origin
            .outcome(&origin.deploy(&site(), &release(1)).await)
            .await,
        Some(Outcome::Settled)
    );
    nats.kill();
    let rollout = origin.deploy(&site(), &release(2)).await;
    nats.restart();
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    assert!(fleet.all_serve(&site(), &release(2).release));
    let left = async || {
        sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM outbox")
            .fetch_one(origin.store.reader())
            .await
            .ok()
            == Some(0)
    };
    until("the empty outbox", left).await;
}

async fn incarnations(origin: &Origin) -> Vec<(String, String)> {
    sqlx::query_as("SELECT stream, incarnation FROM streams ORDER BY stream")
        .fetch_all(origin.store.reader())
        .await
        .expect("rows")
}

async fn messages(nats: &Nats, stream: &str) -> u64 {
    let jetstream = async_nats::jetstream::new(nats.client().await);
    jetstream
        .get_stream(stream)
        .await
        .map_or(0, |stream| stream.cached_info().state.messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_store_gets_a_new_life_and_everything_again() {
    let Some((_folder, mut nats, fleet, origin)) = start().await else {
        return;
    };
    assert_eq!(
        origin
            .outcome(&origin.deploy(&site(), &release(1)).await)
            .await,
        Some(Outcome::Settled)
    );
    let before = incarnations(&origin).await;
    nats.kill();
    nats.wipe();
    nats.restart();
    let all_new = async || {
        let now = incarnations(&origin).await;
        now.len() == 3
            && now
                .iter()
                .zip(&before)
                .all(|(now, before)| now.1 != before.1)
    };
    until("new incarnations", all_new).await;
    // The term and the one record.
    until("the records", async || {
        messages(&nats, "KV_r_fra").await == 2 && messages(&nats, "KV_g").await >= 2
    })
    .await;
    until("a snapshot", async || {
        messages(&nats, "OBJ_snap_r_fra").await >= 2
    })
    .await;
    assert_eq!(
        origin
            .outcome(&origin.deploy(&site(), &release(2)).await)
            .await,
        Some(Outcome::Settled)
    );
    assert!(fleet.all_serve(&site(), &release(2).release));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_rolled_back_gets_a_new_life() {
    let Some((_folder, mut nats, fleet, origin)) = start().await else {
        return;
    };
    assert_eq!(
        origin
            .outcome(&origin.deploy(&site(), &release(1)).await)
            .await,
        Some(Outcome::Settled)
    );
    nats.kill();
    let backup = tempfile::tempdir().expect("a folder");
    nats::copy(&nats.store(), backup.path());
    nats.restart();
    assert_eq!(
        origin
            .outcome(&origin.deploy(&site(), &release(2)).await)
            .await,
        Some(Outcome::Settled)
    );
    let before = incarnations(&origin).await;
    nats.kill();
    nats.wipe();
    nats::copy(backup.path(), &nats.store());
    nats.restart();
    let regional_are_new = async || {
        let now = incarnations(&origin).await;
        now.iter()
            .zip(&before)
            .filter(|(now, before)| now.1 != before.1)
            .count()
            >= 2
    };
    until("new incarnations", regional_are_new).await;
    assert_eq!(
        origin
            .outcome(&origin.deploy(&site(), &release(3)).await)
            .await,
        Some(Outcome::Settled)
    );
    assert!(fleet.all_serve(&site(), &release(3).release));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_with_a_later_term_fences_the_one_before_at_the_streams() {
    let Some((folder, nats, fleet, mut first)) = start().await else {
        return;
    };
    assert_eq!(
        first
            .outcome(&first.deploy(&site(), &release(1)).await)
            .await,
        Some(Outcome::Settled)
    );
    // A copy of the database, so that SQL does not stop the first: only the streams can. What a PostgreSQL is asked for
    // would not differ.
    if place::of(folder.path())
        .parse::<Place>()
        .expect("a place")
        .is_shared()
    {
        return;
    }
    let copied = tempfile::tempdir().expect("a folder");
    // Nobody writes now, and what was written last is in the journal.
    for part in ["origin.db", "origin.db-wal"] {
        std::fs::copy(folder.path().join(part), copied.path().join(part)).expect("a copy");
    }
    let second = Origin::start(copied.path(), &nats, &fleet).await;
    assert_eq!(
        second
            .outcome(&second.deploy(&site(), &release(2)).await)
            .await,
        Some(Outcome::Settled)
    );
    first.deploy(&site(), &release(3)).await;
    let ended = timeout(DEADLINE, first.feed.join_next())
        .await
        .expect("it ends in time")
        .expect("it ran")
        .expect("it did not panic");
    assert!(
        matches!(ended, Err(FeedError::Stream(StreamError::Fenced { .. }))),
        "{ended:?}"
    );
    timeout(DEADLINE, first.store.fenced())
        .await
        .expect("the process is told to end");
    assert!(fleet.all_serve(&site(), &release(2).release));
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_records_change_nothing() {
    let Some((_folder, nats, fleet, origin)) = start().await else {
        return;
    };
    assert_eq!(
        origin
            .outcome(&origin.deploy(&site(), &release(1)).await)
            .await,
        Some(Outcome::Settled)
    );
    let client = nats.client().await;
    let jetstream = async_nats::jetstream::new(client);
    let sent = jetstream
        .publish("$KV.r_fra.cut.shop/production", "forged".into())
        .await
        .expect("sent");
    sent.await.expect("stored");
    until("the refusals", async || fleet.edges[0].refused() == 1).await;
    assert_eq!(
        origin
            .outcome(&origin.deploy(&site(), &release(2)).await)
            .await,
        Some(Outcome::Settled)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_syncs_late_is_refused() {
    let Some(nats) = Nats::start_with("sync_interval: \"2m\"") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&nats).await;
    let mut origin = Origin::start(folder.path(), &nats, &fleet).await;
    let ended = timeout(DEADLINE, origin.feed.join_next())
        .await
        .expect("it ends in time")
        .expect("it ran")
        .expect("it did not panic");
    assert!(
        matches!(ended, Err(FeedError::Server(ServerError::Lazy))),
        "{ended:?}"
    );
}
