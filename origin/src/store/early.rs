//! A database as the first origins left it: all that came since finds its rows, and reads them right.

use std::borrow::Cow;

use helix_routing::api::Role;
use helix_routing::id::{Epoch, Generation, ProjectName, SiteId};
use helix_routing::rollout::{Outcome, Rollout};
use helix_service::digest::sha256;
use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;
use sqlx::migrate::Migrator;

use super::{Connection, Opened, Place, Store, migrations, open, testing};
use crate::feed::records;
use crate::{audit, auth, domain, hold, project, quarantine};

/// The last migration of the first origins that served.
const EARLY: i64 = 3;
const SECRET: &str = "helix_0123456789abcdef";
/// A record as they wrote it.
const RECORD: &str = include_str!("../../../routing/tests/fixtures/site-record-1.hex");
const SITE: &str = "shop/preview/42";

/// What they wrote, but for what is bound.
const ROWS: [&str; 13] = [
    "UPDATE terms SET epoch = 7",
    "INSERT INTO projects (project, created) VALUES ('shop', 1000)",
    "INSERT INTO projects (project, created, purge_at) VALUES ('gone', 1000, 99000)",
    "INSERT INTO sites (site, project, created) VALUES ('shop/production', 'shop', 1000), ('shop/preview/42', 'shop', 1100)",
    "INSERT INTO sites (site, project, created, closed) VALUES ('shop/preview/41', 'shop', 1000, 1050)",
    "INSERT INTO domains (host, project, site, added) VALUES ('shop.example', 'shop', 'shop/production', 1200)",
    "INSERT INTO packs (project, digest, media_type, size, created) VALUES ('shop', 'sha256:01', 'application/x', 10, 1000)",
    "INSERT INTO contents (project, digest, size, pack, position, length, encoding) VALUES ('shop', 'sha256:02', 5, 'sha256:01', 0, 5, 'identity')",
    "INSERT INTO deployments (project, number, label, site, release_id, rollout, by_whom, created) \
     VALUES ('shop', 1, 'preview/42', 'shop/preview/42', 'aaaaaaaaaaaaaaaaaaaa', '00000000000000aa', 'ada', 1300)",
    "INSERT INTO region_sites (site, region, settled, settled_artifact, hold_reason, hold_since) \
     VALUES ('shop/preview/42', 'fra', 'bbbbbbbbbbbbbbbbbbbb', 'sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'rolled back by ada', 1400)",
    "INSERT INTO quarantines (site, region, release_id, reason, since) \
     VALUES ('shop/preview/42', 'fra', 'cccccccccccccccccccc', 'it was sick', 1400)",
    "INSERT INTO streams (stream, incarnation, acknowledged) VALUES ('KV_r_fra', '00000000000000bb', 12)",
    "INSERT INTO audit (id, at, by_whom, action, subject, detail) \
     VALUES (1, 1000, 'ada', 'project.create', 'shop', NULL), (2, 1400, 'ada', 'rollback', 'shop/preview/42', 'fra')",
];

/// A rollout as they saved it, which had waves and no bakes.
fn machine(id: &str, phase: &str, outcome: &str) -> String {
    let release = |digit: &str| {
        let (id, artifact) = (digit.repeat(20), digit.repeat(64));
        format!(r#"{{"release":"{id}","artifact":"sha256:{artifact}"}}"#)
    };
    let (live, target) = (release("b"), release("a"));
    let record = format!(
        r#"{{"site":"{SITE}","region":"fra","epoch":6,"generation":9,"live_since":8,"live":{live},"candidate":{target},"weight":null,
        "previous":[],"pins":[],"override_reason":null,"hold":null,"bake_until":null,"removed":false}}"#
    );
    format!(
        r#"{{"id":"{id}","site":"{SITE}","kind":"deploy","epoch":6,"waves":[["fra"]],"wave":0,"cutovers":{{"fra":{{"record":{record},
        "target":{target},"baseline":{live},"bytes":1000,"phase":{phase},"moved":true,"reason":null}}}},"outcome":{outcome}}}"#
    )
}

