//! The release story against a real nats-server and an origin of a few lines: what an edge does with records.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]
#![expect(clippy::print_stderr, reason = "a test that is skipped says why")]

/// Runs a test in a world of its own, or skips it where there is no nats-server.
macro_rules! in_world {
    ($world:ident, $body:block) => {{
        let Some(server) = nats_server() else { return };
        let mut $world = Box::pin(World::new(server)).await;
        Box::pin(async { $body }).await;
    }};
}

mod blobs;
mod gates;
mod improve;
mod nats;
mod provenance;
mod retired;
mod snapshots;
mod world;

use std::time::Duration;

use async_nats::HeaderMap;
use helix_routing::id::{Epoch, Generation};
use helix_routing::key::{self, Scope};
use helix_routing::record::{ReleaseRef, SiteRecord};
use helix_routing::report::CandidateState;
use helix_routing::seal::KeyRole;
use helix_routing::wire::Wire;
use helix_service::keys::{Address, SigningKey};

use world::*;

/// Prepares and commits a first release whose index says `text`.
async fn settle(world: &mut World, text: &str) -> ReleaseRef {
    settle_files(world, &[("index.html", text.as_bytes())]).await
}

/// The same, of many files.
async fn settle_files(world: &mut World, files: &[(&str, &[u8])]) -> ReleaseRef {
    let release = world.release(SITE, files);
    world.host(HOST, 1, Some(SITE)).await;
    world.site(&record(1, None, Some(&release), &[])).await;
    world
        .until(|| world.candidate_state() == Some(CandidateState::Prepared))
        .await;
    world.site(&record(2, Some(&release), None, &[])).await;
    world.until(|| world.serves(2)).await;
    release
}

#[tokio::test]
async fn a_release_is_prepared_committed_and_replaced() {
    in_world!(world, {
        let edge = world.edge().await;
        let one = settle(&mut world, "one").await;
        let (status, headers, body) = fetch(&edge, HOST, "/").await;
        assert_eq!((status, body.as_slice()), (200, b"one".as_slice()));
        assert_eq!(headers["x-helix-release"], one.release.as_str());
        assert_eq!(headers["x-helix-generation"], "2");
        let large = vec![b'x'; 3 * 1024 * 1024];
        let two = world.release(SITE, &[("index.html", b"two"), ("large.bin", &large)]);
        world.site(&record(3, Some(&one), Some(&two), &[])).await;
        world
            .until(|| world.candidate_state() == Some(CandidateState::Prepared))
            .await;
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one");
        world.site(&record(4, Some(&two), None, &[&one])).await;
        world.until(|| world.serves(4)).await;
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"two");
        assert_eq!(fetch(&edge, HOST, "/large.bin").await.2, large);
        world.site(&record(5, Some(&one), None, &[&two])).await;
        world.until(|| world.serves(5)).await;
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one");
        world
            .until(|| {
                world
                    .heartbeats
                    .lock()
                    .unwrap()
                    .last()
                    .is_some_and(|beat| beat.ready)
            })
            .await;
        edge.stop().await;
    });
}

#[tokio::test]
async fn an_edge_restarts_and_serves_without_nats_and_origin() {
    in_world!(world, {
        let edge = world.edge().await;
        settle(&mut world, "one").await;
        edge.stop().await;
        world.stop_nats();
        world.stop_origin().await;
        let edge = world.edge().await;
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one");
        edge.stop().await;
    });
}

#[tokio::test]
async fn what_was_published_while_nobody_listened_is_repaired() {
    in_world!(world, {
        let edge = world.edge().await;
        let one = settle(&mut world, "one").await;
        edge.stop().await;
        let two = world.release(SITE, &[("index.html", b"two")]);
        for n in 0..1200 {
            world
                .host(&format!("h{n}.example.com"), 1, Some(SITE))
                .await;
        }
        world.site(&record(3, Some(&two), None, &[&one])).await;
        let edge = world.edge().await;
        world.until(|| world.serves(3)).await;
        let mut served = false;
        while !served {
            world.beacon().await;
            served = fetch(&edge, "h1199.example.com", "/").await.2 == b"two";
        }
        edge.stop().await;
    });
}

