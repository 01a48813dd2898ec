//! Snapshots that become the base of the state, and everything that befalls a disk between them.

use super::*;

fn site(name: &str) -> Option<SiteId> {
    Some(name.parse().unwrap())
}

/// Hosts 0..n of one site, each in generation 1.
fn model(n: u64) -> Model {
    (0..n)
        .map(|n| (format!("h{n}.example.com"), (1, site("shop/production"))))
        .collect()
}

/// Two snapshots, one after the other, with records between and behind them.
async fn two_generations(bench: &Bench) -> Model {
    let (mut ledger, _) = bench.open();
    let mut expected = model(4000);
    let base = bench.snapshot(&ledger, Purpose::Resync, 4000, &expected, false);
    assert_eq!(
        adopt(&mut ledger, base, Purpose::Resync).await.unwrap(),
        (4000, Vec::new())
    );
    let change = async |ledger: &mut Ledger,
                        expected: &mut Model,
                        n: u64,
                        sequence: u64,
                        to: Option<&str>| {
        // Generations are sequences here, so that they rise.
        let record = bench.host(n, sequence, to);
        ledger.admit(now(), vec![record], true).await.unwrap();
        ledger.advance(sequence);
        expected.insert(
            format!("h{n}.example.com"),
            (sequence, to.map(|to| to.parse().unwrap())),
        );
    };
    for n in 0..10 {
        change(
            &mut ledger,
            &mut expected,
            n * 7,
            4001 + n,
            Some("shoe/production"),
        )
        .await;
    }
    let covered = expected.clone();
    // What comes while the second snapshot is under way.
    change(
        &mut ledger,
        &mut expected,
        9000,
        4011,
        Some("shop/production"),
    )
    .await;
    change(&mut ledger, &mut expected, 7, 4012, None).await;
    let base = bench.snapshot(&ledger, Purpose::Cover, 4010, &covered, false);
    assert_eq!(
        adopt(&mut ledger, base, Purpose::Cover).await.unwrap(),
        (0, Vec::new())
    );
    assert_eq!(
        ledger.loose, 2,
        "what the snapshot does not have is carried over"
    );
    change(
        &mut ledger,
        &mut expected,
        9001,
        4013,
        Some("shop/production"),
    )
    .await;
    assert_eq!(ledger.position().sequence, 4013);
    expected
}

#[tokio::test]
async fn a_snapshot_becomes_the_base_and_what_is_newer_stays() {
    let bench = Bench::new();
    let expected = two_generations(&bench).await;
    assert_eq!(bench.files("base.").len(), 2);
    assert_eq!(bench.found(), expected);
    let (ledger, _) = bench.open();
    assert_eq!(ledger.resume(now()), Some((LIFE.parse().unwrap(), 4013)));
}

#[tokio::test]
async fn an_edited_base_is_answered_by_the_one_before_and_the_position_stands_where_that_is_whole()
{
    for share in [10, 40, 99] {
        let bench = Bench::new();
        let expected = two_generations(&bench).await;
        let newest = bench.files("base.").pop().unwrap();
        let length = fs::metadata(&newest).unwrap().len();
        flip(&newest, usize::try_from(length * share / 100).unwrap());
        let (ledger, _) = bench.open();
        let (_, at) = ledger.resume(now()).unwrap();
        assert_eq!(at, 4012, "what lies behind the edited base may presume it");
        drop(ledger);
        // The first look put the edited file aside; everything is there all the same, since no log was lost.
        assert_eq!(bench.found(), expected);
    }
}

#[tokio::test]
async fn when_no_base_is_whole_the_stream_is_taken_over_again() {
    let bench = Bench::new();
    two_generations(&bench).await;
    for base in bench.files("base.") {
        flip(&base, 300);
    }
    assert_eq!(bench.open().0.resume(now()), None);
}

