//! Answers of edges as they come: whole, in part, again, and wrong.

use helix_routing::host::HostPattern;
use helix_routing::id::Incarnation;
use helix_routing::key::SNAPSHOT_NAME;
use helix_routing::snapshot::{Part, PartContent, SnapshotIndex, head};
use helix_routing::time::Timestamp;
use helix_service::digest::sha256;
use helix_service::keys::{Address, SigningKey};

use super::*;

const STREAM: &str = "KV_g";

fn host(name: &str, epoch: u64, generation: u64, site: &str) -> HostRecord {
    HostRecord {
        host: name.parse().unwrap(),
        epoch: Epoch(epoch),
        generation: Generation(generation),
        site: Some(site.parse().unwrap()),
    }
}

fn key_of(name: &str) -> String {
    key::host(&name.parse::<HostPattern>().unwrap())
}

fn address(key: &str, epoch: u64, generation: u64) -> Address {
    let incarnation: Incarnation = "00000000000000aa".parse().unwrap();
    Address {
        stream: STREAM.to_owned(),
        key: key.to_owned(),
        incarnation,
        epoch: Epoch(epoch),
        generation: Generation(generation),
    }
}

fn sealed(signer: &SigningKey, name: &str, record: &HostRecord) -> HeldRecord {
    let key = key_of(name);
    let address = address(&key, record.epoch.0, record.generation.0);
    HeldRecord {
        sealed: signer.seal(address, record.encode()),
        key,
    }
}

/// A snapshot with a part for each of `parts`.
fn snapshot(signer: &SigningKey, epoch: u64, parts: &[&[(&str, HostRecord)]]) -> Vec<u8> {
    let (mut index, mut stored) = (Vec::new(), Vec::new());
    let mut count = 0;
    for records in parts {
        let mut content = PartContent::default();
        for (name, record) in *records {
            content.push(&key_of(name), &record.encode());
            count += 1;
        }
        let bytes = zstd::encode_all(content.into_bytes().as_slice(), 1).unwrap();
        index.push(Part {
            digest: sha256(&bytes),
            bytes: bytes.len() as u64,
        });
        stored.extend(bytes);
    }
    let index = SnapshotIndex {
        at_sequence: 9,
        at: Timestamp::from_millis(0),
        records: count,
        may_drop: false,
        parts: index,
    };
    let sealed = signer.seal(address(SNAPSHOT_NAME, epoch, 0), index.encode());
    let mut object = head(sealed.len()).to_vec();
    object.extend(sealed);
    object.extend(stored);
    object
}

fn page(edge: &str, page: u32, pages: u32, held: recall::Held) -> HeldReport {
    HeldReport {
        edge: edge.parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        recall: "one".to_owned(),
        stream: STREAM.to_owned(),
        page,
        pages,
        held,
    }
}

fn say(heard: &mut Heard, ring: &KeyRing, edge: &str, snapshot: &[u8], records: Vec<HeldRecord>) {
    let held = recall::pages(snapshot, records);
    let pages = u32::try_from(held.len()).unwrap();
    for (number, held) in (0..pages).zip(held) {
        heard.take(ring, page(edge, number, pages, held));
    }
}

fn generations(heard: &Heard) -> Vec<(&str, u64)> {
    let records = heard.records.iter();
    records
        .map(|((_, key), held)| (key.as_str(), held.generation.0))
        .collect()
}

#[test]
fn of_each_record_the_newest_counts_whether_a_snapshot_or_an_envelope_holds_it() {
    let signer = SigningKey::generate(KeyRole::Record);
    let ring = KeyRing::new([signer.public()]);
    let (a, b, c) = ("a.example", "b.example", "c.example");
    let object = snapshot(
        &signer,
        5,
        &[
            &[(a, host(a, 2, 1, "shop/production"))],
            &[(b, host(b, 5, 7, "shop/production"))],
        ],
    );
    let mut heard = Heard::default();
    let newer = sealed(&signer, a, &host(a, 6, 2, "shop/production"));
    let older = sealed(&signer, b, &host(b, 4, 6, "shop/production"));
    say(&mut heard, &ring, "fra-1", &object, vec![newer, older]);
    assert!(heard.has(&"fra-1".parse().unwrap(), STREAM));
    let other = sealed(&signer, c, &host(c, 3, 4, "shop/production"));
    say(&mut heard, &ring, "fra-2", &object, vec![other]);
    let (a, b, c) = (key_of(a), key_of(b), key_of(c));
    let mut expected = [(a.as_str(), 2), (b.as_str(), 7), (c.as_str(), 4)];
    expected.sort_unstable();
    assert_eq!(generations(&heard), expected);
    assert_eq!(heard.highest, Epoch(6));
    assert_eq!(heard.of(STREAM).len(), 2);
}

