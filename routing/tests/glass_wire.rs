//! What edges and a restored origin say to each other, and what an edge keeps of its overrides: bytes that were once written stay
//! readable, and no bytes from outside make a reader panic.
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use helix_routing::glass::{
    Cause, EndedOverride, EndedOverrides, EndedReport, LocalOverride, LocalReport, Overrides,
};
use helix_routing::id::Generation;
use helix_routing::recall::{Held, HeldRecord, HeldReport, Recall};
use helix_routing::record::ReleaseRef;
use helix_routing::time::Timestamp;
use helix_routing::wire::Wire;
use proptest::prelude::*;

fn release(digit: &str) -> ReleaseRef {
    ReleaseRef {
        release: digit.repeat(20).parse().unwrap(),
        artifact: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
    }
}

fn local_override() -> LocalOverride {
    LocalOverride {
        site: "shop/production".parse().unwrap(),
        release: release("a"),
        left: Some(release("b")),
        base: Generation(300),
        cause: Cause::Guard,
        reason: "5xx 25.00% of 80 requests".to_owned(),
        by: "local guard".to_owned(),
        since: Timestamp::from_millis(1_700_000_000_000),
        until: Timestamp::from_millis(1_700_003_600_000),
    }
}

fn local_report() -> LocalReport {
    LocalReport {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        site: "shop/production".parse().unwrap(),
        standing: Some(local_override()),
    }
}

fn overrides() -> Overrides {
    Overrides {
        standing: vec![LocalOverride {
            cause: Cause::Operator,
            left: None,
            ..local_override()
        }],
        guarded: [("shop/production".parse().unwrap(), Generation(300))].into(),
    }
}

fn ended_overrides() -> EndedOverrides {
    EndedOverrides {
        overrides: vec![EndedOverride {
            local: local_override(),
            ended: Timestamp::from_millis(1_700_000_000_500),
        }],
    }
}

fn ended_report() -> EndedReport {
    EndedReport {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        ended: ended_overrides(),
    }
}

fn recall() -> Recall {
    Recall {
        id: "00112233445566778899aabbccddeeff".to_owned(),
        stream: "KV_r_fra".to_owned(),
        incarnation: Some("00000000000000aa".parse().unwrap()),
        after: 300,
        heard: vec!["fra-2".parse().unwrap()],
        at: Timestamp::from_millis(1_700_000_000_000),
    }
}

fn held_report(held: Held) -> HeldReport {
    HeldReport {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0123456789abcdef".parse().unwrap(),
        recall: recall().id,
        stream: "KV_r_fra".to_owned(),
        page: 1,
        pages: 2,
        held,
    }
}

fn records() -> Held {
    Held::Records(vec![HeldRecord {
        key: "cut.shop/production".to_owned(),
        sealed: vec![1, 2, 255],
    }])
}

fn fixture<T: Wire + PartialEq + std::fmt::Debug>(value: &T, text: &str) {
    let bytes = value.encode();
    let written: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        written,
        text.trim(),
        "{} is written differently: that needs a new version",
        T::WHAT
    );
    assert_eq!(T::decode(&bytes).unwrap(), *value);
}

#[test]
fn what_is_said_of_overrides_and_of_what_is_held_is_written_as_it_always_was() {
    fixture(&local_report(), include_str!("fixtures/local-report-1.hex"));
    fixture(&overrides(), include_str!("fixtures/overrides-1.hex"));
    let ended = include_str!("fixtures/ended-overrides-1.hex");
    fixture(&ended_overrides(), ended);
    let ended = include_str!("fixtures/ended-report-1.hex");
    fixture(&ended_report(), ended);
    fixture(&recall(), include_str!("fixtures/recall-1.hex"));
    fixture(
        &held_report(records()),
        include_str!("fixtures/held-report-1.hex"),
    );
    fixture(
        &held_report(Held::Snapshot(vec![104, 120, 115, 50])),
        include_str!("fixtures/held-report-snapshot-1.hex"),
    );
}

#[test]
fn what_is_larger_than_it_may_be_is_refused() {
    let snapshot = |size| held_report(Held::Snapshot(vec![0; size])).encode();
    assert!(HeldReport::decode(&snapshot(HeldReport::MAX_BYTES / 2)).is_ok());
    assert!(HeldReport::decode(&snapshot(HeldReport::MAX_BYTES)).is_err());
    let mut long = local_report();
    if let Some(standing) = &mut long.standing {
        standing.reason = "x".repeat(LocalReport::MAX_BYTES);
    }
    assert!(LocalReport::decode(&long.encode()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = LocalReport::decode(&bytes);
        let _ = Overrides::decode(&bytes);
        let _ = EndedOverrides::decode(&bytes);
        let _ = EndedReport::decode(&bytes);
        let _ = Recall::decode(&bytes);
        let _ = HeldReport::decode(&bytes);
    }

    #[test]
    fn no_changed_byte_makes_a_reader_panic(at in 0usize..400, byte in any::<u8>()) {
        let mut bytes = local_report().encode();
        let length = bytes.len();
        bytes[at % length] = byte;
        let _ = LocalReport::decode(&bytes);
        let mut bytes = held_report(records()).encode();
        let length = bytes.len();
        bytes[at % length] = byte;
        let _ = HeldReport::decode(&bytes);
    }
}
