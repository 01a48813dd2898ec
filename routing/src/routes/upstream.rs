//! Servers that requests are sent on to: where they are, how they are spoken to, how long they are waited for.
//!
//! Every number has bounds, checked by [`Upstream::check`] where a site is deployed. Whether an edge may
//! connect to an address at all is for the edge to decide, on the address a name turned out to mean.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::ops::RangeInclusive;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{KeyProblem, Span};
use crate::host::Host;

/// Most addresses of one upstream: more servers belong behind a name.
pub(super) const MAX_ADDRESSES: usize = 32;
/// Most bytes of certificates that an upstream may name as its authorities: about twenty.
pub(super) const MAX_CA_BYTES: usize = 64 * 1024;

const CONNECT: RangeInclusive<Span> = Span::from_millis(10)..=Span::from_secs(60);
const WAITS: RangeInclusive<Span> = Span::from_millis(100)..=Span::from_secs(3600);
const CONNECTIONS: RangeInclusive<u32> = 1..=10_000;
const INTERVAL: RangeInclusive<Span> = Span::from_millis(500)..=Span::from_secs(600);
const STREAK: RangeInclusive<u32> = 1..=100;
const STATUS: RangeInclusive<u16> = 200..=499;

/// Servers that answer alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `http://` or `https://`, host and port of each.
    pub addresses: Vec<Address>,
    /// What they speak.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: UpstreamProtocol,
    /// `Host` they are sent, and the name their certificate must have. Without it, the client's host and the
    /// address's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// How long they are waited for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// Most connections of one edge to one address.
    #[serde(default = "default_connections")]
    pub max_connections: u32,
    /// How an edge asks whether one is well; without it, only requests show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// What is trusted over `https://`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: UpstreamTls,
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over `https://`, with prior knowledge over `http://`.
    Http2,
}

/// How long an upstream is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Span,
    /// From the whole request to the head of the response.
    pub response: Span,
    /// How long either body may stand still.
    pub stall: Span,
    /// How long an unused connection is kept.
    pub idle: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Span::from_secs(2),
            response: Span::from_secs(60),
            stall: Span::from_secs(60),
            // Below the five seconds after which many servers close one, which would lose the request just sent.
            idle: Span::from_secs(4),
        }
    }
}

/// How an edge asks whether a server is well: GET, and the status decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Path and query asked for.
    pub path: String,
    /// How often.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// How long an answer may take.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Good answers in a row that bring one back.
    #[serde(default = "default_healthy_after")]
    pub healthy_after: u32,
    /// Bad or missing answers in a row that take one out.
    #[serde(default = "default_unhealthy_after")]
    pub unhealthy_after: u32,
    /// The only good status; without it, 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// What is trusted over `https://`. That a certificate is checked cannot be turned off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// Certificates of the authorities that are trusted, in PEM; without them, the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Where one server is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// Whether TLS is spoken.
    pub secure: bool,
    /// The host.
    pub host: AddressHost,
    /// The port.
    pub port: u16,
}

/// The host of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressHost {
    /// An address that needs no lookup.
    Ip(IpAddr),
    /// A name to be looked up.
    Name(Host),
}

/// The text is no address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}; write http:// or https://, a host and maybe a port")]
pub struct InvalidAddress {
    text: String,
    problem: &'static str,
}

impl Upstream {
    /// One server, spoken to as every other is where nothing else is said.
    pub(super) fn of(address: Address, host: Option<Host>) -> Self {
        Self {
            addresses: Vec::from([address]),
            protocol: UpstreamProtocol::default(),
            host,
            timeouts: Timeouts::default(),
            max_connections: default_connections(),
            health: None,
            tls: UpstreamTls::default(),
        }
    }

    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// Names the first key, below `upstreams.<name>`, that is wrong.
    pub fn check(&self, name: &str) -> Result<(), KeyProblem> {
        let key = |key: &str| format!("upstreams.{name}.{key}");
        if self.addresses.is_empty() || self.addresses.len() > MAX_ADDRESSES {
            let problem = format!(
                "has {} addresses; 1 to {MAX_ADDRESSES} are possible",
                self.addresses.len()
            );
            return Err(KeyProblem::new(key("addresses"), problem));
        }
        if self
            .addresses
            .iter()
            .any(|address| address.secure != self.addresses[0].secure)
        {
            return Err(KeyProblem::new(
                key("addresses"),
                "mixes http:// and https://; use one for all",
            ));
        }
        let waits = &self.timeouts;
        bounded(key("timeouts.connect"), waits.connect, &CONNECT)?;
        bounded(key("timeouts.response"), waits.response, &WAITS)?;
        bounded(key("timeouts.stall"), waits.stall, &WAITS)?;
        bounded(key("timeouts.idle"), waits.idle, &WAITS)?;
        bounded(key("max_connections"), self.max_connections, &CONNECTIONS)?;
        if self
            .tls
            .ca
            .as_ref()
            .is_some_and(|ca| ca.len() > MAX_CA_BYTES)
        {
            return Err(KeyProblem::new(
                key("tls.ca"),
                format!("is larger than {MAX_CA_BYTES} bytes"),
            ));
        }
        self.health
            .as_ref()
            .map_or(Ok(()), |health| health.check(name))
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.addresses.first().is_some_and(|address| address.secure)
    }
}