#[test]
fn an_answer_counts_when_all_of_it_came_in_its_order_and_may_begin_anew() {
    let signer = SigningKey::generate(KeyRole::Record);
    let ring = KeyRing::new([signer.public()]);
    let edge: EdgeId = "fra-1".parse().unwrap();
    let name = "a.example";
    let object = snapshot(
        &signer,
        5,
        &[&[(name, host(name, 5, 1, "shop/production"))]],
    );
    let cut = |at: usize, to: usize| recall::Held::Snapshot(object[at..to].to_vec());
    let mut heard = Heard::default();
    heard.take(&ring, page("fra-1", 0, 3, cut(0, 10)));
    // One was lost, so what comes after it says nothing.
    heard.take(&ring, page("fra-1", 2, 3, cut(50, object.len())));
    assert!(!heard.has(&edge, STREAM) && heard.records.is_empty());
    for (number, (at, to)) in (0..).zip([(0, 10), (10, 50), (50, object.len())]) {
        assert!(!heard.has(&edge, STREAM));
        heard.take(&ring, page("fra-1", number, 3, cut(at, to)));
    }
    assert!(heard.has(&edge, STREAM));
    assert_eq!(heard.records.len(), 1);
    // Said again, it changes nothing.
    heard.take(&ring, page("fra-1", 0, 3, cut(0, 10)));
    assert!(heard.has(&edge, STREAM));
}

#[test]
fn what_was_not_signed_by_an_origin_or_an_operator_is_left_out() {
    let (signer, foreign) = (
        SigningKey::generate(KeyRole::Record),
        SigningKey::generate(KeyRole::Record),
    );
    let ring = KeyRing::new([signer.public()]);
    let name = "a.example";
    let record = host(name, 5, 1, "evil/production");
    let whole = snapshot(&signer, 5, &[&[(name, record.clone())]]);
    let mut changed = whole.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let by_other = snapshot(&foreign, 9, &[&[(name, record.clone())]]);
    let mut cut = whole.clone();
    cut.truncate(last);
    for (what, object) in [
        ("changed", &changed),
        ("signed by another", &by_other),
        ("cut", &cut),
        ("no snapshot", &b"SQLite format 3\0".to_vec()),
    ] {
        let mut heard = Heard::default();
        say(&mut heard, &ring, "fra-1", object, Vec::new());
        assert!(heard.records.is_empty(), "{what}");
        assert!(heard.highest <= Epoch(5), "{what}");
        assert!(
            heard.has(&"fra-1".parse().unwrap(), STREAM),
            "{what}: it is not waited for"
        );
    }
    let mut moved = sealed(&signer, name, &record);
    moved.key = key_of("b.example");
    for held in [moved, sealed(&foreign, name, &record)] {
        let mut heard = Heard::default();
        say(&mut heard, &ring, "fra-1", &[], vec![held]);
        assert!(heard.records.is_empty());
    }
    // A digest that was seen in a good snapshot does not carry a bad one.
    let mut heard = Heard::default();
    say(&mut heard, &ring, "fra-1", &changed, Vec::new());
    say(&mut heard, &ring, "fra-2", &whole, Vec::new());
    assert_eq!(heard.records.len(), 1);
}

#[test]
fn of_two_records_of_one_generation_that_of_the_later_term_counts() {
    let signer = SigningKey::generate(KeyRole::Record);
    let ring = KeyRing::new([signer.public()]);
    let name = "a.example";
    for order in [[3, 4], [4, 3]] {
        let mut heard = Heard::default();
        for (edge, epoch) in ["fra-1", "fra-2"].into_iter().zip(order) {
            let record = host(name, epoch, 8, &format!("shop-{epoch}/production"));
            let held = vec![sealed(&signer, name, &record)];
            say(&mut heard, &ring, edge, &[], held);
        }
        let held = heard.records.values().next().unwrap();
        assert_eq!(held.epoch, Epoch(4));
    }
}
