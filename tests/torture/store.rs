//! The stream's store, cut off or with a byte that is another: everything in it can be made again from SQL.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use helix_tests::checker::{Checker, Tolerance};
use helix_tests::fleet::{Fleet, Options};

use crate::{PROJECT, deploy, one_fleet, recovered, report};

#[derive(Clone, Copy, Debug)]
enum Damage {
    Truncated,
    Flipped,
    Removed,
}

/// Numbers from a seed (splitmix64).
fn roll(seed: u64, sides: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % sides.max(1)
}

fn survives(damages: &[(Damage, u64)]) {
    let _turn = one_fleet();
    let fleet = Fleet::start(&Options::default());
    let mut known = vec![deploy(&fleet, "first")];
    let checker = Checker::start(&fleet, &fleet.host(PROJECT), Tolerance::Nothing);
    let mut slowest = std::time::Duration::ZERO;
    for &(damage, seed) in damages {
        // Nobody starts it again before it is damaged.
        fleet.freeze();
        let before = fleet.kill("nats");
        for file in blocks(&fleet.folder().join("data")) {
            break_file(&file, damage, seed);
        }
        fleet.thaw();
        fleet.wait_for_successor("nats", before);
        let (whole_after, next) = recovered(&fleet, &format!("{damage:?} {seed}"));
        slowest = slowest.max(whole_after);
        known.push(next);
    }
    let summary = checker.finish(&known);
    report::line(
        &format!("NATS' store damaged {} times", damages.len()),
        summary,
        slowest,
    );
}

/// The message blocks of every stream.
fn blocks(folder: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) =
        entries.into_iter().partition(|path| path.is_dir());
    let here = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "blk"));
    here.chain(folders.iter().flat_map(|folder| blocks(folder)))
        .collect()
}

fn break_file(path: &Path, damage: Damage, seed: u64) {
    let size = fs::metadata(path).unwrap().len();
    if size == 0 {
        return;
    }
    match damage {
        Damage::Removed => fs::remove_file(path).unwrap(),
        Damage::Truncated => {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(roll(seed, size)).unwrap();
        }
        Damage::Flipped => {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .unwrap();
            let place = roll(seed, size);
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).unwrap();
            byte[0] ^= 1 << roll(seed + 1, 8);
            file.write_all_at(&byte, place).unwrap();
        }
    }
}

#[test]
fn the_store_is_cut_off_and_flipped() {
    survives(&[
        (Damage::Truncated, 1),
        (Damage::Flipped, 2),
        (Damage::Removed, 3),
    ]);
}

#[test]
#[ignore = "minutes: make torture"]
fn the_store_is_damaged_again_and_again() {
    let damages: Vec<(Damage, u64)> = (10..40)
        .map(|seed| {
            (
                if seed % 2 == 0 {
                    Damage::Flipped
                } else {
                    Damage::Truncated
                },
                seed,
            )
        })
        .collect();
    survives(&damages);
}
