//! Forged, replayed, misplaced and newer records against the one door they all have to pass.

use helix_service::keys::{Address, SigningKey};

use helix_routing::id::Digest;

use super::*;

const LIFE: &str = "00000000000000aa";

#[derive(Clone, Copy)]
struct Sample {
    stream: &'static str,
    key: &'static str,
    life: &'static str,
    epoch: u64,
    generation: u64,
    site: &'static str,
    region: &'static str,
    record_epoch: u64,
}

const GOOD: Sample = Sample {
    stream: "KV_r_fra",
    key: "cut.shop/production",
    life: LIFE,
    epoch: 3,
    generation: 7,
    site: "shop/production",
    region: "fra",
    record_epoch: 3,
};

fn body(sample: &Sample) -> Vec<u8> {
    SiteRecord {
        site: sample.site.parse().unwrap(),
        region: sample.region.parse().unwrap(),
        epoch: Epoch(sample.record_epoch),
        generation: Generation(7),
        live_since: Generation(7),
        live: None,
        candidate: None,
        weight: None,
        previous: Vec::new(),
        pins: Vec::new(),
        overridden: None,
        guard: None,
        requires: None,
        protection: None,
        hold: None,
        bake_until: None,
        removed: false,
    }
    .encode()
}

fn seal(signer: &SigningKey, sample: &Sample, body: Vec<u8>) -> Bytes {
    let address = Address {
        stream: sample.stream.to_owned(),
        key: sample.key.to_owned(),
        incarnation: sample.life.parse().unwrap(),
        epoch: Epoch(sample.epoch),
        generation: Generation(sample.generation),
    };
    signer.seal(address, body).into()
}

fn open_at(ring: &KeyRing, scope: &Scope, key: &str, sealed: Bytes) -> Result<Opened, Rejected> {
    open(ring, scope, Some(&LIFE.parse().unwrap()), key, sealed)
}

#[test]
fn a_record_counts_only_in_its_place() {
    let signer = SigningKey::generate(KeyRole::Record);
    let ring = KeyRing::new([signer.public()]);
    let fra = Scope::Region("fra".parse().unwrap());
    let verdict = |sample: &Sample, found: &str| {
        open_at(&ring, &fra, found, seal(&signer, sample, body(sample)))
    };
    assert!(verdict(&GOOD, GOOD.key).is_ok());
    let hostile = [
        (
            "another stream",
            Sample {
                stream: "KV_r_iad",
                ..GOOD
            },
        ),
        (
            "another key",
            Sample {
                key: "cut.shop/preview/1",
                ..GOOD
            },
        ),
        (
            "another life",
            Sample {
                life: "00000000000000bb",
                ..GOOD
            },
        ),
        (
            "another generation",
            Sample {
                generation: 8,
                ..GOOD
            },
        ),
        (
            "another site inside",
            Sample {
                site: "shoe/production",
                ..GOOD
            },
        ),
        (
            "another region inside",
            Sample {
                region: "iad",
                ..GOOD
            },
        ),
        (
            "a later term inside",
            Sample {
                record_epoch: 4,
                ..GOOD
            },
        ),
    ];
    for (what, sample) in hostile {
        assert!(verdict(&sample, GOOD.key).is_err(), "{what} was taken");
    }
    assert!(matches!(
        verdict(&Sample { key: "x.y", ..GOOD }, "x.y"),
        Err(Rejected::UnknownKey)
    ));
}

#[test]
fn a_record_of_a_stranger_is_refused() {
    let ring = KeyRing::new([SigningKey::generate(KeyRole::Record).public()]);
    let stranger = SigningKey::generate(KeyRole::Record);
    let fra = Scope::Region("fra".parse().unwrap());
    let sealed = seal(&stranger, &GOOD, body(&GOOD));
    assert!(matches!(
        open_at(&ring, &fra, GOOD.key, sealed),
        Err(Rejected::Seal(VerifyError::UnknownKey { .. }))
    ));
}

#[test]
fn a_record_of_a_newer_version_is_refused_and_says_so() {
    let signer = SigningKey::generate(KeyRole::Record);
    let ring = KeyRing::new([signer.public()]);
    let fra = Scope::Region("fra".parse().unwrap());
    let mut newer = body(&GOOD);
    newer[0] = 99;
    let error = open_at(&ring, &fra, GOOD.key, seal(&signer, &GOOD, newer)).unwrap_err();
    assert!(
        matches!(error, Rejected::Body(WireError::Version { found: 99, .. })),
        "{error}"
    );
}

