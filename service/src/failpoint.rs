//! Places where a test can have the process killed or paused, so that "at each step" is each step.
//!
//! Does nothing unless `HELIX_FAILPOINT` names the place and the file that `HELIX_FAILPOINT_ONCE`
//! names exists. The file is removed first, so that the restarted process goes on. With
//! `HELIX_FAILPOINT_PAUSES` set the process stops as by SIGSTOP, until somebody lets it go on.

use std::sync::OnceLock;

struct Armed {
    point: String,
    once: std::path::PathBuf,
    pauses: bool,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// The process reached `point`.
pub fn hit(point: &str) {
    let armed = ARMED.get_or_init(|| {
        Some(Armed {
            point: std::env::var("HELIX_FAILPOINT").ok()?,
            once: std::env::var_os("HELIX_FAILPOINT_ONCE")?.into(),
            pauses: std::env::var_os("HELIX_FAILPOINT_PAUSES").is_some(),
        })
    });
    let Some(armed) = armed else { return };
    if armed.point == point && std::fs::remove_file(&armed.once).is_ok() {
        if armed.pauses { pause() } else { kill() }
    }
}

/// As a kill -9 would: no destructor, no flush.
fn kill() {
    tracing::warn!("failpoint reached: aborting");
    std::process::abort();
}

/// As a machine that is suspended would: every thread stands still, and nobody is told.
fn pause() {
    tracing::warn!("failpoint reached: pausing");
    // It cannot fail for this process and a signal that exists.
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
}
