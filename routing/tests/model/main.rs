//! The rollout protocol, exhaustively, in the small: one origin and a stale one, two regions of one edge each, a rollout
//! that races a rollback that races collection, over a feed and reports that may be lost, repeated and late.
//!
//! The machine is the real one; SQL, the stream and the edges are as ARCHITECTURE.md has them. Each world has its own
//! budget of faults, and every order of everything in it is visited. That the properties see anything is shown by
//! taking one safeguard away at a time: each time one of them has to fail.
//!
//! `HELIX_MODEL_REPORT=1` prints how many states there were.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may stop here"
)]

mod edge;
mod origin;
mod protocol;

use std::time::Instant;

use stateright::{Checker, DiscoveryClassification, HasDiscoveries, Model};

use crate::protocol::{Budget, Protocol, Safeguard};

/// Every order of what this budget allows, unless `without` a safeguard something is found sooner.
fn check(name: &str, budget: Budget, without: Option<Safeguard>) -> Vec<&'static str> {
    let started = Instant::now();
    let checker = Protocol { budget, without }
        .checker()
        .threads(2)
        .finish_when(match without {
            Some(_) => HasDiscoveries::AnyFailures,
            None => HasDiscoveries::All,
        })
        .spawn_bfs()
        .join();
    let mut failed: Vec<&'static str> = Vec::new();
    for (property, path) in checker.discoveries() {
        match checker.discovery_classification(property) {
            DiscoveryClassification::Example => {}
            DiscoveryClassification::Counterexample => {
                failed.push(property);
                if without.is_none() {
                    let wrong = &path.last_state().wrong;
                    eprintln!(
                        "{name}: not so: {property}: {wrong:?} after {:?}",
                        path.clone().into_actions()
                    );
                }
            }
        }
    }
    let properties = checker.model().properties();
    let examples = properties
        .iter()
        .map(|property| property.name)
        .filter(|example| budget.reaches(example));
    for example in
        examples.filter(|example| without.is_none() && checker.discovery(example).is_none())
    {
        eprintln!("{name}: never: {example}");
        failed.push(example);
    }
    if std::env::var_os("HELIX_MODEL_REPORT").is_some() {
        eprintln!(
            "{name}: {} states in {:?}, failed: {failed:?}",
            checker.unique_state_count(),
            started.elapsed()
        );
    }
    failed
}

const ALL: Budget = Budget {
    deploys: 1,
    rollbacks: 1,
    takeovers: 1,
    restarts: 0,
    failures: 0,
    deadlines: 0,
    collections: 1,
};
const RACE: Budget = Budget {
    deploys: 1,
    rollbacks: 1,
    takeovers: 0,
    restarts: 0,
    failures: 0,
    deadlines: 0,
    collections: 1,
};
const STALE: Budget = Budget {
    deploys: 1,
    rollbacks: 0,
    takeovers: 1,
    restarts: 0,
    failures: 0,
    deadlines: 0,
    collections: 0,
};
const FAULTS: Budget = Budget {
    deploys: 1,
    rollbacks: 0,
    takeovers: 0,
    restarts: 1,
    failures: 1,
    deadlines: 1,
    collections: 0,
};

/// Two hundred thousand states: `cargo test --test model -- --ignored`, part of `make torture`.
#[test]
#[ignore = "takes minutes: part of make torture"]
fn all_of_it_at_once() {
    assert_eq!(check("all", ALL, None), Vec::<&str>::new());
}

#[test]
fn a_rollout_races_a_rollback_and_a_collection() {
    assert_eq!(check("race", RACE, None), Vec::<&str>::new());
}

#[test]
fn an_origin_that_was_replaced_changes_nothing() {
    assert_eq!(check("stale", STALE, None), Vec::<&str>::new());
}

#[test]
fn edges_restart_gates_fail_and_deadlines_pass() {
    assert_eq!(check("faults", FAULTS, None), Vec::<&str>::new());
}

#[test]
fn each_safeguard_is_needed() {
    for (safeguard, budget) in [
        (Safeguard::GenerationCompare, RACE),
        (
            Safeguard::EpochFence,
            Budget {
                rollbacks: 1,
                ..STALE
            },
        ),
        (
            Safeguard::StreamTerm,
            Budget {
                rollbacks: 1,
                ..STALE
            },
        ),
        (Safeguard::BootId, FAULTS),
        (Safeguard::Gate, FAULTS),
        (
            Safeguard::PersistBeforeAct,
            Budget {
                rollbacks: 1,
                ..STALE
            },
        ),
        (Safeguard::CollectInOneTransaction, RACE),
    ] {
        let failed = check(&format!("without {safeguard:?}"), budget, Some(safeguard));
        assert!(!failed.is_empty(), "nothing fails without {safeguard:?}");
    }
}