#[tokio::test]
async fn an_edge_follows_again_after_nats_was_killed() {
    in_world!(world, {
        let edge = world.edge().await;
        let one = settle(&mut world, "one").await;
        world.stop_nats();
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one");
        world.start_nats();
        let two = world.release(SITE, &[("index.html", b"two")]);
        let mut published = false;
        while !published {
            published = tokio::time::timeout(Duration::from_secs(3), world.client.flush())
                .await
                .is_ok_and(|flushed| flushed.is_ok());
        }
        world.site(&record(3, Some(&two), None, &[&one])).await;
        world.until(|| world.serves(3)).await;
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"two");
        edge.stop().await;
    });
}

/// Records for the site's key that each must be refused, and what is wrong with them.
fn hostile_records(world: &mut World, bad: &ReleaseRef) -> [(&'static str, Vec<u8>); 8] {
    let cut = key::site(&SITE.parse().unwrap());
    let evil = record(9, Some(bad), None, &[]);
    let stranger = SigningKey::generate(KeyRole::Record);
    let address = Address {
        stream: fra().stream(),
        key: cut.clone(),
        incarnation: world.life.clone(),
        epoch: world.epoch,
        generation: Generation(9),
    };
    let mut tampered = world.seal(&fra(), &cut, Generation(9), evil.encode());
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;
    let mut newer = evil.encode();
    newer[0] = 77;
    let other_region = SiteRecord {
        region: "iad".parse().unwrap(),
        ..evil.clone()
    };
    [
        (
            "signed by a stranger",
            stranger.seal(address, evil.encode()),
        ),
        ("tampered with", tampered),
        (
            "signed for another stream",
            world.seal_as("KV_r_iad", &cut, Generation(9), evil.encode()),
        ),
        (
            "of another region",
            world.seal(&fra(), &cut, Generation(9), other_region.encode()),
        ),
        (
            "of a newer version",
            world.seal(&fra(), &cut, Generation(9), newer),
        ),
        (
            "of a lower generation",
            world.seal(
                &fra(),
                &cut,
                Generation(1),
                record(1, Some(bad), None, &[]).encode(),
            ),
        ),
        (
            "of the same generation",
            world.seal(
                &fra(),
                &cut,
                Generation(2),
                record(2, Some(bad), None, &[]).encode(),
            ),
        ),
        ("no envelope", b"nonsense".to_vec()),
    ]
}

#[tokio::test]
async fn bad_records_are_refused_and_hold_up_nobody() {
    in_world!(world, {
        let edge = world.edge().await;
        let one = settle(&mut world, "one").await;
        let bad = world.release(SITE, &[("index.html", b"bad")]);
        let hostile = hostile_records(&mut world, &bad);
        let count = hostile.len();
        for (n, (what, sealed)) in hostile.into_iter().enumerate() {
            let cut = key::site(&SITE.parse().unwrap());
            world.publish(&fra(), &cut, HeaderMap::new(), sealed).await;
            world
                .until(|| world.refusals.lock().unwrap().len() == n + 1)
                .await;
            assert_eq!(
                fetch(&edge, HOST, "/").await.2,
                b"one",
                "a record {what} was taken"
            );
        }
        let two = world.release(SITE, &[("index.html", b"two")]);
        world.site(&record(3, Some(&two), None, &[&one])).await;
        world.until(|| world.serves(3)).await;
        assert_eq!(world.refusals.lock().unwrap().len(), count);
        edge.stop().await;
    });
}

#[tokio::test]
async fn a_stream_that_was_wiped_is_taken_over_without_losing_a_site() {
    in_world!(world, {
        let edge = world.edge().await;
        let one = settle(&mut world, "one").await;
        world.wipe().await;
        world.epoch = Epoch(2);
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one");
        world.host(HOST, 1, Some(SITE)).await;
        let two = world.release(SITE, &[("index.html", b"two")]);
        world.site(&record(3, Some(&two), None, &[&one])).await;
        world.until(|| world.serves(3)).await;
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"two");
        edge.stop().await;
    });
}