#[test]
fn hosts_are_global_and_sites_regional() {
    let signer = SigningKey::generate(KeyRole::Record);
    let ring = KeyRing::new([signer.public()]);
    let host: helix_routing::host::HostPattern = "www.example.com".parse().unwrap();
    let found = key::host(&host);
    let record = HostRecord {
        host,
        epoch: Epoch(3),
        generation: Generation(7),
        site: None,
    };
    let address = |stream: &str| Address {
        stream: stream.to_owned(),
        key: found.clone(),
        incarnation: LIFE.parse().unwrap(),
        epoch: Epoch(3),
        generation: Generation(7),
    };
    let global: Bytes = signer.seal(address("KV_g"), record.encode()).into();
    assert!(
        open_at(&ring, &Scope::Global, &found, global)
            .unwrap()
            .is_tombstone()
    );
    let regional: Bytes = signer.seal(address("KV_r_fra"), record.encode()).into();
    let fra = Scope::Region("fra".parse().unwrap());
    assert!(matches!(
        open_at(&ring, &fra, &found, regional),
        Err(Rejected::UnknownKey)
    ));
}

/// The record of one purge of `site` in `region`, as it would be sealed by an origin in term 3.
fn gate(site: &str, region: &str, generation: u64) -> GateRecord {
    GateRecord {
        site: site.parse().unwrap(),
        region: region.parse().unwrap(),
        epoch: Epoch(3),
        generation: Generation(generation),
        at: helix_routing::time::Timestamp::from_millis(0),
        release: helix_routing::record::ReleaseRef {
            release: "a".repeat(20).parse().unwrap(),
            artifact: Digest::from_hex(&"a".repeat(64)).unwrap(),
        },
        gate: None,
    }
}

#[test]
fn runs_of_gates_count_only_in_their_place() {
    const KEY: &str = "gate.shop/production";
    let signer = SigningKey::generate(KeyRole::Record);
    let ring = KeyRing::new([signer.public()]);
    let fra = Scope::Region("fra".parse().unwrap());
    let place = Sample { key: KEY, ..GOOD };
    let verdict = |sample: &Sample, found: &str, record: &GateRecord| {
        open_at(&ring, &fra, found, seal(&signer, sample, record.encode()))
    };
    let good = gate("shop/production", "fra", 7);
    assert_eq!(
        verdict(&place, KEY, &good).unwrap().generation,
        Generation(7)
    );
    for (what, found, record) in [
        ("another key", "gate.shop/preview/1", good.clone()),
        ("another site", KEY, gate("shoe/production", "fra", 7)),
        ("another region", KEY, gate("shop/production", "iad", 7)),
        ("another number", KEY, gate("shop/production", "fra", 8)),
    ] {
        assert!(verdict(&place, found, &record).is_err(), "{what} was taken");
    }
    assert!(verdict(&GOOD, GOOD.key, &good).is_err(), "a site's key");
}

