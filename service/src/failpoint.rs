//! Places where a test can have the process killed, so that "at each step" is each step.
//!
//! Does nothing unless `HELIX_FAILPOINT` names the place and the file that `HELIX_FAILPOINT_ONCE`
//! names exists. The file is removed first, so that the restarted process goes on.

use std::sync::OnceLock;

struct Armed {
    point: String,
    once: std::path::PathBuf,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// The process reached `point`.
pub fn hit(point: &str) {
    let armed = ARMED.get_or_init(|| {
        Some(Armed {
            point: std::env::var("HELIX_FAILPOINT").ok()?,
            once: std::env::var_os("HELIX_FAILPOINT_ONCE")?.into(),
        })
    });
    let Some(armed) = armed else { return };
    if armed.point == point && std::fs::remove_file(&armed.once).is_ok() {
        kill();
    }
}

/// As a kill -9 would: no destructor, no flush.
fn kill() {
    tracing::warn!("failpoint reached: aborting");
    std::process::abort();
}
