//! What came out, as JSON, as a table and as a plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::case::Case;
use super::plot;
use super::process::{Sample, Server};

/// One server in one case: medians over its runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) server: &'static str,
    pub(crate) version: String,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// Figures, or why there are none.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Outcome {
    Measured(Figures),
    Unsupported { unsupported: &'static str },
}

/// Medians, and how far the figure that counts was spread.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) cpu_us_per_request: f64,
    pub(crate) cpu_us_min: f64,
    pub(crate) cpu_us_max: f64,
    pub(crate) requests_per_s: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) rss_mib: f64,
    /// Cores that others kept busy meanwhile.
    pub(crate) foreign_cores: f64,
    pub(crate) runs: usize,
}

impl Row {
    pub(crate) fn new(case: Case, server: &Server, samples: &[Sample]) -> Self {
        let outcome = match server.unsupported(case) {
            Some(unsupported) => Outcome::Unsupported { unsupported },
            None => Outcome::Measured(Figures::of(samples)),
        };
        Self {
            case: case.name(),
            server: server.name,
            version: server.version.clone(),
            outcome,
        }
    }

    pub(crate) fn figures(&self) -> Option<&Figures> {
        match &self.outcome {
            Outcome::Measured(figures) => Some(figures),
            Outcome::Unsupported { .. } => None,
        }
    }
}

impl Figures {
    fn of(samples: &[Sample]) -> Self {
        let all = |field: fn(&Sample) -> f64| sorted(samples.iter().map(field));
        let some = |field: fn(&Sample) -> Option<f64>| {
            let values = sorted(samples.iter().filter_map(field));
            (!values.is_empty()).then(|| rounded(median(&values)))
        };
        let cpu = all(|sample| sample.cpu_us_per_request);
        Self {
            cpu_us_per_request: rounded(median(&cpu)),
            cpu_us_min: rounded(cpu.first().copied().unwrap_or_default()),
            cpu_us_max: rounded(cpu.last().copied().unwrap_or_default()),
            requests_per_s: median(&all(|sample| sample.requests_per_s)).round(),
            p50_ms: some(|sample| sample.p50_ms),
            p99_ms: some(|sample| sample.p99_ms),
            rss_mib: rounded(median(&all(|sample| sample.rss_mib))),
            foreign_cores: rounded(median(&all(|sample| sample.foreign))),
            runs: samples.len(),
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// To three decimals: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Everything of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    loads: Vec<Load>,
    servers: Vec<Setup>,
    pub(crate) cases: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
}

#[derive(Clone, Debug, Serialize)]
struct Load {
    case: &'static str,
    load: &'static str,
}

#[derive(Debug, Serialize)]
struct Setup {
    server: &'static str,
    version: String,
    setup: &'static str,
}

impl Report {
    pub(crate) fn new(cases: Vec<Row>, servers: &[Server]) -> Self {
        let servers = servers.iter().map(|server| Setup {
            server: server.name,
            version: server.version.clone(),
            setup: server.setup,
        });
        Self {
            machine: Machine::this(),
            loads: Case::ALL
                .map(|case| Load {
                    case: case.name(),
                    load: case.load(),
                })
                .to_vec(),
            servers: servers.collect(),
            cases,
        }
    }

    /// Writes `latest.json`, `latest.md` and `latest.svg`.
    pub(crate) fn write(&self, into: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(into)?;
        fs::write(
            into.join("latest.json"),
            serde_json::to_string_pretty(self)? + "\n",
        )?;
        fs::write(into.join("latest.md"), self.markdown())?;
        fs::write(into.join("latest.svg"), plot::bars(&self.cases))?;
        Ok(())
    }

    fn markdown(&self) -> String {
        let Machine { cpu, cores, kernel } = &self.machine;
        let mut text = format!(
            "# helix-edge beside other servers\n\nMade by `make bench-peers` on {cpu}, {cores} cores, Linux {kernel}. Server on one core, load and upstream on\n\
             another, in turns; medians. CPU time per request is the figure to trust, as a ratio to nginx in the same run.\n\n\
             ![CPU time per request](latest.svg)\n\n\
             | case | server | CPU µs/request (min–max) | to nginx | requests/s | p50 ms | p99 ms | RSS MiB | others' cores | runs |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        );
        for row in &self.cases {
            text.push_str(&self.line(row));
        }
        text.push_str("\n## How each was set up\n\n");
        for Setup {
            server,
            version,
            setup,
        } in &self.servers
        {
            let _ = writeln!(text, "- **{server}** {version}: {setup}");
        }
        text.push_str("\n## Loads\n\n");
        for Load { case, load } in &self.loads {
            let _ = writeln!(text, "- `{case}`: {load}");
        }
        text
    }

    fn line(&self, row: &Row) -> String {
        match &row.outcome {
            Outcome::Unsupported { unsupported } => {
                format!(
                    "| {} | {} | {unsupported} | | | | | | | |\n",
                    row.case, row.server
                )
            }
            Outcome::Measured(figures) => format!(
                "| {} | {} | {:.2} ({:.2}–{:.2}) | {} | {:.0} | {} | {} | {:.1} | {:.2} | {} |\n",
                row.case,
                row.server,
                figures.cpu_us_per_request,
                figures.cpu_us_min,
                figures.cpu_us_max,
                self.ratio(row, figures),
                figures.requests_per_s,
                shown(figures.p50_ms),
                shown(figures.p99_ms),
                figures.rss_mib,
                figures.foreign_cores,
                figures.runs,
            ),
        }
    }

    /// To nginx in the same case.
    fn ratio(&self, row: &Row, figures: &Figures) -> String {
        let nginx = self
            .cases
            .iter()
            .find(|other| other.case == row.case && other.server == "nginx");
        nginx
            .and_then(Row::figures)
            .map_or_else(String::new, |nginx| {
                format!(
                    "{:.2}",
                    figures.cpu_us_per_request / nginx.cpu_us_per_request
                )
            })
    }
}

impl Machine {
    fn this() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpu: model.map_or_else(String::new, |(_, model)| model.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
        }
    }
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.2}"))
}

/// A line per server while it runs, for whoever waits.
pub(crate) fn say(rows: &[Row]) {
    for row in rows {
        match &row.outcome {
            Outcome::Measured(figures) => println!(
                "{:<18} {:<11} {:>9.2} CPU µs/request ({:.2}–{:.2}), {:>8.0}/s, p99 {} ms, {:.1} MiB, others {:.2} cores",
                row.case,
                row.server,
                figures.cpu_us_per_request,
                figures.cpu_us_min,
                figures.cpu_us_max,
                figures.requests_per_s,
                shown(figures.p99_ms),
                figures.rss_mib,
                figures.foreign_cores,
            ),
            Outcome::Unsupported { unsupported } => {
                println!("{:<18} {:<11} {unsupported}", row.case, row.server);
            }
        }
    }
}
