//! Resident memory of each process, idle after its first deployment.

use anyhow::Context;
use helix_tests::fleet::Fleet;
use helix_tests::folder::Folder;

/// Prints the resident memory of every process in MiB.
pub(crate) fn run(fleet: &Fleet) -> anyhow::Result<()> {
    fleet.deploy("bench", &Folder::page("memory"));
    let edges = fleet.edges().map(|(_, edge)| edge.edge.to_string());
    for name in edges.chain(["origin".to_owned(), "nats".to_owned()]) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", fleet.pid(&name)))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        println!("{name:<8} {:6.1} MiB resident", kib / 1024.0);
    }
    Ok(())
}