fn purges(site: &str, region: &str, generation: u64, listed: usize) -> PurgeRecord {
    let entry = helix_routing::record::PurgeEntry {
        at: helix_routing::time::Timestamp::from_millis(0),
        release: None,
        urls: Vec::new(),
        tags: vec!["news".to_owned()],
        stale: false,
    };
    PurgeRecord {
        site: site.parse().unwrap(),
        region: region.parse().unwrap(),
        epoch: Epoch(3),
        generation: Generation(generation),
        purges: vec![entry; listed],
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn purges_count_only_in_their_place_and_in_a_number_that_can_be() {
    const KEY: &str = "purge.shop/production";
    let signer = SigningKey::generate(KeyRole::Record);
    let ring = KeyRing::new([signer.public()]);
    let fra = Scope::Region("fra".parse().unwrap());
    let verdict = |sample: &Sample, found: &str, record: &PurgeRecord| {
        open_at(&ring, &fra, found, seal(&signer, sample, record.encode()))
    };
    let place = Sample { key: KEY, ..GOOD };
    let good = purges("shop/production", "fra", 7, 2);
    let opened = verdict(&place, KEY, &good).unwrap();
    assert_eq!(
        (opened.generation, opened.is_tombstone()),
        (Generation(7), false)
    );
    let elsewhere = Sample {
        stream: "KV_r_iad",
        ..place
    };
    let another_life = Sample {
        life: "00000000000000bb",
        ..place
    };
    for (what, sample, found, record) in [
        ("another stream", &elsewhere, KEY, good.clone()),
        ("another life", &another_life, KEY, good.clone()),
        ("another key", &place, "purge.shop/preview/1", good.clone()),
        ("a site's key", &GOOD, GOOD.key, good.clone()),
        (
            "another site inside",
            &place,
            KEY,
            purges("shoe/production", "fra", 7, 2),
        ),
        (
            "another region inside",
            &place,
            KEY,
            purges("shop/production", "iad", 7, 2),
        ),
        (
            "another number inside",
            &place,
            KEY,
            purges("shop/production", "fra", 8, 2),
        ),
        (
            "no purges",
            &place,
            KEY,
            purges("shop/production", "fra", 7, 0),
        ),
        (
            "more than there were",
            &place,
            KEY,
            purges("shop/production", "fra", 7, 8),
        ),
        (
            "more than are listed",
            &place,
            KEY,
            purges("shop/production", "fra", 7, 129),
        ),
    ] {
        assert!(verdict(sample, found, &record).is_err(), "{what} was taken");
    }
    let mut newer = good.encode();
    newer[0] = 99;
    assert!(open_at(&ring, &fra, KEY, seal(&signer, &place, newer)).is_err());
    let stranger = SigningKey::generate(KeyRole::Record);
    assert!(open_at(&ring, &fra, KEY, seal(&stranger, &place, good.encode())).is_err());
    assert!(matches!(
        open_at(
            &ring,
            &Scope::Global,
            KEY,
            seal(
                &signer,
                &Sample {
                    stream: "KV_g",
                    ..place
                },
                good.encode()
            )
        ),
        Err(Rejected::UnknownKey)
    ));
}

#[test]
fn an_operators_key_opens_sites_and_the_term_of_a_region_and_nothing_else() {
    let (origin, operator) = (
        SigningKey::generate(KeyRole::Record),
        SigningKey::generate(KeyRole::Operator),
    );
    let ring = KeyRing::new([origin.public(), operator.public()]);
    let fra = Scope::Region("fra".parse().unwrap());
    let opened = open_at(&ring, &fra, GOOD.key, seal(&operator, &GOOD, body(&GOOD)));
    assert!(opened.unwrap().by_operator);
    let opened = open_at(&ring, &fra, GOOD.key, seal(&origin, &GOOD, body(&GOOD)));
    assert!(!opened.unwrap().by_operator);
    let term = Sample {
        key: key::TERM,
        generation: 0,
        ..GOOD
    };
    let raised = TermRecord { epoch: Epoch(3) }.encode();
    let opened = open_at(
        &ring,
        &fra,
        key::TERM,
        seal(&operator, &term, raised.clone()),
    );
    assert!(opened.unwrap().by_operator);

    let host = Sample {
        stream: "KV_g",
        key: "h.00.www=example=com",
        ..GOOD
    };
    let drain = Sample {
        key: "edge.fra-1",
        ..GOOD
    };
    let global_term = Sample {
        stream: "KV_g",
        ..term
    };
    for (scope, sample, body) in [
        (&Scope::Global, &host, body(&GOOD)),
        (&Scope::Global, &global_term, raised),
        (&fra, &drain, body(&GOOD)),
    ] {
        let sealed = seal(&operator, sample, body);
        let refused = open_at(&ring, scope, sample.key, sealed).unwrap_err();
        assert!(
            matches!(refused, Rejected::Seal(VerifyError::Role { .. })),
            "{}: {refused:?}",
            sample.key
        );
    }
    // A key that nobody pins, and a record for another region.
    let foreign = SigningKey::generate(KeyRole::Operator);
    assert!(open_at(&ring, &fra, GOOD.key, seal(&foreign, &GOOD, body(&GOOD))).is_err());
    let iad = Scope::Region("iad".parse().unwrap());
    assert!(open_at(&ring, &iad, GOOD.key, seal(&operator, &GOOD, body(&GOOD))).is_err());
}
