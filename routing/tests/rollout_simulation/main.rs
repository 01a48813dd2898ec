//! The rollout machine against model edges, over a network that drops, repeats and reorders, with
//! processes that restart at any moment. After every step the invariants of ARCHITECTURE.md hold;
//! once the faults stop, every rollout ends and every edge serves what its record names.
//!
//! `HELIX_SIM_SEED=<n>` runs one seed, `HELIX_SIM_SEEDS=<n>` that many.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may stop here, and names its seed"
)]

mod bakes;
mod edge;
mod stages;
mod world;

use std::collections::BTreeMap;

use helix_routing::rollout::Outcome;
use helix_routing::verdict::Verdict;

use crate::world::World;

const STEPS: usize = 1_500;

fn run(seed: u64) -> BTreeMap<String, u64> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.random_step();
    }
    world.heal();
    world.outcomes
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn invariants_hold_whatever_is_lost_repeated_or_restarted() {
    if let Some(seed) = number("HELIX_SIM_SEED") {
        run(seed);
        return;
    }
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..number("HELIX_SIM_SEEDS").unwrap_or(1_000) {
        let result = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|cause| {
            eprintln!("seed {seed} failed; run it again with HELIX_SIM_SEED={seed}");
            std::panic::resume_unwind(cause)
        });
        for (outcome, count) in result {
            *outcomes.entry(outcome).or_default() += count;
        }
    }
    // A simulation that never reaches an end proves nothing about it.
    for outcome in [
        Outcome::Settled,
        Outcome::WentBack,
        Outcome::Aborted,
        Outcome::Superseded,
        Outcome::NeedsOperator,
    ] {
        assert!(
            outcomes.contains_key(&format!("{outcome:?}")),
            "{outcome:?} was never reached: {outcomes:?}"
        );
    }
    for reached in stages::SOMETIMES {
        assert!(
            outcomes.contains_key(*reached),
            "{reached} was never reached: {outcomes:?}"
        );
    }
    for verdict in [
        Verdict::Pass,
        Verdict::Fail,
        Verdict::Inconclusive,
        Verdict::Error,
    ] {
        assert!(
            outcomes.contains_key(&format!("{verdict:?}")),
            "{verdict:?} was never reached: {outcomes:?}"
        );
    }
}
