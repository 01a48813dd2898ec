//! What a fleet lives through: processes killed and paused at each step, networks that are cut or lose packets, a stream
//! store that is damaged, disks that are full, clocks that are days off, edges that start again and again.
//!
//! In each, a checker asks every edge without pause and must see no wrong answer, and once the fault is over the fleet is
//! whole again and deploys. The shorter ones run with all tests; `make torture` runs everything and writes a report.
//!
//! Faults of networks and disks need namespaces of their own. The test starts itself again in them; where they cannot
//! be made it says so and is skipped.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may stop here, and says what it skips"
)]

mod clocks;
mod disks;
mod network;
mod report;
mod restarts;
mod space;
mod steps;
mod store;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use helix_routing::id::{Digest, ReleaseId};
use helix_tests::fleet::Fleet;
use helix_tests::folder::{Folder, page_digest};
use helix_tests::wait;

/// The project of every fleet here.
const PROJECT: &str = "kept";
/// How soon a fleet is whole after the last fault: the goal is ten seconds, and a loaded machine may take longer.
const WHOLE_LIMIT: Duration = Duration::from_secs(40);

static ONE_FLEET: Mutex<()> = Mutex::new(());

/// Held by a test while its fleet runs.
fn one_fleet() -> MutexGuard<'static, ()> {
    ONE_FLEET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Deploys a page that says `text`, which has to settle.
fn deploy(fleet: &Fleet, text: &str) -> (ReleaseId, Digest) {
    (
        fleet.deploy(PROJECT, &Folder::page(text)),
        page_digest(text),
    )
}

/// Deploys a page that says `text` while something is wrong: any end that the design knows will do, and it has to end.
fn try_deploy(fleet: &Fleet, text: &str) -> (Option<i32>, String) {
    let folder = Folder::page(text);
    let ended = fleet.deploy_to(PROJECT, "production", folder.path());
    let said = format!("{} {}", ended.stdout, ended.stderr);
    assert!(
        matches!(ended.code, Some(0..=6)),
        "a deployment ended with {:?}: {said}",
        ended.code
    );
    (ended.code, said)
}

/// Waits until every edge is there and the fleet deploys again; how long the first took.
fn recovered(fleet: &Fleet, text: &str) -> (Duration, (ReleaseId, Digest)) {
    let began = Instant::now();
    let api = fleet.api();
    wait::until_true("every edge is live and ready", WHOLE_LIMIT, || {
        api.status().is_some_and(|status| {
            !status.edges.is_empty() && status.edges.iter().all(|edge| edge.live && edge.ready)
        })
    });
    let took = began.elapsed();
    (took, deploy(fleet, text))
}
