//! A gate as a site writes it: `[[gates]]` in its `helix.toml`.
//!
//! Read once into a [`Gate`], in which every key that was left out has its value. What does not belong to a kind is
//! refused by its key, so that nobody believes in a check that is not made.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::result::GateKind;
use super::{Ask, BUILT_IN, BodyMatch, Gate, HttpAsk, Status, Timing};
use crate::host::Host;
use crate::rollout::PREPARE_DEADLINE;
use crate::routes::{KeyProblem, Span, Upstream, UpstreamProtocol, bounded, is_name};

/// Most gates of a release: all of them are asked at once, on every edge.
const MAX_GATES: usize = 16;
/// Longest path, and longest value of a field, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// Most fields of one request.
const MAX_HEADERS: usize = 16;
/// Most statuses that are good.
const MAX_STATUSES: usize = 16;
/// Most parts of a command.
const MAX_COMMAND_PARTS: usize = 32;

const INTERVAL: RangeInclusive<Span> = Span::from_millis(100)..=Span::from_secs(60);
const TIMEOUT: RangeInclusive<Span> = Span::from_millis(10)..=Span::from_secs(60);
const STREAK: RangeInclusive<u32> = 1..=100;
const DELAY: RangeInclusive<Span> = Span::from_millis(0)..=Span::from_secs(300);
const DEADLINE: RangeInclusive<Span> = Span::from_millis(100)..=Span::from_secs(600);

/// Fields that say where a request goes, or where it ends.
const RESERVED_HEADERS: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
];

/// One `[[gates]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Its name.
    pub name: String,
    /// What it asks: `http`, `tcp`, `grpc` or `exec`.
    pub kind: AskKind,
    /// Whose servers it asks.
    #[serde(default)]
    pub upstream: Option<String>,
    /// Path and query.
    #[serde(default)]
    pub path: Option<String>,
    /// `Host`.
    #[serde(default)]
    pub host: Option<Host>,
    /// Further fields.
    #[serde(default)]
    pub headers: Option<BTreeMap<String, String>>,
    /// Good statuses.
    #[serde(default)]
    pub status: Option<Vec<Status>>,
    /// What the body has to hold.
    #[serde(default)]
    pub body: Option<BodyMatch>,
    /// The service whose health is asked about.
    #[serde(default)]
    pub service: Option<String>,
    /// The program and its arguments.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// From one probe to the next.
    #[serde(default)]
    pub interval: Option<Span>,
    /// How long an answer may take.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Good answers in a row that pass it.
    #[serde(default)]
    pub rise: Option<u32>,
    /// Other answers in a row that end it.
    #[serde(default)]
    pub fall: Option<u32>,
    /// Before the first probe.
    #[serde(default)]
    pub initial_delay: Option<Span>,
    /// From the first probe to the end.
    #[serde(default)]
    pub deadline: Option<Span>,
}

/// What a declared gate asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AskKind {
    /// A request.
    Http,
    /// A connection.
    Tcp,
    /// The health of a gRPC service.
    Grpc,
    /// A command.
    Exec,
}

impl AskKind {
    const fn kind(self) -> GateKind {
        match self {
            Self::Http => GateKind::Http,
            Self::Tcp => GateKind::Tcp,
            Self::Grpc => GateKind::Grpc,
            Self::Exec => GateKind::Exec,
        }
    }

    /// The keys that say what it asks.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Http => &["upstream", "path", "host", "headers", "status", "body"],
            Self::Tcp => &["upstream"],
            Self::Grpc => &["upstream", "service"],
            Self::Exec => &["command"],
        }
    }
}

/// Checks every gate.
///
/// # Errors
/// Names the first key that is wrong.
pub fn check(
    gates: &[GateConfig],
    upstreams: &BTreeMap<String, Upstream>,
) -> Result<(), KeyProblem> {
    parse(gates, upstreams).map(|_| ())
}

/// The gates that are meant.
///
/// # Errors
/// Names the first key that is wrong.
pub fn parse(
    gates: &[GateConfig],
    upstreams: &BTreeMap<String, Upstream>,
) -> Result<Vec<Gate>, KeyProblem> {
    if gates.len() > MAX_GATES {
        let problem = format!("has {} entries; {MAX_GATES} are possible", gates.len());
        return Err(KeyProblem::new("gates", problem));
    }
    let mut names = BTreeSet::new();
    let reading = gates.iter().enumerate().map(|(at, config)| {
        let reader = Reader {
            at,
            config,
            upstreams,
        };
        let gate = reader.gate()?;
        if names.insert(config.name.as_str()) {
            Ok(gate)
        } else {
            Err(reader.wrong("name", "is the name of another gate as well"))
        }
    });
    reading.collect()
}