/// A database after the migrations up to this one.
async fn migrated(place: &Place, to: i64) -> AnyPool {
    sqlx::any::install_default_drivers();
    let all = match place {
        Place::File(_) => migrations::FILES.migrations.to_vec(),
        Place::Postgres(_) => migrations::postgres().migrations.to_vec(),
    };
    let early = all.into_iter().filter(|migration| migration.version <= to);
    let migrator = Migrator {
        migrations: Cow::Owned(early.collect()),
        ..Migrator::DEFAULT
    };
    let options = open::options(place, "rwc").unwrap();
    let pool = AnyPoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options).await.unwrap();
    migrator.run(&pool).await.unwrap();
    pool
}

/// The database of an origin of then.
async fn written(place: &Place) {
    let pool = migrated(place, EARLY).await;
    for row in ROWS {
        sqlx::query(row).execute(&pool).await.unwrap();
    }
    sqlx::query("INSERT INTO tokens (id, name, role, secret_hash, created) VALUES ('t1', 'ada', 'deploy', $1, 1000)")
        .bind(sha256(SECRET.as_bytes()).hex().to_owned())
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("INSERT INTO records (stream, record_key, generation, epoch, body) VALUES ('KV_r_fra', $1, 300, 299, $2)")
        .bind(helix_routing::key::site(&SITE.parse().unwrap()))
        .bind(hex::decode(RECORD.trim()).unwrap())
        .execute(&pool)
        .await
        .unwrap();
    let preparing =
        r#"{"Preparing":{"clock":{"until":2000,"nudge":1900},"required":["fra-1"],"prepared":{}}}"#;
    for (id, phase, outcome) in [
        ("00000000000000aa", r#""Stable""#, Some("settled")),
        ("00000000000000ab", preparing, None),
    ] {
        let quoted = outcome.map_or_else(|| "null".to_owned(), |outcome| format!("{outcome:?}"));
        sqlx::query(
            "INSERT INTO rollouts (rollout, site, kind, by_whom, machine, revision, started, changed, outcome) \
             VALUES ($1, $2, 'deploy', 'ada', $3, 4, 1300, 1350, $4)",
        )
        .bind(id)
        .bind(SITE)
        .bind(machine(id, phase, &quoted))
        .bind(outcome)
        .execute(&pool)
        .await
        .unwrap();
    }
    pool.close().await;
}

async fn rollouts(store: &Store) -> Vec<Rollout> {
    let rows: Vec<String> = sqlx::query_scalar("SELECT machine FROM rollouts ORDER BY rollout")
        .fetch_all(store.reader())
        .await
        .unwrap();
    rows.iter()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect()
}

async fn is_read_right(place: &Place) {
    written(place).await;
    let store = Store::lead(place).await.unwrap();
    assert_eq!(store.epoch(), Epoch(8), "the term goes on");
    projects_are(&store).await;
    site_is(&store).await;
    let [ended, runs] = <[Rollout; 2]>::try_from(rollouts(&store).await).unwrap();
    assert_eq!(ended.outcome(), Some(Outcome::Settled));
    assert_eq!((runs.outcome(), runs.regions().len()), (None, 1));
    log_goes_on(place, store).await;
}

async fn projects_are(store: &Store) {
    let shop: ProjectName = "shop".parse().unwrap();
    let mut connection = store.read().await.unwrap();
    let projects = project::list(store).await.unwrap();
    let names: Vec<_> = projects.iter().map(|view| view.project.as_str()).collect();
    assert_eq!(names, ["gone", "shop"]);
    let sites = project::sites(&mut connection, &shop).await.unwrap();
    let sites: Vec<_> = sites.iter().map(ToString::to_string).collect();
    assert_eq!(sites, [SITE, "shop/production"]);
    let domains = domain::list(&mut connection, &shop).await.unwrap();
    assert_eq!(domains.len(), 1);
    let caller = auth::authenticate(store, SECRET).await.unwrap();
    assert_eq!((caller.name.as_str(), caller.role), ("ada", Role::Deploy));
}

async fn site_is(store: &Store) {
    let (site, fra): (SiteId, _) = (SITE.parse().unwrap(), "fra".parse().unwrap());
    let mut connection = store.read().await.unwrap();
    let record = records::site(&mut connection, &fra, &site).await.unwrap();
    let record = record.unwrap();
    assert_eq!(record.generation, Generation(300));
    assert_eq!(record.live.unwrap().release.as_str(), "a".repeat(20));
    let holds = hold::list(&mut connection, Some(&site.project))
        .await
        .unwrap();
    assert_eq!(holds.len(), 1, "one without an end is in force");
    assert_eq!(holds[0].hold.reason, "rolled back by ada");
    let marks = quarantine::list(&mut connection, None).await.unwrap();
    assert_eq!(marks.len(), 1);
}

/// What of the audit log is in no chain, what is, and whether that is whole.
async fn checked(connection: &mut Connection) -> (u64, u64, bool) {
    let check = audit::verify(connection, None).await.unwrap();
    (check.unchained, check.entries, check.broken.is_none())
}

/// The chain begins behind what was there, and a second start changes nothing more.
async fn log_goes_on(place: &Place, store: Store) {
    let mut connection = store.read().await.unwrap();
    assert_eq!(checked(&mut connection).await, (2, 0, true));
    drop(connection);
    let mut tx = store.write().await.unwrap();
    let act = audit::Act::new("hold.set", "shop/preview/42 fra");
    audit::record(&mut tx, &auth::Caller::origin(), act)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    store.close().await;
    let opened = Opened::open(place).await.unwrap();
    let mut connection = opened.reader.acquire().await.unwrap();
    assert_eq!(checked(&mut connection).await, (2, 1, true));
    drop(connection);
    opened.close().await;
}

/// Tokens of edges were like others that read.
async fn tokens_become_the_edges(place: &Place) {
    let pool = migrated(place, 27).await;
    for row in [
        "INSERT INTO tokens (id, name, role, secret_hash, created) VALUES \
         ('t1', 'edge fra-1', 'read', 's1', 1000), ('t2', 'edge fra-2', 'read', 's2', 1000), ('t3', 'ci', 'deploy', 's3', 1000)",
        "INSERT INTO edges (edge, region, url, admitted, joined, read_token) VALUES \
         ('fra-1', 'fra', 'http://127.0.0.1:1', 'token', 1000, 't1'), ('fra-2', 'fra', 'http://127.0.0.1:2', 'config', 1000, NULL)",
    ] {
        sqlx::query(row).execute(&pool).await.unwrap();
    }
    pool.close().await;
    let store = Store::lead(place).await.unwrap();
    let tokens = auth::list(&store).await.unwrap();
    let roles: Vec<_> = tokens
        .iter()
        .map(|token| (token.id.as_str(), token.role))
        .collect();
    let expected = [("t1", Role::Edge), ("t2", Role::Read), ("t3", Role::Deploy)];
    assert_eq!(roles, expected);
    store.close().await;
}

#[tokio::test]
async fn tokens_of_edges_that_joined_become_theirs() {
    let folder = tempfile::tempdir().unwrap();
    tokens_become_the_edges(&Place::File(folder.path().join("origin.db"))).await;
    if let Some(server) = testing::server() {
        tokens_become_the_edges(&server.database().parse().unwrap()).await;
    }
}

#[tokio::test]
async fn a_file_of_the_first_origins_is_read_right() {
    let folder = tempfile::tempdir().unwrap();
    is_read_right(&Place::File(folder.path().join("origin.db"))).await;
}

#[tokio::test]
async fn rows_of_the_first_schema_are_read_right_in_postgresql() {
    let Some(server) = testing::server() else {
        return;
    };
    is_read_right(&server.database().parse().unwrap()).await;
}
