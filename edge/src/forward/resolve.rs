//! From the addresses a site gave to those that may be connected to.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use helix_routing::routes::{Address, AddressHost};
use tokio::net::lookup_host;
use tokio::time::timeout;

use helix_service::reachable::Reachable;

/// How long one name may take to be looked up: a resolver asks several servers for two seconds each.
const LOOKUP_WAIT: Duration = Duration::from_secs(5);
/// Most addresses taken of one name, so that a name cannot make an edge keep any number of them.
const MAX_OF_ONE_NAME: usize = 8;

/// Why an upstream has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It has none that may be connected to.
    #[error(
        "{name} is at {address}, which this edge does not connect to; its operator can allow it under [upstreams]"
    )]
    Refused {
        /// As the site wrote it.
        name: String,
        /// What it means.
        address: IpAddr,
    },
    /// It is this edge.
    #[error(
        "{name} is at {address}, where this edge itself listens; an upstream has to be another server"
    )]
    Own {
        /// As the site wrote it.
        name: String,
        /// What it means.
        address: SocketAddr,
    },
    /// The name is not known, or nobody could be asked.
    #[error("look up {name}")]
    Lookup {
        /// As the site wrote it.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Every address that `address` means now and that may be connected to.
pub(super) async fn resolve(
    address: &Address,
    reachable: &Reachable,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let found = match &address.host {
        AddressHost::Ip(ip) => vec![SocketAddr::new(*ip, address.port)],
        AddressHost::Name(name) => {
            look_up(name.as_str(), address.port)
                .await
                .map_err(|source| ResolveError::Lookup {
                    name: address.to_string(),
                    source,
                })?
        }
    };
    let is_own = |found: &&SocketAddr| reachable.is_own(**found, is_local);
    if let Some(own) = found.iter().find(is_own) {
        return Err(ResolveError::Own {
            name: address.to_string(),
            address: *own,
        });
    }
    let refused = found
        .iter()
        .find(|found| !reachable.permits(found.ip()))
        .map(SocketAddr::ip);
    let permitted: Vec<_> = found
        .into_iter()
        .filter(|found| reachable.permits(found.ip()))
        .take(MAX_OF_ONE_NAME)
        .collect();
    match refused {
        Some(address_found) if permitted.is_empty() => Err(ResolveError::Refused {
            name: address.to_string(),
            address: address_found,
        }),
        _ => Ok(permitted),
    }
}

/// Whether `ip` is one of this machine's: nobody can bind another's. Nothing is sent.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

async fn look_up(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = timeout(LOOKUP_WAIT, lookup_host((name, port))).await??;
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_judged_by_the_address_it_means() {
        let address: Address = "http://localhost:81".parse().unwrap();
        let refused = resolve(&address, &Reachable::default()).await.unwrap_err();
        assert!(
            matches!(&refused, ResolveError::Refused { address, .. } if address.is_loopback()),
            "{refused}"
        );
        let allow = ["127.0.0.0/8", "::1/128"]
            .map(|network| network.parse().unwrap())
            .to_vec();
        let found = resolve(
            &address,
            &Reachable {
                allow,
                ..Reachable::default()
            },
        )
        .await
        .unwrap();
        assert!(
            !found.is_empty()
                && found
                    .iter()
                    .all(|found| found.ip().is_loopback() && found.port() == 81)
        );
    }

    #[tokio::test]
    async fn an_address_is_judged_as_it_stands() {
        let refused = resolve(
            &"http://169.254.169.254".parse().unwrap(),
            &Reachable::default(),
        )
        .await;
        assert!(matches!(refused, Err(ResolveError::Refused { .. })));
        let public = resolve(&"https://1.1.1.1".parse().unwrap(), &Reachable::default())
            .await
            .unwrap();
        assert_eq!(public, ["1.1.1.1:443".parse().unwrap()]);
    }
}