#[tokio::test]
async fn a_tombstone_takes_a_host_away_and_a_removed_record_a_site() {
    in_world!(world, {
        let edge = world.edge().await;
        let one = settle(&mut world, "one").await;
        world.host("old.example.com", 1, Some(SITE)).await;
        while fetch(&edge, "old.example.com", "/").await.0 != 200 {
            world.beacon().await;
        }
        world.host("old.example.com", 2, None).await;
        while fetch(&edge, "old.example.com", "/").await.0 != 404 {
            world.beacon().await;
        }
        world
            .site(&SiteRecord {
                removed: true,
                ..record(3, Some(&one), None, &[])
            })
            .await;
        world.until(|| world.serves(3)).await;
        assert_eq!(fetch(&edge, HOST, "/").await.0, 404);
        let packs = world.folder.path().join("edge/store/packs");
        world
            .until(|| std::fs::read_dir(&packs).unwrap().count() == 0)
            .await;
        edge.stop().await;
    });
}

#[tokio::test]
async fn an_edge_without_state_starts_from_the_snapshot() {
    in_world!(world, {
        let one = world.release(SITE, &[("index.html", b"one")]);
        world.host("other.example.com", 1, Some(SITE)).await;
        world.site(&record(1, None, None, &[])).await;
        let site = record(2, Some(&one), None, &[]);
        let sealed = world.seal(
            &fra(),
            &key::site(&site.site),
            site.generation,
            site.encode(),
        );
        world.snapshot(&fra(), vec![sealed]).await;
        let many = (0..2000)
            .map(|n| {
                world
                    .host_record(&format!("h{n}.example.com"), 1, Some(SITE))
                    .1
            })
            .collect();
        world.snapshot(&Scope::Global, many).await;
        let edge = world.edge().await;
        world.until(|| world.serves(2)).await;
        while fetch(&edge, "h1999.example.com", "/").await.2 != b"one" {
            world.beacon().await;
        }
        edge.stop().await;
    });
}

#[tokio::test]
async fn an_artifact_of_another_site_is_not_prepared() {
    in_world!(world, {
        let edge = world.edge().await;
        let one = settle(&mut world, "one").await;
        let stolen = world.release("shoe/production", &[("index.html", b"stolen")]);
        world.site(&record(3, Some(&one), Some(&stolen), &[])).await;
        world.until(|| matches!(world.candidate_state(), Some(CandidateState::Failed(reason)) if reason.contains("shoe/production"))).await;
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one");
        edge.stop().await;
    });
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_stopped() {
    in_world!(world, {
        let edge = world.edge().await;
        settle(&mut world, "one").await;
        // Does not compress, so there is something to cut.
        let mut noise = vec![0; 2_000_000];
        rand::Rng::fill_bytes(&mut rand::rng(), &mut noise);
        let two = world.release(SITE, &[("index.html", b"two"), ("noise.bin", &noise)]);
        world.blobs.lock().unwrap().cut = Some(300_000);
        world.site(&record(3, Some(&two), None, &[])).await;
        world.until(|| world.serves(3)).await;
        assert_eq!(fetch(&edge, HOST, "/noise.bin").await.2, noise);
        assert!(
            world
                .blobs
                .lock()
                .unwrap()
                .asked
                .iter()
                .any(|asked| asked.contains("bytes="))
        );
        edge.stop().await;
    });
}

#[tokio::test]
async fn what_is_harmed_on_disk_is_never_served_and_is_fetched_again() {
    in_world!(world, {
        let edge = world.edge().await;
        let release = world.release(SITE, &[("index.html", b"one"), ("a.html", &[b'a'; 5000])]);
        world.host(HOST, 1, Some(SITE)).await;
        world.site(&record(1, Some(&release), None, &[])).await;
        world.until(|| world.serves(1)).await;
        let pack = std::fs::read_dir(world.folder.path().join("edge/store/packs"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let whole = std::fs::read(&pack).unwrap();
        std::fs::write(&pack, vec![0; whole.len()]).unwrap();
        assert_eq!(fetch(&edge, HOST, "/").await.0, 500);
        world
            .until(|| std::fs::read(&pack).is_ok_and(|bytes| bytes == whole))
            .await;
        assert_eq!(fetch(&edge, HOST, "/").await.2, b"one");
        edge.stop().await;
    });
}