/// Reads one gate, and knows its place for what it has to say.
struct Reader<'a> {
    at: usize,
    config: &'a GateConfig,
    upstreams: &'a BTreeMap<String, Upstream>,
}

impl Reader<'_> {
    fn gate(&self) -> Result<Gate, KeyProblem> {
        self.check_name()?;
        self.check_keys()?;
        let ask = match self.config.kind {
            AskKind::Http => Ask::Http(self.http()?),
            AskKind::Tcp => Ask::Tcp {
                upstream: self.server()?,
            },
            AskKind::Grpc => self.grpc()?,
            AskKind::Exec => Ask::Exec {
                command: self.command()?,
            },
        };
        let timing = self.timing(&ask)?;
        Ok(Gate {
            name: self.config.name.clone(),
            ask,
            timing,
        })
    }

    fn check_name(&self) -> Result<(), KeyProblem> {
        let name = &self.config.name;
        if !is_name(name) {
            return Err(self.wrong("name", "must have 1 to 63 letters a to z, digits and -"));
        }
        if BUILT_IN.contains(&name.as_str()) {
            let problem = format!("is {name}, which is the name of a gate that every release has");
            return Err(self.wrong("name", problem));
        }
        Ok(())
    }

    /// Refuses what another kind asks with.
    fn check_keys(&self) -> Result<(), KeyProblem> {
        let config = self.config;
        let given = [
            ("upstream", config.upstream.is_some()),
            ("path", config.path.is_some()),
            ("host", config.host.is_some()),
            ("headers", config.headers.is_some()),
            ("status", config.status.is_some()),
            ("body", config.body.is_some()),
            ("service", config.service.is_some()),
            ("command", config.command.is_some()),
        ];
        let keys = config.kind.keys();
        let stray = given
            .iter()
            .find(|(key, is_given)| *is_given && !keys.contains(key));
        stray.map_or(Ok(()), |(key, _)| {
            let kind = config.kind.kind();
            let problem = format!("is no key of kind {kind}, which has {}", keys.join(", "));
            Err(self.wrong(key, problem))
        })
    }

    fn http(&self) -> Result<HttpAsk, KeyProblem> {
        let config = self.config;
        if let Some(upstream) = &config.upstream {
            let named = self.named(upstream)?;
            if config.host.is_some() && named.protocol == UpstreamProtocol::Http2 {
                let problem =
                    format!("is said by host of [upstreams.{upstream}], whose protocol is http2");
                return Err(self.wrong("host", problem));
            }
        }
        let path = config.path.clone().unwrap_or_else(|| "/".to_owned());
        let is_path = path.starts_with('/')
            && path.len() <= MAX_TEXT_BYTES
            && path
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_path {
            let problem = "must start with / and be escaped as a client would send it";
            return Err(self.wrong("path", problem));
        }
        let status = config
            .status
            .clone()
            .unwrap_or_else(|| vec![Status::Class(2)]);
        if !(1..=MAX_STATUSES).contains(&status.len()) {
            let problem = format!("must list 1 to {MAX_STATUSES} statuses");
            return Err(self.wrong("status", problem));
        }
        Ok(HttpAsk {
            upstream: config.upstream.clone(),
            path,
            host: config.host.clone(),
            headers: self.headers()?,
            status,
            body: config.body.clone(),
        })
    }

    fn headers(&self) -> Result<BTreeMap<String, String>, KeyProblem> {
        let given = self.config.headers.clone().unwrap_or_default();
        if given.len() > MAX_HEADERS {
            let problem = format!("has {} entries; {MAX_HEADERS} are possible", given.len());
            return Err(self.wrong("headers", problem));
        }
        let mut headers = BTreeMap::new();
        for (name, value) in given {
            let key = format!("headers.{name}");
            let lower = name.to_ascii_lowercase();
            if !is_field_name(&lower) {
                return Err(self.wrong(&key, "is no name of a header field"));
            }
            if RESERVED_HEADERS.contains(&lower.as_str()) {
                return Err(self.wrong(
                    &key,
                    "is written by the edge; for Host there is the key host",
                ));
            }
            let is_value = value.len() <= MAX_TEXT_BYTES
                && value.trim() == value
                && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            if !is_value {
                let problem = format!("must be at most {MAX_TEXT_BYTES} visible ASCII characters");
                return Err(self.wrong(&key, problem));
            }
            headers.insert(lower, value);
        }
        Ok(headers)
    }

    fn grpc(&self) -> Result<Ask, KeyProblem> {
        let upstream = self.server()?;
        if self.named(&upstream)?.protocol != UpstreamProtocol::Http2 {
            let problem =
                format!("is {upstream}, which needs protocol = \"http2\": gRPC has no other");
            return Err(self.wrong("upstream", problem));
        }
        let service = self.config.service.clone().unwrap_or_default();
        if service.len() > MAX_TEXT_BYTES {
            let problem = format!("is longer than {MAX_TEXT_BYTES} bytes");
            return Err(self.wrong("service", problem));
        }
        Ok(Ask::Grpc { upstream, service })
    }

    fn command(&self) -> Result<Vec<String>, KeyProblem> {
        let command = self.config.command.clone().unwrap_or_default();
        let is_program = command.first().is_some_and(|program| !program.is_empty());
        let is_short = command.len() <= MAX_COMMAND_PARTS
            && command
                .iter()
                .all(|part| part.len() <= MAX_TEXT_BYTES && !part.contains('\0'));
        if is_program && is_short {
            return Ok(command);
        }
        let problem = format!(
            "must list a program and its arguments, at most {MAX_COMMAND_PARTS} of at most {MAX_TEXT_BYTES} bytes"
        );
        Err(self.wrong("command", problem))
    }

    /// The upstream of a kind that needs one.
    fn server(&self) -> Result<String, KeyProblem> {
        let Some(upstream) = &self.config.upstream else {
            let problem = format!(
                "is missing: kind {} asks the servers of an upstream",
                self.config.kind.kind()
            );
            return Err(self.wrong("upstream", problem));
        };
        self.named(upstream)?;
        Ok(upstream.clone())
    }

    fn named(&self, upstream: &str) -> Result<&Upstream, KeyProblem> {
        self.upstreams.get(upstream).ok_or_else(|| {
            let shown: String = upstream
                .chars()
                .take(63)
                .flat_map(char::escape_default)
                .collect();
            self.wrong("upstream", format!("there is no [upstreams.{shown}]"))
        })
    }

    fn timing(&self, ask: &Ask) -> Result<Timing, KeyProblem> {
        let config = self.config;
        // Files of a release that needs no server answer the same each time.
        let is_static = self.upstreams.is_empty() && matches!(ask, Ask::Http(_));
        let timing = Timing {
            interval: config.interval.unwrap_or(Span::from_secs(1)),
            timeout: config.timeout.unwrap_or(Span::from_secs(2)),
            rise: config.rise.unwrap_or(if is_static { 1 } else { 3 }),
            fall: config.fall.or_else(|| is_static.then_some(3)),
            initial_delay: config.initial_delay.unwrap_or(Span::from_millis(0)),
            deadline: config
                .deadline
                .unwrap_or(Span::from_secs(PREPARE_DEADLINE.as_secs())),
        };
        bounded(self.key("interval"), timing.interval, &INTERVAL)?;
        bounded(self.key("timeout"), timing.timeout, &TIMEOUT)?;
        bounded(self.key("rise"), timing.rise, &STREAK)?;
        if let Some(fall) = timing.fall {
            bounded(self.key("fall"), fall, &STREAK)?;
        }
        bounded(self.key("initial_delay"), timing.initial_delay, &DELAY)?;
        bounded(self.key("deadline"), timing.deadline, &DEADLINE)?;
        let least = timing.interval.duration() * (timing.rise - 1);
        if least >= timing.deadline.duration() {
            let problem = format!(
                "is {}, too short for {} answers, one every {}",
                timing.deadline, timing.rise, timing.interval
            );
            return Err(self.wrong("deadline", problem));
        }
        Ok(timing)
    }

    fn key(&self, key: &str) -> String {
        format!("gates[{}].{key}", self.at)
    }

    fn wrong(&self, key: &str, problem: impl Into<String>) -> KeyProblem {
        KeyProblem::new(self.key(key), problem)
    }
}

/// A token (RFC 9110 5.6.2).
fn is_field_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
