//! Which hosts a build may reach, and what a request to the proxy asks for.
//!
//! *Pure*. A host is a name in lower case; `*.name` is every name below it and not itself.

/// Hosts that may be reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(Vec<String>);

/// What a request to the proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The head to send on, for plain HTTP; none for a tunnel.
    pub(crate) head: Option<Vec<u8>>,
}

impl Hosts {
    pub(crate) fn new(hosts: &[String]) -> Self {
        Self(
            hosts
                .iter()
                .map(|host| tidy(host))
                .filter(|host| !host.is_empty())
                .collect(),
        )
    }

    pub(crate) fn allow(&self, host: &str) -> bool {
        let host = tidy(host);
        self.0
            .iter()
            .any(|allowed| match allowed.strip_prefix("*.") {
                Some(above) => host
                    .strip_suffix(above)
                    .and_then(|below| below.strip_suffix('.'))
                    .is_some_and(|below| !below.is_empty()),
                None => *allowed == host,
            })
    }
}

fn tidy(host: &str) -> String {
    host.trim()
        .trim_end_matches('.')
        .trim_matches(['[', ']'])
        .to_ascii_lowercase()
}

/// Reads the head of a request to a proxy, up to and with its empty line.
pub(crate) fn read(head: &[u8]) -> Option<Asked> {
    let text = std::str::from_utf8(head).ok()?;
    let (line, rest) = text.split_once("\r\n")?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    if method == "CONNECT" {
        let (host, port) = target.rsplit_once(':')?;
        return Some(Asked {
            host: name(host)?,
            port: port.parse().ok()?,
            head: None,
        });
    }
    let (authority, path) = {
        let rest = target.strip_prefix("http://")?;
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        rest.split_at(at)
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, 80),
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut sent = format!("{method} {slash}{path} {version}\r\n");
    for field in rest.split("\r\n").take_while(|field| !field.is_empty()) {
        let (field_name, _) = field.split_once(':')?;
        // The proxy's own, and what would let a second request, to another host, follow.
        let ours = [
            "connection",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
        ];
        if !ours
            .iter()
            .any(|ours| field_name.eq_ignore_ascii_case(ours))
        {
            sent.push_str(field);
            sent.push_str("\r\n");
        }
    }
    sent.push_str("connection: close\r\n\r\n");
    Some(Asked {
        host: name(host)?,
        port,
        head: Some(sent.into_bytes()),
    })
}

/// A host that can be named in a log.
fn name(host: &str) -> Option<String> {
    let host = tidy(host);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    (!host.is_empty() && host.len() <= 253 && host.chars().all(plain)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_all_below_a_name_are_allowed() {
        let hosts = Hosts::new(&[
            "Registry.npmjs.org".to_owned(),
            "*.example.com".to_owned(),
            " ".to_owned(),
        ]);
        for host in [
            "registry.npmjs.org",
            "REGISTRY.npmjs.org.",
            "a.example.com",
            "a.b.example.com",
        ] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "npmjs.org",
            "evilregistry.npmjs.org",
            "example.com",
            ".example.com",
            "aexample.com",
            "",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn tunnels_and_plain_requests_are_read() {
        let tunnel = read(b"CONNECT registry.npmjs.org:443 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(
            (tunnel.host.as_str(), tunnel.port, tunnel.head),
            ("registry.npmjs.org", 443, None)
        );
        let plain = read(b"GET http://a.test:8080/x?y HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive\r\nProxy-Authorization: s\r\n\r\n").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("a.test", 8080));
        assert_eq!(
            plain.head.unwrap(),
            b"GET /x?y HTTP/1.1\r\nHost: a.test\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            read(b"CONNECT [::1]:443 HTTP/1.1\r\n\r\n").unwrap().host,
            "::1"
        );
    }

    #[test]
    fn what_is_no_request_to_a_proxy_is_refused() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "CONNECT a HTTP/1.1\r\n\r\n",
            "CONNECT a:99999 HTTP/1.1\r\n\r\n",
            "CONNECT a b:1 HTTP/1.1\r\n\r\n",
            "CONNECT \u{1b}[2J:443 HTTP/1.1\r\n\r\n",
            "GET https://a/ HTTP/1.1\r\n\r\n",
            "CONNECT a:1 HTTP/2\r\n\r\n",
            "nonsense",
            "",
        ] {
            assert_eq!(read(head.as_bytes()), None, "{head:?}");
        }
    }
}
