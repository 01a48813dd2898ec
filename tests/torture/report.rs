//! One line for each fault, into the file that `HELIX_TORTURE_REPORT` names.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use helix_tests::checker::Summary;

/// What came of one fault.
pub(crate) fn line(fault: &str, summary: Summary, whole_after: Duration) {
    let Some(path) = std::env::var_os("HELIX_TORTURE_REPORT") else {
        return;
    };
    let mut line = String::new();
    write!(
        line,
        "| {fault} | {} | {} | 0 | {:.1} s |",
        summary.requests,
        summary.lost,
        whole_after.as_secs_f64()
    )
    .unwrap();
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    writeln!(file, "{line}").unwrap();
}
