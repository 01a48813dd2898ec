//! Records outlive binaries: bytes that were once written stay readable, and no bytes from outside make a reader panic.
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod samples;

use helix_routing::edge::record::EdgeRecord;
use helix_routing::edge::report::EdgeReport;
use helix_routing::gate::record::GateRecord;
use helix_routing::gate::report::GatesReport;
use helix_routing::host::{Host, HostPattern, under_base};
use helix_routing::id::Epoch;
use helix_routing::in_flight::InFlightReport;
use helix_routing::protection::{MAX_EXEMPT, MAX_ITERATIONS, Protection};
use helix_routing::record::{
    Beacon, HostRecord, MAX_PINS, PurgeRecord, ReleaseRef, SiteRecord, Snapshot, TermRecord,
};
use helix_routing::report::{Heartbeat, PurgeReport, Refusal, SiteReport, WindowReport};
use helix_routing::seal::{self, Seal};
use helix_routing::snapshot::{self, Part, PartContent, PartRecords, SnapshotIndex};
use helix_routing::time::Timestamp;
use helix_routing::wire::{Wire, WireError};
use proptest::prelude::*;

use samples::*;

/// A value as it is written.
fn fixture<T: Wire + PartialEq + std::fmt::Debug>(value: &T, text: &str) {
    let bytes = value.encode();
    let written: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        written,
        text,
        "{} is written differently: that needs a new version",
        T::WHAT
    );
    assert_eq!(T::decode(&bytes).unwrap(), *value);
}

#[test]
fn every_record_is_written_as_it_always_was() {
    fixture(
        &protected_site_record(),
        include_str!("../fixtures/site-record-3.hex").trim(),
    );
    fixture(
        &host_record(),
        include_str!("../fixtures/host-record-1.hex").trim(),
    );
    fixture(
        &TermRecord { epoch: Epoch(3) },
        include_str!("../fixtures/term-record-1.hex").trim(),
    );
    fixture(&beacon(), include_str!("../fixtures/beacon-1.hex").trim());
    fixture(
        &site_report(),
        include_str!("../fixtures/site-report-1.hex").trim(),
    );
    fixture(
        &purge_record(),
        include_str!("../fixtures/purge-record-1.hex").trim(),
    );
    fixture(
        &purge_report(),
        include_str!("../fixtures/purge-report-1.hex").trim(),
    );
    fixture(
        &gate_record(),
        include_str!("../fixtures/gate-record-1.hex").trim(),
    );
    fixture(
        &gates_report(),
        include_str!("../fixtures/gates-report-1.hex").trim(),
    );
    fixture(
        &in_flight_report(),
        include_str!("../fixtures/in-flight-report-1.hex").trim(),
    );
    fixture(
        &edge_record(),
        include_str!("../fixtures/edge-record-1.hex").trim(),
    );
    fixture(
        &edge_report(),
        include_str!("../fixtures/edge-report-1.hex").trim(),
    );
    fixture(
        &window_report(),
        include_str!("../fixtures/window-report-1.hex").trim(),
    );
    fixture(
        &heartbeat(),
        include_str!("../fixtures/heartbeat-1.hex").trim(),
    );
}

#[test]
fn version_1_of_a_site_record_stays_readable_and_can_be_written() {
    let text = include_str!("../fixtures/site-record-1.hex").trim();
    let bytes = from_hex(text);
    assert_eq!(SiteRecord::decode(&bytes).unwrap(), site_record());
    assert_eq!(site_record().encode_for(1), bytes);
    let full = full_site_record();
    let old = SiteRecord::decode(&full.encode_for(1)).unwrap();
    assert_eq!(old, site_record(), "what it cannot say is left out");
    assert_eq!(full.encode_for(3), full.encode());
    assert_eq!(full.encode_for(9), full.encode());
}

#[test]
fn version_2_of_a_site_record_stays_readable_and_can_be_written() {
    let bytes = from_hex(include_str!("../fixtures/site-record-2.hex").trim());
    assert_eq!(SiteRecord::decode(&bytes).unwrap(), full_site_record());
    assert_eq!(full_site_record().encode_for(2), bytes);
    let newest = newest_site_record();
    assert_eq!(
        newest.encode_for(2),
        bytes,
        "what it cannot say is left out"
    );
    assert_eq!(newest.encode_for(3), newest.encode());
}

#[test]
fn that_a_site_is_protected_is_left_out_of_no_version() {
    let protected = protected_site_record();
    for version in 0..=4 {
        let bytes = protected.encode_for(version);
        assert_eq!(bytes, protected.encode(), "version {version}");
    }
}

