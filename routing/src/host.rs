//! Hosts: the name in a request, and the pattern a domain is registered under.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{Environment, InvalidId, SiteId};

const KIND: &str = "host";
const RULE: &str =
    "use a DNS name of at most 253 bytes with labels of at most 63, letters, digits and -";

/// A host: lower case, A-labels (RFC 5890), no port, no trailing dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

impl Host {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first label and the rest: `www` and `example.com`.
    #[must_use]
    pub fn split_label(&self) -> Option<(&str, &str)> {
        self.0.split_once('.')
    }

    /// Whether this is `base` or lies below it.
    #[must_use]
    pub fn is_within(&self, base: &Self) -> bool {
        self.0
            .strip_suffix(base.as_str())
            .is_some_and(|head| head.is_empty() || head.ends_with('.'))
    }

    /// The host of a request's authority (RFC 9110 7.2): a port is dropped, as is one trailing dot.
    ///
    /// # Errors
    /// When it is no DNS name; addresses in brackets are none.
    pub fn from_authority(authority: &str) -> Result<Self, InvalidId> {
        // By bytes: each request comes through here.
        let digits = authority.bytes().rev().take_while(u8::is_ascii_digit);
        let (rest, port) = authority.split_at(authority.len() - digits.count());
        let name = match rest.strip_suffix(':') {
            Some(name) if port.len() <= 5 => name,
            None if !rest.contains(':') => authority,
            _ => return Err(InvalidId::new(KIND, authority, "the port is not a number")),
        };
        name.strip_suffix('.').unwrap_or(name).parse()
    }
}

impl FromStr for Host {
    type Err = InvalidId;

    /// Takes a name in any case, and in Unicode, which becomes A-labels (UTS 46).
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let refused = || InvalidId::new(KIND, text, RULE);
        let name = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(text).map_err(|_| refused())?
        };
        let mut labels = name.as_bytes().split(|byte| *byte == b'.');
        let legal = (1..=253).contains(&name.len()) && labels.all(is_host_label);
        if legal {
            Ok(Self(name))
        } else {
            Err(refused())
        }
    }
}

impl TryFrom<String> for Host {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a domain is registered as: one host, or `*.` and a suffix, which covers exactly one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// This host.
    Exact(Host),
    /// Every host one label below this suffix.
    Wildcard(Host),
}

impl HostPattern {
    /// The host, or the suffix of the wildcard.
    #[must_use]
    pub const fn name(&self) -> &Host {
        match self {
            Self::Exact(host) | Self::Wildcard(host) => host,
        }
    }
}

impl FromStr for HostPattern {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.strip_prefix("*.") {
            Some(suffix) if suffix.contains('.') => Ok(Self::Wildcard(suffix.parse()?)),
            Some(_) => Err(InvalidId::new(
                KIND,
                text,
                "a wildcard needs at least two labels after `*.`",
            )),
            None => Ok(Self::Exact(text.parse()?)),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        match pattern {
            HostPattern::Exact(host) => host.0,
            HostPattern::Wildcard(suffix) => format!("*.{suffix}"),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(self.clone()))
    }
}

/// What a host under the base domain means by its shape alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseHost<'a> {
    /// `<project>.<base>`.
    Production(&'a str),
    /// `preview.<project>.<base>`: the newest settled preview.
    Preview(&'a str),
    /// `<label>.preview.<project>.<base>`: `pr-<n>`, or a release id.
    PreviewLabel {
        /// The first label.
        label: &'a str,
        /// The project's.
        project: &'a str,
    },
}

/// Reads a host under `base` by its shape; none for any other host.
#[must_use]
pub fn under_base<'a>(host: &'a Host, base: &Host) -> Option<BaseHost<'a>> {
    let labels = host
        .as_str()
        .strip_suffix(base.as_str())?
        .strip_suffix('.')?;
    match labels.rsplit_once('.') {
        None => Some(BaseHost::Production(labels)),
        Some(("preview", project)) => Some(BaseHost::Preview(project)),
        Some((rest, project)) => {
            let label = rest.strip_suffix(".preview")?;
            (!label.contains('.')).then_some(BaseHost::PreviewLabel { label, project })
        }
    }
}

/// The host that `label` gives below `parent`.
///
/// # Errors
/// When the result is no legal host.
pub fn join(label: &str, parent: &Host) -> Result<Host, InvalidId> {
    format!("{label}.{parent}").as_str().to_owned().parse()
}

/// The host of a site under the base domain: `<project>.<base>`, or `pr-<n>.preview.<project>.<base>`.
///
/// # Errors
/// When the base domain is too long for the project's name.
pub fn primary(site: &SiteId, base: &Host) -> Result<Host, InvalidId> {
    let project = join(site.project.as_str(), base)?;
    match site.environment {
        Environment::Production => Ok(project),
        Environment::Preview(number) => join(&format!("pr-{number}.preview"), &project),
    }
}

/// One label of a host. An underscore is not legal in a host name (RFC 952, RFC 1123 2.1).
fn is_host_label(label: &[u8]) -> bool {
    let may_stand = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=63).contains(&label.len())
        && label.iter().all(may_stand)
        && !label.starts_with(b"-")
        && !label.ends_with(b"-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn authorities_lose_port_case_and_trailing_dot() {
        for (authority, host) in [
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:80", "example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(Host::from_authority(authority).unwrap().as_str(), host);
        }
        for authority in [
            "",
            ".",
            "a..b",
            "[::1]:80",
            "a b",
            "a_b.example",
            "user@host",
            "host:80x",
            "-a.example",
            "x/y",
        ] {
            assert!(
                Host::from_authority(authority).is_err(),
                "{authority:?} was taken"
            );
        }
    }

    #[test]
    fn wildcards_need_two_labels_and_round_trip() {
        assert_eq!(
            "*.Example.com".parse::<HostPattern>().unwrap().to_string(),
            "*.example.com"
        );
        for text in ["*", "*.", "*.com", "a.*.com", "*.*.com", "**.example.com"] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn hosts_under_the_base_are_read_by_shape() {
        let base: Host = "helix.localhost".parse().unwrap();
        let read = |text: &str| {
            let host: Host = text.parse().unwrap();
            under_base(&host, &base).map(|shape| alloc::format!("{shape:?}"))
        };
        assert_eq!(
            read("shop.helix.localhost").unwrap(),
            "Production(\"shop\")"
        );
        assert_eq!(
            read("preview.shop.helix.localhost").unwrap(),
            "Preview(\"shop\")"
        );
        assert_eq!(
            read("pr-7.preview.shop.helix.localhost").unwrap(),
            "PreviewLabel { label: \"pr-7\", project: \"shop\" }"
        );
        for text in [
            "helix.localhost",
            "xhelix.localhost",
            "a.b.shop.helix.localhost",
            "a.b.preview.shop.helix.localhost",
            "example.com",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