#[tokio::test]
async fn a_base_that_was_cut_short_or_signed_by_somebody_else_is_refused() {
    let mut bench = Bench::new();
    let expected = two_generations(&bench).await;
    let newest = bench.files("base.").pop().unwrap();
    let whole = fs::read(&newest).unwrap();
    fs::write(&newest, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(bench.found(), expected);
    bench.ring = Arc::new(KeyRing::new([
        SigningKey::generate(KeyRole::Record).public()
    ]));
    assert_eq!(bench.found(), Model::new());
}

#[tokio::test]
async fn a_lost_tail_behind_a_base_costs_only_that() {
    let bench = Bench::new();
    let mut expected = two_generations(&bench).await;
    let log = bench.files("log.").pop().unwrap();
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() - 3]).unwrap();
    expected.remove("h9001.example.com");
    assert_eq!(bench.found(), expected);
    assert_eq!(bench.open().0.position().sequence, 4012);
}

#[tokio::test]
async fn a_base_of_frames_from_before_is_still_read_and_replaced() {
    let bench = Bench::new();
    let mut bytes = Vec::new();
    frame::write(&Frame::Position(position(7)), &mut bytes);
    for n in 0..3 {
        let opened = bench.host(n, 5 + n, Some("shop/production"));
        let record = StoredRecord {
            sequence: 0,
            received: now(),
            key: opened.key,
            sealed: opened.sealed.to_vec(),
        };
        frame::write(&Frame::Record(record), &mut bytes);
    }
    frame::write(&Frame::End { records: 3 }, &mut bytes);
    fs::write(bench.folder.path().join(format!("base.{:020}", 4)), bytes).unwrap();
    let (mut ledger, records) = bench.open();
    assert_eq!((records.len(), ledger.position().sequence), (3, 7));
    let mut expected = bench.found();
    expected.insert("h0.example.com".to_owned(), (9, site("shoe/production")));
    let base = bench.snapshot(&ledger, Purpose::Cover, 7, &expected, false);
    assert_eq!(
        adopt(&mut ledger, base, Purpose::Cover).await.unwrap(),
        (1, Vec::new())
    );
    assert_eq!(bench.found(), expected);
}

#[tokio::test]
async fn a_takeover_drops_a_few_and_refuses_to_drop_many_without_a_word() {
    for (held, kept, may_drop, is_taken) in [
        (60, 55, false, true),
        (60, 49, false, false),
        (60, 49, true, true),
        (2000, 1951, false, true),
        (2000, 1949, false, false),
        (2, 0, false, false),
        (2, 0, true, true),
    ] {
        let bench = Bench::new();
        let (mut ledger, _) = bench.open();
        let base = bench.snapshot(&ledger, Purpose::Resync, 10, &model(held), false);
        adopt(&mut ledger, base, Purpose::Resync).await.unwrap();
        let base = bench.snapshot(&ledger, Purpose::Resync, 20, &model(kept), may_drop);
        let taken = adopt(&mut ledger, base, Purpose::Resync).await;
        let case = format!("{kept} of {held}, may drop: {may_drop}");
        if is_taken {
            let (newer, missing) = taken.unwrap();
            assert_eq!((newer, missing.len() as u64), (0, held - kept), "{case}");
            let dropped = ledger.drop_keys(missing).await.unwrap();
            assert_eq!(dropped.len() as u64, held - kept, "{case}");
            assert_eq!(bench.found(), model(kept), "{case}");
        } else {
            let error = taken.unwrap_err();
            assert!(
                matches!(error, StateError::Shrinks { .. }),
                "{case}: {error}"
            );
            assert_eq!(bench.found(), model(held), "{case}");
            // It goes on as if nothing had been tried.
            ledger
                .admit(now(), vec![bench.host(1, 30, None)], true)
                .await
                .unwrap();
            assert_eq!(bench.found()["h1.example.com"], (30, None), "{case}");
        }
    }
}

#[tokio::test]
async fn what_a_snapshot_lacks_is_kept_until_the_stream_had_its_say() {
    let bench = Bench::new();
    let mut ledger = filled(&bench, 3).await;
    let mut held = bench.found();
    let lacking = key::host(&host_record(2, 2, None).host);
    held.remove("h2.example.com");
    let base = bench.snapshot(&ledger, Purpose::Resync, 3, &held, false);
    let (newer, missing) = adopt(&mut ledger, base, Purpose::Resync).await.unwrap();
    assert_eq!((newer, &missing[..]), (0, &[lacking][..]));
    // The same record again changes nothing, and is not lost either.
    let again = ledger
        .admit(now(), vec![bench.host(2, 2, Some("shop/production"))], true)
        .await
        .unwrap();
    assert_eq!(again[0].order, Order::Same);
    drop(ledger);
    assert_eq!(bench.found().len(), 3);
}

