//! State across restarts, torn writes, flipped bits and compaction.

use std::fs;
use std::path::Path;

use helix_routing::host::HostPattern;
use helix_routing::key::{self, Scope};
use helix_routing::record::HostRecord;
use helix_routing::seal::KeyRole;
use helix_routing::wire::Wire;
use helix_service::keys::{Address, KeyRing, SigningKey};
use tempfile::TempDir;

use super::*;
use crate::feed::record;

const LIFE: &str = "00000000000000aa";

struct Bench {
    folder: TempDir,
    signer: SigningKey,
    ring: KeyRing,
}

impl Bench {
    fn new() -> Self {
        let signer = SigningKey::generate(KeyRole::Record);
        let ring = KeyRing::new([signer.public()]);
        Self {
            folder: tempfile::tempdir().unwrap(),
            signer,
            ring,
        }
    }

    fn open(&self) -> (Ledger, Vec<Opened>) {
        Ledger::open(self.folder.path().to_owned(), "KV_g".to_owned(), |stored| {
            record::open(
                &self.ring,
                &Scope::Global,
                None,
                &stored.key,
                stored.sealed.clone().into(),
            )
            .ok()
        })
        .unwrap()
    }

    /// The record of host number `n` at a sequence, which is also its generation.
    fn host(&self, n: u64, sequence: u64, site: Option<&str>) -> Opened {
        let host: HostPattern = format!("h{n}.example.com").parse().unwrap();
        let key = key::host(&host);
        let generation = Generation(sequence);
        let record = HostRecord {
            host,
            epoch: Epoch(1),
            generation,
            site: site.map(|site| site.parse().unwrap()),
        };
        let address = Address {
            stream: "KV_g".to_owned(),
            key: key.clone(),
            incarnation: LIFE.parse().unwrap(),
            epoch: Epoch(1),
            generation,
        };
        let sealed = self.signer.seal(address, record.encode()).into();
        Opened {
            sequence,
            ..record::open(&self.ring, &Scope::Global, None, &key, sealed).unwrap()
        }
    }

    fn files(&self, kind: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.retain(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(kind)
        });
        files.sort();
        files
    }
}

fn now() -> Timestamp {
    helix_service::clock::now()
}

fn position(sequence: u64) -> Position {
    Position {
        incarnation: Some(LIFE.parse().unwrap()),
        sequence,
        contact: now(),
    }
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}

async fn filled(bench: &Bench, records: u64) -> Ledger {
    let (mut ledger, _) = bench.open();
    ledger.mark(position(0)).await.unwrap();
    for n in 1..=records {
        ledger
            .admit(now(), vec![bench.host(n, n, Some("shop/production"))], true)
            .await
            .unwrap();
    }
    ledger
}

#[tokio::test]
async fn what_was_admitted_is_there_after_a_restart() {
    let bench = Bench::new();
    drop(filled(&bench, 5).await);
    let (ledger, records) = bench.open();
    assert_eq!(records.len(), 5);
    assert_eq!(ledger.resume(now()), Some((LIFE.parse().unwrap(), 5)));
    assert_eq!(ledger.epoch(), Epoch(1));
}

#[tokio::test]
async fn a_generation_never_falls_also_not_after_a_restart() {
    let bench = Bench::new();
    let (mut ledger, _) = bench.open();
    ledger
        .admit(now(), vec![bench.host(1, 8, Some("shop/production"))], true)
        .await
        .unwrap();
    drop(ledger);
    let (mut ledger, _) = bench.open();
    let records = vec![
        bench.host(1, 7, Some("shoe/production")),
        bench.host(1, 8, Some("shop/production")),
        bench.host(1, 8, Some("shoe/production")),
        bench.host(1, 9, Some("shoe/production")),
    ];
    let decisions = ledger.admit(now(), records, true).await.unwrap();
    let orders: Vec<Order> = decisions.iter().map(|decision| decision.order).collect();
    assert_eq!(
        orders,
        [Order::Older, Order::Same, Order::Conflict, Order::Newer]
    );
}

#[tokio::test]
async fn a_torn_tail_costs_only_what_was_never_reported() {
    let bench = Bench::new();
    drop(filled(&bench, 5).await);
    let log = bench.files("log.").pop().unwrap();
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() - 3]).unwrap();
    let (mut ledger, records) = bench.open();
    assert_eq!((records.len(), ledger.position().sequence), (4, 4));
    ledger
        .admit(now(), vec![bench.host(5, 5, None)], true)
        .await
        .unwrap();
    drop(ledger);
    assert_eq!(bench.open().0.position().sequence, 5);
}