#[test]
fn a_protection_beyond_its_limits_is_refused() {
    type Change = fn(&mut Protection);
    let changes: [Change; 5] = [
        |protection| protection.secret.clear(),
        |protection| protection.secret = "x".repeat(1000),
        |protection| protection.password.as_mut().unwrap().iterations = 0,
        |protection| protection.password.as_mut().unwrap().iterations = MAX_ITERATIONS + 1,
        |protection| protection.exempt = vec!["/a".parse().unwrap(); MAX_EXEMPT + 1],
    ];
    for change in changes {
        let mut record = protected_site_record();
        change(record.protection.as_mut().unwrap());
        let decoded = SiteRecord::decode(&record.encode());
        assert!(decoded.is_err(), "{record:?}");
    }
    let mut bytes = protected_site_record().encode();
    let rule = b"/api/webhooks/*";
    let at = bytes.windows(rule.len()).position(|part| part == rule);
    bytes[at.unwrap()] = b'x';
    assert!(SiteRecord::decode(&bytes).is_err(), "a rule that is none");
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn a_weight_of_more_than_everybody_and_more_pins_than_there_may_be_are_refused() {
    for (weight, pins, is_legal) in [
        (Some(100), MAX_PINS, true),
        (Some(101), 1, false),
        (None, MAX_PINS + 1, false),
    ] {
        let full = full_site_record();
        let record = SiteRecord {
            weight,
            pins: vec![full.pins[0].clone(); pins],
            ..full
        };
        let read = SiteRecord::decode(&record.encode());
        assert_eq!(read.is_ok(), is_legal, "{weight:?} {pins}");
    }
}

#[test]
fn a_record_names_every_release_that_an_edge_has_to_keep() {
    let release = |digit: &str| ReleaseRef {
        release: digit.repeat(20).parse().unwrap(),
        artifact: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
    };
    let mut record = full_site_record();
    record.pins[1].release = release("d");
    record.guard.as_mut().unwrap().to = release("e");
    for digit in ["a", "b", "c", "d", "e"] {
        let named = release(digit);
        assert!(record.releases().any(|kept| *kept == named), "{digit}");
    }
}

#[test]
fn snapshots_of_both_versions_stay_readable() {
    let at = Timestamp::from_millis(1_700_000_000_000);
    let whole = Snapshot {
        at_sequence: 300,
        at,
        records: vec![b"ab".to_vec()],
    };
    fixture(&whole, include_str!("../fixtures/snapshot-1.hex").trim());
    let index = SnapshotIndex {
        at_sequence: 300,
        at,
        records: 2,
        may_drop: false,
        parts: vec![Part {
            digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
            bytes: 77,
        }],
    };
    assert!(index.is_sound());
    fixture(&index, include_str!("../fixtures/snapshot-2.hex").trim());
    assert!(matches!(
        Snapshot::decode(&index.encode()),
        Err(WireError::Version { found: 2, .. })
    ));
    let mut content = PartContent::default();
    content.push("h.00.a", b"xy");
    let bytes = content.into_bytes();
    let written: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        written,
        include_str!("../fixtures/snapshot-part-1.hex").trim()
    );
    let read: Result<Vec<_>, _> = PartRecords::new(&bytes).unwrap().collect();
    assert_eq!(read.unwrap(), [("h.00.a", b"xy".as_slice())]);
}

#[test]
fn a_snapshot_with_impossible_parts_is_not_sound() {
    let part = |bytes| Part {
        digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
        bytes,
    };
    let index = |parts| SnapshotIndex {
        at_sequence: 1,
        at: Timestamp::from_millis(0),
        records: 1,
        may_drop: false,
        parts,
    };
    assert!(index(Vec::new()).is_sound());
    for parts in [
        vec![part(0)],
        vec![part(u64::MAX)],
        vec![part(1); snapshot::MAX_PARTS + 1],
    ] {
        assert!(!index(parts).is_sound());
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    for (found, newest) in [(4, 3), (0, 3)] {
        let mut bytes = site_record().encode();
        bytes[0] = found;
        assert_eq!(
            SiteRecord::decode(&bytes),
            Err(WireError::Version {
                what: "site record",
                found,
                newest
            })
        );
    }
}

#[test]
fn bytes_left_over_or_missing_are_refused() {
    let mut bytes = host_record().encode();
    bytes.push(0);
    assert!(HostRecord::decode(&bytes).is_err());
    for length in 0..bytes.len() - 1 {
        assert!(
            HostRecord::decode(&bytes[..length]).is_err(),
            "{length} bytes were taken"
        );
    }
}

#[test]
fn an_illegal_name_inside_a_record_is_refused() {
    let mut record = host_record().encode();
    let at = record
        .windows(7)
        .position(|window| window == b"example")
        .unwrap();
    record[at] = b'_';
    assert!(HostRecord::decode(&record).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = SiteRecord::decode(&bytes);
        let _ = HostRecord::decode(&bytes);
        let _ = PurgeRecord::decode(&bytes);
        let _ = PurgeReport::decode(&bytes);
        let _ = GateRecord::decode(&bytes);
        let _ = GatesReport::decode(&bytes);
        let _ = Snapshot::decode(&bytes);
        let _ = SnapshotIndex::decode(&bytes);
        if let Ok(records) = PartRecords::new(&bytes) {
            let _ = records.count();
        }
        let _ = Beacon::decode(&bytes);
        let _ = SiteReport::decode(&bytes);
        let _ = WindowReport::decode(&bytes);
        let _ = InFlightReport::decode(&bytes);
        let _ = EdgeRecord::decode(&bytes);
        let _ = EdgeReport::decode(&bytes);
        let _ = Heartbeat::decode(&bytes);
        let _ = Refusal::decode(&bytes);
        let _ = Seal::decode(&bytes);
        let _ = seal::open(&bytes);
    }

    #[test]
    fn no_changed_byte_makes_a_reader_panic(at in 0usize..600, byte in any::<u8>()) {
        let mut bytes = full_site_record().encode();
        let length = bytes.len();
        bytes[at % length] = byte;
        let _ = SiteRecord::decode(&bytes);
    }

    #[test]
    fn what_reads_as_a_host_is_its_own_spelling(text in "\\PC{0,80}") {
        if let Ok(host) = Host::from_authority(&text) {
            prop_assert_eq!(&host, &host.as_str().parse().unwrap());
            prop_assert!(host.as_str().is_ascii());
            let _ = under_base(&host, &"helix.localhost".parse().unwrap());
        }
        if let Ok(pattern) = text.parse::<HostPattern>() {
            prop_assert_eq!(pattern.to_string().parse::<HostPattern>().unwrap(), pattern);
        }
    }
}