#[tokio::test]
async fn what_comes_while_a_snapshot_is_taken_over_is_admitted_and_stays() {
    for seed in 1..=24_u64 {
        let mut random = numbers(seed);
        let bench = Bench::new();
        let (mut ledger, _) = bench.open();
        let mut expected = model(6000);
        let base = bench.snapshot(&ledger, Purpose::Resync, 6000, &expected, false);
        adopt(&mut ledger, base, Purpose::Resync).await.unwrap();
        let mut sequence = 6000;
        let mut change =
            async |ledger: &mut Ledger, expected: &mut Model, n: u64, to: Option<&str>| {
                sequence += 1;
                let record = bench.host(n, sequence, to);
                let decided = ledger.admit(now(), vec![record], true).await.unwrap();
                assert_eq!(decided[0].order, Order::Newer, "seed {seed}");
                ledger.advance(sequence);
                let site = to.map(|to| to.parse().unwrap());
                expected.insert(format!("h{n}.example.com"), (sequence, site));
            };
        let to = |random: u64| {
            [None, Some("shop/production"), Some("shoe/production")]
                [usize::try_from(random).unwrap()]
        };
        for n in 0..40 {
            change(&mut ledger, &mut expected, n * 7, to(random(3))).await;
        }
        // Of some hosts the stream has nothing any more.
        let mut covered = expected.clone();
        for n in [3, 5, 4000] {
            covered.remove(&format!("h{n}.example.com"));
        }
        let base = bench.snapshot(&ledger, Purpose::Cover, 6040, &covered, false);
        ledger.adopt(base, Purpose::Cover);
        let (mut pieces, mut is_done) = (0, false);
        while !is_done {
            for _ in 0..random(3) {
                let n = [random(10), random(6100)][usize::try_from(random(2)).unwrap()];
                change(&mut ledger, &mut expected, n, to(random(3))).await;
            }
            let piece = ledger.next_piece().await;
            pieces += 1;
            match ledger.take_piece(piece).await.unwrap() {
                Progress::Compared => {}
                Progress::Based { missing } => {
                    for key in ledger.drop_keys(missing).await.unwrap() {
                        let is_it = |n: &u64| key::host(&host_record(*n, 1, None).host) == key;
                        let n = [3, 5, 4000].into_iter().find(is_it).unwrap();
                        expected.remove(&format!("h{n}.example.com"));
                    }
                }
                Progress::Slice(slice) => {
                    assert!(slice.newer.is_empty() && slice.refused.is_empty())
                }
                Progress::Done { at, .. } => is_done = at == 6040,
            }
            ledger.read_on();
        }
        assert!(pieces > 12, "{pieces} pieces");
        assert_eq!(bench.found(), expected, "seed {seed}");
        assert!(!ledger.is_adopting());
        // Signing is slow: some say enough.
        for (host, (generation, site)) in expected.iter().step_by(60) {
            let n = host[1..].split('.').next().unwrap().parse().unwrap();
            let site = site.as_ref().map(ToString::to_string);
            let known = ledger.order(&bench.host(n, *generation, site.as_deref()));
            assert_eq!(known, Order::Same, "seed {seed}: {host}");
        }
    }
}

#[tokio::test]
async fn a_takeover_that_is_given_up_leaves_everything_as_it_was() {
    let bench = Bench::new();
    let (mut ledger, _) = bench.open();
    let mut expected = model(3000);
    let base = bench.snapshot(&ledger, Purpose::Resync, 3000, &expected, false);
    adopt(&mut ledger, base, Purpose::Resync).await.unwrap();
    let base = bench.snapshot(&ledger, Purpose::Cover, 3000, &expected, false);
    ledger.adopt(base, Purpose::Cover);
    let piece = ledger.next_piece().await;
    ledger.take_piece(piece).await.unwrap();
    let late = bench.host(1, 3001, None);
    ledger.admit(now(), vec![late], true).await.unwrap();
    ledger.advance(3001);
    expected.insert("h1.example.com".to_owned(), (3001, None));
    assert_eq!(bench.found(), expected);
    // Another one is begun in its place.
    let base = bench.snapshot(&ledger, Purpose::Cover, 3001, &expected, false);
    let taken = adopt(&mut ledger, base, Purpose::Cover).await.unwrap();
    assert_eq!(taken, (0, Vec::new()));
    assert_eq!(bench.found(), expected);
}

