//! State across restarts, torn writes, flipped bits, folding and takeovers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use helix_routing::id::{Generation, SiteId};
use helix_routing::key::{self, Scope};
use helix_routing::record::HostRecord;
use helix_routing::seal::KeyRole;
use helix_routing::snapshot::{self, Part, PartContent, SnapshotIndex};
use helix_routing::wire::Wire;
use helix_service::keys::{Address, KeyRing, SigningKey};
use tempfile::TempDir;

use super::base::Base;
use super::*;
use crate::feed::record;

const LIFE: &str = "00000000000000aa";

struct Bench {
    folder: TempDir,
    signer: SigningKey,
    ring: Arc<KeyRing>,
}

impl Bench {
    fn new() -> Self {
        let signer = SigningKey::generate(KeyRole::Record);
        let ring = Arc::new(KeyRing::new([signer.public()]));
        Self {
            folder: tempfile::tempdir().unwrap(),
            signer,
            ring,
        }
    }

    fn open(&self) -> (Ledger, Vec<Opened>) {
        let mut all = Vec::new();
        let folder = self.folder.path().to_owned();
        let ring = Arc::clone(&self.ring);
        let ledger = Ledger::open(folder, Scope::Global, ring, |opened| all.extend(opened));
        (ledger.unwrap(), all)
    }

    /// What a start finds: hosts and their sites.
    fn found(&self) -> Model {
        let (_, records) = self.open();
        let count = records.len();
        let found: Model = records
            .into_iter()
            .map(|opened| match opened.record {
                Record::Host(host) => (host.host.to_string(), (host.generation.0, host.site)),
                other => unreachable!("a stream of hosts has {other:?}"),
            })
            .collect();
        assert_eq!(found.len(), count, "each record is handed out once");
        found
    }

    fn address(&self, key: &str, generation: Generation) -> Address {
        Address {
            stream: "KV_g".to_owned(),
            key: key.to_owned(),
            incarnation: LIFE.parse().unwrap(),
            epoch: Epoch(1),
            generation,
        }
    }

    /// The record of host number `n` at a sequence, which is also its generation.
    fn host(&self, n: u64, sequence: u64, site: Option<&str>) -> Opened {
        let record = host_record(n, sequence, site);
        let key = key::host(&record.host);
        let address = self.address(&key, record.generation);
        let sealed = self.signer.seal(address, record.encode()).into();
        Opened {
            by_operator: false,
            sequence,
            ..record::open(&self.ring, &Scope::Global, None, &key, sealed).unwrap()
        }
    }

    /// A snapshot of these hosts, where a takeover finds it.
    fn snapshot(
        &self,
        ledger: &Ledger,
        purpose: Purpose,
        at: u64,
        model: &Model,
        may_drop: bool,
    ) -> Base {
        let mut records: Vec<(String, Vec<u8>)> = model
            .iter()
            .map(|(host, (generation, site))| {
                let record = HostRecord {
                    host: host.parse().unwrap(),
                    epoch: Epoch(1),
                    generation: Generation(*generation),
                    site: site.clone(),
                };
                (key::host(&record.host), record.encode())
            })
            .collect();
        records.sort();
        let mut index = SnapshotIndex {
            at_sequence: at,
            at: now(),
            records: records.len() as u64,
            may_drop,
            parts: Vec::new(),
        };
        let mut parts = Vec::new();
        // Small parts, so that a few thousand records are several.
        for records in records.chunks(1500) {
            let mut content = PartContent::default();
            for (key, body) in records {
                content.push(key, body);
            }
            let part = zstd::encode_all(&content.into_bytes()[..], 1).unwrap();
            index.parts.push(Part {
                digest: helix_service::digest::sha256(&part),
                bytes: part.len() as u64,
            });
            parts.extend(part);
        }
        let address = self.address(key::SNAPSHOT_NAME, Generation(0));
        let sealed = self.signer.seal(address, index.encode());
        let path = ledger.incoming(purpose);
        fs::write(
            &path,
            [&snapshot::head(sealed.len())[..], &sealed, &parts].concat(),
        )
        .unwrap();
        let base = Base::open(&path, &self.ring, &Scope::Global).unwrap();
        base.verify().unwrap();
        base
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

/// Generation and site of each host.
type Model = BTreeMap<String, (u64, Option<SiteId>)>;

fn host_record(n: u64, generation: u64, site: Option<&str>) -> HostRecord {
    HostRecord {
        host: format!("h{n}.example.com").parse().unwrap(),
        epoch: Epoch(1),
        generation: Generation(generation),
        site: site.map(|site| site.parse().unwrap()),
    }
}

/// Takes a snapshot over as a feed does, and returns how many of its records were newer, and the keys it lacks.
async fn adopt(
    ledger: &mut Ledger,
    base: Base,
    purpose: Purpose,
) -> Result<(usize, Vec<String>), StateError> {
    ledger.adopt(base, purpose);
    let (mut newer, mut missing) = (0, Vec::new());
    loop {
        let piece = ledger.next_piece().await;
        match ledger.take_piece(piece).await? {
            Progress::Compared => {}
            Progress::Based { missing: found } => missing = found,
            Progress::Slice(slice) => {
                assert!(slice.refused.is_empty(), "{:?}", slice.refused);
                newer += slice.newer.len();
            }
            Progress::Done { .. } => break,
        }
        ledger.read_on();
    }
    missing.sort();
    Ok((newer, missing))
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
async fn folding_the_logs_loses_nothing() {
    let bench = Bench::new();
    let mut ledger = filled(&bench, 6).await;
    for round in 0..2_u64 {
        ledger.log_bytes = COMPACT_BYTES;
        ledger.older_bytes = 0;
        ledger
            .admit(now(), vec![bench.host(2 + round, 20 + round, None)], true)
            .await
            .unwrap();
        ledger.compaction.take().unwrap().await.unwrap();
    }
    ledger
        .drop_keys(vec![bench.host(1, 1, None).key])
        .await
        .unwrap();
    drop(ledger);
    assert_eq!(bench.files("log.").len(), 2);
    let (ledger, records) = bench.open();
    assert_eq!((records.len(), ledger.position().sequence), (5, 21));
    assert_eq!(
        records
            .iter()
            .filter(|record| record.is_tombstone())
            .count(),
        2
    );
}

#[tokio::test]
async fn a_record_whose_key_is_no_longer_trusted_is_not_taken_from_disk() {
    let mut bench = Bench::new();
    drop(filled(&bench, 3).await);
    bench.ring = Arc::new(KeyRing::new([
        SigningKey::generate(KeyRole::Record).public()
    ]));
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

#[path = "takeover_tests.rs"]
mod takeovers;
