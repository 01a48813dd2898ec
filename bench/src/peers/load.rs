//! Makes requests, and counts what came back.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::case::Case;
use super::files::HOST;
use super::process::{LOAD_CORE, Server};

/// Handshakes at once.
const HANDSHAKERS: usize = 4;

/// What a load generator saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) errors: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

/// Lets `case` run against `server`.
pub(crate) fn run(case: Case, server: &Server, time: Duration) -> anyhow::Result<Load> {
    let http = || server.http.context("no plain port");
    let https = || server.https.context("no TLS port");
    match case {
        Case::Static1k | Case::Static100k | Case::Proxy1k => {
            wrk(&format!("http://{}{}", http()?, case.path()), time)
        }
        Case::Tls1k => wrk(&format!("https://{}{}", https()?, case.path()), time),
        Case::Http2 => h2load(https()?, case.path(), time),
        Case::Handshake => handshakes(https()?, case.path(), time),
        Case::Http3 => h3(https()?, case.path(), time),
    }
}

fn pinned(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command
        .args(["-c", LOAD_CORE, program])
        .stdin(Stdio::null());
    command
}

fn said(mut command: Command) -> anyhow::Result<String> {
    let output = command.output().context("start the load")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{text}{error}");
    Ok(text)
}

pub(crate) fn wrk(url: &str, time: Duration) -> anyhow::Result<Load> {
    let mut command = pinned("wrk");
    command.args([
        "-t1",
        "-c64",
        "--latency",
        &format!("-d{}s", time.as_secs()),
    ]);
    let text = said_of(command.args(["-H", &format!("Host: {HOST}"), url]))?;
    read_wrk(&text).with_context(|| format!("wrk said {text}"))
}

fn said_of(command: &mut Command) -> anyhow::Result<String> {
    let mut owned = Command::new(command.get_program());
    owned.args(command.get_args()).stdin(Stdio::null());
    said(owned)
}

fn read_wrk(text: &str) -> Option<Load> {
    let mut load = Load::default();
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", time] => load.p50_ms = milliseconds(time),
            ["99%", time] => load.p99_ms = milliseconds(time),
            [count, "requests", "in", time, ..] => {
                load.requests = count.parse().ok()?;
                load.seconds = milliseconds(time.trim_end_matches(','))? / 1000.0;
            }
            ["Non-2xx", .., count] => load.errors += count.parse::<u64>().ok()?,
            ["Socket", "errors:", ..] => {
                let counts = words
                    .iter()
                    .filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok());
                load.errors += counts.sum::<u64>();
            }
            _ => {}
        }
    }
    (load.seconds > 0.0).then_some(load)
}

/// Reads `1.50ms`, `377.00us`, `3.00s`.
fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60_000.0)
    } else {
        (text.strip_suffix('s')?, 1000.0)
    };
    Some(number.parse::<f64>().ok()? * factor)
}

fn h2load(addr: SocketAddr, path: &str, time: Duration) -> anyhow::Result<Load> {
    let log = tempfile::NamedTempFile::new()?;
    let mut command = pinned("h2load");
    command.args(["-t1", "-c16", "-m16", &format!("-D{}", time.as_secs())]);
    command.arg(format!("--log-file={}", log.path().display()));
    command.arg(format!("--connect-to={addr}"));
    command.arg(format!("https://{HOST}:{}{path}", addr.port()));
    let text = said_of(&mut command)?;
    let mut load = read_h2load(&text).with_context(|| format!("h2load said {text}"))?;
    load.seconds = time.as_secs_f64();
    let mut times: Vec<u64> = fs::read_to_string(log.path())?
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse().ok())
        .collect();
    times.sort_unstable();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .map(|time| *time as f64 / 1000.0)
    };
    (load.p50_ms, load.p99_ms) = (at(50), at(99));
    Ok(load)
}

fn read_h2load(text: &str) -> Option<Load> {
    let line = text.lines().find(|line| line.starts_with("requests:"))?;
    let count = |name: &str| -> Option<u64> {
        let (before, _) = line.split_once(&format!(" {name}"))?;
        before.rsplit([' ', ',']).next()?.parse().ok()
    };
    let statuses = text
        .lines()
        .find(|line| line.starts_with("status codes:"))?;
    let good: u64 = statuses.split_whitespace().nth(2)?.parse().ok()?;
    let requests = count("succeeded")?;
    Some(Load {
        requests,
        errors: count("failed")? + count("errored")? + requests.saturating_sub(good),
        ..Load::default()
    })
}

/// Several clients that connect, ask once and connect again, never resuming.
fn handshakes(addr: SocketAddr, path: &str, time: Duration) -> anyhow::Result<Load> {
    let start = Instant::now();
    let client = |_| {
        pinned("openssl")
            .args([
                "s_time",
                "-new",
                "-tls1_3",
                "-connect",
                &addr.to_string(),
                "-www",
                path,
            ])
            .args(["-time", &time.as_secs().to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    };
    let clients: Vec<Child> = (0..HANDSHAKERS).map(client).collect::<Result<_, _>>()?;
    let mut load = Load::default();
    for client in clients {
        let output = client.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        load.requests += read_s_time(&text).with_context(|| format!("openssl said {text}"))?;
    }
    load.seconds = start.elapsed().as_secs_f64();
    Ok(load)
}

/// `1485 connections in 3 real seconds, … bytes read per connection`
fn read_s_time(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("real seconds"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn h3(addr: SocketAddr, path: &str, time: Duration) -> anyhow::Result<Load> {
    let program = std::env::current_exe()?;
    let mut command = pinned(&program.to_string_lossy());
    command.args([
        "h3-load",
        "--url",
        &format!("https://{HOST}:{}{path}", addr.port()),
    ]);
    command.args(["--connect", &addr.to_string()]);
    command.args(["--connections", "16", "--streams", "8"]);
    command.args(["--seconds", &time.as_secs().to_string()]);
    let text = said_of(&mut command)?;
    let seen: serde_json::Value = serde_json::from_str(&text)?;
    let number = |name: &str| seen[name].as_f64();
    Ok(Load {
        requests: seen["requests"].as_u64().context("requests")?,
        seconds: number("seconds").context("seconds")?,
        errors: seen["errors"].as_u64().unwrap_or(0),
        p50_ms: number("p50_ms"),
        p99_ms: number("p99_ms"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let text = "Running 3s test\n  Latency Distribution\n     50%  377.00us\n     99%    2.22ms\n  484000 requests in 3.10s, 600.00MB read\n  Socket errors: connect 0, read 1, write 0, timeout 2\n  Non-2xx or 3xx responses: 7\n";
        let load = read_wrk(text).unwrap();
        assert_eq!((load.requests, load.errors), (484_000, 10));
        assert_eq!((load.p50_ms, load.p99_ms), (Some(0.377), Some(2.22)));
        assert!(read_wrk("unable to connect").is_none());
    }

    #[test]
    fn what_h2load_says_is_read() {
        let text = "requests: 474000 total, 474100 started, 474000 done, 473000 succeeded, 3 failed, 2 errored, 0 timeout\nstatus codes: 472990 2xx, 0 3xx, 10 4xx, 0 5xx\n";
        let load = read_h2load(text).unwrap();
        assert_eq!((load.requests, load.errors), (473_000, 15));
    }

    #[test]
    fn what_openssl_says_is_read() {
        let text = "\n1485 connections in 1.03s; 1441.75 connections/user sec, bytes read 0\n1500 connections in 4 real seconds, 0 bytes read per connection\n";
        assert_eq!(read_s_time(text), Some(1500));
    }
}