/// xorshift64: the same every time. Each is below what is asked for.
fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    }
}

/// Twenty thousand hosts, changed at random, through takeovers, restarts, torn tails and edited files.
#[tokio::test]
async fn state_agrees_with_a_model_through_everything_that_befalls_a_disk() {
    let bench = Bench::new();
    let mut random = numbers(0x5eed);
    let mut stream = model(20_000);
    let (mut ledger, _) = bench.open();
    let base = bench.snapshot(&ledger, Purpose::Resync, 20_000, &stream, false);
    adopt(&mut ledger, base, Purpose::Resync).await.unwrap();
    let mut sequence = 20_000;
    for round in 0..12_u64 {
        let mut records = Vec::new();
        for _ in 0..300 {
            sequence += 1;
            let n = random(20_500);
            let to = [None, Some("shop/production"), Some("shoe/production")]
                [usize::try_from(random(3)).unwrap()];
            records.push(bench.host(n, sequence, to));
            stream.insert(
                format!("h{n}.example.com"),
                (sequence, to.map(|to| to.parse().unwrap())),
            );
        }
        let lost = records.split_off(299);
        ledger.admit(now(), records, true).await.unwrap();
        // What folds the logs would do so under the eyes of the next line.
        if let Some(folding) = ledger.compaction.take() {
            folding.await.unwrap();
        }
        let before = bench.found();
        // The last write is torn, and comes again from the stream.
        ledger.admit(now(), lost, true).await.unwrap();
        ledger.advance(sequence);
        drop(ledger);
        let log = bench.files("log.").pop().unwrap();
        let whole = fs::read(&log).unwrap();
        fs::write(
            &log,
            &whole[..whole.len() - 1 - usize::try_from(random(100)).unwrap()],
        )
        .unwrap();
        assert_eq!(bench.found(), before, "round {round}");
        fs::write(&log, &whole).unwrap();
        if round % 4 == 3 {
            let base = bench.files("base.").pop().unwrap();
            let length = fs::metadata(&base).unwrap().len();
            flip(&base, usize::try_from(random(length)).unwrap());
        }
        ledger = bench.open().0;
        assert_eq!(bench.found(), stream, "round {round}");
        if round % 3 == 1 {
            let purpose = if ledger.position().sequence == sequence {
                Purpose::Cover
            } else {
                Purpose::Resync
            };
            let base = bench.snapshot(&ledger, purpose, sequence, &stream, false);
            adopt(&mut ledger, base, purpose).await.unwrap();
            assert_eq!(ledger.position().sequence, sequence);
        }
        if round % 5 == 2 {
            ledger.log_bytes = COMPACT_BYTES;
            ledger.older_bytes = 0;
        }
    }
}

#[tokio::test]
async fn what_is_held_is_handed_out_as_it_was_signed() {
    let bench = Bench::new();
    two_generations(&bench).await;
    let (ledger, _) = bench.open();
    let newest = fs::read(bench.files("base.").pop().unwrap()).unwrap();
    for wanted in [true, false] {
        let peeked = ledger.peek(move |base| {
            assert_eq!(base.index.at_sequence, 4010);
            wanted
        });
        let peeked = peeked.await.unwrap();
        let expected = if wanted { newest.clone() } else { Vec::new() };
        assert_eq!(peeked.snapshot, expected);
        let mut keys: Vec<_> = peeked.records.iter().map(|stored| &stored.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 3, "what lies behind it: {keys:?}");
        assert!(
            peeked
                .records
                .iter()
                .all(|stored| !stored.sealed.is_empty())
        );
    }
    let empty = Bench::new();
    let peeked = empty.open().0.peek(|_| true).await.unwrap();
    assert!(peeked.snapshot.is_empty() && peeked.records.is_empty());
}
