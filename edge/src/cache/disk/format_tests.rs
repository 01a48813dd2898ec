use super::*;
use crate::cache::store::tests::key;

fn freshness() -> Freshness {
    Freshness {
        lifetime: 60,
        initial_age: 3,
        received: 1_700_000_000,
        no_cache: false,
        must_revalidate: true,
        shared_only_fresh: false,
        stale_while_revalidate: 5,
        stale_if_error: 6,
        authorized: true,
    }
}

fn head(body: &[u8]) -> Head {
    let key = key("/a?b=c");
    let name = Name {
        key: hash(&key),
        serial: 7,
    };
    let facts = Facts {
        key: Arc::new(key),
        selected: vec![(http::header::ACCEPT, "text/html".to_owned())],
        tags: vec!["news".to_owned()],
    };
    let headers = HeaderMap::from_iter([
        (http::header::ETAG, HeaderValue::from_static("\"a\"")),
        (
            http::header::SERVER,
            HeaderValue::from_bytes(b"caf\xe9").unwrap(),
        ),
    ]);
    let mut summing = Summing::new();
    summing.take(body);
    let body = summing.finish(false);
    Head::new(
        name,
        &facts,
        StatusCode::OK,
        &headers,
        &freshness(),
        9,
        false,
        body,
    )
}

fn opened(bytes: &[u8], name: Name) -> Result<Head, Harm> {
    let (prelude, rest) = bytes.split_first_chunk().ok_or(Harm::Damaged)?;
    let length = Head::length(prelude)?;
    Head::open(prelude, rest.get(..length).ok_or(Harm::Damaged)?, name)
}

#[test]
fn a_head_is_read_as_it_was_written() {
    let written = head(b"body");
    let read = opened(&written.seal(), written.name).unwrap();
    assert_eq!(read, written);
    let facts = read.facts().unwrap();
    assert_eq!((*facts.key).clone(), key("/a?b=c"));
    assert_eq!(facts.selected[0].1, "text/html");
    let (status, headers) = read.response().unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["server"].as_bytes(), b"caf\xe9");
}

#[test]
fn version_1_is_still_read() {
    const FIXTURE: &str = include_str!("fixtures/stored_1.hex");
    let bytes = hex::decode(FIXTURE.trim()).unwrap();
    let written = head(b"body");
    assert_eq!(hex::encode(written.seal()), FIXTURE.trim());
    assert_eq!(opened(&bytes, written.name).unwrap(), written);
}

#[test]
fn no_changed_byte_and_no_cut_off_tail_is_believed() {
    let written = head(b"body");
    let bytes = written.seal();
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(
                opened(&changed, written.name).is_err(),
                "byte {at}, bit {bit}"
            );
        }
        assert!(opened(&bytes[..at], written.name).is_err(), "cut at {at}");
    }
}

#[test]
fn a_head_in_another_files_place_is_not_believed() {
    let written = head(b"body");
    for other in [
        Name {
            serial: 8,
            ..written.name
        },
        Name {
            key: written.name.key ^ 1,
            ..written.name
        },
    ] {
        let read = opened(&written.seal(), other);
        assert!(matches!(read, Err(Harm::Misplaced)), "{read:?}");
    }
}

#[test]
fn another_version_is_told_from_damage() {
    let written = head(b"body");
    let mut bytes = written.seal();
    bytes[3] += 1;
    assert!(matches!(opened(&bytes, written.name), Err(Harm::Version)));
}

#[test]
fn names_are_read_only_as_they_are_written() {
    let name = Name { key: 5, serial: 6 };
    let text = name.to_string();
    assert_eq!(text, "00000000000000000000000000000005-0000000000000006");
    assert_eq!(Name::parse(&text), Some(name));
    for other in [
        "",
        "5-6",
        "+0000000000000000000000000000005-0000000000000006",
        "x",
    ] {
        assert_eq!(Name::parse(other), None, "{other}");
    }
}

#[test]
fn sums_are_those_of_the_blocks_however_the_parts_fall() {
    let body: Vec<u8> = (0..=255).cycle().take(BLOCK_BYTES * 2 + 5).collect();
    let expected: Vec<Sum> = body.chunks(BLOCK_BYTES).map(sum).collect();
    for part in [1000, BLOCK_BYTES, BLOCK_BYTES + 1, body.len()] {
        let mut summing = Summing::new();
        body.chunks(part).for_each(|part| summing.take(part));
        let summed = summing.finish(true);
        assert_eq!(
            (summed.length, &summed.sums),
            (body.len() as u64, &expected)
        );
    }
    assert_eq!(Summing::new().finish(true).sums, [[0; 16]; 0]);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..200)) {
        let name = Name { key: 5, serial: 6 };
        let mut framed = MAGIC.to_vec();
        framed.extend_from_slice(&bytes);
        proptest::prop_assert!(opened(&bytes, name).is_err());
        proptest::prop_assert!(opened(&framed, name).is_err());
    }
}
