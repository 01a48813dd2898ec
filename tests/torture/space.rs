//! A place of one's own: network, mounts and control groups that nobody else sees.

use std::process::Command;

/// Set inside.
const INSIDE: &str = "HELIX_TORTURE_INSIDE";

/// Whether the test goes on here. Outside, it is run inside and judged by how that ended.
pub(crate) fn enter(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !can_enter() {
        eprintln!("skipped: {test} needs unshare, ip and nft, and the right to make namespaces");
        return false;
    }
    let ended = Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(
        ended.success(),
        "{test} failed inside its namespaces: {ended}"
    );
    false
}

fn can_enter() -> bool {
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "--", "sh", "-c"])
        .arg(format!("{PREPARE} && nft add table inet probe"))
        .output();
    tried.is_ok_and(|output| output.status.success())
}

/// The loopback up, and control groups by which packets are told apart.
const PREPARE: &str =
    "ip link set lo up && mount --make-rprivate / && mount -t cgroup2 none /sys/fs/cgroup";

/// Makes the place ready, once inside.
pub(crate) fn prepare() {
    sh(PREPARE);
}

/// Runs a line of shell, which has to succeed.
#[track_caller]
pub(crate) fn sh(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
