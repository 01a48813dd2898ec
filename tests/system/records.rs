//! Records that are not what they claim, written into the streams with origin's own NATS credentials:
//! edges trust the signature and the place, not the pipe.

use async_nats::jetstream;
use helix_routing::id::{Generation, RegionId, ReleaseId};
use helix_routing::key::{Scope, site as key_of};
use helix_routing::record::SiteRecord;
use helix_routing::seal::{KeyRole, Seal, open};
use helix_routing::wire::Wire;
use helix_service::keys::{Address, SigningKey};
use helix_service::nats::{NatsConfig, connect};
use helix_tests::checker::{Checker, Tolerance};
use helix_tests::fleet::{Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::{Folder, page, page_digest};
use helix_tests::wait;
use tokio::runtime::Runtime;

use crate::own_fleet;

/// Origin's place on NATS, in somebody else's hands.
struct Forger {
    runtime: Runtime,
    jetstream: jetstream::Context,
    record_key: SigningKey,
}

impl Forger {
    fn of(fleet: &Fleet) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let config = fleet.config("origin");
        let nats: NatsConfig = config["nats"].clone().try_into().unwrap();
        let client = runtime.block_on(connect(&nats, "forger")).unwrap();
        let key = config["record_key"].as_str().unwrap();
        let record_key = SigningKey::load(KeyRole::Record, key.as_ref()).unwrap();
        // Its tasks belong to the runtime, so it is made there.
        let jetstream = runtime.block_on(async { jetstream::new(client) });
        Self {
            runtime,
            jetstream,
            record_key,
        }
    }

    /// The sealed record of a site as it is stored.
    fn stored(&self, region: &RegionId, site: &str) -> Vec<u8> {
        let scope = Scope::Region(region.clone());
        let subject = subject(region, site);
        self.runtime.block_on(async {
            let stream = self.jetstream.get_stream(scope.stream()).await.unwrap();
            stream
                .get_last_raw_message_by_subject(&subject)
                .await
                .unwrap()
                .payload
                .to_vec()
        })
    }

    /// Records that would take the region back to `old`, if an edge believed any of them.
    fn forgeries(
        &self,
        stored: &[u8],
        old: &ReleaseId,
        replayed: Vec<u8>,
        other_region: Vec<u8>,
    ) -> Vec<Vec<u8>> {
        let seal = &open(stored).unwrap().seal;
        let back = takes_back(seal, old);
        let sealed = |place: Address, body: Vec<u8>| self.record_key.seal(place, body);
        let mut tampered = sealed(next_place(seal), back.encode());
        let middle = tampered.len() / 2;
        tampered[middle] ^= 1;
        let mut newer_version = back.encode();
        newer_version[0] = SiteRecord::VERSION + 1;
        let mut other_generation = back.clone();
        other_generation.generation = Generation(seal.generation.0 + 9);
        let mut other_life = next_place(seal);
        other_life.incarnation = "0123456789abcdef".parse().unwrap();
        vec![
            b"garbage".to_vec(),
            Vec::new(),
            stored[..stored.len() - 1].to_vec(),
            tampered,
            replayed,
            other_region,
            SigningKey::generate(KeyRole::Record).seal(next_place(seal), back.encode()),
            sealed(next_place(seal), newer_version),
            sealed(next_place(seal), other_generation.encode()),
            sealed(other_life, back.encode()),
        ]
    }

    fn publish(&self, region: &RegionId, site: &str, bytes: Vec<u8>) {
        self.runtime.block_on(async {
            let ack = self
                .jetstream
                .publish(subject(region, site), bytes.into())
                .await
                .unwrap();
            let _ = ack.await.unwrap();
        });
    }
}

fn subject(region: &RegionId, site: &str) -> String {
    format!(
        "{}{}",
        Scope::Region(region.clone()).stored_prefix(),
        key_of(&site.parse().unwrap())
    )
}

/// The same place, one generation later.
fn next_place(seal: &Seal) -> Address {
    Address {
        stream: seal.stream.clone(),
        key: seal.key.clone(),
        incarnation: seal.incarnation.clone(),
        epoch: seal.epoch,
        generation: seal.generation.next(),
    }
}

/// The stored record with `old` live again, one generation later.
fn takes_back(seal: &Seal, old: &ReleaseId) -> SiteRecord {
    let mut record = SiteRecord::decode(&seal.body).unwrap();
    let target = record
        .previous
        .iter()
        .find(|kept| kept.release == *old)
        .unwrap()
        .clone();
    record.live = Some(target);
    record.generation = record.generation.next();
    record.live_since = record.generation;
    record
}

#[test]
fn edges_refuse_records_that_are_not_what_they_claim() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let site = "target/production";
    let regions: Vec<RegionId> = fleet.info.regions.keys().cloned().collect();
    let (here, there) = (&regions[0], &regions[1]);
    let first = fleet.deploy("target", &Folder::page("first"));
    let forger = Forger::of(&fleet);
    let replayed = forger.stored(here, site);
    let second = fleet.deploy("target", &Folder::page("second"));
    let stored = forger.stored(here, site);
    let host = fleet.host("target");
    let checker = Checker::start(&fleet, &host, Tolerance::Nothing);
    checker.settled_everywhere(&fleet, &second);

    for bytes in forger.forgeries(&stored, &first, replayed, forger.stored(there, site)) {
        forger.publish(here, site, bytes);
    }
    wait::until_true(
        "origin shows that records were refused",
        REVIVE_LIMIT,
        || {
            let status = fleet.api().status().unwrap();
            status
                .edges
                .iter()
                .filter(|edge| edge.region == *here)
                .all(|edge| edge.note.is_some())
        },
    );
    fleet.all_answer(&host, "/", 200, Some(page("second").as_bytes()));

    // One site's bad records block neither another site nor, later, this one.
    let _ = fleet.deploy("bystander", &Folder::page("bystander"));
    fleet.all_answer(
        &fleet.host("bystander"),
        "/",
        200,
        Some(page("bystander").as_bytes()),
    );
    checker.changing();
    let third = fleet.deploy("target", &Folder::page("third"));
    checker.settled_everywhere(&fleet, &third);
    let known = [
        (second, page_digest("second")),
        (third, page_digest("third")),
    ];
    let _ = checker.finish(&known);
}