impl HealthCheck {
    fn check(&self, name: &str) -> Result<(), KeyProblem> {
        let key = |key: &str| format!("upstreams.{name}.health.{key}");
        let legal = self.path.starts_with('/')
            && self.path.len() <= super::forward::MAX_PATH_BYTES
            && self
                .path
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !legal {
            return Err(KeyProblem::new(
                key("path"),
                "must start with / and be escaped as a client would send it",
            ));
        }
        bounded(key("interval"), self.interval, &INTERVAL)?;
        bounded(key("timeout"), self.timeout, &CONNECT)?;
        bounded(key("healthy_after"), self.healthy_after, &STREAK)?;
        bounded(key("unhealthy_after"), self.unhealthy_after, &STREAK)?;
        self.status
            .map_or(Ok(()), |status| bounded(key("status"), status, &STATUS))
    }

    /// Whether an answer with this status is a good one.
    #[must_use]
    pub fn is_good(&self, status: u16) -> bool {
        self.status
            .map_or_else(|| (200..400).contains(&status), |wanted| status == wanted)
    }
}

/// Refuses a value out of its bounds, and says which they are.
pub(crate) fn bounded<T: PartialOrd + fmt::Display>(
    key: String,
    value: T,
    bounds: &RangeInclusive<T>,
) -> Result<(), KeyProblem> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let problem = format!(
        "is {value}; {} to {} are possible",
        bounds.start(),
        bounds.end()
    );
    Err(KeyProblem::new(key, problem))
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let refused = |problem| InvalidAddress {
            text: text.chars().take(100).collect(),
            problem,
        };
        let (secure, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(refused("has no scheme")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return Err(refused("has more than a host and a port"));
        }
        let (host, port) = split_port(rest)
            .ok_or_else(|| refused("has a port that is no number from 1 to 65535"))?;
        let host = address_host(host)
            .ok_or_else(|| refused("has a host that is neither an address nor a DNS name"))?;
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { secure, host, port })
    }
}

/// Host and port; the outer `None` when the port is none.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_host = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[after_host..].rfind(':') {
        None => Some((authority, None)),
        Some(colon) => {
            let (host, port) = authority.split_at(after_host + colon);
            let digits = &port[1..];
            let port = digits.parse().ok().filter(|port: &u16| *port > 0)?;
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then_some((host, Some(port)))
        }
    }
}

fn address_host(text: &str) -> Option<AddressHost> {
    if let Some(inner) = text.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(AddressHost::Ip(IpAddr::V6(address)));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return address.is_ipv4().then_some(AddressHost::Ip(address));
    }
    let name: Host = text.parse().ok()?;
    // Resolvers read `127.1`, `0x7f000001` and the like as addresses; whoever means one writes it plainly.
    let last = name.as_str().rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    (!numeric).then_some(AddressHost::Name(name))
}

impl fmt::Display for AddressHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => write!(f, "{}", name.as_str()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn default_connections() -> u32 {
    256
}

const fn default_interval() -> Span {
    Span::from_secs(5)
}

const fn default_timeout() -> Span {
    Span::from_secs(2)
}

const fn default_healthy_after() -> u32 {
    2
}

const fn default_unhealthy_after() -> u32 {
    3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for (text, written) in [
            ("http://10.0.0.5:8080", "http://10.0.0.5:8080"),
            ("https://api.internal", "https://api.internal:443"),
            ("http://API.example/", "http://api.example:80"),
            ("http://[::1]:81", "http://[::1]:81"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn what_could_mean_another_server_is_no_address() {
        for text in [
            "",
            "10.0.0.5:8080",
            "ftp://a.example",
            "unix:/run/a",
            "http://",
            "http://a.example:0",
            "http://a.example:65536",
            "http://a.example:+80",
            "http://a.example:",
            "http://user@a.example",
            "http://a.example/path",
            "http://a.example?x",
            "http://a.example\\@b.example",
            "http://127.1",
            "http://2130706433",
            "http://0x7f000001",
            "http://0177.0.0.1",
            "http://a.example.0x1",
            "http://::1",
            "http://[::1",
            "http://[127.0.0.1]",
            "http://[fe80::1%eth0]",
            "http:// a.example",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    fn upstream() -> Upstream {
        Upstream {
            addresses: alloc::vec!["http://a.example".parse().unwrap()],
            protocol: UpstreamProtocol::Http1,
            host: None,
            timeouts: Timeouts::default(),
            max_connections: default_connections(),
            health: None,
            tls: UpstreamTls::default(),
        }
    }

    #[test]
    fn a_wrong_number_is_told_by_its_key() {
        assert_eq!(upstream().check("api"), Ok(()));
        let mut wrong = upstream();
        wrong.timeouts.connect = Span::from_secs(61);
        let problem = wrong.check("api").unwrap_err();
        assert_eq!(problem.key, "upstreams.api.timeouts.connect");
        assert_eq!(problem.problem, "is 61s; 10ms to 1m are possible");
        let mut wrong = upstream();
        wrong.addresses.clear();
        assert_eq!(
            wrong.check("api").unwrap_err().key,
            "upstreams.api.addresses"
        );
        let mut wrong = upstream();
        wrong.max_connections = 0;
        assert_eq!(
            wrong.check("api").unwrap_err().key,
            "upstreams.api.max_connections"
        );
    }

    #[test]
    fn an_upstream_needs_only_its_addresses() {
        let least = r#"{"addresses":["http://a.example"]}"#;
        assert_eq!(serde_json::from_str::<Upstream>(least).unwrap(), upstream());
        let unknown = r#"{"addresses":["http://a.example"],"insecure":true}"#;
        assert!(serde_json::from_str::<Upstream>(unknown).is_err());
    }
}