#[tokio::test]
async fn a_flipped_bit_stops_the_position_and_spares_the_other_records() {
    let bench = Bench::new();
    drop(filled(&bench, 9).await);
    let log = bench.files("log.").pop().unwrap();
    let middle = fs::read(&log).unwrap().len() / 2;
    flip(&log, middle);
    let (ledger, records) = bench.open();
    assert_eq!(records.len(), 8);
    assert!(
        (3..7).contains(&ledger.position().sequence),
        "{:?}",
        ledger.position()
    );
}

#[tokio::test]
async fn a_damaged_base_is_answered_by_the_one_before() {
    let bench = Bench::new();
    let mut ledger = filled(&bench, 6).await;
    for round in 0..2_u64 {
        ledger.log_bytes = u64::MAX;
        ledger
            .admit(now(), vec![bench.host(20 + round, 20 + round, None)], true)
            .await
            .unwrap();
        ledger.compaction.take().unwrap().await.unwrap();
    }
    drop(ledger);
    assert_eq!(bench.files("base.").len(), 2);
    assert_eq!(bench.open().1.len(), 8);
    flip(&bench.files("base.")[1], 300);
    let (ledger, records) = bench.open();
    assert_eq!((records.len(), ledger.position().sequence), (8, 21));
}

#[tokio::test]
async fn when_no_base_is_whole_the_stream_is_taken_over_again() {
    let bench = Bench::new();
    let mut ledger = filled(&bench, 6).await;
    ledger.log_bytes = u64::MAX;
    ledger
        .admit(now(), vec![bench.host(20, 20, None)], true)
        .await
        .unwrap();
    ledger.compaction.take().unwrap().await.unwrap();
    drop(ledger);
    flip(&bench.files("base.")[0], 300);
    assert_eq!(bench.open().0.resume(now()), None);
}

#[tokio::test]
async fn a_record_whose_key_is_no_longer_trusted_is_not_taken_from_disk() {
    let mut bench = Bench::new();
    drop(filled(&bench, 3).await);
    bench.ring = KeyRing::new([SigningKey::generate(KeyRole::Record).public()]);
    assert_eq!(bench.open().1.len(), 0);
}

#[tokio::test]
async fn an_edge_that_was_away_too_long_starts_over_but_keeps_what_it_has() {
    let bench = Bench::new();
    drop(filled(&bench, 3).await);
    let (ledger, records) = bench.open();
    assert_eq!(
        ledger.resume(now() + MAX_ABSENCE + Duration::from_secs(5)),
        None
    );
    assert_eq!(records.len(), 3);
}

#[tokio::test]
async fn a_takeover_drops_a_few_and_refuses_to_drop_many() {
    let bench = Bench::new();
    let mut ledger = filled(&bench, 60).await;
    let key = |n: u64| bench.host(n, n, None).key;
    let most: BTreeSet<String> = (1..=55).map(key).collect();
    assert_eq!(ledger.drop_missing(&most).await.unwrap().len(), 5);
    let few: BTreeSet<String> = (1..=30).map(key).collect();
    assert!(matches!(
        ledger.drop_missing(&few).await,
        Err(StateError::Shrinks {
            missing: 25,
            held: 55,
            ..
        })
    ));
    drop(ledger);
    assert_eq!(bench.open().1.len(), 55);
}

#[tokio::test]
async fn what_cannot_be_written_does_not_count() {
    let bench = Bench::new();
    let mut ledger = filled(&bench, 2).await;
    // The next append goes to a new log, in a folder that is gone.
    ledger.log = None;
    ledger.log_number += 1;
    let folder = bench.folder.path().with_extension("away");
    fs::rename(bench.folder.path(), &folder).unwrap();
    assert!(
        ledger
            .admit(now(), vec![bench.host(1, 9, None)], true)
            .await
            .is_err()
    );
    fs::rename(&folder, bench.folder.path()).unwrap();
    let decisions = ledger
        .admit(now(), vec![bench.host(1, 5, None)], true)
        .await
        .unwrap();
    assert_eq!(
        decisions[0].order,
        Order::Newer,
        "the record that was not written must not be remembered"
    );
}
