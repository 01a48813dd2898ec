//! Which addresses may be connected to on behalf of somebody else: by an edge for a site, by origin for a webhook.
//!
//! Pure. A site names its upstreams, so without this it could reach whatever the edge can: the edge's own
//! admin address, a cloud's metadata, its neighbours. What is asked about is the very address that is then
//! connected to, after any lookup, so a name cannot mean one thing here and another there.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// IPv4 ranges that are not the public internet (RFC 6890 and the IANA special-purpose registry).
const SPECIAL_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The only IPv6 range that is assigned for the public internet.
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What in it is not: protocol assignments with Teredo, documentation, 6to4, which all may lead elsewhere.
const SPECIAL_V6: [(Ipv6Addr, u8); 5] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// A range of addresses, written `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The text is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no range of addresses: write one as \"10.0.0.0/8\" or \"fd00::/8\", with no bit set behind the prefix"
)]
pub struct InvalidNetwork(String);

/// The addresses an operator lets sites reach besides public ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reachable {
    /// Ranges that are permitted although they are loopback, private or otherwise special.
    pub allow: Vec<Network>,
    /// Where this edge itself listens, its operator's address among it: no site reaches that, whatever is allowed.
    #[serde(skip)]
    pub own: Vec<SocketAddr>,
}

impl Reachable {
    /// Whether `address` may be connected to.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        // `::ffff:127.0.0.1` reaches what `127.0.0.1` does.
        let address = address.to_canonical();
        is_public(address) || self.allow.iter().any(|network| network.contains(address))
    }

    /// Whether this edge itself listens at `address`, which is `local` if it is one of this machine's.
    #[must_use]
    pub fn is_own(&self, address: SocketAddr, local: impl FnOnce(IpAddr) -> bool) -> bool {
        let ip = address.ip().to_canonical();
        let same_port = || self.own.iter().filter(|own| own.port() == address.port());
        // To connect to `0.0.0.0` is to connect to this machine, and to listen there is to listen everywhere.
        let everywhere = || same_port().any(|own| own.ip().is_unspecified() || ip.is_unspecified());
        same_port().any(|own| own.ip().to_canonical() == ip) || everywhere() && local(ip)
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4
            .iter()
            .any(|network| within_v4(address, *network)),
        IpAddr::V6(address) => {
            within_v6(address, PUBLIC_V6)
                && !SPECIAL_V6
                    .iter()
                    .any(|network| within_v6(address, *network))
        }
    }
}

fn within_v4(address: Ipv4Addr, (network, prefix): (Ipv4Addr, u8)) -> bool {
    let behind = 32 - u32::from(prefix);
    (address.to_bits() ^ network.to_bits())
        .checked_shr(behind)
        .unwrap_or(0)
        == 0
}

fn within_v6(address: Ipv6Addr, (network, prefix): (Ipv6Addr, u8)) -> bool {
    let behind = 128 - u32::from(prefix);
    (address.to_bits() ^ network.to_bits())
        .checked_shr(behind)
        .unwrap_or(0)
        == 0
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (address, self.address) {
            (IpAddr::V4(address), IpAddr::V4(network)) => {
                within_v4(address, (network, self.prefix))
            }
            (IpAddr::V6(address), IpAddr::V6(network)) => {
                within_v6(address, (network, self.prefix))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether no bit is set behind the prefix: one that is was meant for something else.
    fn is_tidy(&self) -> bool {
        match self.address {
            IpAddr::V4(address) => {
                address
                    .to_bits()
                    .checked_shl(u32::from(self.prefix))
                    .unwrap_or(0)
                    == 0
            }
            IpAddr::V6(address) => {
                address
                    .to_bits()
                    .checked_shl(u32::from(self.prefix))
                    .unwrap_or(0)
                    == 0
            }
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let parsed = || {
            let (address, prefix) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let prefix: u8 = prefix.parse().ok()?;
            let widest = if address.is_ipv4() { 32 } else { 128 };
            let network = Self { address, prefix };
            (prefix <= widest && network.is_tidy()).then_some(network)
        };
        parsed().ok_or_else(|| InvalidNetwork(text.chars().take(60).collect()))
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        format!("{}/{}", network.address, network.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(allow: &[&str], address: &str) -> bool {
        let allow = allow
            .iter()
            .map(|network| network.parse().unwrap())
            .collect();
        let own = Vec::new();
        Reachable { allow, own }.permits(address.parse().unwrap())
    }

    #[test]
    fn what_the_edge_itself_listens_on_is_known_however_it_is_written() {
        let own = ["127.0.0.1:9000", "0.0.0.0:8080", "[::]:8443"];
        let reachable = Reachable {
            own: own.map(|own| own.parse().unwrap()).to_vec(),
            ..Reachable::default()
        };
        let is_own = |address: &str, local| reachable.is_own(address.parse().unwrap(), |_| local);
        for address in ["127.0.0.1:9000", "[::ffff:127.0.0.1]:9000"] {
            assert!(is_own(address, false), "{address}");
        }
        for address in [
            "0.0.0.0:9000",
            "10.0.0.1:8080",
            "[::1]:8443",
            "127.0.0.2:8080",
        ] {
            assert!(is_own(address, true), "{address}");
        }
        for (address, local) in [
            ("127.0.0.1:9001", true),
            ("127.0.0.2:9000", true),
            ("10.0.0.1:8080", false),
        ] {
            assert!(!is_own(address, local), "{address}");
        }
    }

    #[test]
    fn only_public_addresses_are_reached_unless_the_operator_says_so() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "2001:4860::8888",
            "::ffff:1.1.1.1",
        ] {
            assert!(permits(&[], address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(!permits(&[], address), "{address}");
        }
    }

    #[test]
    fn a_range_permits_what_lies_in_it_and_nothing_else() {
        assert!(permits(&["127.0.0.0/8"], "127.0.0.1"));
        assert!(permits(&["127.0.0.0/8"], "::ffff:127.0.0.1"));
        assert!(!permits(&["127.0.0.0/8"], "::1"));
        assert!(!permits(&["127.0.0.0/8"], "10.0.0.1"));
        assert!(permits(&["10.1.0.0/16", "::1/128"], "::1"));
        assert!(!permits(&["10.1.0.0/16"], "10.2.0.1"));
        assert!(permits(&["0.0.0.0/0"], "169.254.169.254"));
        assert!(permits(&["fd00::/8"], "fd00::1"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10/8",
            "::/129",
            "a/8",
            "10.0.0.0/-1",
            "1.0.0.0/0",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
