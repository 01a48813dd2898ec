//! The edge beside the servers people use now: same machine, same pinning, same work, in the same run.
//!
//! Servers run on one core, loads and the upstream on another, and take turns, so that what else the machine does
//! hits all of them. The figure to trust is CPU time per request; requests per second say as much about the load
//! generator. A server that cannot do a case is listed with the reason.

mod caddy;
mod case;
mod files;
mod haproxy;
mod helix;
pub(crate) mod hosts;
mod load;
mod nginx;
mod plot;
mod process;
mod report;
mod traefik;
pub(crate) mod workers;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use self::case::Case;
use self::files::Files;
use self::process::{Sample, Server};
use self::report::{Report, Row};

/// Starts a server that serves the files and forwards to an upstream.
type Start = fn(&Files, SocketAddr) -> anyhow::Result<Server>;

/// In the order of the report.
const SERVERS: [(&str, Start); 5] = [
    ("helix-edge", helix::start),
    ("nginx", nginx::start),
    ("haproxy", haproxy::start),
    ("caddy", caddy::start),
    ("traefik", traefik::start),
];

/// How the comparison is made.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Times each server does each case.
    pub(crate) runs: usize,
    /// How long each time.
    pub(crate) seconds: u64,
    /// Only cases whose name contains this.
    pub(crate) only: Option<String>,
    /// Only servers whose name contains one of these; all, if there are none.
    pub(crate) servers: Vec<String>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        let named = |wanted: &String| name.contains(wanted.as_str());
        self.servers.is_empty() || self.servers.iter().any(named)
    }
}

/// Runs every case against every server and writes the results into `into`.
pub(crate) fn run(options: &Options, into: &Path) -> anyhow::Result<()> {
    let files = Files::make().context("make the files to serve")?;
    let upstream = nginx::upstream(&files).context("start the upstream")?;
    let proxied = upstream.http.context("the upstream listens")?;
    let mut servers = Vec::new();
    for (name, start) in SERVERS {
        if options.wants(name) {
            servers.push(start(&files, proxied).with_context(|| format!("start {name}"))?);
        }
    }
    let mut rows = Vec::new();
    for case in Case::ALL {
        if options
            .only
            .as_ref()
            .is_some_and(|only| !case.name().contains(only.as_str()))
        {
            continue;
        }
        rows.extend(compare(case, &servers, &upstream, options)?);
    }
    Report::new(rows, &servers).write(into)
}

/// One case: every server in turn, as often as asked for.
fn compare(
    case: Case,
    servers: &[Server],
    upstream: &Server,
    options: &Options,
) -> anyhow::Result<Vec<Row>> {
    let mut samples: Vec<Vec<Sample>> = servers.iter().map(|_| Vec::new()).collect();
    for server in servers {
        // Connections, caches and branch predictors are warm before anything counts.
        if server.unsupported(case).is_none() {
            load::run(case, server, Duration::from_secs(1))
                .with_context(|| format!("{} of {}", case.name(), server.name))?;
        }
    }
    for _ in 0..options.runs {
        for (server, samples) in servers.iter().zip(&mut samples) {
            if server.unsupported(case).is_none() {
                let sample = process::measure(case, server, upstream, options.seconds)
                    .with_context(|| format!("{} of {}", case.name(), server.name))?;
                samples.push(sample);
            }
        }
    }
    let row = |(server, samples): (&Server, Vec<Sample>)| Row::new(case, server, &samples);
    let rows: Vec<Row> = servers.iter().zip(samples).map(row).collect();
    report::say(&rows);
    Ok(rows)
}
